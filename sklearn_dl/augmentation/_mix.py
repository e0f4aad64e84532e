"""Images that are mixtures of two."""

import math
import numbers
from dataclasses import dataclass

import numpy as np
import torch

MIXES = ("mixup", "cutmix")


@dataclass(frozen=True)
class Mixing:
    """Mixing of each image of a batch with another one of it.

    The factor of the first image is drawn once for the batch, from Beta(`alpha`,
    `alpha`); the second images are a random permutation. Mixup adds the two, weighted.
    CutMix pastes a rectangle of the second into the first, its sides those of the
    image times ``sqrt(1 - factor)``; the factor is then counted anew, since the border
    cuts some of it. ``"both"`` tosses a coin for each batch.
    """

    kind: str
    alpha: float | None = None

    def __post_init__(self):
        kind, alpha = self.kind, self.alpha
        if kind not in (*MIXES, "both"):
            raise ValueError(f"mix must be 'mixup', 'cutmix' or 'both', got {kind!r}.")
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
    ) -> dict[str, torch.Tensor]:
        """Mix the images (b, c, H, W) of a batch, with their targets and weights.

        With `pairs` (None: for classes) the targets and weights of both images are
        returned, for a loss of each, with the share of the first. Else they are
        averaged; indicators of labels need pairs where images or labels have weights.
        Mixup returns floats in [0, 1] for uint8, CutMix the dtype that came in.
        """
        kind = MIXES[rng.integers(2)] if self.kind == "both" else self.kind
        alpha = self.alpha or (0.2 if kind == "mixup" else 1.0)
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
        mixed = {"x": x, "target": target, "weight": weight}
        if pairs or (pairs is None and not target.is_floating_point()):
            pair = {"mix_target": target[other], "mix_weight": weight[other_weight]}
            return {**mixed, **pair, "mix_share": torch.full_like(weight, factor)}
        mixed["target"] = _mixed(target, other, factor)
        mixed["weight"] = _mixed(weight, other_weight, factor)
        return mixed


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
