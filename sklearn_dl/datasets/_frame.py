"""Loader of tables with a column of paths."""

import os
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from sklearn_dl._images import is_url
from sklearn_dl.datasets._common import (
    Verify,
    check_verify,
    class_names,
    did_you_mean,
    labels_array,
    object_column,
    readable,
    result,
)
from sklearn_dl.datasets._tables import read_table


def load_image_frame(
    df: pd.DataFrame | str | os.PathLike,
    *,
    path: Hashable = "path",
    target: Hashable | Sequence[Hashable] | None = "target",
    root: str | os.PathLike | None = None,
    verify: Verify = False,
    image_shape: Any = None,
    return_X_y: bool = False,
) -> Any:
    """Load the paths of images and their targets from a table.

    Parameters
    ----------
    df : DataFrame or path
        The table, or a CSV (compressed or not), Excel or Parquet file of it.
    path : str, default="path"
        Name of the column of paths.
    target : str, list of str or None, default="target"
        Name of the column of targets. A list of several gives a two-dimensional
        target, for regression; None gives no target.
    root : str or Path, default=None
        Folder that relative paths start from; the working directory by default.
    verify : {False, "raise", "skip"}, default=False
        Whether to decode every file once. "raise" (or True) raises an error that
        names all files that fail, "skip" leaves them out and lists them in `skipped`.
    image_shape : Channels or None, default=None
        As the estimators have it, for `verify`: ``Channels(13)`` decodes files of 13
        bands.
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of the bunch.

    Returns
    -------
    bunch : :class:`~sklearn.utils.Bunch`
        ``data``, an (n, 1) object array of paths; ``target``, (n,) or (n, k), or None;
        ``target_names``, the sorted classes of one column of labels, otherwise
        the names of the target columns; ``filenames``, the (n,) paths; ``frame``, the
        table; ``skipped``, a DataFrame (row, path, reason) of files left out.

    Raises
    ------
    ValueError
        If a column is missing, or a path or target in some row.
    ImageDecodeError
        If ``verify="raise"`` and files cannot be decoded.

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
    frame = df if isinstance(df, pd.DataFrame) else read_table(df)
    if len(frame) == 0:
        raise ValueError("The table has no rows.")
    files = _files(_column(frame, path), path, root)
    y, names = _target(frame, target)
    keep, bad = readable(files, verify, image_shape)
    kept = np.array(files, dtype=object)[keep]
    bunch = Bunch(
        data=object_column(kept),
        target=None if y is None else y[keep],
        target_names=names,
        filenames=kept.astype(str),
        frame=frame if keep.all() else frame[keep],
        skipped=bad,
    )
    return result(bunch, return_X_y)


def _column(frame: pd.DataFrame, name: Hashable) -> pd.Series:
    count = sum(column == name for column in frame.columns)
    if count == 0:
        raise ValueError(
            f"The table has no column {name!r}. {did_you_mean(name, frame.columns)}"
        )
    if count > 1:
        raise ValueError(f"The table has {count} columns named {name!r}.")
    return frame[name]


def _files(
    column: pd.Series, name: Hashable, root: str | os.PathLike | None
) -> list[str]:
    folder = "" if root is None else os.path.expanduser(os.fspath(root))
    missing = column.isna().to_numpy()
    files = []
    for row, value in enumerate(column):
        if missing[row]:
            raise ValueError(f"Missing path in column {name!r}, row {row}.")
        if not isinstance(value, str | os.PathLike):
            raise TypeError(
                f"Column {name!r} is to hold paths, row {row} is {value!r} "
                f"({type(value).__name__})."
            )
        if is_url(value):
            files.append(str(value))
            continue
        # join leaves an absolute path as it is
        files.append(os.path.join(folder, os.path.expanduser(os.fspath(value))))
    return files


def _target(
    frame: pd.DataFrame, target: Any
) -> tuple[np.ndarray | None, np.ndarray | list | None]:
    if target is None:
        return None, None
    names = target if isinstance(target, list) else [target]
    if not names:
        raise ValueError("target is an empty list: name a column, or None for none.")
    columns = [labels_array(_column(frame, n), f"column {n!r}") for n in names]
    if isinstance(target, list):
        return np.column_stack(columns), list(target)
    known = None if columns[0].dtype.kind in "iuf" else class_names(columns[0])
    return columns[0], names if known is None else known
