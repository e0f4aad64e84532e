"""A file of features: written block by block, continued after a kill, read back."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any, BinaryIO

import numpy as np

from sklearn_dl._files import check_target, replacing, writing
from sklearn_dl._images import ImageDecodeError, ImageSource

FORMAT = "sklearn_dl features"
VERSION = 1
SUFFIXES = (".npy", ".parquet")
_DTYPES = ("float16", "float32")
# What must be the same for a half-written file to be taken up.
_SAME = ("features", "dtype", "n_features", "shard", "rows", "of_rows", "images_digest")
# Images whose content is looked at to tell them from others, where they have no path.
_SAMPLE = 16
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


def check_features_path(path: str | os.PathLike) -> Path:
    """Return where features will be written, of a form that is known."""
    target = check_target(path)
    if target.suffix not in SUFFIXES:
        raise ValueError(f"{path} must end in .npy or .parquet, the forms of features.")
    if target.suffix == ".parquet":
        import_pyarrow()
    return target


def beside(path: Path) -> Path:
    """Return the JSON that belongs to a file of features."""
    return path.with_name(f"{path.name}.json")


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

    def __init__(self, source: ImageSource, y: Any = None, split: Any = None):
        self._source = source
        self._arrays = {
            "label": _checked("y", y, len(source), "Ubiuf", (1, 2)),
            "split": _checked("split", split, len(source), "U", (1,)),
        }

    def column(self, name: str, rows: range) -> list | None:
        """Return "path", "label" or "split" of some rows; None if there is none."""
        if name == "path":
            has_paths = self._source.path(0) is not None
            return list(map(self._source.path, rows)) if has_paths else None
        array = self._arrays[name]
        return None if array is None else array[rows.start : rows.stop].tolist()

    def digest(self, rows: range) -> str:
        """Return a digest of the paths of some rows, or of a sample of their images."""
        digest, source = hashlib.sha256(), self._source
        names = self.column("path", rows)
        for name in names or ():
            digest.update(name.encode("utf-8", "surrogateescape") + b"\n")
        if names is None and rows and not source.digest_reads:
            sample = np.linspace(rows.start, rows.stop - 1, _SAMPLE).astype(int)
            for row in np.unique(sample):
                with suppress(ImageDecodeError):  # which is found again
                    digest.update(source.digests([row])[0])
        return digest.hexdigest()


def _checked(name: str, values: Any, n_rows: int, kinds: str, axes: tuple) -> Any:
    """Return a column as an array of numbers or text, one value for each row."""
    if values is None:
        return None
    column = np.asarray(values)
    if column.dtype == object and len(set(map(type, column.ravel()))) == 1:
        column = np.array(column.tolist())
    if column.ndim not in axes or len(column) != n_rows:
        reason = f"has the shape {column.shape}, X has {n_rows} rows"
    elif column.dtype.kind not in kinds:
        reason = (
            f"of dtype {column.dtype} has no {'text' if kinds == 'U' else 'labels'}"
        )
    elif column.dtype.kind == "f" and np.isnan(column).any():
        reason = f"has no value in row {np.argwhere(np.isnan(column))[0][0]}"
    else:
        return column
    raise ValueError(f"{name} {reason}.")


class FeaturesWriter:
    """Writes features to a file that appears when all of them are there.

    Until then they stand in ``NAME.part``, which has its final size from the start, and
    what is done in ``NAME.part.json``. A writer of the same features goes on there.

    Parameters
    ----------
    path : Path
        As `check_features_path` gives it.
    table : FeaturesTable
    rows : range
        The rows of the table to be written.
    about : dict
        ``features``, what they depend on; ``dtype``; ``n_features``; ``shard``;
        ``of_rows``, how many the table has; ``versions``.

    Raises
    ------
    ValueError
        If a half-written file of other features is in the way, or the dtype is unknown.
    OSError
        If the disk has no room, with the number ENOSPC.
    """

    def __init__(
        self, path: Path, table: FeaturesTable, rows: range, about: dict[str, Any]
    ):
        if about["dtype"] not in _DTYPES:
            raise ValueError(f"dtype={about['dtype']!r} must be float32 or float16.")
        self.path, self.table, self.rows = path, table, rows
        self.dtype = np.dtype(about["dtype"])
        self.shape = (len(rows), about["n_features"])
        self.done = 0  # rows that are written
        self.errors: dict[int, str] = {}  # by row of the table
        shape = {"rows": len(rows), "images_digest": table.digest(rows)}
        self._about = {"format": FORMAT, "version": VERSION, **about, **shape}
        self._part = path.with_name(f"{path.name}.part")
        self._state = beside(self._part)

    def __enter__(self) -> "FeaturesWriter":
        if not self._go_on():
            self._begin()
        self._file: BinaryIO = self._part.open("r+b")
        np.lib.format.read_magic(self._file)
        np.lib.format.read_array_header_1_0(self._file)
        self._file.seek(self.done * self._row_bytes, os.SEEK_CUR)
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
            with self._part.open("wb") as file:
                header = {"descr": self.dtype.str, "fortran_order": False}
                header |= {"shape": self.shape}
                np.lib.format.write_array_header_1_0(file, header)
                file.truncate(file.tell() + needed)
            self._write_state()

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
        if complete and self.path.exists() and not self._part.exists():
            os.replace(self.path, self._part)  # killed before the JSON had its name
        if not self._part.exists():
            return False
        self.done = left["done"]
        self.errors = {int(row): reason for row, reason in left["errors"].items()}
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
        with replacing(self._state) as file:
            state = {**self._about, "done": self.done, "errors": self.errors}
            file.write(json.dumps(state).encode())

    def finish(self) -> None:
        """Give the file its name, with what is known of the images."""
        with writing(self.path):
            for _ in range(self.done, len(self.rows)):  # the last can't be read
                self._file.write(np.full(self.shape[1], np.nan, self.dtype).data)
                self.done += 1
            if self.path.suffix == ".npy":
                self._commit()
            self._file.close()
            if self.path.suffix == ".parquet":  # made anew, so the part may be lost
                self._write_parquet()
                self._part.unlink()
            else:
                beside(self.path).unlink(missing_ok=True)  # of what stood there
                os.replace(self._part, self.path)
                with replacing(beside(self.path)) as file:
                    self._write_json(file)
            self._state.unlink()

    def _write_json(self, file: BinaryIO) -> None:
        """Write what is known: a line for each fact, lists in parts."""
        first = self.rows.start
        errors = {row - first: reason for row, reason in self.errors.items()}
        facts = {**self._about, "errors": errors}
        lines = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in facts.items()]
        file.write(("{\n" + ",\n".join(lines)).encode())
        for name in COLUMNS:
            if self.table.column(name, range(0)) is None:
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
        label = self.table.column("label", range(first, first + 1))
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


def _texts(values: list) -> list:
    """Return values whose texts are Unicode: other bytes of names are spelled out."""
    return [
        v.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        if isinstance(v, str)
        else v
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
