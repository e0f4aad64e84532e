"""Any image, a file of NumPy's among them, with the channels that are asked for."""

import io
import os
from typing import Any

import numpy as np
from PIL import Image

from sklearn_dl._images._arrays import image_array, is_tensor
from sklearn_dl._images._channels import Selection
from sklearn_dl._images._decode import check_file, ignore, read_image
from sklearn_dl._images._formats import Note
from sklearn_dl._images._remote import fetch, is_url
from sklearn_dl._images._samples import note_range

_NPY = b"\x93NUMPY"


def load_image(
    image: Any, channels: Selection | None, note: Note = ignore
) -> Image.Image | np.ndarray:
    """Return one image, in RGB or with the channels that are asked for.

    An array is (H, W, C), of uint8 or of float32; `note` is that of `read_image`.
    """
    if isinstance(image, np.ndarray) or is_tensor(image):
        return image_array(image, channels)
    if is_url(image):
        image = fetch(image)
    if _is_npy(image):
        array = _read_npy(image)
        note_range(array, note)
        return image_array(array, channels)
    pixels = read_image(image, note, channels)
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
