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

    return [e for e in estimators_within(model) if isinstance(e, ImageEstimatorMixin)]


def open_model(path: str, device: str | None, batch_size: int) -> Any:
    """Return what `save` or `export_onnx` wrote, on a device, None for its own."""
    from sklearn_dl import persistence  # which loads torch for those that need it

    if path.lower().endswith(".onnx"):
        name = "cpu" if device in (None, "auto") else str(device)
        provider = f"{name.upper()}ExecutionProvider"
        if name != "cpu":
            import onnxruntime

            if provider not in (known := onnxruntime.get_available_providers()):
                raise ValueError(f"--device {device}: no {provider}, only {known}.")
        return persistence.load_exported(
            path, batch_size=batch_size, providers=[provider]
        )
    from sklearn_dl._extraction import FeatureCache
    from sklearn_dl._runtime import resolve_device

    model = persistence.load(path)
    own = image_estimators(model)
    # The members of an ensemble share the features of one chunk of images.
    cache = None if model in own else FeatureCache(name="command", max_bytes=2**26)
    options: dict[str, Any] = {"batch_size": batch_size, "cache": cache, "verbose": 0}
    if device is not None:
        resolve_device(device)  # raises where it isn't there
        options["device"] = device
    for estimator in own:
        estimator.set_params(**options)
    return model


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
    return [np.zeros((*shape[:2], *(shape[2:] or (n,))), np.uint8)]


class Labels(list):
    """Labels of one image, which stand in one cell of CSV."""

    def __str__(self) -> str:
        return ";".join(map(str, self))


class Answers:
    """A model, asked for a row of each image: all of its classes, or the `top` ones."""

    def __init__(self, model: Any, top: int | None):
        if not hasattr(model, "predict"):
            raise ValueError(f"{type(model).__name__} doesn't predict.")
        self._model, self._top, blank = model, top, _blank(model)
        self._many = np.ndim(model.predict(blank)) == 2
        # What models say of several targets has no column for each class.
        one = isinstance(getattr(model, "classes_", None), np.ndarray)
        methods = ("predict_proba", "decision_function") if one else ()
        self._method = next((m for m in methods if hasattr(model, m)), None)
        if top is not None and self._method != "predict_proba":
            raise ValueError("--top: the model gives no probabilities of classes.")
        self._columns = self._table(blank)[:0]

    def __call__(self, paths: Sequence[str]) -> pd.DataFrame:
        """Return a row for each image: what it is, or the error of reading it."""
        rows, table = [*range(len(paths))], self._columns
        errors: dict[int, str] = {}
        while rows and table is self._columns:
            try:
                table = self._table([paths[k] for k in rows])
            except ImageDecodeError as error:
                found = {rows[r]: why for r, _, why in error.failures if r is not None}
                if not found:
                    raise
                errors |= found
                rows = [k for k in rows if k not in found]
        table = table.set_axis(rows).reindex(range(len(paths)))
        table.insert(0, "path", pd.Series(paths, dtype=object))
        return table.assign(error=pd.Series(errors, dtype=object))

    def _table(self, images: list) -> pd.DataFrame:
        """Return predictions, and what stands behind them."""
        if self._method is None:
            targets = np.asarray(self._model.predict(images)).reshape(len(images), -1)
            names = [f"prediction_{k + 1}" for k in range(targets.shape[1])]
            names = names if len(names) > 1 else ["prediction"]
            dtype: Any = None if targets.dtype.kind == "f" else object
            return pd.DataFrame(targets, columns=names, dtype=dtype)
        labels = np.array([as_unicode(v) for v in self._model.classes_.tolist()], "O")
        values = np.asarray(getattr(self._model, self._method)(images))
        scores = self._method == "decision_function"
        kind, above = ("score", values > 0) if scores else ("probability", values > 0.5)
        # Ours need not look at an image again to predict by what they said of it.
        if not hasattr(self._model, "preprocessing_"):
            found = self._model.predict(images)
        elif self._many:
            found = above
        else:
            found = labels[values.argmax(1) if values.ndim == 2 else above.astype(int)]
        if self._many:
            found = [Labels(labels[np.asarray(row, dtype=bool)]) for row in found]
        table = pd.DataFrame({"prediction": pd.Series([*found], dtype=object)})
        if self._top is None:
            names = [f"{kind}_{label}" for label in labels]
            values = values.reshape(len(images), -1)
            names = names[-values.shape[1] :]  # of two classes, one score: the second's
            return table.join(pd.DataFrame(values, columns=names))
        order = np.argsort(-values, axis=1, kind="stable")[:, : self._top]
        for k, best in enumerate(order.T, 1):
            table[f"class_{k}"] = labels[best]
            table[f"{kind}_{k}"] = values[np.arange(len(values)), best]
        return table


def as_text(table: pd.DataFrame, form: str, *, header: bool) -> str:
    """Return rows of CSV, or an object a line of JSON, where no value is null."""
    if form == "csv":
        digits = 8 if table.dtypes.iloc[1].kind == "f" else 6  # of targets, of values
        options: Any = {"index": False, "lineterminator": "\n"}
        return table.to_csv(header=header, float_format=f"%.{digits}g", **options)
    # Not `to_json`: of small numbers it keeps few digits.
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    rows = [{name: as_unicode(value) for name, value in row.items()} for row in rows]
    return "".join(json.dumps(row) + "\n" for row in rows)


def as_unicode(value: Any) -> Any:
    """Return a text that spells out bytes of it that are no UTF-8, or another value."""
    if not isinstance(value, str):
        return value
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
