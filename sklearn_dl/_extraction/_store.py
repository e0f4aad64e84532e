"""What a store of features does, and who owns the work in progress."""

import atexit
import itertools
import os
import socket
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

# Seconds that a claim lasts unless its owner claims or puts something: longer than one
# batch takes. Owners that died are known without it.
LEASE = 900.0

Stamp = tuple[int, ...]


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

    Parameters
    ----------
    max_bytes : int
        Bound for the bytes of all rows. When it is passed, the least recently used go,
        down to 90 % of it.
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
    def lookup(
        self, keys: Sequence[bytes], shape: tuple[int, ...], dtype: DTypeLike
    ) -> dict[bytes, np.ndarray]:
        """Return those of some rows that are stored, as read-only arrays.

        A row of another length or dtype, or a damaged one, is removed: it counts as
        not stored.

        Parameters
        ----------
        keys : sequence of bytes
        shape : tuple of int
            Of each row.
        dtype : dtype
            Of each row.

        Returns
        -------
        dict of bytes to ndarray of that shape and dtype
            The bits that were stored.
        """

    @abstractmethod
    def claim(self, keys: Sequence[bytes], owner: str) -> list[bytes]:
        """Take on the rows that nobody has stored and no other live owner claimed.

        Parameters
        ----------
        keys : sequence of bytes
        owner : str
            From `new_owner`, one for each call that computes.

        Returns
        -------
        list of bytes
            The keys that are this owner's now, in the order given.
        """

    @abstractmethod
    def put(self, rows: Mapping[bytes, np.ndarray], owner: str) -> None:
        """Store rows and lift their claims, all or nothing; evict above the bound.

        What is put stays unless it alone exceeds the bound.

        Parameters
        ----------
        rows : mapping of bytes to ndarray
        owner : str
            Its other claims are prolonged.
        """

    @abstractmethod
    def release(self, owner: str) -> None:
        """Lift all claims of an owner."""

    @abstractmethod
    def wait(self, keys: Sequence[bytes], timeout: float) -> None:
        """Block until one of some keys may be free or stored, or the time is over.

        Parameters
        ----------
        keys : sequence of bytes
        timeout : float
            Seconds.
        """

    @abstractmethod
    def count(self, hits: int, misses: int) -> None:
        """Add to the statistics."""

    @abstractmethod
    def statistics(self) -> CacheStatistics:
        """Return what the store did and holds."""

    @abstractmethod
    def clear(self) -> None:
        """Drop rows, claims and digests of files; begin the statistics anew."""

    @abstractmethod
    def known_files(self, paths: Sequence[str]) -> dict[str, tuple[Stamp, bytes]]:
        """Return the remembered stamps and digests of some files.

        Parameters
        ----------
        paths : sequence of str

        Returns
        -------
        dict of str to (stamp, digest)
            Of those files that are known.
        """

    @abstractmethod
    def remember_files(self, files: Mapping[str, tuple[Stamp, bytes]]) -> None:
        """Remember the stamps and digests of files."""

    def close(self) -> None:  # noqa: B027
        """Let go of files; the next use opens them again."""

    def _forked(self) -> None:  # noqa: B027
        """Forget what belonged to the parent process."""


def eviction_target(max_bytes: int, new: int) -> int:
    """Return how many bytes stay when a store with `new` ones exceeds its bound."""
    target = max_bytes * 9 // 10
    return new if target < new <= max_bytes else target


_COUNTER = itertools.count()
_REGISTRY = threading.RLock()
_STORES: weakref.WeakSet[Store] = weakref.WeakSet()
_held: list[Store] = []


def new_owner() -> str:
    """Return a name that no other owner has, and that shows whether its process lives.

    Examples
    --------
    >>> from sklearn_dl._extraction._store import new_owner, owner_is_dead
    >>> owner = new_owner()
    >>> owner == new_owner(), owner_is_dead(owner)
    (False, False)
    """
    pid = os.getpid()
    return f"{_machine()}/{pid}/{_started(pid)}/{next(_COUNTER)}"


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
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "gone" if Path("/proc/self/stat").exists() and _gone(pid) else ""
    fields = stat.rpartition(")")[2].split()
    return "gone" if fields[0] in "ZX" else fields[19]


def _gone(pid: int) -> bool:
    # /proc may hide the processes of other users; this doesn't.
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


def _before_fork() -> None:
    """Bring all stores to rest: SQLite's state must not cross a fork."""
    _REGISTRY.acquire()
    _held[:] = _STORES
    for store in _held:
        store._lock.acquire()
        store.close()


def _after_fork_in_parent() -> None:
    for store in _held:
        store._lock.release()
    _held.clear()
    _REGISTRY.release()


def _after_fork_in_child() -> None:
    global _REGISTRY
    for store in _held:
        store._lock = threading.RLock()
        store._forked()
    _held.clear()
    _REGISTRY = threading.RLock()


@atexit.register
def _close_all() -> None:
    for store in list(_STORES):
        if store._lock.acquire(timeout=1):
            store.close()
            store._lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
