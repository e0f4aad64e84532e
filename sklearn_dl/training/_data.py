"""Training and validation rows as a dataset that hands out whole batches."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch.utils.data import Dataset

from sklearn_dl.extraction import PixelReader
from sklearn_dl.images import ImageSource


class TrainingRows(Dataset):
    """Inputs, targets and weights, indexed by row.

    A batch is fetched by one call, so that images are decoded in threads and arrays
    are resized together.

    Parameters
    ----------
    inputs : PixelReader or torch.Tensor of shape (n, n_features)
        Images, or the features that a frozen backbone gave for them.
    target : torch.Tensor of shape (n,) or (n, n_targets)
    weight : torch.Tensor of shape (n,)
        With mean 1.
    """

    def __init__(
        self,
        inputs: PixelReader | torch.Tensor,
        target: torch.Tensor,
        weight: torch.Tensor,
    ):
        self.inputs = inputs
        self.target = target
        self.weight = weight
        self.note = ""  # what an error of these rows adds

    def __len__(self) -> int:
        return len(self.target)

    def __getitems__(self, indices: Sequence[int]) -> tuple[dict[str, Any], Any]:
        index = torch.as_tensor(indices)
        batch: dict[str, torch.Tensor] = {"sample_weight": self.weight[index]}
        if isinstance(self.inputs, torch.Tensor):
            batch["features"] = self.inputs[index]
        else:
            with noted(self.note):
                batch["x"] = self.inputs.read(index.numpy())
        return batch, self.target[index]

    def __getitem__(self, index: int) -> tuple[dict[str, Any], Any]:
        batch, target = self.__getitems__([index])
        return {name: value[0] for name, value in batch.items()}, target[0]


@contextmanager
def noted(note: str) -> Iterator[None]:
    """Add a note to errors of a block, such as which of two X they are about."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if note:
            error.add_note(note)
        raise


def whole_batch(batch):
    """Collate what is a batch already."""
    return batch


@dataclass(frozen=True)
class Rows:
    """Images with their targets and weights, before they are read.

    Parameters
    ----------
    source : ImageSource
    target : torch.Tensor of shape (n,) or (n, n_targets)
    weight : ndarray of shape (n,)
    rows : ndarray of int, shape (n,), default=None
        Positions of the n images in the source; None for all of it.
    """

    source: ImageSource
    target: torch.Tensor
    weight: np.ndarray
    rows: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.target)

    def take(self, index: np.ndarray) -> "Rows":
        """Return some of the rows."""
        rows = index if self.rows is None else self.rows[index]
        return Rows(self.source, self.target[index], self.weight[index], rows)

    def weighted(self) -> "Rows":
        """Return the rows that weigh something, with weights of mean 1.

        The others would take time, and part in BatchNorm's statistics.
        """
        chosen = self.take(np.flatnonzero(self.weight))
        if len(chosen) == 0:
            raise ValueError("sample_weight is zero for every row.")
        return replace(chosen, weight=chosen.weight / chosen.weight.mean())


def hold_back(
    n_rows: int, fraction: float, strata: np.ndarray | None, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows to train on, and a fraction held back for validation.

    Parameters
    ----------
    n_rows : int
    fraction : float
        Share of the rows held back.
    strata : ndarray of shape (n_rows,) or None
        Classes to keep in proportion, where there are enough rows of each.
    seed : int
    """
    if n_rows < 2:
        raise ValueError(
            "early_stopping=True holds rows back for validation, but there is "
            "n_samples=1; use early_stopping=False, or give X_val and y_val."
        )
    rows = np.arange(n_rows)
    arguments: dict[str, Any] = {"test_size": fraction, "random_state": seed}
    try:
        train, held_back = train_test_split(rows, stratify=strata, **arguments)
    except ValueError:
        # A class of one row, or more classes than rows held back.
        if strata is None:
            raise
        warnings.warn(
            "The validation rows are not stratified: some class has too few rows. "
            "Give X_val and y_val to choose them.",
            UserWarning,
            stacklevel=5,
        )
        train, held_back = train_test_split(rows, **arguments)
    return train, held_back
