"""The scaler and the linear SVM behind features: few rows, many rows, the intercept."""

import tracemalloc

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils import compute_sample_weight
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_dl import FeatureScaler, FeatureSVC, _linear, make_feature_classifier


def rows(n_rows, n_features=60, n_classes=3, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n_rows) % n_classes)
    means = rng.normal(0, 0.5, (n_classes, n_features))
    scales = rng.uniform(0.1, 3, n_features)
    return ((rng.normal(3, 1, (n_rows, n_features)) + means[y]) * scales).astype(
        dtype
    ), y


@parametrize_with_checks([FeatureScaler(), FeatureSVC()])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def test_the_default_pipeline():
    model = make_feature_classifier()
    assert [*model.named_steps] == ["features", "scaler", "classifier"]
    assert isinstance(model["scaler"], FeatureScaler)
    assert isinstance(model["classifier"], FeatureSVC)


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("weights", [None, "balanced", "rows"])
def test_it_finds_what_liblinear_finds(n_classes, dtype, weights):
    X, y = rows(150, n_classes=n_classes, dtype=dtype)
    X = FeatureScaler().fit_transform(X)
    given = {"class_weight": weights} if weights == "balanced" else {}
    sample = np.linspace(0.1, 2, len(X)) if weights == "rows" else None
    norm = np.average((X.astype(float) ** 2).sum(1), weights=sample)
    model = FeatureSVC(C=3.0, intercept_scaling=0.1, tol=1e-6, **given)
    model.fit(X, y, sample)
    options = {"C": 3.0 / norm, "intercept_scaling": 0.1 * norm**0.5, "tol": 1e-9}
    # Among several classes liblinear's own class_weight leaves out the negative rows.
    factors = compute_sample_weight(given.get("class_weight"), y)
    factors = factors if sample is None else factors * sample
    other = LinearSVC(**options, max_iter=100_000).fit(X, y, factors)
    scale = np.abs(other.coef_).max()
    np.testing.assert_allclose(model.coef_, other.coef_, atol=2e-3 * scale)
    np.testing.assert_allclose(model.intercept_, other.intercept_, atol=2e-3)
    np.testing.assert_array_equal(model.predict(X), other.predict(X))


def test_the_svm_does_not_depend_on_the_unit_of_its_features():
    X, y = rows(90)
    X = FeatureScaler().fit_transform(X)
    wanted = FeatureSVC().fit(X, y).decision_function(X)
    found = FeatureSVC().fit(64 * X, y).decision_function(64 * X)
    np.testing.assert_allclose(found, wanted, atol=1e-3)


def test_the_intercept_is_part_of_the_penalty():
    rng = np.random.default_rng(0)
    X = FeatureScaler().fit_transform(rng.normal(size=(60, 200)))
    y = np.arange(60) % 6 == 0  # noise, of which one in six is positive
    free = FeatureSVC(intercept_scaling=10.0).fit(X, y).intercept_
    held = FeatureSVC().fit(X, y).intercept_
    assert free < -0.5
    assert 0.5 * free < held < 0


def test_variances_are_drawn_towards_their_mean():
    X, _ = rows(8, dtype=np.float64)
    scaler = FeatureScaler(shrinkage=2.0).fit(X)
    var = X.var(axis=0)
    np.testing.assert_allclose(scaler.scale_**2, (8 * var + 2 * var.mean()) / 10)
    np.testing.assert_allclose(scaler.transform(X), (X - X.mean(0)) / scaler.scale_)
    plain = FeatureScaler(shrinkage=0).fit_transform(X)
    np.testing.assert_allclose(plain, StandardScaler().fit_transform(X))


def test_a_unit_that_hardly_moved_in_training_is_not_blown_up():
    X, _ = rows(4, dtype=np.float64)
    X[:, 0] = 0.0
    X[0, 0] = 1e-6
    new = X.copy()
    new[:, 0] = 1.0
    assert StandardScaler().fit(X).transform(new)[0, 0] > 1e5
    assert np.abs(FeatureScaler().fit(X).transform(new)[:, 0]).max() < 2
    same = np.ones((5, 3))
    np.testing.assert_array_equal(FeatureScaler().fit_transform(same), 0 * same)


def test_chunks_change_nothing(monkeypatch):
    X, y = rows(100, dtype=np.float64)
    whole = make_pipeline(FeatureScaler(), FeatureSVC()).fit(X, y)
    monkeypatch.setattr(_linear, "_ROWS", 7)
    parts = make_pipeline(FeatureScaler(), FeatureSVC()).fit(X, y)
    for name in ("mean_", "scale_", "n_samples_seen_"):
        np.testing.assert_allclose(getattr(parts[0], name), getattr(whole[0], name))
    np.testing.assert_allclose(parts[1].coef_, whole[1].coef_, rtol=1e-4, atol=1e-6)


def test_a_fit_copies_its_rows_once():
    X, y = rows(40_000, n_features=256)
    model = make_pipeline(FeatureScaler(), FeatureSVC(max_iter=2))
    tracemalloc.start()
    try:
        with pytest.warns(ConvergenceWarning):
            model.fit(X, y)
        added = tracemalloc.get_traced_memory()[1] / X.nbytes
    finally:
        tracemalloc.stop()
    assert added < 1.3


def test_a_class_without_weight_has_no_part():
    X, y = rows(90, dtype=np.float64)
    X = FeatureScaler().fit_transform(X)
    known = y != 2
    model = FeatureSVC(class_weight="balanced").fit(X, y, known.astype(float))
    assert (model.predict(X[known]) == y[known]).mean() > 0.9
    assert np.isfinite(model.coef_).all()


def test_constant_features_of_many_rows_have_a_scale_of_one():
    X, _ = rows(10_000, n_features=3, dtype=np.float64)
    X[:, 0] = 0.1
    scaler = FeatureScaler(shrinkage=0).fit(X)
    np.testing.assert_allclose(scaler.scale_, StandardScaler().fit(X).scale_)
    assert scaler.scale_[0] == 1


def test_a_fit_that_fails_leaves_the_scaler_unfitted():
    X, _ = rows(10_000, n_features=3)
    X[-1, 0] = np.inf
    scaler = FeatureScaler()
    with pytest.raises(ValueError, match="infinity"):
        scaler.fit(X)
    assert not hasattr(scaler, "scale_")


def test_too_few_iterations_are_said():
    X, y = rows(100)
    with pytest.warns(ConvergenceWarning, match="max_iter=2"):
        FeatureSVC(max_iter=2).fit(X, y)


def test_predictions_have_the_dtype_of_the_features():
    X, y = rows(100)
    assert FeatureSVC().fit(X, y).decision_function(X).dtype == np.float32


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="y has one class, 'ants', of at"):
        FeatureSVC().fit([[0.0], [1.0]], ["ants", "ants"])
