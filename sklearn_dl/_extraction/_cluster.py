"""Features computed by the workers of a Dask cluster."""

import pickle
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from joblib.parallel import get_active_backend

from sklearn_dl._extraction._pass import Bar, Pass
from sklearn_dl._extraction._run import Forward
from sklearn_dl._extraction._store import Store, new_owner
from sklearn_dl._images import ImageDecodeError, ImageSource

# Batches in one task, at most.
_TASK_BATCHES = 8


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


def task_rows(client, n_rows: int, batch_size: int) -> int:
    """Return how many rows make a task: whole batches, two tasks for each thread.

    Parameters
    ----------
    client : distributed.Client
    n_rows : int
        Of all tasks together.
    batch_size : int
        Rows in one pass of the network.
    """
    threads = max(1, sum(client.nthreads().values()))  # none as yet, where it adapts
    batches = -(-n_rows // batch_size)
    return batch_size * min(max(1, batches // (2 * threads)), _TASK_BATCHES)


def readable_keys(run: Pass, rows: np.ndarray) -> dict[int, bytes]:
    """Return the keys of those rows whose images can be read here, by row."""
    while True:
        try:
            digests = run.digests(rows)
        except ImageDecodeError as error:
            rows = np.setdiff1d(rows, [row for row, _, _ in error.failures])
        else:
            return dict(zip(rows.tolist(), map(run.key, digests), strict=True))


class ClusterPass(Pass):
    """Looks features up here, and has the workers of a cluster compute the others.

    Images that can't be read here are left to the workers. What a worker computed is
    stored if it finds the same key: the same content, kind of device and versions.

    Parameters
    ----------
    forward, source, store
        As in `Pass`.
    client : distributed.Client
    work : callable
        ``work(model, source, keyed)`` returns the features of a chunk; by row, the keys
        that it found before and after, if `keyed`; and by row, why it can't be read:
        if there is any such row, nothing else.
    model : callable
        Returns what is sent to the workers once.
    """

    def __init__(
        self,
        forward: Forward,
        source: ImageSource,
        store: Store | None,
        *,
        client,
        work: Callable,
        model: Callable[[], Any],
    ):
        super().__init__(forward, source, store)
        self.client = client
        self.work = work
        self.model = model

    def __call__(self, rows: np.ndarray, bar: Bar) -> np.ndarray:
        """Return the features of rows, (n_rows, [n_views,] n_features)."""
        lookup = self.store is not None and not self.source.digest_reads
        known = readable_keys(self, rows) if lookup else {}
        # Of images that aren't known here, any keys.
        keys = [known.get(row, str(k).encode()) for k, row in enumerate(rows.tolist())]
        times, own = Counter(keys), set(known.values())
        found = self.stored([key for key in times if key in own])
        bar(sum(times[key] for key in found))
        places = {key: k for k, key in reversed(list(enumerate(keys)))}
        wanted = {key: rows[places[key]] for key in times if key not in found}
        failed: dict[bytes, str] = {}
        misses = 0
        for part, (values, theirs, reasons) in self._compute(wanted, own):
            failed.update((part[k], reason) for k, reason in reasons.items())
            if reasons:
                continue  # all that can't be read shall be named
            new = dict(zip(part, values, strict=True))
            found.update(new)
            same = [key for k, key in theirs.items() if key == part[k]]
            misses += self._keep({key: new[key] for key in same})
            self.computed += len(new)
            bar(sum(times[key] for key in new))
        if failed:
            raise self._error(rows, keys, failed)
        if self.store is not None:  # the workers count in theirs, which may be the same
            self.store.count(hits=len(rows) - len(wanted), misses=misses)
        return self.gathered(keys, found)

    def _compute(
        self, wanted: dict[bytes, int], own: set[bytes]
    ) -> Iterator[tuple[list[bytes], Any]]:
        """Yield keys, and what the workers return for their rows."""
        if not wanted:
            return
        size = task_rows(self.client, len(wanted), self.batch_size)
        queue = list(wanted)
        parts = [queue[k : k + size] for k in range(0, len(queue), size)]
        tasks = (
            (self.source.take([wanted[k] for k in part]), not own.isdisjoint(part))
            for part in parts
        )
        for number, result in spread(self.client, self.work, self.model(), tasks):
            yield parts[number], result

    def _error(
        self, rows: np.ndarray, keys: list[bytes], failed: dict[bytes, str]
    ) -> ImageDecodeError:
        """Return what names the rows of some keys."""
        reasons = dict(zip(rows.tolist(), map(failed.get, keys), strict=True))
        return ImageDecodeError(
            (row, self.source.path(row), reason)
            for row, reason in sorted(reasons.items())
            if reason is not None
        )

    def _keep(self, new: dict[bytes, np.ndarray]) -> int:
        """Store what no worker has stored here; return how many that are."""
        if self.store is None or not new:
            return 0
        owner = new_owner()
        mine = self.store.claim(list(new), owner)
        if mine:
            self.store.put({key: new[key] for key in mine}, owner)
        return len(mine)


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
