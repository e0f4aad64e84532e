"""Tables in text files: their encoding, their separator, their first lines."""

import csv
import lzma
import re
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pandas as pd

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
