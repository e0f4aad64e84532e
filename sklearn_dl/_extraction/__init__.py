"""From images to the outputs of a network: one path for features and predictions."""

from sklearn_dl._extraction._cache import FeatureCache, resolve_cache
from sklearn_dl._extraction._frozen import run_frozen
from sklearn_dl._extraction._pixels import PixelReader, channel_statistics
from sklearn_dl._extraction._run import OnFeatures, run_network
from sklearn_dl._extraction._run import progress as progress

__all__ = [
    "FeatureCache",
    "OnFeatures",
    "PixelReader",
    "channel_statistics",
    "resolve_cache",
    "run_frozen",
    "run_network",
]
