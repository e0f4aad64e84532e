"""Maps that a frozen prefix gives, kept for a training of what follows it."""

import warnings
from typing import Any

import numpy as np
import torch

from sklearn_dl._extraction._cache import MEMORY_BYTES, resolve_cache
from sklearn_dl._extraction._predict import FILLED_BYTES, Features, progress
from sklearn_dl._extraction._store import MemoryStore, eviction_target
from sklearn_dl._images import ImageSource
from sklearn_dl._runtime import release_memory
from sklearn_dl.backbones import Backbone


def has_room(
    backbone: Backbone, source: ImageSource, execution, cache: Any, views=None
) -> bool:
    """Tell whether a cache has the features of all images, or room for what it lacks.

    Not told, so False, where images have to be read to be looked up.
    """
    store = resolve_cache(cache)
    if store is None or source.digest_reads:
        return False
    features = Features(backbone, source, execution, store, views)
    free = eviction_target(store.max_bytes, 0) - store.statistics().bytes
    if len(source) * features.row_bytes <= free:
        return True
    missing = 0
    for start in range(0, len(source), features.window):
        rows = np.arange(start, min(start + features.window, len(source)))
        keys = features.keys(source.digests(rows, **features.reading), rows)
        found = store.lookup(keys, features.shape, features.dtype)
        missing += len(set(keys) - found.keys())
    return missing == 0 or missing * features.row_bytes <= free


class KeptMaps:
    """The maps of rows from a network's frozen prefix, of which batches are gathered.

    Those of the first rows stay in memory, as far as its bound goes: in shuffled epochs
    a cache that keeps the latest would hardly find any. A folder has the next ones.
    What it has no room for either is computed whenever it is asked for.

    Parameters
    ----------
    halves : Halves
        The prefix, and the shape of its maps.
    source : ImageSource
    execution : Execution
    cache : object
        As users give it; with None maps are kept all the same, as long as this is.
    rows : ndarray of int, shape (n,), default=None
        Positions in the source; None for all.
    beside : KeptMaps, default=None
        Maps of other rows, which the bounds are for too.
    """

    def __init__(self, halves, source, execution, cache, rows=None, beside=None):
        self.halves, prefix = halves, halves.prefix
        store = resolve_cache(cache) or MemoryStore(MEMORY_BYTES)
        self.rows = np.arange(len(source)) if rows is None else np.asarray(rows)
        self.features = Features(prefix, source, execution, store)
        self.row_bytes = self.features.row_bytes
        held, stored = (beside.n_held, beside.n_stored) if beside else (0, 0)
        self.n_stored = self._room(store.max_bytes, stored)
        self.n_held = self.n_stored
        if not isinstance(store, MemoryStore):
            self.n_held = min(self.n_stored, self._room(MEMORY_BYTES, held))
        self._held: list[np.ndarray] = []
        self._keys: list[bytes] = []  # of those that are stored, not held

    def _room(self, max_bytes: int, taken: int) -> int:
        """Return how many rows, with those taken, are kept without evicting any."""
        room = eviction_target(max_bytes, 0) // self.row_bytes
        return min(len(self.rows), max(0, room - taken))

    def __len__(self) -> int:
        return len(self.rows)

    def __getstate__(self) -> dict:  # of a loader's worker
        return {**vars(self), "features": None}

    def warn_of_bound(self) -> None:
        """Warn where the cache has no room for all."""
        if self.n_stored < len(self):
            n, size = len(self), self.row_bytes
            warnings.warn(
                f"What the frozen stages give for {n:,} images takes "
                f"{n * size / 2**20:,.0f} MiB, and the cache has room for "
                f"{self.n_stored:,} of them: the others go through these stages in "
                "each epoch. cache=FeatureCache(max_bytes=...) or a folder gives room.",
                UserWarning,
                stacklevel=2,
            )

    def fill(self) -> "KeptMaps":
        """Compute what is kept, where it isn't stored yet."""
        features = self.features
        window = max(1, min(features.window, FILLED_BYTES // self.row_bytes))
        with progress(self.n_stored, "maps", features.execution.verbose) as bar:
            for start in range(0, self.n_stored, window):
                stop = min(start + window, self.n_stored)
                keys, found = features.find(self.rows[start:stop], bar)
                n = min(max(0, self.n_held - start), len(keys))
                # The store's own arrays, not those that they were copied from.
                own = features.store.lookup(keys[:n], features.shape, features.dtype)
                self._held += [own.get(key, found[key]) for key in keys[:n]]
                self._keys += keys[n:]
        if features.computed:
            release_memory()
        return self

    def __call__(self, index: np.ndarray) -> torch.Tensor:
        """Return the maps of some of the rows, (b, *shape), in new memory."""
        features, n = self.features, self.n_held
        found = {int(i): self._held[i] for i in index if i < n}
        stored = {int(i): self._keys[i - n] for i in index if n <= i < self.n_stored}
        if stored:
            lookup = features.store.lookup
            values = lookup(list(stored.values()), features.shape, features.dtype)
            found |= {i: values[key] for i, key in stored.items() if key in values}
        if missing := [i for i in dict.fromkeys(index.tolist()) if i not in found]:
            rows, forward = self.rows[missing], features.forward
            with forward.reader(features.source, rows) as reader:
                outputs = forward(reader.read(np.arange(len(rows))))
            found.update(zip(missing, outputs.numpy(), strict=True))
        rows = np.stack([found[i] for i in index.tolist()])
        return self.halves.maps(torch.from_numpy(rows))
