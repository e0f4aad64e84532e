"""Ensembles are the votes, means and weights that their members give by hand."""

import numpy as np
import pytest
from estimator_cases import EASY, SMALL, classifier, regressor, two_brightnesses
from PIL import Image
from sklearn.base import clone
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.linear_model import LogisticRegression, Ridge

from sklearn_dl import ImageFeatureExtractor, make_feature_classifier

SHAPE = (24, 40, 3)  # which rows of pixels do not tell
KINDS = ["paths", "rows"]
# Enough to learn something, too little to agree on it.
RESTLESS = {"optimizer": "adam", "lr": 1e-2, "max_epochs": 4}


@pytest.fixture(scope="module")
def y():
    """Return three classes, for the first twenty images."""
    return np.random.default_rng(6).permutation(np.repeat(["a", "b", "c"], [8, 6, 6]))


@pytest.fixture(scope="module")
def images(y):
    """Return 30 images that are not square; those of "a" are a little darker."""
    rng = np.random.default_rng(5)
    images = rng.integers(0, 128, (30, *SHAPE), "uint8")
    images += rng.integers(0, 100, (30, 1, 1, 1), "uint8")
    images[:20][y != "a"] += 27
    return images


@pytest.fixture(scope="module")
def forms(images, tmp_path_factory):
    """Return the images as an (n, 1) array of paths, and as (n, H*W*C) rows."""
    folder = tmp_path_factory.mktemp("ensembles")
    paths = [str(folder / f"{row}.png") for row in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    rows = images.reshape(len(images), -1)
    return {"paths": np.array(paths, dtype=object)[:, None], "rows": rows}


def net(**parameters):
    return classifier(**{**RESTLESS, "image_shape": SHAPE, **parameters})


def mean_net(**parameters):
    return regressor(**{**RESTLESS, "image_shape": SHAPE, **parameters})


def svm(**parameters):
    return make_feature_classifier(**SMALL, image_shape=SHAPE, **parameters)


MEMBERS = {
    "different backbones": lambda: [
        ("squeezenet", net(layer="features.2")),
        ("mobilenet", net(backbone="mobilenet_v3_small", trainable="all", lr=1e-3)),
        ("earlier", net(backbone="mobilenet_v3_small", layer="features.1")),
    ],
    "a fine-tuned net and SVMs": lambda: [
        ("tuned", net(trainable="all", backbone_lr=1e-3)),
        ("SVM", svm(probability=True)),
        ("early SVM", svm(probability=True, layer="features.2")),
    ],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MEMBERS)
def test_a_vote_is_that_of_its_members_fitted_alone(name, kind, forms, y):
    X, new = forms[kind][:20], forms[kind]
    alone = [clone(member).fit(X, y) for _, member in MEMBERS[name]()]
    P = np.stack([member.predict_proba(new) for member in alone])
    votes = P.argmax(axis=2)
    for member, vote in zip(alone, votes, strict=True):
        np.testing.assert_array_equal(member.predict(new), member.classes_[vote])
    assert len(np.unique(votes, axis=0)) == 3  # all of them differ
    classes = np.array(["a", "b", "c"])

    counts = np.array([np.bincount(vote, minlength=3) for vote in votes.T])
    hard = VotingClassifier(MEMBERS[name]()).fit(X, y)
    np.testing.assert_array_equal(hard.predict(new), classes[counts.argmax(1)])

    weights = [1.0, 3.0, 2.0]
    soft = VotingClassifier(MEMBERS[name](), voting="soft", weights=weights).fit(X, y)
    expected = np.tensordot(weights, P, axes=1) / 6
    np.testing.assert_allclose(soft.predict_proba(new), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(soft.predict(new), classes[expected.argmax(1)])


def test_one_net_from_several_seeds_is_the_mean_of_them(forms, y):
    X, new = forms["paths"][:20], forms["paths"]
    seeds = [(f"seed {seed}", net(random_state=seed)) for seed in range(3)]
    together = VotingClassifier(seeds, voting="soft").fit(X, y)
    alone = [member.fit(X, y).predict_proba(new) for _, member in seeds]
    assert np.abs(alone[0] - alone[1]).max() > 1e-3
    expected = np.mean(alone, axis=0)
    np.testing.assert_allclose(together.predict_proba(new), expected, atol=1e-5)
    # The mean is at most as far from the truth as its members are on average.
    truth = (y[:, None] == together.classes_).astype(float)
    losses = [((P[:20] - truth) ** 2).mean() for P in alone]
    assert ((together.predict_proba(X) - truth) ** 2).mean() < np.mean(losses)


def test_one_regressor_from_several_seeds_is_the_mean_of_them(forms, images):
    X, new = forms["rows"][:20], forms["rows"]
    target = images[:20].astype(float).std((1, 2, 3))
    seeds = [(f"seed {seed}", mean_net(random_state=seed)) for seed in range(3)]
    together = VotingRegressor(seeds).fit(X, target)
    alone = [member.fit(X, target).predict(new) for _, member in seeds]
    assert np.abs(alone[0] - alone[1]).max() > 1e-3
    np.testing.assert_allclose(together.predict(new), np.mean(alone, axis=0), rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("trainable", ["head", "all"])
def test_the_weights_of_boosting_reach_the_net(trainable, kind, forms, y):
    X = forms[kind][:20]
    member = net(trainable=trainable, max_epochs=8, layer="features.2")
    boosted = AdaBoostClassifier(member, n_estimators=3, random_state=0).fit(X, y)
    weights = np.full(20, 1 / 20)
    assert len(boosted.estimators_) >= 2
    for fitted in boosted.estimators_:
        by_hand = clone(fitted).fit(X, y, sample_weight=weights)
        P = fitted.predict_proba(X)
        np.testing.assert_allclose(by_hand.predict_proba(X), P, rtol=1e-3, atol=1e-5)
        if weights.max() > weights.min():
            equal = clone(fitted).fit(X, y)
            assert np.abs(equal.predict_proba(X) - P).max() > 0.01
        # SAMME: what was wrong weighs more in the next round.
        wrong = boosted.classes_[P.argmax(1)] != y
        error = weights[wrong].sum()
        assert 0 < error < 2 / 3
        weights = weights * np.exp(wrong * (np.log((1 - error) / error) + np.log(2)))
        weights /= weights.sum()


@pytest.mark.parametrize(
    "make",
    [
        lambda: GradientBoostingClassifier(n_estimators=5, random_state=0),
        lambda: HistGradientBoostingClassifier(max_iter=5, random_state=0),
    ],
    ids=["trees", "histograms"],
)
def test_gradient_boosting_on_features(make):
    X, y = two_brightnesses(60)
    X_test, y_test = two_brightnesses(20, seed=1)
    model = make_feature_classifier(classifier=make(), **SMALL).fit(X, y)
    assert model.score(X_test, y_test) >= 0.9
    extractor = ImageFeatureExtractor(**SMALL)
    F, F_test = extractor.fit_transform(X), extractor.transform(X_test)
    by_hand = make().fit(F, y)
    np.testing.assert_allclose(
        model.predict_proba(X_test), by_hand.predict_proba(F_test), atol=1e-5
    )


CLASSIFIERS = {
    "voting": lambda: VotingClassifier(
        [("net", net()), ("SVM", svm(probability=True))], voting="soft"
    ),
    "bagging": lambda: BaggingClassifier(net(), n_estimators=3, random_state=0),
    "bagging of SVMs": lambda: BaggingClassifier(svm(), n_estimators=3, random_state=0),
    "adaboost": lambda: AdaBoostClassifier(
        net(max_epochs=8, layer="features.2"), n_estimators=2, random_state=0
    ),
    "stacking": lambda: StackingClassifier(
        [("net", net()), ("SVM", svm())], LogisticRegression(), cv=2
    ),
}
REGRESSORS = {
    "voting": lambda: VotingRegressor([("a", mean_net()), ("b", mean_net(lr=1e-3))]),
    "bagging": lambda: BaggingRegressor(mean_net(), n_estimators=3, random_state=0),
    "adaboost": lambda: AdaBoostRegressor(mean_net(), n_estimators=2, random_state=0),
    "stacking": lambda: StackingRegressor(
        [("a", mean_net()), ("b", mean_net(random_state=1))], Ridge(), cv=2
    ),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_rows_of_pixels_that_are_not_square_are_the_images_on_disk(name, forms, y):
    P, Q = (
        CLASSIFIERS[name]().fit(X[:20], y).predict_proba(X)
        for X in (forms["rows"], forms["paths"])
    )
    assert np.ptp(P, axis=0).min() > 1e-4  # of the images, not of the classes alone
    np.testing.assert_allclose(P, Q, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", REGRESSORS)
def test_so_they_are_to_regressors(name, forms, images):
    target = images[:20].astype(float).std((1, 2, 3))
    P, Q = (
        REGRESSORS[name]().fit(X[:20], target).predict(X)
        for X in (forms["rows"], forms["paths"])
    )
    assert np.ptp(P) > 1e-4
    np.testing.assert_allclose(P, Q, rtol=1e-3)


def test_members_of_a_bag_keep_all_classes_and_are_averaged(forms, y):
    X = forms["rows"][:20]
    rare = np.where(np.arange(20) == 3, "rare", y)
    bag = BaggingClassifier(net(**EASY), n_estimators=4, random_state=0).fit(X, rare)
    drawn = ["rare" in rare[rows] for rows in bag.estimators_samples_]
    assert 0 < sum(drawn) < 4  # some members never saw the class
    P = [member.predict_proba(X) for member in bag.estimators_]
    assert {p.shape for p in P} == {(20, 4)}
    np.testing.assert_allclose(bag.predict_proba(X), np.mean(P, axis=0), atol=1e-6)
