"""What a model says of images, as rows of CSV or lines of JSON."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from sklearn_dl._commands._terminal import CommandError
from sklearn_dl._images import Asked, ImageDecodeError


def image_estimators(value: Any) -> list[Any]:
    """Return the estimators with a backbone in a model, parameters and fitted ones."""
    from sklearn.base import BaseEstimator

    from sklearn_dl._base import ImageEstimatorMixin

    found, seen, left = {}, set(), [value]
    while left:
        value = left.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, ImageEstimatorMixin):
            found[id(value)] = value
        elif isinstance(value, BaseEstimator | dict):
            left += (value if isinstance(value, dict) else vars(value)).values()
        elif isinstance(value, list | tuple | np.ndarray):
            left += value if not hasattr(value, "ravel") else value.ravel().tolist()
    return [*found.values()]


def open_model(path: str, *, device: str | None, batch_size: int) -> "Answers":
    """Read what `save` or `export_onnx` wrote; a device of None leaves it as saved."""
    if path.lower().endswith(".onnx"):
        return Answers(_open_graph(path, device, batch_size), path, direct=True)
    from sklearn.utils.validation import check_is_fitted

    from sklearn_dl._extraction import FeatureCache
    from sklearn_dl._runtime import resolve_device
    from sklearn_dl.persistence import load

    model = load(path)
    check_is_fitted(model)
    own = list(image_estimators(model))
    direct = model in own
    # The members of an ensemble share the features of one chunk of images.
    cache = None if direct else FeatureCache(name="command line", max_bytes=2**26)
    options: dict[str, Any] = {"batch_size": batch_size, "cache": cache, "verbose": 0}
    if device is not None:
        resolve_device(device)  # raises where it isn't there
        options["device"] = device
    for estimator in own:
        estimator.set_params(**options)
    return Answers(model, path, direct=direct)


def _open_graph(path: str, device: str | None, batch_size: int) -> Any:
    from sklearn_dl.persistence import load_exported

    name = "cpu" if device in (None, "auto") else device
    provider = f"{name.upper()}ExecutionProvider"
    if name != "cpu":
        import onnxruntime

        if provider not in (known := onnxruntime.get_available_providers()):
            raise CommandError(
                f"--device {device}: this onnxruntime has {', '.join(known)}, but no "
                f"{provider}; onnxruntime-gpu has that of cuda."
            )
    return load_exported(path, batch_size=batch_size, providers=[provider])


def _blank(model: Any) -> list[Any]:
    """Return an image with the channels that a model takes."""
    if hasattr(model, "_asked"):  # an exported one, which needs no torch
        shapes = [model._asked()]
    else:
        from sklearn_dl._base import image_shape_of

        shapes = [image_shape_of(estimator) for estimator in image_estimators(model)]
    asked = [a for a in map(Asked.of, shapes) if a.channels is not None]
    if not asked:
        return [Image.new("RGB", (256, 256))]
    shape = next((a.shape for a in asked if a.shape), (256, 256))
    n = max(a.channels.least for a in asked if a.channels)
    return [np.zeros((*shape[:2], shape[2] if len(shape) == 3 else n), np.uint8)]


class Answers:
    """A model, asked for a row of what it says of each image.

    With `direct`, predictions follow from probabilities or scores, so that an image is
    looked at once.
    """

    top: int | None = None  # only so many classes, the most probable first

    def __init__(self, model: Any, path: str, *, direct: bool):
        if not hasattr(model, "predict"):
            raise CommandError(
                f"{path} holds a {type(model).__name__}, which doesn't predict."
            )
        self.model, self._direct = model, direct
        blank = _blank(model)  # what predictions look like is known from one
        self._many = np.ndim(model.predict(blank)) == 2
        methods = {"predict_proba": "probability", "decision_function": "score"}
        there = [m for m in methods if hasattr(model, "classes_") and hasattr(model, m)]
        values = getattr(model, there[0])(blank) if there else None
        # Some models have an array for each target, which has no column.
        self._method = there[0] if isinstance(values, np.ndarray) else None
        self.value_name = None if self._method is None else methods[self._method]
        self._blank = blank

    def __call__(self, paths: Sequence[str]) -> pd.DataFrame:
        """Return a row for each image: what it is, or the error of reading it."""
        errors: dict[int, str] = {}
        while True:
            rows = [k for k in range(len(paths)) if k not in errors]
            try:
                table = self._table([paths[k] for k in rows] if rows else self._blank)
                break
            except ImageDecodeError as error:
                found = {rows[r]: why for r, _, why in error.failures if r is not None}
                if not found:
                    raise
                errors |= found
        table = table.set_axis(rows or [-1]).reindex(range(len(paths)))
        table.insert(0, "path", pd.Series(paths, dtype=object))
        return table.assign(error=pd.Series(errors, dtype=object))

    def _table(self, images: list) -> pd.DataFrame:
        """Return predictions, and what stands behind them."""
        found: Any
        if self._method is None:
            found = np.asarray(self.model.predict(images)).reshape(len(images), -1)
            several = [f"prediction_{k}" for k in range(1, found.shape[1] + 1)]
            names = several if len(several) > 1 else ["prediction"]
            table = pd.DataFrame(found, columns=names)
            return table if found.dtype.kind == "f" else table.astype(object)
        values = np.asarray(getattr(self.model, self._method)(images))
        above = values > (0.5 if self.value_name == "probability" else 0)
        labels = np.asarray(self.model.classes_)
        if not self._direct:
            found = np.asarray(self.model.predict(images))
        elif self._many:
            found = above
        else:
            found = labels[values.argmax(1) if values.ndim == 2 else above.astype(int)]
        if self._many:
            found = [labels[row.astype(bool)].tolist() for row in found]
        table = pd.DataFrame({"prediction": pd.Series([*found], dtype=object)})
        if self.top is None:  # two classes have one score, of the second
            names = [f"{self.value_name}_{label}" for label in labels]
            values = values.reshape(len(images), -1)
            return table.join(pd.DataFrame(values, columns=names[-values.shape[1] :]))
        order = np.argsort(-values, axis=1, kind="stable")[:, : self.top]
        best = np.take_along_axis(values, order, axis=1)
        for k in range(order.shape[1]):
            table[f"class_{k + 1}"] = labels[order[:, k]].astype(object)
            table[f"{self.value_name}_{k + 1}"] = best[:, k]
        return table


def csv_rows(table: pd.DataFrame, *, header: bool) -> bytes:
    """Return rows of CSV; the labels of an image stand in one cell."""
    first = table.columns[1]
    digits = 8 if table[first].dtype.kind == "f" else 6  # of targets, of values
    cells = [";".join(map(str, v)) if isinstance(v, list) else v for v in table[first]]
    table = table.assign(**{first: pd.Series(cells, table.index, table[first].dtype)})
    options: Any = {"header": header, "index": False, "lineterminator": "\n"}
    rows = table.to_csv(**options, float_format=f"%.{digits}g")
    return rows.encode("utf-8", "surrogateescape")  # names as they are


def json_lines(table: pd.DataFrame, *, header: bool) -> bytes:
    """Return an object for each row; what has no value is null."""
    # JSON is Unicode: other bytes of a name are written as such.
    paths = [os.fsencode(p).decode("utf-8", "backslashreplace") for p in table["path"]]
    rows = table.assign(path=paths)
    return rows.to_json(orient="records", lines=True, double_precision=15).encode()
