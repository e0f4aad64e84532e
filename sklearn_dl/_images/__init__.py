"""Any X becomes a row-indexable source of images; decoding; verification."""

from sklearn_dl._images._arrays import check_image_shape, row_shape
from sklearn_dl._images._arrays import image_array as image_array
from sklearn_dl._images._arrays import is_tensor as is_tensor
from sklearn_dl._images._coerce import as_source
from sklearn_dl._images._dataset_item import DatasetItem
from sklearn_dl._images._decode import decode_image
from sklearn_dl._images._digests import digest_image
from sklearn_dl._images._errors import ImageDecodeError
from sklearn_dl._images._source import ImageSource
from sklearn_dl._images._verify import verify_images

__all__ = [
    "DatasetItem",
    "ImageDecodeError",
    "ImageSource",
    "as_source",
    "check_image_shape",
    "decode_image",
    "digest_image",
    "row_shape",
    "verify_images",
]
