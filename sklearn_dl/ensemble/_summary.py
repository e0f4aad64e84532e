"""A `Diversity` in words."""

import numpy as np


def summarize(found) -> str:
    """Return whether the vote gained, and why, in a few lines."""
    votes = found.task == "classification"
    error = "Error" if votes else "RMSE"
    word = "vote" if votes else "mean"

    def number(value: float) -> str:
        return f"{value:.3f}" if votes and not 0 < value < 0.0005 else f"{value:.3g}"

    errors = found.members["error"]
    low, high, mean = map(number, (errors.min(), errors.max(), found.mean_member_error))
    kind = "classifiers" if votes else "regressors"
    name = "errors" if votes else "RMSE"
    soft = ""
    if found.soft_vote_error is not None:
        soft = f", {number(found.soft_vote_error)} of mean probabilities"
    lines = [
        f"The {word} {_verdict(found, number)}.",
        f"{len(errors)} {kind} on {found.n_rows:,} rows: {name} {low} to {high}, mean "
        f"{mean}.",
        _pairs(found, number),
        f"{error} {number(found.vote_error)} of the {word}{soft}; "
        f"{number(found.independent_error)} if members were independent.",
    ]
    return "\n".join(lines)


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


def _pairs(found, number) -> str:
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
