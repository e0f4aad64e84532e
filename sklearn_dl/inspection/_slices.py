"""Scores of slices of the images, cut by the columns of a table."""

from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn.utils._param_validation import Interval, validate_params

from sklearn_dl.inspection._scores import (
    Scoring,
    answers_of,
    bootstrap,
    check_targets,
    interval,
    task_of,
)

_SMALL = 30  # images


@validate_params(
    {
        "n_bins": [Interval(Integral, 2, None, closed="left")],
        "n_resamples": [Interval(Integral, 1, None, closed="left")],
        "confidence_level": [Interval(Real, 0, 1, closed="neither")],
    },
    prefer_skip_nested_validation=False,
)
def slice_scores(
    estimator_or_y_true,
    X_or_y_pred,
    y=None,
    /,
    *,
    slices,
    scoring=None,
    n_bins=4,
    n_resamples=1000,
    confidence_level=0.95,
) -> pd.DataFrame:
    """Return the score of each slice of the images, the worst first.

    Called as ``slice_scores(estimator, X, y, slices=...)`` or ``slice_scores(y_true,
    y_pred, slices=...)``. Predictions are made once for all slices.

    Parameters
    ----------
    estimator_or_y_true : fitted classifier or regressor, or array-like of shape (n,)
        The estimator; or the truth.
    X_or_y_pred : images, or array-like of shape (n,)
        Any form that the estimator takes; or its predictions.
    y : array-like of shape (n,), default=None
        The truth, with an estimator.
    slices : DataFrame, Series, dict or array-like of shape (n,)
        What is known of the images, in the order of X: each column is cut by itself,
        and each image is in one slice of it. Text, categories, booleans, numbers of at
        most `n_bins` values and whole numbers of at most 10 are slices as they are.
        Among other numbers infinities are, and values that 1 / `n_bins` of the images
        or more have; the rest is cut at quantiles. What is missing is a slice.
    scoring : str or callable, default=None
        A score that needs no more than `predict`: a name of scikit-learn's, or a
        callable ``scoring(estimator, X, y)``. None is accuracy for labels and
        ``"neg_mean_absolute_error"`` for numbers: R^2 has another scale in each slice.
    n_bins : int, default=4
        Number of slices that finite numbers are cut into: frequent values, and
        quantiles with about as many images each.
    n_resamples : int, default=1000
        Bootstrap samples, for scores other than accuracy; drawn the same each time.
    confidence_level : float, default=0.95
        Probability that an interval covers the score.

    Returns
    -------
    DataFrame
        One row per slice, by rising score: ``column``, ``value`` (as text, the bounds
        of a quantile, or "missing": "(missing)" beside a value of this name), ``n``,
        ``score``, ``low`` and ``high``, its interval, ``gap`` (score of all images
        minus it) and ``small`` (fewer than 30 images). Accuracy has Wilson's interval
        [1]_, other scores that of the bootstrap within the slice. A score
        that isn't defined in a slice is NaN, and last. ``attrs["score"]`` is the score
        of all images.

    Raises
    ------
    ValueError
        If lengths differ, or the score isn't known.
    NotFittedError
        If the estimator isn't fitted.

    See Also
    --------
    image_statistics : Brightness, sharpness and others as columns.

    Notes
    -----
    The worst of many slices looks worse than it is: look at the interval and the flag
    before the score.

    References
    ----------
    .. [1] E. B. Wilson, "Probable inference, the law of succession, and statistical
       inference", Journal of the American Statistical Association 22 (1927), 209-212.

    Examples
    --------
    >>> from sklearn_dl.inspection import slice_scores
    >>> found = slice_scores(
    ...     [1, 1, 0, 0, 1, 1],
    ...     [1, 1, 0, 0, 0, 1],
    ...     slices={"camera": ["a", "a", "a", "b", "b", "b"]},
    ... )
    >>> found.round(3)
       column value  n  score    low   high    gap  small
    0  camera     b  3  0.667  0.208  0.939  0.167   True
    1  camera     a  3  1.000  0.439  1.000 -0.167   True
    """
    estimator, y, predicted = answers_of(estimator_or_y_true, X_or_y_pred, y)
    classes = getattr(estimator, "classes_", None)
    if estimator is not None:
        task = task_of(estimator)
    else:
        kinds = {np.asarray(y).dtype.kind, predicted.dtype.kind}
        task = "regression" if "f" in kinds else "classification"
    truth = check_targets(y, task, len(predicted))
    if task == "regression" and scoring is None:
        scoring = "neg_mean_absolute_error"
    table = slices_table(slices, len(truth))
    whole = Scoring(scoring, task, truth, classes)
    overall = whole(predicted)
    rows = []
    for number, column in enumerate(table.columns):
        for value, members in _parts(table.iloc[:, number], n_bins):
            part = Scoring(scoring, task, truth[members], classes)
            own = predicted[members]
            bounds = _bounds(part, own, n_resamples, confidence_level)
            rows.append((str(column), value, len(own), part(own), *bounds))
    found = pd.DataFrame(rows, columns=["column", "value", "n", "score", "low", "high"])
    found["gap"] = overall - found["score"]
    found["small"] = found["n"] < _SMALL
    found = found.sort_values("score", kind="stable", ignore_index=True)
    found.attrs["score"] = overall
    return found


def slices_table(slices: Any, n_rows: int) -> pd.DataFrame:
    """Return slices in any form as a table, a row for each image."""
    if isinstance(slices, pd.Series):
        table = slices.to_frame("slice" if slices.name is None else slices.name)
    elif isinstance(slices, pd.DataFrame | dict):
        table = pd.DataFrame(slices)
    else:
        table = pd.DataFrame({"slice": np.asarray(slices)})
    if len(table) != n_rows:
        raise ValueError(
            f"slices has {len(table)} rows, but there are {n_rows} images."
        )
    return table.reset_index(drop=True)


def _parts(column: pd.Series, n_bins: int) -> list[tuple[str, np.ndarray]]:
    """Return the slices of one column, their names and rows; each row is in one."""
    missing = column.isna().to_numpy()
    known = column[~missing].infer_objects()
    groups = [known]
    kind = known.dtype
    if pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_bool_dtype(kind):
        groups = _cut(known, n_bins)
    parts = [
        (str(value), rows.to_numpy())
        for group in groups
        for value, rows in group.index.to_series().groupby(group, observed=True)
    ]
    if missing.any():
        taken = any(name == "missing" for name, _ in parts)
        name = "(missing)" if taken else "missing"
        parts.append((name, np.flatnonzero(missing)))
    return parts


def _cut(numbers: pd.Series, n_bins: int) -> list[pd.Series]:
    """Return what numbers are grouped by: themselves, or quantiles."""
    floats = numbers.astype(float)
    infinite = np.isinf(floats)
    finite = floats[~infinite]
    few = max(10, n_bins) if (finite == finite.round()).all() else n_bins
    if finite.nunique() <= few:
        # Large integers may differ where floats don't.
        return [numbers if numbers[~infinite].nunique() <= few else floats]
    frequent = floats.map(floats.value_counts()) * n_bins >= len(floats)
    alone = infinite | frequent
    rest = floats[~alone]
    bins = n_bins - floats[frequent].nunique()
    if rest.nunique() > bins:
        rest = pd.qcut(rest, bins, duplicates="drop")
    return [numbers[alone], rest]


def _bounds(scoring: Scoring, predicted, n_resamples: int, level: float) -> tuple:
    """Return the bounds of a score's interval."""
    n = len(predicted)
    if scoring.name == "accuracy":
        n_right = round(scoring(predicted) * n)
        return tuple(binomtest(n_right, n).proportion_ci(level, "wilson"))
    spread = bootstrap(scoring.of_rows([predicted]), n, n_resamples, seed=0)
    if not np.isfinite(spread).any():
        return np.nan, np.nan
    return tuple(interval(spread[:, 0], level))
