"""From images to the outputs of a network: one path for features and predictions."""

from sklearn_dl._extraction._cache import FeatureCache, resolve_cache
from sklearn_dl._extraction._file import write_features
from sklearn_dl._extraction._maps import KeptMaps, has_room
from sklearn_dl._extraction._pixels import PixelReader, channel_statistics
from sklearn_dl._extraction._predict import (
    OnFeatures,
    OnMaps,
    maps_first,
    progress,
    run_frozen,
    run_network,
)

__all__ = [
    "FeatureCache",
    "KeptMaps",
    "OnFeatures",
    "OnMaps",
    "PixelReader",
    "channel_statistics",
    "has_room",
    "maps_first",
    "progress",
    "resolve_cache",
    "run_frozen",
    "run_network",
    "write_features",
]
