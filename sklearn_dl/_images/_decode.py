"""Anything that is one image -> a PIL image in RGB, or the error that says why not."""

import io
import os
import threading
from collections.abc import Iterable
from typing import Any

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from sklearn_dl._images._arrays import image_array, is_tensor

Failure = tuple[int | None, str | None, str]  # row, path, reason

_PRINTED = 10
_BOMB_ADVICE = "If you trust it, raise PIL.Image.MAX_IMAGE_PIXELS (None: no limit)"
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# A bootstrap sample holds the same PIL image twice, and two threads that load one
# lazily opened file spoil it; the locks are striped so that images don't wait in line.
_LOCKS = tuple(threading.Lock() for _ in range(64))


def decode_image(image: Any) -> Image.Image:
    """Decode one image to RGB.

    The EXIF orientation is applied, transparency is laid over white, 16-bit grey is
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
        In mode "RGB".

    Raises
    ------
    ImageDecodeError
        If the image cannot be decoded, or has more than ``PIL.Image.MAX_IMAGE_PIXELS``
        pixels.

    Notes
    -----
    Mode "I" is read as 16-bit, clipped to 0-65535. Mode "F" is read as [0, 1] where
    no value is above 1, else as 0-255.

    Examples
    --------
    >>> from PIL import Image
    >>> from sklearn_dl.datasets import decode_image
    >>> decode_image(Image.new("RGBA", (4, 3), (0, 0, 0, 0))).getpixel((0, 0))
    (255, 255, 255)
    """
    path = path_of(image)
    try:
        return read_image(image)
    except (MemoryError, ImageDecodeError):
        raise
    except Exception as error:
        raise ImageDecodeError([(None, path, reason_of(error, path))]) from error


def path_of(image: Any) -> str | None:
    """Return the path of an image, where it has one."""
    if isinstance(image, str | os.PathLike):
        return os.fspath(image)
    if isinstance(image, Image.Image):
        return os.fspath(getattr(image, "filename", "")) or None
    return None


def read_image(image: Any) -> Image.Image:
    """Decode one image; errors are those of Pillow and the system."""
    if isinstance(image, str | os.PathLike):
        path = os.path.expanduser(os.fspath(image))
        if os.path.isfile(path) and os.path.getsize(path) == 0:
            raise ValueError("the file is empty (0 bytes)")
        with Image.open(path) as opened:
            return _to_rgb(opened)
    if isinstance(image, bytes | bytearray | memoryview):
        if len(image) == 0:
            raise ValueError("empty (0 bytes)")
        with io.BytesIO(image) as stream, Image.open(stream) as opened:
            return _to_rgb(opened)
    if isinstance(image, Image.Image):
        with _LOCKS[(id(image) >> 6) % len(_LOCKS)]:
            return _to_rgb(image)
    if isinstance(image, np.ndarray) or is_tensor(image):
        return _from_array(image)
    kind = type(image).__name__
    raise TypeError(f"an image is a path, bytes, a PIL image or an array, got {kind}")


def _from_array(array: Any) -> Image.Image:
    pixels = image_array(array)
    if pixels.dtype != np.uint8:
        pixels = np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
    return Image.fromarray(np.repeat(pixels, 3 // pixels.shape[2], axis=2))


def _to_rgb(image: Image.Image) -> Image.Image:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        size = f"{image.width} x {image.height} pixels"
        raise ValueError(f"{size}, more than the limit of {limit}. {_BOMB_ADVICE}")
    image.load()
    turn = _TRANSPOSE.get(_orientation(image))
    rgb = _convert(image)
    return rgb if turn is None else rgb.transpose(turn)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged metadata don't make an image unreadable
        return 1


def _convert(image: Image.Image) -> Image.Image:
    mode = image.mode
    if mode == "I" or mode.startswith("I;16"):
        return _from_16_bit(image)
    if mode == "F":
        return _from_float(image)
    if mode in ("La", "LA", "PA", "RGBa", "RGBA") or _has_transparency(image):
        return _over_white(image)
    return image if mode == "RGB" else image.convert("RGB")


def _has_transparency(image: Image.Image) -> bool:
    if image.mode == "P" and image.palette is not None:
        return "transparency" in image.info or image.palette.mode == "RGBA"
    # an image that was converted from a palette keeps a stale transparent colour
    current = image.format is not None and "transparency" in image.info
    return current and image.mode in ("1", "L", "RGB")


def _over_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":
        image = image.convert("LA")
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    white = Image.new("RGB", rgba.size, (255, 255, 255))
    # with a mask, paste weighs by alpha; the colours go in without it
    white.paste(rgba.convert("RGB"), mask=rgba.getchannel("A"))
    return white


def _from_16_bit(image: Image.Image) -> Image.Image:
    values = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
    grey = ((values + 128) // 257).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey).convert("RGB")


def _from_float(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if not np.isfinite(values).all():
        raise ValueError("NaN or infinite pixels")
    scale = 255.0 if values.max() <= 1 else 1.0
    grey = np.rint(np.clip(values * scale, 0, 255)).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


class ImageDecodeError(ValueError):
    """One or more images could not be decoded.

    Parameters
    ----------
    failures : list of (row, path, reason) or str
        Every image that failed: its row in X (None outside of X), its path (None if
        it has none) and what went wrong; the message prints the first ten. A string is
        the whole message: so ``torch``'s loader workers rebuild an exception.

    Attributes
    ----------
    failures : list of (row, path, reason)

    Examples
    --------
    >>> from sklearn_dl.datasets import ImageDecodeError
    >>> error = ImageDecodeError([(3, "a.jpg", "no such file")])
    >>> print(error)
    1 image could not be decoded: row 3, 'a.jpg': no such file
    """

    def __init__(self, failures: Iterable[Failure] | str):
        self.failures: list[Failure] = []
        if not isinstance(failures, str):
            failures = self.failures = list(failures)
        super().__init__(failures)  # `args` is what pickle calls the class with

    def __str__(self) -> str:
        if not self.failures:
            return str(self.args[0])
        lines = [_line(*failure) for failure in self.failures[:_PRINTED]]
        if len(self.failures) == 1:
            return f"1 image could not be decoded: {lines[0]}"
        if len(self.failures) > _PRINTED:
            lines.append(f"and {len(self.failures) - _PRINTED} more")
        first = f"{len(self.failures)} images could not be decoded:"
        return "\n  ".join([first, *lines])

    @classmethod
    def join(cls, errors: "Iterable[ImageDecodeError]") -> "ImageDecodeError":
        """One error for all of several, in the order of their rows."""
        failures = [failure for error in errors for failure in error.failures]
        return cls(sorted(failures, key=lambda f: -1 if f[0] is None else f[0]))


def _line(row: int | None, path: str | None, reason: str) -> str:
    where = [] if row is None else [f"row {row}"]
    if path is not None:
        where.append(repr(path))
    return f"{', '.join(where)}: {reason}" if where else reason


def reason_of(error: Exception, path: str | None = None) -> str:
    """Say in a few words why an image could not be decoded."""
    if isinstance(error, ImageDecodeError) and len(error.failures) == 1:
        return error.failures[0][2]
    if isinstance(error, FileNotFoundError):
        url = path is not None and "://" in path
        return "no such file" + (" (a URL: download it first)" if url else "")
    if isinstance(error, IsADirectoryError):
        return "a directory, not an image file"
    if isinstance(error, PermissionError):
        # Windows answers a directory with this one
        directory = path is not None and os.path.isdir(os.path.expanduser(path))
        return "a directory, not an image file" if directory else "permission denied"
    if isinstance(error, UnidentifiedImageError):
        return "not an image that Pillow can read"
    text = str(error) or type(error).__name__
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        text += f" {_BOMB_ADVICE}"
    return text
