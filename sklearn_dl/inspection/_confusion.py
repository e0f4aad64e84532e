"""Pairs of classes that a classifier takes for each other."""

from numbers import Integral

import numpy as np
import pandas as pd
from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import Interval, validate_params

from sklearn_dl.inspection._losses import METHODS
from sklearn_dl.inspection._scores import answers_of, as_column, check_labels


@validate_params(
    {
        "k": [Interval(Integral, 1, None, closed="left"), None],
        "n_examples": [Interval(Integral, 0, None, closed="left")],
    },
    prefer_skip_nested_validation=False,
)
def most_confused(
    estimator_or_y_true, X_or_y_pred, y=None, /, *, k=10, n_examples=6
) -> pd.DataFrame:
    """Return the pairs of classes that are confused most often, with examples.

    Called as ``most_confused(estimator, X, y)`` or ``most_confused(y_true, y_pred)``.

    Parameters
    ----------
    estimator_or_y_true : fitted classifier, or array-like of shape (n,)
        The classifier; or the labels.
    X_or_y_pred : images, or array-like of shape (n,)
        Any form that the classifier takes; or its predictions.
    y : array-like of shape (n,), default=None
        The labels, with a classifier.
    k : int or None, default=10
        How many pairs; None for all.
    n_examples : int, default=6
        Rows given of each pair at most.

    Returns
    -------
    DataFrame
        One row per pair, by falling number, then rate: ``truth``, ``prediction``, ``n``
        (images of the first that were taken for the second), ``rate`` (their share of
        the images of the first) and ``examples``, a list of rows of X: the most
        confident mistakes first where a classifier with `predict_proba` or
        `decision_function` is given, else in their order. Empty without a mistake.

    Raises
    ------
    ValueError
        If the lengths differ, or there are several labels per image.
    NotFittedError
        If the classifier isn't fitted.

    Examples
    --------
    >>> from sklearn_dl.inspection import most_confused
    >>> y_true = ["ant", "ant", "ant", "bee", "bee", "wasp", "wasp"]
    >>> y_pred = ["ant", "bee", "ant", "bee", "wasp", "bee", "bee"]
    >>> most_confused(y_true, y_pred)
      truth prediction  n      rate examples
    0  wasp        bee  2  1.000000   [5, 6]
    1   bee       wasp  1  0.500000      [4]
    2   ant        bee  1  0.333333      [1]
    """
    estimator, truth, predicted = answers_of(estimator_or_y_true, X_or_y_pred, y)
    predicted = check_labels(predicted, len(predicted))
    truth = check_labels(truth, len(predicted))
    n = len(truth)
    codes, names = pd.factorize(np.concatenate([truth, predicted]), sort=True)
    table = pd.DataFrame({"truth": codes[:n], "prediction": codes[n:]})
    wrong = table[table["truth"] != table["prediction"]]
    groups = wrong.groupby(["truth", "prediction"]).groups
    pairs = np.array([*groups], dtype=int).reshape(-1, 2)
    counts = np.array([len(rows) for rows in groups.values()], dtype=int)
    found = pd.DataFrame(
        {
            "truth": as_column(names[pairs[:, 0]]),
            "prediction": as_column(names[pairs[:, 1]]),
            "n": counts,
            "rate": counts / np.bincount(codes[:n])[pairs[:, 0]],
            "examples": pd.Series([[*rows] for rows in groups.values()], dtype=object),
        }
    )
    found = found.sort_values(["n", "rate"], ascending=False, kind="stable")
    found = found.head(len(found) if k is None else k).reset_index(drop=True)
    if estimator is not None and n_examples and len(found):
        found["examples"] = by_confidence(
            estimator, X_or_y_pred, found["prediction"], found["examples"]
        )
    found["examples"] = [rows[:n_examples] for rows in found["examples"]]
    return found


def by_confidence(estimator, X, predictions, examples) -> list[list[int]]:
    """Return the rows of each pair, the surest prediction first."""
    name = next((name for name in METHODS if hasattr(estimator, name)), None)
    if name is None:
        return list(examples)
    rows = np.concatenate([np.array(part) for part in examples])
    scores = np.asarray(getattr(estimator, name)(_safe_indexing(X, rows)))
    classes = list(estimator.classes_)
    if scores.ndim == 1:
        scores = np.stack([-scores, scores], axis=1)
    if scores.shape[1] != len(classes):
        return list(examples)
    table = pd.DataFrame(-scores, index=rows, columns=range(len(classes)))
    return [
        table[classes.index(label)].loc[part].sort_values(kind="stable").index.tolist()
        for label, part in zip(predictions, examples, strict=True)
    ]
