"""The processes that train together, where `torch.distributed` has some."""

import hashlib
import pickle
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import distributed

from sklearn_dl._images import ImageDecodeError
from sklearn_dl.training._dataset import Rows
from sklearn_dl.training._net import noting_interrupts

# Rows of each process, of which features are computed before they are exchanged.
_CHUNK = 4096
# Parameters that may be others in each process.
_FREE = ("cache", "callbacks", "device", "random_state", "verbose", "weights")
_PLAIN = (bool, int, float, str, type(None))
_DTYPES = (torch.float32, torch.float64)  # of what is summed


def joined_group(device: torch.device) -> "Group | None":
    """Return the processes of an initialised group; None where this one is alone."""
    if distributed.get_world_size() == 1:
        return None
    if threading.current_thread() is not threading.main_thread():
        raise ValueError(
            "Processes of torch.distributed train together in their main threads, "
            "since all need one order of fits: use n_jobs=1, or joblib's processes."
        )
    if f"{device.type}:" not in distributed.get_backend_config():
        raise ValueError(
            f"device={str(device)!r} has no backend in the process group of "
            f"torch.distributed ({distributed.get_backend_config()}): use 'gloo' on "
            "CPUs."
        )
    return Group(device)


class Group:
    """The processes that train together, as ``torch.distributed`` knows them.

    Whatever they exchange begins with `agree`, by which the error of one is known to
    all: each then waits for the same.

    Parameters
    ----------
    device : torch.device
        Where tensors are summed.

    Attributes
    ----------
    interrupted : bool
        Whether this process had a Ctrl-C, or all know that one had.
    stopped : bool
        Whether all know that one asked for the end of training.
    stop_reason : str
        Why it did.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.rank: int = distributed.get_rank()
        self.size: int = distributed.get_world_size()
        self.interrupted = self.stopped = False
        self.stop_reason = ""
        self._asked: str | None = None  # why this process asks for the end
        self._error: BaseException | None = None
        self._over = False  # all know of an error or a Ctrl-C, or one is gone

    @property
    def net_class(self) -> type:
        """The net that trains in such a process."""
        from sklearn_dl.training._distributed import DistributedNet

        return DistributedNet

    @property
    def first(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0

    # What they tell each other.

    @contextmanager
    def together(self) -> Iterator[None]:
        """Let a block that fails in one process fail in all."""
        try:
            yield
        except BaseException as error:
            if not self._over:
                self._error = error
                self.agree()  # which raises it, and what others have to say
            raise
        self.agree()

    def stop(self, reason: str) -> None:
        """Ask all to end training, when they agree the next time."""
        self._asked = self._asked or reason

    def agree(self, like: int = 0, total: torch.Tensor | None = None) -> None:
        """Wait for all; raise the error of one, or a KeyboardInterrupt.

        A ValueError where `like`, an int of 32 bits, isn't the same in all. A `total`
        of all is summed in place, at the same time: who fails learns from the others
        of what they wait for, and adds nothing to it.
        """
        if self._over:
            return
        failed = self._error is not None
        news = failed or self.interrupted or self._asked is not None
        n, kind = (
            (0, 0) if total is None else (total.numel(), _DTYPES.index(total.dtype))
        )
        flags = torch.tensor([failed, news, like, n, kind], dtype=torch.int64)
        flags = flags.to(self.device)
        told: list[Any] = []
        with self._exchanging():
            coming = [distributed.all_reduce(flags, async_op=True)]
            if total is not None:
                coming.append(distributed.all_reduce(total, async_op=True))
            for one in coming:
                one.wait()
            n_failed, n_news, likes, n, kind = flags.tolist()
            if failed and n:
                others = self.size - n_failed
                nothing = torch.zeros(n // others, dtype=_DTYPES[kind // others])
                distributed.all_reduce(nothing.to(self.device))
            if n_news:
                mine = _sendable(self._error), self.interrupted, self._asked
                told = self._of_all(mine)
        errors = {rank: e for rank, (e, _, _) in enumerate(told) if e is not None}
        self.interrupted = any(interrupted for _, interrupted, _ in told)
        reasons = [reason for *_, reason in told if reason is not None]
        if reasons:
            self.stopped, self.stop_reason = True, max(reasons, key=bool)
        self._over = bool(errors or self.interrupted)
        if errors:
            raise self._joined(errors)
        if self.interrupted:
            raise KeyboardInterrupt
        if likes != like * self.size:
            self._over = True
            raise ValueError(
                "The processes of torch.distributed have other rows in the same batch: "
                "something draws random numbers in one of them alone."
            )

    def _joined(self, errors: Mapping[int, BaseException]) -> BaseException:
        """Return one error for those of some processes, the same in all."""
        found = list(errors.values())
        if all(isinstance(error, ImageDecodeError) for error in found):
            every = [tuple(f) for error in found for f in error.failures]  # type: ignore[attr-defined]
            joined: BaseException = ImageDecodeError.join(
                [ImageDecodeError(list(dict.fromkeys(every)))]
            )
            for note in getattr(found[0], "__notes__", ()):
                joined.add_note(note)
        elif self._error is not None:
            return self._error
        else:
            joined = found[0]
        ranks = ", ".join(map(str, errors))
        joined.add_note(f"(In the process of rank {ranks}.)")
        return joined

    def check_same(self, **values: Any) -> None:
        """Raise a ValueError with the names of those values that differ."""
        with self._exchange():
            every = self._of_all({name: repr(v) for name, v in values.items()})
        names = dict.fromkeys(name for one in every for name in one)
        differ = [n for n in names if len({one.get(n) for one in every}) > 1]
        if differ:
            self._over = True
            names_ = ", ".join(name.replace("_and_", " and ") for name in differ)
            raise ValueError(
                f"All processes of torch.distributed must be given the same {names_}. "
                "One that shall train alone does so before init_process_group."
            )

    # What they exchange.

    def share(self, n_rows: int) -> slice:
        """Return which of some rows are this process's own: none if there are few."""
        ends = [n_rows * k // self.size for k in (self.rank, self.rank + 1)]
        return slice(*ends)

    def read(self, n_rows: int) -> slice:
        """Return which rows this process reads: its own, or the first, for nothing."""
        own = self.share(n_rows)
        return own if own.stop > own.start else slice(0, 1)

    def sum(self, values: torch.Tensor, like: int = 0) -> torch.Tensor:
        """Return the sum of the values of all processes, the same in all.

        A ValueError where `like` isn't, see `agree`.
        """
        total = values.to(self.device, copy=True)
        self.agree(like, total)
        return total.to(values.device)

    def of_the_first(self, value: Any) -> Any:
        """Return the first process's value."""
        values = [value]
        with self._exchange():
            distributed.broadcast_object_list(values, src=0, device=self.device)
        return values[0]

    def take_first(self, tensors: Iterable[torch.Tensor]) -> None:
        """Write what the first process has in some tensors into those of all."""
        with self._exchange():
            for tensor in tensors:
                distributed.broadcast(tensor, src=0)

    def gathered(
        self, n_rows: int, compute: Callable[[np.ndarray], np.ndarray]
    ) -> np.ndarray:
        """Return a row of values for each of some rows, which all share out."""
        total = None
        for start in range(0, n_rows, self.size * _CHUNK):
            rows = np.arange(start, min(start + self.size * _CHUNK, n_rows))
            own = self.share(len(rows))
            values = compute(rows[self.read(len(rows))])
            if total is None:
                total = np.zeros((n_rows, *values.shape[1:]), values.dtype)
            part = torch.from_numpy(total[rows[0] : rows[-1] + 1])
            part[own] = torch.from_numpy(values[: own.stop - own.start])
            part.copy_(self.sum(part))
        assert total is not None  # there is a row
        return total

    def _of_all(self, value: Any) -> list[Any]:
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    @contextmanager
    def _exchange(self) -> Iterator[None]:
        with self._exchanging():
            self.agree()
            yield

    @contextmanager
    def _exchanging(self) -> Iterator[None]:
        """Let a Ctrl-C wait for the end of a block that all must come through."""
        times = 0

        def note() -> bool:
            nonlocal times
            times += 1
            return times > 1

        try:
            with noting_interrupts(note):
                yield
        except RuntimeError as error:  # as torch raises where a process is gone
            if not self._over:
                self._over = True
                error.add_note(
                    "Another process of torch.distributed has ended, or doesn't train "
                    "with this one."
                )
            raise
        if times:
            signal.raise_signal(signal.SIGINT)


def _sendable(error: BaseException | None) -> BaseException | None:
    """Return an error as other processes can have it."""
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:  # whatever the class of the error raises
        return RuntimeError(f"{type(error).__name__}: {error}")


def plain_parameters(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of an estimator that all processes must have alike."""

    def plain(value: Any) -> bool:
        if isinstance(value, list | tuple):
            return all(map(plain, value))
        return isinstance(value, _PLAIN)

    return {n: v for n, v in params.items() if n not in _FREE and plain(v)}


def rows_digests(rows: Rows | None, of: str = "") -> dict[str, str]:
    """Return digests of rows by name: of targets and weights, and of the images."""
    if rows is None:
        return {}
    targets = [rows.target.numpy(), rows.weight]
    if rows.rows is not None:
        targets.append(rows.rows)
    images = rows.source.names_digest(range(len(rows.source)))
    content = b"".join(np.ascontiguousarray(t).tobytes() for t in targets)
    return {
        f"y_and_weights{of}": hashlib.sha256(content).hexdigest(),
        f"images{of}": images.hex(),
    }
