"""Scores of kept predictions, and their spread by bootstrap."""

from collections.abc import Iterator
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
from sklearn.utils.validation import column_or_1d


def task_of(estimator: Any) -> str:
    """Return "classification" or "regression"."""
    if is_classifier(estimator):
        return "classification"
    if is_regressor(estimator):
        return "regression"
    raise TypeError(
        f"A fitted classifier or regressor is needed, got {type(estimator).__name__}."
    )


def check_targets(y: Any, task: str, n_rows: int) -> np.ndarray:
    """Return y as an array with one row per image, and nothing missing."""
    truth = np.asarray(y)
    if truth.ndim == 2 and truth.shape[1] == 1:
        truth = truth[:, 0]
    if truth.ndim not in (1, 2) or len(truth) != n_rows:
        raise ValueError(f"y has the shape {truth.shape}, but X has {n_rows} images.")
    refuse_missing(y)
    return truth.astype(float) if task == "regression" else truth


def refuse_missing(y: Any) -> None:
    """Raise a ValueError if NaN, None or another missing value is in y."""
    # Of a list of text and NaN, NumPy would make text.
    values = np.asarray(y, dtype=object) if isinstance(y, list | tuple) else y
    missing = np.argwhere(pd.isna(np.asarray(values)))
    if len(missing):
        row = int(missing[0][0])
        raise ValueError(f"y is missing in row {row}: {np.asarray(values)[row]!r}.")


class Labels:
    """Numbers for labels, in the order of the classes and then as they appear."""

    def __init__(self, classes: Any):
        self.values: list[Any] = []
        self._codes: dict[Any, int] = {}
        self.encode(classes)

    def encode(self, labels: Any) -> np.ndarray:
        """Return codes of labels; new ones are remembered."""
        found = column_or_1d(labels).tolist()
        for label in found:
            if label not in self._codes:
                self._codes[label] = len(self.values)
                self.values.append(label)
        return np.array([self._codes[label] for label in found], dtype=np.int32)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Return labels of codes."""
        return np.array(self.values)[codes]


class _Given(BaseEstimator):
    """Answers with predictions that were made before."""

    def __init__(self, values=None, classes=None):
        self.values = values
        self.classes = classes

    def fit(self, X=None, y=None):
        return self

    def __sklearn_is_fitted__(self):
        return True

    def predict(self, X):
        return self.values


class GivenClasses(ClassifierMixin, _Given):
    """Answers with classes."""

    @property
    def classes_(self):
        """All there are."""
        return self.classes


class GivenNumbers(RegressorMixin, _Given):
    """Answers with numbers."""


class Scoring:
    """Scores kept predictions of all rows, or of a sample of them.

    Parameters
    ----------
    scoring : str, callable or None
        None is accuracy, or R^2 for numbers.
    task : {"classification", "regression"}
    truth : ndarray of shape (n,) or (n, n_outputs)
    classes : array-like, default=None
    labels : Labels, default=None
        If given, predictions are its codes, which take less memory than labels.

    Attributes
    ----------
    name : str
    """

    def __init__(
        self,
        scoring: Any,
        task: str,
        truth: np.ndarray,
        classes: Any = None,
        labels: Labels | None = None,
    ):
        default = "accuracy" if task == "classification" else "r2"
        self.name = default if scoring is None else scoring
        if isinstance(self.name, str) and self.name not in get_scorer_names():
            raise ValueError(
                f"scoring={scoring!r} is no scorer's name; "
                "sklearn.metrics.get_scorer_names() lists them."
            )
        self.truth = truth
        self._labels = labels
        self._target = truth if labels is None else labels.encode(truth)
        self._given: Any = GivenNumbers()
        if task == "classification":
            if classes is None:
                several = truth.ndim == 2
                classes = np.arange(truth.shape[1]) if several else np.unique(truth)
            self._given = GivenClasses(classes=np.asarray(classes))
        self._scorer = check_scoring(self._given, self.name)
        if not isinstance(self.name, str):
            self.name = getattr(scoring, "__name__", repr(scoring))

    def per_row(self, predicted: np.ndarray) -> np.ndarray | None:
        """Return values per row whose mean is the score; None where there are none."""
        if self.name == "accuracy":
            right = predicted == self._target
            return (right if right.ndim == 1 else right.all(1)).astype(float)
        if self.name == "neg_mean_absolute_error":
            return -_flat(np.abs(predicted - self.truth)).mean(1)
        if self.name == "neg_mean_squared_error":
            return -_flat((predicted - self.truth) ** 2).mean(1)
        return None

    def __call__(self, predicted: np.ndarray, rows: np.ndarray | None = None) -> float:
        """Return the score of predictions, over some rows."""
        truth = self.truth if rows is None else self.truth[rows]
        predicted = predicted if rows is None else predicted[rows]
        if self._labels is not None:
            predicted = self._labels.decode(predicted)
        self._given.values = predicted
        try:
            return float(self._scorer(self._given, np.empty((len(truth), 1)), truth))
        except (AttributeError, ValueError) as error:
            if "predict_proba" not in str(error) and "decision" not in str(error):
                raise
            raise ValueError(
                f"scoring={self.name!r} asks for probabilities; here only what "
                "`predict` returns is kept, as 'accuracy' or 'f1_macro' need it."
            ) from error


def _flat(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1)


def resamples(n_rows: int, n_resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield rows drawn with replacement, as many as there are."""
    rng = np.random.default_rng(seed)
    for _ in range(n_resamples):
        yield rng.integers(0, n_rows, n_rows)


def bootstrap_scores(
    scoring: Scoring, predictions: list[np.ndarray], n_resamples: int, seed: int
) -> np.ndarray:
    """Return scores (n_resamples, n_predictions), each row of one sample of rows.

    All predictions are scored on the same samples, so that differences are paired.
    """
    n = len(scoring.truth)
    samples = resamples(n, n_resamples, seed)
    scores = np.empty((n_resamples, len(predictions)))
    per_row = [v for p in predictions if (v := scoring.per_row(p)) is not None]
    if per_row:
        # Counts of a sample times values is the sum over it.
        values = np.stack(per_row, axis=1)
        for b, rows in enumerate(samples):
            scores[b] = np.bincount(rows, minlength=n) @ values / n
    elif scoring.name == "r2":
        truth = _flat(scoring.truth)
        squares = np.stack([(_flat(p) - truth) ** 2 for p in predictions], axis=1)
        for b, rows in enumerate(samples):
            counts = np.bincount(rows, minlength=n).astype(float)
            mean = counts @ truth / n
            spread = counts @ (truth - mean) ** 2
            lost = np.tensordot(counts, squares, axes=1)  # (n_predictions, n_outputs)
            with np.errstate(divide="ignore", invalid="ignore"):
                scores[b] = (1 - lost / spread).mean(1)
    else:
        for b, rows in enumerate(samples):
            scores[b] = [scoring(p, rows) for p in predictions]
    return scores


def bootstrap_recalls(
    right: np.ndarray, codes: np.ndarray, n_classes: int, n_resamples: int, seed: int
) -> np.ndarray:
    """Return shares of right ones per class, (n_resamples, n_predictions, n_classes).

    Parameters
    ----------
    right : ndarray of shape (n, n_predictions)
        1 where a prediction is right.
    codes : ndarray of shape (n,)
        Classes of the rows; each has at least one.
    n_classes, n_resamples, seed : int
    """
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(n_classes))
    values = np.column_stack([np.ones(len(right)), right])[order]
    result = np.empty((n_resamples, right.shape[1], n_classes))
    for b, rows in enumerate(resamples(len(codes), n_resamples, seed)):
        counts = np.bincount(rows, minlength=len(codes))[order]
        sums = np.add.reduceat(counts[:, None] * values, starts, axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            result[b] = (sums[:, 1:] / sums[:, :1]).T
    return result


def interval(values: np.ndarray, confidence_level: float) -> np.ndarray:
    """Return the percentile interval over the first axis, without NaN."""
    tail = 50 * (1 - confidence_level)
    return np.nanpercentile(values, [tail, 100 - tail], axis=0)
