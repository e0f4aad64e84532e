"""Small pictures as text, within a number of bytes."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from sklearn_dl.inspection._pictures import SIDE

_QUALITY = 60  # of JPEG: ten times as fast to write as WebP
_SMALLEST = 32  # pixels of the longer side
# Bytes of a photograph are about so many times the square of its longer side.
_DENSITY = 0.13
_ORANGE = np.array([255.0, 95.0, 0.0])


def encoded(picture: np.ndarray, max_bytes: int) -> str:
    """Return uint8 pixels (h, w, 3) as the address of an image, made smaller to fit."""
    image, most = Image.fromarray(picture), max_bytes * 3 / 4
    side = min(SIDE, max(_SMALLEST, int((most / _DENSITY) ** 0.5)))
    while True:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        file = io.BytesIO()
        image.save(file, "JPEG", quality=_QUALITY)
        if file.tell() <= most or side == _SMALLEST:
            break
        side = max(_SMALLEST, int(0.95 * side * (most / file.tell()) ** 0.5))
    text = base64.b64encode(file.getvalue()).decode()
    return f"data:image/jpeg;base64,{text}"


def with_map(picture: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return a picture (h, w, 3) in grey, with a map's magnitude (h, w) in orange."""
    strength = np.abs(values)[..., None]
    strength = strength / max(float(strength.max()), np.finfo(np.float32).tiny)
    grey: Any = picture.mean(axis=2, keepdims=True)
    mixed = 0.85 * grey * (1 - 0.7 * strength) + 0.7 * strength * _ORANGE
    return np.clip(mixed, 0, 255).astype(np.uint8)
