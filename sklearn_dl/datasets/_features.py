"""Reader of files of features: whole, or in chunks."""

import glob
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import Bunch, check_random_state

from sklearn_dl._files import first_line
from sklearn_dl._images import fetch, file_system, is_url
from sklearn_dl.datasets._common import did_you_mean, result
from sklearn_dl.datasets._features_file import (
    COLUMNS,
    FORMAT,
    KEPT,
    KEY,
    SUFFIXES,
    VERSION,
    FeaturesTable,
    beside,
    check_count,
    described,
    difference,
    import_pyarrow,
)

Paths = str | os.PathLike | Sequence[str | os.PathLike]

# Rows that are read from one place when they are shuffled.
_RUN = 64
# Rows of a Parquet file that are read at once for a copy.
_CHUNK = 4096


def load_features(
    path: Paths,
    *,
    split: str | None = None,
    extractor: Any = None,
    chunks: int | None = None,
    return_X_y: bool = False,
) -> Any:
    """Load what `ImageFeatureExtractor.transform_to` or the command line wrote.

    Parameters
    ----------
    path : str, Path or list of them
        The file (``.npy`` or ``.parquet``), or all shards of one run in any order; a
        pattern such as ``"photos-*-of-16.npy"`` stands for a list. Parquet may be
        behind a URL that fsspec has a driver for, such as ``s3://``.
    split : str, default=None
        The part of the data to take, such as "train"; all by default.
    extractor : ImageFeatureExtractor, default=None
        The one that features of other images will come from. It is an error if it
        gives other features than those of the file: another backbone, weights, layer,
        preprocessing or views.
    chunks : int, default=None
        Let ``data`` and ``target`` be Dask arrays in blocks of at most so many rows,
        8192 for instance, for dask-ml. Each block of ``data`` is read where it is
        needed, so workers of a cluster must find the file by the same path. Needs Dask.
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of the bunch.

    Returns
    -------
    bunch : :class:`~sklearn.utils.Bunch`
        ``data``, (n, n_features) of float16 or float32: mapped from the file, read
        only, where it is one ``.npy`` and `split` is None, otherwise a copy; a Dask
        array of float32 with `chunks`;
        ``target``, (n,) labels, (n, k) targets or None; ``target_names``, the sorted
        classes of labels, or None; ``filenames``, (n,) paths or None; ``split``, (n,)
        or None; ``readable``, (n,) of bool, False for images that couldn't be read,
        whose features are NaN; ``skipped``, a DataFrame (row, path, reason) of these;
        ``metadata``, what the features depend on and what wrote them.

    Raises
    ------
    FileNotFoundError
        If there is no such file, or no JSON beside a ``.npy``.
    ValueError
        If a file is damaged or of another kind, a shard is missing or twice there, the
        files or the extractor differ in what features depend on, or there is no such
        split.
    ImportError
        If pyarrow, fsspec or Dask are needed, and not there.

    See Also
    --------
    iter_features : The same in chunks, for ``partial_fit``.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from sklearn_dl import ImageFeatureExtractor
    >>> from sklearn_dl.datasets import load_features
    >>> images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), "uint8")
    >>> extractor = ImageFeatureExtractor(
    ...     "mobilenet_v3_small", weights="builtin", image_size=32
    ... ).fit(images)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     failed = extractor.transform_to(images, f"{folder}/f.npy", y=list("abba"))
    ...     bunch = load_features(f"{folder}/f.npy", extractor=extractor)
    ...     print(bunch.data.shape, bunch.target, len(failed))
    ...     del bunch  # whose data are the file's
    (4, 1024) ['a' 'b' 'b' 'a'] 0
    """
    rows = None if chunks is None else check_count("chunks", chunks)
    files = _opened(path, extractor)
    taken = _taken(files, split)
    if rows is not None:
        data = _in_blocks(files, taken, rows)
    elif split is None and len(files) == 1 and isinstance(files[0], _Npy):
        data = files[0].array
    else:
        data = _copied(files, taken)
    keep = np.concatenate(taken)
    joined = {name: _joined(files, name) for name in COLUMNS}
    columns = {n: None if c is None else c[keep] for n, c in joined.items()}
    readable = np.concatenate([file.readable for file in files])[keep]
    reasons = np.concatenate([file.reasons for file in files])[keep]
    names, labels, bad = columns["path"], columns["label"], np.flatnonzero(~readable)
    failed = {"row": bad, "path": None if names is None else names[bad]}
    skipped = pd.DataFrame({**failed, "reason": reasons[bad]}, dtype=object)
    classes = None
    if labels is not None and labels.ndim == 1 and labels.dtype.kind != "f":
        classes = np.sort(pd.unique(labels))
    if labels is not None and rows is not None:
        labels = _like(data, labels)
    bunch = Bunch(
        data=data,
        target=labels,
        target_names=classes,
        filenames=names,
        split=columns["split"],
        readable=readable,
        skipped=skipped.astype({"row": int}),
        metadata=files[0].about,
    )
    return result(bunch, return_X_y)


def iter_features(
    path: Paths,
    rows: int = 8192,
    *,
    split: str | None = None,
    shuffle: bool = False,
    random_state: Any = None,
    extractor: Any = None,
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Read features in chunks, for the ``partial_fit`` of what doesn't fit in memory.

    Rows of images that couldn't be read are left out.

    Parameters
    ----------
    path : str, Path or list of them
        As in `load_features`.
    rows : int, default=8192
        Rows of a chunk, at most.
    split : str, default=None
        The part of the data to take, such as "train"; all by default.
    shuffle : bool, default=False
        Whether chunks are drawn from all over the file: folders are written class by
        class, and ``partial_fit`` forgets the classes that it saw long ago. For
        ``.npy`` only. Runs of 64 rows are read at once.
    random_state : int, RandomState instance or None, default=None
        Seed of the order. With another in each epoch, each has another order.
    extractor : ImageFeatureExtractor, default=None
        As in `load_features`.

    Yields
    ------
    X : ndarray of shape (n, n_features)
        float32, also of float16 in the file, which ``SGDClassifier`` would make
        float64.
    y : ndarray of shape (n,) or (n, k), or None
        Labels or targets.

    Raises
    ------
    FileNotFoundError, ValueError
        As `load_features`; also if Parquet is to be shuffled.

    See Also
    --------
    load_features : The whole, mapped from the file.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from sklearn_dl import ImageFeatureExtractor
    >>> from sklearn_dl.datasets import iter_features
    >>> images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), "uint8")
    >>> extractor = ImageFeatureExtractor(
    ...     "mobilenet_v3_small", weights="builtin", image_size=32
    ... ).fit(images)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     y = [0, 1, 0, 1, 1]
    ...     failed = extractor.transform_to(images, f"{folder}/f.npy", y=y)
    ...     for X, y in iter_features(f"{folder}/f.npy", rows=3):
    ...         print(X.shape, y)
    ...     del X
    (3, 1024) [0 1 0]
    (2, 1024) [1 1]
    """
    rows = check_count("rows", rows)
    files = _opened(path, extractor)
    taken = _taken(files, split)
    wanted = [m & f.readable for m, f in zip(taken, files, strict=True)]
    if not shuffle:
        return _in_order(files, wanted, rows)
    if not all(isinstance(file, _Npy) for file in files):
        raise ValueError(
            "shuffle=True needs .npy: Parquet is read in order. Write .npy, or shuffle "
            "the images before their features are taken."
        )
    return _shuffled(files, wanted, rows, check_random_state(random_state))


def _in_order(files: list, wanted: list, rows: int) -> Iterator[tuple]:
    for file, mask in zip(files, wanted, strict=True):
        labels, start = file.columns["label"], 0
        for block in file.blocks(rows):
            keep, place = mask[start : start + len(block)], slice(start, start + rows)
            if keep.any():
                y = None if labels is None else labels[place][keep]
                yield np.array(block[keep], np.float32), y
            start += len(block)


def _shuffled(files: list, wanted: list, rows: int, rng: Any) -> Iterator[tuple]:
    runs = [
        (number, start)
        for number, file in enumerate(files)
        for start in range(0, len(file), min(_RUN, rows))
    ]
    order, step = rng.permutation(len(runs)), max(1, rows // _RUN)
    for first in range(0, len(order), step):
        features, labels = [], []
        for number, start in (runs[k] for k in order[first : first + step]):
            file, run = files[number], slice(start, start + min(_RUN, rows))
            keep = wanted[number][run]
            features.append(file.array[run][keep].astype(np.float32))
            if file.columns["label"] is not None:
                labels.append(file.columns["label"][run][keep])
        mixed = rng.permutation(sum(map(len, features)))
        if len(mixed):
            y = np.concatenate(labels)[mixed] if labels else None
            yield np.concatenate(features)[mixed], y


# --------------------------------------------------------------------------- Dask


def _import_dask() -> tuple[Any, Any]:
    """Return Dask's arrays and its delayed, or say what to install."""
    try:
        import dask.array
    except ImportError as error:
        message = 'Dask arrays need: pip install "sklearn_dl[dask]"'
        raise ImportError(f"{error}\n{message}") from error
    return dask.array, dask.delayed


def _in_blocks(files: list, taken: list, rows: int) -> Any:
    """Return features as a Dask array, whose blocks are read when they are needed.

    The graph holds paths: ``from_array`` copies a map, and so the whole file.
    """
    arrays, delayed = _import_dask()
    n_features, read = files[0].about["n_features"], delayed(_read_block)
    blocks = []
    for file, mask in zip(files, taken, strict=True):
        for start in range(0, len(file), rows):
            keep = mask[start : start + rows]
            if n := int(keep.sum()):
                where = (type(file), _everywhere(file.path), start, keep)
                shape = (n, n_features)
                block = arrays.from_delayed(read(*where), shape, np.float32)
                blocks.append(block)
    if not blocks:
        return arrays.zeros((0, n_features), dtype=np.float32)
    return arrays.concatenate(blocks)


def _everywhere(path: Any) -> str:
    """Return a path that doesn't depend on where a process works."""
    return path if is_url(path) else os.path.abspath(path)


def _read_block(kind: Any, path: str, start: int, keep: np.ndarray) -> np.ndarray:
    """Read the rows to keep, of as many from a row on, as float32."""
    block = kind.read(path, start, start + len(keep))
    return np.array(block[keep], np.float32)


def _like(data: Any, column: np.ndarray) -> Any:
    """Return a column as a Dask array with the blocks of `data`."""
    chunks = (data.chunks[0], *((n,) for n in column.shape[1:]))
    return _import_dask()[0].from_array(column, chunks=chunks)


# -------------------------------------------------------------------------- files


class _File(ABC):
    """One file: what is known of its rows, and its features.

    ``about`` is its metadata, ``columns`` holds an array (or None) for each of
    `COLUMNS`, ``reasons`` why an image couldn't be read, or None.
    """

    def __init__(self, path: Path | str):
        self.path = path  # a text is a URL
        self.about: dict[str, Any] = {}
        self.columns: dict[str, np.ndarray | None] = {}
        try:
            errors = self._read()
            self.reasons = np.full(len(self), None)
            for row, reason in errors.items():
                self.reasons[int(row)] = reason
            self.readable = np.array([r is None for r in self.reasons], bool)
            for name, column in self.columns.items():
                if column is not None and len(column) != len(self):
                    message = f"{len(column)} values of {name} for {len(self)} rows"
                    raise ValueError(message)
        except (OSError, ImportError):
            raise
        except Exception as error:  # of json, numpy, pyarrow
            reason = first_line(error)
            message = f"{path} is no whole file of features of ours: {reason}."
            raise ValueError(message) from error

    def __len__(self) -> int:
        return self.about["rows"]

    @abstractmethod
    def _read(self) -> dict:
        """Read all but the features; return the errors by row."""

    @staticmethod
    @abstractmethod
    def read(path: str, start: int, stop: int) -> np.ndarray:
        """Return the features of some rows of a file, of which nothing else is read."""

    @abstractmethod
    def blocks(self, rows: int) -> Iterator[np.ndarray]:
        """Yield the features of so many rows at a time, in order."""

    def _know(self, about: Any) -> None:
        """Take the metadata, which must be of this format."""
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            raise ValueError("its metadata are of something else")
        if about["version"] != VERSION:
            version = about.get("versions", {}).get("sklearn_dl", "another one")
            form = f"format {about['version']}, of sklearn_dl {version}"
            raise ValueError(f"{form}; this one reads format {VERSION}")
        self.about = about

    def _take(self, name: str, values: list | None) -> None:
        """Keep a column; paths as objects, which take no more room than the longest."""
        if values is None or None in values[:1]:
            self.columns[name] = None
        else:
            kind = object if name == "path" else None
            self.columns[name] = np.array(values, dtype=kind)


class _Npy(_File):
    """A ``.npy`` with its JSON, which alone is read behind a URL."""

    array: np.ndarray  # read only, mapped from the file

    def _read(self) -> dict:
        about = json.loads(self._json())
        self._know(about)
        columns = {name: about.pop(name, None) for name in COLUMNS}
        errors = about.pop("errors")
        for name, values in columns.items():
            self._take(name, values)
        if isinstance(self.path, str):
            return errors
        shape = (about["rows"], about["n_features"])
        # Of nothing there is no map.
        mode: Any = "r" if shape[0] else None
        self.array = np.load(self.path, mmap_mode=mode, allow_pickle=False)
        found = self.array.shape, str(self.array.dtype)
        if found != (shape, about["dtype"]):
            raise ValueError(f"it is {found}, its JSON is of {(shape, about['dtype'])}")
        return errors

    def _json(self) -> bytes:
        if isinstance(self.path, str):
            return fetch(f"{self.path}.json")
        known = beside(self.path)
        if not known.exists():  # as of a link, which `transform_to` follows
            known = beside(self.path.resolve())
        if not known.exists():
            raise FileNotFoundError(
                f"There is no {beside(self.path)}, which a file of features has beside "
                "it. A plain array is read by numpy.load."
            )
        return known.read_bytes()

    @staticmethod
    def read(path: str, start: int, stop: int) -> np.ndarray:
        return np.load(path, mmap_mode="r", allow_pickle=False)[start:stop]

    def blocks(self, rows: int) -> Iterator[np.ndarray]:
        for start in range(0, len(self), rows):
            yield self.array[start : start + rows]


class _Parquet(_File):
    """A ``.parquet``, with all in it."""

    def _read(self) -> dict:
        with _parquet_file(self.path) as file:
            about = (file.schema_arrow.metadata or {}).get(KEY, b"null")
            self._know(json.loads(about))
            table = file.read([*COLUMNS, "error"])
        for name in COLUMNS:
            self._take(name, table.column(name).to_pylist())
        reasons = enumerate(table.column("error").to_pylist())
        return {row: reason for row, reason in reasons if reason is not None}

    @staticmethod
    def read(path: str, start: int, stop: int) -> np.ndarray:
        with _parquet_file(path) as file:
            known = file.metadata
            sizes = [known.row_group(k).num_rows for k in range(known.num_row_groups)]
            ends = np.cumsum(sizes)
            first, last = np.searchsorted(ends, [start, stop - 1], side="right")
            groups = file.read_row_groups([*range(first, last + 1)], ["features"])
            begin = ends[first] - sizes[first]
            part = groups.slice(start - begin, stop - start).combine_chunks()
            return _rows_of(part.column(0).chunk(0))

    def blocks(self, rows: int) -> Iterator[np.ndarray]:
        with _parquet_file(self.path) as file:
            for batch in file.iter_batches(batch_size=rows, columns=["features"]):
                yield _rows_of(batch.column(0))


def _rows_of(lists: Any) -> np.ndarray:
    """Return a column of lists of one length as an array."""
    flat = lists.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(lists), lists.type.list_size)


@contextmanager
def _parquet_file(path: Path | str) -> Iterator[Any]:
    """Open a file for pyarrow's reader of Parquet; it may be a URL."""
    _, parquet = import_pyarrow()
    if not is_url(path):
        with parquet.ParquetFile(path) as file:
            yield file
        return
    system, name = file_system(str(path))
    with system.open(name) as source, parquet.ParquetFile(source) as file:
        yield file


def errors_of_written(
    path: str, table: FeaturesTable, rows: range, about: dict
) -> dict[int, str] | None:
    """Return the errors by row of a whole file, None where there is no such one.

    `about` is as in `FeaturesWriter`; features, images, labels and splits must be the
    same.
    """
    if not table.knows_images:
        return None
    try:
        file = _kind(path)(path if is_url(path) else Path(path))
    except (OSError, ValueError):  # it isn't there, or no file of ours
        return None
    if difference(file.about, described(table, rows, about), KEPT):
        return None
    bad = np.flatnonzero(~file.readable)
    return {rows.start + int(row): file.reasons[row] for row in bad}


def _opened(path: Paths, extractor: Any) -> list[Any]:
    """Open files that belong together, shards in their order."""
    paths = _matching(path) if isinstance(path, str | os.PathLike) else list(path)
    if not paths:
        raise ValueError("path is an empty list: name a file of features.")
    files = [_open(one) for one in paths]
    first = files[0]
    for file in files[1:]:
        names = ["features", "dtype", "n_features"]
        names += ["of_rows"] if file.about["shard"] else []
        if other := difference(file.about, first.about, names):
            message = f"{file.path} doesn't belong to {first.path}: its {other}."
            raise ValueError(message)
    if extractor is not None:
        given = {"features": extractor.describe_features()}
        if other := difference(first.about, given, given):
            name = type(extractor).__name__
            message = f"{first.path} holds other features than this {name} gives"
            raise ValueError(f"{message}: its {other}.")
    shards = [file.about["shard"] for file in files]
    if len(files) > 1 and any(shards):
        _check_shards(shards)
        files.sort(key=lambda file: file.about["shard"])
        _check_parts(files)
    return files


def _check_parts(files: list[Any]) -> None:
    """Raise where shards aren't those that any of them was written with."""
    known = [file.about.get("part_digests") for file in files]
    if None in known or [one[k] for k, one in enumerate(known)] in known:
        return
    raise ValueError(
        f"{files[0].path} to {files[-1].path} are parts of different images, labels "
        "or splits, as an ended run leaves them: write them again."
    )


def _check_shards(shards: list[Any]) -> None:
    if not all(shards):
        raise ValueError("Shards don't go together with a file that is none.")
    n = shards[0][1]
    numbers = sorted(k for k, _ in shards)
    missing = sorted({*range(1, n + 1)} - {*numbers})
    if missing or len(numbers) != n or any(other != n for _, other in shards):
        lacking = f"{', '.join(map(str, missing[:10]))} not there" if missing else ""
        raise ValueError(
            f"{len(shards)} shards of {n} are no whole: "
            f"{lacking or 'one is there twice, or of another number of shards'}."
        )


def _matching(path: str | os.PathLike) -> list[str | os.PathLike]:
    """Return what a path stands for: itself, or the files that a pattern matches."""
    text = os.path.expanduser(os.fspath(path))
    if not glob.has_magic(text) or os.path.exists(text):
        return [path]
    if is_url(path):
        system, pattern = file_system(text)
        found = [*map(system.unstrip_protocol, system.glob(pattern))]
    else:
        found = glob.glob(text)
    names = sorted(name for name in found if name.endswith(SUFFIXES))
    if not names:
        raise FileNotFoundError(f"No file of features matches {path}.")
    return names


def _open(path: str | os.PathLike) -> _File:
    if is_url(path):
        kind = _kind(path)
        if kind is _Npy:
            raise ValueError(
                f"{path} can't be mapped: copy it, with its .json, to this machine, or "
                "write .parquet, which is read behind URLs too."
            )
        return kind(path)
    name = Path(path).expanduser()
    if name.is_dir():
        raise IsADirectoryError(f"{name} is a folder, not a file of features.")
    kind = _kind(name)
    if not name.exists():
        raise FileNotFoundError(f"No such file: {name}.{_what_is_there(name)}")
    return kind(name)


def _kind(path: str | os.PathLike) -> Any:
    kinds = {".npy": _Npy, ".parquet": _Parquet}
    suffix = os.path.splitext(path)[1]
    if suffix not in kinds:
        raise ValueError(f"{path} must end in .npy or .parquet, as features do.")
    return kinds[suffix]


def _what_is_there(name: Path) -> str:
    """Say what there is in place of a file: its half, or its shards."""
    part = name.with_name(f"{name.name}.part")
    if part.exists():
        return f" {part.name} is half of it: go on by writing it again."
    stem = str(name.with_suffix(""))
    shards = glob.glob(f"{glob.escape(stem)}-*-of-*{name.suffix}")
    if not shards:
        return ""
    return f" Its shards are: {stem}-*-of-{shards[0].rpartition('-of-')[2]}."


def _taken(files: list, split: str | None) -> list[np.ndarray]:
    """Return which rows of each file are of a split."""
    if split is None:
        return [np.ones(len(file), bool) for file in files]
    splits = _joined(files, "split")
    known = [] if splits is None else np.unique(splits).tolist()
    if split not in known:
        raise ValueError(f"There is no split {split!r}. {did_you_mean(split, known)}")
    return [
        np.zeros(0, bool) if column is None else column == split
        for column in (file.columns["split"] for file in files)
    ]


def _joined(files: list, name: str) -> np.ndarray | None:
    """Return a column of all files; those without rows have none."""
    columns = [file.columns[name] for file in files if len(file)]
    there = [column for column in columns if column is not None]
    if len(there) < len(columns) and there:
        raise ValueError(f"Some of the files have a column {name!r}, others have none.")
    return np.concatenate(there) if there else None


def _copied(files: list, taken: list) -> np.ndarray:
    """Return some rows of the features of all files."""
    about = files[0].about
    shape = (sum(int(mask.sum()) for mask in taken), about["n_features"])
    data, end = np.empty(shape, about["dtype"]), 0
    for file, mask in zip(files, taken, strict=True):
        start = 0
        for block in file.blocks(_CHUNK):
            some = block[mask[start : start + len(block)]]
            data[end : end + len(some)] = some
            start, end = start + len(block), end + len(some)
    return data
