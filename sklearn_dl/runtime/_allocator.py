"""The C library's memory allocator, told to keep the large blocks of activations.

glibc gives every large block back to the system when it is freed, and each layer
faults its pages in again. Keeping them makes inference on a CPU several times faster.
"""

import ctypes
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
    """Give the kept blocks back to the system, at the end of a public call."""
    if keep_large_blocks():
        _glibc().malloc_trim(0)


@cache
def _glibc():
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") else None
