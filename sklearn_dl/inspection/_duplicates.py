"""Pairs of images that look nearly alike to a backbone."""

import numpy as np
import pandas as pd

_ROWS = 512  # compared with all others at once
# A pair is near where its distance (1 minus the cosine) is at most so many times the
# median distance of an image to its nearest other.
_SHARE = 0.4
# What rounding makes of equal features.
_EQUAL = 1e-5
_SAMPLE = 1024  # images whose nearest are looked for


def near_duplicates(
    features: np.ndarray, others: np.ndarray | None = None, *, k: int = 60
) -> pd.DataFrame:
    """Return at most k pairs of images, or of an image and others, nearly alike.

    By falling ``similarity``, the cosine of their features: ``row`` and ``other``. (Of
    photographs, copies that were halved, compressed, mirrored or cropped by a tenth; of
    images that are all alike, such as digits, few pairs.)
    """
    one = _normalised(features)
    limit = _limit(one)
    two = one if others is None else _normalised(others)
    every = np.empty((0, 3))
    for start in range(0, len(one), _ROWS):
        distances = 1 - one[start : start + _ROWS] @ two.T
        if others is None:  # each pair once
            rows = start + np.arange(len(distances))
            distances[np.arange(len(two)) <= rows[:, None]] = np.inf
        # Where images are all equal, all their pairs would not fit into memory.
        near = np.flatnonzero(distances <= limit)
        near = near[np.argsort(distances.flat[near], kind="stable")[:k]]
        row, other = np.unravel_index(near, distances.shape)
        pairs = np.column_stack([start + row, other, distances.flat[near]])
        every = np.concatenate([every, pairs])
        every = every[np.argsort(every[:, 2], kind="stable")][:k]
    table = pd.DataFrame(every[:, :2].astype(int), columns=["row", "other"])
    table["similarity"] = 1 - every[:, 2]
    return table


def _limit(features: np.ndarray) -> float:
    """Return the distance up to which a pair is near, from some of the images."""
    if len(features) < 3:
        return _EQUAL
    rows = np.linspace(0, len(features) - 1, min(len(features), _SAMPLE)).astype(int)
    distances = 1 - features[rows] @ features.T
    distances[np.arange(len(rows)), rows] = np.inf
    return max(_EQUAL, _SHARE * float(np.median(distances.min(axis=1))))


def _normalised(features: np.ndarray) -> np.ndarray:
    features = features.reshape(len(features), -1).astype(np.float32)
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(length, np.finfo(np.float32).tiny)
