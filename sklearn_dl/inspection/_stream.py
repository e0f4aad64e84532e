"""Images of X decoded once, corrupted in many ways, in the form that X has."""

import copy
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from sklearn_dl._base import ImageEstimatorMixin, estimators_within
from sklearn_dl._base import image_shape_of as fitted_image_shape
from sklearn_dl._extraction import FeatureCache
from sklearn_dl._images import ImageDecodeError, ImageSource, is_tensor
from sklearn_dl._runtime import decoding_threads
from sklearn_dl.inspection._corruptions import corrupted

# Pixels that are decoded together, about 100 MB as uint8; corrupted ones come on top.
_PIXELS = 1 << 25
# A cache of its own: corrupted images must not drive others out.
_CACHE = FeatureCache("memory", name="corrupted images", max_bytes=2**26)

Job = tuple[str, float]  # a corruption and its severity


def image_shape_of(estimator: Any) -> Any:
    """Return the `image_shape` of an estimator, or of one inside it."""
    every = estimators_within(estimator)
    inner = (one for one in every if "image_shape" in vars(one))
    shapes = map(fitted_image_shape, inner)
    return next((shape for shape in shapes if shape is not None), None)


def quiet_copy(
    estimator: Any, cache_for: Callable = lambda cache: cache and _CACHE
) -> Any:
    """Return an estimator of the same networks that has another cache and no bars."""
    copies = {}
    for one in estimators_within(estimator):
        if isinstance(one, ImageEstimatorMixin):
            copies[id(one)] = new = copy.copy(one)
            # All of it as it is, where `copy` may have moved tensors to the CPU.
            new.__dict__.update(vars(one), verbose=0, cache=cache_for(one.cache))
    return copy.deepcopy(estimator, copies) if copies else estimator


def corrupted_batches(
    X: Any,
    source: ImageSource,
    jobs: Sequence[Job | None],
    *,
    seed: int,
    batch_size: int,
    on_image: Callable[[Any], Any],
) -> Generator[tuple[int, Any, list]]:
    """Yield a job's number, a batch of its images as X has them, results of `on_image`.

    While the caller looks at one, threads make the next.
    """
    form = _form_of(X, source)

    def submit(job: Job | None, batch: list) -> list[Future]:
        return [pool.submit(made, job, row, image) for row, image, _ in batch]

    def made(job: Job | None, row: int, image: Any) -> Any:
        return image if job is None else corrupted(image, *job, seed, row)

    with ExitStack() as stack:
        stack.callback(_CACHE.clear)
        threads = ThreadPoolExecutor(decoding_threads(), "sklearn_dl-corruption")
        pool = stack.enter_context(threads)
        for batch in _decoded(source, pool, batch_size, on_image):
            coming = submit(jobs[0], batch)
            for number in range(len(jobs)):
                ready = [future.result() for future in coming]
                if number + 1 < len(jobs):
                    coming = submit(jobs[number + 1], batch)
                if any(isinstance(image, np.ndarray) for image in ready):
                    ready = [*map(np.asarray, ready)]  # some are of more than 8 bits
                yield number, form(ready), [found for *_, found in batch]


def _decoded(source, pool, batch_size: int, on_image) -> Iterator[list]:
    """Yield small batches of (row, image, what `on_image` returned)."""

    def read(row: int) -> tuple[int, Any, Any]:
        image: Any = source[row]
        as_rgb = source.kind == "paths" and source.channels is None
        if as_rgb and isinstance(image, np.ndarray):
            image = np.repeat(image, 3 // image.shape[2], axis=2)  # as grey of 8 bits
        return row, image, on_image(image)

    # Where reading is not safe in threads, it is done in this one.
    many = decoding_threads() if source.thread_safe else 1
    batch: list[tuple[int, Any, Any]] = []
    for start in range(0, len(source), many):
        rows = range(start, min(start + many, len(source)))
        batch += [read(start)] if len(rows) == 1 else _read_together(pool, read, rows)
        n_pixels = sum(_n_pixels(image) for _, image, _ in batch)
        if len(batch) >= batch_size or n_pixels >= _PIXELS:
            yield batch
            batch = []
    if batch:
        yield batch


def _read_together(pool, read: Callable, rows: range) -> list:
    """Read rows in threads; an error names all that can't be decoded."""
    results, failures = [], []
    for future in [pool.submit(read, row) for row in rows]:
        try:
            results.append(future.result())
        except ImageDecodeError as error:
            failures.append(error)
    if failures:
        raise ImageDecodeError.join(failures)
    return results


def _n_pixels(image: Any) -> int:
    if isinstance(image, Image.Image):
        return image.width * image.height
    return image.shape[0] * image.shape[1]


def _form_of(X: Any, source: ImageSource) -> Callable[[list], Any]:
    """Return what makes decoded images X again: container, axes and dtype."""
    if source.kind == "pixels":
        return _rows_like(X, source)
    if source.kind == "array" and len(getattr(X, "shape", ())) > 2:
        return _stack_like(X)
    if isinstance(X, pd.DataFrame):
        return lambda images: pd.DataFrame({X.columns[0]: _objects(images)})
    if isinstance(X, np.ndarray) and X.ndim == 2:
        return lambda images: _objects(images)[:, None]
    return _objects if isinstance(X, np.ndarray | pd.Series) else list


def _objects(images: list) -> np.ndarray:
    column = np.empty(len(images), dtype=object)
    for i, image in enumerate(images):  # NumPy would take an image apart
        column[i] = image
    return column


def _rows_like(X: Any, source: ImageSource) -> Callable[[list], Any]:
    """Return what makes rows of pixels of images."""
    columns = X.columns if isinstance(X, pd.DataFrame) else None
    dtype, n_features = np.asarray(X[:1]).dtype, source.n_features
    assert source.image_shape is not None
    height, width, channels = source.image_shape
    alpha = channels == 3 and n_features == height * width * 4

    def form(images: list) -> Any:
        values = _restored(images, dtype, 255, alpha)
        rows = values.reshape(len(values), -1)[:, :n_features]
        return rows if columns is None else pd.DataFrame(rows, None, columns)

    return form


def _stack_like(X: Any) -> Callable[[list], Any]:
    """Return what makes one array, or tensor, of images."""
    shape = tuple(X.shape)
    tensor = is_tensor(X)
    dtype = (X[:1].cpu().numpy() if tensor else np.asarray(X[:1])).dtype
    full = 65535 if dtype == np.uint16 else 255

    def form(images: list) -> Any:
        alpha = 4 in (shape[1], shape[-1]) and images[0].shape[2] == 3
        values = _restored(images, dtype, full, alpha)
        if len(shape) == 3:
            values = values[..., 0]
        elif values.shape[1:] != shape[1:]:
            values = values.transpose(0, 3, 1, 2)
        if not tensor:
            return values
        import torch

        return torch.from_numpy(np.ascontiguousarray(values))

    return form


def _restored(images: list, dtype: np.dtype, full: int, alpha: bool) -> np.ndarray:
    """Return pixels (uint8, or floats in [0, 1]) on the scale of another dtype."""
    values = np.stack(images)
    if alpha:
        most = 255 if values.dtype == np.uint8 else 1
        opaque = np.full((*values.shape[:3], 1), most, values.dtype)
        values = np.concatenate([values, opaque], axis=3)
    if dtype.kind == "b":
        return values > 127
    if values.dtype == np.uint8 or dtype.kind not in "iu":
        return values.astype(dtype if dtype.kind in "iuf" else float, copy=False)
    return np.rint(values * full).astype(dtype)
