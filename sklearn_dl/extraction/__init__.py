"""From images to the outputs of a network: one path for features and predictions."""

from sklearn_dl.extraction._pixels import PixelReader, channel_statistics
from sklearn_dl.extraction._run import run_network

__all__ = ["PixelReader", "channel_statistics", "run_network"]
