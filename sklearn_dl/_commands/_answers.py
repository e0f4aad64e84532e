"""What a model says of images, as rows of CSV or lines of JSON."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from sklearn_dl._images import Asked, ImageDecodeError


def image_estimators(model: Any) -> list[Any]:
    """Return the estimators with a backbone in a model, parameters and fitted ones."""
    from sklearn_dl._base import ImageEstimatorMixin, estimators_within

    inside = estimators_within(model)
    return [one for one in inside if isinstance(one, ImageEstimatorMixin)]


def open_model(path: str, device: str | None, batch_size: int) -> tuple[Any, bool]:
    """Return what `save` or `export_onnx` wrote, and whether it is one network."""
    if path.lower().endswith(".onnx"):
        return _open_graph(path, device or "auto", batch_size), True
    from sklearn_dl._extraction import FeatureCache
    from sklearn_dl._runtime import resolve_device
    from sklearn_dl.persistence import load

    model = load(path)
    own = image_estimators(model)
    # The members of an ensemble share the features of one chunk of images.
    cache = None if model in own else FeatureCache(name="command", max_bytes=2**26)
    options: dict[str, Any] = {"batch_size": batch_size, "cache": cache, "verbose": 0}
    if device is not None:
        resolve_device(device)  # raises where it isn't there
        options["device"] = device
    for estimator in own:
        estimator.set_params(**options)
    return model, model in own


def _open_graph(path: str, device: str, batch_size: int) -> Any:
    from sklearn_dl.persistence import load_exported

    name = "cpu" if device == "auto" else device
    provider = f"{name.upper()}ExecutionProvider"
    if name != "cpu":
        import onnxruntime

        if provider not in (known := onnxruntime.get_available_providers()):
            raise ValueError(f"--device {device}: no {provider}, only {known}.")
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
    looked at once. With `top`, only so many classes are named, the most probable first.
    """

    def __init__(self, model: Any, direct: bool, top: int | None):
        if not hasattr(model, "predict"):
            raise ValueError(f"{type(model).__name__} doesn't predict.")
        self._model, self._direct, self._top = model, direct, top
        self._blank = _blank(model)  # what predictions look like is known from one
        self._many = np.ndim(model.predict(self._blank)) == 2
        methods = ("predict_proba", "decision_function")
        there = [m for m in methods if hasattr(model, "classes_") and hasattr(model, m)]
        values = getattr(model, there[0])(self._blank) if there else None
        # Some models have an array for each target, which has no column.
        self._method = there[0] if isinstance(values, np.ndarray) else None
        if top is not None and self._method != "predict_proba":
            raise ValueError("--top: the model gives no probabilities of classes.")

    def __call__(self, paths: Sequence[str]) -> pd.DataFrame:
        """Return a row for each image: what it is, or the error of reading it."""
        table, rows = None, [*range(len(paths))]
        errors: dict[int, str] = {}
        while table is None:
            try:
                table = self._table([paths[k] for k in rows] or self._blank)
            except ImageDecodeError as error:
                found = {rows[r]: why for r, _, why in error.failures if r is not None}
                if not found:
                    raise
                errors |= found
                rows = [k for k in rows if k not in found]
        table = table.set_axis(rows or [-1]).reindex(range(len(paths)))
        table.insert(0, "path", pd.Series(paths, dtype=object))
        return table.assign(error=pd.Series(errors, dtype=object))

    def _table(self, images: list) -> pd.DataFrame:
        """Return predictions, and what stands behind them."""
        found: Any
        if self._method is None:
            found = np.asarray(self._model.predict(images)).reshape(len(images), -1)
            several = [f"prediction_{k}" for k in range(1, found.shape[1] + 1)]
            names = several if len(several) > 1 else ["prediction"]
            table = pd.DataFrame(found, columns=names)
            return table if found.dtype.kind == "f" else table.astype(object)
        kind = "probability" if self._method == "predict_proba" else "score"
        labels = np.asarray(self._model.classes_)
        values = np.asarray(getattr(self._model, self._method)(images))
        above = (values > (0.5 if kind == "probability" else 0)).astype(int)
        if not self._direct:
            found = self._model.predict(images)
        elif self._many:
            found = above
        else:
            found = labels[values.argmax(1) if values.ndim == 2 else above]
        if self._many:
            found = [labels[row.astype(bool)].tolist() for row in found]
        table = pd.DataFrame({"prediction": pd.Series([*found], dtype=object)})
        if self._top is None:  # two classes have one score, of the second
            names = [f"{kind}_{label}" for label in labels]
            # Names of columns are pandas' own text, which is Unicode.
            names = [*map(_as_unicode, names)]
            values = values.reshape(len(images), -1)
            return table.join(pd.DataFrame(values, columns=names[-values.shape[1] :]))
        order = np.argsort(-values, axis=1, kind="stable")[:, : self._top]
        best = np.take_along_axis(values, order, axis=1)
        for k in range(order.shape[1]):
            table[f"class_{k + 1}"] = labels[order[:, k]].astype(object)
            table[f"{kind}_{k + 1}"] = best[:, k]
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
    rows = table.to_dict("records")
    lines = [json.dumps({k: _json(v) for k, v in row.items()}) + "\n" for row in rows]
    return "".join(lines).encode()


def _json(value: Any) -> Any:
    """Return a value of a cell as JSON has it."""
    if isinstance(value, str):
        return _as_unicode(value)
    if isinstance(value, list):
        return [*map(_json, value)]
    value = value.item() if isinstance(value, np.generic) else value
    return None if value != value else value


def _as_unicode(text: str) -> str:
    """Return a text that spells out bytes of it that are no UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


FORMATS = {"csv": csv_rows, "json": json_lines}
