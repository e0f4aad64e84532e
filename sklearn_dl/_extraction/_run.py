"""All rows of a source through a network, in mini-batches."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from sklearn_dl._extraction._pixels import PixelReader
from sklearn_dl._images import ImageSource
from sklearn_dl._runtime import (
    autocast,
    fitting_batch_size,
    free_cached_blocks,
    is_out_of_memory,
    keep_large_blocks,
    module_dtype,
    release_memory,
    resolve_precision,
)
from sklearn_dl.backbones import Preprocessing, place

Combine = Callable[[torch.Tensor], torch.Tensor]


class Forward:
    """A network on batches of pixels, in evaluation mode.

    Where the device's memory doesn't suffice for a batch, it is halved, with a warning,
    and so are those that follow.

    Parameters
    ----------
    network : torch.nn.Module
        Maps a normalised batch of shape (b, 3, height, width) to (b, n_outputs).
        It is moved to the device.
    preprocessing : Preprocessing
        Its ``normalize`` is the network's first step.
    device : torch.device
    precision : {"auto", "bfloat16", "float16", "float32", "float64"}
    views : Views, default=None
        Several views of each image are taken through the network.
    """

    def __init__(self, network, preprocessing, device, precision: str, views=None):
        keep_large_blocks()
        self.preprocessing = preprocessing
        self.device = device
        self.dtype = resolve_precision(precision, device)
        self.views = views
        self.network = place(network, device, module_dtype(self.dtype))
        self._most: int | None = None  # images that the memory has room for

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the outputs, on the CPU.

        Parameters
        ----------
        pixels : torch.Tensor of shape (b, 1 or 3, height, width), or with views \
                (b, n_views, 1 or 3, height, width)

        Returns
        -------
        torch.Tensor of shape (b, n_outputs) or (b, n_views, n_outputs)
            float32, or float64 where that is the precision.
        """
        return self._start(pixels)()

    def stream(
        self, batches: Iterable[tuple[Any, torch.Tensor]]
    ) -> Iterator[tuple[Any, torch.Tensor]]:
        """Yield the outputs of batches, on the CPU, in order.

        A GPU is given the next batch before the outputs of the last are waited for.

        Parameters
        ----------
        batches : iterable of (rows, pixels)
            As `PixelReader.stream` yields them.

        Yields
        ------
        rows : object
            As they were given.
        outputs : torch.Tensor
            As `__call__` returns them.
        """
        before = None
        for rows, pixels in batches:
            coming = rows, self._start(pixels)
            if before is not None:
                yield before[0], before[1]()
            before = coming
            if self.device.type == "cpu":  # everything is done
                yield before[0], before[1]()
                before = None
        if before is not None:
            yield before[0], before[1]()

    def _start(self, pixels: torch.Tensor) -> Callable[[], torch.Tensor]:
        """Compute the outputs of a batch; return what waits for them."""
        images = pixels if self.views is None else pixels.flatten(0, 1)
        values = self._values(images)
        if self.views is not None:
            values = values.unflatten(0, pixels.shape[:2])
        if self.device.type != "cuda":
            values = values.cpu()
            return lambda: values
        landing = values.to("cpu", non_blocking=True)  # in pinned memory
        landed = torch.cuda.Event()
        landed.record(torch.cuda.current_stream(self.device))

        def wait() -> torch.Tensor:
            landed.synchronize()
            return landing

        return wait

    def _values(self, images: torch.Tensor) -> torch.Tensor:
        """Return the outputs on the device, in as many parts as it has memory for."""
        while True:
            size = min(len(images), self._most or len(images))
            try:
                parts = [self._part(part) for part in images.split(size)]
                return parts[0] if len(parts) == 1 else torch.cat(parts)
            except (RuntimeError, MemoryError) as error:
                if size == 1 or not is_out_of_memory(error):
                    raise
            # Outside of the handler, which would hold on to what there was no room for.
            free_cached_blocks(self.device)
            if self._most is None:
                warnings.warn(
                    f"{self.device} has not enough memory for {size} images at once; "
                    "they go in halves. A smaller batch_size saves the attempt.",
                    RuntimeWarning,
                    stacklevel=2,
                )
            self._most = size // 2

    def _part(self, images: torch.Tensor) -> torch.Tensor:
        dtype = module_dtype(self.dtype)
        batch = self.preprocessing.normalize(images).to(
            dtype=dtype, memory_format=torch.channels_last
        )
        with torch.inference_mode(), autocast(self.device, self.dtype):
            return self.network(batch).to(dtype)

    def images_per_batch(self, batch_size: int | str, source: ImageSource) -> int:
        """Return how many images, in all their views, make a batch of that size."""
        if isinstance(batch_size, str):
            batch_size = fitting_batch_size(self.device, self._largest(source))
        n_views = 1 if self.views is None else self.views.n_views
        return max(1, batch_size // n_views)

    def _largest(self, source: ImageSource) -> tuple[int, int] | None:
        """Return the largest size, in pixels, that images have on the device."""
        size = None
        if isinstance(self.preprocessing, Preprocessing):
            size = self.preprocessing.output_size
        shape = source.image_shape
        if shape is None or self.device.type == "cpu":
            return size
        if size is None or shape[0] * shape[1] > size[0] * size[1]:
            return shape[:2]  # arrays are resized there
        return size

    def reader(self, source: ImageSource, rows=None, on_read=None) -> PixelReader:
        """Return a reader of what the network takes."""
        view = None if self.views is None else SameViews(self.views)
        return PixelReader(source, self.preprocessing, self.device, rows, view, on_read)


class OnFeatures:
    """A head on features, in evaluation mode.

    Parameters
    ----------
    head : torch.nn.Module
        Maps (b, n_features) to (b, n_outputs). It is moved to the device.
    device : torch.device
    precision : {"auto", "bfloat16", "float16", "float32", "float64"}
    """

    def __init__(self, head: torch.nn.Module, device: torch.device, precision: str):
        self.device = device
        self.dtype = resolve_precision(precision, device)
        self.head = place(head, device, module_dtype(self.dtype))

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """Return the outputs, on the CPU.

        Parameters
        ----------
        features : torch.Tensor of shape (b, n_features) or (b, n_views, n_features)

        Returns
        -------
        torch.Tensor of shape (b, n_outputs) or (b, n_views, n_outputs)
        """
        dtype = module_dtype(self.dtype)
        rows = features.flatten(0, -2).to(self.device, dtype)
        with torch.inference_mode(), autocast(self.device, self.dtype):
            outputs = self.head(rows)
        return outputs.to("cpu", dtype).unflatten(0, features.shape[:-1])


def run_network(
    network: torch.nn.Module,
    source: ImageSource,
    preprocessing,
    *,
    device: torch.device,
    rows: np.ndarray | None = None,
    precision: str = "float32",
    batch_size: int | str = 32,
    verbose: int = 0,
    description: str = "images",
    views=None,
    combine: Combine | None = None,
) -> np.ndarray:
    """Return the outputs of a network for every image, in input order.

    Decoding runs ahead of the network, and only a few batches are in memory at any
    time, the output aside.

    Parameters
    ----------
    network : torch.nn.Module
        Maps a normalised batch of shape (b, 3, height, width) to (b, n_outputs).
        It is moved to the device, in evaluation mode.
    source : ImageSource of n images
    preprocessing : Preprocessing
    device : torch.device
    rows : ndarray of int, default=None
        Positions of the images wanted; None for all n.
    precision : {"auto", "bfloat16", "float16", "float32", "float64"}, default="float32"
    batch_size : int or "auto", default=32
    verbose : int, default=0
        Above 0, a progress bar is shown.
    description : str, default="images"
        What the progress bar is called.
    views : Views, default=None
        Several views of each image are taken through the network.
    combine : callable, default=None
        Maps the outputs of a batch, (b, n_outputs) or with views (b, n_views,
        n_outputs), to one row each. None takes the mean over the views.

    Returns
    -------
    ndarray of shape (n or n_rows, n_outputs)
        float32, or float64 where that is the precision.
    """
    forward = Forward(network, preprocessing, device, precision, views)
    return run_forward(
        forward,
        source,
        rows=rows,
        batch_size=batch_size,
        verbose=verbose,
        description=description,
        combine=combine,
    )


def run_forward(
    forward: Forward,
    source: ImageSource,
    *,
    rows: np.ndarray | None,
    batch_size: int | str,
    verbose: int,
    description: str,
    combine: Combine | None,
) -> np.ndarray:
    """Return what `run_network` does, by a `Forward` that is there already."""
    combine = combined(forward.views) if combine is None else combine
    output = None
    with (
        forward.reader(source, rows) as reader,
        progress(len(reader), description, verbose) as bar,
    ):
        batches = reader.batches(forward.images_per_batch(batch_size, source))
        for part, outputs in forward.stream(batches):
            values = combine(outputs)
            if output is None:
                shape = (len(reader), *values.shape[1:])
                output = np.empty(shape, dtype=values.numpy().dtype)
            output[part] = values
            bar(part.stop - part.start)
    release_memory()
    assert output is not None  # a source is never empty
    return output


def combined(views) -> Combine:
    """Return what makes one row of outputs: the mean over views, if there are any."""
    return torch.Tensor.contiguous if views is None else _mean


def _mean(values: torch.Tensor) -> torch.Tensor:
    return values.mean(1)


class SameViews:
    """Views of an image that don't depend on its row.

    Parameters
    ----------
    views : callable
        Maps an image to a tensor (n_views, c, height, width).
    """

    def __init__(self, views):
        self.views = views
        self.thread_safe = views.thread_safe

    def __call__(self, image, row: int) -> torch.Tensor:
        """Return the views of an image."""
        return self.views(image)


def progress(
    n_images: int, description: str, verbose: int
) -> AbstractContextManager[Callable[[int], object]]:
    """Return a context whose value is called with the number of images done."""
    # A disabled bar would start tqdm's monitor thread all the same.
    if verbose < 1:
        return nullcontext(lambda n: None)
    return _Bar(n_images, description)


class _Bar(AbstractContextManager):
    def __init__(self, n_images: int, description: str):
        self._bar = tqdm(total=n_images, desc=description, unit="img")

    def __enter__(self) -> Callable[[int], object]:
        return self._bar.update

    def __exit__(self, *exc_info) -> None:
        self._bar.close()
