"""Parts that the loaders share: columns, labels, checks of files."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd
from sklearn.preprocessing import MultiLabelBinarizer
from sklearn.utils import Bunch

from sklearn_dl._images import ImageDecodeError, failed_images

Verify = bool | str
_LISTS = frozenset([list, tuple, set, np.ndarray])
_HOLD_OTHERS = _LISTS | {dict}


def object_column(values: Sequence[Any]) -> np.ndarray:
    """Return values as an (n, 1) object array, the X every meta-estimator takes."""
    column = np.empty((len(values), 1), dtype=object)
    for row, value in enumerate(values):  # one by one: numpy unpacks sequences
        column[row, 0] = value
    return column


def result(bunch: Bunch, return_X_y: bool) -> Any:
    """Return the bunch, or its data and target."""
    return (bunch.data, bunch.target) if return_X_y else bunch


def check_verify(verify: Verify) -> None:
    """Refuse an unknown value of `verify`."""
    if not (isinstance(verify, bool) or verify in ("raise", "skip")):
        raise ValueError(f"verify must be False, 'raise' or 'skip', got {verify!r}.")


def readable(
    paths: Sequence[str | bytes], verify: Verify, image_shape: Any = None
) -> tuple[np.ndarray, pd.DataFrame]:
    """Return a mask of the images to keep, and a table of those that are not."""
    keep = np.ones(len(paths), dtype=bool)
    if not verify or not len(paths):
        return keep, pd.DataFrame({"row": [], "path": [], "reason": []})
    failures = failed_images(list(paths), image_shape=image_shape)
    if failures and verify != "skip":
        raise ImageDecodeError(failures)
    # As objects: names that are no UTF-8 can't be pandas' own text.
    bad = pd.DataFrame(failures, columns=["row", "path", "reason"], dtype=object)
    keep[bad["row"].to_numpy(dtype=int)] = False
    if not keep.any():
        first = bad.iloc[0]
        place = f"row {first['row']}" if first["path"] is None else repr(first["path"])
        raise ValueError(
            f"None of the {len(paths)} images can be decoded; the first, {place}: "
            f"{first['reason']}."
        )
    return keep, bad


def did_you_mean(name: Any, known: Iterable[Any]) -> str:
    """Return the nearest names, or all, for the end of an error message."""
    known = list(known)
    names = [k for k in known if isinstance(k, str)]
    near = get_close_matches(str(name), names, n=3, cutoff=0.6)
    if near:
        return f"Did you mean {' or '.join(repr(k)[:80] for k in near)}?"
    shown = ", ".join(repr(k)[:80] for k in known[:10])
    shown += ", ..." if len(known) > 10 else ""
    return f"There is {shown}." if known else "There is none."


def labels_array(values: pd.Series, what: str) -> np.ndarray:
    """Return a column of labels as a plain numpy array, refusing missing values."""
    missing = np.flatnonzero(values.isna().to_numpy())
    if len(missing):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ValueError(f"Missing value in {what}, row {missing[0]}{more}.")
    types = pd.api.types
    for is_kind, dtype in (
        (types.is_bool_dtype, bool),
        (types.is_integer_dtype, np.int64),
        (types.is_float_dtype, np.float64),
    ):
        if is_kind(values.dtype):
            return values.to_numpy(dtype=dtype)
    array = np.asarray(values, dtype=object)
    if not _HOLD_OTHERS.isdisjoint(map(type, array)):
        try:
            rows = np.array(array.tolist())
        except ValueError:  # of different lengths
            rows = array
        if rows.dtype.kind not in "biuf":
            raise _no_target(array, what)
        return rows
    # numpy would turn a mixture such as ["a", 1] into strings without a word
    return np.array(array.tolist()) if len(set(map(type, array))) == 1 else array


def _no_target(array: np.ndarray, what: str) -> ValueError:
    row = next(k for k, v in enumerate(array) if type(v) in _HOLD_OTHERS)
    return ValueError(
        f"{what} holds a {type(array[row]).__name__} in row {row}: a target is a label "
        "or a number, a list of labels, or of equally many numbers."
    )


def several_labels(cells: Sequence[Any]) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the indicators of cells that are lists of labels, and their names."""
    if not all(type(cell) in _LISTS for cell in cells):
        return None
    lists = [list(cell) for cell in cells]
    labels = [label for row in lists for label in row]
    texts = all(isinstance(label, str) for label in labels)
    # Lists of equally many numbers are no labels.
    ragged = len(set(map(len, lists))) > 1
    codes = ragged and all(isinstance(label, int | np.integer) for label in labels)
    return indicators(lists) if labels and (texts or codes) else None


def indicators(
    rows: Iterable[Any], classes: Sequence[Any] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return a column for each label, 1 in the rows that have it, and their names."""
    binarizer = MultiLabelBinarizer(classes=classes)
    y = binarizer.fit_transform(rows)
    return y, np.array(binarizer.classes_.tolist())


def class_names(target: np.ndarray) -> np.ndarray | None:
    """Return the sorted classes of labels, or None for a continuous target."""
    if target.ndim != 1 or target.dtype.kind == "f":
        return None
    if target.dtype.kind != "O":
        return np.unique(target)
    try:
        return pd.unique(target)
    except TypeError:  # can't be hashed
        raise _no_target(target, "the target") from None
