"""The C library's memory allocator, told to keep the large blocks of activations.

glibc gives every large block back to the system when it is freed, and each layer
faults its pages in again. Keeping them makes inference on a CPU several times faster.
"""

import ctypes
import multiprocessing
import os
import sys
from functools import cache

# Names of glibc's <malloc.h>.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_GIB = 2**30


@cache
def keep_large_blocks() -> bool:
    """Let glibc keep freed blocks for the next use, in this process, once.

    The setting is the whole process's. Set the environment variable
    ``SKLEARN_DL_ALLOCATOR=system`` to leave the allocator as it is.

    Returns
    -------
    bool
        Whether the setting was made: False where the C library isn't glibc, and
        where the environment variable says so.
    """
    libc = _glibc()
    if libc is None or os.environ.get("SKLEARN_DL_ALLOCATOR") == "system":
        return False
    return bool(
        libc.mallopt(_M_MMAP_THRESHOLD, _GIB)
        and libc.mallopt(_M_TRIM_THRESHOLD, 2 * _GIB - 1)
    )


def release_memory() -> None:
    """Give kept blocks back to the system, at the end of a public call.

    A sixteenth of the machine's memory, and 1 GiB at most, may stay with the process:
    to fault the pages of a pass over 50 images in again takes longer than half of the
    pass itself. With a worker of a pool 128 MiB may: there are many, and joblib ends
    those that seem to grow.
    """
    if not keep_large_blocks():
        return
    resident = _resident_bytes()
    if resident - _AFTER_RELEASE.get(os.getpid(), 0) > _kept_bytes():
        _glibc().malloc_trim(0)
        _AFTER_RELEASE.clear()  # of the process that this one was forked from
        _AFTER_RELEASE[os.getpid()] = _resident_bytes()


# What each process had of the machine's memory when it last gave blocks back.
_AFTER_RELEASE: dict[int, int] = {}


def _kept_bytes() -> int:
    if multiprocessing.current_process().name != "MainProcess":
        return _GIB // 8
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(_GIB, pages // 16)


def _resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@cache
def _glibc():
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") else None
