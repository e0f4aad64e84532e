"""From images to the outputs of a network: one path for features and predictions."""

from sklearn_dl.extraction._cache import FeatureCache, resolve_cache
from sklearn_dl.extraction._frozen import run_frozen
from sklearn_dl.extraction._pixels import PixelReader, channel_statistics
from sklearn_dl.extraction._run import OnFeatures, run_network

__all__ = [
    "FeatureCache",
    "OnFeatures",
    "PixelReader",
    "channel_statistics",
    "resolve_cache",
    "run_frozen",
    "run_network",
]
