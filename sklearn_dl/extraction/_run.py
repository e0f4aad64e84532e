"""All rows of a source through a network, in mini-batches."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from tqdm.auto import tqdm

from sklearn_dl.extraction._pixels import PixelReader
from sklearn_dl.images import ImageSource
from sklearn_dl.runtime import (
    autocast,
    keep_large_blocks,
    module_dtype,
    release_memory,
    resolve_precision,
)


def run_network(
    network: torch.nn.Module,
    source: ImageSource,
    preprocessing,
    *,
    device: torch.device,
    rows: np.ndarray | None = None,
    precision: str = "float32",
    batch_size: int = 32,
    verbose: int = 0,
    description: str = "images",
    views=None,
    combine: Callable[[torch.Tensor], torch.Tensor] | None = None,
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
    batch_size : int, default=32
    verbose : int, default=0
        Above 0, a progress bar is shown.
    description : str, default="images"
        What the progress bar is called.
    views : Views, default=None
        Several views of each image are taken through the network.
    combine : callable, default=None
        Maps the outputs of the views (b, n_views, n_outputs) to one output each,
        (b, n_outputs). None takes the mean.

    Returns
    -------
    ndarray of shape (n or n_rows, n_outputs)
        float32, or float64 where that is the precision.
    """
    keep_large_blocks()
    dtype = resolve_precision(precision, device)
    network.to(device, module_dtype(dtype))
    network.to(memory_format=torch.channels_last).eval()
    output = None
    view = None if views is None else SameViews(views)
    # A batch of images in all their views is as large as one without.
    images = batch_size if views is None else max(1, batch_size // views.n_views)
    with (
        PixelReader(source, preprocessing, device, rows, view) as reader,
        torch.inference_mode(),
        _progress(len(reader), description, verbose) as bar,
    ):
        for part, pixels in reader.batches(images):
            if views is None:
                values = _forward(network, pixels, preprocessing, device, dtype)
            else:
                every = pixels.flatten(0, 1)
                values = _forward(network, every, preprocessing, device, dtype)
                values = values.unflatten(0, pixels.shape[:2])
                values = values.mean(1) if combine is None else combine(values)
            if output is None:
                shape = (len(reader), *values.shape[1:])
                output = np.empty(shape, dtype=values.numpy().dtype)
            output[part] = values
            if bar is not None:
                bar.update(part.stop - part.start)
    release_memory()
    assert output is not None  # a source is never empty
    return output


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


def _progress(n_images: int, description: str, verbose: int) -> AbstractContextManager:
    # A disabled bar would start tqdm's monitor thread all the same.
    if verbose < 1:
        return nullcontext()
    return tqdm(total=n_images, desc=description, unit="img")


def _forward(network, pixels, preprocessing, device, dtype) -> torch.Tensor:
    batch = preprocessing.normalize(pixels).to(
        dtype=module_dtype(dtype), memory_format=torch.channels_last
    )
    with autocast(device, dtype):
        values = network(batch)
    return values.to("cpu", module_dtype(dtype))
