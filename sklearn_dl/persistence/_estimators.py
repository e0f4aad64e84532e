"""Stands in until the exports name its home."""

from sklearn_dl._saving import HELD as HELD
from sklearn_dl._saving import set_network as set_network
