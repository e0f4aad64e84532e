"""Errors of an ensemble's members on data, and the gain of their vote."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sklearn_dl.ensemble._measures import measure_labels, measure_numbers
from sklearn_dl.ensemble._members import member_outputs

_TASKS = ("auto", "classification", "regression")


@dataclass(frozen=True, repr=False, eq=False, kw_only=True)
class Diversity:
    """What `diversity` found; printed, it says so in words.

    Errors are shares of rows for classifiers, and root mean squared errors (RMSE), in
    the unit of y, for regressors. The measures of pairs are those of [1]_, the
    ambiguity that of [2]_.

    Attributes
    ----------
    task : {"classification", "regression"}
    n_rows : int
        Rows of (X, y).
    n_classes : int or None
        Different labels in y and the predictions; None for regressors.
    members : DataFrame
        One row per member, named by it:

        - ``error``, and its ``standard_error`` as an estimate from these rows;
        - ``bias``, the mean of prediction minus y (regressors only);
        - ``weight`` in the vote; all together 1.
    pairs : DataFrame
        One row per pair of members, ``first`` and ``second``:

        - ``correlation`` of their errors: of "is wrong" (phi) for classifiers, of
          prediction minus y for regressors. NaN where one of them is the same in all
          rows, as that of a member without errors;
        - ``disagreement``: the share of rows where they predict different labels; for
          regressors the root mean square of the difference, in the unit of y;

        and for classifiers

        - ``both_wrong``: the share of rows that both get wrong;
        - ``overlap``: that as a share of the rows that one or both get wrong
          (Jaccard). NaN where none is wrong;
        - ``q_statistic``: Yule's Q of "is right", in [-1, 1], 0 for independent
          members. NaN where it is 0/0.
    vote_error : float
        Error of the plurality vote, or of the mean of the regressors. Where several
        labels have the most votes, each of them wins with the same probability, as in
        `majority_vote_error`: this is the expected error.
    vote_standard_error : float
        Standard error of `vote_error`, as an estimate from these rows.
    soft_vote_error : float or None
        Error of the mean of the members' probabilities, with the same rule for ties.
        None where a member has none, or predictions were given.
    independent_error : float
        What `vote_error` would be if the members had these errors independently: by
        `majority_vote_error`, so wrong votes are spread evenly over the other classes;
        for regressors by the rule of `average_error` without correlation. The unequal
        weights of a vote are simulated, with a standard error below 0.004.
    mean_member_error : float
        Mean error of the members, weighted as in the vote; for regressors the root of
        the mean of their squared errors.
    oracle_error : float or None
        Share of rows that every member gets wrong; None for regressors.
    ambiguity : float or None
        Mean squared deviation of the regressors from their mean, in squared units of
        y: ``vote_error**2 == mean_member_error**2 - ambiguity``. None for classifiers.
    gain : float
        `best_member_error` minus `vote_error`. The best member is chosen on the rows
        it is measured on, which flatters it a little.
    gain_standard_error : float
        Standard error of `gain`, from the differences in each row; NaN for one row.

    References
    ----------
    .. [1] L. I. Kuncheva and C. J. Whitaker, "Measures of diversity in classifier
       ensembles and their relationship with the ensemble accuracy", Machine Learning 51
       (2003), 181-207.
    .. [2] A. Krogh and J. Vedelsby, "Neural network ensembles, cross validation, and
       active learning", Advances in Neural Information Processing Systems 7 (1995),
       231-238.

    Examples
    --------
    >>> from sklearn_dl.ensemble import diversity
    >>> votes = {"a": [1, 0, 0, 1], "b": [1, 1, 0, 0], "c": [0, 1, 1, 1]}
    >>> found = diversity(votes, None, [1, 1, 0, 1])
    >>> found.matrix("both_wrong")
          a     b    c
    a  0.25  0.00  0.0
    b  0.00  0.25  0.0
    c  0.00  0.00  0.5
    """

    task: str
    n_rows: int
    n_classes: int | None = None
    members: pd.DataFrame
    pairs: pd.DataFrame
    vote_error: float
    vote_standard_error: float
    soft_vote_error: float | None = None
    independent_error: float
    mean_member_error: float
    oracle_error: float | None = None
    ambiguity: float | None = None
    gain: float
    gain_standard_error: float

    @property
    def best_member(self) -> str:
        """Name of the member with the smallest error, the first of equal ones."""
        return str(self.members["error"].idxmin())

    @property
    def best_member_error(self) -> float:
        """Smallest error of a member."""
        return float(self.members["error"].min())

    def matrix(self, value: str = "correlation") -> pd.DataFrame:
        """Return a column of `pairs` as a symmetric table of members by members.

        Parameters
        ----------
        value : str, default="correlation"
            Any column of `pairs` but the names.

        Returns
        -------
        DataFrame of shape (n_members, n_members)
            Its diagonal says what a member has with itself: its error for
            ``"both_wrong"``, 0 for ``"disagreement"``, 1 for the others.

        Raises
        ------
        ValueError
            If there is no such column.
        """
        values = [name for name in self.pairs if name not in ("first", "second")]
        if value not in values:
            raise ValueError(f"value must be one of {values}, got {value!r}.")
        names = self.members.index.rename(None)
        table = np.eye(len(names)) * (value != "disagreement")
        if value == "both_wrong":
            table *= self.members["error"].to_numpy()
        upper = np.triu_indices(len(names), 1)  # the order of the pairs
        table[upper] = self.pairs[value]
        table.T[upper] = self.pairs[value]
        return pd.DataFrame(table, index=names, columns=names)

    def summary(self) -> str:
        """Return in a few lines whether the vote gained, and why."""
        votes, errors = self.task == "classification", self.members["error"]
        kind, name, error, word = ("regressors", "RMSE", "RMSE", "mean")
        if votes:
            kind, name, error, word = ("classifiers", "errors", "Error", "vote")

        def number(value: float) -> str:
            near = votes and not 0 < value < 0.0005
            return f"{value:.3f}" if near else f"{value:.3g}"

        soft = ""
        if self.soft_vote_error is not None:
            soft = f", {number(self.soft_vote_error)} of mean probabilities"
        low, high = number(errors.min()), number(errors.max())
        return (
            f"The {word} {_verdict(self, number)}.\n"
            f"{len(errors)} {kind} on {self.n_rows:,} rows: {name} {low} to {high}, "
            f"mean {number(self.mean_member_error)}.\n"
            f"{_words_of_pairs(self, number)}\n"
            f"{error} {number(self.vote_error)} of the {word}{soft}; "
            f"{number(self.independent_error)} if members were independent."
        )

    __repr__ = summary


def diversity(
    members: Any, X, y, *, weights=None, soft: bool = True, task: str = "auto"
) -> Diversity:
    """Return what the members of an ensemble do on data, and what their vote gains.

    A vote gains where members err on different rows. This measures how far they do:
    errors of each member and pair, and the error of the vote beside the error that it
    would have if the members were independent. Take rows that no member was fitted on.

    Parameters
    ----------
    members : dict, list or fitted ensemble
        - a dict of names and fitted estimators, or a list of them or of (name,
          estimator) pairs: all classifiers, or all regressors;
        - a fitted voting, stacking, bagging, AdaBoost or forest ensemble of
          scikit-learn, or a pipeline that ends in one: its members, with its weights.
          It is their vote (or mean) that is measured, whatever the ensemble makes of
          them: a stack has its final estimator, and AdaBoostRegressor the median;
        - a dict of names and predictions, with ``X=None``.
    X : array-like, images or None
        What the members take. None where `members` holds predictions.
    y : array-like of shape (n_rows,)
        The true labels or numbers. With several targets, give one at a time, with
        predictions.
    weights : array-like of shape (n_members,), default=None
        Weights of the members in the vote, not negative. None takes those of the
        fitted ensemble, else equal ones.
    soft : bool, default=True
        Also ask the members for their probabilities, where all have them: a second
        pass over X.
    task : {"auto", "classification", "regression"}, default="auto"
        What y is. "auto" asks the estimators; of predictions, it is regression if
        they or y hold fractions.

    Returns
    -------
    Diversity

    Raises
    ------
    TypeError
        If `members` is none of these.
    ValueError
        If there are fewer than two members, predictions don't have the shape or kind
        of y, or weights are not possible.
    sklearn.exceptions.NotFittedError
        If an ensemble or a member isn't fitted.

    See Also
    --------
    DiversityDisplay : The same as a picture.
    majority_vote_error : The vote of independent members.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.naive_bayes import GaussianNB
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from sklearn_dl.ensemble import diversity
    >>> X, y = load_iris(return_X_y=True)
    >>> members = {
    ...     "logistic": LogisticRegression(max_iter=1000),
    ...     "bayes": GaussianNB(),
    ...     "tree": DecisionTreeClassifier(max_depth=2, random_state=0),
    ... }
    >>> fitted = {name: m.fit(X[::2], y[::2]) for name, m in members.items()}
    >>> found = diversity(fitted, X[1::2], y[1::2])
    >>> found
    The vote gained nothing over the best member, logistic: the members err on the
    same rows.
    3 classifiers on 75 rows: errors 0.040 to 0.053, mean 0.044.
    Pairs share 55% of their errors (correlation 0.69); 2.7% of rows defeat every
    member.
    Error 0.040 of the vote, 0.040 of mean probabilities; 0.005 if members were
    independent.
    >>> found.members.round(3)
              error  standard_error  weight
    member
    logistic  0.040           0.023   0.333
    bayes     0.040           0.023   0.333
    tree      0.053           0.026   0.333
    """
    if task not in _TASKS:
        raise ValueError(f"task must be one of {_TASKS}, got {task!r}.")
    truth = _column(y, "y")
    outputs = member_outputs(members, X, soft=soft)
    names = list(outputs.predictions)
    if len(names) < 2:
        raise ValueError(f"diversity compares two or more members, got {names}.")
    predictions = [
        _column(values, f"The predictions of {name!r}", len(truth))
        for name, values in outputs.predictions.items()
    ]
    weights = _check_weights(outputs.weights if weights is None else weights, names)
    if task == "auto":
        columns = [truth, *predictions]
        fractions = any(c.dtype.kind == "f" and (c % 1 != 0).any() for c in columns)
        task = outputs.task or ("regression" if fractions else "classification")
    if task == "classification":
        found = measure_labels(
            names, predictions, truth, weights, outputs.probabilities
        )
    else:
        found = measure_numbers(names, predictions, truth, weights)
    return Diversity(task=task, n_rows=len(truth), **found)


def _column(values, what: str, n_rows: int | None = None) -> np.ndarray:
    """Return one value per row as an array."""
    column = np.asarray(values)
    if column.ndim == 2 and column.shape[1] == 1:
        column = column[:, 0]
    if column.ndim != 1:
        raise ValueError(
            f"{what} must hold one value per row, got the shape {column.shape}; of "
            "several targets give one at a time, as predictions."
        )
    if n_rows is not None and len(column) != n_rows:
        raise ValueError(f"{what} are of {len(column)} rows, but y has {n_rows}.")
    if len(column) == 0:
        raise ValueError(f"{what} must hold at least one row.")
    if pd.isna(column).any():
        row = np.flatnonzero(pd.isna(column))[0]
        raise ValueError(f"{what} must not be missing, but row {row} is {column[row]}.")
    return column


def _check_weights(weights, names: list[str]) -> np.ndarray:
    """Return weights with the sum 1."""
    if weights is None:
        return np.full(len(names), 1 / len(names))
    wanted = f"must be a list of numbers, one for each of {len(names)} members"
    try:
        checked = np.asarray(weights, dtype=float)
    except (TypeError, ValueError) as error:
        raise TypeError(f"weights={weights!r} {wanted} in their order.") from error
    if checked.shape != (len(names),):
        raise ValueError(f"weights {wanted}, got the shape {checked.shape}.")
    if not (np.isfinite(checked).all() and (checked >= 0).all() and checked.any()):
        wanted = "must be finite, at least 0 and not all 0"
        raise ValueError(f"weights {wanted}, got {checked.tolist()}.")
    checked = checked / checked.max()  # the sum of large ones is infinite
    return checked / checked.sum()


def _verdict(found, number) -> str:
    best = f"the best member, {found.best_member}"
    if found.best_member_error == 0:
        return f"can't gain: {best}, made no error"
    spread, size = found.gain_standard_error, abs(found.gain)
    if size < 1e-12:
        return f"gained nothing over {best}{_reason(found)}"
    verb = "gained {} over" if found.gain > 0 else "lost {} against"
    line = f"{verb.format(number(size))} {best}"
    if np.isfinite(spread):
        line += f" (standard error {number(spread)})"
    if not size > 2 * spread:
        line += ", within chance"
    return line + _reason(found)


def _reason(found) -> str:
    """Return why a vote gained little."""
    if found.gain > 2 * found.gain_standard_error:
        return ""
    if found.gain <= 0 and found.independent_error >= found.best_member_error:
        return ": with these errors not even independent members would gain"
    # More than the correlation of independent members comes to by chance.
    correlated = found.pairs["correlation"].mean() > 2 / np.sqrt(found.n_rows)
    if correlated and found.vote_error > found.independent_error:
        rows = "on the same rows" if found.task == "classification" else "alike"
        return f": the members err {rows}"
    return ""


def _words_of_pairs(found, number) -> str:
    pairs = found.pairs.drop(columns=["first", "second"]).mean()
    correlation = "correlation not defined"
    if np.isfinite(pairs["correlation"]):
        correlation = f"correlation {pairs['correlation']:.2f}"
    if found.task == "regression":
        apart = number(pairs["disagreement"])
        return f"Errors of a pair: {correlation}; its predictions are {apart} apart."
    shared = "No pair has an error"
    if not np.isnan(pairs["overlap"]):
        shared = f"Pairs share {pairs['overlap']:.0%} of their errors ({correlation})"
    return f"{shared}; {found.oracle_error:.1%} of rows defeat every member."
