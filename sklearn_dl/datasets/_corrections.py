"""Corrections of labels that were made in a report, applied to data."""

import copy
import csv
import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import Bunch, _safe_indexing, check_consistent_length

from sklearn_dl._images import as_source
from sklearn_dl.datasets._common import class_names, did_you_mean
from sklearn_dl.datasets._tables import existing

_COLUMNS = ["path", "old", "new", "action"]
_ACTIONS = ("keep", "relabel", "drop")
_DONE = {"relabel": "relabelled", "drop": "dropped", "keep": "kept"}


def apply_corrections(
    data: Any,
    corrections: str | os.PathLike | pd.DataFrame,
    *,
    path: str = "path",
    target: str = "target",
    return_table: bool = False,
) -> Any:
    """Relabel and drop images as a file of corrections says; no file is changed.

    The file is what the page of :func:`~sklearn_dl.inspection.write_report` downloads:
    a CSV with the columns ``path``, ``old`` (the label at that time), ``new`` and
    ``action`` ("keep", "relabel" or "drop"). An image is found by its path, relative or
    absolute; where images have none, the column holds their row.

    Parameters
    ----------
    data : Bunch, tuple (X, y) or DataFrame
        What a loader returned; images of any form with their targets; or a table of
        paths and targets. Where paths of a table start from another folder than the
        working directory, give what `load_image_frame` makes of it.
    corrections : path or DataFrame
        The file, with commas or semicolons; or the table of it.
    path, target : str, default="path" and "target"
        Columns of a DataFrame. Of the Bunch of `load_image_frame`, its ``frame`` gets
        the new targets in the column `target`, if it has one; several targets in
        their own columns.
    return_table : bool, default=False
        Return ``(data, table)``.

    Returns
    -------
    data : Bunch, tuple or DataFrame
        A corrected copy of the same form. Rows keep their order. Targets keep their
        type. A Bunch has the table as ``corrections``.
    table : DataFrame
        With ``return_table=True``: the rows of the file, and their ``outcome``:
        "relabelled", "dropped", "kept", "was so before", or why it no longer fits.

    Raises
    ------
    ValueError
        If the file isn't one of corrections, or has two actions for one image. It names
        the line.
    FileNotFoundError
        If there is no such file.

    Warns
    -----
    UserWarning
        Of rows that no longer fit: the path is not in the data, or the label is neither
        the old nor the new one; and of a new label that no image had before.

    See Also
    --------
    sklearn_dl.inspection.write_report : The page that the corrections come from.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn_dl.datasets import apply_corrections
    >>> data = pd.DataFrame({"path": ["1.jpg", "2.jpg"], "target": ["ant", "bee"]})
    >>> rows = [("1.jpg", "ant", "bee", "relabel"), ("2.jpg", "bee", "", "drop")]
    >>> marks = pd.DataFrame(rows, columns=["path", "old", "new", "action"])
    >>> apply_corrections(data, marks)
        path target
    0  1.jpg    bee
    """
    rows = _read(corrections)
    if isinstance(data, pd.DataFrame):
        found, table = _of_frame(data, rows, path, target)
    elif isinstance(data, Bunch):
        found, table = _of_bunch(data, rows, target)
    elif isinstance(data, tuple) and len(data) == 2:
        found, table = _of_pair(*data, rows)
    else:
        raise TypeError(
            "data must be a Bunch of a loader, a tuple (X, y) or a DataFrame, got "
            f"{type(data).__name__}."
        )
    return (found, table) if return_table else found


def _of_frame(data: pd.DataFrame, rows: list, path: str, target: str) -> tuple:
    for name in (path, target):
        if name not in data:
            hint = did_you_mean(name, data.columns)
            raise ValueError(f"The table has no column {name!r}. {hint}")
    files = [os.fspath(file) for file in data[path]]
    y, keep, table = _corrected(rows, files, data[target].to_numpy())
    found, dtype = data[keep].copy(), data[target].dtype
    if isinstance(dtype, pd.CategoricalDtype):
        known = dtype.categories
        new = [label for label in pd.unique(y[keep]) if label not in known]
        dtype = pd.CategoricalDtype([*known, *new], dtype.ordered)
    found[target] = pd.Series(y[keep], index=found.index).astype(dtype)
    return found, table


def _of_bunch(data: Bunch, rows: list, target: str) -> tuple:
    files = data.get("filenames")
    y, keep, table = _corrected(rows, files, data.target)
    found = copy.copy(data)
    found.data, found.target = _safe_indexing(data.data, keep), y[keep]
    if files is not None:
        found.filenames = files[keep]
    if isinstance(data.get("frame"), pd.DataFrame):
        found.frame = data.frame[keep].copy()
        columns = [target] if y.ndim == 1 else data.get("target_names", [])
        for column, new in zip(columns, np.atleast_2d(found.target.T), strict=False):
            if column in found.frame:
                found.frame[column] = new.tolist()
    names = class_names(found.target)
    if names is not None and data.get("target_names") is not None:
        found.target_names = np.sort(names)
    found.corrections = table
    return found, table


def _of_pair(X: Any, y: Any, rows: list) -> tuple:
    source = as_source(X)
    check_consistent_length(source, y)
    files = [source.path(row) for row in range(len(source))]
    y, keep, table = _corrected(rows, files, y)
    return (_safe_indexing(X, np.flatnonzero(keep)), y[keep]), table


def target_text(target: Any) -> str:
    """Return a target as it stands in a file of corrections: with semicolons."""
    values = np.asarray(target, dtype=object).ravel().tolist()
    return ";".join(_text(value, several=len(values) > 1) for value in values)


def _text(value: Any, several: bool) -> str:
    value = value.item() if isinstance(value, np.generic) else value
    # Indicators and whole numbers are the same in any type.
    if isinstance(value, bool) and several:
        value = int(value)
    elif isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    return str(value)


def _read(corrections: Any) -> list[dict[str, str]]:
    """Return the rows of corrections, each with where it stands."""
    numbered: Any
    if isinstance(corrections, pd.DataFrame):
        head, where = [str(name) for name in corrections], "row {}".format
        # Read by pandas, a column of whole numbers with gaps has floats.
        table = corrections.astype(object).where(corrections.notna(), "")
        numbered = enumerate([*map(target_text, row)] for row in table.to_numpy(object))
        name = "The table of corrections"
    else:
        file = existing(corrections)
        # Names that are no UTF-8 stay as they are.
        raw = Path(file).read_bytes().decode("utf-8-sig", "surrogateescape")
        sep = max(",;\t", key=raw.partition("\n")[0].count)
        reader = csv.reader(io.StringIO(raw, newline=""), delimiter=sep)
        head, where, name = next(reader, []), "line {}".format, repr(file)
        # A spreadsheet may have written empty rows.
        numbered = ((reader.line_num, row) for row in reader if any(row))
    if missing := [column for column in _COLUMNS if column not in head]:
        raise ValueError(
            f"{name} has no column {missing[0]!r}; corrections have {_COLUMNS}."
        )
    found = []
    for number, cells in numbered:
        if len(cells) != len(head):
            raise ValueError(
                f"{name} has {len(cells)} cells in {where(number)}, not {len(head)}."
            )
        row = dict(zip(head, cells, strict=True))
        if row["action"] not in _ACTIONS:
            raise ValueError(
                f"{name} has the action {row['action']!r} in {where(number)}; there "
                f"are {', '.join(_ACTIONS)}."
            )
        found.append({c: row[c] for c in _COLUMNS} | {"where": where(number)})
    return found


def _corrected(
    rows: list[dict[str, str]], files: Any, y: Any
) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """Return targets after corrections, a mask of the rows to keep, and the table."""
    if y is None:
        raise ValueError("The data have no targets, which corrections are of.")
    y = np.asarray(y)
    texts = [target_text(target) for target in y]
    places: dict[str, list[int]] = {}
    for position, file in enumerate([None] * len(y) if files is None else files):
        name = str(position) if file is None else _key(file)  # images without a path
        places.setdefault(name, []).append(position)
    new: list[Any] = [*y]
    keep = np.ones(len(y), dtype=bool)
    told: dict[tuple[str, str], dict[str, str]] = {}
    outcomes, labels = [], {*texts}
    for row in rows:
        name = row["path"] if row["path"] in places else _key(row["path"])
        before = told.setdefault((name, row["old"]), row)
        if (before["action"], before["new"]) != (row["action"], row["new"]):
            raise ValueError(
                f"The image {row['path']!r} has two corrections: {before['action']} in "
                f"{before['where']} and {row['action']} in {row['where']}."
            )
        at = places.get(name, [])
        fits = [position for position in at if texts[position] == row["old"]]
        outcome = _DONE[row["action"]]
        if not at:
            outcome = "not in the data"
        elif not fits:
            outcome = f"not done: its label is {texts[at[0]]!r}, no longer the old one"
            if row["action"] == "relabel" and texts[at[0]] == row["new"]:
                outcome = "was so before"
        elif row["action"] == "drop":
            keep[fits] = False
        elif row["action"] == "relabel":
            if not row["new"] and "" not in labels:
                raise ValueError(
                    f"The image {row['path']!r} has no new label in {row['where']}."
                )
            value = _like(row, y)
            for position in fits:
                new[position] = value
            if y.dtype.kind not in "fc" and y.ndim == 1 and row["new"] not in labels:
                outcome = "relabelled to a class that no image had"
        outcomes.append(outcome)
    if not keep.any():
        raise ValueError("The corrections drop every image.")
    table = pd.DataFrame(rows, columns=_COLUMNS, dtype=object)
    table["outcome"] = pd.Series(outcomes, dtype=object)
    _warn(table)
    changed = np.array(new, dtype=object if y.dtype.kind in "OUS" else y.dtype)
    return (changed.astype(str) if y.dtype.kind == "U" else changed), keep, table


def _key(path: str) -> str:
    """Return a path as it is compared: relative or absolute is the same."""
    return os.path.abspath(os.path.expanduser(path))


def _like(row: dict[str, str], y: np.ndarray) -> Any:
    """Return a new target in the type of the others."""
    text, kind = row["new"], y.dtype.kind
    if kind == "O":  # as the labels that are there
        known = {target_text(target): target for target in y}
        return known.get(text, text)
    if kind == "U":
        return text
    values = [*_numbers(row, y.dtype)]
    n = y.shape[1] if y.ndim > 1 else 1
    if len(values) != n:
        raise ValueError(
            f"The new target in {row['where']}, {text!r}, has {len(values)} values, "
            f"but those of the data have {n}."
        )
    return np.array(values, y.dtype) if y.ndim > 1 else y.dtype.type(values[0])


def _numbers(row: dict[str, str], dtype: np.dtype) -> Iterator[Any]:
    for part in row["new"].split(";"):
        if dtype.kind == "b" and part in ("True", "False"):
            yield part == "True"
            continue
        try:
            value = dtype.type(float(part) if dtype.kind == "f" else int(part))
            if not np.isfinite(value):
                raise ValueError(part)
        except (ValueError, OverflowError) as error:
            raise ValueError(
                f"The new target in {row['where']}, {part!r}, is no number as the "
                f"targets of the data are ({dtype})."
            ) from error
        yield value


def _warn(table: pd.DataFrame) -> None:
    """Warn of the corrections that don't fit."""
    fine = {*_DONE.values(), "was so before"}
    odd = table[~table["outcome"].isin(fine)]
    if not len(odd):
        return
    shown = [f"{r.path!r}: {r.outcome}" for r in odd.head(5).itertuples()]
    shown += [f"and {len(odd) - 5} more"] if len(odd) > 5 else []
    done = table["outcome"].str.split(n=1).str[0].value_counts()
    counts = ", ".join(f"{done.get(word, 0)} {word}" for word in _DONE.values())
    warnings.warn(
        f"Of {len(table)} corrections {counts}. Look at {'; '.join(shown)}.",
        UserWarning,
        stacklevel=5,
    )
