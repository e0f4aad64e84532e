"""Features of a frozen backbone into a file, with the images that can't be read."""

from contextlib import closing
from typing import Any

import numpy as np

from sklearn_dl._extraction._predict import progress, stream_frozen
from sklearn_dl._images import ImageDecodeError, ImageSource
from sklearn_dl._runtime import Execution
from sklearn_dl.backbones import Backbone
from sklearn_dl.datasets import FeaturesWriter

# Rows that a pass goes through at once. Workers of a cluster have them all in memory.
_ROWS = 16384


def write_features(
    writer: FeaturesWriter,
    backbone: Backbone,
    source: ImageSource,
    execution: Execution,
    *,
    cache: Any,
    views=None,
) -> None:
    """Write the features of the writer's rows that aren't written yet.

    Images that can't be read are left out, and named in the writer's errors.
    """
    options: Any = {"cache": cache, "views": views, "bar": lambda n: None}
    rows, done = writer.rows, writer.done
    with progress(len(rows), "features", execution.verbose, done) as bar:
        # A run that goes on has the same blocks, and so the same batches.
        for start in range(rows.start, rows.stop, _ROWS):
            stop = min(start + _ROWS, rows.stop)
            left = np.arange(max(start, rows.start + done), stop)
            while len(left):
                written = 0
                parts = stream_frozen(backbone, source, execution, rows=left, **options)
                try:
                    with closing(parts):
                        for part, values in parts:
                            writer.put(left[part], values.numpy())
                            bar(part.stop - part.start)
                            written = part.stop
                except ImageDecodeError as error:
                    failed = {r: why for r, _, why in error.failures if r is not None}
                    if not {*left[written:].tolist()} & {*failed}:
                        raise  # it isn't said which
                    writer.errors.update(failed)
                    bar(len(failed))
                    left = np.setdiff1d(left[written:], [*failed])
                else:
                    break
