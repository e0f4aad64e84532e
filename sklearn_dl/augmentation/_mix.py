"""Images that are mixtures of two."""

import math
import numbers
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

MIXES = ("mixup", "cutmix")


@dataclass(frozen=True)
class Mixing:
    """Mixing of each image of a batch with another one of it.

    The factor of the first image is drawn once for the batch, from Beta(`alpha`,
    `alpha`); the second images are a random permutation. Mixup adds the two, weighted.
    CutMix pastes a rectangle of the second into the first, its sides those of the
    image times ``sqrt(1 - factor)``, its centre uniform over the image; the factor is
    then counted anew, since the border cuts some of it. ``"both"`` tosses a coin for
    each batch. See `Augment`.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from sklearn_dl.augmentation import Mixing
    >>> pixels = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 8, 8)
    >>> batch = Mixing("mixup", alpha=1.0).mix_batch(
    ...     pixels, torch.tensor([0, 1]), torch.ones(2), rng=np.random.default_rng(3)
    ... )
    >>> torch.allclose(batch["x"][1], batch["mix_share"][1])
    True
    """

    kind: str
    alpha: float | None = None

    def __post_init__(self):
        if self.kind not in (*MIXES, "both"):
            raise ValueError(
                f"mix must be 'mixup', 'cutmix' or 'both', got {self.kind!r}."
            )
        alpha = self.alpha
        real = isinstance(alpha, numbers.Real) and not isinstance(alpha, bool)
        if alpha is not None and not (real and 0 < alpha < math.inf):
            raise ValueError(
                f"mix_alpha must be a number above 0 or None, got {alpha!r}."
            )

    def mix_batch(
        self,
        pixels: torch.Tensor,
        target: torch.Tensor,
        weight: torch.Tensor,
        *,
        rng: np.random.Generator,
        pairs: bool | None = None,
    ) -> dict[str, torch.Tensor | None]:
        """Mix the images (b, c, H, W) of a batch, with their targets and weights.

        Targets are classes, integers of shape (b,), or floats of shape (b,) or (b, k).
        With `pairs` (None: for classes) the targets and weights of both images are
        returned, for a loss of each: the loss of row i is ``share[i] * weight[i] *
        loss(target[i]) + (1 - share[i]) * mix_weight[i] * loss(mix_target[i])``. Else
        they are averaged; indicators of labels need pairs where images or labels have
        weights. Mixup returns floats in [0, 1] for uint8, CutMix the dtype that came
        in.

        Returns
        -------
        dict
            ``"x"``, ``"target"``, ``"weight"``, and for pairs ``"mix_target"``,
            ``"mix_weight"`` and ``"mix_share"``, else None.
        """
        kind = MIXES[rng.integers(2)] if self.kind == "both" else self.kind
        alpha = self.alpha
        if alpha is None:
            alpha = 0.2 if kind == "mixup" else 1.0
        factor = float(rng.beta(alpha, alpha))
        order = torch.from_numpy(rng.permutation(len(pixels)))
        second = order.to(pixels.device)
        if kind == "mixup":
            if pixels.dtype == torch.uint8:
                pixels = pixels.to(torch.float32).div_(255)
            x = _mixed(pixels, second, factor)
        else:
            top, bottom, left, right = _cut_box(rng, factor, *pixels.shape[-2:])
            x = pixels.clone()
            x[..., top:bottom, left:right] = pixels[second][..., top:bottom, left:right]
            area = pixels.shape[-2] * pixels.shape[-1]
            factor = 1 - (bottom - top) * (right - left) / area
        other, other_weight = order.to(target.device), order.to(weight.device)
        result: dict[str, Any] = {"x": x, "target": target, "weight": weight}
        result |= dict.fromkeys(("mix_target", "mix_weight", "mix_share"))
        if pairs or (pairs is None and not target.is_floating_point()):
            result["mix_target"] = target[other]
            result["mix_weight"] = weight[other_weight]
            result["mix_share"] = torch.full_like(weight, factor)
        else:
            result["target"] = _mixed(target, other, factor)
            result["weight"] = _mixed(weight, other_weight, factor)
        return result


def _cut_box(
    rng: np.random.Generator, factor: float, height: int, width: int
) -> tuple[int, int, int, int]:
    """Draw the rectangle of CutMix, cut off at the border: top, bottom, left, right."""
    side = math.sqrt(1 - factor)
    y, x = rng.integers(height), rng.integers(width)
    h, w = round(height * side), round(width * side)
    top, left = int(y) - h // 2, int(x) - w // 2
    return max(top, 0), min(top + h, height), max(left, 0), min(left + w, width)


def _mixed(values: torch.Tensor, second: torch.Tensor, factor: float) -> torch.Tensor:
    return factor * values + (1 - factor) * values[second]
