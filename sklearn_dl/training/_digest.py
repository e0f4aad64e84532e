"""What a training is, as a digest: the same parameters on the same data."""

import hashlib
from typing import Any

import numpy as np

from sklearn_dl._runtime import fingerprint_text
from sklearn_dl.training._data import Rows

# What a resumed run may do otherwise.
_FREE = ("cache", "callbacks", "device", "verbose")
_FREE_NET_PARAMS = ("num_workers", "pin_memory", "prefetch_factor")


def digest_of_run(
    estimator, training: Rows, validation: Rows | None, previous: Any
) -> str:
    """Return a digest of an estimator's parameters and of the rows it is trained on.

    Files are taken by their paths, other images by their pixels. A warm start has the
    number of epochs before it.
    """
    digest = hashlib.sha256()
    params = estimator.get_params(deep=True)
    for name in sorted(params):
        if name.split("__")[0] not in _FREE:
            text = fingerprint_text(params[name], skip=_FREE_NET_PARAMS)
            digest.update(f"{name}={text};".encode())
    before = 0 if previous is None else len(previous.history)
    digest.update(f"{type(estimator).__name__} after {before};".encode())
    for rows in (training, validation):
        if rows is not None:
            _add_rows(digest, rows)
    return digest.hexdigest()


def _add_rows(digest, rows: Rows) -> None:
    source = rows.source
    positions = np.arange(len(rows)) if rows.rows is None else rows.rows
    digest.update(f"{source.kind} {len(source)} {source.image_shape};".encode())
    digest.update(np.ascontiguousarray(positions, dtype=np.int64).tobytes())
    digest.update(np.ascontiguousarray(rows.weight).tobytes())
    digest.update(np.ascontiguousarray(rows.target.numpy()).tobytes())
    for row in map(int, positions):
        path = source.path(row)
        digest.update(repr(path).encode())
        if path is None:
            digest.update(np.asarray(source[row]).tobytes())
