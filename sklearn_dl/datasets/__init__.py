"""Loaders: folders, tables, sheets of pixels and torch datasets -> X and y."""

from sklearn_dl._images import verify_images
from sklearn_dl.datasets._csv import load_image_csv
from sklearn_dl.datasets._folder import images_below as images_below
from sklearn_dl.datasets._folder import load_image_folder
from sklearn_dl.datasets._frame import load_image_frame
from sklearn_dl.datasets._torch import load_torch_dataset

__all__ = [
    "load_image_csv",
    "load_image_folder",
    "load_image_frame",
    "load_torch_dataset",
    "verify_images",
]
