"""Regimes in one search: the grid, its counts of images, and the leaderboard."""

import pickle

import numpy as np
import pytest
import torch
from joblib import parallel_config
from PIL import Image
from scipy.stats import loguniform
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import FitFailedWarning
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import RidgeCV
from sklearn.metrics import accuracy_score
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    HalvingGridSearchCV,
    KFold,
    RandomizedSearchCV,
    StratifiedKFold,
)
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import SVC, LinearSVC

from sklearn_dl import ImageClassifier, ImageRegressor, make_feature_classifier
from sklearn_dl.model_selection import compare_regimes, regime_grid

SMALL = {
    "backbone": "squeezenet1_1",
    "weights": None,
    "image_size": 32,
    "batch_size": 8,
    "random_state": 0,
}
MODEL = ImageClassifier(**SMALL)
FOLDS = StratifiedKFold(2, shuffle=True, random_state=0)


@pytest.fixture(scope="module")
def data():
    """24 images of two brightnesses, so near that no score is perfect."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 128, (24, 32, 32, 3), "uint8")
    images[12:] += 3
    return images, np.repeat(["dark", "light"], 12)


@pytest.fixture
def passed():
    """Sizes of all batches that entered a SqueezeNet, without the loader's trials."""
    sizes = []

    def note(module, inputs, output):
        first = isinstance(module, torch.nn.Conv2d) and module.in_channels == 3
        if first and len(inputs[0]) > 1:
            sizes.append(len(inputs[0]))

    handle = torch.nn.modules.module.register_module_forward_hook(note)
    yield sizes
    handle.remove()


class Rows(ClassifierMixin, BaseEstimator):
    """Predicts by a threshold; keeps the rows and the weights of each fit."""

    fits: list = []  # noqa: RUF012 - shared by the copies that a search makes

    def __init__(self, threshold=0.5, fail_above=np.inf):
        self.threshold = threshold
        self.fail_above = fail_above

    def fit(self, X, y, sample_weight=None):
        if self.threshold > self.fail_above:
            raise ValueError("threshold too high")
        Rows.fits.append((np.ravel(X), sample_weight))
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return self.classes_[(np.ravel(X) >= self.threshold).astype(int)]


@pytest.fixture
def numbers():
    """Twenty numbers in the order of their classes, and an own regime for them."""
    Rows.fits.clear()
    return np.arange(20.0)[:, None], np.repeat([0, 1], 10)


def own(*thresholds, **parameters):
    return {"own": (Rows(**parameters), {"threshold": list(thresholds)})}


def test_the_regimes_of_the_table():
    names = ("svm", "earlier", "head", "last", "all")
    model = ImageClassifier(**SMALL, max_epochs=10, warmup_epochs=1)
    _, grid = regime_grid(model, names)
    assert [part["regime"] for part in grid] == [[name] for name in names]
    svm, earlier, head, last, everything = (part["model"][0] for part in grid)
    assert isinstance(svm["classifier"], LinearSVC)
    assert svm["features"].layer == "pre_logits"
    assert earlier["features"].layer == "features.7"
    assert (head.trainable, head.warmup_epochs, head.augment) == ("head", 0, None)
    for model, trainable in ((last, 2), (everything, "all")):
        assert model.trainable == trainable
        assert (model.warmup_epochs, model.max_epochs) == (2, 10)
        assert (model.augment, model.schedule) == ("standard", "cosine")
    for model in (svm["features"], earlier["features"], head, last, everything):
        parameters = model.get_params()
        assert {name: parameters[name] for name in SMALL} == SMALL


def test_a_regression_gets_ridge_and_regressors():
    _, grid = regime_grid(ImageRegressor(**SMALL), ("svm", "head", "all"))
    svm, head, everything = (part["model"][0] for part in grid)
    assert isinstance(svm["regressor"], RidgeCV)
    assert isinstance(head, ImageRegressor)
    assert isinstance(everything, ImageRegressor)
    assert set(grid[0]) == {"regime", "model"}


@pytest.mark.parametrize("max_epochs", [1, 2, 7])
def test_an_epoch_is_left_after_the_warm_up(max_epochs):
    model = ImageClassifier(max_epochs=max_epochs)
    _, grid = regime_grid(model, ("head", "last", "all"))
    for part in grid:
        model = part["model"][0]
        assert model.max_epochs == max_epochs
        assert model.warmup_epochs == (
            0 if model.trainable == "head" else min(2, max_epochs - 1)
        )


def test_augmentation_of_the_estimator_goes_before_that_of_the_table():
    _, grid = regime_grid(ImageClassifier(augment=["blur"]), ("head", "last"))
    assert [part["model"][0].augment for part in grid] == [["blur"], ["blur"]]


def test_grids_replace_those_of_the_table():
    grid = {"classifier": [SVC()], "features__layer": ["pooled"]}
    regimes = {"svm": grid, "mine": ("svm", grid), "head": "head"}
    _, (svm, mine, head) = regime_grid(MODEL, regimes)
    for part in (svm, mine):
        assert set(part) == {
            *("regime", "model", "model__classifier", "model__features__layer")
        }
    assert (svm["regime"], mine["regime"]) == (["svm"], ["mine"])
    assert len(head["model__lr"]) > 1


def test_a_comparison_hands_all_parameters_on(data):
    images, y = data
    options = {
        "backbone": "squeezenet1_1",
        "weights": None,
        "preprocessing": "IMAGENET1K_V1",
        "image_size": 33,
        "image_shape": (32, 32, 3),
        "tta": "flip",
        "batch_size": 5,
        "device": "cpu",
        "precision": "float64",
        "cache": None,
        "random_state": 3,
        "verbose": 1,
    }
    model = ImageClassifier(**options)
    result = compare_regimes(model, images.reshape(24, -1), y, regimes="svm", cv=2)
    extractor = result.best_estimator_["features"].get_params()
    assert {name: extractor[name] for name in options} == options
    assert result.search_.cv.random_state == 3


def test_the_leaderboard_is_that_of_a_grid_search_by_hand(data):
    svm, head = make_feature_classifier(**SMALL), ImageClassifier(**SMALL, max_epochs=2)
    regimes = {"svm": {"classifier__C": [0.2, 20]}, "head": {"lr": [1e-3, 1e-2]}}
    result = compare_regimes(head, *data, regimes=regimes, cv=2)
    by_hand = GridSearchCV(
        Pipeline([("model", svm)]),
        [
            {"model": [svm], "model__classifier__C": [0.2, 20]},
            {"model": [head], "model__lr": [1e-3, 1e-2]},
        ],
        cv=FOLDS,
    ).fit(*data)
    expected = by_hand.cv_results_
    assert len(set(expected["mean_test_score"])) > 1
    board = result.leaderboard_
    assert board["rank"].is_monotonic_increasing
    in_order = board.sort_index()
    for column in ("mean", "std"):
        np.testing.assert_array_equal(
            in_order[f"{column}_score"], expected[f"{column}_test_score"]
        )
    np.testing.assert_array_equal(in_order["rank"], expected["rank_test_score"])
    assert in_order["regime"].tolist() == ["svm", "svm", "head", "head"]
    assert in_order["parameters"].tolist() == [
        *({"classifier__C": 0.2}, {"classifier__C": 20}),
        *({"lr": 1e-3}, {"lr": 1e-2}),
    ]
    results = result.search_.cv_results_
    spent = results["mean_fit_time"] + results["mean_score_time"]
    np.testing.assert_allclose(in_order["mean_seconds"], spent)
    np.testing.assert_allclose(in_order["total_seconds"], 2 * spent)

    assert board.index[0] == by_hand.best_index_
    assert result.best_score_ == by_hand.best_score_
    assert result.best_regime_ == board["regime"].iloc[0]
    best = by_hand.best_estimator_["model"]
    assert type(result.best_estimator_) is type(best)
    np.testing.assert_array_equal(
        result.best_estimator_.predict(data[0]), best.predict(data[0])
    )


def test_passes_are_exact_without_a_cache(data, passed):
    model = ImageClassifier(**SMALL, max_epochs=3, cache=None)
    regimes = {"svm": {"classifier__C": [1e-3, 1e-2]}, "all": {}}
    result = compare_regimes(model, *data, regimes=regimes, cv=3)
    # Of each fold 16 rows train and 8 are scored.
    # An epoch more: the head starts from features of images that didn't change.
    svm, fine_tuned = 3 * (16 + 8) / 24, 3 * (4 * 16 + 8) / 24
    found = result.leaderboard_.sort_index()["passes"]
    assert found.tolist() == [svm, svm, fine_tuned]
    refit = 4.0 if result.best_regime_ == "all" else 1.0
    assert result.passes_ == 2 * svm + fine_tuned + refit
    assert sum(passed) / 24 == result.passes_


def test_with_a_cache_each_image_passes_once_for_all_candidates(passed):
    rng = np.random.default_rng(20_240)  # no other test has seen these
    images = rng.integers(0, 255, (12, 32, 32, 3), "uint8")
    model = ImageClassifier(**SMALL, max_epochs=2)
    result = compare_regimes(model, images, [0, 1] * 6, regimes=("svm", "head"), cv=3)
    assert result.passes_ == 1.0
    assert sum(passed) == 12
    assert result.leaderboard_.sort_index()["passes"].tolist()[0] == 1.0


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_in_parallel_passes_are_counted_alike(data, backend):
    model = ImageClassifier(**SMALL, cache=None, max_epochs=2)
    regimes = {"svm": {"classifier__C": [1e-3]}, "all": {"lr": [1e-3]}}
    with parallel_config(backend):
        two = compare_regimes(model, *data, regimes=regimes, cv=2, n_jobs=2)
    assert two.search_.n_jobs == 2
    two = two.leaderboard_.sort_index()
    assert two["passes"].tolist() == [2.0, 4.0]
    if backend == "loky":  # threads share torch's generator
        one = compare_regimes(model, *data, regimes=regimes, cv=2).leaderboard_
        columns = ["regime", "parameters", "mean_score", "std_score", "rank"]
        assert two[columns].equals(one.sort_index()[columns])


def test_processes_share_the_passes_through_a_directory(data, tmp_path):
    model = ImageClassifier(**SMALL, cache=str(tmp_path), max_epochs=2)
    options = {"regimes": ("svm", "head"), "cv": 2}
    result = compare_regimes(model, *data, n_jobs=2, **options)
    assert result.passes_ == 1.0
    again = compare_regimes(model, *data, **options)
    assert again.passes_ == 0.0
    columns = ["regime", "parameters", "mean_score", "rank"]
    assert again.leaderboard_[columns].equals(result.leaderboard_[columns])


def test_a_number_of_folds_is_shuffled_and_stratified(numbers):
    X, y = numbers
    compare_regimes(ImageClassifier(random_state=3), X, y, regimes=own(9.5), cv=5)
    splitter = StratifiedKFold(5, shuffle=True, random_state=3)
    expected = [X[train].ravel() for train, _ in splitter.split(X, y)]
    assert len(Rows.fits) == 6
    for (rows, _), train in zip(Rows.fits, [*expected, X.ravel()], strict=True):
        np.testing.assert_array_equal(rows, train)


def test_all_candidates_have_the_same_folds_also_without_a_seed(numbers):
    compare_regimes(ImageClassifier(), *numbers, regimes=own(1.0, 2.0, 9.5), cv=4)
    folds = [rows.tolist() for rows, _ in Rows.fits[:-1]]
    assert folds[:4] == folds[4:8] == folds[8:]
    assert any(np.diff(fold).max() != 1 for fold in folds)


def test_no_number_of_folds_is_five(numbers):
    search = compare_regimes(MODEL, *numbers, regimes=own(9.5), cv=None).search_
    assert (search.n_splits_, search.cv.shuffle) == (5, True)


@pytest.mark.parametrize("form", ["splitter", "list", "generator"])
def test_folds_may_be_a_splitter_or_splits(numbers, form):
    X, y = numbers
    splitter = KFold(4, shuffle=True, random_state=1)
    splits = list(splitter.split(X))
    cv = {"splitter": splitter, "list": splits, "generator": iter(splits)}[form]
    compare_regimes(MODEL, X, y, regimes=own(1.0, 2.0), cv=cv)
    for (rows, _), (train, _) in zip(Rows.fits[:-1], 2 * splits, strict=True):
        np.testing.assert_array_equal(rows, X[train].ravel())


def test_splits_keep_groups_whole(numbers):
    X, y = numbers
    groups = np.arange(20) // 2
    splits = GroupKFold(5).split(X, y, groups)
    compare_regimes(MODEL, X, y, regimes=own(9.5), cv=splits)
    for rows, _ in Rows.fits[:-1]:
        assert np.all(np.bincount(groups[rows.astype(int)]) % 2 == 0)


def test_a_regression_is_compared_on_shuffled_folds():
    rng = np.random.default_rng(0)
    level = np.linspace(0, 200, 24)
    images = (rng.integers(0, 56, (24, 32, 32, 3)) + level[:, None, None, None]).astype(
        "uint8"
    )
    y = np.column_stack([level, -level])
    model = ImageRegressor(**SMALL, max_epochs=2)
    result = compare_regimes(model, images, y, regimes=("svm", "head"), cv=2)
    assert result.best_score_ > 0.5
    assert result.best_estimator_.predict(images).shape == (24, 2)
    assert result.search_.cv.shuffle
    assert type(result.search_.cv) is KFold


def test_several_labels_of_an_image_are_compared(data):
    labels = np.random.default_rng(0).integers(0, 2, (24, 3))
    model = ImageClassifier(**SMALL, max_epochs=1)
    regimes = {"head": {"lr": [1e-3]}}
    result = compare_regimes(model, data[0], labels, regimes=regimes, cv=2)
    assert result.best_estimator_.predict(data[0]).shape == (24, 3)


def test_backbones_are_told_apart(data):
    backbones = ["squeezenet1_1", "squeezenet1_0"]
    grid = {"features__backbone": backbones, "classifier__C": [1e-2]}
    result = compare_regimes(MODEL, *data, regimes={"linear": ("svm", grid)}, cv=2)
    board = result.leaderboard_.sort_index()
    assert board["parameters"].tolist() == [
        {"classifier__C": 1e-2, "features__backbone": backbone}
        for backbone in backbones
    ]
    best = board["parameters"].loc[result.leaderboard_.index[0]]["features__backbone"]
    assert result.best_estimator_["features"].backbone == best


def test_ones_own_estimators_stand_beside_the_table(data):
    result = compare_regimes(
        MODEL,
        [Image.fromarray(image) for image in data[0]],
        data[1].tolist(),
        regimes={
            "svm": {"classifier__C": [1e-3, 1e-2]},
            "chance": DummyClassifier(),
            "kernel": (make_feature_classifier(classifier=SVC(), **SMALL), {}),
        },
        cv=2,
    )
    board = result.leaderboard_.sort_index()
    assert board["regime"].tolist() == ["svm", "svm", "chance", "kernel"]
    assert board["parameters"][2] == {}
    assert board["mean_score"][2] == 0.5
    assert board["passes"][2] == 0


@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize("deep", [False, True])
def test_sample_weights_reach_the_estimator(numbers, deep, routing):
    X, y = numbers
    model = Rows(9.5)
    if deep:
        model = make_pipeline(
            FunctionTransformer(), make_pipeline(FunctionTransformer(), model)
        )
    with config_context(enable_metadata_routing=routing):
        compare_regimes(
            MODEL, X, y, regimes={"own": model}, cv=2, sample_weight=10 * X.ravel()
        )
    for rows, weights in Rows.fits:
        np.testing.assert_array_equal(weights, 10 * rows)


def test_weights_count_in_scores_as_in_a_search_by_hand(numbers):
    X, y = numbers
    weights = 10 * X.ravel()
    search = GridSearchCV(*regime_grid(MODEL, own(4.5, 12.5)), cv=FOLDS)
    search.fit(X, y, sample_weight=weights)
    for rows, given in Rows.fits:
        np.testing.assert_array_equal(given, 10 * rows)
    options = {"cv": 2, "sample_weight": weights, "regimes": own(4.5, 12.5)}
    board = compare_regimes(MODEL, X, y, **options).leaderboard_
    expected = search.cv_results_["mean_test_score"]
    np.testing.assert_array_equal(board.sort_index()["mean_score"], expected)

    def accuracy(estimator, X, y):
        return accuracy_score(y, estimator.predict(X))

    with pytest.warns(UserWarning, match="accuracy.* not support sample_weight"):
        compare_regimes(MODEL, X, y, scoring=accuracy, **options)


def test_a_failing_candidate_is_named_and_the_others_are_kept(numbers):
    regimes = own(9.5, 99.0, 12.0, fail_above=50.0)
    with pytest.warns(FitFailedWarning) as caught:
        result = compare_regimes(MODEL, *numbers, regimes=regimes, cv=2)
    messages = [str(warning.message) for warning in caught]
    assert any("1 of 3 candidates" in m and "own (threshold=99)" in m for m in messages)
    assert any("regime was 'own'" in m for m in messages)  # beside the traceback
    assert len(caught) == 2
    board = result.leaderboard_
    assert board["mean_score"].isna().tolist() == [False, False, True]
    assert board["passes"].isna().tolist() == [False, False, True]
    assert result.best_estimator_.threshold == 9.5
    assert result.passes_ == 0


def test_scoring_that_fails_for_one_regime_spares_the_others(numbers):
    regimes = {"chance": DummyClassifier(), **own(9.5)}
    options = {"cv": 2, "scoring": "neg_log_loss"}  # `Rows` has no probabilities
    with pytest.warns(FitFailedWarning) as caught:
        result = compare_regimes(MODEL, *numbers, regimes=regimes, **options)
    messages = [str(warning.message) for warning in caught]
    assert any("Scoring the regime 'own' failed: Attr" in m for m in messages)
    assert "1 of 2 candidates failed in a fold and have no score: own" in messages[-1]
    assert result.best_regime_ == "chance"


def test_where_all_fail_the_errors_are_told(numbers):
    with pytest.raises(ValueError, match=r"(?s)All the 2 fits failed.*'own'"):
        compare_regimes(MODEL, *numbers, regimes=own(99.0, fail_above=50.0), cv=2)


def test_a_metric_may_be_a_name_or_a_callable(numbers):
    X, y = numbers
    y = np.where(np.arange(20) < 5, 1, y)

    def half(estimator, X, y):
        return accuracy_score(y, estimator.predict(X)) / 2

    options = {"regimes": own(9.5), "cv": 2}
    plain = compare_regimes(MODEL, X, y, **options)
    halved = compare_regimes(MODEL, X, y, scoring=half, **options)
    assert halved.best_score_ == plain.best_score_ / 2 < 0.5
    named = compare_regimes(MODEL, X, y, scoring="balanced_accuracy", **options)
    assert named.best_score_ != plain.best_score_


def test_it_prints_as_a_table(numbers):
    regimes = own(9.5, 0.0001234567)
    text = str(compare_regimes(MODEL, *numbers, regimes=regimes, cv=2))
    header, first, second = text.splitlines()
    assert header.split()[:2] == ["regime", "parameters"]
    assert first.split()[:3] == ["own", "threshold=9.5", "1"]
    assert "threshold=0.0001235" in second


@pytest.mark.parametrize("search", ["grid", "randomized", "halving"])
def test_scikit_learns_searches_take_the_grid(data, search):
    rates = loguniform(1e-3, 1e-1) if search == "randomized" else [1e-3, 1e-2]
    model = ImageClassifier(**SMALL, max_epochs=1)
    estimator, grid = regime_grid(model, {"svm": "svm", "head": {"lr": rates}})
    estimator, grid = clone(estimator), clone(grid, safe=False)
    if search == "randomized":
        model = RandomizedSearchCV(estimator, grid, n_iter=4, cv=FOLDS, random_state=0)
    elif search == "halving":
        model = HalvingGridSearchCV(estimator, grid, cv=FOLDS, random_state=0)
    else:
        model = GridSearchCV(estimator, grid, cv=FOLDS)
    model.fit(*data)
    results = model.cv_results_
    types = {"svm": Pipeline, "head": ImageClassifier}
    expected = [types[name] for name in results["param_regime"]]
    assert [type(model) for model in results["param_model"]] == expected
    assert np.all(np.isfinite(results["mean_test_score"]))
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(data[0]), model.predict(data[0]))


@pytest.mark.parametrize(
    ("regimes", "error", "message"),
    [
        ("smv", ValueError, r"no regime 'smv': choose from \['svm', "),
        ({"a": "smv"}, ValueError, "no regime 'smv'"),
        ({"smv": {"classifier__C": [1]}}, ValueError, "no regime 'smv'"),
        ((), ValueError, "regimes is empty"),
        ([Rows()], TypeError, "regimes must hold names, or be a dict .* Rows"),
        (None, TypeError, "regimes must hold names, .*; got None"),
        ({"a": Rows}, TypeError, "dict from names to estimators, grids .* 'a': <class"),
        ({"a": (Rows(), [1])}, TypeError, "regimes must hold .* 'a': "),
        ({"a": 3}, TypeError, "regimes must hold .* 'a': 3"),
        ({"svm": {"C": [1]}}, ValueError, "Invalid parameter 'C'"),
        ({"svm": {"classifier__C": 1}}, TypeError, "'classifier__C' .*value=1"),
        ({"head": {"lr": "a"}}, TypeError, "'lr' needs to be a list"),
        ({"head": {"lr": []}}, ValueError, "'lr' need to be a non-empty"),
    ],
)
def test_mistakes_are_named(regimes, error, message):
    with pytest.raises(error, match=message) as caught:
        regime_grid(MODEL, regimes)
    if isinstance(regimes, dict) and regimes.keys() & {"svm", "head"}:
        assert caught.value.__notes__[0].startswith("It was in the grid of ")


def test_what_is_no_network_is_refused(numbers):
    with pytest.raises(TypeError, match="'estimator' parameter of regime_grid"):
        regime_grid(Rows())
    with pytest.raises(TypeError, match="'estimator' parameter of compare_regimes"):
        compare_regimes(Rows(), *numbers)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scoring": ["accuracy"]}, "'scoring' parameter"),
        ({"cv": "five"}, "'cv' parameter"),
        ({"cv": 1}, "'cv' parameter"),
        ({"regimes": "smv"}, "no regime 'smv'"),
        ({"y": np.linspace(0, 1, 20)}, "continuous: .* an ImageRegressor"),
    ],
)
def test_mistakes_of_a_comparison_are_named(numbers, options, message):
    X, y = numbers
    with pytest.raises(ValueError, match=message):
        compare_regimes(MODEL, **{"X": X, "y": y, "regimes": own(9.5), **options})
    assert Rows.fits == []
