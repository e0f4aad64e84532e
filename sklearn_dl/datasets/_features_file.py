"""A file of features: written block by block, continued after a kill, read back."""

import copy
import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any, BinaryIO

import numpy as np
import pandas as pd

from sklearn_dl._files import check_target, replacing, writing
from sklearn_dl._images import (
    ImageSource,
    file_system,
    is_url,
    send,
)

FORMAT = "sklearn_dl features"
VERSION = 1
SUFFIXES = (".npy", ".parquet")
_DTYPES = ("float16", "float32")
# What must be the same for a half-written file to be taken up.
_SAME = ("features", "dtype", "n_features", "shard", "rows", "of_rows", "images_digest")
# What else must be the same for a whole file to be kept.
KEPT = (*_SAME, "columns_digest")
# Rows that are worked on together where a whole file is gone through.
_CHUNK = 4096
# Shards begin at multiples of these rows: batches are those of one run.
_SHARD_ROWS = 32
# Seconds of work that a kill costs at most, a batch aside.
_COMMIT_SECONDS = 5.0
KEY = b"sklearn_dl"  # of the metadata in a Parquet file
COLUMNS = ("path", "label", "split")


def shard_rows(n_rows: int, shard: tuple[int, int] | None) -> range:
    """Return the rows of the k-th of n shards of a table."""
    if shard is None:
        return range(n_rows)
    k, n = shard
    units = -(-n_rows // _SHARD_ROWS)
    start, stop = (units * part // n * _SHARD_ROWS for part in (k - 1, k))
    return range(start, min(stop, n_rows))


def check_shard(shard: Any) -> tuple[int, int] | None:
    """Return a shard as (k, n) with 1 <= k <= n; it may be a text such as "3/16"."""
    if shard is None:
        return None
    parts = shard.split("/") if isinstance(shard, str) else shard
    try:
        k, n = (int(part) for part in parts)
    except (TypeError, ValueError):
        k, n = 0, 0
    if not 1 <= k <= n:
        raise ValueError(
            f"shard={shard!r} must be k/n with 1 <= k <= n, such as '3/16' or (3, 16): "
            "the third of 16 parts."
        )
    return k, n


def check_features_dtype(dtype: Any) -> str:
    """Return the name of the type that features are written in."""
    with suppress(TypeError):
        if (name := np.dtype(dtype).name) in _DTYPES:
            return name
    raise ValueError(f"dtype={dtype!r} must be float32 or float16.")


def check_count(name: str, value: Any) -> int:
    """Return a number of rows or shards, which is 1 or more."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < 1:
        raise ValueError(f"{name}={value!r} must be an int, 1 or more.")
    return int(value)


def check_features_path(path: str | os.PathLike) -> str:
    """Return where features will be written, of a form that is known: file or URL."""
    target = str(path) if is_url(path) else str(check_target(path))
    if not target.endswith(SUFFIXES):
        raise ValueError(f"{path} must end in .npy or .parquet, the forms of features.")
    if target.endswith(".parquet"):
        import_pyarrow()
    if is_url(path):
        file_system(target)  # without its driver nothing would come of it
    return target


def shard_path(path: str, k: int, n: int) -> str:
    """Return the file of the k-th of n shards of a file: photos-03-of-16.npy."""
    stem, dot, suffix = path.rpartition(".")
    return f"{stem}-{k:0{len(str(n))}}-of-{n}{dot}{suffix}"


def beside(path: Path) -> Path:
    """Return the JSON that belongs to a file of features."""
    return path.with_name(f"{path.name}.json")


def send_features(path: str, url: str) -> None:
    """Put a file of features behind a URL; its JSON is there when it is."""
    known = beside(Path(path))
    if known.exists():
        system, name = file_system(f"{url}.json")
        with suppress(FileNotFoundError):
            system.rm_file(name)
    send(path, url)
    if known.exists():
        send(known, f"{url}.json")


class FeaturesTable:
    """What is known of the images beside their features.

    Parameters
    ----------
    source : ImageSource
    y : array-like of shape (n_images,) or (n_images, n_targets), or None
        Labels or targets: text, booleans or numbers.
    split : array-like of str of shape (n_images,), or None
        Which part of the data each belongs to, such as "train".
    """

    first = 0  # number of the first row of `source`, in a part of a table

    def __init__(self, source: ImageSource, y: Any = None, split: Any = None):
        self.source = source
        # PIL images that were opened from files have some.
        self._has_paths = all(source.path(k) is not None for k in range(len(source)))
        self._arrays = {
            "label": _checked("y", y, len(source), "Ubiuf", (1, 2)),
            "split": _checked("split", split, len(source), "U", (1,)),
        }

    def part(self, rows: range) -> "FeaturesTable":
        """Return a table that holds some rows alone, under their numbers of here."""
        part = copy.copy(self)
        part.source = self.source.take(rows)
        part.first = rows.start
        part._arrays = {
            name: None if array is None else array[rows.start : rows.stop]
            for name, array in self._arrays.items()
        }
        return part

    def column(self, name: str, rows: range) -> list | None:
        """Return "path", "label" or "split" of some rows; None if there is none."""
        if not self.has(name):
            return None
        start, stop = rows.start - self.first, rows.stop - self.first
        if name == "path":
            return list(map(self.source.path, range(start, stop)))
        return self._arrays[name][start:stop].tolist()

    def has(self, name: str) -> bool:
        """Tell whether there is such a column."""
        if name == "path":
            return len(self.source) > 0 and self._has_paths
        return self._arrays[name] is not None

    @property
    def knows_images(self) -> bool:
        """Whether other images have another digest: a dataset's may have none."""
        return self.has("path") or not self.source.digest_reads

    def digest(self, rows: range) -> str:
        """Return a digest of the paths of some rows, or of a sample of their images."""
        digest = hashlib.sha256()
        if self.has("path"):
            _digest_texts(digest, self.column("path", rows) or ())
        elif rows:  # a part without rows doesn't know whether it has paths
            own = range(rows.start - self.first, rows.stop - self.first)
            digest.update(self.source.names_digest(own))
        return digest.hexdigest()

    def columns_digest(self, rows: range) -> str:
        """Return a digest of what is known of some rows beside their paths."""
        digest = hashlib.sha256()
        for name in ("label", "split"):
            values = self.column(name, rows)
            _digest_texts(digest, [name] if values is None else map(repr, values))
        return digest.hexdigest()

    def part_digests(self, n: int) -> list[str]:
        """Return a digest of the rows of each of n shards, by which they join."""
        digests = []
        for k in range(1, n + 1):
            rows = shard_rows(len(self.source), (k, n))
            digest = hashlib.sha256(self.columns_digest(rows).encode())
            digest.update(self.source.names_digest(rows))
            digests.append(digest.hexdigest()[:16])
        return digests


def _digest_texts(digest: Any, texts: Iterable[str]) -> None:
    for text in texts:
        digest.update(text.encode("utf-8", "surrogateescape") + b"\n")


def _checked(name: str, values: Any, n_rows: int, kinds: str, axes: tuple) -> Any:
    """Return a column as an array of numbers or text, one value for each row."""
    if values is None:
        return None
    column = np.asarray(values)
    missing: Any = False
    if column.dtype.kind in "OUf":  # in text NaN has become "nan"
        given = column if column.dtype.kind == "f" else np.asarray(values, object)
        missing = pd.isna(given)
    if column.dtype == object and len(set(map(type, column.ravel()))) == 1:
        column = np.array(column.tolist())
    if column.ndim not in axes or len(column) != n_rows:
        reason = f"has the shape {column.shape}, X has {n_rows} rows"
    elif column.dtype.kind == "u" and column.max(initial=0) > np.iinfo(int).max:
        reason = f"has the label {column.max()}: text holds what 64 bits don't"
    elif np.any(missing):
        reason = f"has no value in row {np.argwhere(missing)[0][0]}"
    elif column.dtype.kind not in kinds:
        reason = (
            f"of dtype {column.dtype} has no {'text' if kinds == 'U' else 'labels'}"
        )
    else:
        return column
    raise ValueError(f"{name} {reason}.")


def described(table: FeaturesTable, rows: range, about: dict) -> dict[str, Any]:
    """Return all that a file of some rows says of itself, and is told from others by.

    `about` is as in `FeaturesWriter`.
    """
    found = {"format": FORMAT, "version": VERSION, **about, "rows": len(rows)}
    found["images_digest"] = table.digest(rows)
    found["columns_digest"] = table.columns_digest(rows)
    return found


class TakenOver(OSError):
    """Another process has begun to write the same file, and goes on there."""


class FeaturesWriter:
    """Writes features to a file that appears when all of them are there.

    Until then they stand in ``NAME.part``, which has its final size from the start, and
    what is done in ``NAME.part.json``. A writer of the same features goes on there, and
    puts its mark there: one that finds another's mark, or that all is done, ends. So a
    worker of a cluster that was given up, but lives, does no harm.

    Parameters
    ----------
    path : Path
        As `check_features_path` gives it.
    table : FeaturesTable
        Of all rows, or of these at least.
    rows : range
        The rows to be written.
    about : dict
        ``features``, what they depend on; ``dtype``; ``n_features``; ``shard``;
        ``of_rows``, how many the table has; ``versions``.

    Raises
    ------
    ValueError
        If a half-written file of other features is in the way.
    OSError
        If the disk has no room, with the number ENOSPC.
    TakenOver
        If another process has begun to write the same file.
    """

    def __init__(
        self, path: Path, table: FeaturesTable, rows: range, about: dict[str, Any]
    ):
        self.path, self.table, self.rows = path, table, rows
        self.dtype = np.dtype(about["dtype"])
        self.shape = (len(rows), about["n_features"])
        self.done = 0  # rows that are written
        self.errors: dict[int, str] = {}  # by row of the table
        self._about = described(table, rows, about)
        self._mark: str | None = None  # once the file is this writer's
        self._part = path.with_name(f"{path.name}.part")
        self._state = beside(self._part)

    def __enter__(self) -> "FeaturesWriter":
        if not self._go_on():
            self._begin()
        self._file: BinaryIO = self._part.open("r+b")
        np.lib.format.read_magic(self._file)
        np.lib.format.read_array_header_1_0(self._file)
        self._file.seek(self.done * self._row_bytes, os.SEEK_CUR)
        self._write_state()
        self._committed = monotonic()
        return self

    def __exit__(self, *exc_info) -> None:
        if not self._file.closed:  # something ended it before
            with suppress(OSError):
                self._commit()
            with suppress(OSError):
                self._file.close()

    @property
    def _row_bytes(self) -> int:
        return self.shape[1] * self.dtype.itemsize

    def _begin(self) -> None:
        needed = self.shape[0] * self._row_bytes
        times = 2 if self.path.suffix == ".parquet" else 1  # it is made of the part
        free = shutil.disk_usage(self.path.parent).free
        if needed * times > free:
            gigabytes = (
                f"{needed * times / 1e9:.2f} GB are needed, {free / 1e9:.2f} free"
            )
            message = f"The disk is full: {gigabytes}"
            raise OSError(errno.ENOSPC, message, str(self.path))
        with writing(self.path):
            self._state.unlink(missing_ok=True)  # of another part
            with self._part.open("wb") as file:
                header = {"descr": self.dtype.str, "fortran_order": False}
                header |= {"shape": self.shape}
                np.lib.format.write_array_header_1_0(file, header)
                file.truncate(file.tell() + needed)

    def _go_on(self) -> bool:
        """Take up what a killed process left, if there is anything."""
        try:
            left = json.loads(self._state.read_bytes())
        except FileNotFoundError:
            return False
        except ValueError:
            left = None
        hint = f"Give another path, or delete it and {self._state.name}."
        if not isinstance(left, dict) or left.get("format") != FORMAT:
            raise ValueError(f"{self._state} is damaged or foreign. {hint}")
        other = difference(left, self._about, _SAME)
        if other is not None:
            what = f"is a half-written file of other features: {other}"
            raise ValueError(f"{self._part} {what}. {hint}")
        complete = left["done"] == len(self.rows) and not beside(self.path).exists()
        named = complete and self.path.suffix == ".npy" and self.path.exists()
        if named and not self._part.exists():
            os.replace(self.path, self._part)  # killed before the JSON had its name
        if not self._part.exists():
            return False
        self.done = left["done"]
        # What was found ahead of these rows is read again, and may be there by now.
        reasons = ((int(row), reason) for row, reason in left["errors"].items())
        end = self.rows.start + self.done
        self.errors = {row: reason for row, reason in reasons if row < end}
        return True

    def put(self, rows: np.ndarray, values: np.ndarray) -> None:
        """Write the features of rows of the table; what was left out before is NaN."""
        with np.errstate(over="ignore"):
            cast = values.astype(self.dtype, copy=False)
        if self.dtype.itemsize < values.itemsize:
            self._check_range(rows, values, cast)
        places = np.asarray(rows) - self.rows.start - self.done
        if len(places) <= places[-1]:
            block = np.full((places[-1] + 1, self.shape[1]), np.nan, self.dtype)
            block[places] = cast
            cast = block
        with writing(self.path):
            self._file.write(np.ascontiguousarray(cast).data)
            self.done += len(cast)
            if monotonic() - self._committed >= _COMMIT_SECONDS:
                self._commit()

    def _check_range(self, rows: np.ndarray, values: np.ndarray, cast: Any) -> None:
        beyond = np.isinf(cast) & np.isfinite(values)
        if not beyond.any():
            return
        k, column = np.argwhere(beyond)[0]
        row = int(rows[k])
        path = self.table.column("path", range(row, row + 1))
        where = f"Row {row}" + (f", {path[0]!r}," if path else "")
        raise ValueError(
            f"{where} has the feature {values[k, column]:g}; {self.dtype} ends at "
            f"{np.finfo(self.dtype).max:g}. dtype='float32' holds it."
        )

    def _commit(self) -> None:
        """Note what is done, once it is on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._write_state()
        self._committed = monotonic()

    def _write_state(self) -> None:
        if self._mark is None:
            self._mark = uuid.uuid4().hex
        else:
            self._check_mark()
        state = {**self._about, "done": self.done, "errors": self.errors}
        with replacing(self._state) as file:
            file.write(json.dumps({**state, "mark": self._mark}).encode())

    def _check_mark(self) -> None:
        """Raise where the file is no longer this writer's."""
        try:
            mark = json.loads(self._state.read_bytes()).get("mark")
        except FileNotFoundError:
            mark = None
        if mark != self._mark:
            why = "another process has begun to write it, or has finished it"
            raise TakenOver(errno.EBUSY, why, str(self.path))

    def finish(self) -> None:
        """Give the file its name, with what is known of the images."""
        with writing(self.path):
            for _ in range(self.done, len(self.rows)):  # the last can't be read
                self._file.write(np.full(self.shape[1], np.nan, self.dtype).data)
                self.done += 1
            self._commit()
            self._file.close()
            try:
                if self.path.suffix == ".parquet":
                    self._write_parquet()
                    self._part.unlink()
                else:
                    self._name_array()
                self._state.unlink()
            except FileNotFoundError:
                self._check_mark()
                raise

    def _name_array(self) -> None:
        """Give the array its name, and its JSON at once: one without isn't whole."""
        known = beside(self.path)
        with replacing(known) as file:
            self._write_json(file)
            file.flush()
            os.fsync(file.fileno())
            self._check_mark()
            known.unlink(missing_ok=True)  # of what stood there
            os.replace(self._part, self.path)

    def _write_json(self, file: BinaryIO) -> None:
        """Write what is known: a line for each fact, lists in parts."""
        first = self.rows.start
        errors = {row - first: reason for row, reason in self.errors.items()}
        facts = {**self._about, "errors": errors}
        lines = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in facts.items()]
        file.write(("{\n" + ",\n".join(lines)).encode())
        for name in COLUMNS:
            if not self.table.has(name):
                continue
            file.write(f",\n{json.dumps(name)}: [".encode())
            for rows in self._chunks():
                text = json.dumps(self.table.column(name, rows))[1:-1]
                file.write((text if rows.start == first else f", {text}").encode())
            file.write(b"]")
        file.write(b"\n}\n")

    def _chunks(self) -> Iterator[range]:
        first, stop = self.rows.start, self.rows.stop
        for start in range(first, stop, _CHUNK):
            yield range(start, min(start + _CHUNK, stop))

    def _write_parquet(self) -> None:
        pa, parquet = import_pyarrow()
        first = self.rows.start
        label = self.table.column("label", self.rows[:1])
        element = pa.field("element", pa.from_numpy_dtype(self.dtype), nullable=False)
        kinds = {
            "path": pa.string(),
            "label": pa.null() if not label else pa.array(_texts(label)).type,
            "split": pa.string(),
            "error": pa.string(),
            "features": pa.list_(element, self.shape[1]),
        }
        about = {KEY: json.dumps(self._about).encode()}
        schema = pa.schema(list(kinds.items()), metadata=about)
        # Features have few equal values, and hardly become smaller.
        plain: dict[str, Any] = {"compression": "none", "write_statistics": False}
        plain["use_dictionary"] = ["label", "split"]
        # Of nothing there is no map.
        mode: Any = "r" if len(self.rows) else None
        features = np.load(self._part, mmap_mode=mode)
        with (
            replacing(self.path) as file,
            parquet.ParquetWriter(file, schema, **plain) as writer,
        ):
            for rows in self._chunks():
                columns: dict[str, Any] = {
                    n: self.table.column(n, rows) for n in COLUMNS
                }
                columns["error"] = [self.errors.get(row) for row in rows]
                arrays = [
                    pa.array(_texts(values or [None] * len(rows)), kinds[name])
                    for name, values in columns.items()
                ]
                part = np.asarray(features[rows.start - first : rows.stop - first])
                flat = pa.array(part.reshape(-1))
                kind = kinds["features"]
                arrays.append(pa.FixedSizeListArray.from_arrays(flat, type=kind))
                writer.write_batch(pa.record_batch(arrays, schema=schema))
            self._check_mark()


def _texts(values: list) -> list:
    """Return values whose texts are Unicode: other bytes of names are spelled out."""
    return [
        v.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        if isinstance(v, str)
        else (_texts(v) if isinstance(v, list) else v)
        for v in values
    ]


def difference(found: dict, wanted: dict, names: Iterable[str]) -> str | None:
    """Say where two descriptions of features differ first; None where they agree."""
    wanted = json.loads(json.dumps(wanted))  # with lists for tuples
    for name in names:
        one, other = found.get(name), wanted.get(name)
        if one == other:
            continue
        if isinstance(one, dict) and isinstance(other, dict):
            return difference(one, other, {**one, **other})
        return f"{name} is {one!r}, not {other!r}"
    return None


def import_pyarrow() -> tuple[Any, Any]:
    """Return pyarrow and its reader of Parquet, or say what to install."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        message = 'Parquet files need: pip install "sklearn_dl[tables]"'
        raise ImportError(f"{error}\n{message}") from error
    return pyarrow, parquet
