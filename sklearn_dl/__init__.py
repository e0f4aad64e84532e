"""Pretrained torchvision backbones as scikit-learn estimators for images."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

if TYPE_CHECKING:
    from sklearn_dl import (
        augmentation,
        datasets,
        ensemble,
        inspection,
        model_selection,
        training,
    )
    from sklearn_dl._classifier import ImageClassifier
    from sklearn_dl._features import ImageFeatureExtractor, make_feature_classifier
    from sklearn_dl._regressor import ImageRegressor
    from sklearn_dl.backbones import list_backbones
    from sklearn_dl.extraction import FeatureCache

__all__ = [
    "FeatureCache",
    "ImageClassifier",
    "ImageFeatureExtractor",
    "ImageRegressor",
    "augmentation",
    "datasets",
    "ensemble",
    "inspection",
    "list_backbones",
    "make_feature_classifier",
    "model_selection",
    "training",
]

# Where each public name lives: torch is imported when a name that needs it is used.
_HOMES = {
    "FeatureCache": "sklearn_dl.extraction",
    "ImageClassifier": "sklearn_dl._classifier",
    "ImageFeatureExtractor": "sklearn_dl._features",
    "ImageRegressor": "sklearn_dl._regressor",
    "list_backbones": "sklearn_dl.backbones",
    "make_feature_classifier": "sklearn_dl._features",
}


def __getattr__(name: str) -> Any:
    """Load a public name on first use (PEP 562)."""
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    elif name in __all__:
        value = import_module(f"sklearn_dl.{name}")
    else:
        raise AttributeError(f"module 'sklearn_dl' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
