"""The arithmetic of votes, beside enumeration, sums by hand and simulation."""

import itertools
import math
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import norm

from sklearn_dl.ensemble import average_error, majority_vote_error


def enumerated(errors, n_classes):
    """Go through every pattern of votes, in exact fractions; class 0 is right."""
    total = Fraction(0)
    for votes in itertools.product(range(n_classes), repeat=len(errors)):
        probability = Fraction(1)
        for vote, error in zip(votes, errors, strict=True):
            probability *= error / (n_classes - 1) if vote else 1 - error
        counts = [votes.count(label) for label in range(n_classes)]
        winners = [k for k in range(n_classes) if counts[k] == max(counts)]
        total += probability * Fraction(sum(k > 0 for k in winners), len(winners))
    return float(total)


def counted(error, n_members, n_classes):
    """Go through every count of votes: the same for more members."""

    def counts(n, k):
        if k == 1:
            yield (n,)
            return
        for i in range(n + 1):
            yield from ((i, *rest) for rest in counts(n - i, k - 1))

    total = Fraction(0)
    for votes in counts(n_members, n_classes):
        n_best = votes.count(max(votes))
        lost = Fraction(n_best - (votes[0] == max(votes)), n_best)
        ways = math.factorial(n_members)
        for n in votes:
            ways //= math.factorial(n)
        wrong = (error / (n_classes - 1)) ** (n_members - votes[0])
        total += lost * ways * (1 - error) ** votes[0] * wrong
    return float(total)


def by_hand(error, n_members):
    terms = [
        math.comb(n_members, k) * error**k * (1 - error) ** (n_members - k)
        for k in range(n_members + 1)
    ]
    above = sum(term for k, term in enumerate(terms) if 2 * k > n_members)
    tied = sum(term for k, term in enumerate(terms) if 2 * k == n_members)
    return above + tied / 2


@pytest.mark.parametrize(
    ("error", "n_members", "expected"),
    [(0.01, 3, 0.000298), (0.02, 3, 0.001184), (0.1, 2, 0.1), (0.3, 1, 0.3)],
)
def test_known_values(error, n_members, expected):
    assert majority_vote_error(error, n_members) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n_members", [1, 2, 3, 4, 7, 10, 25])
@pytest.mark.parametrize("error", [0.0, 1e-9, 0.02, 0.5, 0.8, 1.0])
def test_two_classes_are_the_binomial_sum(error, n_members):
    expected = by_hand(error, n_members)
    assert majority_vote_error(error, n_members) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("n_members", "n_classes"),
    [*itertools.product(range(1, 6), (2, 3, 4)), (6, 3), (4, 5), (3, 6)],
)
def test_equal_errors_are_the_sum_over_all_votes(n_members, n_classes):
    for error in (Fraction(1, 10**9), Fraction(1, 3), Fraction(9, 10), Fraction(1)):
        expected = enumerated([error] * n_members, n_classes)
        found = majority_vote_error(float(error), n_members, n_classes)
        assert found == pytest.approx(expected, rel=1e-11, abs=0)


@pytest.mark.parametrize(
    ("n_members", "n_classes"),
    [*itertools.product(range(1, 6), (2, 3, 4)), (6, 3), (4, 5)],
)
def test_unequal_errors_are_the_sum_over_all_votes(n_members, n_classes):
    errors = [Fraction(i * i, 40) for i in range(n_members)]
    found = majority_vote_error([float(e) for e in errors], n_classes=n_classes)
    assert found == pytest.approx(enumerated(errors, n_classes), rel=1e-11, abs=0)


@pytest.mark.parametrize(
    ("error", "n_members", "n_classes"),
    [
        (Fraction(1, 10**9), 15, 4),
        (Fraction(1, 1000), 24, 3),
        (Fraction(1, 10), 10, 7),
        (Fraction(7, 10), 14, 4),
    ],
)
def test_small_probabilities_keep_their_digits(error, n_members, n_classes):
    expected = counted(error, n_members, n_classes)
    found = majority_vote_error(float(error), n_members, n_classes)
    assert found == pytest.approx(expected, rel=1e-11, abs=0)


def test_members_that_guess_vote_as_one_that_guesses():
    for n_members, n_classes in [(101, 10), (100, 3), (30, 200), (1500, 3)]:
        error = 1 - 1 / n_classes
        found = majority_vote_error(error, n_members, n_classes)
        assert found == pytest.approx(error, rel=1e-10)


def test_a_hundred_members_and_ten_classes_agree_with_simulation():
    rng = np.random.default_rng(0)
    errors = rng.uniform(0.7, 0.9, 101)
    n = 20_000
    tally = np.zeros((n, 10))
    for error in errors:
        vote = np.where(rng.random(n) < error, rng.integers(1, 10, n), 0)
        tally[np.arange(n), vote] += 1
    winner = (tally + rng.random(tally.shape) / 2).argmax(axis=1)
    assert majority_vote_error(errors, None, 10) == pytest.approx(
        (winner > 0).mean(), abs=4 * np.sqrt(0.25 / n)
    )


def test_thousands_of_members_agree_with_the_normal_curve():
    error, n_members = 0.49, 20_001
    z = (n_members / 2 - n_members * error) / math.sqrt(n_members * error * (1 - error))
    found = majority_vote_error(error, n_members)
    assert found == pytest.approx(norm.sf(z), rel=1e-3)
    same = majority_vote_error(np.full(2001, error))
    assert same == pytest.approx(majority_vote_error(error, 2001), rel=1e-11)


@pytest.mark.parametrize("n_classes", [2, 3, 10])
def test_extremes(n_classes):
    assert majority_vote_error(0, 7, n_classes) == 0
    assert majority_vote_error(1, 7, n_classes) == pytest.approx(1, rel=1e-12)
    assert majority_vote_error(1, 7, n_classes) <= 1
    errors = [0, 0, 1, 1, 1]
    lost = {2: 1.0, 3: (2 / 8) + (6 / 8) / 2, 10: (9 / 729) + (9 * 8 * 3 / 729) / 2}
    assert majority_vote_error(errors, n_classes=n_classes) == pytest.approx(
        lost[n_classes]
    )


@pytest.mark.parametrize("n_classes", [2, 3, 10])
def test_the_vote_falls_with_the_error_and_the_classes_help(n_classes):
    found = [majority_vote_error(e, 11, n_classes) for e in np.linspace(0, 1, 21)]
    assert (np.diff(found) >= -1e-14).all()
    more = [majority_vote_error(0.4, 11, k) for k in range(2, 12)]
    assert (np.diff(more) < 0).all()


def test_more_members_help_where_they_are_better_than_chance():
    odd = range(1, 40, 2)
    assert (np.diff([majority_vote_error(0.4, m) for m in odd]) < 0).all()
    assert (np.diff([majority_vote_error(0.6, m) for m in odd]) > 0).all()
    for even in range(2, 20, 2):  # the last one only breaks ties
        pair = [majority_vote_error(0.3, m) for m in (even - 1, even)]
        assert pair[0] == pytest.approx(pair[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.1, 3), r"error must be in \[0, 1\], got 1.1\."),
        ((float("nan"), 3), r"error must be in \[0, 1\], got nan"),
        (([0.1, -0.2],), r"got -0\.2 \(member 1\)"),
        ((0.1,), "needs n_members"),
        (([0.1, 0.2], 3), "holds 2 values, but n_members is 3"),
        (([],), "error must be a number, or one number for each"),
        (([[0.1]],), "error must be a number"),
        (("0.1", 3), "error must be a number"),
        ((0.1, 0), "n_members must be an int of at least 1, got 0"),
        ((0.1, 2.0), r"n_members must be an int of at least 1, got 2\.0"),
        ((0.1, True), "n_members must be an int"),
        ((0.1, 3, 1), "n_classes must be an int of at least 2, got 1"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        majority_vote_error(*arguments)


@pytest.mark.parametrize("correlation", [-0.2, 0.0, 0.4, 1.0])
@pytest.mark.parametrize("bias", [0.0, 1.5])
def test_the_error_of_a_mean_agrees_with_simulation(correlation, bias):
    n_members, variance = 5, 4.0
    covariance = np.full((n_members, n_members), correlation * variance)
    np.fill_diagonal(covariance, variance)
    rng = np.random.default_rng(0)
    errors = bias + rng.multivariate_normal(
        np.zeros(n_members), covariance, 200_000, method="eigh"
    )
    squares = errors.mean(axis=1) ** 2
    found = average_error(variance, correlation, n_members, bias)
    spread = squares.std() / math.sqrt(len(squares))
    assert found == pytest.approx(squares.mean(), abs=5 * spread)


def test_what_averaging_can_and_cannot_take_away():
    assert average_error(4.0, 0.0, 8) == pytest.approx(0.5)
    assert average_error(4.0, 1.0, 8) == pytest.approx(4.0)
    assert average_error(4.0, 0.0, 8, bias=3.0) == pytest.approx(9.5)
    assert average_error(4.0, 0.3, 1) == pytest.approx(4.0)
    assert average_error(4.0, -1 / 7, 8) == pytest.approx(0.0, abs=1e-15)
    assert average_error(4.0, 0.25, 10**9) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1.0, 0.0, 3), "variance must be at least 0 and finite, got -1"),
        ((float("nan"), 0.0, 3), "variance must be"),
        ((1.0, 1.2, 3), r"correlation must be in \[-0\.5, 1\] for 3 members, got 1\.2"),
        ((1.0, -0.6, 3), r"correlation must be in \[-0\.5, 1\]"),
        ((1.0, float("nan"), 3), "correlation must be"),
        ((1.0, 0.0, 0), "n_members must be an int of at least 1"),
        ((1.0, 0.0, 3, float("inf")), "bias must be finite"),
    ],
)
def test_wrong_arguments_of_the_average_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        average_error(*arguments)


def test_the_room_needs_neither_torch_nor_matplotlib():
    code = "import sys, sklearn_dl.ensemble; print(*sys.modules)"
    loaded = set(subprocess.check_output([sys.executable, "-c", code]).decode().split())
    assert "sklearn_dl.ensemble" in loaded
    assert loaded & {"torch", "torchvision", "skorch", "matplotlib"} == set()
