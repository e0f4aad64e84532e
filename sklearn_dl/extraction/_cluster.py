"""Features computed by the workers of a Dask cluster."""

import pickle
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
from joblib.parallel import get_active_backend

from sklearn_dl.extraction._pass import Bar, Pass
from sklearn_dl.extraction._run import Forward
from sklearn_dl.extraction._store import Store, new_owner
from sklearn_dl.images import ImageDecodeError, ImageSource


def active_client() -> Any:
    """Return the client of the enclosing ``joblib.parallel_config("dask")``, or None.

    A task that runs on a worker has none: its work is spread already.
    """
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return None
    client = getattr(get_active_backend()[0], "client", None)
    if not isinstance(client, distributed.Client):
        return None
    try:
        distributed.get_worker()
    except ValueError:
        return client
    return None


class ClusterPass(Pass):
    """Looks features up here, and has the workers of a cluster compute the others.

    Where only the workers can read the files, all rows are sent to them.

    Parameters
    ----------
    forward, source, store, batch_size
        As in `Pass`.
    client : distributed.Client
    work : callable
        ``work(model, source, rows)`` returns the features of a chunk and the kind of
        device they were computed on; `rows` are its rows in X.
    model : object
        Sent to the workers once.
    chunk : int
        Rows in one task.
    """

    def __init__(
        self,
        forward: Forward,
        source: ImageSource,
        store: Store | None,
        batch_size: int,
        *,
        client,
        work: Callable,
        model: Any,
        chunk: int,
    ):
        super().__init__(forward, source, store, batch_size)
        self.chunk = chunk
        self._spread = partial(spread, client, work, model)

    def __call__(self, rows: np.ndarray, bar: Bar) -> np.ndarray:
        """Return the features of rows, (n_rows, [n_views,] n_features)."""
        keys = self._keys(rows)
        found = self.stored(list(dict.fromkeys(keys)))
        first = {key: k for k, key in reversed(list(enumerate(keys)))}
        wanted = [key for key in first if key not in found]
        wanted.sort(key=first.__getitem__)
        bar(sum(key in found for key in keys))
        parts = [wanted[k : k + self.chunk] for k in range(0, len(wanted), self.chunk)]
        chunks = (rows[[first[key] for key in part]] for part in parts)
        for number, (values, kind) in self._spread(
            (self.source.take(chunk), chunk) for chunk in chunks
        ):
            new = dict(zip(parts[number], values, strict=True))
            found.update(new)
            if kind == self.forward.device.type:
                self._keep(new)
            self.computed += len(new)
            bar(len(new))
        if self.store is not None:
            misses = len(wanted)
            self.store.count(hits=len(rows) - misses, misses=misses)
        return self.gathered(keys, found)

    def _keys(self, rows: np.ndarray) -> list[bytes]:
        """Return the keys of rows; of images that aren't known here, any."""
        if self.store is not None and not self.source.digest_reads:
            try:
                return [self.key(digest) for digest in self.digests(rows)]
            except ImageDecodeError:
                pass  # a worker may be able to read it, or names it
        self.store = None
        return [str(k).encode() for k in range(len(rows))]

    def _keep(self, new: dict[bytes, np.ndarray]) -> None:
        """Store what a worker of another host has not stored here."""
        if self.store is None:
            return
        owner = new_owner()
        mine = self.store.claim(list(new), owner)
        self.store.put({key: new[key] for key in mine}, owner)


def spread(
    client, function: Callable, shared: Any, chunks: Iterable[tuple]
) -> Iterator[tuple[int, Any]]:
    """Yield what ``function(shared, *chunk)`` returns, as the workers get it done.

    What a worker had that dies is sent to another one: nothing is scattered, the
    scheduler holds all that a task needs.

    Parameters
    ----------
    client : distributed.Client
    function : callable
        Of a module that the workers can import.
    shared : object
        Sent once to the scheduler, unpickled once on each worker.
    chunks : iterable of tuple
        Arguments of each task.

    Yields
    ------
    number : int
        Of the chunk.
    result : object
    """
    import dask
    import distributed

    payload = pickle.dumps(shared)
    quiet = {"distributed.admin.large-graph-warning-threshold": "1TB"}
    with dask.config.set(quiet):
        model = client.submit(pickle.loads, payload, pure=False)
        numbers = {
            client.submit(function, model, *chunk, pure=False): number
            for number, chunk in enumerate(chunks)
        }
    try:
        done = distributed.as_completed(list(numbers), with_results=True)
        for future, result in done:
            yield numbers.pop(future), result
            future.release()
    finally:  # an error, or the caller has had enough
        client.cancel([*numbers, model], force=True)
