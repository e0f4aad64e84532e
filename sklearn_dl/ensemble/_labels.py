"""Errors of classifiers, of their pairs and of their vote."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from sklearn_dl.ensemble._vote import majority_vote_error


def measure_labels(names, predictions, truth, weights, probabilities) -> dict:
    """Return the fields of a `Diversity` of classifiers; weights have the sum 1."""
    codes, labels = _encode([truth, *predictions], ["y", *names])
    truth, votes = codes[0], codes[1:]
    wrong = votes != truth
    errors = wrong.mean(axis=1)
    n, n_classes = len(truth), max(len(labels), 2)
    lost = _lost(_tally(votes, weights, n, n_classes), truth)
    gains = wrong[errors.argmin()] - lost
    soft = None
    if probabilities:
        soft = float(_soft_lost(probabilities, weights, labels, truth).mean())
    return {
        "n_classes": n_classes,
        "members": pd.DataFrame(
            {
                "error": errors,
                "standard_error": np.sqrt(errors * (1 - errors) / n),
                "weight": weights,
            },
            index=pd.Index(names, name="member"),
        ),
        "pairs": _pairs(names, votes, wrong),
        "vote_error": float(lost.mean()),
        "vote_standard_error": float(lost.std() / np.sqrt(n)),
        "soft_vote_error": soft,
        "independent_error": _independent_error(errors, weights, n_classes),
        "mean_member_error": float(weights @ errors),
        "oracle_error": float(wrong.all(axis=0).mean()),
        "ambiguity": None,
        "gain": float(gains.mean()),
        "gain_standard_error": _standard_error(gains),
    }


def _standard_error(values: np.ndarray) -> float:
    n = len(values)
    return float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")


def _encode(columns, names) -> tuple[np.ndarray, np.ndarray]:
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


def _pairs(names, votes, wrong) -> pd.DataFrame:
    first, second = np.triu_indices(len(names), 1)
    n = wrong.shape[1]
    together = wrong.astype(float) @ wrong.T.astype(float)  # whole numbers: exact
    alone = wrong.sum(axis=1).astype(float)
    both, a, b = together[first, second], alone[first], alone[second]
    neither = n - a - b + both
    agree, differ = both * neither, (a - both) * (b - both)
    return pd.DataFrame(
        {
            "first": np.asarray(names)[first],
            "second": np.asarray(names)[second],
            "correlation": _ratio(
                n * both - a * b, np.sqrt(a * (n - a)) * np.sqrt(b * (n - b))
            ),
            "disagreement": [
                float((votes[i] != votes[j]).mean())
                for i, j in zip(first, second, strict=True)
            ],
            "both_wrong": both / n,
            "overlap": _ratio(both, a + b - both),
            "q_statistic": _ratio(agree - differ, agree + differ),
        }
    )


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Return the quotient, NaN where it is 0/0."""
    return np.divide(above, below, out=np.full(len(below), np.nan), where=below != 0)
