"""Images that are mixtures of two."""

import math
import numbers
from typing import Any

import numpy as np
import torch

MIXES = ("mixup", "cutmix", "both")


def mix_batch(
    pixels: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor,
    *,
    mix: str,
    alpha: float | None = None,
    pairs: bool | None = None,
    rng: np.random.Generator,
) -> dict[str, torch.Tensor | None]:
    """Mix each image of a batch with another one of it.

    The share of the first image is drawn once for the batch, from Beta(`alpha`,
    `alpha`); the second images are a random permutation. Mixup [1]_ adds the two,
    weighted by their shares. CutMix [2]_ pastes a rectangle of the second into the
    first, its sides those of the image times ``sqrt(1 - share)``, its centre uniform
    over the image; the share is then counted anew, since the border cuts some of it.

    Parameters
    ----------
    pixels : Tensor of shape (b, c, H, W)
        uint8, or floats.
    target : Tensor of shape (b,), (b, k)
        Integers are indices of classes; floats are values, or shares of classes.
    weight : Tensor of shape (b,)
        Of the rows.
    mix : {"mixup", "cutmix", "both"}
        ``"both"`` tosses a coin for the batch.
    alpha : float, default=None
        Above 0. 1 is uniform; below, most mixtures are nearly one image. None takes
        what suits photographs: 0.2 for mixup [1]_, 1 for CutMix [2]_.
    pairs : bool, default=None
        Whether both targets are returned, for a loss of each; else they are averaged.
        None does so for classes. Labels, indicators of 0 and 1, need it where images
        or labels have weights.
    rng : numpy.random.Generator
        What is random is drawn from it.

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
            For pairs, the share of the first images, of shape (b,) and the dtype of
            `weight`; else None. The loss of row i is ``share[i] * weight[i] *
            loss(target[i]) + (1 - share[i]) * mix_weight[i] * loss(mix_target[i])``.

    Raises
    ------
    ValueError
        If `mix` or `alpha` is none of these.

    References
    ----------
    .. [1] Zhang et al., "mixup: Beyond empirical risk minimization", ICLR 2018.
    .. [2] Yun et al., "CutMix: Regularization strategy to train strong classifiers
       with localizable features", ICCV 2019.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from sklearn_dl.augmentation import mix_batch
    >>> pixels = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 8, 8)
    >>> batch = mix_batch(
    ...     pixels, torch.tensor([0, 1]), torch.ones(2), mix="mixup", alpha=1.0,
    ...     rng=np.random.default_rng(3),
    ... )
    >>> batch["mix_target"]
    tensor([1, 0])
    >>> torch.allclose(batch["x"][1], batch["mix_share"][1])
    True
    """
    if mix not in MIXES:
        raise ValueError(f"mix must be 'mixup', 'cutmix' or 'both', got {mix!r}.")
    real = isinstance(alpha, numbers.Real) and not isinstance(alpha, bool)
    if alpha is not None and not (real and 0 < alpha < math.inf):
        raise ValueError(f"mix_alpha must be a number above 0 or None, got {alpha!r}.")
    if mix == "both":
        mix = MIXES[rng.integers(2)]
    if alpha is None:
        alpha = 0.2 if mix == "mixup" else 1.0
    share = float(rng.beta(alpha, alpha))
    order = torch.from_numpy(rng.permutation(len(pixels)))
    second = order.to(pixels.device)
    if mix == "mixup":
        if pixels.dtype == torch.uint8:
            pixels = pixels.to(torch.float32).div_(255)
        x = _mixed(pixels, second, share)
    else:
        top, bottom, left, right = cut_box(rng, share, *pixels.shape[-2:])
        x = pixels.clone()
        x[..., top:bottom, left:right] = pixels[second][..., top:bottom, left:right]
        area = pixels.shape[-2] * pixels.shape[-1]
        share = 1 - (bottom - top) * (right - left) / area
    other, other_weight = order.to(target.device), order.to(weight.device)
    result: dict[str, Any] = {"x": x, "target": target, "weight": weight}
    if pairs is None:
        pairs = not target.is_floating_point()
    if not pairs:
        result["target"] = _mixed(target, other, share)
        result["weight"] = _mixed(weight, other_weight, share)
        return {**result, "mix_target": None, "mix_weight": None, "mix_share": None}
    return {
        **result,
        "mix_target": target[other],
        "mix_weight": weight[other_weight],
        "mix_share": torch.full_like(weight, share),
    }


def cut_box(
    rng: np.random.Generator, share: float, height: int, width: int
) -> tuple[int, int, int, int]:
    """Draw the rectangle of CutMix, cut off at the border: top, bottom, left, right."""
    side = math.sqrt(1 - share)
    y, x = rng.integers(height), rng.integers(width)
    h, w = round(height * side), round(width * side)
    top, left = int(y) - h // 2, int(x) - w // 2
    return max(top, 0), min(top + h, height), max(left, 0), min(left + w, width)


def _mixed(values: torch.Tensor, second: torch.Tensor, share: float) -> torch.Tensor:
    return share * values + (1 - share) * values[second]
