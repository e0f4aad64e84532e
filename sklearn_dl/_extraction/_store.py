"""Stores of features: what all of them do, and the one in the memory of a process."""

import atexit
import itertools
import os
import socket
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from sklearn_dl._runtime import hold_generators_at_forks

# Seconds that a claim lasts unless its owner claims or puts something: longer than one
# batch takes. Owners that died are known without it.
LEASE = 900.0

Stamp = tuple[int, ...]
Found = dict[bytes, np.ndarray]


@dataclass(frozen=True)
class CacheStatistics:
    """What a feature cache did and holds.

    Attributes
    ----------
    hits : int
        Images whose features were there.
    misses : int
        Images whose features had to be computed.
    entries : int
        Images whose features are kept now.
    bytes : int
        Bytes of these features.
    """

    hits: int
    misses: int
    entries: int
    bytes: int


class Store(ABC):
    """Rows of numbers by key, kept up to a bound, each computed by one owner only.

    A key is 32 bytes, the digest of all that the row depends on. Keys that are missing
    are claimed before they are computed; what others have claimed is waited for. The
    methods are safe to call from several threads, and after a fork.
    """

    def __init__(self, max_bytes: int):
        self.max_bytes = max_bytes
        self._lock = threading.RLock()
        with _REGISTRY:
            _STORES.add(self)

    def __reduce__(self):
        raise TypeError(
            f"A {type(self).__name__} belongs to its process: pickle the FeatureCache "
            "or the path instead."
        )

    @abstractmethod
    def lookup(self, keys: Sequence[bytes], shape: tuple[int, ...], dtype) -> Found:
        """Return what is stored of some rows, read-only; remove what is damaged."""

    @abstractmethod
    def claim(self, keys: Sequence[bytes], owner: str) -> list[bytes]:
        """Take on the rows that nobody has stored and no other live owner claimed."""

    @abstractmethod
    def put(self, rows: Mapping[bytes, np.ndarray], owner: str) -> None:
        """Store rows, lift their claims, prolong the owner's others; evict the oldest.

        What is put stays unless it alone exceeds the bound.
        """

    @abstractmethod
    def release(self, owner: str) -> None:
        """Lift all claims of an owner."""

    @abstractmethod
    def wait(self, keys: Sequence[bytes], timeout: float) -> None:
        """Block until one of some keys may be free or stored, or the time is over."""

    @abstractmethod
    def count(self, hits: int, misses: int) -> None:
        """Add to the statistics."""

    @abstractmethod
    def statistics(self) -> CacheStatistics:
        """Return what the store did and holds."""

    @abstractmethod
    def clear(self) -> None:
        """Drop rows, claims and digests of files; begin the statistics anew."""

    def known_files(self, paths: Sequence[str]) -> dict[str, tuple[Stamp, bytes]]:
        """Return the remembered stamps and digests of some files."""
        return {}

    def remember_files(  # noqa: B027
        self, files: Mapping[str, tuple[Stamp, bytes]]
    ) -> None:
        """Remember the stamps and digests of files, where that outlives the process."""

    def close(self) -> None:  # noqa: B027
        """Let go of files; the next use opens them again."""

    def _forked(self) -> None:  # noqa: B027
        """Forget what belonged to the parent process."""


def eviction_target(max_bytes: int, new: int) -> int:
    """Return how many bytes stay when a store with `new` ones exceeds its bound."""
    target = max_bytes * 9 // 10
    return new if target < new <= max_bytes else target


class MemoryStore(Store):
    """Rows in memory, for the threads of one process.

    A forked child begins with the rows of its parent and none of the claims. Digests
    of files are not kept here: `sklearn_dl._images` remembers them for the process.
    """

    def __init__(self, max_bytes: int):
        self._rows: OrderedDict[bytes, np.ndarray] = OrderedDict()
        self._holders: dict[bytes, str] = {}  # by key
        self._leases: dict[str, float] = {}  # by owner, until released
        self._hits = self._misses = self._bytes = 0
        super().__init__(max_bytes)
        self._changed = threading.Condition(self._lock)

    def lookup(self, keys: Sequence[bytes], shape: tuple[int, ...], dtype) -> Found:
        found = {}
        dtype = np.dtype(dtype)
        length = dtype.itemsize * int(np.prod(shape))
        with self._lock:
            for key in keys:
                row = self._rows.get(key)
                if row is None:
                    continue
                if row.dtype != dtype or row.nbytes != length:
                    self._remove(key)
                    continue
                self._rows.move_to_end(key)
                found[key] = row.reshape(shape)
        return found

    def claim(self, keys: Sequence[bytes], owner: str) -> list[bytes]:
        with self._lock:
            free = [
                key
                for key in dict.fromkeys(keys)
                if key not in self._rows and not self._taken(key, owner)
            ]
            self._holders.update(dict.fromkeys(free, owner))
            if free:
                self._leases[owner] = time.monotonic() + LEASE
        return free

    def put(self, rows: Mapping[bytes, np.ndarray], owner: str) -> None:
        kept = {key: np.array(row, order="C") for key, row in rows.items()}
        with self._lock:
            for key, row in kept.items():
                row.flags.writeable = False
                self._remove(key)
                self._rows[key] = row
                self._bytes += row.nbytes
                self._holders.pop(key, None)
            # The least recently used go, not those that were put now.
            if self._bytes > self.max_bytes:
                new = sum(row.nbytes for row in kept.values())
                target = eviction_target(self.max_bytes, new)
                while self._rows and self._bytes > target:
                    self._remove(next(iter(self._rows)))
            if owner in self._leases:
                self._leases[owner] = time.monotonic() + LEASE
            self._changed.notify_all()

    def release(self, owner: str) -> None:
        with self._lock:
            self._leases.pop(owner, None)
            for key in [key for key, held in self._holders.items() if held == owner]:
                del self._holders[key]
            self._changed.notify_all()

    def wait(self, keys: Sequence[bytes], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        with self._lock:
            while keys and all(self._taken(key) for key in keys):
                lease = min(self._leases[self._holders[key]] for key in keys)
                left = min(deadline, lease) - time.monotonic()
                if not self._changed.wait(max(left, 0)) and lease >= deadline:
                    return

    def count(self, hits: int, misses: int) -> None:
        with self._lock:
            self._hits += hits
            self._misses += misses

    def statistics(self) -> CacheStatistics:
        with self._lock:
            entries = len(self._rows)
            return CacheStatistics(self._hits, self._misses, entries, self._bytes)

    def clear(self) -> None:
        with self._lock:
            self._rows.clear()
            self._holders.clear()
            self._leases.clear()
            self._hits = self._misses = self._bytes = 0
            self._changed.notify_all()

    def _taken(self, key: bytes, owner: str | None = None) -> bool:
        """Tell whether a claim of anyone but the owner holds."""
        holder = self._holders.get(key)
        if holder is None or holder == owner:
            return False
        return self._leases[holder] > time.monotonic()

    def _remove(self, key: bytes) -> None:
        row = self._rows.pop(key, None)
        if row is not None:
            self._bytes -= row.nbytes

    def _forked(self) -> None:
        self._holders.clear()
        self._leases.clear()
        self._changed = threading.Condition(self._lock)


# ------------------------------------------------------- owners of work in progress

_COUNTER = itertools.count()


def new_owner() -> str:
    """Return a name of its own, which shows whether its process lives."""
    return f"{_process(os.getpid())}/{next(_COUNTER)}"


@cache
def _process(pid: int) -> str:
    return f"{_machine()}/{pid}/{_started(pid)}"


def owner_is_dead(owner: str) -> bool:
    """Tell whether the process of an owner is known to be gone."""
    machine, _, rest = owner.rpartition("//")
    pid, _, started = rest.rpartition("/")[0].partition("/")
    if not started or machine + "/" != _machine():
        return False  # another host, or a system that doesn't tell
    return _started(int(pid)) not in (started, "")


def _machine() -> str:
    """Return where process ids mean the same: host, boot and namespace of ids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()}/{boot}/{os.readlink('/proc/self/ns/pid')}/"
    except OSError:
        return f"{socket.gethostname()}/"


def _started(pid: int) -> str:
    """Return when a process began, "gone" if it is over, "" where that isn't told."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        if not Path("/proc/self/stat").exists():
            return ""
    else:
        return "gone" if fields[0] in "ZX" else fields[19]
    try:  # /proc may hide the processes of other users; this doesn't
        os.kill(pid, 0)
    except ProcessLookupError:
        return "gone"
    except OSError:
        pass
    return ""


# ------------------------------------------------------------- forks and the end

_REGISTRY = threading.RLock()
_STORES: weakref.WeakSet[Store] = weakref.WeakSet()
_held: list[Store] = []
_forking = 0  # the thread that forks now


def _before_fork() -> None:
    """Bring all stores to rest: SQLite's state must not cross a fork."""
    global _forking
    if _forking == threading.get_ident():
        return  # these hooks stand there twice
    _REGISTRY.acquire()
    _forking = threading.get_ident()
    _held[:] = _STORES
    for store in _held:
        store._lock.acquire()
        store.close()


def _after_fork_in_parent() -> None:
    global _forking
    if _forking != threading.get_ident():
        return
    for store in _held:
        store._lock.release()
    _held.clear()
    _forking = 0
    _REGISTRY.release()


def _after_fork_in_child() -> None:
    global _REGISTRY, _forking
    _forking = 0
    for store in _held:
        store._lock = threading.RLock()
        store._forked()
    _held.clear()
    _process.cache_clear()
    _REGISTRY = threading.RLock()


@atexit.register
def _close_all() -> None:
    for store in list(_STORES):
        if store._lock.acquire(timeout=1):
            store.close()
            store._lock.release()


def register_fork_hooks() -> None:
    """Register what happens at a fork; of such hooks the last that came go first."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=_before_fork,
            after_in_parent=_after_fork_in_parent,
            after_in_child=_after_fork_in_child,
        )
    # Before a fork they come first, as for all who take both locks.
    hold_generators_at_forks()


register_fork_hooks()
