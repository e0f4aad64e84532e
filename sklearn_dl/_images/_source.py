"""Sources of images: row-indexable, lazy, read-only."""

import copy
import hashlib
import math
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from sklearn_dl._images._arrays import (
    arrange,
    as_numpy,
    as_pixels,
    is_tensor,
    over_white,
    range_problem,
)
from sklearn_dl._images._channels import Selection
from sklearn_dl._images._decode import ignore, load_image, path_of
from sklearn_dl._images._digests import (
    call_each,
    digest_encoded,
    digest_files,
)
from sklearn_dl._images._errors import ImageDecodeError, reason_of
from sklearn_dl._images._remote import is_url

# Images that stand for all of a source, where paths do not tell it from another.
_SAMPLE = 32
_BLOCK_VALUES = 1 << 22  # pixels digested together
_OTHERS = "Others may be alike: this is said once."
IMAGE_KEYS = ("image", "img", "pixel_values", "picture", "photo", "jpg", "png")


class ImageSource(ABC):
    """The images of X, one row each, decoded when they are asked for.

    ``source[i]`` is a PIL image in RGB or an array (H, W, C) with 1 or 3 channels, of
    uint8 or of float32 in [0, 1]: what a file of more than 8 bits becomes too. With
    `channels` it is an array of as many as those.
    """

    # Rows of "pixels"; another "array"; "paths"; or "objects": PIL images, bytes,
    # arrays of different sizes and dataset items.
    kind: str
    # Whether every row is an array of one shape and dtype, so that `batch` works.
    stackable: bool = False
    # Whether several threads can read at once: a dataset is what its author made it.
    thread_safe: bool = True
    # Whether a digest needs the image to be read each time: items of a dataset may be
    # another image each time, as random transforms make them, and URLs lead far away.
    digest_reads: bool = False
    # Whether reading waits for a network, so that more threads are of use.
    remote: bool = False
    image_shape: tuple[int, int, int] | None = None  # of every row, where `stackable`
    uint8: bool = False  # whether the rows of what is `stackable` are
    n_features: int | None  # columns of a two-dimensional X
    channels: Selection | None  # other than those of grey, RGB and RGBA
    # Hears what is odd about an image that was read: row, path, kind and text.
    on_note: Callable[[int, str | None, str, str], None] | None

    def __init__(
        self, n_features: int | None = None, channels: Selection | None = None
    ):
        self.n_features, self.channels = n_features, channels
        self.on_note = partial(_warn_once, {})

    @abstractmethod
    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> Image.Image | np.ndarray:
        n = len(self)
        if not -n <= i < n:
            raise IndexError(f"row {i} of a source of {n} images")
        row = int(i) % n
        try:
            return self._load(row)
        except MemoryError:
            raise
        except Exception as error:
            raise self._failure(row, error) from error

    def batch(self, rows: Any) -> np.ndarray:
        """Return the images of some rows in one new array, (b, H, W, C)."""
        raise TypeError(f"images of kind {self.kind!r} have no common shape to stack.")

    def path(self, i: int) -> str | None:
        """Return the path of row `i`, or None if it has none."""
        return None

    def names_digest(self, rows: range) -> bytes:
        """Return a digest of the names of files, or of a sample of other images.

        Names are without their folders, of which each host may have its own. Images
        that have to be read to be looked up are not.
        """
        paths, last = [self.path(row) for row in rows], len(rows) - 1
        digest = hashlib.sha256(str(len(rows)).encode())
        if None not in paths:
            for path in map(str, paths):
                name = re.split(r"[/\\]", path)[-1]
                digest.update(name.encode("utf-8", "surrogateescape") + b"\n")
        elif not self.digest_reads:
            for k in sorted({k * last // (_SAMPLE - 1) for k in range(_SAMPLE)}):
                with suppress(ImageDecodeError):  # which is found again
                    digest.update(self.digests([rows[k]])[0])
        return digest.digest()

    def digests(self, rows: Any, *, memory: Any = None, threads: int = 1) -> list[Any]:
        """Return SHA-256 digests of the files or bytes, or else the pixels, of rows."""
        # `memory` knows files beyond this process (`known_files`, `remember_files`).
        positions = self._positions(rows)
        unique = list(dict.fromkeys(positions))
        digests = self._digests(unique, memory, threads)
        found = dict(zip(unique, digests, strict=True))
        bad = {row: e for row, e in found.items() if isinstance(e, Exception)}
        if bad:
            errors = [self._failure(row, error) for row, error in bad.items()]
            raise ImageDecodeError.join(errors) from next(iter(bad.values()))
        return [found[row] for row in positions]

    def take(self, rows: Any) -> "ImageSource":
        """Return a source of the same kind that holds some of the rows only."""
        source = copy.copy(self)
        source._keep(self._positions(rows))
        return source

    def _digests(self, rows: list[int], memory: Any, threads: int) -> list[Any]:
        """Return the digest of each row, or the exception that stands for it."""
        return call_each(self._digest, rows, threads if self.thread_safe else 1)

    def _digest(self, row: int) -> bytes:
        return digest_image(self._load(row))

    def _failure(self, row: int, error: Exception) -> ImageDecodeError:
        path = self.path(row)
        return ImageDecodeError([(row, path, reason_of(error, path))])

    def note(self, row: int, kind: str, text: str) -> None:
        """Tell what is odd about an image: a kind, and words that follow its name."""
        self._note(row)(kind, text)

    def odd_range(self, row: int) -> str | None:
        """Say what is odd about the numbers of an array; files are read with notes."""
        return None

    def _note(self, row: int) -> Callable[[str, str], None]:
        if self.on_note is None:
            return ignore
        return partial(self.on_note, row, self.path(row))

    def _positions(self, rows: Any) -> list[int]:
        n, rows = len(self), np.asarray(rows)
        if rows.dtype == bool:
            rows = np.arange(n)[rows]
        rows = rows.astype(np.intp, casting="same_kind" if rows.size else "unsafe")
        beyond = (rows < -n) | (rows >= n)
        if beyond.any():
            raise IndexError(f"row {rows[beyond][0]} of a source of {n} images")
        return (rows % n).tolist()

    @abstractmethod
    def _load(self, row: int) -> Image.Image | np.ndarray: ...

    @abstractmethod
    def _keep(self, rows: list[int]) -> None: ...


def _warn_once(told: dict, row: int, path: str | None, kind: str, text: str) -> None:
    """Warn of what is odd about an image, once for each kind; threads may call."""
    first = object()
    if told.setdefault(kind, first) is first:
        where = f"Row {row}" if path is None else f"Row {row}, {path!r}"
        message = f"{where} {text} {_OTHERS}"
        warnings.warn(message, UserWarning, stacklevel=2)


class ArraySource(ImageSource):
    """Images that are one array, in memory or in a file, or a list of equal arrays."""

    stackable = True

    def __init__(
        self,
        data: Any,
        rule: str,
        layout: str,
        shape: tuple[int, ...],
        n_features: int | None = None,
        channels: Selection | None = None,
    ):
        self.kind = "pixels" if layout == "rows" else "array"
        super().__init__(n_features, channels)
        n_channels = 3 if shape[2] == 4 else shape[2]
        if channels is not None:
            n_channels = channels.n
        self.image_shape = (shape[0], shape[1], n_channels)
        self.uint8 = rule in ("bytes", "bits")
        self._data, self._rule = data, rule
        self._layout, self._shape = layout, shape

    def __len__(self) -> int:
        return self._data.shape[0]

    def batch(self, rows: Any) -> np.ndarray:
        rows = np.asarray(rows)
        if rows.dtype != bool:
            rows = rows.astype(np.intp, casting="same_kind" if rows.size else "unsafe")
        block = as_pixels(np.asarray(self._data[rows]), self._rule)
        if self._layout == "rows":
            missing = math.prod(self._shape) - block.shape[1]
            if missing:
                block = np.pad(block, ((0, 0), (0, missing)))
            block = block.reshape(-1, *self._shape)
        else:
            block = arrange(block, self._layout)
        taken = self.channels.of_pixels if self.channels else over_white
        return np.require(taken(block), requirements=["C", "W"])

    def odd_range(self, row: int) -> str | None:
        return _odd_range(self._data[np.array([row])], rows=self.kind == "pixels")

    def _load(self, row: int) -> np.ndarray:
        return self.batch(np.array([row]))[0]

    def _keep(self, rows: list[int]) -> None:
        index = np.array(rows, dtype=np.intp)
        kept = isinstance(self._data, StackedList | StoredArray)
        self._data = self._data.rows(index) if kept else self._data[index]

    def _digests(self, rows: list[int], memory: Any, threads: int) -> list[Any]:
        step = max(1, _BLOCK_VALUES // math.prod(self._shape))
        blocks = [rows[start : start + step] for start in range(0, len(rows), step)]

        def digests_of(block: list[int]) -> list[bytes]:
            return list(map(digest_image, self.batch(block)))

        found = []
        for digests in call_each(digests_of, blocks, threads):
            if isinstance(digests, Exception):
                raise digests
            found += digests
        return found


class StackedList:
    """A list of arrays of one shape and dtype, indexed as if it were their stack."""

    def __init__(self, arrays: Sequence[np.ndarray]):
        self._arrays = arrays
        self.shape = (len(arrays), *arrays[0].shape)
        self.dtype = arrays[0].dtype

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        if isinstance(rows, slice):
            return np.stack(self._arrays[rows])
        positions = np.arange(len(self._arrays))[rows]
        out = np.empty((len(positions), *self.shape[1:]), self.dtype)
        for k, row in enumerate(positions):
            out[k] = self._arrays[row]
        return out

    def rows(self, index: np.ndarray) -> "StackedList":
        taken = copy.copy(self)
        taken._arrays = [self._arrays[row] for row in index]
        taken.shape = (len(index), *self.shape[1:])
        return taken


class StoredArray:
    """An array in a file, of h5py or zarr, of which rows are read when asked for."""

    def __init__(self, array: Any, index: np.ndarray | None = None):
        self._array = array
        self._index = np.arange(array.shape[0]) if index is None else index
        self.shape = (len(self._index), *array.shape[1:])
        self.dtype = array.dtype

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        wanted, back = np.unique(self._index[rows], return_inverse=True)
        # By slices: h5py takes 50 times as long for a list of rows as for one by one.
        runs = np.split(wanted, np.flatnonzero(np.diff(wanted) != 1) + 1)
        slices = [slice(int(run[0]), int(run[-1]) + 1) for run in runs if len(run)]
        nothing = np.empty((0, *self.shape[1:]), self.dtype)
        read = np.concatenate([nothing, *(self._array[part] for part in slices)])
        return read[back]

    def rows(self, index: np.ndarray) -> "StoredArray":
        return StoredArray(self._array, self._index[index])


class PathSource(ImageSource):
    """Images in files."""

    kind = "paths"

    def __init__(
        self,
        paths: Sequence[str],
        n_features: int | None = None,
        channels: Selection | None = None,
    ):
        super().__init__(n_features, channels)
        self._paths = paths
        # What is behind a URL is read once, not once more for its digest.
        self.remote = any(is_url(path) for path in paths if "://" in path)
        self.digest_reads = self.remote

    def __len__(self) -> int:
        return len(self._paths)

    def path(self, i: int) -> str | None:
        return self._paths[i]

    def _load(self, row: int) -> Image.Image | np.ndarray:
        return load_image(self._paths[row], self.channels, self._note(row))

    def _keep(self, rows: list[int]) -> None:
        self._paths = [self._paths[row] for row in rows]

    def _digests(self, rows: list[int], memory: Any, threads: int) -> list[Any]:
        if self.digest_reads:
            return super()._digests(rows, memory, threads)
        found = digest_files([self._paths[row] for row in rows], memory, threads)
        if self.channels is None:
            return found
        return [_of_channels(digest, self.channels) for digest in found]


class DatasetItem:
    """One item of a map-style dataset, read only when it is needed."""

    __slots__ = ("dataset", "index", "key")

    def __init__(self, dataset: Any, index: int, key: Any = None):
        self.dataset = dataset  # shared by its handles, also where they are pickled
        self.index = index
        self.key = key  # the name of the image, where items are mappings

    def __repr__(self) -> str:
        return f"DatasetItem({type(self.dataset).__name__}, {self.index})"

    def image(self) -> Any:
        """Return the image of the item: the item, its first part or its "image"."""
        item = self.dataset[self.index]
        if isinstance(item, Mapping):
            keys = IMAGE_KEYS if self.key is None else (self.key,)
            key = next((key for key in keys if key in item), None)
            if key is None:
                known = sorted(map(str, item))
                raise ValueError(f"the item has no {keys[0]!r}, only {known}")
            return unpack_cell(item[key])
        if isinstance(item, tuple | list):
            if not item:
                raise ValueError("the item is empty")
            return item[0]
        return item


def unpack_cell(value: Any) -> Any:
    """Return the bytes, else the path, of a cell of Hugging Face's; others are kept."""
    if isinstance(value, dict) and value and value.keys() <= {"bytes", "path"}:
        content = value.get("bytes")
        return value.get("path") if content is None else content
    return value


class ObjectSource(ImageSource):
    """PIL images, encoded bytes, arrays of different sizes, or items of a dataset."""

    kind = "objects"

    def __init__(
        self,
        objects: Sequence[Any],
        n_features: int | None = None,
        channels: Selection | None = None,
    ):
        super().__init__(n_features, channels)
        self._objects = objects
        self.digest_reads = isinstance(objects[0], DatasetItem)
        self.thread_safe = not self.digest_reads

    def __len__(self) -> int:
        return len(self._objects)

    def path(self, i: int) -> str | None:
        return path_of(self._objects[i])

    def odd_range(self, row: int) -> str | None:
        image = self._objects[row]
        array = isinstance(image, np.ndarray) or is_tensor(image)
        return _odd_range(as_numpy(image)) if array else None

    def _load(self, row: int) -> Image.Image | np.ndarray:
        image = self._objects[row]
        if isinstance(image, DatasetItem):
            image = image.image()
        return load_image(image, self.channels, self._note(row))

    def _keep(self, rows: list[int]) -> None:
        self._objects = [self._objects[row] for row in rows]

    def _digest(self, row: int) -> bytes:
        image = self._objects[row]
        if isinstance(image, bytes | bytearray | memoryview):
            return _of_channels(digest_encoded(image), self.channels)
        return super()._digest(row)


def digest_image(image: Any) -> bytes:
    """Return the digest of one decoded image: of its pixels, dtype and shape."""
    if isinstance(image, Image.Image):
        # What is decoded may still have the EXIF tag by which it was turned.
        decoded = image.mode in ("RGB", "L")
        image = np.asarray(image if decoded else load_image(image))
    elif is_tensor(image):
        image = as_numpy(image).transpose(1, 2, 0)
    if image.ndim == 2:
        image = image[..., None]
    shape = " ".join(map(str, image.shape))
    digest = hashlib.sha256(f"pixels {image.dtype.name} {shape}\n".encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.digest()


def _odd_range(values: Any, rows: bool = False) -> str | None:
    values = np.asarray(values)
    low, high = float(values.min()), float(values.max())
    return range_problem(values.dtype, low, high, rows=rows)


def _of_channels(digest: Any, channels: Selection | None) -> Any:
    """Return the digest of some channels of what an encoded image has this digest."""
    if channels is None or isinstance(digest, Exception):
        return digest
    asked = f"channels {channels.taken or channels.n}\n"
    return hashlib.sha256(asked.encode() + digest).digest()
