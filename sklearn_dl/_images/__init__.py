"""Any X becomes a row-indexable source of images; decoding; verification."""

from sklearn_dl._images._arrays import (
    check_image_shape,
    image_array,
    is_tensor,
    row_shape,
)
from sklearn_dl._images._coerce import as_source
from sklearn_dl._images._decode import decode_image
from sklearn_dl._images._digests import digest_image
from sklearn_dl._images._errors import ImageDecodeError
from sklearn_dl._images._source import DatasetItem, ImageSource
from sklearn_dl._images._verify import verify_images

__all__ = [
    "DatasetItem",
    "ImageDecodeError",
    "ImageSource",
    "as_source",
    "check_image_shape",
    "decode_image",
    "digest_image",
    "image_array",
    "is_tensor",
    "row_shape",
    "verify_images",
]
