"""Seeds that leave the caller's generators as they were."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from sklearn.utils import check_random_state


def draw_seed(random_state) -> int:
    """Draw one seed from a scikit-learn `random_state`.

    Examples
    --------
    >>> from sklearn_dl.runtime import draw_seed
    >>> draw_seed(0) == draw_seed(0)
    True
    """
    return int(check_random_state(random_state).randint(2**31 - 1))


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed torch's generators for a block, and put them back after it.

    Torch's generators belong to the process: blocks in two threads at once are
    not reproducible.

    Examples
    --------
    >>> import torch
    >>> from sklearn_dl.runtime import seeded
    >>> with seeded(0):
    ...     first = torch.rand(2)
    >>> with seeded(0):
    ...     torch.equal(first, torch.rand(2))
    True
    """
    devices = []
    if device is not None and device.type == "cuda":
        current = torch.cuda.current_device()
        devices = [current if device.index is None else device.index]
    with torch.random.fork_rng(devices=devices):
        torch.random.default_generator.manual_seed(seed)
        for index in devices:
            torch.cuda.default_generators[index].manual_seed(seed)
        yield
