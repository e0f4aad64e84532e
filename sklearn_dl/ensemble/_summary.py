"""A `Diversity` in words."""

import numpy as np


def summarize(found) -> str:
    """Return whether the vote gained, and why, in a few lines."""
    return "\n".join([_verdict(found), _members(found), _pairs(found), _votes(found)])


def _number(value: float, found) -> str:
    if found.task == "regression" or 0 < abs(value) < 0.0005:
        return f"{value:.3g}"
    return f"{value:.3f}"


def _word(found) -> str:
    return "vote" if found.task == "classification" else "mean"


def _verdict(found) -> str:
    subject = f"The {_word(found)}"
    best = f"the best member, {found.best_member}"
    if found.best_member_error == 0:
        return f"{subject} can't gain: {best}, made no error."
    error = found.gain_standard_error
    if abs(found.gain) < 1e-12:
        return f"{subject} gained nothing over {best}{_reason(found)}."
    verb, over = ("gained", "over") if found.gain > 0 else ("lost", "against")
    line = f"{subject} {verb} {_number(abs(found.gain), found)} {over} {best}"
    if np.isfinite(error):
        line += f" (standard error {_number(error, found)})"
    if not abs(found.gain) > 2 * error:
        line += ", within chance"
    return f"{line}{_reason(found)}."


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


def _members(found) -> str:
    errors = found.members["error"]
    low, high, mean = (
        _number(v, found) for v in (errors.min(), errors.max(), found.mean_member_error)
    )
    kind, name = (
        ("classifiers", "errors")
        if found.task == "classification"
        else ("regressors", "RMSE")
    )
    return (
        f"{len(errors)} {kind} on {found.n_rows:,} rows: {name} {low} to {high}, "
        f"mean {mean}."
    )


def _pairs(found) -> str:
    pairs = found.pairs.drop(columns=["first", "second"]).mean()
    correlation = (
        f"correlation {pairs['correlation']:.2f}"
        if np.isfinite(pairs["correlation"])
        else "correlation not defined"
    )
    if found.task == "regression":
        apart = _number(pairs["disagreement"], found)
        return f"Errors of a pair: {correlation}; its predictions are {apart} apart."
    defeated = f"{found.oracle_error:.1%} of rows defeat every member"
    if np.isnan(pairs["overlap"]):
        return f"No pair has an error; {defeated}."
    return (
        f"Pairs share {pairs['overlap']:.0%} of their errors ({correlation}); "
        f"{defeated}."
    )


def _votes(found) -> str:
    name = "Error" if found.task == "classification" else "RMSE"
    line = f"{name} {_number(found.vote_error, found)} of the {_word(found)}"
    if found.soft_vote_error is not None:
        soft = _number(found.soft_vote_error, found)
        line += f", {soft} of mean probabilities"
    independent = _number(found.independent_error, found)
    return f"{line}; {independent} if members were independent."
