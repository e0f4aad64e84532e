"""What a model says of images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
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


def is_graph(path: str) -> bool:
    """Whether a file is an exported graph, by its name."""
    return path.lower().endswith(".onnx")


def image_estimators(value: Any, seen: set[int] | None = None) -> Iterator[Any]:
    """Yield the estimators with a backbone in a model, parameters and fitted ones."""
    from sklearn.base import BaseEstimator

    from sklearn_dl._classifier import ImageClassifier
    from sklearn_dl._features import ImageFeatureExtractor
    from sklearn_dl._regressor import ImageRegressor

    seen = set() if seen is None else seen
    if id(value) in seen:
        return
    seen.add(id(value))
    parts: Any = ()
    if isinstance(value, ImageClassifier | ImageFeatureExtractor | ImageRegressor):
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
    if is_graph(path):
        return Answers(_open_graph(path, device, batch_size), path, direct=True)
    from sklearn.utils.validation import check_is_fitted

    from sklearn_dl._extraction import FeatureCache
    from sklearn_dl.persistence import load

    model = load(path)
    check_is_fitted(model)
    own = list(image_estimators(model))
    direct = model in own
    # The members of an ensemble share the features of one chunk of images.
    cache = None if direct else FeatureCache(max_bytes=2**26)
    chosen = {} if device is None else {"device": device}
    for estimator in own:
        estimator.set_params(batch_size=batch_size, cache=cache, verbose=0, **chosen)
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
    values : dict
        Classes with their probability or score.
    error : str
        Why there is no prediction; empty if there is one.
    """

    path: str
    prediction: Any = None
    values: dict[Any, float] = field(default_factory=dict)
    error: str = ""


class Answers:
    """A model, asked for predictions with what stands behind them.

    Parameters
    ----------
    model : fitted estimator
    path : str
        The file it comes from.
    direct : bool
        Whether its predictions follow from its probabilities or scores, so that an
        image is looked at once.

    Attributes
    ----------
    value_name : {"probability", "score"} or None
        What a class has; None for what has no classes, or nothing more than these.
    classes : list
        Those that have a value, in the order of the values.
    n_targets : int or None
        Number of targets where a prediction is a list of them, else None.
    top : int or None
        How many classes have their value in an answer, largest first; None for all.
    """

    value_name: str | None = None
    top: int | None = None

    def __init__(self, model: Any, path: str, *, direct: bool):
        if not hasattr(model, "predict"):
            raise CommandError(
                f"{path} holds a {type(model).__name__}, which doesn't predict."
            )
        self.model = model
        self.classes: list[Any] = []
        self._direct = direct
        self._method: str | None = None
        # What predictions look like is known from one.
        blank = [Image.new("RGB", (256, 256))]
        predicted = np.asarray(model.predict(blank))
        self.n_targets = predicted.shape[1] if predicted.ndim == 2 else None
        for method in ("predict_proba", "decision_function"):
            if not hasattr(model, "classes_") or not hasattr(model, method):
                continue
            values = getattr(model, method)(blank)
            if isinstance(values, list):  # an array for each target
                return
            self._method = method
            self.value_name = "probability" if method == "predict_proba" else "score"
            self._labels = np.asarray(model.classes_)
            # Two classes have one score, of the second.
            self.classes = self._labels[1 if np.ndim(values) == 1 else 0 :].tolist()
            self._several_labels = self.n_targets is not None
            self.n_targets = None
            return

    def __call__(self, paths: Sequence[str]) -> list[Answer]:
        """Return what the model says of images; of those that can't be read, why."""
        answers = [Answer(path) for path in paths]
        left = answers
        while left:
            try:
                predictions, values = self._ask([answer.path for answer in left])
            except ImageDecodeError as error:
                failed = {r: why for r, _, why in error.failures if r is not None}
                if not failed:
                    raise
                for row, reason in failed.items():
                    left[row].error = reason
                left = [answer for answer in left if not answer.error]
                continue
            for k, answer in enumerate(left):
                answer.prediction = predictions[k].tolist()
                if values is not None:
                    self._name_classes(answer, values[k])
            break
        return answers

    def _ask(self, paths: list[str]) -> tuple[np.ndarray, np.ndarray | None]:
        if self._method is None:
            return np.asarray(self.model.predict(paths)), None
        values = np.asarray(getattr(self.model, self._method)(paths))
        threshold = 0.5 if self.value_name == "probability" else 0
        if not self._direct:
            predictions = np.asarray(self.model.predict(paths))
        elif self._several_labels:
            predictions = values > threshold
        elif values.ndim == 1:
            predictions = self._labels[(values > threshold).astype(int)]
        else:
            predictions = self._labels[values.argmax(axis=1)]
        return predictions, values[:, None] if values.ndim == 1 else values

    def _name_classes(self, answer: Answer, values: np.ndarray) -> None:
        """Write the classes into an answer that has their values, or those of labels."""
        if self._several_labels:
            pairs = zip(self.classes, answer.prediction, strict=True)
            answer.prediction = [label for label, there in pairs if there]
        order = np.arange(len(values))
        if self.top is not None:
            order = np.argsort(-values, kind="stable")[: self.top]
        answer.values = {self.classes[k]: float(values[k]) for k in order}
