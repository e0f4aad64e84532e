"""Files of images with any number of channels: TIFF, NumPy's arrays, PNG and WebP."""

import io
import os
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from sklearn_dl._images._arrays import image_array, is_tensor, one_image
from sklearn_dl._images._channels import Selection
from sklearn_dl._images._decode import check_file, ignore, read_image
from sklearn_dl._images._formats import Note, check_size

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_NPY = b"\x93NUMPY"
# What the tag of a TIFF says about its first row and column, as turns of an array.
_TURNS = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: a.swapaxes(0, 1)[::-1],
}


def load_image(
    image: Any, channels: Selection | None, note: Note = ignore
) -> Image.Image | np.ndarray:
    """Return one image, in RGB or with the channels that are asked for.

    An array is (H, W, C), of uint8 or of float32; `note` is that of `read_image`.
    """
    if isinstance(image, np.ndarray) or is_tensor(image):
        return image_array(image, channels)
    if _is_npy(image):
        return image_array(_read_npy(image), channels)
    if channels is None:
        return read_image(image, note)
    # As photographs files are read with all that their tags say about colour.
    if channels.stored not in (1, 3):
        if _first_bytes(image).startswith(_TIFF):
            return channels.of_file(one_image(_read_tiff(image)))
        if (bands := _raw_bands(image)) is not None:
            return channels.of_file(bands)
    pixels = np.asarray(read_image(image, note))
    return channels.of_file(pixels if pixels.ndim == 3 else pixels[..., None])


def _is_npy(image: Any) -> bool:
    """Tell NumPy's own format: a file by its name, for others aren't opened twice."""
    if isinstance(image, str | os.PathLike):
        return os.fspath(image).lower().endswith(".npy")
    return _first_bytes(image).startswith(_NPY)


def _first_bytes(image: Any) -> bytes:
    """Return what tells the format of a file or of encoded bytes; else nothing."""
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image[:8])
    if isinstance(image, str | os.PathLike):
        check_file(os.stat(_place(image)))
        with open(_place(image), "rb") as file:
            return file.read(8)
    return b""


def _place(path: Any) -> str:
    return os.path.expanduser(os.fspath(path))


def _opened(image: Any) -> Any:
    """Return what readers take: a path, or a file of bytes."""
    encoded = isinstance(image, bytes | bytearray | memoryview)
    return io.BytesIO(image) if encoded else _place(image)


def _read_npy(image: Any) -> np.ndarray:
    file = _opened(image)
    if isinstance(file, str):
        check_file(os.stat(file))
    try:
        # A map of a file can't be larger than the file is.
        mode: Any = "r" if isinstance(file, str) else None
        array = np.load(file, mode, allow_pickle=False)
    except (ValueError, EOFError) as error:
        text = "not one array that numpy.load(allow_pickle=False) can read"
        raise ValueError(text) from error
    return np.array(array, dtype=array.dtype.newbyteorder("="))


def _read_tiff(image: Any) -> np.ndarray:
    """Return the bands of the first image of a TIFF, (H, W, C)."""
    try:
        import tifffile
    except ImportError as error:
        raise ImportError(
            "TIFF of other channels than RGB needs tifffile: pip install "
            "'sklearn_dl[tiff]'"
        ) from error
    with tifffile.TiffFile(_opened(image)) as tiff:
        series = tiff.series[0]
        sizes = dict(zip(series.axes, series.shape, strict=True))
        others = [a for a in sizes if a not in "YX" and sizes[a] > 1]
        if not {"Y", "X"} <= sizes.keys() or len(others) > 1:
            raise ValueError(
                f"the TIFF holds an array of axes {series.axes} and shape "
                f"{series.shape}, not one image: read it with tifffile, and give arrays"
            )
        check_size(sizes["X"], sizes["Y"])
        array = series.asarray()
        turn = tiff.pages.first.tags.valueof(274, default=1)
    order = [series.axes.index(axis) for axis in ("Y", "X", *others)]
    rest = [k for k in range(array.ndim) if k not in order]
    shape = [array.shape[k] for k in order]
    array = array.transpose(*order, *rest).reshape(shape if others else [*shape, 1])
    array = _TURNS.get(int(turn), np.asarray)(array)
    return array.astype(array.dtype.newbyteorder("="))


def _raw_bands(image: Any) -> np.ndarray | None:
    """Return the bands of an image with a fourth or second one; None for others."""
    if not isinstance(image, Image.Image):
        with Image.open(_opened(image)) as opened:
            return _raw_bands(opened)
    if image.mode not in ("RGBA", "LA"):
        return None
    check_size(*image.size)
    return np.asarray(ImageOps.exif_transpose(image))
