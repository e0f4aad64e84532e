"""Stands in until the exports name its home."""

from sklearn_dl._saving import versions as versions
