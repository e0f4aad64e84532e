"""The processes that train together, where `torch.distributed` has some."""

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import distributed


def joined_group(device: torch.device) -> "Group | None":
    """Return the processes that train together; None where this one trains alone."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return None
    return Group(device) if distributed.get_world_size() > 1 else None


class Group:
    """The processes that train together, as ``torch.distributed`` knows them.

    Parameters
    ----------
    device : torch.device
        Where tensors are summed.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.rank: int = distributed.get_rank()
        self.size: int = distributed.get_world_size()

    @property
    def net_class(self) -> type:
        """The net that trains in such a process."""
        from sklearn_dl.training._distributed import DistributedNet

        return DistributedNet

    @property
    def first(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0

    def share(self, n_rows: int) -> slice:
        """Return which of some rows are this process's own: none if there are few."""
        ends = [n_rows * k // self.size for k in (self.rank, self.rank + 1)]
        return slice(*ends)

    def read(self, n_rows: int) -> slice:
        """Return which rows this process reads: its own, or the first, for nothing."""
        own = self.share(n_rows)
        return own if own.stop > own.start else slice(0, 1)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of the values of all processes, the same in all."""
        total = values.to(self.device, copy=True)
        distributed.all_reduce(total)
        return total.to(values.device)

    def of_the_first(self, value: Any) -> Any:
        """Return the first process's value."""
        values = [value]
        distributed.broadcast_object_list(values, src=0, device=self.device)
        return values[0]

    def check_same(self, what: str, *arrays: np.ndarray) -> None:
        """Raise a ValueError where the processes have different arrays."""
        digest = hashlib.sha256(b"".join(map(np.ndarray.tobytes, arrays))).hexdigest()
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, digest)
        if len(set(values)) > 1:
            raise ValueError(
                f"All processes of torch.distributed must be given the same {what}."
            )

    def gathered(
        self, n_rows: int, compute: Callable[[np.ndarray], np.ndarray]
    ) -> np.ndarray:
        """Return a row of values for each of some rows, which all share out."""
        own, read = self.share(n_rows), self.read(n_rows)
        values = compute(np.arange(n_rows)[read])
        total = np.zeros((n_rows, *values.shape[1:]), values.dtype)
        total[own] = values[: own.stop - own.start]
        return self.sum(torch.from_numpy(total)).numpy()
