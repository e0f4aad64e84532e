"""Rows of an image source as batches of pixels at the network's input size."""

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
import torch
from PIL import Image

from sklearn_dl._images import REMOTE_THREADS, ImageDecodeError, ImageSource
from sklearn_dl._runtime import (
    decoding_threads,
    free_cached_blocks,
    is_out_of_memory,
    raise_no_room,
)

# Batches that are being decoded while the network works on one.
_AHEAD = 2
# The part of an image below which a crop that shows no more is worth a warning.
_LEAST_SEEN = 0.1


class PixelReader:
    """Reads rows of a source, decoded, resized and cropped.

    Images are decoded and resized one by one, in threads, by Pillow: a path, its bytes
    and its pixels as uint8 array give the same features. Arrays of one size that need
    no resizing, or that another device resizes, are read together. The reader is a
    context manager: on leaving it no thread stays behind.

    A `view` takes the place of ``preprocessing.geometry``: it maps a PIL image or float
    tensor, and its position in the source, to a tensor; its attribute ``thread_safe``
    tells whether threads may call it. `on_read` is called with the position and the
    image as it was decoded, where images are read one by one.
    """

    def __init__(
        self, source, preprocessing, device, rows=None, view=None, on_read=None
    ):
        self.source: ImageSource = source
        self.preprocessing = preprocessing
        self.device: torch.device = device
        self.rows: np.ndarray = np.arange(len(source)) if rows is None else rows
        self.view = view
        self.on_read = on_read
        self._together = view is None and read_together(source, preprocessing, device)
        self._threaded = view is None or getattr(view, "thread_safe", False)
        self._executor: ThreadPoolExecutor | None = None
        self._owner = 0
        self._most: int | None = None  # images that the device resizes at once

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
        """Return the pixels of some of the reader's rows, (b, C, height, width).

        An ImageDecodeError names every row of the batch that can't be decoded.
        """
        return self._collect(self._submit(np.asarray(rows)))

    def batches(self, batch_size: int) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield all rows in order, decoding ahead of the consumer."""
        starts = range(0, len(self), batch_size)
        ends = (min(start + batch_size, len(self)) for start in starts)
        return self.stream(map(slice, starts, ends))

    def stream(self, batches: Iterable[Any]) -> Iterator[tuple[Any, torch.Tensor]]:
        """Yield (rows, pixels) of batches of positions, decoding a few ahead."""
        coming = iter(batches)
        pending: deque = deque()
        try:
            while True:
                for rows in islice(coming, _AHEAD + 1 - len(pending)):
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
        if torch.utils.data.get_worker_info() is not None:
            # A loader's worker process can't use the device of its parent.
            self.device = torch.device("cpu")
        rows = self.rows[index]
        if self._together and self.device.type == "cpu":
            return rows, []  # the network has all the threads there are
        # A worker process that was forked inherits the object but not its threads.
        if self._executor is None or self._owner != os.getpid():
            n_threads = decoding_threads() if self.source.thread_safe else 1
            if self.source.remote:
                n_threads = max(n_threads, REMOTE_THREADS)
            self._executor = ThreadPoolExecutor(n_threads, "sklearn_dl-decode")
            self._owner = os.getpid()
        if self._together:
            return rows, [self._executor.submit(self._gathered, rows)]
        return rows, [self._executor.submit(self._one, int(row)) for row in rows]

    def _collect(self, work: tuple[np.ndarray, list[Future]]) -> torch.Tensor:
        rows, futures = work
        if self._together:
            stacked = futures[0].result() if futures else self._gathered(rows)
            pixels, self._most = in_parts(
                self._resized, stacked, self._most, self.device, "to resize"
            )
            return pixels
        images, failures = [], []
        for row, future in zip(rows, futures, strict=True):
            try:
                image = future.result()
            except ImageDecodeError as error:
                failures.append(error)
                continue
            if self.view is not None and not self._threaded:
                image = self.view(image, int(row))
            images.append(image)
        if failures:
            raise ImageDecodeError.join(failures)
        return self._sent(_stack(images, rows))

    def _resized(self, stacked: torch.Tensor) -> torch.Tensor:
        return self.preprocessing.geometry(self._sent(stacked).permute(0, 3, 1, 2))

    def _gathered(self, rows: np.ndarray) -> torch.Tensor:
        """Return images of one size, (b, H, W, C), in memory that a GPU copies from."""
        pixels = torch.from_numpy(self.source.batch(rows))
        self._note_strip(int(rows[0]), pixels.shape[1], pixels.shape[2])
        return pixels.pin_memory() if self.device.type == "cuda" else pixels

    def _sent(self, pixels: torch.Tensor) -> torch.Tensor:
        cuda = self.device.type == "cuda"
        if cuda and not pixels.is_pinned():
            pixels = pixels.pin_memory()
        # Only of pinned memory a copy may be waited for later.
        return pixels.to(self.device, non_blocking=cuda)

    def _note_strip(self, row: int, height: int, width: int) -> None:
        seen = self.preprocessing.part_seen(height, width)
        if seen < _LEAST_SEEN:
            self.source.note(
                row,
                "strip",
                f"is {height} pixels high and {width} wide, and the network sees "
                f"{seen:.1%} of it; preprocessing='pad' or 'squash' shows it all.",
            )

    def _one(self, row: int) -> Any:
        """Return the pixels of an image, or the image where threads may not view it."""
        image: Any = self.source[row]
        if isinstance(image, np.ndarray):
            self._note_strip(row, image.shape[0], image.shape[1])
            if image.dtype == np.uint8 and image.shape[2] in (1, 3):
                grey = image.shape[2] == 1
                image = Image.fromarray(image[..., 0] if grey else image)
            else:  # Pillow has no colour images of floats, or of other channels
                image = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
        else:
            self._note_strip(row, image.height, image.width)
        if self.on_read is not None:
            self.on_read(row, image)
        if self.view is not None:
            return self.view(image, row) if self._threaded else image
        image = self.preprocessing.geometry(image)
        if isinstance(image, torch.Tensor):
            return image
        pixels = torch.from_numpy(np.array(image))
        return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def in_parts(
    function: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    most: int | None,
    device: torch.device,
    purpose: str,
) -> tuple[torch.Tensor, int | None]:
    """Return a function of images, in as many parts as the device has memory for.

    With it goes how many images a part may have, for the next call; None for all. The
    first time that the memory doesn't suffice there is a warning.
    """
    while True:
        size = min(len(images), most or len(images))
        try:
            if size == len(images):
                return function(images), most
            return torch.cat([function(part) for part in images.split(size)]), most
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if size == 1:
                raise_no_room(error, device, f"{purpose} one image")
        # Outside of the handler, which would hold on to what there was no room for.
        free_cached_blocks(device)
        if most is None:
            warnings.warn(
                f"{device} has not enough memory {purpose} {size} images at once; they "
                "go in halves. A smaller batch_size saves the attempt.",
                RuntimeWarning,
                stacklevel=2,
            )
        most = -(-size // 2)


def read_together(source: ImageSource, preprocessing, device: torch.device) -> bool:
    """Tell whether images can be stacked before they are resized."""
    if not source.stackable or source.image_shape is None:
        return False
    return resized_together(source, preprocessing, device) or not (
        preprocessing.resizes(*source.image_shape[:2])
    )


def resized_together(source: ImageSource, preprocessing, device: torch.device) -> bool:
    """Tell whether stacked images are resized by torch, on the device."""
    if source.image_shape is None or (device.type == "cpu" and source.uint8):
        return False  # one by one, or by Pillow
    # Other devices don't resize with a filter in every release of torch.
    if device.type not in ("cpu", "cuda") or not preprocessing.resizes_tensors:
        return False
    return preprocessing.resizes(*source.image_shape[:2])


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
        images = [i.float() / 255 if i.dtype == torch.uint8 else i for i in images]
        n = max(image.shape[-3] for image in images)
        n = 3 if n == 1 else n
        images = [i.expand(*i.shape[:-3], n, *i.shape[-2:]) for i in images]
    if images[0].ndim != 3:
        return torch.stack(images)
    # Decoded images have their channels last: so they are copied whole.
    return torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)


def channel_statistics(
    reader: PixelReader, batch_size: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and deviation of each colour channel over all pixels, scaled to 0-1.

    A channel without variation gets deviation 1.
    """
    n_pixels, n_channels = 0, reader.preprocessing.n_channels
    mean, scatter = np.zeros(n_channels), np.zeros(n_channels)
    for _, pixels in reader.batches(batch_size):
        values = pixels.cpu().double() / (255 if pixels.dtype == torch.uint8 else 1)
        values = values.expand(-1, n_channels, -1, -1).transpose(0, 1).flatten(1)
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
