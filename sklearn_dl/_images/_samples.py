"""Samples of an image that Pillow has loaded -> RGB of 8 bits, or floats."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from sklearn_dl._images._arrays import image_array, range_problem
from sklearn_dl._images._formats import PLAIN, Clear, Meaning, Note

_ALPHA_MODES = ("La", "LA", "PA", "RGBa", "RGBA")
_BLOCK = 1 << 22  # pixels that are scaled together
_WHITE_16 = 65535


def pixels_of(image: Image.Image, meaning: Meaning, note: Note) -> Any:
    """Return an image as RGB of 8 bits; deep grey, or with alpha kept, as an array."""
    mode = image.mode
    if mode == "I" and meaning.white is None:
        return _from_integers(image, note)
    if mode in ("I", "F") or mode.startswith("I;16"):
        return _from_numbers(image, meaning, note)
    return _from_bytes(image, meaning, note)


def as_image(pixels: np.ndarray) -> Image.Image:
    """Return pixels (H, W, 1 or 3) of uint8 as an RGB image."""
    grey = pixels.shape[2] == 1
    return Image.fromarray(pixels[..., 0] if grey else pixels).convert("RGB")


def _from_bytes(image: Image.Image, meaning: Meaning, note: Note) -> Any:
    mode = image.mode
    if meaning.white is not None:  # of fewer bits, which Pillow has shifted up
        table = [min(255, round(v * 255 / meaning.white)) for v in range(256)]
        image = image.point(table * len(image.getbands()))
    if meaning.frame is not None:
        canvas = Image.new("RGB", image.size, (255, 255, 255))
        canvas.paste(_from_bytes(image.crop(meaning.frame), PLAIN, note), meaning.frame)
        return canvas
    if meaning.alpha == "kept" and mode in ("LA", "RGBA"):
        return np.array(image)
    if mode in _ALPHA_MODES:
        may_be_empty = meaning.alpha == "none if empty" and mode in ("LA", "RGBA")
        empty = may_be_empty and image.getextrema()[-1] == (0, 0)
        if meaning.alpha == "premultiplied":
            other = mode[:-1] + "a"  # which Pillow knows how to undo
            image = Image.frombytes(other, image.size, image.tobytes()).convert(mode)
        if meaning.alpha != "none" and not empty:
            return _over_white(image)
        image = image.convert("L" if mode == "LA" else "RGB")
    elif mode == "P" and image.palette is not None:
        if "transparency" in image.info or image.palette.mode == "RGBA":
            return _over_white(image)
    elif mode in ("1", "L", "RGB"):
        if meaning.clear is not None:
            return _cleared(image, meaning.clear)
        if image.format is None and "transparency" in image.info:
            _note_transparency(image, note)
    return image if image.mode == "RGB" else image.convert("RGB")


def _note_transparency(image: Image.Image, note: Note) -> None:
    """Say that a note of a transparent colour may be stale; a GIF's always is."""
    if "version" not in image.info:
        note(
            "transparency",
            "keeps a note of a transparent colour, which isn't applied: a copy of a "
            "PNG and a converted palette can't be told apart. Pass the file, or "
            "image.convert('RGBA'), to apply it.",
        )


def _over_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":
        image = image.convert("LA")
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    white = Image.new("RGB", rgba.size, (255, 255, 255))
    # with a mask, paste weighs by alpha; the colours go in without it
    white.paste(rgba.convert("RGB"), mask=rgba.getchannel("A"))
    return white


def _cleared(image: Image.Image, clear: Clear) -> Image.Image:
    """Return RGB in which a sample, or colour, is white."""
    pixels = np.array(image.convert("L") if image.mode == "1" else image)
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    pixels[(pixels == clear).all(axis=-1)] = 255
    return as_image(pixels)


def _from_integers(image: Image.Image, note: Note) -> Any:
    """Take int32 as an array of it is taken."""
    values = np.asarray(image)
    text = range_problem(values.dtype, float(values.min()), float(values.max()))
    if text:
        note("scale", text)
    pixels = image_array(values)
    return as_image(pixels) if pixels.dtype == np.uint8 else pixels


def _blocks(image: Image.Image) -> Iterator[tuple[int, int]]:
    """Yield the first line and the end of parts, so that no whole copy is made."""
    lines = max(1, _BLOCK // max(1, image.width))
    for top in range(0, image.height, lines):
        yield top, min(top + lines, image.height)


def _values(image: Image.Image, top: int, end: int) -> np.ndarray:
    whole = (top, end) == (0, image.height)
    return np.asarray(image if whole else image.crop((0, top, image.width, end)))


def _from_numbers(image: Image.Image, meaning: Meaning, note: Note) -> np.ndarray:
    """Return grey of more than 8 bits, or of floats, as float32 (H, W, 1)."""
    floats = image.mode == "F"
    white = 1 if floats else meaning.white or _WHITE_16
    clear = meaning.clear if isinstance(meaning.clear, int) else None
    out = np.empty((image.height, image.width, 1), np.float32)
    lows, highs = [], []
    for top, end in _blocks(image):
        values = _values(image, top, end)
        if white > 2**31:  # Pillow has signed numbers alone
            values = values.view(np.uint32)
        lows.append(values.min())
        highs.append(values.max())
        part = out[top:end, :, 0]
        part[:] = values if floats else values / np.float32(white)
        if meaning.inverted:
            np.subtract(1, part, out=part)
        if clear is not None:
            part[values == clear] = 1
    low, high = float(np.min(lows)), float(np.max(highs))
    dtype = np.dtype(np.float32 if floats else np.uint16)
    return noted(out, dtype, low, high, white, note)


def note_range(values: np.ndarray, note: Note) -> None:
    """Look at the numbers of one image as at those of X."""
    if values.size and values.dtype.kind in "iuf":
        low, high = float(values.min()), float(values.max())
        noted(values, values.dtype, low, high, _WHITE_16, note)


def noted(
    pixels: np.ndarray, dtype: np.dtype, low: float, high: float, white: int, note: Note
) -> np.ndarray:
    """Return pixels; their range before scaling must be finite, and may be odd."""
    if not np.isfinite([low, high]).all():
        raise ValueError("NaN or infinite pixels")
    told = dtype.kind == "f" or white == _WHITE_16
    text = range_problem(dtype, low, high) if told else None
    if text:
        note("scale", text)
    return pixels


def pixels_of_layers(
    layers: list[Image.Image], meaning: Meaning, note: Note
) -> np.ndarray:
    """Return colour, or grey with alpha, of 16 bits as float32 (H, W, C)."""
    first = layers[0]
    grey = len(layers) == 1
    white = np.float32(meaning.white or _WHITE_16)
    n = 1 if grey else 3
    if meaning.alpha == "kept":
        n = 2 if grey else len(first.getbands())
    out = np.empty((first.height, first.width, n), np.float32)
    high = 0
    for top, end in _blocks(first):
        bytes_ = [_values(layer, top, end) for layer in layers]
        upper, lower = (bytes_[0][..., 0::2], bytes_[0][..., 1::2]) if grey else bytes_
        values = upper.astype(np.uint16) << 8 | lower
        part, colours = out[top:end], values[..., : out.shape[2]]
        high = max(high, int(colours.max()))
        np.divide(colours, white, out=part)
        if values.shape[2] > out.shape[2] and meaning.alpha != "none":
            alpha = values[..., -1:] / white
            if meaning.alpha == "straight":
                part *= alpha
            part += 1 - alpha
        if meaning.clear is not None:
            part[(colours == meaning.clear).all(axis=-1)] = 1
    return noted(out, np.dtype(np.uint16), 0.0, float(high), int(white), note)
