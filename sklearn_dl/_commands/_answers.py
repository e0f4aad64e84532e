"""What a model says of images."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from sklearn_dl._commands._terminal import CommandError
from sklearn_dl._images import ImageDecodeError

_PROVIDERS = {
    "auto": "CPUExecutionProvider",
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
}
# Features that the members of an ensemble share; they serve one chunk of images.
_CACHE_BYTES = 2**26


def is_graph(path: str) -> bool:
    """Whether a file is an exported graph, by its name."""
    return path.lower().endswith(".onnx")


def open_saved(path: str) -> Any:
    """Return a model that `save` wrote."""
    from sklearn_dl.persistence import load

    return load(path)


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
    """Read a model, and make it ready for a stream of images.

    Parameters
    ----------
    path : str
        Of a file that `save` or `export_onnx` wrote.
    device : str or None
        None leaves it as it was saved.
    batch_size : int

    Raises
    ------
    CommandError
        If the model predicts nothing, or the device isn't there.
    """
    if is_graph(path):
        return Answers(_open_graph(path, device, batch_size), path, direct=True)
    model = open_saved(path)
    from sklearn.utils.validation import check_is_fitted

    from sklearn_dl._extraction import FeatureCache
    from sklearn_dl._neural import NeuralImageEstimator
    from sklearn_dl._runtime import resolve_device

    check_is_fitted(model)
    own = list(image_estimators(model))
    direct = isinstance(model, NeuralImageEstimator)
    cache = (
        None if direct else FeatureCache(name="command line", max_bytes=_CACHE_BYTES)
    )
    if device is not None:
        resolve_device(device)  # raises where it isn't there
    for estimator in own:
        chosen = estimator.device if device is None else device
        estimator.set_params(
            batch_size=batch_size, cache=cache, device=chosen, verbose=0
        )
    return Answers(model, path, direct=direct)


def _open_graph(path: str, device: str | None, batch_size: int) -> Any:
    from sklearn_dl.persistence import load_exported

    provider = _PROVIDERS.get(device or "auto")
    if provider is None:
        raise CommandError(
            f"--device {device}: an exported graph runs on {' or '.join(_PROVIDERS)}."
        )
    if provider != "CPUExecutionProvider":
        import onnxruntime

        if provider not in onnxruntime.get_available_providers():
            raise CommandError(
                f"--device {device}: this onnxruntime has no {provider}: pip install "
                "onnxruntime-gpu."
            )
    return load_exported(path, batch_size=batch_size, providers=[provider])


@dataclass
class Answer:
    """What a model says of one image.

    Attributes
    ----------
    path : str
    prediction : object or list
        A class, a number; several of either in a list.
    values : ndarray of shape (k,) or None
        Probability or score of each class.
    error : str
        Why there is no prediction; empty if there is one.
    """

    path: str
    prediction: Any = None
    values: np.ndarray | None = None
    error: str = ""


class Answers:
    """A model, asked for predictions with what stands behind them.

    Parameters
    ----------
    model : fitted estimator
    path : str
        Of its file.
    direct : bool
        Whether its predictions follow from its probabilities or scores, so that an
        image is looked at once.

    Attributes
    ----------
    value_name : {"probability", "score"} or None
        What a class has; None for what has no classes, or nothing more than these.
    classes : list
        Those that have a value, in the order of the values.
    n_outputs : int or None
        Number of targets or labels where a prediction is a list of them, else None.
    """

    def __init__(self, model: Any, path: str, *, direct: bool):
        if not hasattr(model, "predict"):
            raise CommandError(
                f"{path} holds a {type(model).__name__}, which doesn't predict."
            )
        self.model = model
        self._direct = direct
        self._method: str | None = None
        self.value_name: str | None = None
        self.classes: list[Any] = []
        self._look()

    def _look(self) -> None:
        """Predict an image, to know what predictions look like."""
        image = [Image.new("RGB", (256, 256))]
        predicted = np.asarray(self.model.predict(image))
        self.n_outputs = predicted.shape[1] if predicted.ndim == 2 else None
        if not hasattr(self.model, "classes_"):
            return
        for method in ("predict_proba", "decision_function"):
            if hasattr(self.model, method):
                values = getattr(self.model, method)(image)
                if isinstance(values, list):  # one array for each output
                    return
                self._method = method
                break
        else:
            return
        proba = self._method == "predict_proba"
        self.value_name = "probability" if proba else "score"
        labels = np.asarray(self.model.classes_).tolist()
        self._labels = np.asarray(self.model.classes_)
        # Two classes have one score, of the second.
        self.classes = labels[1:] if np.ndim(values) == 1 else labels

    def __call__(self, paths: Sequence[str]) -> list[Answer]:
        """Return what the model says of images; of those that can't be read, why."""
        answers = [Answer(path) for path in paths]
        left = list(range(len(paths)))
        while left:
            try:
                predictions, values = self._ask([paths[row] for row in left])
            except ImageDecodeError as error:
                failed = {r: why for r, _, why in error.failures if r is not None}
                if not failed:
                    raise
                for row, reason in failed.items():
                    answers[left[row]].error = reason
                left = [row for k, row in enumerate(left) if k not in failed]
                continue
            for k, row in enumerate(left):
                answers[row].prediction = predictions[k].tolist()
                answers[row].values = None if values is None else values[k]
            break
        return answers

    def _ask(self, paths: list[str]) -> tuple[np.ndarray, np.ndarray | None]:
        if self._method is None:
            return np.asarray(self.model.predict(paths)), None
        values = np.asarray(getattr(self.model, self._method)(paths))
        if not self._direct:
            predictions = np.asarray(self.model.predict(paths))
        elif self.n_outputs is not None:
            threshold = 0.5 if self.value_name == "probability" else 0
            predictions = (values > threshold).astype(int)
        elif values.ndim == 1:
            predictions = self._labels[(values > 0).astype(int)]
        else:
            predictions = self._labels[values.argmax(axis=1)]
        return predictions, values[:, None] if values.ndim == 1 else values


def check_model_file(path: str) -> str:
    """Return the path of a file of a model that is there."""
    path = os.path.expanduser(path)
    if not os.path.exists(path):
        raise CommandError(f"There is no file {path}.")
    if os.path.isdir(path):
        raise CommandError(f"{path} is a folder, not the file of a model.")
    return path
