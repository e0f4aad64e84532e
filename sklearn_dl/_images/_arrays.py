"""Arrays of images: what their axes and numbers mean.

What a number means is decided by the dtype alone, so that `fit` and `predict` agree
whatever values the rows of one call happen to hold.
"""

import math
import sys
import warnings
from typing import Any

import numpy as np

from sklearn_dl._images._channels import Selection

CHANNELS = (1, 3, 4)
FLOAT32_MAX = float(np.finfo(np.float32).max)
_NARROW_WHITES = (255, 1023, 4095, 8191)  # of 8 to 13 bits kept in 16
_BLOCK_VALUES = 1 << 22  # values looked at together, so a memory-map is never copied


def as_numpy(array: Any) -> np.ndarray:
    """Return the array of a tensor, a view where possible, or the array itself."""
    if not is_tensor(array):
        return np.asarray(array)
    tensor = array.detach().cpu()
    if tensor.is_floating_point() and tensor.element_size() == 2:
        tensor = tensor.float()  # numpy has no bfloat16
    return tensor.numpy()


def is_tensor(obj: Any) -> bool:
    """Tell whether an object is a torch tensor, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(obj, torch.Tensor)


def check_image_shape(image_shape: Any) -> tuple[int, ...] | None:
    """Return `image_shape` as a tuple of two or three sizes, or None."""
    if image_shape is None:
        return None
    try:
        shape = tuple(int(size) for size in image_shape)
        whole = shape == tuple(image_shape)
    except (TypeError, ValueError):
        shape, whole = (), False
    if not whole or len(shape) not in (2, 3) or min(shape) < 1:
        raise ValueError(
            "image_shape must be (height, width) or (height, width, channels), got "
            f"{image_shape!r}."
        )
    if len(shape) == 3 and shape[0] in CHANNELS and shape[2] not in CHANNELS:
        raise ValueError(
            f"image_shape={shape} has {shape[2]} channels. Channels come last."
        )
    return shape


def row_shape(n_features: int, image_shape: tuple[int, ...] | None) -> tuple[int, ...]:
    """Return the (H, W, C) that rows of `n_features` pixels are read as."""
    if image_shape is not None:
        if math.prod(image_shape) != n_features:
            product = " * ".join(map(str, image_shape))
            raise ValueError(
                f"image_shape={image_shape} is {product} = {math.prod(image_shape)} "
                f"values a row, but X has {n_features} columns."
            )
        return image_shape if len(image_shape) == 3 else (*image_shape, 1)
    side = math.isqrt(n_features)
    if side * side == n_features:
        return (side, side, 1)
    colour = math.isqrt(n_features // 3)
    if 3 * colour * colour == n_features:
        return (colour, colour, 3)
    return (side + 1, side + 1, 1)


def read_axes(
    shape: tuple[int, ...],
    channels_first: bool,  # as torch has it, where both are possible
    image_shape: Any = None,
    channels: Selection | None = None,
) -> tuple[str, tuple[int, ...]]:
    """Return where channels are ("grey", "last", "first"), and an image's (H, W, C)."""
    _, *sizes = map(int, shape)
    if len(shape) == 3:
        if shape[2] in CHANNELS and image_shape != tuple(sizes):
            raise ValueError(
                f"X of shape {tuple(shape)} looks like one image: pass X[None] for one "
                "image, or image_shape=(height, width) if these are grey images "
                f"{shape[2]} pixels wide."
            )
        readings = [("grey", (*sizes, 1))]
    else:
        readings = [("last", (*sizes,)), ("first", (*sizes[1:], sizes[0]))]
    if channels is None:
        readings = [r for r in readings if r[1][2] in CHANNELS]
    else:
        readings = _with_channels(readings, channels)
    if not readings:
        hint = "with 1, 3 or 4 channels expected; image_shape=Channels(C), of "
        hint += "sklearn_dl.datasets, asks for any other number"
        if channels is not None:
            least = "" if channels.taken is None else "at least "
            plural = "" if channels.least == 1 else "s"
            hint = f"with {least}{channels.least} channel{plural} expected"
        raise ValueError(
            f"X of shape {tuple(shape)} has no axis of channels: (n, H, W, C) or "
            f"(n, C, H, W) {hint}."
        )
    if image_shape is not None:
        agreeing = [r for r in readings if r[1][: len(image_shape)] == image_shape]
        if not agreeing:
            raise ValueError(
                f"image_shape={image_shape}, but X of shape {tuple(shape)} holds "
                f"images of shape {readings[-1 if channels_first else 0][1]}."
            )
        readings = agreeing
    return readings[-1 if channels_first else 0]


def _with_channels(readings: list, channels: Selection) -> list:
    """Return those readings of the axes in which an image has the right channels."""
    if channels.stored is not None:
        return [r for r in readings if r[1][2] == channels.stored]
    # Of positions it isn't said how many there are: channels are the shorter axis.
    fewest = min(r[1][2] for r in readings)
    shorter = [r for r in readings if r[1][2] == fewest]
    return shorter if fewest >= channels.least else []


def arrange(block: np.ndarray, layout: str) -> np.ndarray:
    """Bring the axes of a stack into the order (n, H, W, C)."""
    if layout == "grey":
        return block[..., None]
    return block.transpose(0, 2, 3, 1) if layout == "first" else block


def check_kind(dtype: np.dtype) -> None:
    """Refuse numbers that no pixel can be."""
    if dtype.kind == "c":
        raise ValueError("Complex data not supported")
    if dtype.kind not in "biuf":
        raise TypeError(f"X of dtype {dtype} holds no pixels.")


def value_range(data: Any, first: int = 0) -> tuple[float, float]:
    """Return the lowest and highest value, refusing NaN and infinity by their row."""
    low, high = math.inf, -math.inf
    step = max(1, _BLOCK_VALUES // max(1, math.prod(data.shape[1:])))
    for start in range(0, data.shape[0], step):
        block = np.asarray(data[start : start + step])
        block_low, block_high = float(block.min()), float(block.max())
        if not -FLOAT32_MAX <= block_low <= block_high <= FLOAT32_MAX:
            rows = block.reshape(len(block), -1)
            with np.errstate(invalid="ignore"):
                bad = ~(np.abs(rows) <= FLOAT32_MAX)
            row = int(np.flatnonzero(bad.any(axis=1))[0])
            what = "infinity or a value too large for dtype('float32')"
            what = "NaN" if np.isnan(rows[row]).any() else what
            raise ValueError(
                f"Input X contains {what}: first in row {first + start + row}."
            )
        low, high = min(low, block_low), max(high, block_high)
    return low, high


def pixel_rule(data: Any, *, rows: bool, warn: bool = True) -> str:
    """Return how `as_pixels` reads the values of an array, and look at all of them."""
    dtype = data.dtype
    if dtype == np.uint8:
        return "bytes"
    if dtype.kind == "b":
        return "bits"
    low, high = value_range(data)
    if warn:
        warn_about_range(dtype, low, high, rows=rows)
    if dtype.kind == "f":
        return "floats"
    if is_16_bit(dtype) and not rows:
        return "16 bits"
    # uint8 means x / 255, as other integers do
    return "bytes" if 0 <= low and high <= 255 else "integers"


def as_pixels(values: np.ndarray, rule: str) -> np.ndarray:
    """Return values as pixels: uint8, or float32 in [0, 1]."""
    if rule == "bytes":
        return values.astype(np.uint8, copy=False)
    if rule == "floats":
        return values.astype(np.float32, copy=False)
    if rule == "bits":
        return values.astype(np.uint8) * np.uint8(255)
    if rule == "16 bits":
        return values.astype(np.float32) / np.float32(65535)
    return (values / 255.0).astype(np.float32)


def range_problem(
    dtype: np.dtype,
    low: float,
    high: float,
    *,
    rows: bool = False,
    name: str = "its pixels",
) -> str | None:
    """Say what is odd about values that hardly mean what their dtype says."""
    span = f"from {low:g} to {high:g}"
    if dtype.kind == "f" and not 0 <= low <= high <= 1:
        text = f"has float pixels {span}: floats are taken as [0, 1] as they are."
        if low >= 0 and 2 < high <= 255:
            text += f" These look like 0-255: divide {name} by 255, or pass uint8."
        return text
    if is_16_bit(dtype) and not rows:
        return _dark(span, high, name)
    if dtype.kind in "iu" and not 0 <= low <= high <= 255:
        return f"has integer pixels {span}, outside 0-255: they are divided by 255."
    return None


def is_16_bit(dtype: np.dtype) -> bool:
    """Tell whether numbers are unsigned and of 16 bits, in any order of bytes."""
    return dtype.kind == "u" and dtype.itemsize == 2


def _dark(span: str, high: float, name: str) -> str | None:
    """Say so where 16 bits hold numbers of 8 to 13."""
    white = next((white for white in _NARROW_WHITES if 0 < high <= white), None)
    if white is None:
        return None
    text = f"has 16-bit pixels {span}: they are divided by 65535 and"
    if white == 255:
        return f"{text} nearly black. If they are 8-bit, pass {name} as uint8."
    bits, factor = white.bit_length(), 65535 / white
    return f"{text} dark. If {white} is white ({bits} bits), pass {name} * {factor:g}."


def warn_about_range(dtype: np.dtype, low: float, high: float, *, rows: bool) -> None:
    """Warn, once for X, of values that hardly mean what their dtype says."""
    if text := range_problem(dtype, low, high, rows=rows, name="X"):
        warnings.warn(f"X {text}", UserWarning, stacklevel=2)


def over_white(pixels: np.ndarray) -> np.ndarray:
    """Lay RGBA pixels (..., 4) over white; other channels stay as they are."""
    if pixels.shape[-1] != 4:
        return pixels
    colour, alpha = pixels[..., :3], pixels[..., 3:]
    if pixels.dtype != np.uint8:
        return colour * alpha + (1 - alpha)
    colour, alpha = colour.astype(np.uint16), alpha.astype(np.uint16)
    total = colour * alpha + 255 * (255 - alpha) + np.uint16(128)
    # exact rounded division by 255: the arithmetic of Pillow's paste with a mask
    return ((total + (total >> 8)) >> 8).astype(np.uint8)


def image_array(array: Any, channels: Selection | None = None) -> np.ndarray:
    """Return one image, (H, W), (H, W, C) or (C, H, W), as (H, W, C) pixels."""
    stack = as_numpy(array)[None]
    check_kind(stack.dtype)
    if stack.ndim not in (3, 4) or 0 in stack.shape:
        wanted = "(H, W), (H, W, C) or (C, H, W)"
        raise ValueError(f"an image is {wanted}, got shape {stack.shape[1:]}")
    layout = "grey"
    if stack.ndim == 4:
        layout, _ = read_axes(stack.shape, is_tensor(array), None, channels)
    # Floats outside [0, 1] pass: a dataset may have normalised them.
    rule = pixel_rule(stack, rows=False, warn=False)
    pixels = as_pixels(arrange(stack, layout), rule)[0]
    taken = over_white(pixels) if channels is None else channels.of_pixels(pixels)
    return np.array(taken, order="C")


def channels_of(shape: tuple[int, ...]) -> Selection | None:
    """Return other channels than the usual of a stack that can be read in one way."""
    if len(shape) != 4:
        return None
    first, middle, last = map(int, shape[1:])
    if first in CHANNELS or last in CHANNELS or first == last:
        return None
    least = min(first, last)
    # An axis of channels is short beside the other two.
    return Selection(least) if 2 * least <= min(middle, max(first, last)) else None
