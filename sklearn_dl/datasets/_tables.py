"""Tables in files: CSV, Excel, Parquet."""

import csv
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

_COMPRESSED = frozenset([".gz", ".bz2", ".zip", ".xz", ".zst", ".tar"])
_EXCEL = frozenset([".xlsx", ".xlsm", ".xls", ".xlsb", ".ods"])
_PARQUET = frozenset([".parquet", ".pq"])


def kind_of(path: str) -> str:
    """Return "excel", "parquet" or "csv", by the suffix."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    while suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    last = suffixes[-1] if suffixes else ""
    return "excel" if last in _EXCEL else "parquet" if last in _PARQUET else "csv"


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


def read_table(path: str | os.PathLike) -> pd.DataFrame:
    """Read a table that has a header."""
    name = existing(path)
    readers: dict[str, Any] = {"excel": pd.read_excel, "parquet": pd.read_parquet}
    if (kind := kind_of(name)) in readers:
        with _needs_extra():
            return readers[kind](name)
    return pd.read_csv(name, sep=separator(first_line(name)))


def read_excel_raw(path: str) -> pd.DataFrame:
    """Read a sheet with its header, if it has one, as the first row."""
    with _needs_extra():
        return pd.read_excel(path, header=None)


def read_parquet_parts(path: str, n_values: int) -> Iterator[pd.DataFrame]:
    """Read a Parquet file in parts of about `n_values` values."""
    with _needs_extra():
        from pyarrow import parquet
    with parquet.ParquetFile(path) as file:
        rows = max(1, n_values // max(1, len(file.schema_arrow)))
        for part in file.iter_batches(batch_size=rows):
            yield part.to_pandas()


@contextmanager
def _needs_extra() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise ImportError(
            f'{error}\nExcel and Parquet files need: pip install "sklearn_dl[tables]"'
        ) from error


def first_line(path: str) -> str:
    """Return the first line of a text file, compressed or not."""
    # a separator that occurs nowhere leaves pandas, which knows compression, the line
    line = pd.read_csv(
        path, sep="\x1f", header=None, nrows=1, dtype=str, quoting=csv.QUOTE_NONE
    )
    return str(line.iloc[0, 0])


def separator(line: str) -> str:
    """Return the separator of a line of text: comma, semicolon or tab."""
    return max(",;\t", key=line.count)
