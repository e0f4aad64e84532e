"""What a model says of images, as rows of CSV or lines of JSON."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from math import isfinite
from typing import Any

import numpy as np
from PIL import Image

from sklearn_dl._commands._terminal import CommandError
from sklearn_dl._images import ImageDecodeError


def image_estimators(value: Any, seen: set[int] | None = None) -> Iterator[Any]:
    """Yield the estimators with a backbone in a model, parameters and fitted ones."""
    from sklearn.base import BaseEstimator

    from sklearn_dl._base import ImageEstimatorMixin

    seen = set() if seen is None else seen
    if id(value) in seen:
        return
    seen.add(id(value))
    parts: Any = ()
    if isinstance(value, ImageEstimatorMixin):
        yield value
    elif isinstance(value, BaseEstimator | dict):
        parts = (value if isinstance(value, dict) else vars(value)).values()
    elif isinstance(value, list | tuple):
        parts = value
    elif isinstance(value, np.ndarray) and value.dtype == object:
        parts = value.ravel()
    for part in parts:
        yield from image_estimators(part, seen)


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

    provider = "CPUExecutionProvider"
    if device not in (None, "auto", "cpu"):
        import onnxruntime

        provider = f"{device.upper()}ExecutionProvider"
        known = onnxruntime.get_available_providers()
        if provider not in known:
            raise CommandError(
                f"--device {device}: this onnxruntime has {', '.join(known)}, but no "
                f"{provider}; onnxruntime-gpu has that of cuda."
            )
    return load_exported(path, batch_size=batch_size, providers=[provider])


class Answers:
    """A model, asked for predictions with what stands behind them.

    With `direct`, its predictions follow from its probabilities or scores, so that an
    image is looked at once.
    """

    value_name: str | None = None  # "probability" or "score", where a class has one
    top: int | None = None  # only so many classes, the most probable first

    def __init__(self, model: Any, path: str, *, direct: bool):
        if not hasattr(model, "predict"):
            raise CommandError(
                f"{path} holds a {type(model).__name__}, which doesn't predict."
            )
        self.model = model
        self.classes: list[Any] = []  # those that have a value, in their order
        self._direct = direct
        # What predictions look like is known from one.
        blank = [Image.new("RGB", (256, 256))]
        predicted = np.asarray(model.predict(blank))
        # Number of targets, or of labels, where a prediction is a list.
        self.n_targets = predicted.shape[1] if predicted.ndim == 2 else None
        methods = {"predict_proba": "probability", "decision_function": "score"}
        there = [m for m in methods if hasattr(model, "classes_") and hasattr(model, m)]
        values = getattr(model, there[0])(blank) if there else []
        if not isinstance(values, list):  # that has an array for each target
            self._method = there[0]
            self.value_name = methods[there[0]]
            self._labels = np.asarray(model.classes_)
            # Two classes have one score, of the second.
            self.classes = self._labels[1 if values.ndim == 1 else 0 :].tolist()

    def __call__(self, paths: Sequence[str]) -> list[dict[str, Any]]:
        """Return the prediction of each image, or the error of reading it."""
        answers: list[dict[str, Any]] = [{"path": path} for path in paths]
        predictions: list[Any] = []
        values = np.empty((0, 0))
        while left := [answer for answer in answers if "error" not in answer]:
            try:
                predictions, values = self._ask([answer["path"] for answer in left])
                break
            except ImageDecodeError as error:
                failed = {r: why for r, _, why in error.failures if r is not None}
                if not failed:
                    raise
                for place, reason in failed.items():
                    left[place]["error"] = reason
        for answer, found, row in zip(left, predictions, values, strict=True):
            answer["prediction"] = found
            if self.value_name is not None:
                self._name_classes(answer, row)
        return answers

    def _ask(self, paths: list[str]) -> tuple[list, np.ndarray]:
        """Return predictions, and values of shape (n, n_values)."""
        if self.value_name is None:
            predicted = np.asarray(self.model.predict(paths))
            return predicted.tolist(), np.empty((len(paths), 0))
        values = np.asarray(getattr(self.model, self._method)(paths))
        threshold = 0.5 if self.value_name == "probability" else 0
        if not self._direct:
            predictions = np.asarray(self.model.predict(paths))
        elif self.n_targets is not None:
            predictions = values > threshold
        elif values.ndim == 1:
            predictions = self._labels[(values > threshold).astype(int)]
        else:
            predictions = self._labels[values.argmax(axis=1)]
        return predictions.tolist(), values.reshape(len(paths), -1)

    def _name_classes(self, answer: dict[str, Any], values: np.ndarray) -> None:
        if self.n_targets is not None:
            pairs = zip(self.classes, answer["prediction"], strict=True)
            answer["prediction"] = [label for label, there in pairs if there]
        if self.top is not None:
            order = np.argsort(-values, kind="stable")[: self.top]
            best = [(self.classes[k], float(values[k])) for k in order]
            answer["top"] = [{"class": c, "probability": value} for c, value in best]
        else:
            key = "probabilities" if self.value_name == "probability" else "scores"
            names = map(str, self.classes)
            answer[key] = dict(zip(names, values.tolist(), strict=True))


# Not by pandas: rows of 1,000 classes take twice as long with it, and its JSON refuses
# names that are no UTF-8 and cuts small numbers.


def csv_rows(model: Answers, answers: list[dict[str, Any]] | None) -> bytes:
    """Return the row of each answer; of None the names of the columns."""
    columns, text = _columns(model), io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for answer in answers or ():
        cells = [""] * (len(columns) - 2) if "error" in answer else _cells(answer)
        writer.writerow([answer["path"], *cells, answer.get("error", "")])
    if answers is None:
        writer.writerow(columns)
    return text.getvalue().encode("utf-8", "surrogateescape")  # names as they are


def _columns(model: Answers) -> list[str]:
    name, targets = model.value_name, ["prediction"]
    if model.n_targets is not None and model.n_targets > 1 and not model.classes:
        targets = [f"prediction_{k}" for k in range(1, model.n_targets + 1)]
    values = [f"{name}_{label}" for label in model.classes]
    if model.top is not None:
        places = range(1, min(model.top, len(model.classes)) + 1)
        values = [f"{kind}_{k}" for k in places for kind in ("class", name)]
    return ["path", *targets, *values, "error"]


def _cells(answer: dict[str, Any]) -> list[Any]:
    found, top = answer["prediction"], answer.get("top", ())
    values = answer.get("probabilities") or answer.get("scores") or {}
    if isinstance(found, list) and (values or top):  # the labels of one image
        found = ";".join(map(str, found))
    found = found if isinstance(found, list) else [found]
    cells = [f"{v:.8g}" if isinstance(v, float) else v for v in found]
    cells += [f"{value:.6g}" for value in values.values()]
    for one in top:
        cells += [one["class"], f"{one['probability']:.6g}"]
    return cells


def json_lines(model: Answers, answers: list[dict[str, Any]] | None) -> bytes:
    """Return an object for each answer, on a line of its own; each has its names."""
    lines = [
        json.dumps({k: _finite(v, 8 if k == "prediction" else 6) for k, v in a.items()})
        for a in answers or ()
    ]
    return "".join(f"{line}\n" for line in lines).encode()


def _finite(value: Any, digits: int) -> Any:
    """Return what JSON has: floats of so many digits, null for NaN and infinity."""
    if isinstance(value, dict):
        return {k: v if k == "class" else _finite(v, digits) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(part, digits) for part in value]
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if isfinite(value) else None
    return value
