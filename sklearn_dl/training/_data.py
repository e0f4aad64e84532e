"""Training and validation rows as a dataset that hands out whole batches."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch.utils.data import Dataset

from sklearn_dl.extraction import PixelReader


class TrainingRows(Dataset):
    """Inputs, targets and weights, indexed by row.

    A batch is fetched by one call, so that images are decoded in threads and arrays
    are resized together.

    Parameters
    ----------
    inputs : PixelReader or torch.Tensor of shape (n, n_features)
        Images, or the features that a frozen backbone gave for them.
    target : torch.Tensor of shape (n,) or (n, n_targets)
        Of all inputs.
    weight : torch.Tensor of shape (n,), default=None
        Of all inputs; None weighs every row 1.
    rows : torch.Tensor of int, default=None
        Positions of the inputs that are in use; None for all of them.
    """

    def __init__(
        self,
        inputs: PixelReader | torch.Tensor,
        target: torch.Tensor,
        weight: torch.Tensor | None = None,
        rows: torch.Tensor | None = None,
    ):
        self.inputs = inputs
        self.all_targets = target
        self.all_weights = torch.ones(len(target)) if weight is None else weight
        self.rows = torch.arange(len(target)) if rows is None else rows

    @property
    def target(self) -> torch.Tensor:
        """Targets of the rows in use."""
        return self.all_targets[self.rows]

    def weighted(self, weight: np.ndarray) -> "TrainingRows":
        """Return the rows that weigh something, with weights of mean 1.

        Rows of weight zero would take time, and part in BatchNorm's statistics.
        """
        rows = np.flatnonzero(weight)
        if len(rows) == 0:
            raise ValueError("sample_weight is zero for every row.")
        weights = torch.from_numpy(weight / weight[rows].mean())
        return TrainingRows(
            self.inputs, self.all_targets, weights, torch.from_numpy(rows)
        )

    def split(
        self, fraction: float, strata: np.ndarray | None, seed: int
    ) -> tuple["TrainingRows", "TrainingRows"]:
        """Return training rows, and a fraction held back for validation.

        Parameters
        ----------
        fraction : float
            Share of the rows held back.
        strata : ndarray of shape (n,) or None
            Classes to keep in proportion, where there are enough rows of each.
        seed : int
        """
        if len(self) < 2:
            raise ValueError(
                "early_stopping=True holds rows back for validation, but there is "
                "n_samples=1; use early_stopping=False, or give X_val and y_val."
            )
        arguments: dict[str, Any] = {"test_size": fraction, "random_state": seed}
        rows = self.rows.numpy()
        try:
            parts = train_test_split(rows, stratify=strata, **arguments)
        except ValueError:
            # A class of one row, or more classes than rows held back.
            if strata is None:
                raise
            warnings.warn(
                "The validation rows are not stratified: some class has too few "
                "rows. Give X_val and y_val to choose them.",
                UserWarning,
                stacklevel=5,
            )
            parts = train_test_split(rows, **arguments)
        train, held_back = (
            TrainingRows(
                self.inputs, self.all_targets, self.all_weights, torch.from_numpy(part)
            )
            for part in parts
        )
        return train, held_back

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, indices: Sequence[int]) -> tuple[dict[str, Any], Any]:
        rows = self.rows[torch.as_tensor(indices)]
        batch: dict[str, torch.Tensor] = {"sample_weight": self.all_weights[rows]}
        if isinstance(self.inputs, torch.Tensor):
            batch["features"] = self.inputs[rows]
        else:
            batch["x"] = self.inputs.read(rows.numpy())
        return batch, self.all_targets[rows]

    def __getitem__(self, index: int) -> tuple[dict[str, Any], Any]:
        batch, target = self.__getitems__([index])
        return {name: value[0] for name, value in batch.items()}, target[0]


def whole_batch(batch):
    """Collate what is a batch already."""
    return batch
