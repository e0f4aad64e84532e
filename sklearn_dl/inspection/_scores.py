"""Scores of predictions, and their spread by bootstrap."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    RegressorMixin,
    is_classifier,
    is_regressor,
)
from sklearn.metrics import check_scoring, get_scorer_names
from sklearn.utils.validation import check_is_fitted

from sklearn_dl._labels import refuse_missing


def task_of(estimator: Any) -> str:
    """Return "classification" or "regression"."""
    if is_classifier(estimator):
        return "classification"
    if is_regressor(estimator):
        return "regression"
    raise TypeError(
        f"A fitted classifier or regressor is needed, got {type(estimator).__name__}."
    )


def answers_of(first: Any, second: Any, y: Any) -> tuple[Any, Any, np.ndarray]:
    """Return estimator (or None), truth and predictions of either form of call."""
    if hasattr(first, "predict"):
        if y is None:
            raise ValueError("With an estimator, give y too: (estimator, X, y).")
        check_is_fitted(first)
        return first, y, np.asarray(first.predict(second))
    if y is not None:
        raise ValueError(
            "With the truth and predictions there is no third argument; "
            f"{type(first).__name__} has no predict."
        )
    return None, first, np.asarray(second)


def check_targets(y: Any, task: str, n_rows: int) -> np.ndarray:
    """Return y as an array with one row per image, and nothing missing."""
    truth = np.asarray(y)
    if truth.ndim == 2 and truth.shape[1] == 1:
        truth = truth[:, 0]
    if truth.ndim not in (1, 2) or len(truth) != n_rows:
        raise ValueError(f"y has the shape {truth.shape}, but X has {n_rows} images.")
    refuse_missing(y)
    return truth.astype(float) if task == "regression" else truth


def check_labels(y: Any, n_rows: int) -> np.ndarray:
    """Return y as an array with one label per image, and nothing missing."""
    labels = check_targets(y, "classification", n_rows)
    if labels.ndim != 1:
        raise ValueError(
            f"y must hold one label per image, got the shape {labels.shape}; of "
            "several labels give one at a time."
        )
    return labels


def check_finite(values: np.ndarray, method: str) -> np.ndarray:
    """Return what a method answered with, a row per image, if all is finite."""
    bad = np.flatnonzero(~np.isfinite(flat(values)).all(axis=1))
    if len(bad):
        raise ValueError(f"{method} is not finite in row {bad[0]}: {values[bad[0]]}.")
    return values


def columns_of(scores: np.ndarray, classes, method: str, estimator) -> np.ndarray:
    """Return one column of scores per class; of two classes either sign of a value."""
    if method == "decision_function" and scores.ndim == 1:
        scores = np.stack([-scores, scores], axis=1)
    if scores.shape != (len(scores), len(classes)):
        raise ValueError(
            f"{method} of {type(estimator).__name__} has the shape {scores.shape}, not "
            f"one column for each of {len(classes)} classes. An SVC has them with "
            "decision_function_shape='ovr'; of several labels give one at a time."
        )
    return check_finite(scores, method)


def as_column(labels: np.ndarray) -> pd.Series:
    """Return labels as a column; in pandas' own type of text not all names can be."""
    return pd.Series(labels, dtype=object if labels.dtype.kind in "OU" else None)


class _Given(BaseEstimator):
    """Answers with predictions that were made before; its X are their positions."""

    values: Any = None

    def fit(self, X=None, y=None):
        return self

    def __sklearn_is_fitted__(self):
        return True

    def predict(self, X):
        return self.values[X]


class _Numbers(RegressorMixin, _Given):
    pass


class _Classes(ClassifierMixin, _Given):
    classes_: Any = None


class _ByScore(_Classes):
    def predict(self, X):
        return self.classes_[self.values[X].argmax(axis=1)]


class _Probabilities(_ByScore):
    def predict_proba(self, X):
        return self.values[X]


class _Scores(_ByScore):
    def decision_function(self, X):
        return self.values[X]


def given(values: np.ndarray, classes: Any = None, probabilities: bool = True) -> Any:
    """Return an estimator that answers with scores of classes, or else with numbers."""
    if classes is None:
        answers: Any = _Numbers()
    else:
        answers = _Probabilities() if probabilities else _Scores()
        answers.classes_ = classes
    answers.values = values
    return answers


class Scoring:
    """Scores predictions of all rows, or of a sample; by accuracy or R^2 if None."""

    def __init__(self, scoring: Any, task: str, truth: np.ndarray, classes: Any = None):
        if scoring is None:
            scoring = "accuracy" if task == "classification" else "r2"
        if not isinstance(scoring, str):
            self.name = getattr(scoring, "__name__", repr(scoring))
        elif scoring in get_scorer_names():
            self.name = scoring
        else:
            raise ValueError(
                f"scoring={scoring!r} is no scorer's name; "
                "sklearn.metrics.get_scorer_names() lists them."
            )
        self.truth = truth
        self._given: Any = _Numbers()
        if task == "classification":
            known = np.unique(truth) if truth.ndim == 1 else np.arange(truth.shape[1])
            self._given = _Classes()
            self._given.classes_ = known if classes is None else classes
        self._scorer = check_scoring(self._given, scoring)

    def __call__(self, predictions: np.ndarray, rows: Any = slice(None)) -> float:
        """Return the score of predictions, over some rows."""
        truth = self.truth[rows]
        self._given.values = predictions[rows]
        try:
            return float(self._scorer(self._given, np.arange(len(truth)), truth))
        except (AttributeError, ValueError) as error:
            if "predict_proba" not in str(error) and "decision" not in str(error):
                raise
            raise ValueError(
                f"scoring={self.name!r} asks for probabilities; here only what "
                "`predict` returns is kept, as 'accuracy' or 'f1_macro' need it."
            ) from error

    def of_rows(self, predictions: list[np.ndarray]) -> Callable[[np.ndarray], Any]:
        """Return a function from rows to the scores of all predictions over them."""
        truth, n = self.truth, len(self.truth)
        if self.name == "r2":
            truth = flat(truth)
            squares = np.stack([(flat(p) - truth) ** 2 for p in predictions], axis=1)

            def r2(rows: np.ndarray) -> np.ndarray:
                drawn = truth[rows]
                spread = ((drawn - drawn.mean(0)) ** 2).sum(0)
                with np.errstate(divide="ignore", invalid="ignore"):
                    return (1 - squares[rows].sum(0) / spread).mean(1)

            return r2
        if self.name == "accuracy":
            values = [flat(p == truth).all(1).astype(float) for p in predictions]
        elif self.name == "neg_mean_absolute_error":
            values = [-flat(np.abs(p - truth)).mean(1) for p in predictions]
        elif self.name == "neg_mean_squared_error":
            values = [-flat((p - truth) ** 2).mean(1) for p in predictions]
        else:
            return lambda rows: [self(p, rows) for p in predictions]
        table = np.stack(values, axis=1)
        # Counts of a sample times values is the sum over it.
        return lambda rows: np.bincount(rows, minlength=n) @ table / n


def flat(values: np.ndarray) -> np.ndarray:
    """Return values as a matrix, a row per image."""
    return values.reshape(len(values), -1)


def recalls_of_rows(right: np.ndarray, codes: np.ndarray) -> Callable:
    """Return a function from rows to recalls (n_predictions, n_classes) over them."""
    # `right` is (n, n_predictions); each of the `codes` from 0 has at least one row.
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(codes.max() + 1))
    values = np.column_stack([np.ones(len(right)), right])[order]

    def recalls(rows: np.ndarray) -> np.ndarray:
        counts = np.bincount(rows, minlength=len(codes))[order]
        sums = np.add.reduceat(counts[:, None] * values, starts, axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            return (sums[:, 1:] / sums[:, :1]).T

    return recalls


def bootstrap(score: Callable, n_rows: int, n_resamples: int, seed: int) -> np.ndarray:
    """Return what a function gives for samples of rows, drawn with replacement."""
    rng = np.random.default_rng(seed)
    samples = (rng.integers(0, n_rows, n_rows) for _ in range(n_resamples))
    return np.array([score(rows) for rows in samples])


def interval(values: np.ndarray, confidence_level: float) -> np.ndarray:
    """Return the percentile interval over the first axis, without NaN."""
    tail = 50 * (1 - confidence_level)
    return np.nanpercentile(values, [tail, 100 - tail], axis=0)
