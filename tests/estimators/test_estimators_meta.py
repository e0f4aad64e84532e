"""Every meta-estimator of scikit-learn, on columns of paths and on rows of pixels."""

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
from estimator_cases import EASY, SMALL, classifier, extractor, regressor
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    TunedThresholdClassifierCV,
    cross_val_predict,
    cross_val_score,
    learning_curve,
)
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.multioutput import ClassifierChain
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier

from sklearn_dl import FeatureScaler, make_feature_classifier

# For brightness as a number.
LONGER = {**EASY, "max_epochs": 40}


@pytest.fixture(params=["paths", "rows"])
def X(request, data, path_column):
    if request.param == "paths":
        return path_column
    return data[0].reshape(len(data[0]), -1)


@pytest.fixture
def y(data):
    return data[1]


@pytest.fixture
def brightness(data):
    return data[0].mean((1, 2, 3))


def _svm(**parameters):
    return make_feature_classifier(**SMALL, **parameters)


CLASSIFIERS = {
    "hard voting": lambda: VotingClassifier(
        [("a", classifier(**EASY)), ("b", _svm()), ("c", classifier(**EASY))]
    ),
    "soft voting": lambda: VotingClassifier(
        [("a", classifier(**EASY)), ("b", _svm(probability=True))], voting="soft"
    ),
    "bagging": lambda: BaggingClassifier(
        classifier(**EASY), n_estimators=3, random_state=0
    ),
    "adaboost": lambda: AdaBoostClassifier(
        classifier(**EASY), n_estimators=3, random_state=0
    ),
    "stacking": lambda: StackingClassifier(
        [("a", classifier(**EASY)), ("b", _svm())], LogisticRegression(), cv=2
    ),
    "pipeline": lambda: make_pipeline(
        extractor(), StandardScaler(), LogisticRegression()
    ),
    "union": lambda: make_pipeline(
        FeatureUnion([("a", extractor()), ("b", extractor(layer="pooled"))]),
        StandardScaler(),
        LogisticRegression(),
    ),
    "grid": lambda: GridSearchCV(
        classifier(**EASY),
        {"optimizer__weight_decay": [0, 1e-4]},
        cv=2,
        error_score="raise",
    ),
    "halving": lambda: HalvingGridSearchCV(
        classifier(**EASY),
        {"optimizer__weight_decay": [0, 1e-4, 1e-3]},
        resource="max_epochs",
        min_resources=3,
        max_resources=9,
        cv=2,
        error_score="raise",
        random_state=0,
    ),
    "calibrated": lambda: CalibratedClassifierCV(classifier(**EASY), cv=2),
    "threshold": lambda: TunedThresholdClassifierCV(classifier(**EASY), cv=2),
    "one vs rest": lambda: OneVsRestClassifier(classifier(**EASY)),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_meta_classifier_learns(name, X, y):
    model = CLASSIFIERS[name]().fit(X, y)
    assert model.score(X, y) >= 0.95
    assert set(model.predict(X)) == {"dark", "light"}


@pytest.mark.parametrize(
    "make",
    [
        lambda: VotingRegressor(
            [("a", regressor(**LONGER)), ("b", regressor(**LONGER))]
        ),
        lambda: BaggingRegressor(regressor(**LONGER), n_estimators=2, random_state=0),
        lambda: AdaBoostRegressor(regressor(**LONGER), n_estimators=2, random_state=0),
        lambda: StackingRegressor([("a", regressor(**LONGER))], Ridge(), cv=2),
        lambda: make_pipeline(extractor(), StandardScaler(), Ridge()),
        lambda: GridSearchCV(
            regressor(**LONGER), {"lr": [1e-2, 2e-2]}, cv=3, error_score="raise"
        ),
    ],
    ids=["voting", "bagging", "adaboost", "stacking", "pipeline", "grid"],
)
def test_a_meta_regressor_learns(make, X, brightness):
    order = np.random.default_rng(0).permutation(len(X))  # folds hold both halves
    X, y = X[order], brightness[order]
    assert make().fit(X, y).score(X, y) > 0.7


def test_cross_validation_and_learning_curve(X, y):
    P = cross_val_predict(classifier(**EASY), X, y, cv=2, method="predict_proba")
    assert P.shape == (24, 2)
    assert (np.array(["dark", "light"])[P.argmax(1)] == y).mean() > 0.9
    sizes, train, test = learning_curve(
        classifier(**EASY), X, y, cv=2, train_sizes=[6, 12], shuffle=True,
        random_state=0, error_score="raise",
    )  # fmt: skip
    assert sizes.tolist() == [6, 12]
    assert test[-1].mean() > 0.9
    assert train.shape == (2, 2)


def test_permutation_importance_finds_that_the_image_matters(path_column, y):
    X = pd.DataFrame({"path": path_column[:, 0]})
    model = classifier(**EASY).fit(X, y)
    found = permutation_importance(model, X, y, n_repeats=3, random_state=0)
    assert found.importances_mean[0] > 0.2


def test_permutation_importance_of_pixels(small_rows):
    X, y = small_rows
    X = X[:, :9]
    model = classifier(**EASY).fit(X, y)
    found = permutation_importance(model, X, y, n_repeats=1, random_state=0)
    assert found.importances_mean.shape == (9,)


@pytest.mark.filterwarnings("ignore:X has .* columns:UserWarning")
@pytest.mark.parametrize(
    "make",
    [
        lambda: OneVsOneClassifier(classifier(**EASY)),
        lambda: SelfTrainingClassifier(classifier(**EASY)),
    ],
    ids=["one vs one", "self-training"],
)
def test_meta_estimators_for_rows_only(make, small_rows):
    X, y = small_rows
    model = make().fit(X, y)
    assert model.score(X, y) > 0.9


def test_self_training_uses_what_is_unlabelled(small_rows):
    X, y = small_rows
    partly = y.copy()
    partly[10:] = -1
    model = SelfTrainingClassifier(classifier(**EASY), threshold=0.6)
    model.fit(X, partly)
    assert (model.transduction_ != -1).sum() > 10
    assert model.score(X, y) > 0.9


@pytest.mark.filterwarnings("ignore:X has .* columns:UserWarning")
@pytest.mark.filterwarnings("ignore:X has float pixels:UserWarning")
def test_a_classifier_chain(small_rows):
    X, y = small_rows
    Y = np.c_[y, 1 - y]
    chain = ClassifierChain(classifier(**EASY)).fit(X, Y)
    assert chain.predict(X).shape == Y.shape


def test_a_path_column_beside_tabular_ones(image_files, y):
    rng = np.random.default_rng(0)
    X = pd.DataFrame(
        {"path": image_files, "a": rng.random(24), "b": rng.random(24)},
        index=range(100, 124),
    )
    for columns in (["path"], "path"):
        transformer = ColumnTransformer(
            [("image", extractor(), columns), ("rest", StandardScaler(), ["a", "b"])]
        ).set_output(transform="pandas")
        frame = transformer.fit_transform(X)
        assert frame.shape == (24, 514)
        assert frame.index.tolist() == X.index.tolist()
        assert frame.columns[0] == "image__imagefeatureextractor0"
        assert frame.columns[-1] == "rest__b"
        F = extractor().fit_transform(image_files)
        np.testing.assert_allclose(frame.iloc[:, :512], F, rtol=1e-5, atol=1e-6)
    model = make_pipeline(transformer, StandardScaler(), LogisticRegression())
    assert cross_val_score(model, X, y, cv=2, error_score="raise").mean() > 0.9


def test_bagging_gives_each_member_its_own_weights(path_column, y):
    bag = BaggingClassifier(classifier(), n_estimators=2, random_state=0)
    first, second = bag.fit(path_column, y).estimators_
    P, Q = (member.predict_proba(path_column) for member in (first, second))
    assert np.abs(P - Q).max() > 1e-4
    assert first.classes_.tolist() == second.classes_.tolist()


def test_grid_search_reaches_parameters_and_the_best_is_refitted(X, y):
    search = GridSearchCV(
        make_pipeline(extractor(), classifier_of_rows()),
        {"imagefeatureextractor__layer": ["pre_logits", "features.2"]},
        cv=2,
        error_score="raise",
    ).fit(X, y)
    assert search.best_estimator_[0].n_features_out_ in (512, 64)
    assert len(set(search.cv_results_["mean_test_score"])) >= 1


def classifier_of_rows():
    return make_pipeline(StandardScaler(), LogisticRegression())


def test_sample_weights_are_routed(X, y):
    weights = np.where(y == "dark", 1.0, 0.0)
    weights[[-1, 0]] = 1e-3, 5
    with sklearn.config_context(enable_metadata_routing=True):
        request = classifier().set_fit_request(sample_weight=True)
        request.set_score_request(sample_weight=True)
        pipeline = make_pipeline(request)
        routed = pipeline.fit(X, y, sample_weight=weights)
        search = GridSearchCV(request, {"lr": [1e-2]}, cv=2, error_score="raise")
        search.fit(X, y, sample_weight=weights)
    direct = classifier().fit(X, y, sample_weight=weights)
    plain = classifier().fit(X, y)
    P = routed.predict_proba(X)
    np.testing.assert_array_equal(P, direct.predict_proba(X))
    np.testing.assert_array_equal(search.predict_proba(X), P)
    assert np.abs(plain.predict_proba(X) - P).max() > 1e-3


def test_validation_rows_go_through_a_pipeline_by_routing(data):
    X, y = data
    with sklearn.config_context(enable_metadata_routing=True):
        request = classifier().set_fit_request(X_val=True, y_val=True)
        model = make_pipeline(request).fit(X[::2], y[::2], X_val=X[1::2], y_val=y[1::2])
    assert "valid_score" in model[-1].history_


@pytest.mark.parametrize("trainable", ["head", "all"])
def test_processes_get_memory_mapped_images(trainable, data):
    X, y = np.repeat(data[0], 20, 0), np.repeat(data[1], 20)
    assert X.nbytes > 1e6  # joblib maps arrays larger than that into its workers
    order = np.random.default_rng(0).permutation(len(X))
    search = GridSearchCV(
        classifier(**{**EASY, "max_epochs": 2}, trainable=trainable),
        {"optimizer__weight_decay": [0, 1e-4]},
        cv=2,
        n_jobs=2,
        error_score="raise",
    ).fit(X[order], y[order])
    assert search.best_score_ > 0.9


def test_threads(path_column, y):
    with joblib.parallel_config("threading", n_jobs=2):
        search = GridSearchCV(
            classifier(**EASY),
            {"optimizer__weight_decay": [0, 1e-4]},
            cv=2,
            error_score="raise",
        ).fit(path_column, y)
    assert search.best_score_ > 0.9


def test_loader_workers_inside_joblib_processes(data):
    # Else: 'Process' object has no attribute 'env'
    search = GridSearchCV(
        classifier(
            trainable="all",
            max_epochs=1,
            net_params={"iterator_train__num_workers": 1},
        ),
        {"optimizer__weight_decay": [0, 1e-4]},
        cv=2,
        n_jobs=2,
        error_score="raise",
    )
    search.fit(*data)


def test_a_pipeline_with_memory(path_column, y, tmp_path):
    model = make_feature_classifier(**SMALL, memory=str(tmp_path))
    model.fit(path_column, y)
    again = clone(model).fit(path_column, y)
    assert any(tmp_path.rglob("output.pkl"))
    assert model.score(path_column, y) == again.score(path_column, y) == 1.0


def test_make_feature_classifier_takes_any_classifier(data):
    model = make_feature_classifier(classifier=LogisticRegression(), **SMALL).fit(*data)
    assert model.predict_proba(data[0]).shape == (24, 2)
    assert [name for name, _ in model.steps] == ["features", "scaler", "classifier"]
    F = extractor().fit_transform(data[0])
    by_hand = make_pipeline(FeatureScaler(), LogisticRegression()).fit(F, data[1])
    np.testing.assert_allclose(
        model.predict_proba(data[0]), by_hand.predict_proba(F), atol=1e-6
    )
