"""Rows of an image source as batches of pixels at the network's input size."""

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from PIL import Image

from sklearn_dl._images import ImageDecodeError, ImageSource
from sklearn_dl._runtime import (
    decoding_threads,
    free_cached_blocks,
    is_out_of_memory,
)

# Batches that are being decoded while the network works on one.
_AHEAD = 2


class PixelReader:
    """Reads rows of a source, decoded, resized and cropped.

    Images are decoded and resized one by one, in threads, by Pillow: a path, its bytes
    and its pixels as uint8 array give the same features. Arrays of one size that need
    no resizing, or that another device resizes, are read together. The reader is a
    context manager: on leaving it no thread stays behind.

    Parameters
    ----------
    source : ImageSource
        The images.
    preprocessing : Preprocessing
        Its ``geometry`` is applied here; ``normalize`` is the network's first step.
    device : torch.device
        Where the batches go.
    rows : ndarray of int, default=None
        Positions of the images to read; None for all of them, in order.
    view : callable, default=None
        What is read of an image in place of ``preprocessing.geometry``: maps a PIL
        image or float tensor, and its position in the source, to a tensor. Its
        attribute ``thread_safe`` tells whether threads may call it.
    on_read : callable, default=None
        Called with the position in the source and the image as it was decoded, where
        images are read one by one.
    """

    def __init__(
        self,
        source: ImageSource,
        preprocessing,
        device: torch.device,
        rows: np.ndarray | None = None,
        view: Callable[[Any, int], torch.Tensor] | None = None,
        on_read: Callable[[int, Any], None] | None = None,
    ):
        self.source = source
        self.preprocessing = preprocessing
        self.device = device
        self.rows = np.arange(len(source)) if rows is None else rows
        self.view = view
        self.on_read = on_read
        self._together = view is None and _read_together(source, preprocessing, device)
        self._executor: ThreadPoolExecutor | None = None
        self._owner = 0
        self._parts = 1  # in which a batch is resized on the device

    def __len__(self) -> int:
        return len(self.rows)

    def __enter__(self) -> "PixelReader":
        return self

    def __exit__(self, *exc_info) -> None:
        if self._executor is not None and self._owner == os.getpid():
            self._executor.shutdown(cancel_futures=True)
        self._executor = None

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_executor": None}

    def read(self, rows: Sequence[int] | np.ndarray) -> torch.Tensor:
        """Return the pixels of some of the reader's rows, (b, 1 or 3, height, width).

        They are uint8, or float for images given as floats; or what the view returns.
        An ImageDecodeError names every row of the batch that can't be decoded.
        """
        return self._collect(self._submit(np.asarray(rows)))

    def batches(self, batch_size: int) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield all rows in order, decoding ahead of the consumer."""
        starts = range(0, len(self), batch_size)
        ends = (min(start + batch_size, len(self)) for start in starts)
        return self.stream(map(slice, starts, ends))

    def stream(self, batches: Iterable[Any]) -> Iterator[tuple[Any, torch.Tensor]]:
        """Yield (rows, pixels) of batches of rows, decoding ahead of the consumer.

        A batch is a slice or an array of positions among the rows of the reader; a few
        are taken ahead.
        """
        coming = iter(batches)
        pending: deque = deque()
        try:
            while True:
                while len(pending) <= _AHEAD:
                    rows = next(coming, None)
                    if rows is None:
                        break
                    pending.append((rows, self._submit(rows)))
                if not pending:
                    return
                rows, work = pending.popleft()
                yield rows, self._collect(work)
        finally:
            for _, (_, futures) in pending:
                for future in futures:
                    future.cancel()

    def _submit(self, index) -> tuple[np.ndarray, list[Future]]:
        """Start on a batch: the rows of X, and futures of what threads read."""
        rows = self.rows[index]
        if self._together:
            # On a CPU the network has all the threads there are.
            if self._target().type == "cpu":
                return rows, []
            return rows, [self._threads().submit(self._gathered, rows)]
        executor = self._threads()
        threaded = self.view is None or getattr(self.view, "thread_safe", False)
        read = self._one if threaded else self._decoded
        return rows, [executor.submit(read, int(row)) for row in rows]

    def _collect(self, work: tuple[np.ndarray, list[Future]]) -> torch.Tensor:
        rows, futures = work
        if self._together:
            stacked = futures[0].result() if futures else self._gathered(rows)
            return self._resized(stacked)
        images, failures = [], []
        for row, future in zip(rows, futures, strict=True):
            try:
                image = future.result()
            except ImageDecodeError as error:
                failures.append(error)
                continue
            if self.view is not None and not getattr(self.view, "thread_safe", False):
                image = self.view(image, int(row))
            images.append(image)
        if failures:
            raise ImageDecodeError.join(failures)
        return self._sent(_stack(images, rows))

    def _resized(self, stacked: torch.Tensor) -> torch.Tensor:
        """Resize and crop images on the device; in parts where memory is short."""
        while True:
            try:
                parts = (
                    self.preprocessing.geometry(self._sent(part).permute(0, 3, 1, 2))
                    for part in stacked.chunk(self._parts)
                )
                found = list(parts)
                return found[0] if len(found) == 1 else torch.cat(found)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or self._parts >= len(stacked):
                    raise
            # Outside of the handler, which would hold on to what there was no room for.
            free_cached_blocks(self._target())
            if self._parts == 1:
                warnings.warn(
                    f"{self._target()} has not enough memory to resize {len(stacked)} "
                    "images at once; they go in parts. A smaller batch_size saves the "
                    "attempt.",
                    RuntimeWarning,
                    stacklevel=2,
                )
            self._parts *= 2

    def _gathered(self, rows: np.ndarray) -> torch.Tensor:
        """Return images of one size, (b, H, W, C), in memory that a GPU copies from."""
        pixels = torch.from_numpy(self.source.batch(rows))
        return pixels.pin_memory() if self._target().type == "cuda" else pixels

    def _sent(self, pixels: torch.Tensor) -> torch.Tensor:
        device = self._target()
        if device.type == "cuda" and not pixels.is_pinned():
            pixels = pixels.pin_memory()
        # Only of pinned memory a copy may be waited for later.
        return pixels.to(device, non_blocking=device.type == "cuda")

    def _decoded(self, row: int) -> Any:
        """Return an image as Pillow has it, or a float tensor."""
        image: Any = self.source[row]
        if isinstance(image, np.ndarray):
            if image.dtype == np.uint8:
                grey = image.shape[2] == 1
                image = Image.fromarray(image[..., 0] if grey else image)
            else:  # Pillow has no colour images of floats
                image = torch.from_numpy(image).permute(2, 0, 1)
        if self.on_read is not None:
            self.on_read(row, image)
        return image

    def _one(self, row: int) -> torch.Tensor:
        image = self._decoded(row)
        if self.view is not None:
            return self.view(image, row)
        image = self.preprocessing.geometry(image)
        if isinstance(image, torch.Tensor):
            return image
        pixels = torch.from_numpy(np.array(image))
        return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)

    def _target(self) -> torch.device:
        # A loader's worker process can't use the device of its parent.
        in_worker = torch.utils.data.get_worker_info() is not None
        return torch.device("cpu") if in_worker else self.device

    def _threads(self) -> ThreadPoolExecutor:
        # A worker process that was forked inherits the object but not its threads.
        if self._executor is None or self._owner != os.getpid():
            self._executor = ThreadPoolExecutor(
                decoding_threads() if self.source.thread_safe else 1,
                thread_name_prefix="sklearn_dl-decode",
            )
            self._owner = os.getpid()
        return self._executor


def _read_together(source: ImageSource, preprocessing, device: torch.device) -> bool:
    """Tell whether images can be stacked before they are resized."""
    if not source.stackable or source.image_shape is None:
        return False
    if not preprocessing.resizes(*source.image_shape[:2]):
        return True
    # Other devices don't resize with a filter in every release of torch.
    if device.type not in ("cpu", "cuda") or not preprocessing.resizes_tensors:
        return False
    return device.type == "cuda" or not source.uint8


def resized_by(source: ImageSource, preprocessing, device: torch.device, view) -> str:
    """Return what resizes: Pillow, or torch on the device's kind, which rounds else."""
    shape = source.image_shape
    by_torch = (
        view is None
        and shape is not None
        and preprocessing.resizes(*shape[:2])
        and _read_together(source, preprocessing, device)
    )
    return f"torch on {device.type}" if by_torch else "Pillow"


def _stack(images: list[torch.Tensor], rows: np.ndarray) -> torch.Tensor:
    """Stack images that may differ in dtype or in the number of channels."""
    for row, image in zip(rows, images, strict=True):
        if image.shape[-2:] != images[0].shape[-2:]:
            raise ValueError(
                "Preprocessing must give images of one size: row "
                f"{rows[0]} is {tuple(images[0].shape[-2:])}, row {row} is "
                f"{tuple(image.shape[-2:])}."
            )
    if len({(image.dtype, image.shape) for image in images}) > 1:
        images = [_as_float_rgb(image) for image in images]
    if images[0].ndim != 3:
        return torch.stack(images)
    # Decoded images have their channels last: so they are copied whole.
    return torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)


def _as_float_rgb(image: torch.Tensor) -> torch.Tensor:
    if image.dtype == torch.uint8:
        image = image.float() / 255
    return image.expand(*image.shape[:-3], 3, *image.shape[-2:])


def channel_statistics(
    reader: PixelReader, batch_size: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation of each colour channel.

    They are over all pixels of all rows at the network's input size, on the scale 0 to
    1. A channel without variation gets deviation 1.
    """
    n_pixels = 0
    mean, scatter = np.zeros(3), np.zeros(3)
    for _, pixels in reader.batches(batch_size):
        values = pixels.cpu().double() / (255 if pixels.dtype == torch.uint8 else 1)
        values = values.expand(-1, 3, -1, -1).transpose(0, 1).flatten(1)
        # Chan, Golub and LeVeque's update: batches merge without cancellation.
        n_batch = values.shape[1]
        batch_mean = values.mean(1).numpy()
        delta, total = batch_mean - mean, n_pixels + n_batch
        scatter += values.var(1, correction=0).numpy() * n_batch
        scatter += delta**2 * n_pixels * n_batch / total
        mean += delta * n_batch / total
        n_pixels = total
    std = np.sqrt(scatter / n_pixels)
    std[std < 1e-6] = 1.0
    return tuple(mean.tolist()), tuple(std.tolist())
