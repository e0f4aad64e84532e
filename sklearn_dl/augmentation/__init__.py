"""Random changes of training images, mixtures of them, and views for prediction."""

from sklearn_dl.augmentation._colour import ColourMap as ColourMap
from sklearn_dl.augmentation._damage import gaussian_blur as gaussian_blur
from sklearn_dl.augmentation._damage import jpeg as jpeg
from sklearn_dl.augmentation._geometry import rotation_matrix as rotation_matrix
from sklearn_dl.augmentation._geometry import scale_matrix as scale_matrix
from sklearn_dl.augmentation._geometry import shear_matrix as shear_matrix
from sklearn_dl.augmentation._geometry import translation_matrix as translation_matrix
from sklearn_dl.augmentation._geometry import warp as warp
from sklearn_dl.augmentation._images import plain_view as plain_view
from sklearn_dl.augmentation._images import to_bytes as to_bytes
from sklearn_dl.augmentation._images import to_floats as to_floats
from sklearn_dl.augmentation._images import to_image as to_image
from sklearn_dl.augmentation._images import to_pixels as to_pixels
from sklearn_dl.augmentation._mix import Mixing as Mixing
from sklearn_dl.augmentation._presets import AUGMENTATIONS, PRESETS, Augment
from sklearn_dl.augmentation._presets import resolve_augment as resolve_augment
from sklearn_dl.augmentation._views import resolve_views as resolve_views

# For users; the other names are for other rooms.
__all__ = ["AUGMENTATIONS", "PRESETS", "Augment"]
