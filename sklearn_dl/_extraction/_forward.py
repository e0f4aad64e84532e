"""A network on batches of pixels, on one device or on replicas of it on several."""

import copy
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from queue import SimpleQueue
from threading import Lock
from typing import Any

import torch

from sklearn_dl._extraction._pixels import PixelReader, in_parts
from sklearn_dl._images import ImageSource
from sklearn_dl._runtime import Execution, fitting_batch_size, keep_large_blocks
from sklearn_dl.backbones import Preprocessing, indexed, is_known, place


class Forward:
    """A network on batches of pixels, which it normalises, in evaluation mode."""

    def __init__(self, network, preprocessing, execution: Execution, views=None):
        keep_large_blocks()
        self.preprocessing = preprocessing
        self.execution = execution
        self.device = execution.device
        self.views = views
        self.n_views = None if views is None else views.n_views
        self.network = place(network, execution.device, execution.module_dtype)
        self.replicas = [
            Forward(self._copied(device), preprocessing, alone, views)
            for device in execution.others
            for alone in [replace(execution, device=device, others=())]
        ]
        self._most: int | None = None  # images that the memory has room for
        self.starting = Lock()  # a network may keep what it computes with

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the outputs, (b, [n_views,] n_outputs), on the CPU.

        The pixels are (b, [n_views,] 1 or 3, height, width).
        """
        if not self.replicas:
            return self._start(pixels)()
        parts = pixels.split(-(-len(pixels) // self.n_devices))
        return torch.cat([out for _, out in self.stream((None, p) for p in parts)])

    @property
    def n_devices(self) -> int:
        """Number of devices that compute."""
        return 1 + len(self.replicas)

    def _copied(self, device: torch.device) -> torch.nn.Module:
        """Return the network for another device, or for another thread here."""
        same = indexed(device) == indexed(self.device)
        if same and is_known(self.network):  # which keeps nothing of a batch
            return self.network
        return copy.deepcopy(self.network)

    def stream(
        self, batches: Iterable[tuple[Any, torch.Tensor]]
    ) -> Iterator[tuple[Any, torch.Tensor]]:
        """Yield (rows, outputs) of batches of (rows, pixels), in order.

        A GPU is given the next batch before the outputs of the last are waited for. Of
        several devices, a batch goes to the first that is free.
        """
        if self.replicas:
            yield from self._spread(batches)
            return
        ahead = 0 if self.device.type == "cpu" else 1
        started: deque = deque()
        for rows, pixels in batches:
            started.append((rows, self._start(pixels)))
            if len(started) > ahead:
                rows, outputs = started.popleft()
                yield rows, outputs()
        for rows, outputs in started:
            yield rows, outputs()

    def _spread(
        self, batches: Iterable[tuple[Any, torch.Tensor]]
    ) -> Iterator[tuple[Any, torch.Tensor]]:
        """Yield as `stream` does, from a thread for each device; GPUs have two."""
        free: SimpleQueue = SimpleQueue()
        each = 1 if self.device.type == "cpu" else 2
        for forward in [self, *self.replicas] * each:
            free.put(forward)

        def compute(pixels: torch.Tensor) -> torch.Tensor:
            forward = free.get()
            try:
                with forward.starting:
                    outputs = forward._start(pixels)
                return outputs()
            finally:
                free.put(forward)

        started: deque = deque()
        with ThreadPoolExecutor(each * self.n_devices, "sklearn_dl-device") as pool:
            try:
                for rows, pixels in batches:
                    started.append((rows, pool.submit(compute, pixels)))
                    if len(started) > each * self.n_devices:
                        rows, coming = started.popleft()
                        yield rows, coming.result()
                while started:
                    rows, coming = started.popleft()
                    yield rows, coming.result()
            finally:
                for _, coming in started:
                    coming.cancel()

    def _start(self, pixels: torch.Tensor) -> Callable[[], torch.Tensor]:
        """Compute the outputs of a batch; return what waits for them."""
        pixels = pixels.to(self.device, non_blocking=self.device.type == "cuda")
        images = pixels if self.n_views is None else pixels.flatten(0, 1)
        values, self._most = in_parts(
            self._part, images, self._most, self.device, "for"
        )
        if self.n_views is not None:
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

    def _part(self, images: torch.Tensor) -> torch.Tensor:
        dtype = self.execution.module_dtype
        batch = self.preprocessing.normalize(images).to(
            dtype=dtype, memory_format=torch.channels_last
        )
        with torch.inference_mode(), self.execution.autocast():
            return self.network(batch).to(dtype)

    def batch_size(self, source: ImageSource) -> int:
        """Return how many images, in all their views, make a batch."""
        size = self.execution.batch_size
        if isinstance(size, str):
            largest = None
            if isinstance(self.preprocessing, Preprocessing):
                largest = self.preprocessing.output_size
            if source.image_shape is not None and self.device.type != "cpu":
                # Arrays are resized there.
                sizes = largest or (0, 0), source.image_shape[:2]
                largest = max(sizes, key=math.prod)
            size = fitting_batch_size(self.device, largest)
        return max(1, size // (self.n_views or 1))

    def reader(self, source: ImageSource, rows=None, on_read=None) -> PixelReader:
        """Return a reader of what the network takes."""
        view = self.views if self.n_views is None else _SameViews(self.views)
        return PixelReader(source, self.preprocessing, self.device, rows, view, on_read)


class _SameViews:
    """Views of an image, whatever its row."""

    def __init__(self, views):
        self.views = views
        self.thread_safe = views.thread_safe

    def __call__(self, image, row: int) -> torch.Tensor:
        return self.views(image)
