"""Work for the workers of a Dask cluster."""

import pickle
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from typing import Any

from joblib.parallel import get_active_backend

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
    return client if _worker() is None else None


def _worker() -> Any:
    """Return the worker that this thread works for, or None."""
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return None
    try:
        return distributed.get_worker()
    except ValueError:
        return None


def address_of_worker() -> str:
    """Return the address of the worker that runs this."""
    return _worker().address


def folder_of_worker() -> str | None:
    """Return where a worker keeps its temporary files; None on no worker."""
    worker = _worker()
    return None if worker is None else worker.local_directory


def check_wanted() -> None:
    """End a task that nobody waits for any more: a worker can't stop its thread.

    Raises
    ------
    CancelledError
        On a worker, if the task was cancelled or its client is gone.
    """
    worker = _worker()
    if worker is None:
        return
    try:
        key = worker.get_current_task()
    except KeyError:  # a thread that a task has started
        return
    task = worker.state.tasks.get(key)
    if task is None or task.state == "cancelled":
        raise CancelledError("nobody waits for this task any more")


def task_rows(client, n_rows: int, batch_size: int) -> int:
    """Return how many of all rows make a task: whole batches, two tasks a thread."""
    threads = max(1, sum(client.nthreads().values()))  # none as yet, where it adapts
    batches = -(-n_rows // batch_size)
    return batch_size * min(max(1, batches // (2 * threads)), _TASK_BATCHES)


def spread(
    client, function: Callable, shared: Any, chunks: Iterable[tuple]
) -> Iterator[tuple[int, Any]]:
    """Yield each chunk's number with what ``function(shared, *chunk)`` gave, when done.

    What a worker had that dies is sent to another one: nothing is scattered, the
    scheduler holds all that a task needs. What is shared goes to it once.
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
