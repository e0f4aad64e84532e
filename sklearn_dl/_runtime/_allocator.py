"""The C library's memory allocator, told to keep the large blocks of activations.

glibc gives every large block back to the system when it is freed, and each layer
faults its pages in again. Keeping them makes inference on a CPU several times faster.
"""

import ctypes
import multiprocessing
import os
import sys
from functools import cache

import torch

from sklearn_dl._runtime._memory import machine_bytes

# Names of glibc's <malloc.h>.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

_GIB = 2**30
_SWITCH = "SKLEARN_DL_ALLOCATOR"
_STATE = {"kept": False}
_KEPT, _SYSTEM = (_GIB, 2 * _GIB - 1), (2**17, 2**17)  # the latter are glibc's own
# What each process had of the machine's memory when it last gave blocks back.
_AFTER_RELEASE: dict[int, int] = {}


def keep_large_blocks(keep: bool | None = None) -> bool:
    """Let glibc keep freed blocks for the next use; return whether it does.

    The estimators call it before they compute. The setting is the whole process's, and
    of those that it starts: switch it off with ``keep_large_blocks(False)``, or before
    Python starts by the environment variable ``SKLEARN_DL_ALLOCATOR=system``; None
    leaves the choice as it is. Once blocks were kept, switching it off sets glibc's
    thresholds to 128 KiB, where they begin; glibc moves them no more.
    """
    if keep is not None:
        os.environ[_SWITCH] = "keep" if keep else "system"
    wanted = os.environ.get(_SWITCH) != "system"
    libc = _glibc()
    if libc is None:
        return False
    if wanted != _STATE["kept"]:
        mmap_threshold, trim_threshold = _KEPT if wanted else _SYSTEM
        _STATE["kept"] = bool(
            libc.mallopt(_M_MMAP_THRESHOLD, mmap_threshold)
            and libc.mallopt(_M_TRIM_THRESHOLD, trim_threshold)
            and wanted
        )
        if not wanted:
            libc.malloc_trim(0)
    return _STATE["kept"]


def release_memory(*, at_once: bool = False) -> None:
    """Give kept blocks back to the system, at the end of a public call.

    With `at_once` all of them, as when a network is let go of whose blocks lie between
    others'. Otherwise a sixteenth of the machine's memory, and 1 GiB at most, may stay
    with the process: to fault the pages of a pass over 50 images in again takes longer
    than half of the pass itself. With a worker of a pool 128 MiB may: there are many,
    and joblib ends those that seem to grow.
    """
    if not keep_large_blocks():
        return
    resident, least = _resident_bytes(), _AFTER_RELEASE.get(os.getpid(), 0)
    if resident < least:  # somebody else gave memory back
        _AFTER_RELEASE[os.getpid()] = least = resident
    room = min(_GIB, machine_bytes() // 16)
    if multiprocessing.current_process().name != "MainProcess":
        room = _GIB // 8
    if at_once or resident - least > room:
        _glibc().malloc_trim(0)
        _AFTER_RELEASE.clear()  # of the process that this one was forked from
        _AFTER_RELEASE[os.getpid()] = _resident_bytes()


def free_cached_blocks(device: torch.device) -> None:
    """Let a device's allocator give back what it keeps, before another try."""
    if device.type in ("cuda", "xpu", "mps"):
        getattr(torch, device.type).empty_cache()
    else:
        release_memory(at_once=True)


def _resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@cache
def _glibc():
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") else None
