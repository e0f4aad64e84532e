"""Worst mistakes, and labels that are likely wrong."""

import warnings
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone, is_regressor
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict
from sklearn.utils._param_validation import Interval, validate_params
from sklearn.utils.validation import check_is_fitted

from sklearn_dl._images import as_source
from sklearn_dl.inspection._scores import (
    as_column,
    check_labels,
    check_targets,
    columns_of,
)

METHODS = ("predict_proba", "decision_function")  # those that say how sure one is
_PARAMETERS = {
    "k": [Interval(Integral, 1, None, closed="left"), None],
    "cv": ["cv_object"],
    "random_state": ["random_state"],
}


@dataclass(frozen=True)
class Confidence:
    """Scores of the classes, one row per image, and the labels."""

    scores: np.ndarray  # (n, n_classes): probabilities, or of a `decision_function`
    classes: np.ndarray
    truth: np.ndarray  # columns of the labels, (n,)
    probabilities: bool

    @property
    def of_truth(self) -> np.ndarray:
        """Score of the label."""
        return self.scores[np.arange(len(self.scores)), self.truth]

    @property
    def margin(self) -> np.ndarray:
        """Score of the label minus the highest of the other classes."""
        others = self.scores.copy()
        others[np.arange(len(others)), self.truth] = -np.inf
        return self.of_truth - others.max(axis=1)


@validate_params(_PARAMETERS, prefer_skip_nested_validation=False)
def top_losses(estimator, X, y, k=20, *, cv=None, random_state=0) -> pd.DataFrame:
    """Return the images with the highest losses: the most confident mistakes first.

    Parameters
    ----------
    estimator : classifier or regressor
        Fitted, if `cv` is None; else it is cloned.
    X : images
        Any form that `estimator` takes.
    y : array-like of shape (n,), or (n, n_outputs) of a regressor
        Labels or numbers.
    k : int or None, default=20
        How many; None for all.
    cv : int, splitter or iterable of (train, test), default=None
        Judge each image by an estimator fitted without it. An int is a number of
        folds, shuffled, stratified for classifiers. None takes `estimator` as it was
        fitted: on the images it was fitted on, it hides their wrong labels.
    random_state : int, RandomState instance or None, default=0
        Shuffles the folds.

    Returns
    -------
    DataFrame
        One row per image, by falling loss. For classifiers:

        - ``row`` of X, and its ``path`` (None where it has none);
        - ``truth``, and ``prediction``: the class of the highest probability;
        - ``probability`` of the prediction, and ``probability_truth`` of the label;
        - ``loss``: minus the logarithm of the latter. For an estimator that has a
          `decision_function` alone, probabilities are NaN, and the loss is minus the
          margin: the highest decision value of another class minus the label's;
        - ``label_error``: whether `label_errors` has the row.

        For regressors ``row``, ``path``, ``truth``, ``prediction`` and ``loss``, the
        squared error, its mean over outputs; these are named ``truth_0`` and so on.

    Raises
    ------
    TypeError
        If a classifier has neither `predict_proba` nor `decision_function`.
    ValueError
        If y doesn't belong to X or has a label that the estimator doesn't know.
    NotFittedError
        If `cv` is None and the estimator isn't fitted.

    See Also
    --------
    label_errors : The labels among them that are likely wrong.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_dl.inspection import top_losses
    >>> X = np.repeat([[0.1], [0.2], [0.8], [0.9]], 10, axis=0)
    >>> y = np.repeat(["dark", "light"], 20)
    >>> y[3] = "light"  # on purpose
    >>> model = LogisticRegression(C=100).fit(X, y)
    >>> top_losses(model, X, y, k=1).drop(columns="path").round(2)
       row  truth prediction  probability  probability_truth  loss  label_error
    0    3  light       dark         0.97               0.03  3.36         True
    """
    if is_regressor(estimator):
        return _largest_errors(estimator, X, y, k, cv, random_state)
    found = confidence_of(estimator, X, y, cv, random_state)
    loss = -found.margin
    if found.probabilities:
        tiny = np.finfo(np.float32).tiny
        loss = 0.0 - np.log(np.maximum(found.of_truth, tiny))
    # Among equal losses, as at probability 0, the surer mistake comes first.
    order = np.lexsort((found.margin, -loss))[:k]
    table = _described(found, X, order)
    table["loss"] = loss[order]
    table["label_error"] = _likely_wrong(found)[1][order]
    return table


@validate_params(_PARAMETERS, prefer_skip_nested_validation=False)
def label_errors(estimator, X, y, *, k=None, cv=None, random_state=0) -> pd.DataFrame:
    """Return the images whose labels are likely wrong, the likeliest first.

    By confident learning [1]_: an image counts for the class in which it is as sure as
    images of this class are in the mean (the surest of them, where it is several); its
    label is likely wrong where this is another class.

    Parameters
    ----------
    estimator : classifier
        Fitted, if `cv` is None; else it is cloned.
    X : images
        Any form that `estimator` takes.
    y : array-like of shape (n,)
        Labels.
    k : int or None, default=None
        At most how many; None for all.
    cv : int, splitter or iterable of (train, test), default=None
        As in `top_losses`. On images that the estimator was fitted on, give it.
    random_state : int, RandomState instance or None, default=0
        Shuffles the folds.

    Returns
    -------
    DataFrame
        One row per image, by rising ``margin``: ``row``, ``path``, ``truth`` (the label
        as given), ``prediction``, ``probability``, ``probability_truth`` as in
        `top_losses`, ``suggestion`` (the class it counts for) and ``margin``: of the
        label's probability and the highest of the others. With a `decision_function`
        alone, margin and means are of its values.

    Raises
    ------
    TypeError, ValueError, NotFittedError
        As `top_losses`.

    Notes
    -----
    The means are each class's own, so that a classifier that is surer of one class than
    of another doesn't hide errors. Values of a `decision_function`, which the paper
    doesn't have, have no upper bound: their means are stricter, and fewer rows listed.

    References
    ----------
    .. [1] C. Northcutt, L. Jiang and I. Chuang, "Confident learning: estimating
       uncertainty in dataset labels", Journal of Artificial Intelligence Research 70
       (2021), 1373-1411.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_dl.inspection import label_errors
    >>> X = np.repeat([[0.1], [0.2], [0.8], [0.9]], 10, axis=0)
    >>> y = np.repeat(["dark", "light"], 20)
    >>> y[3] = "light"  # on purpose
    >>> label_errors(LogisticRegression(C=100), X, y, cv=5)[["row", "suggestion"]]
       row suggestion
    0    3       dark
    """
    if is_regressor(estimator):
        raise TypeError(
            f"{type(estimator).__name__} is a regressor; label_errors takes a "
            "classifier. Its largest errors are top_losses."
        )
    found = confidence_of(estimator, X, y, cv, random_state)
    counted, wrong = _likely_wrong(found)
    rows = np.flatnonzero(wrong)
    order = rows[np.argsort(found.margin[rows], kind="stable")][:k]
    table = _described(found, X, order)
    table["suggestion"] = as_column(found.classes[counted[order]])
    table["margin"] = found.margin[order]
    return table


def _described(found: Confidence, X, rows: np.ndarray) -> pd.DataFrame:
    predicted = found.scores.argmax(axis=1)[rows]
    known = found.probabilities
    return pd.DataFrame(
        {
            "row": rows,
            "path": paths_of(X, rows),
            "truth": as_column(found.classes[found.truth[rows]]),
            "prediction": as_column(found.classes[predicted]),
            "probability": found.scores[rows, predicted] if known else np.nan,
            "probability_truth": found.of_truth[rows] if known else np.nan,
        }
    )


def _likely_wrong(found: Confidence) -> tuple[np.ndarray, np.ndarray]:
    """Return the class for which each image counts, -1 for none, and if it is wrong."""
    thresholds = np.full(len(found.classes), np.inf)  # for a class without images
    means = pd.Series(found.of_truth).groupby(found.truth).mean()
    thresholds[means.index] = means
    # Rounding must not push an image below the mean of equal ones.
    slack = 1e-9 * np.maximum(np.abs(thresholds), 1)
    sure = found.scores >= thresholds - np.where(np.isfinite(slack), slack, 0)
    scores = np.where(sure, found.scores, -np.inf)
    counted = np.where(sure.any(axis=1), scores.argmax(axis=1), -1)
    return counted, (counted >= 0) & (counted != found.truth)


def _largest_errors(estimator, X, y, k, cv, random_state) -> pd.DataFrame:
    predicted = answers_under(estimator, X, y, cv, random_state, "predict")
    truth = check_targets(y, "regression", len(predicted))
    if predicted.ndim == 2 and truth.ndim == 1:
        predicted = predicted[:, 0]
    loss = ((predicted - truth) ** 2).reshape(len(truth), -1).mean(axis=1)
    order = np.argsort(-loss, kind="stable")[:k]
    table = pd.DataFrame({"row": order, "path": paths_of(X, order)})
    for name, values in (("truth", truth), ("prediction", predicted)):
        if values.ndim == 1:
            table[name] = values[order]
        else:
            table[[f"{name}_{c}" for c in range(values.shape[1])]] = values[order]
    table["loss"] = loss[order]
    return table


def answers_under(estimator, X, y, cv, random_state, method: str) -> np.ndarray:
    """Return what an estimator answers, fitted or cross-validated."""
    if cv is None:
        check_is_fitted(estimator)
        return np.asarray(getattr(estimator, method)(X), dtype=float)
    if isinstance(cv, Integral):
        # Folders come class by class.
        kind = KFold if is_regressor(estimator) else StratifiedKFold
        cv = kind(int(cv), shuffle=True, random_state=random_state)
    found = cross_val_predict(clone(estimator), X, y, cv=cv, method=method)
    return np.asarray(found, dtype=float)


def confidence_of(estimator, X, y, cv, random_state) -> Confidence:
    """Return how sure a classifier is."""
    y = check_labels(y, len(y))
    method = next((name for name in METHODS if hasattr(estimator, name)), None)
    if method is None:
        raise TypeError(
            f"{type(estimator).__name__} has neither predict_proba nor "
            "decision_function: its mistakes can't be ranked. A VotingClassifier has "
            "probabilities with voting='soft', an SVM within CalibratedClassifierCV."
        )
    scores = answers_under(estimator, X, y, cv, random_state, method)
    classes = estimator.classes_ if cv is None else np.unique(y)
    if len(scores) != len(y):
        raise ValueError(f"X has {len(scores)} images, but y has {len(y)} labels.")
    halved = 1 if scores.ndim > 1 else 2  # of two classes the margin is the value
    scores = columns_of(scores, classes, method, estimator) / halved
    labels = y.tolist()
    column = {label: c for c, label in enumerate(classes.tolist())}
    row = next((r for r, label in enumerate(labels) if label not in column), None)
    if row is not None:
        raise ValueError(
            f"Row {row} has the label {labels[row]!r}, which the estimator doesn't "
            f"know: its classes are {classes.tolist()!r:.200}."
        )
    truth = np.array([column[label] for label in labels])
    return Confidence(scores, classes, truth, method == "predict_proba")


def paths_of(X: Any, rows: Any) -> pd.Series:
    """Return the paths of some images, None where they have none."""
    paths: list[str | None] = [None] * len(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numbers were looked at by the estimator
        try:
            source = as_source(X)
        except (TypeError, ValueError):  # a table with columns besides the images
            source = None
    if source is not None:
        paths = [source.path(row) for row in rows.tolist()]
    return pd.Series(paths, dtype=object)
