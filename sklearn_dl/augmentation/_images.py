"""Conversions between PIL images, tensors and arrays."""

from typing import Any

import numpy as np
import torch
from PIL import Image

# Normalised values lie further out; an overshooting filter does not.
_OVERSHOOT = 0.25


def size_of(image: Any) -> tuple[int, int]:
    """Return height and width of a PIL image or of a tensor (c, H, W)."""
    if isinstance(image, Image.Image):
        return image.height, image.width
    return image.shape[-2], image.shape[-1]


def to_pixels(image: Any) -> np.ndarray:
    """Return a PIL image or a tensor (c, H, W) as a new array (c, H, W)."""
    if isinstance(image, torch.Tensor):
        return np.array(image.numpy(), order="C")
    array = np.asarray(image)
    array = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    return np.array(array, order="C")  # Pillow's own memory can't be written to


def to_image(pixels: np.ndarray) -> Any:
    """Return uint8 pixels (1 or 3, H, W) as a PIL image, others as a tensor."""
    if pixels.dtype != np.uint8 or len(pixels) not in (1, 3):
        return torch.from_numpy(pixels)
    return Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))


def to_floats(pixels: np.ndarray) -> np.ndarray:
    """Return pixels as float32 in [0, 1]."""
    if pixels.dtype == np.uint8:
        return pixels * np.float32(1 / 255)
    return pixels.astype(np.float32, copy=False)


def to_bytes(pixels: np.ndarray) -> np.ndarray:
    """Return pixels as uint8, rounded."""
    if pixels.dtype == np.uint8:
        return pixels
    values = pixels * np.float32(255)
    values += np.float32(0.5)
    return np.clip(values, 0, 255, out=values).astype(np.uint8)


def plain_view(image: Any, preprocessing) -> torch.Tensor:
    """Return an image as the network sees it in prediction, (C, h, w)."""
    return to_tensor(preprocessing.geometry(image))


def to_tensor(image: Any) -> torch.Tensor:
    """Return a PIL image as a tensor (c, H, W); a tensor as it is."""
    if isinstance(image, torch.Tensor):
        return image
    return torch.from_numpy(to_pixels(image))


def result_pixels(result: Any, source: str, n_channels: int = 3) -> np.ndarray:
    """Return an image, as the transform `source` returned it, as pixels (c, H, W)."""
    known = (1, 3) if n_channels in (1, 3) else (n_channels,)
    if isinstance(result, Image.Image):
        plain = result.mode in ("L", "RGB")
        pixels = to_pixels(result if plain else result.convert("RGB"))
    elif isinstance(result, torch.Tensor):
        pixels = to_pixels(result.detach().cpu())
    elif isinstance(result, np.ndarray) and result.ndim in (2, 3):
        array = result[None] if result.ndim == 2 else result.transpose(2, 0, 1)
        pixels = np.array(array, order="C")
    else:
        raise TypeError(f"{source} must return an image, got {type(result).__name__}.")
    if pixels.ndim != 3 or len(pixels) not in known:
        wanted = f"an image of {' or '.join(map(str, known))} channels"
        shape = tuple(getattr(result, "shape", pixels.shape))
        raise TypeError(f"{source} must return {wanted}, got shape {shape}.")
    if pixels.dtype == np.uint8:
        return pixels
    if not np.issubdtype(pixels.dtype, np.floating):
        raise TypeError(f"{source} must return uint8 or floats, got {pixels.dtype}.")
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= -_OVERSHOOT and high <= 1 + _OVERSHOOT):
        raise ValueError(
            f"{source} returned floats from {low:.3g} to {high:.3g}; they must lie in "
            "[0, 1]: leave normalisation to the preprocessing of the network."
        )
    return np.clip(to_floats(pixels), 0, 1)
