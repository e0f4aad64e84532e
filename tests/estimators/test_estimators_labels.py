"""Labels and groups as people have them."""

import tracemalloc
import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn
from estimator_cases import (
    EASY,
    SMALL,
    classifier,
    extractor,
    regressor,
    two_brightnesses,
)
from scipy.sparse import csr_array
from sklearn import metrics
from sklearn.metrics import make_scorer
from sklearn.model_selection import GroupKFold, cross_validate
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_dl import make_feature_classifier
from sklearn_dl.training._dataset import _apart_by_groups

X, Y = two_brightnesses(24)
TEXTS = ["a", "b", None, "a", "b", "a"]
MISSING = {
    "None in a list": TEXTS,
    "None among objects": np.array(TEXTS, object),
    "NaN among texts": np.array(["a", "b", np.nan, "a", "b", "a"], object),
    "pd.NA among texts": pd.Series(TEXTS, dtype="string"),
    "a Series": pd.Series(TEXTS),
    "categories": pd.Series(TEXTS, dtype="category"),
    "a column": pd.DataFrame({"y": TEXTS}),
    "pd.NA among integers": pd.Series([1, 0, pd.NA, 1, 0, 1], dtype="Int64"),
    "pd.NA among truths": pd.Series([True, False, pd.NA] * 2, dtype="boolean")[:6],
    "NaN": np.array([1, 0, np.nan, 1, 0, 1]),
    "indicators": np.array([[1, 0], [0, 1], [np.nan, 1], [1, 1], [0, 0], [1, 0]]),
}


@pytest.mark.parametrize("make", [classifier, regressor])
@pytest.mark.parametrize("y", MISSING.values(), ids=MISSING)
def test_missing_labels_are_named_by_row(make, y):
    with pytest.raises(ValueError, match=r"^y has a missing value .* in row 2"):
        make().fit(X[:6], y)


def test_missing_validation_labels_and_groups_are_named():
    y = [*Y[:11], None, *Y[12:]]
    with pytest.raises(ValueError, match=r"^y_val has a missing value \(None\) in row"):
        classifier().fit(X, Y, X_val=X, y_val=y)
    with pytest.raises(ValueError, match=r"^groups has a missing value .*row 11"):
        classifier(early_stopping=True).fit(X, Y, groups=y)


def test_texts_that_look_missing_are_classes():
    y = ["None", "nan", "", "NA", "null", "None"]
    assert classifier().fit(X[:6], y).classes_.tolist() == sorted(set(y))


@pytest.mark.parametrize("form", [np.array, list, csr_array, pd.DataFrame])
def test_one_hot_labels_are_warned_of(form):
    y = np.eye(3, dtype=int)[np.arange(24) % 3]
    with pytest.warns(UserWarning, match=r"looks one-hot.*argmax"):
        classifier().fit(X, form(y))
    y[0, 1] = 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        classifier().fit(X, form(y))


@pytest.mark.parametrize(
    "scoring",
    [
        *("f1", "precision", "average_precision", "neg_brier_score"),
        make_scorer(metrics.fbeta_score, beta=2),
    ],
)
def test_a_score_of_a_positive_class_says_how_to_name_it(scoring):
    options = {"early_stopping": True, "validation_fraction": 0.25}
    with pytest.raises(ValueError, match="pos_label='light'") as caught:
        classifier(scoring=scoring, **options).fit(X, Y)
    said = str(caught.value).rpartition("scoring=")[2].removesuffix(".")
    cured = eval(said, {"make_scorer": make_scorer, **vars(metrics)})
    found = classifier(scoring=cured, **options).fit(X, Y).history_
    numbers = classifier(scoring=scoring, **options).fit(X, np.repeat([0, 1], 12))
    np.testing.assert_array_equal(found.valid_score, numbers.history_.valid_score)


class Splits:
    """Records the validation rows of fits, by what the estimator splits."""

    def __init__(self, monkeypatch):
        from sklearn_dl.training import Rows

        self.taken, split = [], Rows.split

        def recorded(rows, *arguments):
            parts = split(rows, *arguments)
            self.taken.append([part.rows for part in parts])
            return parts

        monkeypatch.setattr(Rows, "split", recorded)


@pytest.fixture
def splits(monkeypatch):
    return Splits(monkeypatch)


def patients(n, n_classes=2, seed=0):
    """Return classes, and groups of one to five rows, which aren't neighbours."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n), rng.integers(1, 6, n))[:n]
    y = groups % n_classes
    order = rng.permutation(n)
    return y[order], np.array([f"p{g}" for g in groups])[order]


@pytest.mark.parametrize("make", [classifier, regressor])
@pytest.mark.parametrize("seed", range(3))
def test_validation_rows_are_whole_groups(make, seed, splits):
    images = np.random.default_rng(0).integers(0, 256, (120, 32, 32, 3), "uint8")
    y, groups = patients(120, seed=seed)
    weight = np.ones(120)
    weight[::7] = 0
    model = make(early_stopping=True, validation_fraction=0.2, random_state=seed)
    model.fit(images, y, sample_weight=weight, groups=list(groups))
    [(trained, held_out)] = splits.taken
    assert not set(groups[trained]) & set(groups[held_out])
    together = np.sort([*trained, *held_out])
    np.testing.assert_array_equal(together, np.flatnonzero(weight))
    fraction = len(held_out) / len(together)
    assert 0.15 < fraction < 0.25
    if make is classifier:
        assert abs(y[held_out].mean() - y[together].mean()) < 0.1
    assert "valid_loss" in model.history_


def test_a_class_in_one_group_is_trained_on(splits):
    y = np.repeat(["a", "b", "c"], 8)
    groups = [*np.arange(8), *np.arange(8), *[99] * 8]
    for seed in range(5):
        model = classifier(early_stopping=True, random_state=seed, max_epochs=1)
        model.fit(X, y, groups=groups)
        assert set(y[splits.taken[-1][0]]) == {"a", "b", "c"}


def test_groups_that_cannot_be_split_are_an_error():
    model = classifier(early_stopping=True)
    with pytest.raises(ValueError, match="all rows are of the group 7"):
        model.fit(X, Y, groups=[7] * 24)
    with pytest.raises(ValueError, match="no rows of some class to train on"):
        model.fit(X, Y, groups=(Y == "dark").astype(int))
    with pytest.raises(ValueError, match=r"\[24, 23\]"):
        model.fit(X, Y, groups=[7] * 23)


def test_few_groups_and_a_large_fraction_leave_one_to_train_on(splits):
    model = classifier(early_stopping=True, validation_fraction=0.6, max_epochs=1)
    model.fit(X, Y, groups=[0, 1] * 12)
    assert [len(rows) for rows in splits.taken[-1]] == [12, 12]


def test_many_groups_of_many_classes_take_little_memory():
    rng = np.random.default_rng(0)
    groups, strata = np.arange(20_000), rng.integers(0, 1000, 20_000)
    tracemalloc.start()
    training, held_out = _apart_by_groups(groups, strata, 0.1, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6
    assert (len(training), len(held_out)) == (18_000, 2_000)


def test_groups_change_nothing_without_a_held_out_part():
    groups = np.arange(24) % 5
    for given in ({}, {"X_val": X, "y_val": Y}):
        plain = classifier().fit(X, Y, **given).predict_proba(X)
        again = classifier().fit(X, Y, groups=groups, **given).predict_proba(X)
        np.testing.assert_array_equal(plain, again)


@pytest.mark.parametrize("piped", [False, True])
@pytest.mark.parametrize("request_of_fit", [None, True, False])
def test_routing_hands_groups_to_the_splitter_and_to_fit(piped, request_of_fit, splits):
    groups = np.arange(24) % 8
    with sklearn.config_context(enable_metadata_routing=True):
        model = classifier(**EASY, early_stopping=True, validation_fraction=0.25)
        if request_of_fit is not None:
            model.set_fit_request(groups=request_of_fit)
        if piped:
            model = make_pipeline(FunctionTransformer(), model)
        found = cross_validate(
            *(model, X, Y),
            cv=GroupKFold(4),
            params={"groups": groups},
            return_indices=True,
        )
    assert len(splits.taken) == 4
    shared = 0
    for train, (trained, held_out) in zip(
        found["indices"]["train"], splits.taken, strict=True
    ):
        shared += len({*groups[train][trained]} & {*groups[train][held_out]})
        assert len(trained) + len(held_out) == len(train)
    assert (shared == 0) == (request_of_fit is not False)


def test_groups_reach_a_step_of_a_pipeline(splits):
    groups = np.arange(24) % 8
    model = classifier(early_stopping=True, validation_fraction=0.25)
    steps = [("same", FunctionTransformer()), ("model", model)]
    Pipeline(steps).fit(X, Y, model__groups=groups)
    [(trained, held_out)] = splits.taken
    assert not set(groups[trained]) & set(groups[held_out])


@pytest.mark.parametrize("y", [MISSING[k] for k in MISSING if k != "indicators"])
def test_the_feature_classifier_names_missing_labels(y):
    with pytest.raises(ValueError, match=r"^y has a missing value .* in row 2"):
        make_feature_classifier(**SMALL).fit(X[:6], y)


def test_an_extractor_ignores_missing_labels():
    assert extractor().fit(X[:6], TEXTS).transform(X[:6]).shape[0] == 6
