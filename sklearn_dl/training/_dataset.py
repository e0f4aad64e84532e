"""Training and validation rows as a dataset that hands out whole batches."""

import math
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import ShuffleSplit, train_test_split
from torch.utils.data import DataLoader, Dataset

from sklearn_dl._extraction import KeptMaps, PixelReader
from sklearn_dl._images import ImageSource
from sklearn_dl._runtime import keyed_generator
from sklearn_dl.augmentation import Mixing

# The first number of a key after (seed, epoch): what is drawn.
_VIEW, _MIX = 0, 1


@dataclass(frozen=True)
class Rows:
    """Images with their targets and weights, before they are read."""

    source: ImageSource
    target: torch.Tensor  # (n,) or (n, n_targets)
    weight: np.ndarray  # (n,)
    rows: np.ndarray | None = None  # positions in the source; None for all of it
    note: str = ""  # what an error about these rows adds

    def __len__(self) -> int:
        return len(self.target)

    def take(self, index: np.ndarray) -> "Rows":
        """Return some of the rows."""
        rows = index if self.rows is None else self.rows[index]
        target, weight = self.target[index], self.weight[index]
        return Rows(self.source, target, weight, rows, self.note)

    def weighted(self) -> "Rows":
        """Return the rows that weigh something, with weights of mean 1.

        The others would take time, and part in BatchNorm's statistics.
        """
        chosen = self.take(np.flatnonzero(self.weight))
        if len(chosen) == 0:
            raise ValueError("sample_weight is zero for every row.")
        return replace(chosen, weight=chosen.weight / chosen.weight.mean())

    def split(
        self,
        fraction: float,
        strata: np.ndarray | None,
        seed: int,
        groups: np.ndarray | None = None,
    ) -> tuple["Rows", "Rows"]:
        """Return rows to train on, and a fraction of the rows for validation.

        `strata` has the classes to keep in proportion, where there are enough of each;
        rows of one of the `groups` stay together.
        """
        if len(self) < 2:
            raise ValueError(
                "early_stopping=True takes rows for validation, but there is "
                "n_samples=1; use early_stopping=False, or give X_val and y_val."
            )
        if groups is not None:
            parts = _apart_by_groups(groups, strata, fraction, seed)
            training, validation = (self.take(part).weighted() for part in parts)
            return training, validation
        every = np.arange(len(self))
        arguments: dict[str, Any] = {"test_size": fraction, "random_state": seed}
        try:
            parts = train_test_split(every, stratify=strata, **arguments)
        except ValueError:
            # A class of one row, or more classes than validation rows.
            if strata is None:
                raise
            warnings.warn(
                "The validation rows are not stratified: some class has too few rows. "
                "Give X_val and y_val to choose them.",
                UserWarning,
                stacklevel=4,
            )
            parts = train_test_split(every, **arguments)
        training, validation = (self.take(part).weighted() for part in parts)
        return training, validation


def _apart_by_groups(
    groups: np.ndarray, strata: np.ndarray | None, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions to train on and for validation; no group is in both.

    Of some draws the one that comes nearest to the fraction, of each of the strata.
    """
    names, group = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        raise ValueError(
            "early_stopping=True takes whole groups for validation, but all rows are "
            f"of the group {names.tolist()[0]!r}; give X_val and y_val."
        )
    stratum = np.zeros_like(group) if strata is None else strata
    every = np.bincount(stratum)

    def distance(held_out: np.ndarray) -> tuple[int, float]:
        taken = np.bincount(stratum[held_out], minlength=len(every))
        lost = int((taken[every > 0] == every[every > 0]).sum())  # none to train on
        return lost, float(np.abs(taken - fraction * every).sum())

    size = min(math.ceil(fraction * len(names)), len(names) - 1)
    draws = ShuffleSplit(100, test_size=size, random_state=seed).split(names)
    held_out = min((np.isin(group, taken) for _, taken in draws), key=distance)
    if distance(held_out)[0]:
        raise ValueError(
            "early_stopping=True takes whole groups for validation, which leaves no "
            "rows of some class to train on: it is in too few groups. Give X_val and "
            "y_val."
        )
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


class TrainingRows(Dataset):
    """Inputs, targets and weights, indexed by row.

    A batch is fetched by one call, so that images are decoded in threads and arrays
    are resized together. What is random in it depends on the seed, the epoch and the
    row alone: workers, threads and an interruption change nothing.
    """

    def __init__(
        self,
        rows: Rows,
        *,
        pixels: PixelReader | None = None,
        features: np.ndarray | None = None,
        by_epoch: Callable[[int], np.ndarray] | None = None,
        maps: KeptMaps | None = None,
        mixing: Mixing | None = None,
        pairs: bool | None = None,
        seed: int = 0,
    ):
        self.target = rows.target
        self.weight = torch.from_numpy(rows.weight)  # of mean 1
        self.note = rows.note
        self.pixels = pixels  # whose view may be an `AugmentedView`
        # What a frozen backbone gave, (n, n_features): in their place until `thaw`.
        self.features = None if features is None else torch.from_numpy(features)
        self.by_epoch = by_epoch  # gives such features as images are in an epoch
        self.maps = maps  # what a frozen prefix gave, in the place of pixels
        self.mixing = mixing
        self.pairs = pairs  # whether mixed rows keep two targets
        self.seed = seed
        self.epoch = 0
        # Which rows of a batch this process reads, where several train together.
        self.read_share: Callable[[int], slice] | None = None

    def __len__(self) -> int:
        return len(self.target)

    @property
    def random(self) -> bool:
        """Whether epochs differ in more than the order of the rows."""
        view = None if self.pixels is None else self.pixels.view
        return any(part is not None for part in (self.mixing, view, self.by_epoch))

    def thaw(self) -> None:
        """Hand out maps or pixels from now on: the backbone is no longer frozen."""
        if self.pixels is not None:
            self.features = self.by_epoch = None

    @property
    def _ready(self) -> bool:
        """Whether no image has to be read."""
        return self.features is not None or self.maps is not None

    def start_epoch(self, epoch: int) -> None:
        """Draw as this epoch does."""
        self.epoch = epoch
        if self.by_epoch is not None:
            self.features = torch.from_numpy(self.by_epoch(epoch))
        if self.pixels is not None and isinstance(self.pixels.view, AugmentedView):
            self.pixels.view.epoch = epoch

    def __getstate__(self) -> dict:
        return {**self.__dict__, "by_epoch": None}  # a loader's worker has one epoch

    def __getitems__(self, indices: Sequence[int]) -> tuple[dict[str, Any], Any]:
        index = torch.as_tensor(indices)
        if self._ready:
            return self._batch(index, None)
        assert self.pixels is not None
        with noted(self.note):
            pixels = self.pixels.read(self._read(index).numpy())
        return self._batch(index, pixels)

    def __getitem__(self, index: int) -> tuple[dict[str, Any], Any]:
        batch, target = self.__getitems__([index])
        return {name: value[0] for name, value in batch.items()}, target[0]

    def stream(
        self, batches: Iterable[Sequence[int]]
    ) -> Iterator[tuple[dict[str, Any], Any]]:
        """Yield batches of rows; images are decoded while the network works."""
        pixels = None if self._ready else self.pixels
        if pixels is None or not pixels.source.thread_safe:
            # What a dataset draws at random must not mix with what the steps draw.
            yield from map(self.__getitems__, batches)
            return
        index: deque = deque()

        def read() -> Iterator[np.ndarray]:
            for rows in batches:
                index.append(torch.as_tensor(rows))
                yield self._read(index[-1]).numpy()

        coming: Any = pixels.stream(read())
        with closing(coming):
            while True:
                with noted(self.note):
                    ready = next(coming, None)
                if ready is None:
                    return
                yield self._batch(index.popleft(), ready[1])

    def _read(self, index: torch.Tensor) -> torch.Tensor:
        """Return the rows of a batch that are read: mixing takes all of them."""
        if self.read_share is None or self.mixing is not None:
            return index
        return index[self.read_share(len(index))]

    def _batch(
        self, index: torch.Tensor, pixels: torch.Tensor | None
    ) -> tuple[dict[str, Any], Any]:
        """Return inputs and targets of some rows, mixed."""
        target, weight = self.target[index], self.weight[index]
        if self.features is not None:
            features = self.features[self._read(index)]
            return {"features": features, "sample_weight": weight}, target
        if pixels is None:
            assert self.maps is not None
            with noted(self.note):
                maps = self.maps(self._read(index).numpy())
            return {"maps": maps, "sample_weight": weight}, target
        if self.mixing is None:
            return {"x": pixels, "sample_weight": weight}, target
        rng = keyed_generator(self.seed, self.epoch, _MIX, int(index[0]))
        mixed = self.mixing.mix_batch(pixels, target, weight, pairs=self.pairs, rng=rng)
        batch = {"x": mixed["x"], "sample_weight": mixed["weight"]}
        if self.read_share is not None:
            batch["x"] = batch["x"][self.read_share(len(index))]
        for name in ("mix_target", "mix_weight", "mix_share"):
            if mixed.get(name) is not None:
                batch[name] = mixed[name]
        return batch, mixed["target"]


class RowLoader(DataLoader):
    """A loader of `TrainingRows` that reads ahead without worker processes.

    With ``num_workers`` above 0, and over other datasets, it is torch's own.
    """

    def __iter__(self):
        """Return an iterator over the batches of an epoch."""
        rows, batches = self.dataset, self.batch_sampler
        if self.num_workers or batches is None or not isinstance(rows, TrainingRows):
            return super().__iter__()
        # torch's iterators draw a seed for their workers: what is random after it
        # must not depend on the number of workers.
        torch.empty((), dtype=torch.int64).random_(generator=self.generator)
        return map(self.collate_fn, rows.stream(batches))


class AugmentedView:
    """Random changes of each image, drawn from (seed, number, row).

    The number is that of the epoch; with a `limit`, the epoch modulo that.
    """

    n_views = None  # one view of an image, which depends on the row too

    def __init__(self, augmenter, seed: int, limit: int | None = None):
        self.augmenter = augmenter
        self.seed = seed
        self.limit = limit
        self.epoch = 0
        self.thread_safe = augmenter.thread_safe

    def __call__(self, image, row: int) -> torch.Tensor:
        """Return the image as the network sees it in this epoch."""
        rng = keyed_generator(self.seed, self.number(self.epoch), _VIEW, row)
        return self.augmenter(image, rng)

    def number(self, epoch: int) -> int:
        """Return which of the views an epoch has."""
        return epoch if self.limit is None else epoch % self.limit

    def fixed(self, number: int) -> "AugmentedView":
        """Return one of the views, the same whatever the limit is."""
        view = AugmentedView(self.augmenter, self.seed)
        view.epoch = number
        return view


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
    """Return what is a batch already."""
    return batch


def sent(
    values: torch.Tensor, device: torch.device, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """Return values on a device; a GPU copies while the host goes on."""
    return values.to(device, dtype, non_blocking=device.type == "cuda")
