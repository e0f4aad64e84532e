"""Features from a store, computed once where they are missing."""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch

from sklearn_dl._extraction._pass import Bar, Pass
from sklearn_dl._extraction._store import Store, new_owner
from sklearn_dl._images import ImageDecodeError, digest_image

# Seconds after which a wait for somebody else looks round.
_PATIENCE = 1.0

Found = dict[bytes, np.ndarray]


class CachedPass(Pass):
    """Looks features up, and computes the others on this machine.

    What another thread or process is computing is waited for. The images of a dataset
    are read before they are looked up: what they hold isn't known before.
    """

    store: Store
    _owner = ""
    _claims = False

    def __call__(self, rows: np.ndarray, bar: Bar) -> np.ndarray:
        """Return the features of rows, (n_rows, [n_views,] n_features)."""
        before = self.computed
        self._owner, self._claims = new_owner(), False
        reads = self.source.digest_reads
        get = self._read_then_look_up if reads else self._look_up_then_read
        try:
            keys, found = get(rows, bar)
        finally:
            if self._claims:  # of images that could not be read, or changed
                self.store.release(self._owner)
        misses = self.computed - before
        self.store.count(hits=len(rows) - misses, misses=misses)
        return self.gathered(keys, found)

    def _look_up_then_read(
        self, rows: np.ndarray, bar: Bar
    ) -> tuple[list[bytes], Found]:
        """Decode only what isn't stored."""
        digests = self.digests(rows)
        keys = [self.key(digest) for digest in digests]
        first = dict(zip(reversed(keys), reversed(range(len(keys))), strict=True))
        wanted, times = list(dict.fromkeys(keys)), Counter(keys)
        found = self.stored(wanted)
        bar(sum(times[key] for key in found))
        while missing := [key for key in wanted if key not in found]:
            with self.forward.reader(self.source, rows) as reader:
                batches = self._claimed(missing)
                index = (np.array([first[key] for key in batch]) for batch in batches)
                for part, values in self.forward.stream(reader.stream(index)):
                    new = self._computed([keys[k] for k in part], values)
                    found.update(new)
                    self._keep(new, rows[part], [digests[k] for k in part])
                    bar(sum(times[key] for key in new))
            self._take_over(missing, found)
        return keys, found

    def _read_then_look_up(
        self, rows: np.ndarray, bar: Bar
    ) -> tuple[list[bytes], Found]:
        """Decode everything, in the order of the rows."""
        keys: list[bytes] = []
        found: Found = {}
        read: dict[int, bytes] = {}

        def remember(row: int, image: Any) -> None:
            read[row] = self.key(digest_image(image))

        with self.forward.reader(self.source, rows, remember) as reader:
            for part, pixels in reader.batches(self.batch_size):
                batch = [read[int(row)] for row in rows[part]]
                keys += batch
                place = {key: k for k, key in enumerate(batch)}
                found.update(self.stored([key for key in place if key not in found]))
                while missing := [key for key in place if key not in found]:
                    if mine := self._claim(missing):
                        values = self.forward(pixels[[place[key] for key in mine]])
                        new = self._computed(mine, values)
                        found.update(new)
                        self.store.put(new, self._owner)
                    self._take_over(missing, found)
                bar(len(batch))
        return keys, found

    def _claim(self, keys: list[bytes]) -> list[bytes]:
        self._claims = True
        return self.store.claim(keys, self._owner)

    def _claimed(self, keys: Iterable[bytes]) -> Iterator[list[bytes]]:
        """Yield batches of what nobody else computes."""
        queue = iter(keys)
        batch: list[bytes] = []
        while coming := list(islice(queue, self.batch_size - len(batch))):
            batch += self._claim(coming)
            if len(batch) == self.batch_size:
                yield batch
                batch = []
        if batch:
            yield batch

    def _computed(self, keys: list[bytes], values: torch.Tensor) -> Found:
        self.computed += len(keys)
        return dict(zip(keys, values.numpy(), strict=True))

    def _keep(self, new: Found, rows: np.ndarray, digests: list[bytes]) -> None:
        """Store what was computed, unless a file changed before it was decoded."""
        if self.source.kind == "paths":
            try:
                now = self.source.digests(rows)
            except ImageDecodeError:  # a file is gone
                now = []
            if now != digests:
                same = {self.key(digest) for digest in set(now) & set(digests)}
                new = {key: row for key, row in new.items() if key in same}
        self.store.put(new, self._owner)

    def _take_over(self, missing: list[bytes], found: Found) -> None:
        """Get what others have computed meanwhile, or wait for it a little."""
        left = [key for key in missing if key not in found]
        found.update(self.stored(left))
        left = [key for key in left if key not in found]
        if left:
            self.store.wait(left, _PATIENCE)
            found.update(self.stored(left))
