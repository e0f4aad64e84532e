"""Any X becomes a row-indexable source of images; decoding; verification."""

from sklearn_dl._images._arrays import check_image_shape as check_image_shape
from sklearn_dl._images._arrays import image_array as image_array
from sklearn_dl._images._arrays import is_tensor as is_tensor
from sklearn_dl._images._arrays import row_shape as row_shape
from sklearn_dl._images._channels import LUMA as LUMA
from sklearn_dl._images._channels import Channels as Channels
from sklearn_dl._images._channels import Selection as Selection
from sklearn_dl._images._coerce import Asked as Asked
from sklearn_dl._images._coerce import as_source as as_source
from sklearn_dl._images._decode import decode_image as decode_image
from sklearn_dl._images._digests import digest_image as digest_image
from sklearn_dl._images._errors import ImageDecodeError as ImageDecodeError
from sklearn_dl._images._geometry import part_seen as part_seen
from sklearn_dl._images._geometry import resize_part as resize_part
from sklearn_dl._images._geometry import resized_size as resized_size
from sklearn_dl._images._geometry import strip_part as strip_part
from sklearn_dl._images._numbers import FILTERS as FILTERS
from sklearn_dl._images._numbers import check_preprocessing as check_preprocessing
from sklearn_dl._images._source import DatasetItem as DatasetItem
from sklearn_dl._images._source import ImageSource as ImageSource
from sklearn_dl._images._verify import failed_images as failed_images
from sklearn_dl._images._verify import look_at_images as look_at_images
from sklearn_dl._images._verify import verify_images as verify_images
