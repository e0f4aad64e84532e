"""Loaders of images, targets and features, from folders, tables, files, datasets."""

from sklearn_dl._images import (
    Channels,
    ImageDecodeError,
    decode_image,
    verify_images,
)
from sklearn_dl.datasets._corrections import apply_corrections
from sklearn_dl.datasets._corrections import target_text as target_text
from sklearn_dl.datasets._csv import load_image_csv
from sklearn_dl.datasets._features import errors_of_written as errors_of_written
from sklearn_dl.datasets._features import iter_features, load_features
from sklearn_dl.datasets._features_file import FeaturesTable as FeaturesTable
from sklearn_dl.datasets._features_file import FeaturesWriter as FeaturesWriter
from sklearn_dl.datasets._features_file import TakenOver as TakenOver
from sklearn_dl.datasets._features_file import check_count as check_count
from sklearn_dl.datasets._features_file import (
    check_features_dtype as check_features_dtype,
)
from sklearn_dl.datasets._features_file import (
    check_features_path as check_features_path,
)
from sklearn_dl.datasets._features_file import check_shard as check_shard
from sklearn_dl.datasets._features_file import send_features as send_features
from sklearn_dl.datasets._features_file import shard_path as shard_path
from sklearn_dl.datasets._features_file import shard_rows as shard_rows
from sklearn_dl.datasets._folder import images_below as images_below
from sklearn_dl.datasets._folder import load_image_folder
from sklearn_dl.datasets._frame import load_image_frame
from sklearn_dl.datasets._torch import load_torch_dataset

__all__ = [
    "Channels",
    "ImageDecodeError",
    "apply_corrections",
    "decode_image",
    "iter_features",
    "load_features",
    "load_image_csv",
    "load_image_folder",
    "load_image_frame",
    "load_torch_dataset",
    "verify_images",
]
