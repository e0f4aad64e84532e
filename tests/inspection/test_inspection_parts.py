"""Pairs of confused classes, scores of slices, statistics of images."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from robustness_cases import ByBrightness, halves, photographs
from scipy.stats import binomtest, mannwhitneyu
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from sklearn_dl import ImageFeatureExtractor, make_feature_classifier
from sklearn_dl.inspection import image_statistics, most_confused, slice_scores
from sklearn_dl.inspection._statistics import compare_statistics

SMALL = {
    "backbone": "squeezenet1_1",
    "weights": None,
    "image_size": 32,
    "random_state": 0,
}


# ------------------------------------------------------------------------ confusion


def test_pairs_are_the_cells_of_the_confusion_matrix():
    rng = np.random.default_rng(0)
    truth, predicted = rng.choice(list("abcd"), (2, 200))
    found = most_confused(truth, predicted, k=None, n_examples=200)
    matrix = confusion_matrix(truth, predicted, labels=list("abcd"))
    assert len(found) == 12
    for row in found.itertuples():
        t, p = "abcd".index(row.truth), "abcd".index(row.prediction)
        assert row.n == matrix[t, p]
        assert row.rate == pytest.approx(matrix[t, p] / matrix[t].sum())
        rows = (truth == row.truth) & (predicted == row.prediction)
        assert row.examples == np.flatnonzero(rows).tolist()
    keys = list(zip(found["n"], found["rate"], strict=True))
    assert keys == sorted(keys, reverse=True)
    short = most_confused(truth, predicted, k=3, n_examples=2)
    assert short["n"].tolist() == found["n"].tolist()[:3]
    assert [len(rows) for rows in short["examples"]] == [2, 2, 2]


@pytest.mark.parametrize("last", [LogisticRegression(), LinearSVC(C=1e-3)])
def test_examples_of_an_estimator_are_the_surest_first(last):
    images = photographs(60)
    images[20:40] //= 2
    y = np.repeat(["a", "b", "c"], 20)
    rng = np.random.default_rng(0)
    model = make_feature_classifier(classifier=last, **SMALL)
    model.fit(images, rng.permutation(y))
    method = "predict_proba" if hasattr(last, "predict_proba") else "decision_function"
    found = most_confused(model, list(images), y, n_examples=60)
    predicted = model.predict(images)
    scores = getattr(model, method)(images)
    assert found["n"].sum() == (predicted != y).sum() > 5
    for row in found.itertuples():
        expected = np.flatnonzero((y == row.truth) & (predicted == row.prediction))
        assert sorted(row.examples) == expected.tolist()
        sure = scores[row.examples, "abc".index(row.prediction)]
        assert (np.diff(sure) <= 1e-6).all()


def test_labels_keep_their_kind_and_no_mistake_gives_no_row():
    found = most_confused([1, 1, 2], [1, 2, 3])
    assert found["truth"].tolist() == [2, 1]
    assert found["prediction"].tolist() == [3, 2]
    empty = most_confused(["a"], ["a"])
    assert len(empty) == 0
    assert empty.columns.tolist() == ["truth", "prediction", "n", "rate", "examples"]
    hard = ByBrightness().fit()  # with predictions alone
    assert most_confused(hard, photographs(4), ["light"] * 4)["n"].tolist() == [2]


@pytest.mark.parametrize("function", [most_confused, slice_scores])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["a", "b"], ["a"]), "shape .2,., but X has 1 images"),
        ((["a"], ["a"], ["a"]), "no third argument; list has no predict"),
        ((ByBrightness().fit(), photographs(2)), "give y too"),
    ],
)
def test_wrong_arguments_are_said(function, arguments, message):
    options = {} if function is most_confused else {"slices": ["u"]}
    with pytest.raises(ValueError, match=message):
        function(*arguments, **options)


def test_confusion_is_of_one_label():
    with pytest.raises(
        ValueError, match=r"one label per image, got the shape \(2, 2\)"
    ):
        most_confused(np.eye(2), np.eye(2))


# --------------------------------------------------------------------------- slices


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    n = 200
    return pd.DataFrame(
        {
            "camera": rng.choice(["a", "b", "c"], n, p=[0.6, 0.37, 0.03]),
            "year": rng.choice([2020, 2021], n),
            "size": rng.lognormal(size=n),
            "night": rng.random(n) < 0.3,
            "place": pd.Categorical(rng.choice(["x", "y"], n), ["x", "y", "unused"]),
        },
        index=range(1000, 1000 + n),
    )


@pytest.fixture
def answers(table):
    rng = np.random.default_rng(1)
    truth = rng.choice(["p", "q"], len(table))
    wrong = rng.random(len(table)) < np.where(table["night"], 0.5, 0.1)
    return truth, np.where(wrong, np.where(truth == "p", "q", "p"), truth)


def test_slices_are_scored_by_themselves(table, answers):
    truth, predicted = answers
    found = slice_scores(truth, predicted, slices=table)
    assert set(found["column"]) == set(table.columns)
    assert (np.diff(found["score"]) >= 0).all()
    assert found.attrs["score"] == accuracy_score(truth, predicted)
    worst = found.iloc[0] if not found["small"][0] else found[~found["small"]].iloc[0]
    assert (worst["column"], worst["value"]) == ("night", "True")
    for row in found.query(
        "column in ['camera', 'year', 'night', 'place']"
    ).itertuples():
        rows = (table[row.column].astype(str) == row.value).to_numpy()
        assert row.n == rows.sum()
        right = (truth == predicted)[rows].sum()
        assert row.score == pytest.approx(right / row.n)
        expected = binomtest(int(right), int(row.n)).proportion_ci(method="wilson")
        assert (row.low, row.high) == pytest.approx((expected.low, expected.high))
        assert row.gap == pytest.approx(found.attrs["score"] - row.score)
        assert row.small == (row.n < 30)
    assert found["small"].sum() == 1
    assert found.query("column == 'place'")["value"].tolist() != ["unused"]


def test_numbers_are_cut_at_quantiles(table, answers):
    found = slice_scores(*answers, slices=table["size"], n_bins=5)
    assert found["n"].tolist() == [40] * 5
    bounds = pd.qcut(table["size"], 5).cat.categories.astype(str)
    assert set(found["value"]) == set(bounds)
    many = slice_scores(*answers, slices={"row": range(200)}, n_bins=4)
    assert many["n"].tolist() == [50] * 4
    same = slice_scores(
        *answers, slices={"zero": np.r_[np.zeros(190), np.arange(10) / 7]}
    )
    assert same["n"].sum() == 200


NUMBERS = {
    "constant": np.full(200, 0.5),
    "mostly zero": np.r_[np.zeros(160), np.arange(40) / 7],
    "two values, one rare": np.r_[np.full(190, 0.5), np.full(10, 0.7)],
    "infinite": np.r_[np.arange(190) / 7, np.full(6, np.inf), np.full(4, -np.inf)],
    "infinite and missing": np.r_[np.arange(180) / 7, [np.inf] * 10, [np.nan] * 10],
    "even": np.repeat([0.1, 0.2, 0.3, 0.4, 0.5], 40),
    "half of the rest": np.r_[np.zeros(140), np.full(48, 0.5), np.arange(12) / 7],
    "large": 2**60 + np.arange(200),
    "nullable": pd.array([None, 0.5] + [0.25 * k for k in range(198)], "Float64"),
    "objects": np.array([None, *np.arange(199) / 7], object),
}


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("n_bins", [2, 4, 7])
def test_each_row_of_numbers_is_in_one_slice(answers, name, n_bins):
    found = slice_scores(*answers, slices={"u": NUMBERS[name]}, n_bins=n_bins)
    assert found["n"].sum() == 200
    assert found["value"].is_unique
    assert len(found) <= n_bins + 3


def test_frequent_and_infinite_values_are_slices_of_their_own(answers):
    def counts(name):
        found = slice_scores(*answers, slices={"u": NUMBERS[name]})
        return found.set_index("value")["n"].to_dict()

    assert counts("constant") == {"0.5": 200}
    assert counts("two values, one rare") == {"0.5": 190, "0.7": 10}
    zero = counts("mostly zero")
    assert zero.pop("0.0") == 161
    assert sorted(zero.values()) == [13, 13, 13]
    infinite = counts("infinite")
    assert (infinite.pop("inf"), infinite.pop("-inf")) == (6, 4)
    assert sorted(infinite.values()) == [47, 47, 48, 48]


def test_columns_of_the_same_name_are_all_scored(answers, table):
    twice = pd.concat([table[["night"]], table[["camera"]]], axis=1)
    twice.columns = ["u", "u"]
    found = slice_scores(*answers, slices=twice)
    assert found["n"].sum() == 400
    assert {"True", "False", "a", "b"} <= set(found["value"])


def test_a_value_named_missing_is_not_what_is_missing(answers):
    column = ["missing"] * 150 + [None] * 50
    found = slice_scores(*answers, slices={"u": column}).set_index("value")["n"]
    assert found.to_dict() == {"missing": 150, "(missing)": 50}


def test_what_is_missing_is_a_slice(answers):
    column = pd.Series([None, "a"] * 100, name="camera")
    found = slice_scores(*answers, slices=column)
    assert set(found["value"]) == {"missing", "a"}
    numbers = np.where(
        np.arange(200) < 20, np.nan, np.random.default_rng(0).random(200)
    )
    found = slice_scores(*answers, slices=numbers).set_index("value")
    assert found["n"]["missing"] == 20
    assert found["n"].sum() == 200
    assert found["column"].unique().tolist() == ["slice"]


def test_other_scores_have_bootstrap_intervals(table, answers):
    truth, predicted = answers
    found = slice_scores(
        truth, predicted, slices=table["night"], scoring="f1_macro", n_resamples=50
    )
    rows = table["night"].to_numpy()
    expected = f1_score(truth[rows], predicted[rows], average="macro")
    worst = found.iloc[0]
    assert worst["score"] == pytest.approx(expected)
    assert worst["low"] < expected < worst["high"]


def test_an_estimator_predicts_once_and_numbers_have_absolute_errors():
    images = photographs(40)
    model = ByBrightness().fit()
    found = slice_scores(model, images, halves(40), slices=image_statistics(images))
    assert len(model.seen_) == 1
    assert found.attrs["score"] == model.score(images, halves(40))
    y = images.mean((1, 2, 3))
    ridge = make_pipeline(ImageFeatureExtractor(**SMALL), Ridge()).fit(images, y)
    found = slice_scores(ridge, images, y, slices={"half": halves(40)})
    errors = -np.abs(ridge.predict(images) - y)
    expected = sorted([errors[:20].mean(), errors[20:].mean()])
    assert found["score"].tolist() == pytest.approx(expected)
    assert (found["low"] <= found["score"]).all()


def test_a_table_of_another_length_is_refused(answers):
    with pytest.raises(ValueError, match="slices has 3 rows, but there are 200 images"):
        slice_scores(*answers, slices=[1, 2, 3])


# ----------------------------------------------------------------------- statistics


def test_statistics_say_what_changed():
    images = photographs(20)
    plain = image_statistics(images)
    darker = image_statistics((images * 0.5).astype("uint8"))
    assert darker["brightness"].to_numpy() == pytest.approx(
        plain["brightness"] / 2, 0.02
    )
    for name in ("contrast", "saturation"):
        assert darker[name].to_numpy() == pytest.approx(plain[name], rel=0.05, abs=0.01)
    noise = np.random.default_rng(0).integers(0, 256, (1, 40, 40, 3), "uint8")
    sharpness = image_statistics(noise)["sharpness"].to_numpy()
    half = image_statistics(noise // 2)["sharpness"].to_numpy()
    assert half == pytest.approx(sharpness, rel=0.01)
    assert (sharpness > 10 * plain["sharpness"].to_numpy()).all()
    reddened = np.clip(images + np.array([20, 0, 0]), 0, 255)
    red = image_statistics(reddened.astype("uint8"))
    assert (red["red_green"] > plain["red_green"]).all()
    assert plain[["width", "height"]].to_numpy().tolist() == [[40, 48]] * 20
    luma = images @ [0.299, 0.587, 0.114] / 255
    assert plain["brightness"].to_numpy() == pytest.approx(luma.mean((1, 2)), abs=1e-5)
    contrast = luma.std((1, 2)) / luma.mean((1, 2))
    assert plain["contrast"].to_numpy() == pytest.approx(contrast, abs=1e-5)


def test_statistics_of_forms_agree_and_tiny_images_have_some(tmp_path):
    images = photographs(3)
    of_floats = image_statistics(images / 255)
    of_pil = image_statistics([Image.fromarray(image) for image in images])
    pd.testing.assert_frame_equal(of_floats, of_pil)
    grey = image_statistics(images[..., 0])
    assert grey["saturation"].isna().all()
    assert grey["contrast"].notna().all()
    tiny = image_statistics(np.zeros((2, 1, 1, 3), "uint8"))
    assert np.isfinite(tiny.to_numpy()).all()


def test_false_names_are_as_rare_as_said():
    """Samples of one distribution: at most one in twenty has a small p-value."""
    rng = np.random.default_rng(0)
    named = small = 0
    for _ in range(200):
        first, second = rng.normal(size=(60, 6)), rng.normal(size=(40, 6))
        table = compare_statistics(first, second, 0.05, 0.2)
        named += table["shifted"].any()
        small += (table["p_value"] <= 0.05).any()
    assert small <= 18
    assert named <= small
    first[:, 2] -= 1
    table = compare_statistics(first, second, 0.05, 0.2).set_index("statistic")
    assert table.index[table["shifted"]].tolist() == ["sharpness"]
    assert table.loc["sharpness", "direction"] == "sharper or noisier"
    p = mannwhitneyu(second[:, 2], first[:, 2]).pvalue
    assert table.loc["sharpness", "p_value"] == pytest.approx(6 * p)
    pairs = np.sign(second[:, 2][:, None] - first[:, 2]).mean()
    assert table.loc["sharpness", "effect"] == pytest.approx(pairs)


def test_what_is_negligible_is_not_named():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(20000, 6)), rng.normal(size=(20000, 6)) + 0.1
    table = compare_statistics(first, second, 0.05, 0.2)
    assert (table["p_value"] < 1e-6).all()
    assert not table["shifted"].any()
