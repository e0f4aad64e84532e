"""Loader of sheets with one row of pixels per image."""

import csv
import os
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from sklearn_dl._images import check_image_shape, row_shape
from sklearn_dl.datasets._common import class_names, did_you_mean, labels_array, result
from sklearn_dl.datasets._tables import (
    existing,
    first_line,
    kind_of,
    read_excel_raw,
    read_parquet_parts,
    separator,
)

_PART_VALUES = 1 << 21  # values parsed together: 16 MB as pandas' int64


def load_image_csv(
    images: pd.DataFrame | str | os.PathLike,
    labels: Any = None,
    *,
    image_shape: tuple[int, ...] | None = None,
    header: bool | None = None,
    return_X_y: bool = False,
) -> Any:
    """Load images from a sheet that has one row of pixels, 0-255, for each.

    The sheet is read in parts, each turned into uint8 at once: memory stays near
    one byte a pixel, however large the file.

    Parameters
    ----------
    images : path or DataFrame
        CSV (separated by commas, semicolons or tabs; compressed or not), Excel or
        Parquet file.
    labels : str, int, path, array, Series or DataFrame, default=None
        The name or position of a column of `images`, or else a sheet of one column,
        or the labels themselves. A sheet of labels with one row more than there are
        images has a header.
    image_shape : (H, W) or (H, W, C), default=None
        What a row is, channels last. By default a square, grey or RGB, if it is one.
    header : bool, default=None
        Whether the first row of `images` names the columns. By default it does if a
        cell of it is no number, or if it counts 0, 1, 2, ... or 1, 2, 3, ...
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
    data, column = _read_pixels(_parts(images, header), labels)
    target = None
    if column is not None:
        target = labels_array(column, "the column of labels")
    elif labels is not None:
        target = _outside_labels(labels, len(data))
    given = check_image_shape(image_shape)
    shape = row_shape(data.shape[1], given)
    if given is None and int(np.prod(shape)) == data.shape[1]:
        given = shape[:2] if shape[2] == 1 else shape
    names = None if target is None else class_names(target)
    bunch = Bunch(data=data, target=target, target_names=names, image_shape=given)
    return result(bunch, return_X_y)


# ------------------------------------------------------------------------- parts


def _parts(images: Any, header: bool | None) -> Iterator[pd.DataFrame]:
    if isinstance(images, pd.DataFrame):
        return _frame_parts(images)
    if not isinstance(images, str | os.PathLike):
        raise TypeError(
            f"images is a path or a DataFrame, got {type(images).__name__}."
        )
    path = existing(images)
    kind = kind_of(path)
    if kind == "parquet":
        return read_parquet_parts(path, _PART_VALUES)
    if kind == "excel":
        return _frame_parts(_with_header(read_excel_raw(path), header))
    return _csv_parts(path, header)


def _frame_parts(frame: pd.DataFrame) -> Iterator[pd.DataFrame]:
    step = max(1, _PART_VALUES // max(1, frame.shape[1]))
    for start in range(0, len(frame), step):
        yield frame.iloc[start : start + step]


def _with_header(sheet: pd.DataFrame, header: bool | None) -> pd.DataFrame:
    first = ["" if pd.isna(cell) else str(cell) for cell in sheet.iloc[0]]
    if header or (header is None and _is_header(first)):
        sheet = sheet.iloc[1:].set_axis(first, axis=1).reset_index(drop=True)
        return sheet.infer_objects()
    return sheet


def _csv_parts(path: str, header: bool | None) -> Iterator[pd.DataFrame]:
    line = first_line(path)
    sep = separator(line)
    cells = next(csv.reader([line], delimiter=sep))
    if header is None:
        header = _is_header(cells)
    with pd.read_csv(
        path,
        sep=sep,
        header=0 if header else None,
        index_col=False,
        chunksize=max(1, _PART_VALUES // len(cells)),
    ) as reader:
        while True:
            try:
                with warnings.catch_warnings():
                    # rows longer than the header would lose their end with a warning
                    warnings.simplefilter("error", pd.errors.ParserWarning)
                    warnings.simplefilter("ignore", pd.errors.DtypeWarning)
                    part = next(reader, None)
            except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
                text = f"Rows of {path!r} differ in length: {error}"
                raise ValueError(text) from error
            if part is None:
                return
            yield part


def _is_header(cells: list[str]) -> bool:
    numbers = pd.to_numeric(pd.Series(cells), errors="coerce")
    if numbers.isna().any():
        return True
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
        name = part.columns[place]
        found: Any = part.iloc[row, place]
        plain = found.item() if isinstance(found, np.generic) else found
        said = "an empty cell" if pd.isna(found) else repr(plain)
        index = str(name).startswith("Unnamed")
        hint = " (a saved index? save with index=False)" if index else ""
        raise ValueError(
            f"Pixels are whole numbers in 0-255; row {start + row}, "
            f"column {name!r}{hint} holds {said}."
        )
    return values.astype(np.uint8)


# ------------------------------------------------------------------------ labels


def _outside_labels(labels: Any, n_images: int) -> np.ndarray:
    if isinstance(labels, str | os.PathLike):
        sheet = _label_sheet(existing(labels), n_images)
    else:
        sheet = pd.DataFrame(labels)
    if sheet.shape[1] != 1:
        raise ValueError(f"labels has {sheet.shape[1]} columns; one is expected.")
    if len(sheet) != n_images:
        raise ValueError(f"labels has {len(sheet)} rows, images has {n_images}.")
    return labels_array(sheet.iloc[:, 0], "labels")


def _label_sheet(path: str, n_images: int) -> pd.DataFrame:
    kind = kind_of(path)
    if kind == "parquet":
        return pd.concat(read_parquet_parts(path, _PART_VALUES), ignore_index=True)
    if kind == "excel":
        sheet = read_excel_raw(path)
    else:
        sep = separator(first_line(path))
        sheet = pd.read_csv(path, sep=sep, header=None, skip_blank_lines=False)
    if len(sheet) != n_images + 1:
        return sheet
    rest = sheet.iloc[1:].reset_index(drop=True)
    if kind == "excel":
        return rest.infer_objects()
    return pd.read_csv(path, sep=sep, skip_blank_lines=False)
