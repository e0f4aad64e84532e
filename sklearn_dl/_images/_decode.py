"""Anything that is one image -> its pixels, or the error that says why not."""

import io
import os
import stat
import struct
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from sklearn_dl._images._arrays import image_array, is_tensor, range_problem
from sklearn_dl._images._errors import (
    BOMB_ADVICE,
    HEAD,
    ImageDecodeError,
    name_content,
    reason_of,
)
from sklearn_dl._images._formats import FORMATS, PLAIN, Meaning, set_raw_mode
from sklearn_dl._images._tiff import (
    MAGIC,
    Note,
    choose_page,
    read_beyond_pillow,
    tiff_meaning,
)

Pixels = Image.Image | np.ndarray

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_XMP = ("xmp", "XML:com.adobe.xmp")  # where Pillow keeps it
_ALPHA_MODES = ("La", "LA", "PA", "RGBa", "RGBA")
_BLOCK = 1 << 22  # pixels that are scaled together
_WHITE_16 = 65535
# What can't be opened as a file: to read it could wait for ever.
_NO_FILES = {
    stat.S_IFIFO: "a pipe, not an image file",
    stat.S_IFSOCK: "a socket, not an image file",
    stat.S_IFCHR: "a device, not an image file",
    stat.S_IFBLK: "a device, not an image file",
}
# A bootstrap sample holds the same PIL image twice, and two threads that load one
# lazily opened file spoil it; the locks are striped so that images don't wait in line.
_LOCKS = tuple(threading.Lock() for _ in range(64))


def decode_image(image: Any) -> Image.Image:
    """Decode one image to RGB of 8 bits, as a person sees it.

    The EXIF orientation is applied, transparency is laid over white, deeper images are
    scaled to 8 bits, and of an animation the first frame is taken.

    Parameters
    ----------
    image : str, Path, bytes, PIL.Image.Image, ndarray or torch tensor
        A path, an encoded image, or one that is decoded already. An array is
        (H, W), (H, W, C) or (C, H, W), uint8 or float in [0, 1]. A PIL image that
        is RGB already is returned as it is.

    Returns
    -------
    image : PIL.Image.Image
        In mode "RGB". The estimators themselves take files of more than 8 bits as
        float32 in [0, 1], without this rounding.

    Raises
    ------
    ImageDecodeError
        If the image cannot be decoded, or has more than ``PIL.Image.MAX_IMAGE_PIXELS``
        pixels.

    Warns
    -----
    UserWarning
        If pages are left unread, or numbers hardly mean what their type says.

    Notes
    -----
    White is what the file says: 4095 in a TIFF of 12 bits. Floats are taken as [0, 1].
    What Pillow holds counts as the array of its numbers: mode "I;16" is 0-65535, "I" is
    int32, so 0-255, and "F" is [0, 1].

    In TIFF and JPEG 2000 an alpha that isn't premultiplied is left out, since programs
    mark a fourth band of any kind as alpha. Pass ``Image.open(path).convert("RGBA")``
    to have it.

    Examples
    --------
    >>> from PIL import Image
    >>> from sklearn_dl.datasets import decode_image
    >>> decode_image(Image.new("RGBA", (4, 3), (0, 0, 0, 0))).getpixel((0, 0))
    (255, 255, 255)
    """
    path = path_of(image)
    notes: dict[str, str] = {}
    try:
        pixels = read_image(image, notes.__setitem__)
    except (MemoryError, ImageDecodeError):
        raise
    except Exception as error:
        raise ImageDecodeError([(None, path, reason_of(error, path))]) from error
    for text in notes.values():
        name = "The image" if path is None else repr(path)
        warnings.warn(f"{name} {text}", UserWarning, stacklevel=2)
    if isinstance(pixels, Image.Image):
        return pixels
    if pixels.dtype != np.uint8:
        pixels = np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
    return Image.fromarray(np.repeat(pixels, 3 // pixels.shape[2], axis=2))


def path_of(image: Any) -> str | None:
    """Return the path of an image, where it has one."""
    if isinstance(image, str | os.PathLike):
        return os.fspath(image)
    if isinstance(image, Image.Image):
        return os.fspath(getattr(image, "filename", "")) or None
    return None


def ignore(kind: str, text: str) -> None:
    """Take note of nothing."""


def read_image(image: Any, note: Note = ignore) -> Pixels:
    """Return an RGB image of Pillow, or an array (H, W, C) where that holds too little.

    The array is float32, mostly in [0, 1]. `note` hears what is odd about the image: a
    kind and a text. Errors are those of Pillow and the system.
    """
    if isinstance(image, str | os.PathLike):
        path = os.path.expanduser(os.fspath(image))
        status = os.stat(path)
        check_file(status)
        if status.st_size == 0 and stat.S_ISREG(status.st_mode):
            raise ValueError("the file is empty (0 bytes)")
        return _read_encoded(path, note)
    if isinstance(image, bytes | bytearray | memoryview):
        if len(image) == 0:
            raise ValueError("empty (0 bytes)")
        return _read_encoded(bytes(image), note)
    if isinstance(image, Image.Image):
        with _LOCKS[(id(image) >> 6) % len(_LOCKS)]:
            return _pixels(image, note)
    if isinstance(image, np.ndarray) or is_tensor(image):
        return image_array(image)
    kind = type(image).__name__
    raise TypeError(f"an image is a path, bytes, a PIL image or an array, got {kind}")


def check_file(status: os.stat_result) -> None:
    """Refuse pipes, sockets and devices, which could keep a reader waiting."""
    if reason := _NO_FILES.get(stat.S_IFMT(status.st_mode)):
        raise ValueError(reason)


def _open(content: str | bytes) -> Image.Image:
    return Image.open(io.BytesIO(content) if isinstance(content, bytes) else content)


def _read_encoded(content: str | bytes, note: Note) -> Pixels:
    try:
        return _read_opened(_open(content), content, note)
    except UnidentifiedImageError as error:
        head = _head(content)
        if not head.startswith(MAGIC):
            raise ValueError(name_content(head)) from error
        return _checked(read_beyond_pillow(content, note), note)
    except (OSError, SyntaxError, EOFError, struct.error) as error:
        if getattr(error, "errno", None) is not None:  # the system's, not Pillow's
            raise
        raise ValueError(f"{name_content(_head(content))} ({error})") from error


def _read_opened(opened: Any, content: str | bytes, note: Note) -> Pixels:
    with opened:
        if opened.format == "TIFF":
            opened.info.pop("xmp", None)  # or its orientation is applied in loading
            pixels = choose_page(opened, content, note)
            if pixels is not None:
                return _checked(pixels, note)
        return _pixels(opened, note, content)


def _head(content: str | bytes) -> bytes:
    if isinstance(content, bytes):
        return content[:HEAD]
    with open(content, "rb") as file:
        return file.read(HEAD)


def _pixels(image: Image.Image, note: Note, content: str | bytes | None = None) -> Any:
    """Return the pixels of an image of Pillow, or of its file where that has more."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        size = f"{image.width} x {image.height} pixels"
        raise ValueError(f"{size}, more than the limit of {limit}. {BOMB_ADVICE}")
    meaning = _meaning(image)
    if meaning.passes and content is not None:
        layers = [_layer(content, image, raw) for raw in meaning.passes]
        return _from_layers(layers, meaning, note)
    image.load()
    turn = _TRANSPOSE.get(_orientation(image))
    if turn is not None:
        image = image.transpose(turn)
    mode = image.mode
    if mode == "I" and meaning.white is None:
        return _from_integers(image, note)
    if mode in ("I", "F") or mode.startswith("I;16"):
        return _from_numbers(image, meaning, note)
    return _from_bytes(image, meaning, note)


def _meaning(image: Image.Image) -> Meaning:
    if image.format == "TIFF":
        return tiff_meaning(image)
    if image.format in FORMATS:
        return FORMATS[image.format](image)
    # A note on an image without a format may be that of the palette it was made from,
    # whose transparency was given up; numbers of 16 bits have no palette.
    clear = image.info.get("transparency")
    return Meaning(clear=clear) if image.mode.startswith("I;16") else PLAIN


def _orientation(image: Image.Image) -> int:
    try:
        if any(name in image.info for name in _XMP):  # Pillow would ask it too
            exif = Image.Exif()
            exif.load(image.info.get("exif", b""))
        else:
            exif = image.getexif()
        return int(exif.get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged metadata don't make an image unreadable
        return 1


def _from_bytes(image: Image.Image, meaning: Meaning, note: Note) -> Image.Image:
    """Bring an image of 8 bits to RGB."""
    if meaning.white is not None:  # fewer bits, which Pillow has shifted up
        white = meaning.white
        image = image.point(
            [min(255, round(v * 255 / white)) for v in range(256)]
            * len(image.getbands())
        )
    if meaning.frame is not None:
        canvas = Image.new("RGB", image.size, (255, 255, 255))
        canvas.paste(_from_bytes(image.crop(meaning.frame), PLAIN, note), meaning.frame)
        return canvas
    mode = image.mode
    if mode in _ALPHA_MODES:
        empty = meaning.alpha == "none if empty" and _is_empty(image)
        alone = meaning.alpha == "none" or empty
        return _without_alpha(image) if alone else _over_white(image)
    if mode == "P" and image.palette is not None:
        if "transparency" in image.info or image.palette.mode == "RGBA":
            return _over_white(image)
    elif mode in ("1", "L") and isinstance(meaning.clear, int):
        return _clear_grey(image, meaning.clear)
    elif mode == "RGB" and meaning.clear is not None:
        return _over_white(image)
    elif image.format is None and mode in ("1", "L", "RGB"):
        _note_transparency(image, note)
    return image if mode == "RGB" else image.convert("RGB")


def _is_empty(image: Image.Image) -> bool:
    return image.mode in ("LA", "RGBA") and image.getextrema()[-1] == (0, 0)


def _without_alpha(image: Image.Image) -> Image.Image:
    return image.convert("L" if image.mode == "LA" else "RGB").convert("RGB")


def _note_transparency(image: Image.Image, note: Note) -> None:
    """Say that a note of a transparent colour may be stale; a GIF's always is."""
    if "transparency" in image.info and "version" not in image.info:
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


def _clear_grey(image: Image.Image, clear: int) -> Image.Image:
    table = [255 if value == clear else value for value in range(256)]
    return image.convert("L").point(table).convert("RGB")


def _from_integers(image: Image.Image, note: Note) -> Pixels:
    """Take int32 as an array of it is taken."""
    values = np.asarray(image)
    text = range_problem(values.dtype, float(values.min()), float(values.max()))
    if text:
        note("scale", text)
    pixels = image_array(values)
    if pixels.dtype == np.uint8:
        return Image.fromarray(pixels[..., 0]).convert("RGB")
    return pixels


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
    return _noted(out, dtype, low, high, white, note)


def _checked(pixels: np.ndarray, note: Note) -> Pixels:
    """Look at what tifffile has read, as at what Pillow has."""
    if pixels.dtype == np.uint8:
        grey = pixels.shape[2] == 1
        return Image.fromarray(pixels[..., 0] if grey else pixels).convert("RGB")
    low, high = float(pixels.min()), float(pixels.max())
    return _noted(pixels, pixels.dtype, low, high, 1, note)


def _noted(
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


def _layer(content: str | bytes, image: Any, raw: str) -> Image.Image:
    """Read a file again, its samples in another way."""
    again: Any = _open(content)
    with again:
        again.info.pop("xmp", None)
        if image.tell():
            again.seek(image.tell())
        again.tile = image.tile
        set_raw_mode(again, raw)
        again.load()
        turn = _TRANSPOSE.get(_orientation(again))
        return again.copy() if turn is None else again.transpose(turn)


def _from_layers(layers: list[Image.Image], meaning: Meaning, note: Note) -> np.ndarray:
    """Return colour, or grey with alpha, of 16 bits as float32 (H, W, 1 or 3)."""
    first = layers[0]
    grey = len(layers) == 1
    white = np.float32(meaning.white or _WHITE_16)
    out = np.empty((first.height, first.width, 1 if grey else 3), np.float32)
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
    return _noted(out, np.dtype(np.uint16), 0.0, float(high), int(white), note)
