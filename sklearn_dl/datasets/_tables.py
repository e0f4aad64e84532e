"""Tables: of pandas, polars and pyarrow, and in files of any kind."""

import csv
import json
import lzma
import os
import re
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

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
BLANKS = r"\s+"
_SEPARATORS = "\t;|,"  # of two that fit, the comma may be in numbers
_LINES = 20  # that tell the separator
_TRY = "'cp1252' (Windows), 'utf-16', 'gb18030', 'shift_jis' or 'latin-1'"
_MARKS = {"\xff\xfe": "utf-16", "\xfe\xff": "utf-16", "\xef\xbb\xbf": "utf-8-sig"}
_PACKED = (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError)
NEEDS_EXTRA = (
    "Excel, Parquet, Feather and tables of polars need: "
    'pip install "sklearn_dl[tables]"'
)
# A class may be called None, NA or nan: only an empty cell is missing.
ONLY_EMPTY: dict[str, Any] = {"keep_default_na": False, "na_values": [""]}


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
        metadata = getattr(getattr(table, "schema", None), "metadata", None) or {}
        said = json.loads(metadata.get(b"huggingface", b"{}"))
        # Columns that Hugging Face's datasets mark as codes of classes get their names.
        for column, feature in said.get("info", {}).get("features", {}).items():
            names = feature.get("names") if isinstance(feature, dict) else None
            if names and feature.get("_type") == "ClassLabel" and column in frame:
                # -1, for no label, has no name and is missing
                frame[column] = frame[column].map(dict(enumerate(names)))
        return frame
    return None


def no_table(given: Any) -> TypeError:
    """Return the error for what is neither a table nor the path of one."""
    kind = type(given).__name__
    hint = f" A {kind} is one after .collect()." if hasattr(given, "collect") else ""
    if hasattr(given, "column_names"):
        hint = f" load_torch_dataset takes a {kind} of Hugging Face's datasets."
    return TypeError(f"A table is a path or a DataFrame, got {kind}.{hint}")


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


# -------------------------------------------------------------------------- text


class TextTable(NamedTuple):
    """A table in a text file, and how it is written."""

    path: str
    sep: str
    encoding: str
    skipped: int  # lines before the table
    lines: list[str]  # the first ones of the table

    @classmethod
    def of(
        cls, path: str, sep: str | None = None, encoding: str | None = None
    ) -> "TextTable":
        """Look at the first lines of a file, compressed or not."""
        with reading(path, "text", encoding):
            if encoding is None:
                # in Latin-1 every byte is a letter
                start = _first_lines(path, "latin-1", 1)[0]
                marks = (name for m, name in _MARKS.items() if start.startswith(m))
                encoding = next(marks, "utf-8")
            lines, skipped = _first_lines(path, encoding, _LINES), 0
            if "\0" in lines[0]:  # UTF-16 without a mark
                raise UnicodeError
        named = re.fullmatch(r'"?sep=(.)"?', lines[0])  # as Excel writes it
        if named:
            sep, lines, skipped = sep or named[1], lines[1:], 1
        if not lines:
            raise ValueError(f"{path!r} has no rows.")
        return cls(path, sep or _separator(lines), encoding, skipped, lines)

    def cells(self, row: int) -> list[str]:
        """Return the cells of one of the first lines."""
        return _cells(self.lines[row], self.sep)

    def parts(self, n_rows: int | None, **options: Any) -> Iterator[pd.DataFrame]:
        """Read the table in parts of so many rows, or as one."""
        if len(self.sep) > 1 and self.sep != BLANKS:
            options["engine"] = "python"
        elif n_rows is None:
            options["low_memory"] = False  # one type for all of a column
        with self._errors():
            reader = pd.read_csv(
                self.path,
                sep=self.sep,
                encoding=self.encoding,
                skiprows=self.skipped,
                index_col=False,
                # "a, b"; where none is, pandas is a third slower with it
                skipinitialspace=any(f"{self.sep} " in line for line in self.lines),
                iterator=True,
                **ONLY_EMPTY,
                **options,
            )
        # "1,2," has no third cell
        ends = all(line.endswith(self.sep) for line in self.lines)
        with reader:
            while True:
                with self._errors():
                    try:
                        part = reader.get_chunk(n_rows)
                    except StopIteration:
                        return
                    if ends and part.iloc[:, -1].notna().any():
                        raise ValueError("rows differ in length")
                yield part.iloc[:, :-1] if ends else part
                if n_rows is None:
                    return

    @contextmanager
    def _errors(self) -> Iterator[None]:
        with reading(self.path, "CSV", self.encoding), warnings.catch_warnings():
            # rows longer than the header would lose their end with a warning
            warnings.simplefilter("error", pd.errors.ParserWarning)
            warnings.simplefilter("ignore", pd.errors.DtypeWarning)
            try:
                yield
            except pd.errors.ParserError as error:
                text = f"rows differ in length with sep={self.sep!r}: {error}"
                raise ValueError(text) from error
            except pd.errors.ParserWarning as error:
                text = f"rows differ in length from the header with sep={self.sep!r}"
                raise ValueError(text) from error


@contextmanager
def reading(path: str, kind: str, encoding: str | None = None) -> Iterator[None]:
    """Name a file, and none of its bytes, in the errors of what reads it."""
    try:
        yield
    except UnicodeError:
        tried = "UTF-8" if encoding in (None, "utf-8", "utf-8-sig") else repr(encoding)
        text = f"{path!r} is no text in {tried}: give encoding=, such as {_TRY}."
        raise ValueError(text) from None
    except LookupError as error:
        if type(error) is not LookupError:
            raise
        text = f"encoding={encoding!r} is not known to Python; there is {_TRY}."
        raise ValueError(text) from None
    except ImportError as error:
        raise ImportError(f"{error}\n{NEEDS_EXTRA}") from error
    except ValueError as error:
        raise ValueError(f"{path!r} can't be read as {kind}: {error}") from error
    except (*_PACKED, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        text = f"{path!r} is damaged, or not what its suffix says."
        raise ValueError(text) from None


def _first_lines(path: str, encoding: str, n: int) -> list[str]:
    # a separator that occurs nowhere leaves pandas, which knows compression, the line
    try:
        lines = pd.read_csv(
            path,
            sep="\x1f",
            header=None,
            nrows=n,
            dtype=str,
            quoting=csv.QUOTE_NONE,
            encoding=encoding,
            keep_default_na=False,
        )
    except pd.errors.ParserError:  # which names numbers of cells
        raise ValueError("it is no table of text") from None
    return lines.iloc[:, 0].tolist()


def _separator(lines: list[str]) -> str:
    """Return what separates lines into cells, as many in each."""
    widths = {sep: _width(lines, sep) for sep in _SEPARATORS if sep in lines[0]}
    if any(widths.values()):
        return max(widths, key=lambda sep: widths[sep])
    if _width(lines, BLANKS):
        return BLANKS
    return max(widths, key=lines[0].count, default=",")


def _width(lines: list[str], sep: str) -> int:
    """Return how many cells a separator makes of each line, 0 if one or differing."""
    try:
        widths = {len(_cells(line, sep)) for line in lines}
    except csv.Error:  # a cell of more than 128 kB
        return 0
    return max(widths) if len(widths) == 1 and widths != {1} else 0


def _cells(line: str, sep: str) -> list[str]:
    if sep == BLANKS:
        line, sep = " ".join(line.split()), " "
    if len(sep) > 1:
        return re.split(sep, line)
    return next(csv.reader([line], delimiter=sep, skipinitialspace=True))
