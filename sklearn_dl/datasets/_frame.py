"""Loader of tables with a column of paths or of images."""

import os
import re
import warnings
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from sklearn_dl._images import file_meant, is_url, unpack_cell
from sklearn_dl.datasets._common import (
    Verify,
    check_verify,
    class_names,
    did_you_mean,
    indicators,
    labels_array,
    object_column,
    readable,
    result,
    several_labels,
)
from sklearn_dl.datasets._tables import as_frame, no_table, read_table

_LOOKED_AT = 8  # rows whose files are looked for


def load_image_frame(
    df: Any,
    *,
    path: Hashable = "path",
    target: Hashable | Sequence[Hashable] | None = "target",
    root: str | os.PathLike | None = None,
    suffix: str = "",
    label_delim: str | None = None,
    header: int | None = 0,
    sep: str | None = None,
    encoding: str | None = None,
    decimal: str = ".",
    verify: Verify = False,
    image_shape: Any = None,
    return_X_y: bool = False,
) -> Any:
    """Load the images and targets that a table names.

    Parameters
    ----------
    df : table or path
        A table of pandas, polars or pyarrow, or a file of one: CSV or other separated
        text, JSON lines (.jsonl, .json), each compressed or not, Excel, Parquet or
        Feather.
    path : str or int, default="path"
        Column of the images, by name or position: paths, encoded bytes, or the
        ``{"bytes", "path"}`` of Hugging Face's datasets.
    target : str, int, list or None, default="target"
        Column of the targets. A list of several gives a two-dimensional target, for
        regression; None gives no target. Where cells are lists of labels, as in JSON
        or Parquet, the target is a matrix of 0 and 1.
    root : str or Path, default=None
        Folder that relative paths start from; the working directory by default.
    suffix : str, default=""
        What is added to each path that doesn't end so, such as ".jpg" for a column of
        ids.
    label_delim : str, default=None
        What separates the labels in a cell of `target`, where an image has several:
        the target is then a matrix of 0 and 1, of shape (n, n_labels).
    header : int or None, default=0
        Row of a text or Excel file that names the columns; None if there is none.
    sep : str, default=None
        What separates the cells of a text file, as pandas has it. By default the
        comma, semicolon, tab, ``|`` or blanks, whichever gives all of the first lines
        equally many cells; a first line such as ``sep=;`` is obeyed.
    encoding : str, default=None
        How a text file is encoded, such as "cp1252". By default UTF-8, or what a byte
        order mark says.
    decimal : str, default="."
        The decimal point of a text or Excel file.
    verify : {False, "raise", "skip"}, default=False
        Whether to decode every image once. "raise" (or True) raises an error that
        names all that fail, "skip" leaves them out and lists them in `skipped`.
    image_shape : Channels or None, default=None
        As the estimators have it, for `verify`: ``Channels(13)`` decodes files of 13
        bands.
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of the bunch.

    Returns
    -------
    bunch : :class:`~sklearn.utils.Bunch`
        ``data``, an (n, 1) object array of paths or bytes; ``target``, (n,) or (n, k),
        or None; ``target_names``, the sorted classes of one column of labels, otherwise
        the names of the target columns; ``filenames``, the (n,) paths, None where the
        images are bytes without names; ``frame``, the table; ``skipped``, a DataFrame
        (row, path, reason) of images left out.

    Raises
    ------
    ValueError
        If a column is missing, or a path or target in some row; if a file can't be
        read, which may be its encoding.
    ImageDecodeError
        If ``verify="raise"`` and images cannot be decoded.
    ImportError
        If a table needs ``pip install "sklearn_dl[tables]"``.

    Warns
    -----
    UserWarning
        If files are not there under their paths but under others that differ by a
        suffix, by its case, by leading zeros or by backslashes, or beside the table; or
        if targets look like numbers with decimal commas.

    Notes
    -----
    In a file only an empty cell is missing: a class may be called None, NA, null or
    nan. In a column that otherwise holds numbers these words stand for gaps.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn_dl.datasets import load_image_frame
    >>> df = pd.DataFrame({"file": ["1.jpg", "2.jpg"], "kind": ["ant", "bee"]})
    >>> X, y = load_image_frame(
    ...     df, path="file", target="kind", root="photos", return_X_y=True
    ... )
    >>> X.shape, y
    ((2, 1), array(['ant', 'bee'], dtype='<U3'))
    """
    check_verify(verify)
    if not (header is None or isinstance(header, int | np.integer)):
        raise ValueError(f"header must be the number of a row or None, got {header!r}.")
    frame = as_frame(df)
    if frame is None:
        if not isinstance(df, str | os.PathLike):
            raise no_table(df)
        how: dict[str, Any] = {"header": header, "sep": sep, "encoding": encoding}
        frame = read_table(df, as_text=path, decimal=decimal, **how)
    if len(frame) == 0:
        raise ValueError("The table has no rows.")
    folder = "" if root is None else os.path.expanduser(os.fspath(root))
    images, files = _images(_column(frame, path), path, folder, suffix)
    y, names = _target(frame, target, label_delim)
    if not verify:  # which says more
        beside = df if root is None and isinstance(df, str | os.PathLike) else ""
        _look_for_files(images, os.path.dirname(os.path.expanduser(beside)))
    keep, bad = readable(images, verify, image_shape)
    bunch = Bunch(
        data=object_column([i for i, kept in zip(images, keep, strict=True) if kept]),
        target=None if y is None else y[keep],
        target_names=names,
        filenames=None if files is None else files[keep],
        frame=frame if keep.all() else frame[keep],
        skipped=bad,
    )
    return result(bunch, return_X_y)


def _column(frame: pd.DataFrame, name: Hashable) -> pd.Series:
    """Return a column by its name, or by its position where none is called so."""
    columns = frame.columns.tolist()
    count = sum(column == name for column in columns)
    if count > 1:
        raise ValueError(f"The table has {count} columns named {name!r}.")
    if count:
        return frame[name]
    if isinstance(name, int | np.integer) and -len(columns) <= name < len(columns):
        return frame.iloc[:, int(name)]
    hint = did_you_mean(name, columns)
    image = re.compile(r"\.(jpe?g|png|tiff?|bmp|gif|webp)$", re.I)
    if any(image.search(str(column)) for column in columns):
        hint += " Without a header: header=None, and columns by position, path=0."
    elif not any(isinstance(column, str) for column in columns):
        hint += " Give positions, such as path=0, target=1."
    raise ValueError(f"The table has no column {name!r}. {hint}")


def _images(
    column: pd.Series, name: Hashable, folder: str, suffix: str
) -> tuple[list[str | bytes], np.ndarray | None]:
    """Return the images, and the files that they are or were."""
    cells = column.tolist()
    if set(map(type, cells)) == {str} and "" not in cells:
        paths = np.array([_located(cell, folder, suffix) for cell in cells])
        return paths.tolist(), paths
    missing = column.isna().to_numpy()
    images: list[str | bytes] = []
    files: list[str | None] = []
    for row, cell in enumerate(cells):
        image = unpack_cell(cell)
        file = None if image is cell else cell.get("path")
        if suffix and isinstance(image, int | np.integer):
            image = str(image)  # an id
        if image is None or missing[row] or image == "":
            raise ValueError(f"Missing path in column {name!r}, row {row}.")
        if isinstance(image, str | os.PathLike):
            file = image = _located(os.fspath(image), folder, suffix)
        elif isinstance(image, bytes | bytearray | memoryview):
            image = bytes(image)
        else:
            ids = isinstance(image, int | np.integer)
            raise TypeError(
                f"Column {name!r} is to hold paths, row {row} is "
                f"{repr(image)[:80]} ({type(image).__name__})."
                + (" Ids of files need a suffix, such as '.jpg'." if ids else "")
            )
        images.append(image)
        files.append(file)
    if None not in files:
        return images, np.array(files, dtype=str)
    return images, np.array(files, dtype=object) if any(files) else None


def _located(path: str, folder: str, suffix: str) -> str:
    if path.startswith("~"):
        path = os.path.expanduser(path)
    if folder and not is_url(path):  # join leaves an absolute path as it is
        path = os.path.join(folder, path)
    return path if path.lower().endswith(suffix.lower()) else path + suffix


def _look_for_files(images: Sequence[str | bytes], folder: str) -> None:
    """Warn of a file that is there under another name, or beside the table."""
    rows = np.linspace(0, len(images) - 1, min(_LOOKED_AT, len(images))).astype(int)
    for row, image in ((row, images[row]) for row in rows):
        there = not isinstance(image, str) or is_url(image) or os.path.exists(image)
        if not there:
            meant = file_meant(image)
            if os.path.exists(beside := os.path.join(folder, image)):
                meant = f"{beside!r} is there: give root={folder!r}"
            if meant:
                text = f"No such file: {image!r} (row {row}), but {meant}."
                warnings.warn(text, UserWarning, stacklevel=3)
                return


def _target(
    frame: pd.DataFrame, target: Any, label_delim: str | None
) -> tuple[np.ndarray | None, np.ndarray | list | None]:
    if isinstance(target, pd.Index | np.ndarray) or (
        isinstance(target, tuple) and target not in frame.columns.tolist()
    ):
        target = list(target)
    if label_delim is not None:
        if not label_delim:
            raise ValueError("label_delim is empty: give what separates labels.")
        if target is None or isinstance(target, list):
            raise ValueError(
                f"label_delim={label_delim!r} is for one column of labels, "
                f"target is {target!r}."
            )
        return _indicators(_column(frame, target), target, label_delim)
    if target is None:
        return None, None
    names = target if isinstance(target, list) else [target]
    if not names:
        raise ValueError("target is an empty list: name a column, or None for none.")
    found = [_column(frame, name) for name in names]
    if len(found) == 1 and (several := several_labels(found[0].tolist())):
        return several
    columns = [
        labels_array(c, f"column {n!r}") for c, n in zip(found, names, strict=True)
    ]
    for name, column in zip(names, columns, strict=True):
        _warn_about_commas(column, name)
    known = [column.name for column in found]
    if isinstance(target, list):
        return np.column_stack(columns), known
    classes = None if columns[0].dtype.kind in "iuf" else class_names(columns[0])
    return columns[0], known if classes is None else classes


def _indicators(
    column: pd.Series, name: Hashable, label_delim: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return a column for each label, 1 where an image has it."""
    if several := several_labels(column.tolist()):
        return several
    none = "where '' stands for no label, as .fillna('') writes it"
    texts = labels_array(column, f"column {name!r} ({none})")
    rows = [[k.strip() for k in str(t).split(label_delim)] for t in texts]
    return indicators([[label for label in row if label] for row in rows])


def _warn_about_commas(column: np.ndarray, name: Hashable) -> None:
    comma = re.compile(r"\s*[-+]?\d+,\d+\s*")
    if column.dtype.kind == "U" and all(map(comma.fullmatch, column)):
        warnings.warn(
            f"Column {name!r} holds texts such as {str(column[0])!r}: if they are "
            "numbers, give decimal=','.",
            UserWarning,
            stacklevel=4,
        )
