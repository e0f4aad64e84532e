"""Loader of sheets with one row of pixels per image."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from sklearn_dl._images import check_image_shape, row_shape
from sklearn_dl.datasets._common import class_names, did_you_mean, labels_array, result
from sklearn_dl.datasets._tables import (
    BLANKS,
    TextTable,
    as_frame,
    existing,
    kind_of,
    no_table,
    read_excel_raw,
    read_parquet_parts,
    read_table,
)

_PART_VALUES = 1 << 21  # values parsed together: 16 MB as pandas' int64


def load_image_csv(
    images: Any,
    labels: Any = None,
    *,
    image_shape: tuple[int, ...] | None = None,
    header: int | str | None = "infer",
    sep: str | None = None,
    encoding: str | None = None,
    return_X_y: bool = False,
) -> Any:
    """Load images from a sheet that has one row of pixels, 0-255, for each.

    The sheet is read in parts, each turned into uint8 at once: memory stays near
    one byte a pixel, however large the file.

    Parameters
    ----------
    images : path or table
        A file as :func:`load_image_frame` takes it, or a table of pandas, polars or
        pyarrow.
    labels : str, int, path, array, Series or table, default=None
        The name or position of a column of `images`, or else a sheet of one column,
        or the labels themselves. A sheet of labels with one row more than there are
        images has a header. In a file only an empty cell is missing: a class may be
        called None or NA.
    image_shape : (H, W) or (H, W, C), default=None
        What a row is, channels last. By default a square, grey or RGB, if it is one.
    header : {"infer", 0, None}, default="infer"
        Row of the file that names the columns, None if there is none. By default it is
        the first if a cell of it is no number while one below is, or if it counts
        0, 1, 2, ... or 1, 2, 3, ... (True and False are 0 and None.)
    sep, encoding : str, default=None
        What separates the cells of a text file, and how it is encoded, as in
        :func:`load_image_frame`.
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of the bunch.

    Returns
    -------
    bunch : :class:`~sklearn.utils.Bunch`
        ``data``, (n, H*W*C) uint8; ``target``, (n,) or None; ``target_names``, the
        sorted classes or None; ``image_shape``, for the estimators' parameter of that
        name, or None if it is not given and a row is no square.

    Raises
    ------
    ValueError
        If a value is no whole number in 0-255, rows differ in length, or labels and
        images in number.
    ImportError
        If Excel or Parquet needs ``pip install "sklearn_dl[tables]"``.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn_dl.datasets import load_image_csv
    >>> sheet = pd.DataFrame([[7, 0, 255, 0, 9], [2, 255, 0, 0, 0]])
    >>> sheet = sheet.set_axis(["label", "p1", "p2", "p3", "p4"], axis=1)
    >>> bunch = load_image_csv(sheet, "label")
    >>> bunch.data
    array([[  0, 255,   0,   9],
           [255,   0,   0,   0]], dtype=uint8)
    >>> bunch.target, bunch.image_shape
    (array([7, 2]), (2, 2))
    """
    if isinstance(header, bool):
        header = 0 if header else None
    if header not in ("infer", 0, None):
        raise ValueError(f"header must be 'infer', 0 or None, got {header!r}.")
    data, column = _read_pixels(_parts(images, header, sep, encoding), labels)
    target = None
    if column is not None:
        target = labels_array(column, "the column of labels")
    elif labels is not None:
        target = _outside_labels(labels, len(data), encoding)
    given = check_image_shape(image_shape)
    shape = row_shape(data.shape[1], given)
    if given is None and int(np.prod(shape)) == data.shape[1]:
        given = shape[:2] if shape[2] == 1 else shape
    names = None if target is None else class_names(target)
    bunch = Bunch(data=data, target=target, target_names=names, image_shape=given)
    return result(bunch, return_X_y)


# ------------------------------------------------------------------------- parts


def _parts(
    images: Any, header: int | str | None, sep: str | None, encoding: str | None
) -> Iterator[pd.DataFrame]:
    if (frame := as_frame(images)) is not None:
        return _frame_parts(frame)
    if not isinstance(images, str | os.PathLike):
        raise no_table(images)
    path = existing(images)
    kind = kind_of(path)
    if kind == "Parquet":
        return read_parquet_parts(path, _PART_VALUES)
    if kind == "Excel":
        return _frame_parts(_with_header(read_excel_raw(path), header))
    if kind == "CSV":
        return _csv_parts(TextTable.of(path, sep, encoding), header)
    return _frame_parts(read_table(path, encoding=encoding))


def _frame_parts(frame: pd.DataFrame) -> Iterator[pd.DataFrame]:
    step = max(1, _PART_VALUES // max(1, frame.shape[1]))
    for start in range(0, len(frame), step):
        yield frame.iloc[start : start + step]


def _with_header(sheet: pd.DataFrame, header: int | str | None) -> pd.DataFrame:
    rows = sheet.head(2).fillna("").astype(str).to_numpy().tolist()
    if header == "infer":
        header = 0 if _is_header(*rows) else None
    if header is None:
        return sheet
    sheet = sheet.iloc[1:].set_axis(rows[0], axis=1).reset_index(drop=True)
    return sheet.infer_objects()


def _csv_parts(text: TextTable, header: int | str | None) -> Iterator[pd.DataFrame]:
    rows = [text.cells(row) for row in range(min(2, len(text.lines)))]
    if header == "infer":
        header = 0 if _is_header(*rows) else None
    return text.parts(max(1, _PART_VALUES // len(rows[0])), header=header)


def _is_header(cells: list[str], below: Sequence[str] = ()) -> bool:
    """Tell whether the first row of a sheet names its columns."""
    numbers = pd.to_numeric(pd.Series(cells), errors="coerce")
    words = numbers.isna()
    if len(below):  # labels may be words in each row
        under = pd.to_numeric(pd.Series(below), errors="coerce")
        words &= under.reindex(numbers.index).notna()
    if words.any():
        return True
    if numbers.isna().any():
        return False
    counting = np.arange(len(cells))
    # the column names of a plain DataFrame; no image is an exact ramp
    return len(cells) > 2 and any((numbers == counting + k).all() for k in (0, 1))


# ------------------------------------------------------------------------ pixels


def _read_pixels(
    parts: Iterator[pd.DataFrame], labels: Any
) -> tuple[np.ndarray, pd.Series | None]:
    """Return the pixels, and the column of labels if the sheet has one."""
    buffer = bytearray()  # grows in place: no second copy at the end
    column: list[pd.Series] = []
    name: Any = None
    start, width, columns = 0, 0, 0
    for part in parts:
        if start == 0:
            columns = part.shape[1]
            name = _label_column(part, labels)
        if name is not None:
            column.append(part[name])
            part = part.drop(columns=[name])
        if start == 0 and str(part.columns[:1].tolist()).startswith("['Unnamed: 0"):
            raise ValueError(
                "The first column has no name (a saved index? save with index=False, "
                "or pass pandas.read_csv(path, index_col=0))."
            )
        block = _to_uint8(part, start)
        start, width = start + len(block), block.shape[1]
        buffer += block.tobytes()
    if start == 0 or width == 0:
        raise ValueError(
            f"The sheet holds {start} images of {width} pixels ({columns} columns)."
        )
    data = np.frombuffer(buffer, dtype=np.uint8).reshape(start, width)
    return data, pd.concat(column, ignore_index=True) if column else None


def _label_column(part: pd.DataFrame, labels: Any) -> Any:
    """Return the name of the column of labels in the sheet, or None."""
    if isinstance(labels, int | np.integer):
        if not -part.shape[1] <= labels < part.shape[1]:
            raise ValueError(
                f"labels={labels}, but the sheet has {part.shape[1]} columns."
            )
        labels = part.columns.tolist()[labels]
    elif not isinstance(labels, str):
        return None
    count = sum(column == labels for column in part.columns)
    if count > 1:
        raise ValueError(f"The sheet has {count} columns named {labels!r}.")
    if count:
        return labels
    if not os.path.exists(os.path.expanduser(labels)):
        raise ValueError(
            f"labels={labels!r} is neither a column of the sheet nor a file. "
            f"{did_you_mean(labels, part.columns)}"
        )
    return None


def _to_uint8(part: pd.DataFrame, start: int) -> np.ndarray:
    values: Any = part.to_numpy()
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    if values.dtype.kind not in "biuf":
        values = part.apply(pd.to_numeric, errors="coerce").to_numpy(dtype=float)
    with np.errstate(invalid="ignore"):
        good = (values >= 0) & (values <= 255) & (values == np.floor(values))
    if not good.all():
        row, place = (int(k) for k in np.argwhere(~good)[0])
        name = part.columns.tolist()[place]
        found: Any = part.iloc[row, place]
        plain = found.item() if isinstance(found, np.generic) else found
        said = "an empty cell" if pd.isna(found) else repr(plain)[:80]
        raise ValueError(
            f"Pixels are whole numbers in 0-255; row {start + row}, "
            f"column {repr(name)[:80]} holds {said}."
        )
    return values.astype(np.uint8)


# ------------------------------------------------------------------------ labels


def _outside_labels(labels: Any, n_images: int, encoding: str | None) -> np.ndarray:
    if isinstance(labels, str | os.PathLike):
        sheet = _label_sheet(existing(labels), n_images, encoding)
    else:
        found = as_frame(labels)
        sheet = pd.DataFrame(labels) if found is None else found
    if sheet.shape[1] != 1:
        raise ValueError(f"labels has {sheet.shape[1]} columns; one is expected.")
    if len(sheet) != n_images:
        raise ValueError(f"labels has {len(sheet)} rows, images has {n_images}.")
    return labels_array(sheet.iloc[:, 0], "labels")


def _label_sheet(path: str, n_images: int, encoding: str | None) -> pd.DataFrame:
    kind = kind_of(path)
    if kind == "Excel":
        sheet = read_excel_raw(path)
        if len(sheet) != n_images + 1:
            return sheet
        return sheet.iloc[1:].reset_index(drop=True).infer_objects()
    if kind != "CSV":
        return read_table(path, encoding=encoding)
    text = TextTable.of(path, None, encoding)
    if text.sep == BLANKS:  # labels of several words
        text = text._replace(sep=",")
    # an empty line is an empty cell
    options: dict[str, Any] = {"skip_blank_lines": False}
    sheet = next(text.parts(None, header=None, **options))
    if len(sheet) != n_images + 1:
        return sheet
    return next(text.parts(None, **options))
