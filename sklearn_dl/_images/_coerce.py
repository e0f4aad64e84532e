"""Any X -> a source of images."""

import math
import numbers
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.utils import check_array

from sklearn_dl._images._arrays import (
    CHANNELS,
    as_numpy,
    channels_of,
    check_image_shape,
    check_kind,
    is_tensor,
    pixel_rule,
    read_axes,
    row_shape,
    value_range,
    warn_about_range,
)
from sklearn_dl._images._channels import Channels, Selection
from sklearn_dl._images._errors import cut_text
from sklearn_dl._images._source import (
    ArraySource,
    DatasetItem,
    ImageSource,
    ObjectSource,
    PathSource,
    StackedList,
    StoredArray,
    unpack_cell,
)


class Asked(NamedTuple):
    """What `image_shape` says of images: their shape, and their channels."""

    shape: tuple[int, ...] | None
    channels: Selection | None

    @classmethod
    def of(cls, image_shape: Any) -> "Asked":
        """Return what a shape or `Channels` say, checked."""
        if isinstance(image_shape, Channels):
            shape = check_image_shape(image_shape.shape)
            return cls(shape, Selection.of(image_shape))
        if image_shape is None:
            return cls(None, None)
        shape = check_image_shape(image_shape)
        if shape is None or len(shape) == 2 or shape[2] in CHANNELS:
            return cls(shape, None)
        return cls(shape, Selection(shape[2]))

    def row_shape(self, n_features: int) -> tuple[int, ...]:
        """Return the (H, W, C) that rows of pixels are read as."""
        shape, channels = self
        if channels is not None and (shape is None or len(shape) == 2):
            n = channels.stored
            if n is None:
                raise ValueError(
                    "Rows of pixels need to know how many channels there are: "
                    "Channels(positions, shape=(height, width, channels))."
                )
            side = math.isqrt(n_features // n)
            shape = (*(shape or (side, side)), n)
        return row_shape(n_features, shape)


_ACCEPTED = (
    "X may be an array or tensor of images, rows of pixels, or a list, array or Series "
    "of paths, PIL images, encoded bytes or arrays"
)
_PATH, _BYTES, _PIL, _ARRAY = "path", "byte string", "PIL image", "array"
_ITEM, _NUMBER, _MISSING = "dataset item", "number", "missing value"
_NESTED, _OTHER = "list", "other"
_IMAGES = {_PATH, _BYTES, _PIL, _ARRAY, _ITEM}


def as_source(X: Any, *, image_shape: Any = None) -> ImageSource:
    """Read any accepted X as a row-indexable source of images, decoded when asked for.

    docs/guide/images.md has the forms of X. The dtype alone says what numbers mean: see
    `as_pixels`. Images that have a shape of their own must agree with `image_shape`.
    """
    if isinstance(X, ImageSource):
        return X
    asked = Asked.of(image_shape)
    if isinstance(X, np.ndarray):
        return _from_array(X, asked)
    if isinstance(X, list | tuple):
        return _from_sequence(X, asked)
    if isinstance(X, pd.DataFrame):
        return _from_frame(X, asked)
    if hasattr(X, "tocsr"):
        check_array(X)  # raises scikit-learn's error for sparse data
    if is_tensor(X):
        return _from_numbers(as_numpy(X), asked, channels_first=True)
    if isinstance(X, str | os.PathLike):
        raise TypeError(f"X is one path: put it in a list, [{cut_text(str(X))}].")
    form = _form(X)
    if form in (_BYTES, _PIL, _ITEM):
        raise TypeError(f"X is one {form}: put it in a list, [X].")
    if (objects := _objects_of_polars(X)) is not None:
        names = getattr(X, "columns", ())
        return _from_objects(objects, asked, [f"X[[{name!r}]]" for name in names])
    if _is_stored(X):
        return _from_stored(X, asked)
    if hasattr(X, "__array__"):
        return _from_array(np.asarray(X), asked)
    if isinstance(X, Sequence):
        return _from_sequence(_listed(X), asked)
    hint = ""
    if isinstance(X, dict):
        hint = " Pass its `data`?" if "data" in X else ""
    elif hasattr(X, "dataset") and hasattr(X, "batch_sampler"):
        hint = " Of a DataLoader, load_torch_dataset(loader.dataset) gives X."
    elif hasattr(X, "__getitem__"):
        hint = " A dataset goes through sklearn_dl.datasets.load_torch_dataset."
    raise TypeError(f"{_ACCEPTED}; got {type(X).__name__}.{hint}")


def _objects_of_polars(X: Any) -> np.ndarray | None:
    """Return what has structs in polars as objects: numpy takes these apart."""
    polars = sys.modules.get("polars")
    if polars is None or not isinstance(X, polars.DataFrame | polars.Series):
        return None
    frame = X if isinstance(X, polars.DataFrame) else X.to_frame()
    if polars.Struct not in frame.dtypes:
        return None
    objects = np.empty(frame.shape, dtype=object)
    for k, column in enumerate(frame.iter_columns()):
        for row, value in enumerate(column.to_list()):  # which may be a list
            objects[row, k] = value
    return objects if frame is X else objects[:, 0]


def _listed(X: Sequence[Any]) -> list[Any]:
    """Return the items of a sequence; one that decodes images is read row by row."""
    try:
        in_memory = len(X) == 0 or not isinstance(X[0], Image.Image)
    except Exception:  # an image that can't be decoded is named when it is needed
        in_memory = False
    return list(X) if in_memory else [DatasetItem(X, row) for row in range(len(X))]


def _is_stored(X: Any) -> bool:
    """Tell an array that lies in a file, as those of h5py and zarr, from others."""
    return (
        isinstance(getattr(X, "dtype", None), np.dtype)
        and isinstance(getattr(X, "shape", None), tuple)
        and not hasattr(X, "__array_ufunc__")
        and not hasattr(X, "__array_function__")
    )


def _from_stored(X: Any, asked: Asked) -> ImageSource:
    held = (X.dtype.metadata or {}).get("vlen")  # what h5py says of rows of any length
    if held is str:
        return _from_array(np.asarray(X.asstr()), asked)
    if held == np.uint8:
        return _from_sequence([row.tobytes() for row in X[:]], asked)
    if X.dtype.kind in "biuf" and len(X.shape) > 1:
        return _from_numbers(StoredArray(X), asked)
    return _from_array(np.asarray(X), asked)


def _from_frame(X: pd.DataFrame, asked: Asked) -> ImageSource:
    if all(pd.api.types.is_numeric_dtype(dtype) for dtype in X.dtypes):
        nullable = any(map(pd.api.types.is_extension_array_dtype, X.dtypes))
        if nullable and not X.isna().to_numpy().any():
            # of complete columns of pandas' own integers check_array would make floats
            of = [getattr(d, "numpy_dtype", getattr(d, "subtype", d)) for d in X.dtypes]
            X = pd.DataFrame(X.to_numpy(dtype=np.result_type(*of)))
        return _from_numbers(check_array(X, ensure_all_finite=False), asked)
    columns = [f"X[[{name!r}]]" for name in X.columns.tolist()]
    return _from_objects(X.to_numpy(dtype=object), asked, columns)


def _from_array(X: np.ndarray, asked: Asked) -> ImageSource:
    if X.dtype.kind == "S":
        raise ValueError(
            f"X of dtype {X.dtype} drops the zero bytes at the end of encoded images: "
            "use a list or an array of dtype object."
        )
    if X.dtype.kind in "OUT":
        return _from_objects(X.astype(object, copy=False), asked)
    return _from_numbers(X, asked)


def _from_objects(
    X: np.ndarray, asked: Asked, columns: Sequence[str] = ()
) -> ImageSource:
    if X.ndim == 1:
        return _from_sequence(X.tolist(), asked)
    if X.ndim > 2:  # what numpy makes of a list of equal arrays with dtype=object
        return _from_numbers(np.array(X.tolist()), asked)
    if X.ndim == 2 and X.shape[1] == 1 and len(X):
        column = X[:, 0].tolist()
        forms = {_PATH}
        if set(map(type, column)) != {str}:
            forms = {_form(unpack_cell(value)) for value in column}
        if forms & _IMAGES or not forms - {_MISSING}:
            return _from_sequence(column, asked, n_features=1)
    try:
        numbers_of_X = check_array(X, ensure_all_finite=False)
    except (TypeError, ValueError):
        if X.ndim == 2:
            _refuse_columns_of_images(X, columns)
        raise
    return _from_numbers(numbers_of_X, asked)


def _refuse_columns_of_images(X: np.ndarray, columns: Sequence[str]) -> None:
    for (row, column), value in np.ndenumerate(X):
        form = _form(unpack_cell(value))
        if form in _IMAGES:
            raise ValueError(
                f"X has {X.shape[1]} columns and a {form} in row {row}, "
                f"column {column}: images take one column, "
                f"{columns[column] if columns else f'X[:, [{column}]]'}."
            )


def _from_sequence(
    values: Sequence[Any], asked: Asked, n_features: int | None = None
) -> ImageSource:
    if len(values) == 0:
        raise ValueError(_no_samples((0,)))
    types = set(map(type, values))
    if types == {str}:
        return PathSource(list(values), n_features, asked.channels)
    if dict in types:
        values = [unpack_cell(value) for value in values]
    forms = [_form(value) for value in values]
    kinds = set(forms)
    if dict in types and kinds == {_BYTES, _PATH}:  # a cell has one or the other
        return ObjectSource(list(values), n_features, asked.channels)
    if not kinds & _IMAGES:
        return _from_plain_values(values, forms, asked)
    _refuse_mixture(values, forms)
    if kinds == {_PATH}:
        paths = [os.fspath(value) for value in values]
        return PathSource(paths, n_features, asked.channels)
    if kinds == {_ARRAY}:
        return _from_list_of_arrays(values, asked, n_features)
    return ObjectSource(list(values), n_features, asked.channels)


def _from_plain_values(
    values: Sequence[Any], forms: list[str], asked: Asked
) -> ImageSource:
    if _OTHER in forms:
        row = forms.index(_OTHER)
        kind = type(values[row]).__name__
        raise TypeError(f"{_ACCEPTED}; row {row} is of type {kind}.")
    if all(form == _MISSING for form in forms):
        raise ValueError(_missing(values, 0))
    if _NESTED in forms:
        _refuse_mixture(values, forms)
        try:
            return _from_array(np.asarray(values), asked)
        except ValueError as error:
            if "inhomogeneous" not in str(error):
                raise
            text = f"The rows of X are of different lengths: {error}"
            raise ValueError(text) from None
    return _from_numbers(np.asarray(values, dtype=float), asked)


def _refuse_mixture(values: Sequence[Any], forms: list[str]) -> None:
    if _MISSING in forms:
        raise ValueError(_missing(values, forms.index(_MISSING)))
    row = next((row for row, form in enumerate(forms) if form != forms[0]), None)
    if row is not None:
        what = type(values[row]).__name__ if forms[row] == _OTHER else forms[row]
        text = f"X mixes forms: row 0 is a {forms[0]}, row {row} is a {what}."
        raise ValueError(text)


def _from_list_of_arrays(
    values: Sequence[Any], asked: Asked, n_features: int | None
) -> ImageSource:
    tensors = any(is_tensor(value) for value in values)
    arrays = [as_numpy(value) for value in values]
    if len({(array.shape, array.dtype) for array in arrays}) == 1:
        return _from_stack(StackedList(arrays), asked, tensors, n_features)
    spans: dict[np.dtype, tuple[float, float]] = {}
    for row, array in enumerate(arrays):
        if array.ndim not in (2, 3) or array.size == 0:
            raise ValueError(f"Row {row} of X is no image: its shape is {array.shape}.")
        check_kind(array.dtype)
        low, high = value_range(array[None], first=row)
        before = spans.get(array.dtype, (low, high))
        spans[array.dtype] = (min(low, before[0]), max(high, before[1]))
    for dtype, (low, high) in spans.items():
        warn_about_range(dtype, low, high, rows=False)
    channels = asked.channels or channels_of((1, *arrays[0].shape))
    return ObjectSource(list(values), n_features, channels)


def _from_numbers(X: Any, asked: Asked, *, channels_first: bool = False) -> ImageSource:
    axes = len(X.shape)
    if axes in (3, 4):
        return _from_stack(X, asked, channels_first)
    if axes > 4:
        raise ValueError(f"X of shape {X.shape} has {axes} axes: {_ACCEPTED}.")
    if isinstance(X, StoredArray):
        check_array(X[:1], ensure_all_finite=False, input_name="X")  # of no rows
    else:
        # a memory-map passes uncopied; NaN and infinity are looked for in blocks below
        X = check_array(X, ensure_all_finite=False, input_name="X")
    check_kind(X.dtype)
    shape = asked.row_shape(X.shape[1])
    if math.prod(shape) != X.shape[1]:
        warnings.warn(
            f"X has {X.shape[1]} columns, which is neither a square (grey) nor three "
            f"squares (RGB): rows are filled up with zeros to {shape[0]} x {shape[1]} "
            "grey images. Give image_shape=(height, width[, channels]).",
            UserWarning,
            stacklevel=2,
        )
    rule = pixel_rule(X, rows=True)
    return ArraySource(X, rule, "rows", shape, X.shape[1], asked.channels)


def _from_stack(
    X: Any, asked: Asked, channels_first: bool, n_features: int | None = None
) -> ImageSource:
    check_kind(X.dtype)
    if X.shape[0] == 0:
        raise ValueError(_no_samples(X.shape))
    if math.prod(X.shape) == 0:
        raise ValueError(f"X of shape {tuple(X.shape)} holds images without pixels.")
    channels = asked.channels or channels_of(X.shape)
    layout, shape = read_axes(X.shape, channels_first, asked.shape, channels)
    rule = pixel_rule(X, rows=False)
    return ArraySource(X, rule, layout, shape, n_features, channels)


def _form(value: Any) -> str:
    if isinstance(value, str | os.PathLike):
        return _PATH
    if isinstance(value, DatasetItem):
        return _ITEM
    if isinstance(value, Image.Image):
        return _PIL
    if isinstance(value, bytes | bytearray | memoryview):
        return _BYTES
    if value is None or value is pd.NA or value is pd.NaT:
        return _MISSING
    if isinstance(value, numbers.Number | np.bool_):
        return _MISSING if value != value else _NUMBER
    if isinstance(value, np.ndarray) or is_tensor(value):
        return (_NUMBER, _NESTED)[value.ndim] if value.ndim < 2 else _ARRAY
    if isinstance(value, list | tuple | pd.Series):
        return _NESTED
    return _OTHER


def _missing(values: Sequence[Any], row: int) -> str:
    return f"X has a missing value ({values[row]!r}) in row {row}."


def _no_samples(shape: tuple[int, ...]) -> str:
    found = f"Found array with 0 sample(s) (shape={tuple(shape)})"
    return f"{found} while a minimum of 1 is required."
