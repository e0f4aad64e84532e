"""What a model says of images: each is looked at once, for all parts of a report."""

from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import KFold, check_cv
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import check_is_fitted

from sklearn_dl._extraction import FeatureCache
from sklearn_dl._images import ImageDecodeError, ImageSource, as_source, failed_images
from sklearn_dl._neural import NeuralImageEstimator
from sklearn_dl.datasets import target_text
from sklearn_dl.inspection._embedding import (
    answers_to_features,
    backbone_features,
    network_within,
)
from sklearn_dl.inspection._losses import answers_under, confidence_of
from sklearn_dl.inspection._scores import check_finite, check_targets, given, task_of
from sklearn_dl.inspection._stream import image_shape_of, quiet_copy

# For estimators without a cache: features serve predictions and duplicates.
KEPT = FeatureCache("memory", name="report", max_bytes=2**27)


@dataclass(frozen=True)
class Judged:
    """Images, their targets, and what a fitted model says of them."""

    model: Any  # fitted
    network: Any  # the estimator with a backbone in it, or None
    X: Any  # images that can be read
    source: ImageSource  # all images, the others too
    rows: np.ndarray  # (n,) of the source, those of X
    kind: str  # "classes", "labels" (several of each image) or "numbers"
    truth: np.ndarray  # (n,) or (n, n_outputs)
    answers: Any  # an estimator whose X are positions from 0 to n - 1
    features: np.ndarray | None  # (n, n_features) of the backbone
    n_folds: int | None  # None where the fitted model judged

    @property
    def positions(self) -> np.ndarray:
        """X of the answers, (n,)."""
        return np.arange(len(self.rows))

    @property
    def values(self) -> np.ndarray:
        """Probabilities or scores, (n, n_classes); or numbers, shaped as truth."""
        return self.answers.values

    @property
    def has_probabilities(self) -> bool:
        return hasattr(self.answers, "predict_proba")

    @cached_property
    def predicted(self) -> np.ndarray:
        """Classes, indicators of labels, or numbers, in the shape of truth."""
        if self.kind == "labels":
            return (self.values > 0.5).astype(int)
        return self.answers.predict(self.positions)

    @property
    def names(self) -> list[str]:
        """Names of the classes or labels, in the order of the columns."""
        if self.kind == "numbers":
            return []
        return [target_text(label) for label in self.answers.classes_.tolist()]

    @cached_property
    def columns(self) -> tuple[np.ndarray, np.ndarray]:
        """Columns of the labels and of the predicted classes, (n,) each."""
        place = {label: c for c, label in enumerate(self.answers.classes_.tolist())}
        truth = np.array([place[label] for label in self.truth.tolist()])
        return truth, self.values.argmax(axis=1)


def judge(model: Any, X: Any, y: Any, cv: Any = None, random_state: Any = 0) -> Judged:
    """Ask a model about images, or clones fitted without each; leave out unreadable."""
    task = task_of(model)
    model = quiet_copy(model, lambda cache: KEPT if cache is None else cache)
    try:
        source = as_source(X, image_shape=image_shape_of(model))
    except (TypeError, ValueError) as error:
        raise ValueError(f"X holds no images that can be shown: {error}") from error
    truth = check_targets(y, task, len(source))
    kind = "numbers" if task == "regression" else "classes"
    if kind == "classes" and truth.ndim == 2:
        kind = "labels"
        if not np.isin(truth, (0, 1)).all():
            raise ValueError("y must hold 0 and 1 only where it marks several labels.")
        truth = truth.astype(int)
    rows, folds = np.arange(len(source)), _folds(cv, X, truth, kind, random_state)
    try:
        found = _asked(model, X, truth, kind, folds, random_state)
    except ImageDecodeError:
        rows = readable(source)
        if len(rows) in (0, len(source)):
            raise
        X, truth = _safe_indexing(X, rows), truth[rows]
        if isinstance(folds, list):  # of all images
            kept = [[part[np.isin(part, rows)] for part in fold] for fold in folds]
            folds = [
                [np.searchsorted(rows, part) for part in fold]
                for fold in kept
                if len(fold[1])
            ]
        found = _asked(model, X, truth, kind, folds, random_state)
    fitted, answers, features = found
    if kind == "labels" and hasattr(y, "columns"):
        answers.classes_ = np.asarray(y.columns)
    network = network_within(fitted)
    n_folds = len(folds) if isinstance(folds, list) else folds
    return Judged(
        fitted, network, X, source, rows, kind, truth, answers, features, n_folds
    )


def readable(source: ImageSource) -> np.ndarray:
    """Return the rows of the images that can be decoded."""
    failed = {row for row, *_ in failed_images(source)}
    return np.array([row for row in range(len(source)) if row not in failed], dtype=int)


def _asked(model, X, y, kind: str, cv, random_state) -> tuple[Any, ...]:
    """Return the fitted model, its answers and features."""
    if cv is None:
        check_is_fitted(model)
    else:
        try:
            check_is_fitted(model)
        except NotFittedError:
            model = clone(model).fit(X, y)
    network, features = network_within(model), None
    asked, images = model, X
    alone = isinstance(network, NeuralImageEstimator) and network is model
    if cv is None and alone and network.tta is None:
        # No cache has those of a backbone that was trained: one pass for both.
        features = backbone_features(network, X)
        values = answers_to_features(network, features)
        classes = getattr(network, "classes_", None)
        asked = given(values, classes, hasattr(network, "predict_proba"))
        images = np.arange(len(y))
    answers = _answers(asked, images, y, kind, cv, random_state)
    if network is not None and features is None:
        features = backbone_features(network, X)
    return model, answers, features


def _folds(cv, X, y, kind: str, random_state) -> Any:
    """Return None, a number of folds, or what each is fitted to and judges."""
    if cv is None:
        return None
    if isinstance(cv, Integral):
        if kind != "labels":
            return int(cv)
        # There are no strata of several labels.
        cv = KFold(int(cv), shuffle=True, random_state=random_state)
    rows = np.arange(len(y))  # parts may be masks
    return [[rows[part] for part in fold] for fold in check_cv(cv).split(X, y)]


def _answers(asked, images, y, kind: str, cv, random_state) -> Any:
    """Return what answers as an estimator does, for positions in place of images."""
    if kind == "classes":
        found = confidence_of(asked, images, y, cv, random_state)
        return given(found.scores, found.classes, found.probabilities)
    if kind == "numbers":
        values = answers_under(asked, images, y, cv, random_state, "predict")
        return given(check_finite(values.reshape(y.shape), "predict"))
    if not hasattr(asked, "predict_proba"):
        raise TypeError(
            f"{type(asked).__name__} has no predict_proba, which the report needs of "
            "several labels per image."
        )
    values = answers_under(asked, images, y, cv, random_state, "predict_proba")
    if values.ndim == 3:  # scikit-learn's own: for each label two columns
        values = values[:, :, 1].T
    if values.shape != y.shape:
        raise ValueError(
            f"predict_proba has the shape {values.shape}, not that of y, {y.shape}."
        )
    return given(check_finite(values, "predict_proba"), np.arange(y.shape[1]))
