"""Loaders of images and targets: folders, tables, sheets of pixels, torch datasets."""

from sklearn_dl._images import (
    Channels,
    ImageDecodeError,
    decode_image,
    verify_images,
)
from sklearn_dl.datasets._corrections import apply_corrections
from sklearn_dl.datasets._corrections import target_text as target_text
from sklearn_dl.datasets._csv import load_image_csv
from sklearn_dl.datasets._folder import images_below as images_below
from sklearn_dl.datasets._folder import load_image_folder
from sklearn_dl.datasets._frame import load_image_frame
from sklearn_dl.datasets._torch import load_torch_dataset

__all__ = [
    "Channels",
    "ImageDecodeError",
    "apply_corrections",
    "decode_image",
    "load_image_csv",
    "load_image_folder",
    "load_image_frame",
    "load_torch_dataset",
    "verify_images",
]
