"""Random changes of training images, mixtures of them, and views for prediction."""

from typing import TYPE_CHECKING

from sklearn_dl._lazy import lazy
from sklearn_dl.augmentation._augmenter import Augmenter
from sklearn_dl.augmentation._mix import mix_batch
from sklearn_dl.augmentation._presets import (
    AUGMENTATIONS,
    PRESETS,
    Augment,
    resolve_augment,
)
from sklearn_dl.augmentation._views import Views, resolve_views

if TYPE_CHECKING:
    from sklearn_dl.augmentation._plot import (
        AugmentationDisplay as AugmentationDisplay,
    )
    from sklearn_dl.augmentation._plot import plot_augmentations

__all__ = [
    "AUGMENTATIONS",
    "PRESETS",
    "Augment",
    "Augmenter",
    "Views",
    "mix_batch",
    "plot_augmentations",
    "resolve_augment",
    "resolve_views",
]

_PLOT = "sklearn_dl.augmentation._plot"
__getattr__, __dir__ = lazy(
    __name__, {"AugmentationDisplay": _PLOT, "plot_augmentations": _PLOT}
)
