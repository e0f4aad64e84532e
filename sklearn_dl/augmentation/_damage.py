"""Random damage to pixels: blur, noise, compression, and hidden parts."""

import io
import math
from collections.abc import Callable

import numpy as np
from PIL import Image

from sklearn_dl.augmentation._images import to_bytes, to_floats, to_image, to_pixels


def gaussian_blur(values: np.ndarray, sigma: float) -> np.ndarray:
    """Blur floats (c, H, W) by a Gaussian of `sigma` pixels, reflecting the border."""
    radius = math.ceil(3 * sigma)
    kernel = np.exp(-(np.arange(radius + 1) ** 2) / (2 * sigma**2))
    kernel = (kernel / (2 * kernel.sum() - kernel[0])).astype(np.float32)
    for axis in (1, 2):
        width = [(0, 0)] * 3
        width[axis] = (radius, radius)
        padded = np.moveaxis(np.pad(values, width, mode="symmetric"), axis, 0)
        n = len(padded) - 2 * radius
        out = kernel[0] * padded[radius : radius + n]
        for k in range(1, radius + 1):
            pair = padded[radius - k : radius - k + n] + padded[radius + k :][:n]
            pair *= kernel[k]
            out += pair
        values = np.moveaxis(out, 0, axis)
    return np.ascontiguousarray(values)


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """Return an image after it was written as JPEG and read again; uint8."""
    if len(pixels) not in (1, 3):  # each channel as a grey image
        return np.concatenate(
            [jpeg(pixels[k : k + 1], quality) for k in range(len(pixels))]
        )
    file = io.BytesIO()
    to_image(to_bytes(pixels)).save(file, format="JPEG", quality=quality)
    with Image.open(file) as image:
        return to_pixels(image)


def _blur(pixels, rng, strength):
    if rng.random() >= 0.5:
        return pixels
    # Up to a fifth of a pixel nothing changes; small images bear less in proportion.
    widest = (0.4 + 0.0075 * min(pixels.shape[1:])) * strength
    return gaussian_blur(to_floats(pixels), 0.2 + widest * rng.random())


def _noise(pixels, rng, strength):
    deviation = np.float32(0.06 * strength * rng.random())
    noise = rng.standard_normal(pixels.shape, np.float32)
    noise *= deviation
    noise += to_floats(pixels)
    return np.clip(noise, 0, 1, out=noise)


def _jpeg(pixels, rng, strength):
    lowest = max(95 - 65 * strength, 5)
    # Log-uniform: what is lost grows as the inverse of the quality.
    quality = math.exp(rng.uniform(math.log(lowest), math.log(95)))
    return jpeg(pixels, round(quality))


def _erase(pixels, rng, strength):
    if rng.random() >= 0.5:
        return pixels
    height, width = pixels.shape[1:]
    largest = min(max(0.33 * strength, 0.02), 0.9)
    for _ in range(10):
        area = height * width * rng.uniform(0.02, largest)
        ratio = math.exp(rng.uniform(math.log(0.3), math.log(1 / 0.3)))
        h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < h <= height and 0 < w <= width:
            break
    else:  # no rectangle fits
        return pixels
    top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
    erased = pixels.copy()
    part = erased[:, top : top + h, left : left + w]
    if pixels.dtype == np.uint8:
        part[:] = rng.integers(0, 256, part.shape, np.uint8)
    else:
        part[:] = rng.random(part.shape, np.float32)
    return erased


# In the order in which they act: the lens, the sensor, the file, what stands in front.
DAMAGE: dict[str, Callable[..., np.ndarray]]
DAMAGE = {"blur": _blur, "noise": _noise, "jpeg": _jpeg, "erase": _erase}
