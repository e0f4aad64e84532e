"""Outputs of a network for images, and features of a frozen one that are kept."""

import copy
import hashlib
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import PIL
import torch
from tqdm.auto import tqdm
from tqdm.std import tqdm as PlainBar

from sklearn_dl._extraction._cache import resolve_cache
from sklearn_dl._extraction._cluster import active_client, spread, task_rows
from sklearn_dl._extraction._forward import Forward
from sklearn_dl._extraction._pixels import in_parts, resized_together
from sklearn_dl._extraction._store import (
    Found,
    eviction_target,
    new_owner,
)
from sklearn_dl._images import (
    ImageDecodeError,
    ImageSource,
    digest_image,
    failed_images,
)
from sklearn_dl._runtime import (
    Execution,
    decoding_threads,
    fingerprint_text,
    others_meanwhile,
    release_memory,
    resolve_devices,
)
from sklearn_dl.backbones import Backbone, place

# Part of each key: to be raised when this library begins to make other pixels of an
# image or of an augmented view, or other features of a network's outputs.
_KEYS = 4
# Rows that are looked up together; their features take no more than these bytes.
_WINDOW_ROWS, _WINDOW_BYTES = 4096, 2**26
# Of large rows that are kept for a training, fewer are worked on at once.
FILLED_BYTES = 2**24
# Seconds between two lines of progress in a log, and what they say.
_LINE_SECONDS = 30.0
_LINE = "{desc}: {n_fmt} of {total_fmt}, {rate_fmt}, {remaining} left"
# Stages that will be trained on maps, each with the layer that the network ends at.
_MAPS_FIRST: ContextVar[tuple] = ContextVar("maps_first", default=())
# Seconds after which a wait for somebody else looks round.
_PATIENCE = 1.0

Combine = Callable[[torch.Tensor], torch.Tensor]
Bar = Callable[[int], object]


# ------------------------------------------------------------------ what users call


def run_network(
    network: torch.nn.Module,
    source: ImageSource,
    preprocessing,
    execution: Execution,
    *,
    rows: np.ndarray | None = None,
    views=None,
    combine: Combine | None = None,
    description: str = "images",
) -> np.ndarray:
    """Return the outputs of a network for images (all, or `rows`), in input order.

    Decoding runs ahead of the network; of the images a few batches are in memory. With
    `views` several of each image are taken; `combine` maps the outputs of a batch, (b,
    [n_views,] n_outputs), to one row each. None takes the mean over the views.
    """
    forward = Forward(network, preprocessing, execution, views)
    rows = np.arange(len(source)) if rows is None else rows
    output = None
    with progress(len(rows), description, execution.verbose) as bar:
        for part, values in _through(forward, source, rows, combine, bar):
            output = _with_part(output, len(rows), part, values)
    assert output is not None  # a source is never empty
    return output


def _through(
    forward: Forward, source: ImageSource, rows, combine: Combine | None, bar: Bar
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yield (place among the rows, what becomes of their outputs), batch by batch."""
    combine = combine or _one_row(forward.views)
    with forward.reader(source, rows) as reader:
        for part, outputs in forward.stream(reader.batches(forward.batch_size(source))):
            yield part, combine(outputs)
            bar(part.stop - part.start)
    release_memory()


def _with_part(
    output: np.ndarray | None, n_rows: int, part: slice, values: torch.Tensor
) -> np.ndarray:
    """Return an array with a part written; it is made when its width is known."""
    if output is None:
        output = np.empty((n_rows, *values.shape[1:]), dtype=values.numpy().dtype)
    output[part] = values
    return output


def run_frozen(
    backbone: Backbone,
    source: ImageSource,
    execution: Execution,
    *,
    cache: Any,
    rows: np.ndarray | None = None,
    views=None,
    combine: Combine | None = None,
    description: str = "images",
) -> np.ndarray:
    """Return what becomes of a frozen backbone's features, one row per image.

    As `run_network`, but images whose features are in the cache are not decoded; of the
    others, each distinct one is taken through the backbone once, also when several
    threads or processes ask for it at the same time. Where `views` has `n_views` None,
    it is one view of an image that depends on its row, and each row counts. Inside
    ``joblib.parallel_config("dask")`` many images are spread over the workers of the
    cluster, which take the execution's `requested_device` as they have it.
    """
    rows = np.arange(len(source)) if rows is None else np.asarray(rows)
    options: Any = {"cache": cache, "rows": rows, "views": views, "combine": combine}
    output = None
    with progress(len(rows), description, execution.verbose) as bar:
        parts = stream_frozen(backbone, source, execution, **options, bar=bar)
        for part, values in parts:
            output = _with_part(output, len(rows), part, values)
    assert output is not None  # a source is never empty
    return output


def stream_frozen(
    backbone: Backbone,
    source: ImageSource,
    execution: Execution,
    *,
    cache: Any,
    rows: np.ndarray,
    views=None,
    combine: Combine | None = None,
    bar: Bar,
) -> Generator[tuple[slice, torch.Tensor], None, None]:
    """Yield (place among the rows, what becomes of their features), as `run_frozen`.

    They come in input order; those of a few batches are in memory, or with a cache of a
    window of rows. On a cluster all rows are one window.
    """
    store = resolve_cache(cache)
    client = active_client() if "distributed" in sys.modules else None
    backbone = backbone.as_it_is()
    features = Features(backbone, source, execution, store, views)
    if client is not None:
        size = features.forward.batch_size(source)
        few = len(rows) <= task_rows(client, len(rows), size)
        if few or features.by_row:  # a worker's rows have other numbers
            client = None
    if store is None and client is None:
        yield from _through(features.forward, source, rows, combine, bar)
        return
    combine = combine or _one_row(views)
    # Workers wait for the last of no window.
    window = features.window if client is None else len(rows)
    for start in range(0, len(rows), window):
        some = rows[start : start + window]
        if client is None:
            keys, found = features.find(some, bar)
            values = np.stack([found[key] for key in keys])
        else:
            values = _spread_features(features, some, bar, client, cache)
        for part in torch.from_numpy(values).split(features.window):
            yield slice(start, start + len(part)), combine(part)
            start += len(part)
    if features.computed:
        release_memory()


@contextmanager
def maps_first(layers_and_stages: Iterable[tuple[Any, Any]]) -> Iterator[None]:
    """Let features be computed from maps in a block, which are kept for training.

    Of the pairs of a layer that features are taken at and of stages that are trained,
    the first counts for which the network is taken in two halves. So an image goes
    through the frozen stages once, also where its features are asked for first.
    """
    before = _MAPS_FIRST.set(tuple(layers_and_stages))
    try:
        yield
    finally:
        _MAPS_FIRST.reset(before)


def _one_row(views) -> Combine:
    """Return what makes one row of what a network gives for an image."""
    if views is None or views.n_views is None:
        return torch.Tensor.contiguous
    return lambda values: values.mean(1)


@contextmanager
def progress(
    n_images: int, description: str, verbose: int, done: int = 0
) -> Iterator[Bar]:
    """Show progress; the context's value is called with the number of images done.

    So many were `done` before. With `verbose` of 2 or more there are lines for a log in
    place of a bar.
    """
    if verbose < 1:  # a disabled bar would start tqdm's monitor thread all the same
        yield lambda n: None
        return
    options: dict[str, Any] = {"desc": description, "unit": "img", "initial": done}
    if verbose > 1:
        options |= {"mininterval": _LINE_SECONDS, "delay": _LINE_SECONDS}
        options |= {"file": _Lines(), "bar_format": _LINE}
    kind = tqdm if verbose == 1 else PlainBar  # no widget of a notebook
    with kind(total=n_images, **options) as bar:
        yield bar.update


class _Lines:
    """Writes what a bar shows to stderr, in a line of its own each time."""

    def write(self, text: str) -> None:
        if line := text.strip():
            sys.stderr.write(f"{line}\n")

    def flush(self) -> None:
        sys.stderr.flush()


# ---------------------------------------------------------- features that are kept


class Features:
    """Features of a frozen backbone, from a store, and computed where they are missing.

    What another thread or process is computing is waited for. The images of a dataset
    are read before they are looked up: what they hold isn't known before.
    """

    def __init__(self, backbone: Backbone, source, execution, store: Any, views=None):
        self.backbone, self.source, self.execution = backbone, source, execution
        self.store, self.views = store, views
        self.by_row = views is not None and views.n_views is None
        n_views = () if views is None or self.by_row else (views.n_views,)
        self.shape: tuple[int, ...] = (*n_views, backbone.n_features)
        double = execution.dtype == torch.float64
        self.dtype = np.dtype(np.float64 if double else np.float32)
        self.row_bytes = int(np.prod(self.shape)) * self.dtype.itemsize
        least = 256 if isinstance(execution.batch_size, str) else execution.batch_size
        # Rows that are worked on together.
        self.window = min(_WINDOW_ROWS, max(least, _WINDOW_BYTES // self.row_bytes))
        self.computed = 0  # images so far
        self.reading: Any = {"memory": store, "threads": decoding_threads()}

    @cached_property
    def forward(self) -> Forward:
        """The backbone on pixels, made when the first features are missing."""
        backbone, execution = self.backbone, self.execution
        return Forward(backbone, backbone.preprocessing, execution, self.views)

    @cached_property
    def _prefix(self) -> bytes:
        """The digest of all that features depend on, the image aside."""
        device, preprocessing = self.execution.device, self.backbone.preprocessing
        by_torch = False
        if self.views is None and self.source.stackable:
            by_torch = resized_together(self.source, preprocessing, device)
        # Torch rounds else than Pillow, on each kind of device.
        resizer = f"torch on {device.type}" if by_torch else "Pillow"
        parts = [
            f"keys {_KEYS}",
            self.backbone.fingerprint(),
            "" if self.views is None else fingerprint_text(self.views),
            f"{self.execution.dtype} on {device.type}, by {resizer}",
            # Other releases decode, resize or multiply with other last bits, or more.
            f"Pillow {PIL.__version__}, torch {torch.__version__}",
        ]
        if self.by_row:
            parts.append(f"numpy {np.__version__}")  # which draws
        return hashlib.sha256("\n".join(parts).encode()).digest()

    def keys(self, digests: Iterable[bytes], rows: Iterable[int]) -> list[bytes]:
        """Return where the features of rows with images of some digests are stored."""
        prefix = self._prefix
        if self.by_row:
            pairs = zip(digests, rows, strict=True)
            digests = (digest + int(row).to_bytes(8, "big") for digest, row in pairs)
        return [hashlib.sha256(prefix + digest).digest() for digest in digests]

    def readable_keys(self, rows: np.ndarray) -> dict[int, bytes]:
        """Return the keys of those rows whose images can be read here, by row."""
        while True:
            try:
                keys = self.keys(self.source.digests(rows, **self.reading), rows)
            except ImageDecodeError as error:
                rows = np.setdiff1d(rows, [row for row, _, _ in error.failures])
            else:
                return dict(zip(rows.tolist(), keys, strict=True))

    def find(self, rows: np.ndarray, bar: Bar) -> tuple[list[bytes], Found]:
        """Return the keys of rows, and their features, ([n_views,] n), by key."""
        store, before = self.store, self.computed
        digests: list[bytes] = []
        keys: list[bytes] = []
        found: Found = {}
        if not self.source.digest_reads:
            digests = self.source.digests(rows, **self.reading)
            keys = self.keys(digests, rows)
            found = store.lookup(keys, self.shape, self.dtype)
            bar(sum(map(found.__contains__, keys)))
        if not keys or not all(map(found.__contains__, keys)):
            owner = new_owner()
            try:
                if keys:
                    self._compute_missing(rows, digests, keys, found, owner, bar)
                else:
                    keys = self._read_then_look_up(rows, found, owner, bar)
            finally:  # claims of images that could not be read, or that changed
                store.release(owner)
        misses = self.computed - before
        store.count(hits=len(rows) - misses, misses=misses)
        return keys, found

    def _compute_missing(self, rows, digests, keys, found, owner, bar: Bar) -> None:
        """Decode and compute what isn't stored, each key once."""
        first = dict(zip(reversed(keys), reversed(range(len(keys))), strict=True))
        times = Counter(keys)
        size = self.forward.batch_size(self.source)
        if halves := self._wanted_halves():
            self._fill_maps(halves, rows[[key not in found for key in keys]])
        images = dict(zip(keys, zip(digests, rows, strict=True), strict=True))
        self._follow_maps(images, found, owner, bar)
        while missing := [key for key in times if key not in found]:
            with self.forward.reader(self.source, rows) as reader:
                batches = self._claimed(missing, size, owner)
                index = (np.array([first[key] for key in batch]) for batch in batches)
                for part, values in self.forward.stream(reader.stream(index)):
                    new = dict(
                        zip([keys[k] for k in part], values.numpy(), strict=True)
                    )
                    found.update(new)
                    self.computed += len(new)
                    bar(sum(times[key] for key in new))
                    if self.source.kind == "paths":
                        before = [digests[k] for k in part]
                        new = self._unchanged(new, rows[part], before)
                    self.store.put(new, owner)
            if left := [key for key in missing if key not in found]:
                self._take_over(left, found)

    def _wanted_halves(self):
        """Return the halves that others will train on, if they are known."""
        for layer, stages in _MAPS_FIRST.get():
            if self.views is None and self.backbone.layer == layer:
                with suppress(ValueError, TypeError):  # it has no such stages
                    halves = self.backbone.halves(stages)
                    if not isinstance(halves, str):
                        return halves
        return None

    def _fill_maps(self, halves, rows: np.ndarray) -> None:
        """Compute maps of as many rows as there is room for."""
        store = self.store
        maps = Features(halves.prefix, self.source, self.execution, store)
        room = eviction_target(store.max_bytes, 0) - store.statistics().bytes
        window = max(1, FILLED_BYTES // maps.row_bytes)
        n = min(len(rows), max(0, room) // maps.row_bytes)
        for start in range(0, n, window):
            maps.find(rows[start : min(start + window, n)], lambda n: None)

    def _follow_maps(self, images: dict, found: Found, owner: str, bar: Bar) -> None:
        """Compute what isn't stored of images whose maps are, from these maps.

        Of each key `images` has the image's digest and its row.
        """
        for halves in self.backbone.known_halves():
            maps = Features(
                halves.prefix, self.source, self.execution, self.store, self.views
            )
            rest, size = self.forward.network.rest, self.forward.batch_size(self.source)
            follow = OnMaps(rest, halves, self.execution, size)
            missing = [key for key in images if key not in found]
            window = max(1, FILLED_BYTES // maps.row_bytes)
            for start in range(0, len(missing), window):
                part = missing[start : start + window]
                of_maps = maps.keys(*zip(*map(images.__getitem__, part), strict=True))
                rows = self.store.lookup(of_maps, maps.shape, maps.dtype)
                known = {k: m for k, m in zip(part, of_maps, strict=True) if m in rows}
                if mine := self.store.claim(list(known), owner):
                    values = follow(
                        torch.from_numpy(np.stack([rows[known[key]] for key in mine]))
                    )
                    new = dict(zip(mine, values.numpy(), strict=True))
                    found.update(new)
                    self.computed += len(new)
                    self.store.put(new, owner)
                    bar(len(new))

    def _claimed(self, keys, size: int, owner: str) -> Iterator[list[bytes]]:
        """Yield batches of what nobody else computes, claimed one after the other."""
        queue = iter(keys)
        batch: list[bytes] = []
        while coming := list(islice(queue, size - len(batch))):
            batch += self.store.claim(coming, owner)
            if len(batch) == size:
                yield batch
                batch = []
        if batch:
            yield batch

    def _take_over(self, left: list[bytes], found: Found) -> None:
        """Get what others have computed meanwhile, or wait for it a little."""
        for last in (False, True):
            found.update(self.store.lookup(left, self.shape, self.dtype))
            left = [key for key in left if key not in found]
            if not left or last:
                return
            with others_meanwhile():  # who computes may draw views at random
                self.store.wait(left, _PATIENCE)

    def _read_then_look_up(self, rows, found, owner, bar: Bar) -> list[bytes]:
        """Decode everything, in the order of the rows; return their keys."""
        keys: list[bytes] = []
        read: dict[int, bytes] = {}

        def remember(row: int, image: Any) -> None:
            read[row] = digest_image(image)

        with self.forward.reader(self.source, rows, remember) as reader:
            size = self.forward.batch_size(self.source) * self.forward.n_devices
            for part, pixels in reader.batches(size):
                index = rows[part].tolist()
                batch = self.keys([read[row] for row in index], index)
                keys += batch
                place = {key: k for k, key in enumerate(batch)}
                unknown = [key for key in place if key not in found]
                found.update(self.store.lookup(unknown, self.shape, self.dtype))
                while missing := [key for key in place if key not in found]:
                    if mine := self.store.claim(missing, owner):
                        values = self.forward(pixels[[place[key] for key in mine]])
                        new = dict(zip(mine, values.numpy(), strict=True))
                        found.update(new)
                        self.computed += len(new)
                        self.store.put(new, owner)
                    if left := [key for key in missing if key not in found]:
                        self._take_over(left, found)
                bar(len(batch))
        return keys

    def _unchanged(self, new: Found, rows: np.ndarray, digests: list[bytes]) -> Found:
        """Leave out the features of files that changed before they were read."""
        try:
            now = self.source.digests(rows)
        except ImageDecodeError:  # a file is gone
            now = []
        if now == digests:
            return new
        triples = zip(rows.tolist(), now, digests, strict=False)
        kept = {row: old for row, new, old in triples if new == old}
        same = self.keys(kept.values(), kept)
        return {key: row for key, row in new.items() if key in same}


# ----------------------------------------------------- what follows what is kept


class OnFeatures:
    """A head on features, moved to the device, in evaluation mode."""

    def __init__(self, head: torch.nn.Module, execution: Execution):
        self.execution = execution
        self.head = place(head, execution.device, execution.module_dtype)

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """Return the outputs of (b, [n_views,] n_features), on the CPU."""
        dtype = self.execution.module_dtype
        rows = features.flatten(0, -2).to(self.execution.device, dtype)
        with torch.inference_mode(), self.execution.autocast():
            outputs = self.head(rows)
        return outputs.to("cpu", dtype).unflatten(0, features.shape[:-1])


class OnMaps:
    """What follows a frozen prefix, on rows of its maps.

    `follow` takes maps and the layer that they enter.
    """

    def __init__(self, follow, halves, execution: Execution, batch_size: int):
        self.follow, self.halves, self.execution = follow, halves, execution
        self.batch_size = batch_size
        self._most: int | None = None

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the outputs of (b, [n_views,] n_values), on the CPU."""
        device = self.execution.device
        outputs = []
        for part in rows.flatten(0, -2).split(self.batch_size):
            values, self._most = in_parts(self._part, part, self._most, device, "for")
            outputs.append(values.cpu())
        return torch.cat(outputs).unflatten(0, rows.shape[:-1])

    def _part(self, rows: torch.Tensor) -> torch.Tensor:
        dtype = self.execution.module_dtype
        maps = self.halves.maps(rows.to(self.execution.device, dtype, copy=True))
        with torch.inference_mode(), self.execution.autocast():
            return self.follow(maps, self.halves.entry).to(dtype)


# ------------------------------------------------------------ workers of a cluster


def _spread_features(
    features: Features, rows: np.ndarray, bar: Bar, client, cache: Any
) -> np.ndarray:
    """Look features up here, and have the workers of a cluster compute the others.

    Images that can't be read here are left to the workers. What a worker computed is
    stored if it finds the same key: the same content, kind of device and versions.
    """
    store, source = features.store, features.source
    lookup = store is not None and not source.digest_reads
    known = features.readable_keys(rows) if lookup else {}
    # Of images that aren't known here, any keys.
    keys = [known.get(row, str(k).encode()) for k, row in enumerate(rows.tolist())]
    times, own = Counter(keys), set(known.values())
    found: Found = {}
    if store is not None:
        found = store.lookup(list(own), features.shape, features.dtype)
    bar(sum(times[key] for key in found))
    places = {key: k for k, key in reversed(list(enumerate(keys)))}
    wanted = {key: rows[places[key]] for key in times if key not in found}
    size = task_rows(client, len(wanted), features.forward.batch_size(source))
    queue = list(wanted)
    parts = [queue[k : k + size] for k in range(0, len(queue), size)]
    tasks = (
        (source.take([wanted[k] for k in part]), not own.isdisjoint(part))
        for part in parts
    )
    failed: dict[bytes, str] = {}
    misses = 0
    model = None
    if wanted:
        backbone, views = features.forward.network, features.views
        model = FrozenModel(backbone, features.execution, cache, views).packed()
    for number, answer in spread(client, _chunk, model, tasks) if wanted else ():
        part, (values, theirs, reasons) = parts[number], answer
        failed.update((part[k], reason) for k, reason in reasons.items())
        if reasons:
            continue  # all that can't be read are named
        new = dict(zip(part, values, strict=True))
        found.update(new)
        features.computed += len(new)
        if store is not None:
            owner = new_owner()
            same = [key for k, key in theirs.items() if key == part[k]]
            mine = store.claim(same, owner)  # what no worker has stored here
            store.put({key: new[key] for key in mine}, owner)
            store.release(owner)
            misses += len(mine)
        bar(sum(times[key] for key in new))
    if failed:
        raise ImageDecodeError(
            (row, source.path(row), failed[key])
            for row, key in sorted(set(zip(rows.tolist(), keys, strict=True)))
            if key in failed
        )
    if store is not None:  # the workers count in theirs, which may be the same
        store.count(hits=len(rows) - len(wanted), misses=misses)
    return np.stack([found[key] for key in keys])


@dataclass
class FrozenModel:
    """A frozen backbone, and how features are taken from it."""

    backbone: Any
    execution: Execution
    cache: Any
    views: Any

    def packed(self) -> "FrozenModel":
        """Return it for a worker: on the CPU, since that one's device may be another.

        A worker shows no progress.
        """
        alone: Any = {"device": torch.device("cpu"), "others": (), "verbose": 0}
        execution = replace(self.execution, **alone)
        backbone = copy.deepcopy(self.backbone.as_it_is()).cpu()
        return replace(self, backbone=backbone, execution=execution)

    def unpacked(self) -> "FrozenModel":
        """Return it with the devices that were asked for, as this process has them."""
        asked = self.execution.requested_device
        device, *others = resolve_devices(asked, fall_back=True)
        execution = replace(self.execution, device=device, others=tuple(others))
        return replace(self, execution=execution)


def _chunk(model: FrozenModel, source: ImageSource, keyed: bool):
    """Return features of a chunk, the keys of its rows, and why some can't be read."""
    model = model.unpacked()
    execution = model.execution
    here = {"cache": model.cache, "views": model.views}
    rows = np.arange(len(source))
    same: dict[int, bytes] = {}
    try:
        if keyed:
            store = resolve_cache(model.cache)
            run = Features(model.backbone, source, execution, store, model.views)
            same = run.readable_keys(rows)
        features = run_frozen(
            model.backbone, source, execution, **here, combine=torch.Tensor.contiguous
        )
        if keyed and source.kind == "paths":  # a file may have changed meanwhile
            same = dict(same.items() & run.readable_keys(rows).items())
    except ImageDecodeError as error:
        # The first bad batch ended it: there may be others.
        bad = [*error.failures, *failed_images(source)]
        return None, {}, {row: reason for row, _, reason in bad}
    return features, same, {}
