"""What members do on data, beside counts by hand and scikit-learn's own votes."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix
from sklearn.datasets import load_diabetes, load_wine, make_regression
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import matthews_corrcoef, root_mean_squared_error
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from sklearn_dl.ensemble import Diversity, average_error, diversity, majority_vote_error

# Rows that are wrong: a in 0 1 2, b in 1 2 3 4, c in 9; d in none.
TRUTH = np.array(list("xxxxxyyyyy"))
SETS = {"a": [0, 1, 2], "b": [1, 2, 3, 4], "c": [9], "d": []}


def wrong_in(rows, truth=TRUTH):
    other = np.where(truth == "x", "y", "x")
    return np.where(np.isin(np.arange(len(truth)), rows), other, truth)


def predicted(*names):
    return {name: wrong_in(SETS[name]) for name in names}


def pair(found, first, second):
    pairs = found.pairs.set_index(["first", "second"])
    return pairs.loc[(first, second)]


@pytest.fixture(scope="module")
def wine():
    X, y = load_wine(return_X_y=True)
    return X[:, :4], np.array(["barolo", "grignolino", "barbera"])[y]


def named_classifiers():
    return [
        ("bayes", GaussianNB()),
        ("neighbours", KNeighborsClassifier(5)),
        ("tree", DecisionTreeClassifier(max_depth=2, random_state=0)),
    ]


def halves(X, y):
    return X[::2], y[::2], X[1::2], y[1::2]


def test_members_have_their_errors():
    found = diversity(predicted("a", "b", "c", "d"), None, TRUTH)
    assert isinstance(found, Diversity)
    assert found.task == "classification"
    assert (found.n_rows, found.n_classes) == (10, 2)
    assert found.members["error"].to_dict() == {"a": 0.3, "b": 0.4, "c": 0.1, "d": 0}
    assert found.members.loc["a", "standard_error"] == math.sqrt(0.3 * 0.7 / 10)
    assert found.members["weight"].tolist() == [0.25] * 4
    assert found.best_member == "d"
    assert found.best_member_error == 0
    assert found.mean_member_error == pytest.approx(0.2)


def test_pairs_are_counted():
    found = diversity(predicted("a", "b", "c", "d"), None, TRUTH)
    assert len(found.pairs) == 6
    ab = pair(found, "a", "b")
    assert ab["both_wrong"] == 0.2
    assert ab["overlap"] == 2 / 5
    assert ab["disagreement"] == 0.3
    assert ab["q_statistic"] == pytest.approx((2 * 5 - 1 * 2) / (2 * 5 + 1 * 2))
    wrong = [np.isin(range(10), SETS[name]) for name in "ab"]
    assert ab["correlation"] == pytest.approx(matthews_corrcoef(*wrong))
    ac = pair(found, "a", "c")
    assert (ac["both_wrong"], ac["overlap"], ac["q_statistic"]) == (0, 0, -1)


def test_a_member_without_errors_has_no_correlation():
    found = diversity(predicted("a", "d"), None, TRUTH)
    assert math.isnan(pair(found, "a", "d")["correlation"])
    assert pair(found, "a", "d")["overlap"] == 0
    right = {"one": TRUTH, "two": TRUTH}
    nothing = diversity(right, None, TRUTH)
    assert (
        nothing.pairs[["correlation", "overlap", "q_statistic"]].isna().all(axis=None)
    )
    assert nothing.vote_error == nothing.independent_error == nothing.oracle_error == 0
    assert "no error" in nothing.summary()


def test_equal_and_opposite_errors_have_a_correlation_of_one():
    halved = [0, 1, 2, 3, 4]
    votes = {"a": wrong_in(halved), "b": wrong_in(halved), "c": wrong_in(range(5, 10))}
    found = diversity(votes, None, TRUTH)
    assert pair(found, "a", "b")["correlation"] == pytest.approx(1, abs=1e-15)
    assert pair(found, "a", "c")["correlation"] == pytest.approx(-1, abs=1e-15)


def test_different_wrong_labels_are_a_disagreement():
    votes = {"a": [1, 1, 0, 0], "b": [2, 1, 0, 3]}
    found = diversity(votes, None, [0, 0, 0, 0])
    assert found.pairs.loc[0, "disagreement"] == 0.5
    assert found.pairs.loc[0, "both_wrong"] == 0.5
    assert found.n_classes == 4


def test_the_vote_and_what_it_would_be():
    found = diversity(predicted("a", "b", "c"), None, TRUTH)
    assert found.vote_error == pytest.approx(0.2)  # rows 1 and 2
    assert found.oracle_error == 0
    assert found.independent_error == majority_vote_error([0.3, 0.4, 0.1])
    assert found.gain == pytest.approx(0.1 - 0.2)
    assert found.soft_vote_error is None
    assert found.ambiguity is None
    best_minus_vote = np.array([0, -1, -1, 0, 0, 0, 0, 0, 0, 1])
    assert found.gain_standard_error == pytest.approx(
        best_minus_vote.std(ddof=1) / math.sqrt(10)
    )


def test_ties_are_drawn_evenly():
    two = diversity(predicted("a", "b"), None, TRUTH)
    assert two.vote_error == pytest.approx((2 + 3 / 2) / 10)
    votes = {"a": [0, 1], "b": [1, 1], "c": [2, 0]}
    found = diversity(votes, None, [0, 0])
    assert found.vote_error == pytest.approx((2 / 3 + 1) / 2)


def test_rows_that_defeat_every_member():
    votes = {"a": wrong_in([0, 1, 2]), "b": wrong_in([1, 2, 3]), "c": wrong_in([2])}
    assert diversity(votes, None, TRUTH).oracle_error == 0.1


def test_the_independent_error_counts_the_classes():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 6, 60)
    votes = {
        name: np.where(rng.random(60) < 0.4, (truth + 1) % 6, truth) for name in "abcde"
    }
    found = diversity(votes, None, truth)
    errors = [(votes[name] != truth).mean() for name in "abcde"]
    assert found.independent_error == majority_vote_error(errors, n_classes=6)


def test_members_that_are_independent_vote_as_computed():
    rng = np.random.default_rng(0)
    n = 20_000
    truth = rng.integers(0, 4, n)
    votes = {
        name: np.where(
            rng.random(n) < error, (truth + rng.integers(1, 4, n)) % 4, truth
        )
        for name, error in zip("abcde", (0.3, 0.4, 0.4, 0.5, 0.2), strict=True)
    }
    found = diversity(votes, None, truth)
    assert found.vote_error == pytest.approx(found.independent_error, abs=0.01)
    assert found.pairs["correlation"].abs().max() < 0.03
    assert found.pairs["q_statistic"].abs().max() < 0.07
    weighted = diversity(votes, None, truth, weights=[2, 1, 1, 1, 3])
    assert weighted.vote_error == pytest.approx(weighted.independent_error, abs=0.01)
    assert weighted.vote_error < found.vote_error - 0.01


def test_a_weight_that_outvotes_the_others_is_that_member():
    found = diversity(predicted("a", "b", "c"), None, TRUTH, weights=[5, 1, 1])
    assert found.vote_error == pytest.approx(0.3)
    assert found.independent_error == pytest.approx(0.3, abs=0.005)
    assert found.members["weight"].tolist() == pytest.approx([5 / 7, 1 / 7, 1 / 7])
    assert found.mean_member_error == pytest.approx((5 * 0.3 + 0.4 + 0.1) / 7)


def test_estimators_and_their_predictions_say_the_same(wine):
    X, y, X_test, y_test = halves(*wine)
    fitted = {name: member.fit(X, y) for name, member in named_classifiers()}
    found = diversity(fitted, X_test, y_test, soft=False)
    same = diversity({n: m.predict(X_test) for n, m in fitted.items()}, None, y_test)
    pd.testing.assert_frame_equal(found.members, same.members)
    pd.testing.assert_frame_equal(found.pairs, same.pairs)
    assert found.summary() == same.summary()
    for name, member in fitted.items():
        error = 1 - member.score(X_test, y_test)
        assert found.members.loc[name, "error"] == pytest.approx(error)
    as_pairs = diversity(list(fitted.items()), X_test, y_test)
    pd.testing.assert_frame_equal(as_pairs.members, found.members)


def test_nameless_members_are_named_after_their_class(wine):
    X, y = wine
    fitted = [
        GaussianNB().fit(X, y),
        KNeighborsClassifier(1).fit(X, y),
        KNeighborsClassifier(9).fit(X, y),
    ]
    names = ["GaussianNB", "KNeighborsClassifier 1", "KNeighborsClassifier 2"]
    assert diversity(fitted, X, y).members.index.tolist() == names


@pytest.mark.parametrize("weights", [None, [1, 5, 1, 2]])
def test_a_voting_classifier_is_measured_as_it_votes(wine, weights):
    X, y, X_test, y_test = halves(*wine)
    members = [*named_classifiers(), ("logistic", LogisticRegression(max_iter=5000))]
    voting = VotingClassifier(members, weights=weights, voting="soft").fit(X, y)
    found = diversity(voting, X_test, y_test)
    assert found.soft_vote_error == pytest.approx(1 - voting.score(X_test, y_test))
    assert found.members.index.tolist() == [name for name, _ in members]
    for name, member in members:
        error = 1 - member.fit(X, y).score(X_test, y_test)
        assert found.members.loc[name, "error"] == pytest.approx(error)
    voting.set_params(voting="hard", neighbours="drop", weights=weights).fit(X, y)
    found = diversity(voting, X_test, y_test)
    assert found.members.index.tolist() == ["bayes", "tree", "logistic"]
    if weights:
        assert found.members["weight"].tolist() == [1 / 4, 1 / 4, 2 / 4]
    else:  # three members and two kinds of labels in each row: no ties but 1-1-1
        lost = voting.predict(X_test) != y_test
        assert found.vote_error == pytest.approx(lost.mean(), abs=0.02)


@pytest.mark.parametrize("features", [1.0, 0.5])
def test_bagging_is_measured_as_it_votes(wine, features):
    X, y, X_test, y_test = halves(*wine)
    bagging = BaggingClassifier(
        DecisionTreeClassifier(max_depth=2),
        7,
        max_samples=12,
        max_features=features,
        random_state=0,
    ).fit(X, y)
    found = diversity(bagging, X_test, y_test)
    assert found.soft_vote_error == pytest.approx(
        1 - bagging.score(X_test, y_test), abs=0.03
    )
    errors = [
        (bagging.classes_[m.predict(X_test[:, c])] != y_test).mean()
        for m, c in zip(bagging.estimators_, bagging.estimators_features_, strict=True)
    ]
    assert found.members["error"].tolist() == pytest.approx(errors)
    assert found.vote_error < found.mean_member_error
    sparse = diversity(bagging, csr_matrix(X_test), y_test)
    frame = diversity(bagging, pd.DataFrame(X_test), pd.Series(y_test))
    for same in (sparse, frame):
        pd.testing.assert_frame_equal(same.members, found.members)


def test_a_class_that_a_member_never_saw_has_no_probability(wine):
    X, y, X_test, y_test = halves(*wine)
    some = y != "barbera"
    fitted = {"all": GaussianNB().fit(X, y), "some": GaussianNB().fit(X[some], y[some])}
    found = diversity(fitted, X_test, y_test)
    mean = fitted["all"].predict_proba(X_test)  # classes in the order of the alphabet
    mean[:, 1:] += fitted["some"].predict_proba(X_test)
    lost = fitted["all"].classes_[mean.argmax(axis=1)] != y_test
    assert found.soft_vote_error == pytest.approx(lost.mean())


def test_adaboost_votes_with_its_weights(wine):
    X, y, X_test, y_test = halves(*wine)
    boosted = AdaBoostClassifier(n_estimators=8, random_state=0).fit(X, y)
    found = diversity(boosted, X_test, y_test)
    weights = boosted.estimator_weights_
    assert np.ptp(weights) > 0.1
    assert found.members["weight"].tolist() == pytest.approx(weights / weights.sum())
    assert found.vote_error == pytest.approx(1 - boosted.score(X_test, y_test))
    equal = diversity(boosted, X_test, y_test, weights=np.ones(len(weights)))
    assert equal.members["weight"].nunique() == 1


def test_forests_are_taken_apart(wine):
    X, y, X_test, y_test = halves(*wine)
    forest = RandomForestClassifier(9, random_state=0).fit(X, y)
    found = diversity(forest, X_test, y_test)
    error = 1 - forest.score(X_test, y_test)
    assert found.soft_vote_error == pytest.approx(error, abs=0.03)
    assert len(found.members) == 9


@pytest.mark.parametrize("cv", [3, "prefit"])
def test_the_members_of_a_stack_are_measured(wine, cv):
    X, y, X_test, y_test = halves(*wine)
    members = [(name, member.fit(X, y)) for name, member in named_classifiers()]
    found = diversity(StackingClassifier(members, cv=cv).fit(X, y), X_test, y_test)
    for name, member in members:
        error = 1 - member.score(X_test, y_test)
        assert found.members.loc[name, "error"] == pytest.approx(error)


def test_a_pipeline_may_end_in_an_ensemble(wine):
    X, y, X_test, y_test = halves(*wine)
    voting = VotingClassifier(named_classifiers(), voting="soft")
    pipeline = make_pipeline(StandardScaler(), voting).fit(X, y)
    found = diversity(pipeline, X_test, y_test)
    assert found.soft_vote_error == pytest.approx(1 - pipeline.score(X_test, y_test))
    alone = diversity(make_pipeline(voting.fit(X, y)), X_test, y_test)
    assert alone.members.index.tolist() == found.members.index.tolist()


def test_probabilities_are_asked_for_only_where_all_have_them(wine):
    X, y = wine
    fitted = {"bayes": GaussianNB().fit(X, y), "svm": LinearSVC().fit(X, y)}
    assert diversity(fitted, X, y).soft_vote_error is None

    class Counting(GaussianNB):
        calls = 0

        def predict_proba(self, X):
            Counting.calls += 1
            return super().predict_proba(X)

    two = [Counting().fit(X, y), Counting().fit(X, y)]
    assert diversity(two, X, y, soft=False).soft_vote_error is None
    assert Counting.calls == 0
    assert diversity(two, X, y).soft_vote_error is not None
    assert Counting.calls == 2


def numbers(n=200, n_members=4, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.normal(size=n)
    shared = rng.normal(size=n)
    return y, {
        f"net {i}": y + 0.3 * i + 0.5 * shared + rng.normal(scale=0.4 + 0.1 * i, size=n)
        for i in range(n_members)
    }


def test_regressors_have_their_errors():
    y, predictions = numbers()
    found = diversity(predictions, None, y)
    assert found.task == "regression"
    assert found.n_classes is None
    assert found.oracle_error is None
    for name, values in predictions.items():
        row = found.members.loc[name]
        assert row["error"] == pytest.approx(root_mean_squared_error(y, values))
        assert row["bias"] == pytest.approx((values - y).mean())
    mean = np.mean(list(predictions.values()), axis=0)
    assert found.vote_error == pytest.approx(root_mean_squared_error(y, mean))
    two = predictions["net 1"] - predictions["net 2"]
    row = pair(found, "net 1", "net 2")
    assert row["disagreement"] == pytest.approx(np.sqrt((two**2).mean()))
    residuals = [predictions[name] - y for name in ("net 1", "net 2")]
    assert row["correlation"] == pytest.approx(np.corrcoef(residuals)[0, 1])


@pytest.mark.parametrize("weights", [None, [1, 2, 0, 5]])
def test_the_squared_error_splits_into_members_and_ambiguity(weights):
    y, predictions = numbers()
    found = diversity(predictions, None, y, weights=weights)
    values = np.array(list(predictions.values()))
    mean = np.average(values, axis=0, weights=weights)
    ambiguity = np.average(((values - mean) ** 2).mean(axis=1), weights=weights)
    assert found.ambiguity == pytest.approx(ambiguity)
    assert found.vote_error == pytest.approx(root_mean_squared_error(y, mean))
    assert found.vote_error**2 == pytest.approx(
        found.mean_member_error**2 - found.ambiguity
    )


def test_independent_regressors_follow_the_average_error():
    y, predictions = numbers()
    residuals = np.array(list(predictions.values())) - y
    covariance = np.cov(residuals, ddof=0)
    variance = covariance.trace() / 4
    between = (covariance.sum() - covariance.trace()) / 12
    bias = residuals.mean()
    found = diversity(predictions, None, y)
    independent = average_error(variance, 0, 4, bias)
    assert found.independent_error**2 == pytest.approx(independent)
    measured = average_error(variance, between / variance, 4, bias)
    assert found.vote_error**2 == pytest.approx(measured)


def test_the_weighted_mean_of_independent_regressors():
    rng = np.random.default_rng(0)
    y = rng.normal(size=50_000)
    predictions = {
        str(i): y + rng.normal(0.1 * i, 1 + i, size=50_000) for i in range(3)
    }
    found = diversity(predictions, None, y, weights=[6, 3, 1])
    assert found.independent_error == pytest.approx(found.vote_error, rel=0.01)


def test_standard_errors_are_those_of_resampling():
    y, predictions = numbers(n=400)
    found = diversity(predictions, None, y)
    rng = np.random.default_rng(0)
    errors, votes, gains = [], [], []
    values = np.array(list(predictions.values()))
    for _ in range(600):
        rows = rng.integers(0, 400, 400)
        squares = ((values - y)[:, rows] ** 2).mean(axis=1)
        mean = np.sqrt(((values.mean(axis=0) - y)[rows] ** 2).mean())
        errors.append(np.sqrt(squares[1]))
        votes.append(mean)
        best = found.members.index.get_loc(found.best_member)
        gains.append(np.sqrt(squares[best]) - mean)
    row = found.members.loc["net 1"]
    assert row["standard_error"] == pytest.approx(np.std(errors), rel=0.15)
    assert found.vote_standard_error == pytest.approx(np.std(votes), rel=0.15)
    assert found.gain_standard_error == pytest.approx(np.std(gains), rel=0.15)


@pytest.mark.parametrize(
    "ensemble",
    [
        VotingRegressor([("a", LinearRegression()), ("b", Ridge(9))], weights=[1, 3]),
        BaggingRegressor(DecisionTreeRegressor(), 5, max_features=0.5, random_state=0),
        ExtraTreesRegressor(5, random_state=0),
    ],
    ids=lambda ensemble: type(ensemble).__name__,
)
def test_ensembles_of_regressors_are_measured_as_they_average(ensemble):
    X, y, X_test, y_test = halves(*load_diabetes(return_X_y=True))
    ensemble.fit(X, y)
    found = diversity(ensemble, X_test, y_test)
    expected = root_mean_squared_error(y_test, ensemble.predict(X_test))
    assert found.task == "regression"
    assert found.vote_error == pytest.approx(expected)


def test_the_members_of_other_regressor_ensembles_are_averaged():
    X, y = make_regression(80, 4, noise=20, random_state=0)
    members = [("a", LinearRegression()), ("b", KNeighborsRegressor())]
    stack = StackingRegressor(members).fit(X, y)
    mean = np.mean([member.predict(X) for member in stack.estimators_], axis=0)
    expected = root_mean_squared_error(y, mean)
    assert diversity(stack, X, y).vote_error == pytest.approx(expected)
    boosted = AdaBoostRegressor(n_estimators=5, random_state=0).fit(X, y)
    weights = boosted.estimator_weights_
    found = diversity(boosted, X, y)
    assert found.members["weight"].tolist() == pytest.approx(weights / weights.sum())


def test_the_kind_of_predictions_is_seen_or_said():
    y = [1, 2, 3, 4]
    whole = {"a": [1, 2, 3, 5], "b": [1, 2, 4, 4]}
    assert diversity(whole, None, y).task == "classification"
    assert diversity(whole, None, y, task="regression").task == "regression"
    assert diversity({**whole, "c": [1.0, 2, 3.5, 4]}, None, y).task == "regression"
    X = np.arange(4.0)[:, None]
    exact = [LinearRegression().fit(X, y), DecisionTreeRegressor().fit(X, y)]
    assert diversity(exact, X, y).task == "regression"
    assert diversity(whole, None, np.array(y)[:, None]).n_rows == 4


def test_a_constant_residual_has_no_correlation():
    y = np.linspace(0.1, 1, 9)
    found = diversity({"a": y + 0.3, "b": y + np.sin(9 * y)}, None, y)
    assert found.pairs["correlation"].isna().all()
    assert "not defined" in found.summary()


def test_labels_are_compared_whatever_their_type():
    truth = pd.Series(["x", "y", "x"])
    votes = {"a": np.array(["x", "y", "y"]), "b": ["x", "y", "x"]}
    assert diversity(votes, None, truth).members["error"].tolist() == [1 / 3, 0]
    flags = {"a": np.array([1.0, 0.0, 0.0]), "b": [True, False, True]}
    found = diversity(flags, None, np.array([1, 0, 1]))
    assert found.members["error"].tolist() == [1 / 3, 0]
    assert found.n_classes == 2


def test_a_table_of_pairs():
    found = diversity(predicted("a", "b", "c"), None, TRUTH)
    for value, diagonal in {
        "correlation": [1, 1, 1],
        "overlap": [1, 1, 1],
        "disagreement": [0, 0, 0],
        "both_wrong": [0.3, 0.4, 0.1],
    }.items():
        table = found.matrix(value)
        assert table.index.tolist() == table.columns.tolist() == ["a", "b", "c"]
        assert np.diag(table).tolist() == pytest.approx(diagonal)
        np.testing.assert_array_equal(table, table.T)
        for row in found.pairs.itertuples():
            assert table.loc[row.first, row.second] == getattr(row, value)
    with pytest.raises(
        ValueError, match=r"must be one of \['correlation'.*got 'kappa'"
    ):
        found.matrix("kappa")


def test_the_summary_says_whether_the_vote_gained_and_why():
    rng = np.random.default_rng(0)
    truth = np.tile(["x", "y"], 300)
    rows = rng.permutation(600)
    apart = {name: wrong_in(rows[60 * i :][:60], truth) for i, name in enumerate("abc")}
    text = str(diversity(apart, None, truth))
    assert text.startswith("The vote gained 0.100 over the best member, a (standard")
    assert "chance" not in text
    assert "share 0% of their errors (correlation -0.11)" in text
    assert "3 classifiers on 600 rows: errors 0.100 to 0.100" in text
    assert f"{majority_vote_error(0.1, 3):.3f} if members were independent" in text
    same = {
        "a": wrong_in(rows[:60], truth),
        "b": wrong_in(rows[2:62], truth),
        "c": wrong_in(rows[1:61], truth),
    }
    text = diversity(same, None, truth).summary()
    assert "gained nothing over the best member, a: the members err on the same" in text
    assert "share 96% of their errors (correlation 0.98)" in text
    uneven = {**predicted("c"), "e": wrong_in(range(8)), "f": wrong_in(range(1, 9))}
    text = diversity(uneven, None, TRUTH).summary()
    assert "The vote lost 0.600 against the best member, c" in text
    assert "not even independent members would gain" in text


def test_the_summary_of_regressors():
    y, predictions = numbers()
    text = diversity(predictions, None, y).summary()
    assert "4 regressors on 200 rows: RMSE" in text
    assert "of the mean;" in text
    assert text.startswith("The mean lost")  # the others are biased


@pytest.mark.parametrize(
    ("members", "X", "error", "message"),
    [
        ({"a": TRUTH}, None, ValueError, "two or more members, got \\['a'\\]"),
        ([TRUTH, TRUTH], None, TypeError, "must be a dict of names and predictions"),
        ({"a": GaussianNB(), "b": TRUTH}, None, TypeError, "'a' is an estimator"),
        ({"a": TRUTH, "b": TRUTH}, TRUTH, TypeError, "need X=None"),
        ({"a": TRUTH, "b": TRUTH[:3]}, None, ValueError, "'b' are of 3 rows, but y"),
        ({"a": TRUTH, "b": [1] * 10}, None, ValueError, "'b' predicts labels like 1"),
        ({"a": TRUTH, "b": [None] * 10}, None, ValueError, "missing, but row 0"),
        (
            {"a": np.eye(10), "b": TRUTH},
            None,
            ValueError,
            r"shape \(10, 10\); of several targets",
        ),
        ({}, TRUTH, TypeError, "members must be a dict of names and fitted"),
        ("members", TRUTH, TypeError, "members must be a dict"),
        (GaussianNB(), TRUTH, TypeError, "GaussianNB has no members that vote"),
        (GradientBoostingClassifier(), TRUTH, TypeError, "no members that vote"),
        (BaggingClassifier(), TRUTH, NotFittedError, "not fitted"),
        ([GaussianNB(), GaussianNB()], TRUTH[:, None], NotFittedError, "not fitted"),
        ([("a", GaussianNB()), ("a", Ridge())], TRUTH, ValueError, "must differ"),
        ([GaussianNB(), Ridge()], TRUTH, ValueError, "'Ridge' is a regressor among"),
    ],
)
def test_wrong_members_are_named(members, X, error, message):
    with pytest.raises(error, match=message):
        diversity(members, X, TRUTH)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, 2, 3], r"one for each of 2 members, got the shape \(3,\)"),
        ([1, -1], "at least 0"),
        ([0, 0], "not all 0"),
        ([1, np.nan], "finite"),
    ],
)
def test_wrong_weights_are_named(weights, message):
    with pytest.raises(ValueError, match=message):
        diversity(predicted("a", "b"), None, TRUTH, weights=weights)


def test_wrong_truth_and_tasks_are_named():
    with pytest.raises(ValueError, match="y must hold at least one row"):
        diversity({"a": [], "b": []}, None, [])
    with pytest.raises(ValueError, match="y must hold one value per row"):
        diversity(predicted("a", "b"), None, np.zeros((10, 2)))
    with pytest.raises(ValueError, match="task must be one of"):
        diversity(predicted("a", "b"), None, TRUTH, task="ranking")
    with pytest.raises(ValueError, match="y must hold numbers, got values like 'x'"):
        diversity(predicted("a", "b"), None, TRUTH, task="regression")
    with pytest.raises(ValueError, match="'b' must be finite, but row 1 is inf"):
        diversity({"a": [0.5, 1], "b": [1, np.inf]}, None, [1.5, 2])


def test_one_row_is_enough():
    found = diversity({"a": [1], "b": [0]}, None, [1])
    assert found.vote_error == 0.5
    assert math.isnan(found.gain_standard_error)
    assert "standard error" not in found.summary()


@pytest.mark.parametrize("labels", [[-1, 1, 2], [0, 1, 2], [1, 2, 5], ["a", "b", "c"]])
@pytest.mark.parametrize("pipeline", [False, True])
def test_members_fitted_before_keep_their_labels(labels, pipeline, wine):
    X, y = wine[0], np.array(labels)[np.unique(wine[1], return_inverse=True)[1]]
    frozen = {
        name: FrozenEstimator(model.fit(X[::2], y[::2]))
        for name, model in {"a": GaussianNB(), "b": DecisionTreeClassifier()}.items()
    }
    if pipeline:
        frozen["b"] = make_pipeline(
            FrozenEstimator(StandardScaler().fit(X)), GaussianNB()
        )
        frozen["b"] = FrozenEstimator(frozen["b"].fit(X, y))
    vote = VotingClassifier([*frozen.items()], voting="soft").fit(X, y)
    found = diversity(vote, X, y)
    errors = [np.mean(member.predict(X) != y) for member in frozen.values()]
    np.testing.assert_allclose(found.members["error"], errors)
    assert found.soft_vote_error == pytest.approx(1 - vote.score(X, y), abs=0.01)


def test_large_weights_are_weights():
    truth = [0, 0]
    members = {"a": [0, 0], "b": [1, 1], "c": [1, 1]}
    found = diversity(members, None, truth, weights=[1e308] * 3)
    assert found.vote_error == 1.0


def test_weights_by_name_are_refused():
    with pytest.raises(TypeError, match="must be a list of numbers, one for each of 2"):
        diversity(predicted("a", "b"), None, TRUTH, weights={"a": 1})


def test_names_that_are_no_unicode_are_names():
    members = {"model \udcff": [1, 1], "other \udcff": [1, 0]}
    found = diversity(members, None, [1, 1])
    assert found.members.index.tolist() == [*members]
    assert found.pairs[["first", "second"]].to_numpy().tolist() == [[*members]]
    assert found.matrix().columns.tolist() == [*members]
