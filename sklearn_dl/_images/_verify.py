"""Find the images that cannot be decoded."""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pandas as pd

from sklearn_dl._images._coerce import as_source
from sklearn_dl._images._errors import Failure, ImageDecodeError
from sklearn_dl._images._source import ImageSource

_CHUNK = 1024  # futures alive at once, so that memory stays flat


def verify_images(X: Any) -> pd.DataFrame:
    """Decode every image of X once and list those that fail.

    Parameters
    ----------
    X : any form of images
        Paths, a loader's ``data``, PIL images, encoded bytes, arrays.

    Returns
    -------
    failures : DataFrame with columns "row", "path" and "reason"
        One row for each image that cannot be decoded; empty if all can. ``path`` is
        None for images that have none.

    Examples
    --------
    >>> from sklearn_dl.datasets import verify_images
    >>> verify_images(["/no/such.jpg"])
       row          path        reason
    0    0  /no/such.jpg  no such file
    """
    source = as_source(X)
    failures: list[Failure] = []
    if source.kind == "paths":
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for start in range(0, len(source), _CHUNK):
                rows = range(start, min(start + _CHUNK, len(source)))
                for found in pool.map(lambda row: _failure(source, row), rows):
                    failures.extend(found)
    elif source.kind == "objects":  # a dataset need not be thread-safe
        for row in range(len(source)):
            failures.extend(_failure(source, row))
    table = pd.DataFrame(failures, columns=["row", "path", "reason"])
    return table.astype({"row": int, "path": object, "reason": object})


def _failure(source: ImageSource, row: int) -> list[Failure]:
    try:
        source[row]
    except ImageDecodeError as error:
        return error.failures
    return []
