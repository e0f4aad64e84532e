"""A store in the memory of the process."""

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import DTypeLike

from sklearn_dl._extraction._store import (
    LEASE,
    CacheStatistics,
    Stamp,
    Store,
    eviction_target,
)


class MemoryStore(Store):
    """Keeps rows in memory, for the threads of one process.

    A forked child begins with the rows of its parent and none of the claims. Digests
    of files are not kept here: `sklearn_dl._images` remembers them for the process.

    Parameters
    ----------
    max_bytes : int
        Bound for the bytes of all rows.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_dl._extraction._memory import MemoryStore
    >>> store = MemoryStore(1000)
    >>> key = bytes(32)
    >>> store.claim([key], "me") == [key], store.claim([key], "you") == [key]
    (True, False)
    >>> store.put({key: np.ones(2)}, "me")
    >>> store.lookup([key], (2,), float)[key]
    array([1., 1.])
    """

    def __init__(self, max_bytes: int):
        self._rows: OrderedDict[bytes, np.ndarray] = OrderedDict()
        self._holders: dict[bytes, str] = {}  # by key
        self._claims: dict[str, set[bytes]] = {}  # by owner
        self._leases: dict[str, float] = {}  # by owner, of those who hold claims
        self._hits = self._misses = self._bytes = 0
        super().__init__(max_bytes)
        self._changed = threading.Condition(self._lock)

    def lookup(
        self, keys: Sequence[bytes], shape: tuple[int, ...], dtype: DTypeLike
    ) -> dict[bytes, np.ndarray]:
        """Return those of some rows that are stored, as read-only arrays."""
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
        """Take on the rows that nobody has stored and no other live owner claimed."""
        with self._lock:
            free = [
                key
                for key in dict.fromkeys(keys)
                if key not in self._rows and not self._taken(key, owner)
            ]
            for key in free:
                self._lift(key)
                self._holders[key] = owner
                self._claims.setdefault(owner, set()).add(key)
            if free:
                self._leases[owner] = time.monotonic() + LEASE
        return free

    def put(self, rows: Mapping[bytes, np.ndarray], owner: str) -> None:
        """Store rows and lift their claims; evict above the bound."""
        kept = {key: np.array(row, order="C") for key, row in rows.items()}
        with self._lock:
            for key, row in kept.items():
                row.flags.writeable = False
                self._remove(key)
                self._rows[key] = row
                self._bytes += row.nbytes
                self._lift(key)
            self._evict(sum(row.nbytes for row in kept.values()))
            if owner in self._leases:
                self._leases[owner] = time.monotonic() + LEASE
            self._changed.notify_all()

    def release(self, owner: str) -> None:
        """Lift all claims of an owner."""
        with self._lock:
            for key in list(self._claims.get(owner, ())):
                self._lift(key)
            self._changed.notify_all()

    def wait(self, keys: Sequence[bytes], timeout: float) -> None:
        """Block until one of some keys may be free or stored, or the time is over."""
        deadline = time.monotonic() + timeout
        with self._lock:
            while keys and all(self._taken(key) for key in keys):
                lease = min(self._leases[self._holders[key]] for key in keys)
                left = min(deadline, lease) - time.monotonic()
                if not self._changed.wait(max(left, 0)) and lease >= deadline:
                    return

    def count(self, hits: int, misses: int) -> None:
        """Add to the statistics."""
        with self._lock:
            self._hits += hits
            self._misses += misses

    def statistics(self) -> CacheStatistics:
        """Return what the store did and holds."""
        with self._lock:
            return CacheStatistics(
                self._hits, self._misses, len(self._rows), self._bytes
            )

    def clear(self) -> None:
        """Drop rows and claims; begin the statistics anew."""
        with self._lock:
            self._rows.clear()
            self._drop_claims()
            self._hits = self._misses = self._bytes = 0
            self._changed.notify_all()

    def known_files(self, paths: Sequence[str]) -> dict[str, tuple[Stamp, bytes]]:
        """Return nothing: no digests of files are kept."""
        return {}

    def remember_files(self, files: Mapping[str, tuple[Stamp, bytes]]) -> None:
        """Keep nothing."""

    def _taken(self, key: bytes, owner: str | None = None) -> bool:
        """Tell whether a claim of anyone but the owner holds."""
        holder = self._holders.get(key)
        if holder is None or holder == owner:
            return False
        return self._leases[holder] > time.monotonic()

    def _lift(self, key: bytes) -> None:
        holder = self._holders.pop(key, None)
        if holder is not None:
            self._claims[holder].discard(key)
            if not self._claims[holder]:
                del self._claims[holder], self._leases[holder]

    def _drop_claims(self) -> None:
        self._holders.clear()
        self._claims.clear()
        self._leases.clear()

    def _remove(self, key: bytes) -> None:
        row = self._rows.pop(key, None)
        if row is not None:
            self._bytes -= row.nbytes

    def _evict(self, new: int) -> None:
        """Remove the least recently used, not those of the `new` bytes last put."""
        if self._bytes > self.max_bytes:
            target = eviction_target(self.max_bytes, new)
            while self._rows and self._bytes > target:
                self._remove(next(iter(self._rows)))

    def _forked(self) -> None:
        self._drop_claims()
        self._changed = threading.Condition(self._lock)
