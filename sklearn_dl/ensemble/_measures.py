"""Errors of members, of their pairs and of their vote or mean."""

from collections.abc import Iterable
from itertools import combinations

import numpy as np
import pandas as pd

from sklearn_dl.ensemble._vote import majority_vote_error


def measure_labels(names, predictions, truth, weights, probabilities) -> dict:
    """Return the fields of a `Diversity` of classifiers; weights have the sum 1."""
    codes, labels = _encode(["y", *names], [truth, *predictions])
    truth, votes = codes[0], codes[1:]
    wrong = votes != truth
    errors = wrong.mean(axis=1)
    n, n_classes = len(truth), max(len(labels), 2)
    lost = _lost(_tally(votes, weights, n, n_classes), truth)
    gains = wrong[errors.argmin()] - lost
    soft = None
    if probabilities:
        soft = float(_soft_lost(probabilities, weights, labels, truth).mean())
    spread = np.sqrt(errors * (1 - errors) / n)
    # Rows that both of a pair get wrong, one alone, and none.
    first, second = np.triu_indices(len(names), 1)
    both = (wrong.astype(float) @ wrong.T)[first, second]  # whole numbers: exact
    one, other = (wrong.sum(axis=1)[place] - both for place in (first, second))
    agree, differ = both * (n - both - one - other), one * other
    pairs = {
        "correlation": _correlations(wrong.astype(float), 1.0),
        "disagreement": [np.mean(a != b) for a, b in combinations(votes, 2)],
        "both_wrong": both / n,
        "overlap": _ratio(both, both + one + other),
        "q_statistic": _ratio(agree - differ, agree + differ),
    }
    return {
        "n_classes": n_classes,
        "members": _members(names, error=errors, standard_error=spread, weight=weights),
        "pairs": _pairs(names, pairs),
        "vote_error": float(lost.mean()),
        "vote_standard_error": _standard_error(lost),
        "soft_vote_error": soft,
        "independent_error": _independent_error(errors, weights, n_classes),
        "mean_member_error": float(weights @ errors),
        "oracle_error": float(wrong.all(axis=0).mean()),
        "gain": float(gains.mean()),
        "gain_standard_error": _standard_error(gains, ddof=1),
    }


def measure_numbers(names, predictions, truth, weights) -> dict:
    """Return the fields of a `Diversity` of regressors; weights have the sum 1."""
    truth = _floats(truth, "y")
    values = np.stack(
        [_floats(p, f"Member {n!r}") for n, p in zip(names, predictions, strict=True)]
    )
    residuals = values - truth
    squares = residuals**2
    errors = np.sqrt(squares.mean(axis=1))
    bias, variance = residuals.mean(axis=1), residuals.var(axis=1)
    mean_squares = (weights @ residuals) ** 2
    vote_error = float(np.sqrt(mean_squares.mean()))
    best = errors.argmin()
    # To first order, the root's change is half the mean's, over the root.
    slopes = [_half_over(s, e) for s, e in zip(squares, errors, strict=True)]
    vote_slopes = _half_over(mean_squares, vote_error)
    spread = [_standard_error(one) for one in slopes]
    independent = (weights @ bias) ** 2 + weights**2 @ variance
    apart = [np.sqrt(np.mean((a - b) ** 2)) for a, b in combinations(values, 2)]
    correlations = _correlations(residuals, np.abs(values).max())
    return {
        "members": _members(
            names, error=errors, standard_error=spread, bias=bias, weight=weights
        ),
        "pairs": _pairs(names, {"correlation": correlations, "disagreement": apart}),
        "vote_error": vote_error,
        "vote_standard_error": _standard_error(vote_slopes),
        "independent_error": float(np.sqrt(independent)),
        "mean_member_error": float(np.sqrt(weights @ errors**2)),
        "ambiguity": float((weights @ (values - weights @ values) ** 2).mean()),
        "gain": float(errors[best] - vote_error),
        "gain_standard_error": _standard_error(slopes[best] - vote_slopes, ddof=1),
    }


def _members(names, **columns) -> pd.DataFrame:
    # Not all names can be in pandas' own type of text.
    index = pd.Index(names, dtype=object, name="member")
    return pd.DataFrame(columns, index=index)


def _pairs(names, columns: dict) -> pd.DataFrame:
    both = [*combinations(names, 2)]
    pairs = pd.DataFrame(both, columns=["first", "second"], dtype=object)
    return pairs.assign(**columns)


def _standard_error(values: np.ndarray, ddof: int = 0) -> float:
    """Return the standard error of a mean."""
    n = len(values)
    return float(values.std(ddof=ddof) / np.sqrt(n)) if n > ddof else float("nan")


def _correlations(errors: np.ndarray, size: float) -> np.ndarray:
    """Return the correlation of each pair of rows, NaN where one is constant."""
    centred = errors - errors.mean(axis=1, keepdims=True)
    # Rounding is no spread: a constant error has no correlation.
    centred[np.abs(centred).max(axis=1) <= 1e-12 * size] = 0.0
    lengths = np.sqrt((centred**2).sum(axis=1, keepdims=True))
    unit = _ratio(centred, lengths)
    return np.clip((unit @ unit.T)[np.triu_indices(len(errors), 1)], -1, 1)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Return the quotient, NaN where it is 0/0."""
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below != 0)


def _encode(names, columns) -> tuple[np.ndarray, np.ndarray]:
    """Return codes of shape (n_columns, n_rows) and their labels, in no order."""
    # As objects: of numbers and strings together NumPy would make strings.
    objects = [column.astype(object) for column in columns]
    for name, column in zip(names, objects, strict=True):
        if isinstance(column[0], str) != isinstance(objects[0][0], str):
            raise ValueError(
                f"Member {name!r} predicts labels like {column[0]!r}, but y holds "
                f"labels like {objects[0][0]!r}."
            )
    codes, labels = pd.factorize(np.concatenate(objects))
    return codes.reshape(len(columns), -1), labels


def _tally(votes: Iterable, weights, n_rows: int, n_classes: int) -> np.ndarray:
    """Return the weight of the votes for each class, (n_rows, n_classes)."""
    tally = np.zeros((n_rows, n_classes))
    rows = np.arange(n_rows)
    for vote, weight in zip(votes, weights, strict=True):
        tally[rows, vote] += weight
    return tally


def _lost(tally: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the probability of each row that the vote is wrong; ties are drawn."""
    winners = tally > tally.max(axis=1, keepdims=True) - 1e-9
    right = winners[np.arange(len(truth)), truth]
    return 1 - right / winners.sum(axis=1)


def _soft_lost(probabilities, weights, labels, truth) -> np.ndarray:
    """Return the same for the mean of the probabilities, 0 for a class not known."""
    known = list(labels)
    known += [label for classes, _ in probabilities for label in classes]
    column = {label: i for i, label in enumerate(dict.fromkeys(known))}
    mean = np.zeros((len(truth), len(column)))
    for (classes, values), weight in zip(probabilities, weights, strict=True):
        mean[:, [column[label] for label in classes]] += weight * np.asarray(values)
    return _lost(mean, truth)


def _independent_error(errors, weights, n_classes: int) -> float:
    if np.ptp(weights) < 1e-12:
        return majority_vote_error(errors, n_classes=n_classes)
    n_draws = min(100_000, 20_000_000 // n_classes)  # bounds the tally's memory
    rng = np.random.default_rng(0)
    votes = (
        np.where(rng.random(n_draws) < error, rng.integers(1, n_classes, n_draws), 0)
        for error in errors
    )
    tally = _tally(votes, weights, n_draws, n_classes)
    return float(_lost(tally, np.zeros(n_draws, dtype=int)).mean())


def _floats(values: np.ndarray, what: str) -> np.ndarray:
    try:
        floats = values.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{what} must hold numbers, got values like {str(values[0])!r}."
        ) from error
    if not np.isfinite(floats).all():
        row = np.flatnonzero(~np.isfinite(floats))[0]
        raise ValueError(f"{what} must be finite, but row {row} is {floats[row]}.")
    return floats


def _half_over(squares: np.ndarray, root: float) -> np.ndarray:
    return squares / (2 * root) if root else np.zeros_like(squares)
