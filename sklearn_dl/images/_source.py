"""Sources of images: row-indexable, lazy, read-only."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from sklearn_dl.images._arrays import (
    Convert,
    arrange,
    image_array,
    is_tensor,
    over_white,
)
from sklearn_dl.images._dataset_item import DatasetItem
from sklearn_dl.images._decode import path_of, read_image
from sklearn_dl.images._errors import ImageDecodeError, reason_of


class ImageSource(ABC):
    """The images of X, one row each, decoded when they are asked for.

    ``source[i]`` is a PIL image in RGB or an array (H, W, C) with 1 or 3 channels, of
    uint8 or of float32 in [0, 1].

    Attributes
    ----------
    kind : {"pixels", "array", "paths", "objects"}
        Rows of pixels; other arrays; paths; or PIL images, bytes, arrays of different
        sizes and dataset items.
    stackable : bool
        Whether every row is an array of one shape and dtype, so that `batch` works.
    thread_safe : bool
        Whether rows can be read in several threads at once: paths, bytes, PIL images
        and arrays can, a dataset is what its author made it.
    image_shape : tuple (H, W, C) or None
        Shape of every row, where `stackable`.
    n_features : int or None
        Number of columns of a two-dimensional X.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_dl.images import as_source
    >>> source = as_source(np.zeros((5, 784), dtype="uint8"))
    >>> len(source), source.kind, source.n_features, source.image_shape
    (5, 'pixels', 784, (28, 28, 1))
    """

    kind: str
    stackable: bool = False
    thread_safe: bool = True
    image_shape: tuple[int, int, int] | None = None
    n_features: int | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> Image.Image | np.ndarray:
        row = self._row(i)
        try:
            return self._load(row)
        except MemoryError:
            raise
        except Exception as error:
            path = self.path(row)
            raise ImageDecodeError([(row, path, reason_of(error, path))]) from error

    def batch(self, rows: Any) -> np.ndarray:
        """Return the images of `rows` in one new array.

        Parameters
        ----------
        rows : array of int, shape (b,)
            Rows of X.

        Returns
        -------
        images : ndarray of shape (b, H, W, C)
            uint8, or float32 in [0, 1]; a copy, C-contiguous and writable.
        """
        raise TypeError(f"images of kind {self.kind!r} have no common shape to stack.")

    def path(self, i: int) -> str | None:
        """Return the path of row `i`, or None if it has none."""
        return None

    def _row(self, i: int) -> int:
        n = len(self)
        if not -n <= i < n:
            raise IndexError(f"row {i} of a source of {n} images")
        return int(i) % n

    @abstractmethod
    def _load(self, row: int) -> Image.Image | np.ndarray: ...


class ArraySource(ImageSource):
    """Images that are one array, or one list of equal arrays."""

    stackable = True

    def __init__(
        self,
        data: Any,
        convert: Convert,
        layout: str,
        shape: tuple[int, ...],
        n_features: int | None = None,
    ):
        self.kind = "pixels" if layout == "rows" else "array"
        self.image_shape = (shape[0], shape[1], 3 if shape[2] == 4 else shape[2])
        self.n_features = n_features
        self._data = data
        self._convert = convert
        self._layout = layout
        self._shape = shape

    def __len__(self) -> int:
        return self._data.shape[0]

    def batch(self, rows: Any) -> np.ndarray:
        """Return the images of `rows` in one new array; see `ImageSource.batch`."""
        rows = np.asarray(rows)
        if rows.dtype != bool:
            rows = rows.astype(np.intp, casting="same_kind" if rows.size else "unsafe")
        block = self._convert(np.asarray(self._data[rows]))
        if self._layout == "rows":
            missing = math.prod(self._shape) - block.shape[1]
            if missing:
                block = np.pad(block, ((0, 0), (0, missing)))
            block = block.reshape(-1, *self._shape)
        else:
            block = arrange(block, self._layout)
        return np.require(over_white(block), requirements=["C", "W"])

    def _load(self, row: int) -> np.ndarray:
        return self.batch(np.array([row]))[0]


class StackedList:
    """A list of arrays of one shape and dtype, indexed as if it were their stack."""

    def __init__(self, arrays: Sequence[np.ndarray]):
        self._arrays = arrays
        self.shape = (len(arrays), *arrays[0].shape)
        self.dtype = arrays[0].dtype

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        if isinstance(rows, slice):
            return np.stack(self._arrays[rows])
        out = np.empty(
            (np.arange(len(self._arrays))[rows]).shape + self.shape[1:], self.dtype
        )
        for k, row in enumerate(np.arange(len(self._arrays))[rows]):
            out[k] = self._arrays[row]
        return out


class PathSource(ImageSource):
    """Images in files."""

    kind = "paths"

    def __init__(self, paths: Sequence[str], n_features: int | None = None):
        self._paths = paths
        self.n_features = n_features

    def __len__(self) -> int:
        return len(self._paths)

    def path(self, i: int) -> str | None:
        """Return the path of row `i`."""
        return self._paths[i]

    def _load(self, row: int) -> Image.Image:
        return read_image(self._paths[row])


class ObjectSource(ImageSource):
    """PIL images, encoded bytes, arrays of different sizes, or items of a dataset."""

    kind = "objects"

    def __init__(self, objects: Sequence[Any], n_features: int | None = None):
        self._objects = objects
        self.n_features = n_features
        self.thread_safe = not isinstance(objects[0], DatasetItem)

    def __len__(self) -> int:
        return len(self._objects)

    def path(self, i: int) -> str | None:
        """Return the path of row `i`, or None if it has none."""
        return path_of(self._objects[i])

    def _load(self, row: int) -> Image.Image | np.ndarray:
        image = self._objects[row]
        if isinstance(image, DatasetItem):
            image = image.image()
        if isinstance(image, np.ndarray) or is_tensor(image):
            return image_array(image)
        return read_image(image)
