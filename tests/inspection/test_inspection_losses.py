"""The worst mistakes come first, and labels flipped on purpose are found."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from robustness_cases import ByBrightness, assets_or_skip, halves, photographs
from sklearn.base import clone
from sklearn.ensemble import VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from sklearn_dl import ImageClassifier, ImageFeatureExtractor, make_feature_classifier
from sklearn_dl.datasets import load_image_folder
from sklearn_dl.inspection import TopLossesDisplay, label_errors, top_losses
from sklearn_dl.inspection._scores import check_targets

SMALL = {
    "backbone": "squeezenet1_1",
    "weights": None,
    "image_size": 32,
    "random_state": 0,
}
COLUMNS = ["row", "path", "truth", "prediction"]
LOSSES = ["probability", "probability_truth", "loss", "label_error"]


class Given(ByBrightness):
    """Returns the probabilities it was given."""

    def __init__(self, probabilities=None, classes=("a", "b", "c")):
        self.probabilities = probabilities
        self.classes = classes

    def fit(self, X=None, y=None):
        self.classes_ = np.array(self.classes)
        return self

    def predict_proba(self, X):
        return np.array(self.probabilities)


def three(n):
    return np.zeros((n, 4, 4, 3), "uint8")


def test_rows_are_those_of_the_highest_log_loss():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), 50)
    y = rng.choice(["a", "b", "c"], 50)
    model = Given(probabilities).fit()
    found = top_losses(model, three(50), y, k=None)
    assert found.columns.tolist() == [*COLUMNS, *LOSSES]
    assert sorted(found["row"]) == list(range(50))
    assert (np.diff(found["loss"]) <= 0).all()
    assert found["loss"].mean() == pytest.approx(log_loss(y, probabilities))
    for row in found.itertuples():
        own = probabilities[row.row]
        assert row.truth == y[row.row]
        assert row.prediction == "abc"[own.argmax()]
        assert row.probability == own.max()
        assert row.probability_truth == own["abc".index(row.truth)]
        assert row.loss == pytest.approx(-np.log(row.probability_truth))
        assert row.path is None
    top = top_losses(model, three(50), y, k=7)
    pd.testing.assert_frame_equal(top, found.head(7))
    assert top["loss"].max() < np.inf


def test_of_equal_losses_the_surer_mistake_is_first():
    model = Given([[0.0, 0.6, 0.4], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]).fit()
    found = top_losses(model, three(3), ["a", "a", "a"])
    assert found["row"].tolist() == [1, 0, 2]
    assert np.isfinite(found["loss"]).all()
    assert found["loss"].iloc[-1] == 0


def test_the_classes_thresholds_are_the_means_of_their_own():
    """Worked by hand: means 0.7 of a, 0.5 of b; row 2 is as sure of b as b's are."""
    probabilities = [[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.6, 0.4], [0.4, 0.6]]
    y = ["a", "a", "a", "b", "b"]
    model = Given(probabilities, ("a", "b")).fit()
    found = label_errors(model, three(5), y)
    assert found["row"].tolist() == [2]
    assert found["suggestion"].tolist() == ["b"]
    assert found["margin"].tolist() == pytest.approx([-0.2])
    # Row 3 is of b and looks like a, but not as much as those of a.
    assert top_losses(model, three(5), y)["label_error"].tolist() == (
        [row == 2 for row in top_losses(model, three(5), y)["row"]]
    )


def test_a_class_without_images_suggests_nothing():
    model = Given([[0.1, 0.0, 0.9], [0.8, 0.2, 0.0]]).fit()
    assert label_errors(model, three(2), ["a", "b"])["suggestion"].tolist() == ["a"]


@pytest.fixture(scope="module")
def images():
    return photographs(40)


@pytest.mark.parametrize("cv", [None, 4])
@pytest.mark.parametrize("probability", [True, False])
def test_flipped_labels_are_found(images, cv, probability, tmp_path):
    y = halves(40)
    y[[3, 30]] = ["light", "dark"]
    paths = [str(tmp_path / f"{row}.png") for row in range(40)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    last = LogisticRegression() if probability else LinearSVC(C=1e-3)
    model = make_feature_classifier(classifier=last, **SMALL, layer="features.2")
    if cv is None:
        model.fit(images, halves(40))
    found = top_losses(model, paths, y, k=5, cv=cv)
    assert set(found["row"][:2]) == {3, 30}
    assert found["path"].tolist() == [paths[row] for row in found["row"]]
    assert found["label_error"][:2].all()
    assert found["probability"].isna().all() == (not probability)
    wrong = label_errors(model, paths, y, cv=cv)
    assert set(wrong["row"][:2]) == {3, 30}
    assert wrong["suggestion"][:2].tolist() != wrong["truth"][:2].tolist()
    assert hasattr(model[-1], "coef_") == (cv is None)


def test_cross_validation_is_scikit_learns(images):
    y = halves(40)
    model = make_feature_classifier(
        classifier=LogisticRegression(), **SMALL, layer="features.2"
    )
    found = top_losses(model, images, y, k=None, cv=4, random_state=7)
    folds = StratifiedKFold(4, shuffle=True, random_state=7)
    expected = cross_val_predict(
        clone(model), images, y, cv=folds, method="predict_proba"
    )
    assert found["probability"].tolist() == expected[found["row"]].max(1).tolist()
    given = top_losses(model, images, y, k=None, cv=list(folds.split(images, y)))
    pd.testing.assert_frame_equal(found, given)


@pytest.mark.parametrize("kernel", ["ovr", "ovo"])
def test_margins_rank_what_has_no_probabilities(images, kernel):
    y = np.array(["dark", "light"])[(np.arange(40) >= 20).astype(int)].astype(object)
    y[[5, 25]] = "other"
    y[:3] = "other"
    features = ImageFeatureExtractor(**SMALL, layer="features.2")
    model = make_pipeline(features, SVC(decision_function_shape=kernel)).fit(images, y)
    if kernel == "ovo":
        found = top_losses(model, images, y, k=3)  # three pairs of three classes
    found = top_losses(model, images, y, k=3)
    scores = model.decision_function(images)
    truth = np.searchsorted(model.classes_.tolist(), y.tolist())
    own = scores[np.arange(40), truth]
    scores[np.arange(40), truth] = -np.inf
    expected = np.sort(scores.max(1) - own)[::-1][:3]
    assert found["loss"].tolist() == pytest.approx(expected.tolist())


@pytest.mark.parametrize("name", ["hinge", "soft", "integers"])
def test_other_classifiers_and_labels(images, name):
    y = halves(40) if name != "integers" else np.repeat([7, -2], 20)
    head = ImageClassifier(**SMALL, layer="features.2", max_epochs=3)
    if name == "hinge":
        head.set_params(loss="hinge")
    model = VotingClassifier([("a", head)], voting="soft") if name == "soft" else head
    found = top_losses(model.fit(images, y), images, y)
    assert set(found["truth"]) <= set(y.tolist())
    assert len(found) == 20


def test_numbers_are_ranked_by_squared_errors(images):
    y = images.mean((1, 2, 3)) / 255
    y[11] += 0.5
    model = make_pipeline(ImageFeatureExtractor(**SMALL), Ridge(10.0))
    found = top_losses(model, images, y, k=4, cv=5)
    assert found.columns.tolist() == [*COLUMNS, "loss"]
    assert found["row"][0] == 11
    errors = (found["truth"] - found["prediction"]) ** 2
    assert found["loss"].tolist() == pytest.approx(errors.tolist())
    model.fit(images, np.column_stack([y, -y]))
    found = top_losses(model, images, np.column_stack([y, -y]), k=3)
    assert {"truth_0", "prediction_1"} <= set(found.columns)
    with pytest.raises(TypeError, match="Pipeline is a regressor; label_errors takes"):
        label_errors(model, images, y)


def test_rows_of_pixels_and_other_numbers_have_no_paths():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 5))  # no square: no images at all
    model = make_pipeline(StandardScaler(), LogisticRegression())
    y = (X[:, 0] > 0).astype(int)
    assert top_losses(model.fit(X, y), X, y)["path"].isna().all()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"y": ["a", "b"]}, ValueError, "X has 3 images, but y has 2 labels"),
        ({"y": ["a", "b", "x"]}, ValueError, "Row 2 has the label 'x'"),
        ({"y": ["a", "b", None]}, ValueError, r"missing value \(None\) in row 2"),
        ({"y": [0.0, 1.0, np.nan]}, ValueError, r"y has a missing value .* in row 2"),
        ({"y": np.eye(3)}, ValueError, r"one label per image, got the shape \(3, 3\)"),
        ({"k": 0}, ValueError, "'k' parameter"),
        ({"estimator": ImageClassifier()}, NotFittedError, "not fitted"),
        ({"estimator": ByBrightness().fit()}, TypeError, "ByBrightness has neither"),
    ],
)
@pytest.mark.parametrize("function", [top_losses, label_errors])
def test_what_is_wrong_is_said(function, change, error, message):
    arguments = {
        "estimator": Given(np.full((3, 3), 1 / 3)).fit(),
        "X": three(3),
        "y": ["a", "b", "c"],
        **change,
    }
    with pytest.raises(error, match=message):
        function(**arguments)


def test_scores_that_are_not_numbers_are_refused():
    with pytest.raises(ValueError, match="predict_proba is not finite in row 1"):
        top_losses(
            Given([[0.5, 0.5], [np.nan, 1]], ("a", "b")).fit(), three(2), ["a", "b"]
        )


def flipped(y, seed):
    y = np.array(y)
    rows = np.random.default_rng(seed).choice(len(y), 10, replace=False)
    y[rows] = np.where(y[rows] == "ants", "bees", "ants")
    return y, set(rows.tolist())


@pytest.mark.slow
def test_eight_of_ten_flipped_ants_and_bees_are_among_the_first_twenty():
    assets = assets_or_skip()
    folder = assets / "hymenoptera_data"
    X, y = load_image_folder(folder / "train", return_X_y=True)
    X_val, y_val = load_image_folder(folder / "val", return_X_y=True)
    model = make_feature_classifier(weights=assets / "mobilenet_v2_imagenet.pth")
    clean = clone(model).fit(X, y)
    for seed in range(3):
        labels, rows = flipped(y, seed)
        found = top_losses(model, X, labels, cv=5, random_state=seed)
        assert len(rows & set(found["row"])) >= 8
        labels, rows = flipped(y_val, seed)
        found = top_losses(clean, X_val, labels)
        assert len(rows & set(found["row"])) >= 8


class OfTables(Given):
    """Takes a table of a path and a number."""

    def predict_proba(self, X):
        assert list(X) == ["path", "weight"]
        return np.array(self.probabilities)


def test_tables_with_other_columns_have_no_paths():
    X = pd.DataFrame({"path": ["a.jpg", "b.jpg", "c.jpg"], "weight": [1.5, 2.5, 3.5]})
    model = OfTables(np.full((3, 3), 1 / 3)).fit()
    assert top_losses(model, X, ["a", "b", "c"])["path"].isna().all()
    assert label_errors(model, X, ["a", "b", "c"])["path"].isna().all()
    with pytest.raises(ValueError, match="Give TopLossesDisplay the table"):
        TopLossesDisplay.from_estimator(model, X, ["a", "b", "c"])


@pytest.mark.parametrize("missing", [None, pd.NA, np.nan])
@pytest.mark.parametrize("container", [list, lambda y: np.array(y, object), pd.Series])
def test_missing_labels_of_any_kind_are_named(missing, container):
    y = container(["a", missing, "c"])
    model = Given(np.full((3, 3), 1 / 3)).fit()
    with pytest.raises(ValueError, match=r"y has a missing value .* in row 1"):
        top_losses(model, three(3), y)
    with pytest.raises(ValueError, match=r"y has a missing value .* in row 1"):
        check_targets(y, "classification", 3)
    with pytest.raises(ValueError, match=r"y has a missing value .* in row 1"):
        check_targets(container([0.5, missing, 1.5]), "regression", 3)
    with pytest.raises(ValueError, match=r"y has a missing value .* in row 1"):
        TopLossesDisplay.from_predictions(y, np.full((3, 2), 0.5), three(3))


def test_the_number_can_be_the_fourth_argument():
    model = Given(np.full((3, 3), 1 / 3)).fit()
    assert len(top_losses(model, three(3), ["a", "b", "c"], 2)) == 2


def test_names_of_classes_need_not_be_unicode():
    X = np.repeat([[0.1], [0.2], [0.8], [0.9]], 10, axis=0)
    y = np.repeat(["caf\udce9", "light"], 20)
    y[3] = "light"
    model = LogisticRegression(C=100).fit(X, y)
    worst = top_losses(model, X, y, k=1)
    assert worst[["truth", "prediction"]].values.tolist() == [["light", "caf\udce9"]]
    assert label_errors(model, X, y)["suggestion"].tolist() == ["caf\udce9"]
