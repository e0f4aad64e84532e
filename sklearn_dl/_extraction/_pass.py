"""One pass over images for the features of a frozen backbone."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import PIL
import torch

from sklearn_dl._extraction._run import Forward
from sklearn_dl._extraction._store import Store
from sklearn_dl._images import ImageSource
from sklearn_dl._runtime import decoding_threads, package_versions, stable_text

# Part of each key: to be raised when this library begins to make other pixels of an
# image, or other features of a network's outputs.
KEYS = 2
# Rows that are looked up together; their features take no more than these bytes.
_WINDOW_ROWS, _WINDOW_BYTES = 4096, 2**26

Bar = Callable[[int], object]


class Pass(ABC):
    """Gets the features of rows of a source.

    Parameters
    ----------
    forward : Forward
        Of a frozen `Backbone`.
    source : ImageSource
    store : Store or None
        Where features are kept.

    Attributes
    ----------
    shape : tuple of int
        Of the features of one image, ([n_views,] n_features).
    dtype : dtype
    window : int
        Rows that are worked on together.
    computed : int
        Images whose features were computed so far.
    """

    def __init__(
        self,
        forward: Forward,
        source: ImageSource,
        store: Store | None,
    ):
        backbone: Any = forward.network
        views = () if forward.views is None else (forward.views.n_views,)
        self.forward = forward
        self.source = source
        self.store = store
        self.batch_size = forward.images_per_batch(source)
        self.shape: tuple[int, ...] = (*views, backbone.n_features)
        double = forward.execution.dtype == torch.float64
        self.dtype = np.dtype(np.float64 if double else np.float32)
        row_bytes = int(np.prod(self.shape)) * self.dtype.itemsize
        most = max(self.batch_size, _WINDOW_BYTES // row_bytes)
        self.window = min(_WINDOW_ROWS, most)
        self.computed = 0
        self._identity = self._features_identity()

    @abstractmethod
    def __call__(self, rows: np.ndarray, bar: Bar) -> np.ndarray:
        """Return the features of rows, (n_rows, [n_views,] n_features)."""

    def key(self, digest: bytes) -> bytes:
        """Return where the features of an image of this digest are stored."""
        return hashlib.sha256(self._identity + digest).digest()

    def digests(self, rows: np.ndarray) -> list[bytes]:
        """Return the digests of images, without decoding files."""
        threads = decoding_threads()
        return self.source.digests(rows, memory=self.store, threads=threads)

    def stored(self, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """Return those features that are stored."""
        if self.store is None or not keys:
            return {}
        return self.store.lookup(keys, self.shape, self.dtype)

    def gathered(self, keys: list[bytes], found: dict[bytes, np.ndarray]) -> np.ndarray:
        """Return the features in the order of the keys."""
        features = np.empty((len(keys), *self.shape), dtype=self.dtype)
        for k, key in enumerate(keys):
            features[k] = found[key]
        return features

    def _features_identity(self) -> bytes:
        """Return the digest of all that features depend on, the image aside."""
        backbone: Any = self.forward.network
        execution = self.forward.execution
        with self.forward.reader(self.source) as reader:
            resized_by = reader.resized_by
        parts = [
            f"keys {KEYS}",
            backbone.identity(),
            stable_text(self.forward.preprocessing),
            stable_text(self.forward.views),
            f"{execution.dtype} on {execution.device.type}, by {resized_by}",
            # Other releases decode, resize or multiply with other last bits, or more.
            f"Pillow {PIL.__version__}, torch {torch.__version__}",
            stable_text(package_versions(_classes(self.forward.preprocessing))),
        ]
        return hashlib.sha256("\n".join(parts).encode()).digest()


def _classes(preprocessing: Any) -> list[type]:
    """Return the classes that decide what the pixels are."""
    transform = getattr(preprocessing, "transform", None)
    steps = getattr(transform, "transforms", None)  # as a Compose has them
    return [
        type(transform),
        *map(type, steps if isinstance(steps, list | tuple) else ()),
    ]
