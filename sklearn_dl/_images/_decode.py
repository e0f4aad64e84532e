"""Anything that is one image, a file of NumPy's too -> its pixels, or why not."""

import io
import os
import stat
import struct
import threading
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from sklearn_dl._images._arrays import image_array, is_tensor
from sklearn_dl._images._channels import Selection
from sklearn_dl._images._errors import (
    HEAD,
    TIFF_MARKS,
    ImageDecodeError,
    name_content,
    reason_of,
)
from sklearn_dl._images._formats import FORMATS, PLAIN, Meaning, Note, check_size
from sklearn_dl._images._remote import fetch, is_url
from sklearn_dl._images._samples import (
    as_image,
    note_range,
    pixels_of,
    pixels_of_layers,
)
from sklearn_dl._images._tiff import (
    choose_page,
    needs_tifffile,
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
_NPY = b"\x93NUMPY"
_XMP = ("xmp", "XML:com.adobe.xmp")  # where Pillow keeps it
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
    The guide's page on odd files has more: depths, TIFF, alpha, what Pillow holds.

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
        pixels = load_image(image, None, notes.__setitem__)
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


def load_image(
    image: Any, channels: Selection | None = None, note: Note = ignore
) -> Pixels:
    """Return an RGB image of Pillow; an array (H, W, C) if deeper, or with channels."""
    if isinstance(image, np.ndarray) or is_tensor(image):
        return image_array(image, channels)
    if is_url(image):
        image = fetch(image)
    if _is_npy(image):
        array = _read_npy(image)
        note_range(array, note)
        return image_array(array, channels)
    pixels = _read_image(image, note, channels)
    if channels is None:
        return pixels
    if isinstance(pixels, Image.Image):
        pixels = np.array(pixels)  # which can be written to
    return channels.of_file(pixels)


def _is_npy(image: Any) -> bool:
    """Tell NumPy's own format: a file by its name, for others aren't opened twice."""
    if isinstance(image, str | os.PathLike):
        return os.fspath(image).lower().endswith(".npy")
    encoded = isinstance(image, bytes | bytearray | memoryview)
    return encoded and bytes(image[: len(_NPY)]) == _NPY


def _read_npy(image: Any) -> np.ndarray:
    file: Any
    if isinstance(image, str | os.PathLike):
        file = os.path.expanduser(os.fspath(image))
        check_file(os.stat(file))
    else:
        file = io.BytesIO(image)
    try:
        # A map of a file can't be larger than the file is.
        mode: Any = "r" if isinstance(file, str) else None
        array = np.load(file, mode, allow_pickle=False)
    except (ValueError, EOFError) as error:
        text = "not one array that numpy.load(allow_pickle=False) can read"
        raise ValueError(text) from error
    return np.array(array, dtype=array.dtype.newbyteorder("="))


def _read_image(image: Any, note: Note, channels: Selection | None) -> Pixels:
    if isinstance(image, str | os.PathLike):
        path = os.path.expanduser(os.fspath(image))
        status = os.stat(path)
        check_file(status)
        if status.st_size == 0 and stat.S_ISREG(status.st_mode):
            raise ValueError("the file is empty (0 bytes)")
        return _read_encoded(path, note, channels)
    if isinstance(image, bytes | bytearray | memoryview):
        if len(image) == 0:
            raise ValueError("empty (0 bytes)")
        return _read_encoded(bytes(image), note, channels)
    if isinstance(image, Image.Image):
        with _LOCKS[(id(image) >> 6) % len(_LOCKS)]:
            return _pixels(image, note, channels)
    kind = type(image).__name__
    raise TypeError(f"an image is a path, bytes, a PIL image or an array, got {kind}")


def check_file(status: os.stat_result) -> None:
    """Refuse pipes, sockets and devices, which could keep a reader waiting."""
    if reason := _NO_FILES.get(stat.S_IFMT(status.st_mode)):
        raise ValueError(reason)


def _open(content: str | bytes) -> Image.Image:
    return Image.open(io.BytesIO(content) if isinstance(content, bytes) else content)


def _read_encoded(
    content: str | bytes, note: Note, channels: Selection | None
) -> Pixels:
    try:
        if needs_tifffile(content, channels):
            return _read_tiff(content, note, channels)
        return _read_opened(_open(content), content, note, channels)
    except UnidentifiedImageError as error:
        head = _head(content)
        if not head.startswith(TIFF_MARKS):
            raise ValueError(name_content(head)) from error
        return _read_tiff(content, note, channels)
    except (OSError, SyntaxError, EOFError, struct.error) as error:
        if getattr(error, "errno", None) is not None:  # the system's, not Pillow's
            raise
        raise ValueError(f"{name_content(_head(content))} ({error})") from error


def _read_tiff(content: str | bytes, note: Note, channels: Selection | None) -> Pixels:
    pixels = read_beyond_pillow(content, note, channels)
    plain = pixels.dtype == np.uint8 and pixels.shape[2] in (1, 3)
    return as_image(pixels) if plain else pixels


def _read_opened(
    opened: Any, content: str | bytes, note: Note, channels: Selection | None
) -> Pixels:
    with opened:
        if opened.format == "TIFF":
            opened.info.pop("xmp", None)  # or its orientation is applied in loading
            if not choose_page(opened, note, channels):
                return _read_tiff(content, note, channels)
        return _pixels(opened, note, channels, content)


def _head(content: str | bytes) -> bytes:
    if isinstance(content, bytes):
        return content[:HEAD]
    with open(content, "rb") as file:
        return file.read(HEAD)


def _pixels(
    image: Image.Image,
    note: Note,
    channels: Selection | None,
    content: str | bytes | None = None,
) -> Any:
    """Return the pixels of an image of Pillow, or of its file where that has more."""
    check_size(image.width, image.height)
    meaning, bands = _meaning(image), channels is not None and channels.bands
    if bands:
        meaning = replace(meaning, alpha="kept")
    grey = len(meaning.passes) == 1  # which Pillow makes RGBA
    if meaning.passes and content is not None:
        layers = [_layer(content, image, tile) for tile in meaning.passes]
        return pixels_of_layers(layers, meaning, note)
    if meaning.passes:  # what Pillow gives are the upper bytes, of straight alpha
        clear = meaning.clear and tuple(np.right_shift(meaning.clear, 8))
        alpha = meaning.alpha if meaning.alpha in ("none", "kept") else "straight"
        meaning = Meaning(alpha=alpha, clear=clear)
    image.load()
    if bands and grey:
        image = image.convert("LA")
    turn = _TRANSPOSE.get(_orientation(image))
    if turn is not None:
        image = image.transpose(turn)
    return pixels_of(image, meaning, note)


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


def _layer(content: str | bytes, image: Any, tile: list[Any]) -> Image.Image:
    """Read a file again, its samples in another way."""
    again: Any = _open(content)
    with again:
        again.info.pop("xmp", None)
        if image.tell():
            again.seek(image.tell())
        again.tile = tile
        again.load()
        turn = _TRANSPOSE.get(_orientation(again))
        return again.copy() if turn is None else again.transpose(turn)
