"""Images of X decoded once, corrupted in many ways, in the form that X has."""

import copy
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.base import BaseEstimator

from sklearn_dl._base import ImageEstimatorMixin
from sklearn_dl._extraction import FeatureCache
from sklearn_dl._images import ImageDecodeError, ImageSource
from sklearn_dl._images._arrays import is_tensor
from sklearn_dl._runtime import decoding_threads
from sklearn_dl.inspection._corruptions import corrupted

# Pixels that are decoded together, about 100 MB as uint8; corrupted ones come on top.
_PIXELS = 1 << 25
# A cache of its own: corrupted images must not drive others out.
_CACHE = FeatureCache("memory", name="corrupted images", max_bytes=2**26)

Job = tuple[str, float]


def image_shape_of(estimator: Any) -> Any:
    """Return the `image_shape` of an estimator, or of one inside it."""
    if hasattr(estimator, "get_params"):
        for name, value in estimator.get_params().items():
            if name.split("__")[-1] == "image_shape" and value is not None:
                return value
    # A FrozenEstimator doesn't show the parameters of what it holds.
    return _shape_within(estimator, set())


def _shape_within(value: Any, seen: set[int]) -> Any:
    if id(value) in seen:
        return None
    parts: Any = ()
    if isinstance(value, BaseEstimator):
        if value.__dict__.get("image_shape") is not None:
            return value.__dict__["image_shape"]
        parts = value.__dict__.values()
    elif type(value) in (list, tuple):
        parts = value
    elif isinstance(value, dict):
        parts = value.values()
    if parts:
        seen.add(id(value))
    for part in parts:
        shape = _shape_within(part, seen)
        if shape is not None:
            return shape
    return None


def quiet_copy(estimator: Any) -> Any:
    """Return a fitted estimator that keeps no features of what it predicts.

    All tensors and arrays are shared. What takes part of it looks at the same image
    through one backbone still shares its features, for a while. Bars are off.
    """
    return _quiet(estimator, {})


def _quiet(value: Any, done: dict[int, Any]) -> Any:
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, ImageEstimatorMixin):
        changed: dict[str, Any] = {"verbose": 0}
        if value.__dict__["cache"] is not None:
            changed["cache"] = _CACHE
        done[id(value)] = _with(value, changed)
    elif isinstance(value, BaseEstimator):
        done[id(value)] = value  # for what leads back to it
        done[id(value)] = _with(value, _replaced(value.__dict__, done))
    elif type(value) in (list, tuple):
        parts = [_quiet(part, done) for part in value]
        if any(new is not old for new, old in zip(parts, value, strict=True)):
            return type(value)(parts)
    elif isinstance(value, dict):
        changed = _replaced(value, done)
        if changed:
            value = copy.copy(value)
            value.update(changed)
        return value
    return done.get(id(value), value)


def _replaced(parts: dict, done: dict[int, Any]) -> dict:
    new = {name: _quiet(part, done) for name, part in parts.items()}
    return {name: part for name, part in new.items() if part is not parts[name]}


def _with(estimator: Any, changed: dict) -> Any:
    """Return a shallow copy; `copy.copy` would pickle, and move to the CPU."""
    if not changed:
        return estimator
    new = object.__new__(type(estimator))
    new.__dict__.update(estimator.__dict__, **changed)
    return new


def forget_corrupted() -> None:
    """Drop the features of corrupted images."""
    _CACHE.clear()


class CorruptedImages:
    """Rows of X in small batches, each image decoded once for all corruptions.

    Parameters
    ----------
    X : images
        As they were given.
    source : ImageSource
        Of X.
    jobs : list of (corruption, severity) or None
        None leaves images as they are.
    seed : int
    batch_size : int
    on_image : callable, default=None
        Called in threads with each decoded image; its results come with the batch.
    """

    def __init__(
        self,
        X: Any,
        source: ImageSource,
        jobs: Sequence[Job | None],
        *,
        seed: int,
        batch_size: int,
        on_image: Callable[[Any], Any] | None = None,
    ):
        self.source = source
        self.jobs = jobs
        self.seed = seed
        self.batch_size = batch_size
        self.on_image = on_image
        self._form = _form_of(X, source)

    def __iter__(self) -> Generator[tuple[np.ndarray, int, Any, list]]:
        """Yield rows, the job's number, corrupted images, results of `on_image`."""
        threads = decoding_threads()
        with ThreadPoolExecutor(threads, "sklearn_dl-corruption") as pool:
            # Where reading is not safe in threads, it is done in this one.
            many = threads if self.source.thread_safe else 1
            for rows, images, found in self._decoded(pool, many):
                coming = self._submitted(pool, 0, rows, images)
                for number in range(len(self.jobs)):
                    ready = [future.result() for future in coming]
                    if number + 1 < len(self.jobs):
                        coming = self._submitted(pool, number + 1, rows, images)
                    yield np.array(rows), number, self._form(ready), found

    def _decoded(self, pool, many: int) -> Iterator[tuple[list, list, list]]:
        rows: list[int] = []
        images: list[Any] = []
        found: list[Any] = []
        n, n_pixels = len(self.source), 0
        for start in range(0, n, many):
            part = range(start, min(start + many, n))
            for row, (image, result) in zip(part, self._read(pool, part), strict=True):
                rows.append(row)
                images.append(image)
                found.append(result)
                n_pixels += _n_pixels(image)
            if len(rows) >= self.batch_size or n_pixels >= _PIXELS:
                yield rows, images, found
                rows, images, found, n_pixels = [], [], [], 0
        if rows:
            yield rows, images, found

    def _read(self, pool, rows: Sequence[int]) -> list[tuple[Any, Any]]:
        if len(rows) == 1:
            return [self._one(rows[0])]
        futures = [pool.submit(self._one, row) for row in rows]
        results, failures = [], []
        for future in futures:
            try:
                results.append(future.result())
            except ImageDecodeError as error:
                failures.append(error)
        if failures:
            raise ImageDecodeError.join(failures)
        return results

    def _one(self, row: int) -> tuple[Any, Any]:
        image = self.source[row]
        return image, None if self.on_image is None else self.on_image(image)

    def _submitted(self, pool, number: int, rows, images) -> list[Future]:
        return [
            pool.submit(self._corrupt, self.jobs[number], row, image)
            for row, image in zip(rows, images, strict=True)
        ]

    def _corrupt(self, job: Job | None, row: int, image: Any) -> Any:
        return image if job is None else corrupted(image, *job, self.seed, row)


def _n_pixels(image: Any) -> int:
    if isinstance(image, Image.Image):
        return image.width * image.height
    return image.shape[0] * image.shape[1]


def _form_of(X: Any, source: ImageSource) -> Callable[[list], Any]:
    """Return what makes decoded images X again: container, axes and dtype."""
    if source.kind == "pixels":
        return _Rows(X, source)
    if source.kind == "array" and (hasattr(X, "shape") and len(X.shape) > 2):
        return _Stack(X)
    if isinstance(X, pd.DataFrame):
        return lambda images: pd.DataFrame({X.columns[0]: _objects(images)})
    if isinstance(X, np.ndarray | pd.Series):
        if X.ndim == 2:
            return lambda images: _objects(images)[:, None]
        return _objects
    return list


def _objects(images: list) -> np.ndarray:
    column = np.empty(len(images), dtype=object)
    for i, image in enumerate(images):  # NumPy would take an image apart
        column[i] = image
    return column


class _Rows:
    """Makes rows of pixels."""

    def __init__(self, X: Any, source: ImageSource):
        self.columns = X.columns if isinstance(X, pd.DataFrame) else None
        self.dtype = np.asarray(X[:1]).dtype
        self.n_features = source.n_features
        assert source.image_shape is not None
        self.alpha = False
        if source.image_shape[2] == 3 and self.n_features is not None:
            height, width, _ = source.image_shape
            self.alpha = self.n_features == height * width * 4

    def __call__(self, images: list) -> Any:
        values = _restored(np.stack(images), self.dtype, 255)
        if self.alpha:
            values = _opaque(values)
        rows = values.reshape(len(values), -1)[:, : self.n_features]
        return rows if self.columns is None else pd.DataFrame(rows, None, self.columns)


class _Stack:
    """Makes one array of images."""

    def __init__(self, X: Any):
        self.shape = tuple(X.shape)
        self.tensor = is_tensor(X)
        self.dtype = (X[:1].cpu().numpy() if self.tensor else np.asarray(X[:1])).dtype

    def __call__(self, images: list) -> Any:
        values = np.stack(images)
        values = _restored(values, self.dtype, 65535 if self.dtype == "uint16" else 255)
        if len(self.shape) == 3:
            values = values[..., 0]
        else:
            if 4 in (self.shape[1], self.shape[3]) and values.shape[3] == 3:
                values = _opaque(values)
            if values.shape[1:] != self.shape[1:]:
                values = values.transpose(0, 3, 1, 2)
        if not self.tensor:
            return values
        import torch

        return torch.from_numpy(np.ascontiguousarray(values))


def _restored(values: np.ndarray, dtype: np.dtype, full: int) -> np.ndarray:
    """Return pixels (uint8, or floats in [0, 1]) on the scale of another dtype."""
    if dtype.kind == "b":
        return values > 127
    if values.dtype == np.uint8 or dtype.kind not in "iu":
        return values.astype(dtype if dtype.kind in "iuf" else float, copy=False)
    return np.rint(values * full).astype(dtype)


def _opaque(values: np.ndarray) -> np.ndarray:
    full = 1 if values.dtype.kind in "bf" else np.iinfo(values.dtype).max
    full = 255 if values.dtype.kind in "iu" and values.dtype != "uint16" else full
    alpha = np.full((*values.shape[:3], 1), full, values.dtype)
    return np.concatenate([values, alpha], axis=3)
