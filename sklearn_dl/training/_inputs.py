"""What the rows of a training are read as: pixels, or features of a frozen backbone."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch

from sklearn_dl._extraction import PixelReader
from sklearn_dl.augmentation import Mixing, resolve_augment
from sklearn_dl.training._data import AugmentedView, Rows, TrainingRows
from sklearn_dl.training._module import BackboneWithHead
from sklearn_dl.training._regime import Regime


@dataclass
class Inputs:
    """Reads rows for a network that is trained in a regime.

    Parameters
    ----------
    network : BackboneWithHead
        As the regime's last phase has it.
    regime : Regime
    device : torch.device
    stack : ExitStack
        Closes the readers.
    run : callable
        ``run(rows)`` returns the backbone's features for `Rows`, as ndarray.
    """

    network: BackboneWithHead
    regime: Regime
    device: torch.device
    stack: ExitStack
    run: Callable[[Rows], np.ndarray]

    def plain(self, rows: Rows) -> TrainingRows:
        """Return rows of pixels, or of features while the backbone is frozen.

        Such features are the same in every epoch: one pass gives them.
        """
        trains = self.network.trains_backbone
        pixels = self._reader(rows) if trains else None
        features = None
        if self.regime.warmup_epochs or not trains:
            features = torch.from_numpy(self.run(rows))
        weight = torch.from_numpy(rows.weight)
        return TrainingRows(rows.target, weight, pixels=pixels, features=features)

    def changing(
        self, rows: Rows, *, augment, mix: str | None, mix_alpha, pairs: bool, seed: int
    ) -> TrainingRows:
        """Return rows that are augmented and mixed anew in each epoch."""
        preprocessing = self.network.backbone.preprocessing
        augmenter, mixing = resolve_augment(augment, preprocessing)
        if mix is not None:
            mixing = Mixing(mix, mix_alpha)
        if augmenter is None and mixing is None:
            return self.plain(rows)
        view = None if augmenter is None else AugmentedView(augmenter, seed)
        return TrainingRows(
            rows.target,
            torch.from_numpy(rows.weight),
            pixels=self._reader(rows, view),
            mix=None if mixing is None else mixing.kind,
            mix_alpha=None if mixing is None else mixing.alpha,
            pairs=pairs,
            seed=seed,
        )

    def _reader(self, rows: Rows, view=None) -> PixelReader:
        preprocessing = self.network.backbone.preprocessing
        reader = PixelReader(rows.source, preprocessing, self.device, rows.rows, view)
        return self.stack.enter_context(reader)
