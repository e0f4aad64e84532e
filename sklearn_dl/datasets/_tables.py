"""Tables: of pandas, polars and pyarrow, and in files of any kind."""

import json
import os
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sklearn_dl.datasets._text import NEEDS_EXTRA, ONLY_EMPTY, TextTable, reading

_COMPRESSED = frozenset([".gz", ".bz2", ".zip", ".xz", ".zst", ".tar"])
_KINDS = {
    **dict.fromkeys([".xlsx", ".xlsm", ".xls", ".xlsb", ".ods"], "Excel"),
    **dict.fromkeys([".parquet", ".pq"], "Parquet"),
    **dict.fromkeys([".feather", ".arrow"], "Feather"),
    **dict.fromkeys([".jsonl", ".ndjson"], "JSON lines"),
    ".json": "JSON",
}
# How gaps in a column of numbers are written, in small letters.
_GAPS = frozenset(["na", "n/a", "nan", "null", "none", "<na>", "#n/a"])


def kind_of(path: str) -> str:
    """Return "Excel", "Parquet", "Feather", "JSON lines", "JSON" or "CSV"."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    while suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    return _KINDS.get(suffixes[-1] if suffixes else "", "CSV")


def existing(path: str | os.PathLike) -> str:
    """Return the path of a file that is there."""
    name = os.path.expanduser(os.fspath(path))
    if not os.path.exists(name):
        raise FileNotFoundError(f"No such file: {name!r}.")
    if os.path.isdir(name):
        raise IsADirectoryError(f"{name!r} is a folder, not a table.")
    if os.path.getsize(name) == 0:
        raise ValueError(f"{name!r} is empty (0 bytes).")
    return name


# ------------------------------------------------------------------------- memory


def as_frame(table: Any) -> pd.DataFrame | None:
    """Return a table of pandas, polars or pyarrow as pandas', None for other things."""
    if isinstance(table, pd.DataFrame):
        return table
    if hasattr(table, "to_pandas") and hasattr(table, "columns"):
        try:
            frame = table.to_pandas()
        except ImportError as error:
            raise ImportError(f"{error}\n{NEEDS_EXTRA}") from error
        metadata = getattr(getattr(table, "schema", None), "metadata", None)
        return _with_class_names(frame, metadata or {})
    return None


def no_table(given: Any) -> TypeError:
    """Return the error for what is neither a table nor the path of one."""
    kind = type(given).__name__
    hint = f" A {kind} is one after .collect()." if hasattr(given, "collect") else ""
    if hasattr(given, "column_names"):
        hint = f" load_torch_dataset takes a {kind} of Hugging Face's datasets."
    return TypeError(f"A table is a path or a DataFrame, got {kind}.{hint}")


def _with_class_names(frame: pd.DataFrame, metadata: dict) -> pd.DataFrame:
    """Put names in columns that Hugging Face's datasets mark as codes of classes."""
    said = json.loads(metadata.get(b"huggingface", b"{}"))
    for column, feature in said.get("info", {}).get("features", {}).items():
        names = feature.get("names") if isinstance(feature, dict) else None
        if names and feature.get("_type") == "ClassLabel" and column in frame:
            # -1, for no label, has no name and is missing
            frame[column] = frame[column].map(dict(enumerate(names)))
    return frame


# -------------------------------------------------------------------------- files


def read_table(
    path: str | os.PathLike,
    *,
    as_text: Hashable = None,
    header: int | None = 0,
    sep: str | None = None,
    encoding: str | None = None,
    decimal: str = ".",
) -> pd.DataFrame:
    """Read a table from a file; the column `as_text` keeps its leading zeros."""
    name = existing(path)
    kind = kind_of(name)
    if kind in ("Parquet", "Feather"):
        return _read_arrow(name, kind)
    if kind.startswith("JSON"):
        return _read_json(name, kind, encoding)
    options: dict[str, Any] = {"header": header, "decimal": decimal}
    text = None if kind == "Excel" else TextTable.of(name, sep, encoding)

    def read(n_rows: int | None) -> pd.DataFrame:
        if text is not None:
            return next(text.parts(n_rows, **options), pd.DataFrame())
        with reading(name, kind):
            return pd.read_excel(name, nrows=n_rows, **ONLY_EMPTY, **options)

    if isinstance(as_text, int | np.integer):  # pandas takes types by name alone
        columns = read(1).columns
        if as_text not in columns and -len(columns) <= as_text < len(columns):
            as_text = columns[int(as_text)]
    options["dtype"] = {as_text: str}
    frame = read(None)
    for column in frame.columns:
        if column != as_text and _has_gaps(frame[column], decimal):
            frame[column] = _numbers(frame[column], decimal)
    return frame


def _has_gaps(column: pd.Series, decimal: str) -> bool:
    """Tell whether a column is of numbers, with words such as NA for gaps."""
    values = column.dropna()
    for value in values:
        if not isinstance(value, str):
            return False
        if value.lower() not in _GAPS:
            break
    else:
        return False
    if not _numbers(pd.Series([value]), decimal).notna().all():  # a class
        return False
    words = values.str.lower().isin(_GAPS)
    return bool(_numbers(values[~words], decimal).notna().all())


def _numbers(column: pd.Series, decimal: str) -> pd.Series:
    text = column.str.replace(decimal, ".", regex=False)
    return pd.to_numeric(text, errors="coerce")


def _read_json(name: str, kind: str, encoding: str | None) -> pd.DataFrame:
    encoding = TextTable.of(name, None, encoding).encoding
    options: dict[str, Any] = {"dtype": False, "encoding": encoding}
    with reading(name, "a list of rows, or a row on each line, in JSON", encoding):
        if kind == "JSON":
            try:
                return pd.read_json(name, **options)
            except ValueError as error:
                if "Trailing data" not in str(error):
                    raise
        return pd.read_json(name, lines=True, **options)


def _read_arrow(name: str, kind: str) -> pd.DataFrame:
    with reading(name, kind):
        from pyarrow import feather, ipc, parquet

        with open(name, "rb") as file:
            streamed = file.read(4) == b"\xff" * 4  # as in Hugging Face's cache
        if kind == "Parquet":
            table = parquet.read_table(name)
        elif streamed:
            with ipc.open_stream(name) as stream:
                table = stream.read_all()
        else:
            table = feather.read_table(name)
        frame = as_frame(table)
    assert frame is not None
    return frame


def read_excel_raw(path: str) -> pd.DataFrame:
    """Read a sheet with its header, if it has one, as the first row."""
    with reading(path, "Excel"):
        return pd.read_excel(path, header=None, **ONLY_EMPTY)


def read_parquet_parts(path: str, n_values: int) -> Iterator[pd.DataFrame]:
    """Read a Parquet file in parts of about `n_values` values."""
    with reading(path, "Parquet"):
        from pyarrow import parquet

        file = parquet.ParquetFile(path)
    with file:
        rows = max(1, n_values // max(1, len(file.schema_arrow)))
        for part in file.iter_batches(batch_size=rows):
            yield part.to_pandas()
