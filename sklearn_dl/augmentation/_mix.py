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
    `alpha`); the second images are a random permutation. Mixup [1]_ adds the two,
    weighted. CutMix [2]_ pastes a rectangle of the second into the first, its sides
    those of the image times ``sqrt(1 - factor)``, its centre uniform over the image;
    the factor is then counted anew, since the border cuts some of it.

    Parameters
    ----------
    kind : {"mixup", "cutmix", "both"}
        ``"both"`` tosses a coin for each batch.
    alpha : float, default=None
        Above 0. 1 is uniform; below, most mixtures are nearly one image. None takes
        what suits photographs: 0.2 for mixup [1]_, 1 for CutMix [2]_.

    Raises
    ------
    ValueError
        If `kind` or `alpha` is none of these.

    References
    ----------
    .. [1] Zhang et al., "mixup: Beyond empirical risk minimization", ICLR 2018.
    .. [2] Yun et al., "CutMix: Regularization strategy to train strong classifiers
       with localizable features", ICCV 2019.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from sklearn_dl.augmentation import Mixing
    >>> pixels = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 8, 8)
    >>> batch = Mixing("mixup", alpha=1.0).mix_batch(
    ...     pixels, torch.tensor([0, 1]), torch.ones(2), rng=np.random.default_rng(3)
    ... )
    >>> batch["mix_target"]
    tensor([1, 0])
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
        """Mix the images of a batch, with their targets and weights.

        Parameters
        ----------
        pixels : Tensor of shape (b, c, H, W)
            uint8, or floats.
        target : Tensor of shape (b,), (b, k)
            Integers are indices of classes; floats are values, or shares of classes.
        weight : Tensor of shape (b,)
            Weights of the rows.
        rng : numpy.random.Generator
            All that is random is drawn from it.
        pairs : bool, default=None
            Whether both targets are returned, for a loss of each; else they are
            averaged. None returns both for classes. Labels, indicators of 0 and 1,
            need it where images or labels have weights.

        Returns
        -------
        dict
            ``"x"``
                The mixed images. Mixup returns floats in [0, 1] (float32) for uint8;
                CutMix returns the dtype that came in.
            ``"target"``, ``"weight"``
                For pairs as they came in: those of the first images. Else averaged.
            ``"mix_target"``, ``"mix_weight"``
                For pairs, those of the second images; else None.
            ``"mix_share"``
                For pairs, the factor of the first images, of shape (b,) and the dtype
                of `weight`; else None. The loss of row i is ``share[i] * weight[i] *
                loss(target[i]) + (1 - share[i]) * mix_weight[i] *
                loss(mix_target[i])``.
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
