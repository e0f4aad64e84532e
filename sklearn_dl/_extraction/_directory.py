"""A store in a directory, shared by the processes of a host and by runs."""

import os
import sqlite3
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np

import sklearn_dl._extraction._sqlite as tables
from sklearn_dl._extraction._store import CacheStatistics, Found, Stamp, Store
from sklearn_dl._files import writing

T = TypeVar("T")


class DirectoryStore(Store):
    """Keeps rows in ``features.sqlite3`` of a directory, for all processes of a host.

    A process that is killed leaves whole rows only, and its claims are free at once. A
    file that is damaged or not ours is moved to ``features.sqlite3.damaged-<n>``, with
    a warning. From the first time that it can't be written (a full disk, a read-only
    directory, a lock that is never lifted), nothing is stored or claimed, and what was
    stored is still found where the file can be read. Once there is a warning, when
    something is missing that can't be kept.

    Notes
    -----
    Format 1 is a SQLite database in WAL mode, with the application id 0x534B4446 and
    the format as user version, of these tables:

    ========  =====================================================================
    entries   A row: key (32 bytes), dtype (as NumPy writes it, such as ``<f4``),
              size in bytes, CRC-32 of key and value, and when it was used.
    features  Its value, by the entry's id: the bytes of the C-contiguous array.
    owners    Who computes now, and until when (Unix time) unless renewed.
    claims    The keys that an owner computes.
    files     Stamp and digest of image files, by path.
    totals    One row: entries, bytes, hits, misses, and the clock of uses.
    ========  =====================================================================

    Uses are numbered, not timed. A hit writes only if a twentieth of the bound was put
    since the row's last noted use: to that coarseness the eviction follows the uses.
    """

    def __init__(self, directory: str | os.PathLike, max_bytes: int):
        self._database = tables.Database(directory)
        self._failed: Exception | None = None  # why it can't be written
        self._warned = False
        self._owners: set[str] = set()  # who may have claims in the file
        self._uncounted = [0, 0]  # hits and misses that could not be written
        super().__init__(max_bytes)

    def lookup(self, keys: Sequence[bytes], shape: tuple[int, ...], dtype) -> Found:
        dtype = np.dtype(dtype)
        length = dtype.itemsize * int(np.prod(shape))
        found: Found = {}
        stale, bad = [], []
        rows, mark = self._read(lambda db: tables.rows_of(db, keys), ([], 0))
        for key, number, kind, checksum, used, value in rows:
            right = value is not None and kind == dtype.str and len(value) == length
            if not right or tables.checksum_of(key, value) != checksum:
                bad.append(number)
            else:
                found[key] = np.ndarray(shape, dtype, value)
                if used <= mark:
                    stale.append(number)
        if bad or stale:
            self._write(lambda db: tables.note(db, stale, bad), None)
        return found

    def claim(self, keys: Sequence[bytes], owner: str) -> list[bytes]:
        keys = list(dict.fromkeys(keys))
        with self._lock:
            free = self._write(lambda db: tables.claim(db, keys, owner), keys)
            if self._failed:
                self._warn()
            elif free:
                self._owners.add(owner)
        return free

    def put(self, rows: Mapping[bytes, np.ndarray], owner: str) -> None:
        with self._lock:
            bound = self.max_bytes
            left = self._write(lambda db: tables.put(db, rows, owner, bound), True)
            if self._failed:
                self._warn()
                self.release(owner)
            elif not left:
                self._owners.discard(owner)

    def release(self, owner: str) -> None:
        with self._lock:
            if owner in self._owners:
                if self._failed:  # a full disk may still let the log be written over
                    self._database.tell("wal_checkpoint(RESTART)")
                if self._write(lambda db: tables.release(db, owner), False, retry=True):
                    self._owners.discard(owner)

    def wait(self, keys: Sequence[bytes], timeout: float) -> None:
        deadline, pause = time.monotonic() + timeout, 0.01
        wanted = set(keys)
        while wanted:
            claimed = self._read(lambda db: tables.claimed(db, wanted), set())
            left = deadline - time.monotonic()
            if claimed != wanted or left <= 0:
                return
            time.sleep(min(pause, left))
            pause = min(2 * pause, 0.2)

    def count(self, hits: int, misses: int) -> None:
        sql = "UPDATE totals SET hits = hits + ?, misses = misses + ?"
        with self._lock:
            if not self._write(lambda db: db.execute(sql, (hits, misses)), None):
                self._uncounted[0] += hits
                self._uncounted[1] += misses

    def statistics(self) -> CacheStatistics:
        sql = "SELECT hits, misses, entries, bytes FROM totals"
        with self._lock:
            totals = self._read(lambda db: db.execute(sql).fetchone(), (0, 0, 0, 0))
            hits, misses = self._uncounted
        return CacheStatistics(totals[0] + hits, totals[1] + misses, *totals[2:])

    def clear(self) -> None:
        """Drop all that is kept; a store that could not be written has another try."""
        with self._lock:
            self._failed, self._warned, self._uncounted = None, False, [0, 0]
            self.close()
            if self._database.exists():
                self._write(tables.empty, None)
                self._warn()
                self._database.shrink()

    def known_files(self, paths: Sequence[str]) -> dict[str, tuple[Stamp, bytes]]:
        names = {os.fsencode(path): path for path in paths}
        sql = "SELECT path, stamp, digest FROM files WHERE path IN ({})"
        rows = self._read(partial(tables.select, sql=sql, keys=names), [])
        return {
            names[name]: (tuple(map(int, stamp.split())), digest)
            for name, stamp, digest in rows
        }

    def remember_files(self, files: Mapping[str, tuple[Stamp, bytes]]) -> None:
        rows = [
            (os.fsencode(path), " ".join(map(str, stamp)), digest)
            for path, (stamp, digest) in files.items()
        ]
        if rows:
            self._write(lambda db: tables.remember(db, rows), None)

    def close(self) -> None:
        with self._lock:
            self._database.close()

    def _forked(self) -> None:
        self._owners.clear()

    def _read(self, work: Callable[[sqlite3.Connection], T], default: Any) -> T:
        """Return what some reading finds; the default where there is no file."""
        with self._lock:
            if not self._database.exists():
                self._database.close()
                return default
            if not self._failed:
                done, value = self._try(work)
                if done:
                    return value
            try:
                return work(self._database.connect_to_read())
            except (OSError, sqlite3.Error):
                return default

    def _write(
        self, work: Callable[[sqlite3.Connection], T], default: Any, retry: bool = False
    ) -> T:
        """Do some writing in a transaction; the default where it can't be done."""

        def whole(connection):
            with tables.transaction(connection):
                return work(connection)

        with self._lock:
            if self._failed and not retry:
                return default
            done, value = self._try(whole)
            return value if done else default

    def _try(self, work: Callable[[sqlite3.Connection], T]) -> tuple[bool, Any]:
        """Work on the file, or on a new one in place of one that is damaged."""
        for last in (False, True):
            try:
                with writing(self._database.path):
                    return True, work(self._database.connect())
            except sqlite3.ProgrammingError:
                raise
            except (OSError, sqlite3.Error) as error:
                failure = error
            try:
                if not last and tables.is_damage(failure):
                    self._database.replace(failure)
                    continue
            except OSError as error:
                failure = error
            break
        self._failed = self._failed or failure
        self._database.tell("busy_timeout = 1000")  # from now on
        return False, None

    def _warn(self) -> None:
        """Warn, once, if the store can't be written."""
        if self._failed and not self._warned:
            self._warned = True
            warnings.warn(
                f"The feature cache in {self._database.directory} can't be written "
                f"({self._failed}): features are computed and not kept.",
                UserWarning,
                stacklevel=2,
            )
