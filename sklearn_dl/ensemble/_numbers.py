"""Errors of regressors, of their pairs and of their mean."""

import numpy as np
import pandas as pd


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
    gains = _half_over(squares[best], errors[best]) - _half_over(
        mean_squares, vote_error
    )
    independent = (weights @ bias) ** 2 + weights**2 @ variance
    return {
        "n_classes": None,
        "members": pd.DataFrame(
            {
                "error": errors,
                "standard_error": [
                    _spread(_half_over(s, e))
                    for s, e in zip(squares, errors, strict=True)
                ],
                "bias": bias,
                "weight": weights,
            },
            index=pd.Index(names, name="member"),
        ),
        "pairs": _pairs(names, values, residuals),
        "vote_error": vote_error,
        "vote_standard_error": _spread(_half_over(mean_squares, vote_error)),
        "soft_vote_error": None,
        "independent_error": float(np.sqrt(independent)),
        "mean_member_error": float(np.sqrt(weights @ errors**2)),
        "oracle_error": None,
        "ambiguity": float((weights @ (values - weights @ values) ** 2).mean()),
        "gain": float(errors[best] - vote_error),
        "gain_standard_error": _spread(gains, ddof=1),
    }


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


def _spread(values: np.ndarray, ddof: int = 0) -> float:
    """Return the standard error of a mean."""
    n = len(values)
    return float(values.std(ddof=ddof) / np.sqrt(n)) if n > ddof else float("nan")


def _pairs(names, values, residuals) -> pd.DataFrame:
    first, second = np.triu_indices(len(names), 1)
    centred = residuals - residuals.mean(axis=1, keepdims=True)
    # Rounding is no spread: a constant error has no correlation.
    centred[np.abs(centred).max(axis=1) <= 1e-12 * np.abs(values).max()] = 0.0
    lengths = np.sqrt((centred**2).sum(axis=1, keepdims=True))
    unit = np.divide(
        centred, lengths, out=np.full_like(centred, np.nan), where=lengths > 0
    )
    return pd.DataFrame(
        {
            "first": np.asarray(names)[first],
            "second": np.asarray(names)[second],
            "correlation": np.clip((unit @ unit.T)[first, second], -1, 1),
            "disagreement": [
                float(np.sqrt(((values[i] - values[j]) ** 2).mean()))
                for i, j in zip(first, second, strict=True)
            ],
        }
    )
