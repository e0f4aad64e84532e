"""Features of a frozen backbone into files, with the images that can't be read."""

import os
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from sklearn_dl._extraction._cluster import (
    active_client,
    address_of_worker,
    check_wanted,
    folder_of_worker,
    spread,
)
from sklearn_dl._extraction._predict import Bar, FrozenModel, progress, stream_frozen
from sklearn_dl._images import ImageDecodeError, is_url
from sklearn_dl.datasets import (
    FeaturesTable,
    FeaturesWriter,
    TakenOver,
    errors_of_written,
    send_features,
    shard_path,
    shard_rows,
)

# Rows that a pass goes through at once. Workers of a cluster have them all in memory.
_ROWS = 16384
# Times that a worker begins with a shard which somebody else takes away from it.
_ATTEMPTS = 3


@dataclass
class FeaturesFile:
    """A file of features that is to be: where, of which rows, of what.

    `path` may be a URL, `about` is as in `FeaturesWriter`.
    """

    path: str
    table: FeaturesTable
    rows: range
    about: dict[str, Any]

    def shards(self, n: int) -> "list[FeaturesFile]":
        """Return the n files that hold this one's rows together."""
        return [
            replace(
                self,
                path=shard_path(self.path, k, n),
                rows=shard_rows(len(self.rows), (k, n)),
                about={**self.about, "shard": (k, n)},
            )
            for k in range(1, n + 1)
        ]

    def alone(self) -> "FeaturesFile":
        """Return it with a table of its own rows only, for another process."""
        return replace(self, table=self.table.part(self.rows))

    def failures(self) -> dict[int, str] | None:
        """Return the errors by row where the file is there already, else None."""
        return errors_of_written(self.path, self.table, self.rows, self.about)


def write_file(
    model: FrozenModel, file: FeaturesFile, description: str = "features"
) -> dict[int, str]:
    """Write a file; return by row why images couldn't be read."""
    if not is_url(file.path):
        return _write(model, file, file.path, description)
    # Where a worker has been given room, which is tidied up after it too.
    with TemporaryDirectory(prefix="sklearn_dl-", dir=folder_of_worker()) as folder:
        here = os.path.join(folder, file.path.rpartition("/")[2])
        errors = _write(model, file, here, description)
        send_features(here, file.path)
    return errors


def _write(
    model: FrozenModel, file: FeaturesFile, path: str, description: str
) -> dict[int, str]:
    n, verbose = len(file.rows), model.execution.verbose
    with FeaturesWriter(Path(path), file.table, file.rows, file.about) as writer:
        with progress(n, description, verbose, writer.done) as bar:
            write_features(writer, model, bar)
        writer.finish()
    return writer.errors


def write_shards(model: FrozenModel, file: FeaturesFile, n: int) -> dict[int, str]:
    """Write a file in n parts, as far as they aren't there; return the errors by row.

    Inside ``joblib.parallel_config("dask")`` each is a task of the workers, which write
    it themselves.
    """
    shards, client = file.shards(n), active_client()
    errors: dict[int, str] = {}
    if client is None:
        for k, shard in enumerate(shards, 1):
            failures = shard.failures()
            if failures is None:
                failures = write_file(model, shard, f"features {k}/{n}")
            errors.update(failures)
        return errors
    tasks = ((shard.alone(),) for shard in shards)
    with progress(len(file.rows), "features", model.execution.verbose) as bar:
        for number, failures in spread(client, _write_there, model.packed(), tasks):
            errors.update(failures)
            bar(len(shards[number].rows))
    _check_there(shards)
    return dict(sorted(errors.items()))


def _write_there(model: FrozenModel, shard: FeaturesFile) -> dict[int, str]:
    """Write a shard on a worker, if no other one has done so."""
    folder = os.path.dirname(shard.path)
    if not is_url(shard.path) and not os.path.isdir(folder):
        raise FileNotFoundError(
            f"The worker on {address_of_worker()} has no folder {folder}: a cluster "
            "writes to one that all its hosts share, or to a URL."
        )
    model = model.unpacked()
    for attempt in range(1, _ATTEMPTS + 1):
        failures = shard.failures()
        if failures is not None:
            return failures
        try:
            return write_file(model, shard)
        except TakenOver:  # by a worker that was thought dead
            check_wanted()
            if attempt == _ATTEMPTS:
                raise
    raise AssertionError("the loop returns or raises")


def _check_there(shards: list[FeaturesFile]) -> None:
    """Raise where workers wrote to places of their own."""
    for shard in shards:
        if shard.table.knows_images and shard.failures() is None:
            raise FileNotFoundError(
                f"A worker has written {shard.path} to a place of its own host: give a "
                "folder that all hosts share, or a URL that all reach."
            )


def write_features(writer: FeaturesWriter, model: FrozenModel, bar: Bar) -> None:
    """Write the features of the writer's rows that aren't written yet.

    Images that can't be read are left out, and named in the writer's errors.
    """
    rows, done, first = writer.rows, writer.done, writer.table.first
    # A run that goes on has the same blocks, and so the same batches.
    for start in range(rows.start, rows.stop, _ROWS):
        stop = min(start + _ROWS, rows.stop)
        left = np.arange(max(start, rows.start + done), stop)
        while len(left):
            written = 0
            try:
                with closing(_stream(writer, model, left)) as parts:
                    for part, values in parts:
                        writer.put(left[part], values.numpy())
                        check_wanted()
                        bar(part.stop - part.start)
                        written = part.stop
            except ImageDecodeError as error:
                failed = {r + first: w for r, _, w in error.failures if r is not None}
                if not {*left[written:].tolist()} & {*failed}:
                    raise  # it isn't said which
                writer.errors.update(failed)
                bar(len(failed))
                left = np.setdiff1d(left[written:], [*failed])
            else:
                break


def _stream(writer: FeaturesWriter, model: FrozenModel, rows: np.ndarray) -> Generator:
    return stream_frozen(
        model.backbone,
        writer.table.source,
        model.execution,
        cache=model.cache,
        rows=rows - writer.table.first,
        views=model.views,
        bar=lambda n: None,
    )
