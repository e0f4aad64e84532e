"""Digests of encoded images, and a memory of those of files."""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sklearn_dl._images._decode import check_file

Stamp = tuple[int, ...]
Known = tuple[Stamp, bytes]

_REMEMBERED = 200_000  # files
_TICK = 2 * 10**9  # ns; no file system has a coarser clock
_CHUNK = 1024  # futures alive at once
_FEW = 4  # are read sooner than threads start
_ATTEMPTS = 3  # at a file that changes while it is read
_INT64 = 2**63 - 1  # what a database takes


def digest_encoded(content: Any) -> bytes:
    """Return the digest of an encoded image, which is that of a file that holds it."""
    if len(content) == 0:
        raise ValueError("empty (0 bytes)")
    return hashlib.sha256(content).digest()


def digest_files(
    paths: Sequence[str], memory: Any, threads: int
) -> list[bytes | Exception]:
    """Return the digest of each file, or why it can't be read."""
    found: dict[str, Any] = {}  # the place of each path, or why there is none
    stamps: dict[str, Stamp] = {}
    for path in dict.fromkeys(paths):
        try:
            place = found[path] = os.path.abspath(os.path.expanduser(path))
            stamps[place] = _stamp(os.stat(place))
        except (OSError, ValueError) as error:
            found[path] = error
    digests: dict[Any, Any] = _PROCESS.look_up(stamps)
    unknown = [place for place in stamps if place not in digests]
    if memory is not None and unknown:
        known = memory.known_files([place for place in unknown if _is_text(place)])
        same = [p for p, (stamp, _) in known.items() if tuple(stamp) == stamps[p]]
        _PROCESS.remember({p: (stamps[p], known[p][1]) for p in same})
        digests |= {p: known[p][1] for p in same}
        unknown = [place for place in unknown if place not in digests]
    if unknown:
        read = dict(zip(unknown, call_each(_read_file, unknown, threads), strict=True))
        new = {p: r for p, r in read.items() if isinstance(r, tuple) and r[0]}
        _PROCESS.remember(new)
        new = {place: known for place, known in new.items() if _is_text(place)}
        if memory is not None and new:
            memory.remember_files(new)
        for place, result in read.items():
            digests[place] = result[1] if isinstance(result, tuple) else result
    return [digests.get(found[path], found[path]) for path in paths]


def call_each(
    function: Callable[[Any], Any], values: Sequence[Any], threads: int
) -> list[Any]:
    """Return what a function returns for each value, or the exception it raises."""

    def call(value: Any) -> Any:
        try:
            return function(value)
        except MemoryError:
            raise
        except Exception as error:
            return error

    if threads <= 1 or len(values) < _FEW:
        return list(map(call, values))
    pool = ThreadPoolExecutor(threads, thread_name_prefix="sklearn_dl-digest")
    try:
        starts = range(0, len(values), _CHUNK)
        chunks = [values[start : start + _CHUNK] for start in starts]
        return [result for chunk in chunks for result in pool.map(call, chunk)]
    finally:
        pool.shutdown(cancel_futures=True)


class _ProcessMemory:
    """The digests of the files that this process read last."""

    def __init__(self) -> None:
        self.files: dict[str, Known] = {}
        self.lock = threading.Lock()

    def look_up(self, stamps: Mapping[str, Stamp]) -> dict[str, bytes]:
        with self.lock:
            known = {p: self.files[p] for p in stamps if p in self.files}
        return {p: digest for p, (stamp, digest) in known.items() if stamp == stamps[p]}

    def remember(self, files: Mapping[str, Known]) -> None:
        with self.lock:
            for place, known in files.items():
                self.files.pop(place, None)  # so that it comes last
                self.files[place] = known
            for place in list(self.files)[: max(0, len(self.files) - _REMEMBERED)]:
                del self.files[place]

    def unlock(self) -> None:
        self.lock = threading.Lock()


_PROCESS = _ProcessMemory()
if hasattr(os, "register_at_fork"):  # a thread may hold the lock when another forks
    os.register_at_fork(after_in_child=_PROCESS.unlock)


def _stamp(status: os.stat_result) -> Stamp:
    times = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return (*times, status.st_ino & _INT64, status.st_dev & _INT64)


def _read_file(place: str) -> tuple[Stamp | None, bytes]:
    """Return the digest of a file, with its stamp where that can be relied upon."""
    for _ in range(_ATTEMPTS):
        now = time.time_ns()
        check_file(os.stat(place))
        with open(place, "rb") as file:
            before = _stamp(os.fstat(file.fileno()))
            digest = hashlib.file_digest(file, "sha256").digest()
        after = os.stat(place)
        if before == _stamp(after):
            break
    else:
        return None, digest
    if after.st_size == 0:
        raise ValueError("the file is empty (0 bytes)")
    # What changed just now may change again without a tick of the file system's clock.
    recent = now - after.st_ctime_ns < _TICK or abs(now - after.st_mtime_ns) < _TICK
    return None if recent else before, digest


def _is_text(path: str) -> bool:
    """Tell whether a path can be written elsewhere: names of files may be any bytes."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
