"""Arithmetic of votes and of averages."""

from numbers import Integral

import numpy as np
from scipy.stats import binom, poisson


def majority_vote_error(error, n_members: int | None = None, n_classes: int = 2):
    """Return the probability that the vote of independent members is wrong.

    The class with the most votes wins; where several have the most, each of them wins
    with the same probability. So two members of error 0.1 are as good as one.

    Each member is right with probability 1 - error, whatever the others do and
    whatever the class; a wrong vote falls on each of the other ``n_classes - 1``
    classes with the same probability. Wrong votes that prefer one class, as those of
    real members do, win more often.

    Parameters
    ----------
    error : float or array-like of shape (n_members,)
        Probability that a member is wrong, in [0, 1]: one for all, or one for each.
    n_members : int, default=None
        Number of members. Needed with one error for all; an array's is its length.
    n_classes : int, default=2
        Number of classes, at least 2.

    Returns
    -------
    float
        Exact but for rounding, also where it is small: a relative error of about
        1e-12. Below 1e-300 it may come out as 0.

    Raises
    ------
    ValueError
        If an error is outside [0, 1], or a number of members or classes is not
        possible.

    See Also
    --------
    average_error : The same for the mean of regressors.
    diversity : What the members of an ensemble do on data.

    Notes
    -----
    With two classes [1]_ it is the sum over k > M/2 of C(M, k) e^k (1 - e)^(M - k), and
    half of the term at k = M/2. Unequal errors make the number of wrong votes
    Poisson-binomial. More classes take O(n_members^3) time: milliseconds for 100
    members, seconds for thousands.

    References
    ----------
    .. [1] L. K. Hansen and P. Salamon, "Neural network ensembles", IEEE Transactions on
       Pattern Analysis and Machine Intelligence 12 (1990), 993-1001.

    Examples
    --------
    >>> from sklearn_dl.ensemble import majority_vote_error
    >>> round(majority_vote_error(0.01, 3), 6)
    0.000298
    >>> round(majority_vote_error([0.1, 0.2, 0.3]), 6)
    0.098
    >>> round(majority_vote_error(0.6, 11, n_classes=10), 6)
    0.155917
    """
    errors, n_members = _check_errors(error, n_members)
    _check_count("n_classes", n_classes, 2)
    if errors.ndim == 0:
        n_wrong = binom.pmf(np.arange(n_members + 1), n_members, errors)
    else:
        n_wrong = np.ones(1)
        for one in errors:
            n_wrong = np.convolve(n_wrong, (1 - one, one))
    return min(1.0, float(n_wrong @ _lost(n_members, n_classes)))


def average_error(variance, correlation, n_members: int, bias: float = 0.0):
    """Return the mean squared error of the mean of several regressors.

    The members have the same bias, the same variance of their errors, and the same
    correlation between the errors of any two; of unequal ones, take the mean bias,
    the mean variance, and the mean covariance divided by the mean variance.

    Parameters
    ----------
    variance : float
        Variance of a member's error around its bias, in squared units of the target.
    correlation : float
        Correlation of two members' errors, in [-1/(n_members - 1), 1]: more than two
        numbers can't all be opposed.
    n_members : int
        Number of members.
    bias : float, default=0.0
        Mean error of a member, in units of the target. Averaging leaves it as it is.

    Returns
    -------
    float
        ``bias**2 + variance * (correlation + (1 - correlation) / n_members)`` [1]_, in
        squared units of the target.

    Raises
    ------
    ValueError
        If the variance is negative, or the correlation or the number not possible.

    See Also
    --------
    majority_vote_error : The same for the vote of classifiers.

    References
    ----------
    .. [1] N. Ueda and R. Nakano, "Generalization error of ensemble estimators",
       Proceedings of the International Conference on Neural Networks (1996), 90-95.

    Examples
    --------
    Ten members, half of whose variance is shared:

    >>> from sklearn_dl.ensemble import average_error
    >>> average_error(4.0, 0.5, 10)
    2.2
    """
    _check_count("n_members", n_members, 1)
    variance, correlation, bias = float(variance), float(correlation), float(bias)
    if not 0 <= variance < np.inf:
        raise ValueError(f"variance must be at least 0 and finite, got {variance}.")
    if not np.isfinite(bias):
        raise ValueError(f"bias must be finite, got {bias}.")
    lowest = -1 / max(n_members - 1, 1)
    # A measured correlation may miss the bound by its rounding.
    if not lowest - 1e-9 <= correlation <= 1 + 1e-9:
        bounds = f"[{lowest:.4g}, 1] for {n_members} members"
        raise ValueError(f"correlation must be in {bounds}, got {correlation}.")
    shared = correlation + (1 - correlation) / n_members
    return bias**2 + variance * max(shared, 0.0)


def _check_errors(error, n_members: int | None) -> tuple[np.ndarray, int]:
    errors = np.asarray(error)
    if errors.dtype.kind not in "iuf" or errors.ndim > 1 or errors.size == 0:
        wanted = "a number, or one number for each member"
        raise ValueError(f"error must be {wanted}, got {error!r:.100}.")
    outside = np.flatnonzero(~((errors >= 0) & (errors <= 1)))
    if len(outside):
        at = f" (member {outside[0]})" if errors.ndim else ""
        raise ValueError(f"error must be in [0, 1], got {errors.flat[outside[0]]}{at}.")
    if n_members is None:
        if errors.ndim == 0:
            raise ValueError("One error for all members needs n_members.")
        n_members = len(errors)
    _check_count("n_members", n_members, 1)
    if errors.ndim and len(errors) != n_members:
        what = f"error holds {len(errors)} values"
        raise ValueError(f"{what}, but n_members is {n_members}.")
    return errors.astype(np.float64), int(n_members)


def _check_count(name: str, value, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be an int of at least {least}, got {value!r}.")


def _lost(n_members: int, n_classes: int) -> np.ndarray:
    """Return the probability that the vote is wrong, given 0 ... n_members wrong votes.

    Summed over the wrong class that wins and its votes: no term is negative, so small
    probabilities keep their digits. The votes of each wrong class are Poisson, then
    conditioned on their sum. The share 1/(1 + t) of a winner with t others is the
    integral of u^t over [0, 1], for which Gauss's rule is exact: u marks a tie.
    """
    if n_classes == 2:
        return (1 + np.sign(2 * np.arange(n_members + 1) - n_members)) / 2
    lost = np.zeros(n_members + 1)
    votes = poisson.pmf(np.arange(n_members + 1), n_members / n_classes)
    for top in range(max(1, -(-n_members // n_classes)), n_members + 1):
        most = n_members - top  # votes that the other wrong classes may have
        level = most - top  # they have so many: the right class has `top` too
        n_ties = min(n_classes - 2, most // top)
        nodes, shares = np.polynomial.legendre.leggauss((n_ties + 3) // 2)
        for u, share in zip((nodes + 1) / 2, shares / 2, strict=True):
            one = votes[: top + 1].copy()
            one[top] *= u
            others = _power(one, n_classes - 2, most + 1)
            if level >= 0:
                others[:level] = 0.0
                others[level] *= u
            lost[top : top + len(others)] += share * votes[top] * others
    total = poisson.pmf(
        np.arange(n_members + 1), n_members * (n_classes - 1) / n_classes
    )
    return (n_classes - 1) * np.divide(lost, total, out=lost, where=total > 0)


def _power(series: np.ndarray, exponent: int, size: int) -> np.ndarray:
    """Return the first `size` coefficients of a power of a polynomial."""
    result = np.ones(1)
    series = series[:size]
    while exponent:
        if exponent % 2:
            result = np.convolve(result, series)[:size]
        series = np.convolve(series, series)[:size]
        exponent //= 2
    return np.pad(result, (0, size - len(result)))
