"""Pretrained torchvision backbones as scikit-learn estimators for images."""

from typing import TYPE_CHECKING

from sklearn_dl._lazy import lazy

__version__ = "0.1.0.dev0"

if TYPE_CHECKING:
    from sklearn_dl import (
        augmentation,
        datasets,
        ensemble,
        inspection,
        model_selection,
        persistence,
        training,
    )
    from sklearn_dl._classifier import ImageClassifier
    from sklearn_dl._extraction import FeatureCache
    from sklearn_dl._features import ImageFeatureExtractor, make_feature_classifier
    from sklearn_dl._linear import FeatureScaler, FeatureSVC
    from sklearn_dl._regressor import ImageRegressor
    from sklearn_dl.backbones import list_backbones

__all__ = [
    "FeatureCache",
    "FeatureSVC",
    "FeatureScaler",
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
    "persistence",
    "training",
]

# Where each public name lives: torch is imported when a name that needs it is used.
__getattr__, __dir__ = lazy(
    __name__,
    {
        "FeatureCache": "sklearn_dl._extraction",
        "FeatureSVC": "sklearn_dl._linear",
        "FeatureScaler": "sklearn_dl._linear",
        "ImageClassifier": "sklearn_dl._classifier",
        "ImageFeatureExtractor": "sklearn_dl._features",
        "ImageRegressor": "sklearn_dl._regressor",
        "augmentation": "sklearn_dl.augmentation",
        "datasets": "sklearn_dl.datasets",
        "ensemble": "sklearn_dl.ensemble",
        "inspection": "sklearn_dl.inspection",
        "list_backbones": "sklearn_dl.backbones",
        "make_feature_classifier": "sklearn_dl._features",
        "model_selection": "sklearn_dl.model_selection",
        "persistence": "sklearn_dl.persistence",
        "training": "sklearn_dl.training",
    },
)
