"""How much memory there is, and what to do when it didn't suffice."""

import os
import re
from functools import cache
from pathlib import Path
from typing import NoReturn

import torch

_GIB = 2**30
# Activations of a network that predicts, for each pixel of an image: resnet50 holds 480
# bytes, vgg16 less than 800.
_BYTES_PER_PIXEL = 800
# Beyond these, batches are no faster.
_MOST = {"cpu": 32, "cuda": 256, "xpu": 128, "mps": 64}
_CGROUP = Path("/sys/fs/cgroup")


@cache
def machine_bytes() -> int:
    """Return the memory of the machine, or of the container where that is less."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows
        total = 8 * _GIB
    limit = _number(_CGROUP / "memory.max")
    return total if limit is None else min(total, limit)


def free_bytes(device: torch.device) -> int:
    """Return the memory that a device has free, about."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        ours = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + ours
    known = _number(Path("/proc/meminfo"), "MemAvailable:")
    free = machine_bytes() // 2 if known is None else known * 1024
    used = _number(_CGROUP / "memory.current")
    limit = _number(_CGROUP / "memory.max")
    if used is not None and limit is not None:
        # What a container holds of files that were read, it can let go.
        files = _number(_CGROUP / "memory.stat", "inactive_file") or 0
        free = min(free, max(0, limit - used + files))
    return free


# What allocators say: of the CPU, of devices, of cuBLAS and cuDNN, of MPS, of oneDNN
# (whose refusal of a shape is "could not create a primitive descriptor").
_NO_ROOM = re.compile(
    "can't allocate memory|not enough memory|out of memory|status_alloc_failed|"
    "invalid buffer size|could not create a primitive(?! desc)"
)


def fitting_batch_size(device: torch.device, size: tuple[int, int] | None) -> int:
    """Return a batch size for prediction of images of a size that fits the memory.

    It is a power of two: 32 on a CPU, 256 on CUDA, 128 on XPU and 64 on MPS, or what a
    third of the memory that is free has room for, where that is less.
    """
    height, width = (224, 224) if size is None else size
    room = free_bytes(device) // 3 // (_BYTES_PER_PIXEL * height * width)
    most = _MOST.get(device.type, 32)
    return 2 ** (max(1, min(room, most)).bit_length() - 1)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that a device's memory didn't suffice."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    # The CPU's allocator, those of other devices and CUDA's libraries have no class.
    said = str(error).lower()
    return isinstance(error, RuntimeError) and bool(_NO_ROOM.search(said))


def raise_no_room(error: BaseException, device: torch.device, purpose: str) -> NoReturn:
    """Raise that the memory doesn't suffice for the least that there is to do.

    An error that speaks of memory stays what it is.
    """
    text = f"{device} has not enough memory {purpose}; take a smaller image_size."
    if isinstance(error, MemoryError) or "memory" in str(error).lower():
        error.add_note(text)
        raise error
    raise MemoryError(text) from error


def _number(path: Path, name: str = "") -> int | None:
    """Return the number in a file, or that which follows a name there."""
    try:
        words = path.read_text().split()
        return int(words[words.index(name) + 1] if name else words[0])
    except (OSError, ValueError, IndexError):  # no such file, or "max"
        return None
