"""Seeds that leave the caller's generators as they were."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from sklearn.utils import check_random_state


def draw_seed(random_state) -> int:
    """Draw one seed from a scikit-learn `random_state`."""
    return int(check_random_state(random_state).randint(2**31 - 1))


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed torch's generators for a block, and put them back after it.

    Torch's generators belong to the process: blocks in two threads at once are
    not reproducible.
    """
    with torch.random.fork_rng(devices=_cuda_index(device)):
        reseed(seed, device)
        yield


def reseed(seed: int, device: torch.device | None = None) -> None:
    """Seed torch's generator of the CPU, and that of the device."""
    torch.random.default_generator.manual_seed(seed)
    for index in _cuda_index(device):
        torch.cuda.default_generators[index].manual_seed(seed)


def _cuda_index(device: torch.device | None) -> list[int]:
    if device is None or device.type != "cuda":
        return []
    return [torch.cuda.current_device() if device.index is None else device.index]


def keyed_generator(*key: int) -> np.random.Generator:
    """Return a generator that depends on the key alone."""
    return np.random.default_rng(key)
