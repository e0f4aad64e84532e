"""Find the images that cannot be decoded."""

import os
from functools import partial
from typing import Any

import pandas as pd

from sklearn_dl._images._coerce import as_source
from sklearn_dl._images._digests import call_each
from sklearn_dl._images._errors import Failure, ImageDecodeError
from sklearn_dl._images._source import ImageSource


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
    if not source.stackable:  # arrays are decoded
        # A dataset need not be thread-safe.
        threads = min(8, os.cpu_count() or 1) if source.kind == "paths" else 1
        look = partial(_failure, source)
        for found in call_each(look, range(len(source)), threads):
            failures.extend(found)
    table = pd.DataFrame(failures, columns=["row", "path", "reason"])
    return table.astype({"row": int, "path": object, "reason": object})


def _failure(source: ImageSource, row: int) -> list[Failure]:
    try:
        source[row]
    except ImageDecodeError as error:
        return error.failures
    return []
