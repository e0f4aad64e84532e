"""The report page holds what was found, all of it inside, and no name as markup."""

import base64
import hashlib
import io
import json
import re
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from page_cases import (
    HOSTILE,
    Page,
    ToldClasses,
    ToldLabels,
    ToldNumbers,
    numbered,
    saved,
)
from PIL import Image
from robustness_cases import halves, photographs
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV

from sklearn_dl import ImageClassifier, ImageRegressor, make_feature_classifier
from sklearn_dl.backbones._backbone import images_seen
from sklearn_dl.datasets import apply_corrections
from sklearn_dl.inspection import (
    ReportOptions,
    RobustnessReport,
    label_errors,
    most_confused,
    top_losses,
    write_report,
)
from sklearn_dl.inspection._embedding import near_duplicates

SMALL = {
    "backbone": "mobilenet_v3_small",
    "weights": "builtin",
    "image_size": 32,
    "random_state": 0,
}


def told(n, seed=0, classes=("a", "b", "c")):
    """Return a classifier of numbered images, and labels it mostly agrees with."""
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(len(classes), 0.4), n)
    y = np.array(classes)[probabilities.argmax(axis=1)]
    y[: n // 5] = rng.choice(classes, n // 5)
    return ToldClasses(probabilities, classes), y


def written(tmp_path, *given, **options):
    return Page(write_report(*given, tmp_path / "page.html", **options))


def scores_of(page):
    found = re.findall(
        r'<th scope="row">([^<]+)</th><td class="number strong">([^<]+)</td>'
        r'<td class="number">([^<]+) to ([^<]+)</td><td><span class="number">([^<]+)<',
        page.source,
    )
    return {name: tuple(map(float, numbers)) for name, *numbers in found}


def test_its_scores_are_those_of_scikit_learn(tmp_path):
    model, y = told(60)
    page = written(tmp_path, model, numbered(60), y)
    predicted = model.classes_[np.argmax(model.values, axis=1)]
    found = scores_of(page)
    score, low, high, baseline = found["Accuracy"]
    assert score == pytest.approx(accuracy_score(y, predicted), abs=5e-4)
    assert low < score < high
    assert baseline == pytest.approx(pd.Series(y).value_counts().max() / 60, abs=5e-4)
    score, low, high, baseline = found["Mean recall of the classes"]
    assert score == pytest.approx(balanced_accuracy_score(y, predicted), abs=5e-4)
    assert low < score < high
    assert baseline == pytest.approx(1 / 3, abs=5e-4)
    score = found["Log loss (lower is better)"][0]
    assert score == pytest.approx(log_loss(y, model.values), abs=5e-4)


def test_its_galleries_have_the_rows_of_the_tables(tmp_path):
    model, y = told(60)
    X = saved(numbered(60), tmp_path)
    page = written(tmp_path, model, X, y, options=ReportOptions(n_images=60))
    losses, errors = top_losses(model, X, y, k=None), label_errors(model, X, y)
    mistakes = losses.loc[losses["truth"] != losses["prediction"], "row"]
    others = [row for row in mistakes if row not in {*errors["row"]}]
    assert page.data["doubted"] == [*errors["row"], *others[: 20 - len(errors)]]
    assert 0 < len(errors) < 20
    by_loss = [page.cards[row]["loss"] for row in page.data["worst"]]
    np.testing.assert_allclose(by_loss, losses["loss"], rtol=1e-6)
    names = page.data["names"]
    for row in losses.itertuples():
        card = page.cards[row.row]
        assert names[card["truth"]] == row.truth == card["old"]
        assert names[card["prediction"]] == row.prediction
        assert card["path"] == row.path == X[row.row, 0]
        assert card["probability"] == pytest.approx(row.probability)
    for row in errors.itertuples():
        assert names[page.cards[row.row]["suggestion"]] == row.suggestion
    # Doubtful labels come first where few pictures are asked for.
    few = written(tmp_path, model, X, y, options=ReportOptions(n_images=3))
    assert {*few.cards} == {*errors["row"][:3]}


def test_each_shown_image_has_its_picture_and_a_text_for_it(tmp_path):
    model, y = told(40)
    X = numbered(40)
    page = written(tmp_path, model, X, y)
    rows = [row for row in page.pictures if row.isdecimal()]
    assert {*map(int, rows)} >= {*page.cards}
    for row in rows:
        head, _, text = page.pictures[row].partition(";base64,")
        assert head == "data:image/jpeg"
        image = Image.open(io.BytesIO(base64.b64decode(text)))
        assert image.size == (24, 20)
        assert abs(np.asarray(image.convert("RGB"), float) - X[int(row)]).mean() < 15
    for image in page.all("img"):
        assert "alt" in image
        assert image["data-picture"] in page.pictures
    pairs = most_confused(model, X, y, k=12, n_examples=4)
    for pair in pairs.itertuples():
        said = f"A mistake: label {pair.truth}, predicted {pair.prediction}"
        shown = [i for i in page.all("img") if i["alt"] == said]
        assert [int(i["data-picture"]) for i in shown] == pair.examples


def test_nothing_is_asked_of_anybody(tmp_path):
    model, y = told(20)
    page = written(tmp_path, model, numbered(20), y)
    for _, attributes in page.elements:
        for name in ("src", "href", "action", "data", "srcset", "poster"):
            assert not re.match(r"(https?:|//|file:)", attributes.get(name) or "")
        assert not [name for name in attributes if name.startswith("on")]
    (policy,) = (
        meta["content"]
        for meta in page.all("meta")
        if meta.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'; ")
    for name in ("script", "style"):
        digest = hashlib.sha256(page.scripts[name].encode()).digest()
        assert f"'sha256-{base64.b64encode(digest).decode()}'" in policy
    assert "unsafe" not in policy
    assert "url(" not in page.scripts["style"]


def test_its_controls_have_names(tmp_path):
    model, y = told(20)
    page = written(tmp_path, model, numbered(20), y)
    assert page.all("html") == [{"lang": "en"}]
    levels = [int(tag[1]) for tag, _ in page.elements if re.match(r"h\d$", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert max(np.diff(levels)) <= 1  # none is left out
    assert page.source.count("<label>") == page.source.count("<select")
    for region in page.all("section"):
        assert f'id="{region["aria-labelledby"]}"' in page.source
    targets = {a["href"][1:] for a in page.all("a")}
    assert targets <= {attributes.get("id") for _, attributes in page.elements}


def test_names_are_text(tmp_path):
    model, y = told(40, classes=HOSTILE)
    names = [f"{row}<b>'\"&x.png" for row in range(40)]
    X = saved(numbered(40), tmp_path, names)
    slices = {"<script>": [HOSTILE[row % 10] for row in range(40)]}
    options = ReportOptions(title=HOSTILE[3])
    page = written(tmp_path, model, X, y, slices=slices, options=options)
    plain_model, plain_y = told(40, classes=[*"abcdefghij"])
    plain = written(
        tmp_path, plain_model, X, plain_y, slices={"a": [*"abcdefghij"] * 4}
    )
    own = {tag for tag, _ in plain.elements} | {"datalist"}
    assert {tag for tag, _ in page.elements} <= own
    assert len(page.all("script")) == len(plain.all("script")) == 3
    assert page.data["names"] == HOSTILE
    assert page.cards[7]["path"] == X[7, 0]
    for name in HOSTILE:
        assert name in page.text
    assert not page.all("b")


def test_names_that_are_no_unicode_are_written_out(tmp_path):
    model, y = told(20, classes=["caf\udce9", "b", "c"])
    page = written(tmp_path, model, numbered(20), y)
    assert "caf\udce9" in page.data["names"]
    assert "caf\\udce9" in page.text


@pytest.mark.parametrize("max_bytes", [400_000, 1_000_000])
def test_it_is_as_large_as_it_may_be(tmp_path, max_bytes):
    model, y = told(200)
    X = [photographs(1, row, (150, 200))[0] for row in range(200)]
    for row, image in enumerate(X):
        image[0, 0, 0] = row
    options = ReportOptions(n_images=200, max_bytes=max_bytes)
    page = written(tmp_path, model, X, y, options=options)
    assert len(page.cards) == 200
    assert len(page.bytes) <= max_bytes


def test_a_thousand_classes_are_readable(tmp_path):
    classes = [f"class {c:03d} ممم" for c in range(1000)]
    rng = np.random.default_rng(0)
    values = rng.dirichlet(np.full(1000, 0.01), 256)
    y = np.array(classes)[rng.integers(0, 1000, 256)]
    page = written(tmp_path, ToldClasses(values, classes), numbered(256), y)
    assert len(page.bytes) <= 5_000_000
    assert len(page.data["names"]) == 1000
    assert all(len(card["likely"]) == 9 for card in page.cards.values())
    assert page.source.count('class="pair"') <= 80  # no table of a million cells


# ---------------------------------------------------------------- other models


def test_a_model_without_probabilities_is_ranked_by_its_scores(tmp_path):
    X, y = photographs(24), halves(24)
    y[2] = "light"
    model = make_feature_classifier(**SMALL)
    page = written(tmp_path, model, X, y, cv=3)
    assert page.data["doubted"][0] == 2
    assert page.cards[2]["probability"] is None
    assert "Log loss" not in page.source
    assert "Calibration" not in page.source


def test_folds_judge_each_image_without_it(tmp_path):
    X, y = photographs(24), halves(24)
    y[[2, 20]] = y[[20, 2]]
    model = make_feature_classifier(probability=True, **SMALL)
    with pytest.raises(NotFittedError):
        written(tmp_path, model, X, y)
    page = written(tmp_path, model, X, y, cv=4)
    assert {*page.data["doubted"][:2]} == {2, 20}
    assert "4 folds" in page.text
    assert not hasattr(model[-1], "classes_")  # nor is it fitted now
    expected = label_errors(model, X, y, cv=4)
    assert page.data["doubted"][: len(expected)] == expected["row"].tolist()


@pytest.mark.parametrize(("cache", "trainable"), [(None, "head"), ("memory", 1)])
def test_the_backbone_sees_each_image_once(tmp_path, cache, trainable):
    X, y = photographs(12, seed=5), halves(12)
    options = {"max_epochs": 1, "cache": cache, "trainable": trainable}
    model = ImageClassifier(**SMALL, **options).fit(X, y)
    model.cache = None if cache is None else model.cache
    before = images_seen()
    page = written(tmp_path, model, X, y, options=ReportOptions(n_saliency=0))
    assert images_seen() - before <= len(X)
    assert model.cache == cache
    probability = model.predict_proba(X).max(axis=1)
    for row, card in page.cards.items():
        assert card["probability"] == pytest.approx(probability[row], rel=1e-4)


def test_what_counted_is_shown_for_the_highest_losses(tmp_path):
    X, y = photographs(16), halves(16)
    model = ImageClassifier(**SMALL, max_epochs=2).fit(X, y)
    page = written(tmp_path, model, X, y, options=ReportOptions(n_saliency=3))
    maps = [key for key in page.pictures if key.startswith("map ")]
    assert {*maps} == {f"map {row}" for row in page.data["worst"][:3]}
    text = page.pictures[maps[0]].partition(",")[2]
    image = Image.open(io.BytesIO(base64.b64decode(text)))
    assert image.size == X[0].shape[1::-1]
    assert "Learning rate" in page.text  # its history


def test_a_search_shows_its_best_estimator(tmp_path):
    X, y = photographs(16), halves(16)
    grid = {"classifier__C": [0.1, 1]}
    search = GridSearchCV(make_feature_classifier(**SMALL), grid, cv=2).fit(X, y)
    page = written(tmp_path, search, X, y)
    assert "mobilenet_v3_small" in page.text
    assert [key for key in page.pictures if key.startswith("map ")]


def test_numbers_have_their_errors_and_residuals(tmp_path):
    rng = np.random.default_rng(0)
    y = rng.normal(size=30)
    values = y + rng.normal(scale=0.1, size=30)
    values[11] += 3
    page = written(tmp_path, ToldNumbers(values), numbered(30), y)
    assert page.data["worst"][0] == 11
    card = page.cards[11]
    assert card["truth"] == [y[11]]
    assert card["error"] == pytest.approx([values[11] - y[11]])
    assert float(card["old"]) == y[11]
    assert "Residuals" in page.text
    assert "likely wrong" not in page.text
    score, low, high, baseline = scores_of(page)[
        "Mean absolute error (lower is better)"
    ]
    assert score == pytest.approx(abs(values - y).mean(), abs=5e-4)
    assert low < score < high < baseline


def test_several_numbers_have_a_chart_each(tmp_path):
    X, y = photographs(12), np.random.default_rng(0).normal(size=(12, 2))
    model = ImageRegressor(**SMALL, max_epochs=2).fit(X, y)
    page = written(tmp_path, model, X, y)
    assert "Residuals of output 0" in page.text
    assert "Residuals of output 1" in page.text
    assert page.cards[3]["old"] == f"{y[3, 0]};{y[3, 1]}"
    predicted = model.predict(X)
    np.testing.assert_allclose(page.cards[3]["prediction"], predicted[3], rtol=1e-4)


def test_several_labels_have_their_errors_each(tmp_path):
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, (60, 3))
    p = np.clip(y + rng.normal(scale=0.25, size=y.shape), 0.01, 0.99)
    p[5, 1] = 0.98 if y[5, 1] == 0 else 0.02
    page = written(tmp_path, ToldLabels(p), numbered(60), y)
    assert 5 in page.data["doubted"]
    card = page.cards[5]
    assert card["old"] == ";".join(map(str, y[5]))
    assert [1, pytest.approx(p[5, 1])] in card["errors"]
    assert card["suggestions"] == [1]
    wrong = ((p > 0.5) != y).sum(axis=0)
    rows = re.findall(
        r'<bdi>(\d)</bdi></th>(?:<td class="number">[^<]*</td>){3}'
        r'<td class="number">(\d+)</td>',
        page.source,
    )
    assert {int(name): int(n) for name, n in rows} == dict(enumerate(wrong))
    named = pd.DataFrame(y, columns=["cat", "dog", "cow"])
    half = np.arange(60) // 30
    page = written(tmp_path, ToldLabels(p), numbered(60), named, slices={"half": half})
    assert page.data["names"] == ["cat", "dog", "cow"]
    right = ((p > 0.5) == y).all(axis=1)
    for value in (0, 1):
        row = f'<bdi>{value}</bdi></th><td class="number">30</td><td class="number">'
        assert f"{row}{right[half == value].mean():.3f}<" in page.source
    score = scores_of(page)["Labels that are right"][0]
    assert score == pytest.approx(((p > 0.5) == y).mean(), abs=5e-4)


@pytest.mark.parametrize("dtype", [bool, float, np.uint8])
def test_indicators_of_any_type_go_there_and_back(tmp_path, dtype):
    y = np.random.default_rng(1).integers(0, 2, (20, 3)).astype(dtype)
    p = np.clip(0.1 + 0.8 * (1 - y.astype(float)), 0, 1)
    X = saved(numbered(20), tmp_path)
    card = written(tmp_path, ToldLabels(p), X, y).cards[4]
    new = ";".join("10"[int(bit)] for bit in card["old"].split(";"))
    rows = [(card["path"], card["old"], new, "relabel")]
    marks = pd.DataFrame(rows, columns=["path", "old", "new", "action"])
    _, found = apply_corrections((X, y), marks)
    assert found.dtype == y.dtype
    assert found[4].tolist() == (1 - y[4].astype(int)).tolist()
    assert (np.delete(found, 4, 0) == np.delete(y, 4, 0)).all()


def test_classes_may_be_floats(tmp_path):
    model, y = told(40, classes=(0.0, 1.0, 2.5))
    page = written(tmp_path, model, numbered(40), y, slices=np.arange(40) % 2)
    assert page.data["names"] == ["0", "1", "2.5"]
    predicted = model.classes_[np.argmax(model.values, axis=1)]
    expected = (predicted == y).mean()
    assert scores_of(page)["Accuracy"][0] == pytest.approx(expected, abs=5e-4)


def test_a_multilabel_network_is_judged_by_folds(tmp_path):
    X, y = photographs(16), np.repeat([[1, 0, 1], [0, 1, 1]], 8, axis=0)
    page = written(tmp_path, ImageClassifier(**SMALL, max_epochs=2), X, y, cv=2)
    assert page.data["kind"] == "labels"
    assert "2 folds" in page.text


# --------------------------------------------------------------- further parts


def test_odd_files_are_listed_and_the_others_judged(tmp_path):
    model, y = told(30)
    images = numbered(30)
    images[9] = 9
    X = saved(images, tmp_path)
    file = Path(X[4, 0])
    file.write_bytes(file.read_bytes()[:200])
    page = written(tmp_path, model, X, y, slices={"half": np.arange(30) % 2})
    assert 4 not in page.cards
    assert len(page.cards) == 29
    assert page.cards[5]["old"] == y[5]
    assert page.cards[5]["path"] == X[5, 0]
    assert "unreadable" in page.text
    assert "is of one colour, (9, 9, 9)" in page.text
    assert "29 images" in page.text


@pytest.mark.parametrize("given", [list, iter])
def test_folds_that_are_given_fit_the_images_that_can_be_read(tmp_path, given):
    X, y = saved(photographs(24), tmp_path), halves(24)
    Path(X[3, 0]).write_bytes(b"")
    rows = np.arange(24)
    folds = [(rows % 3 != fold, rows[rows % 3 == fold]) for fold in range(3)]
    model = make_feature_classifier(probability=True, **SMALL)
    page = written(tmp_path, model, X, y, cv=given(folds))
    good = np.delete(rows, 3)
    same = [
        (np.flatnonzero(good % 3 != f), np.flatnonzero(good % 3 == f)) for f in range(3)
    ]
    losses = top_losses(model, X[good], y[good], k=None, cv=same)
    for row, loss in zip(good[losses["row"]], losses["loss"], strict=True):
        assert page.cards[row]["loss"] == pytest.approx(loss, rel=1e-5)
    assert "3 folds" in page.text


def test_reference_images_that_cannot_be_read_are_left_out(tmp_path):
    X, y = photographs(20), halves(20)
    model = make_feature_classifier(**SMALL).fit(photographs(20, seed=3), y)
    others = photographs(8, seed=4)
    others[6] = X[12]
    others = saved(others, tmp_path)
    Path(others[2, 0]).write_bytes(b"")
    page = written(tmp_path, model, X, y, reference=others)
    assert "reference row 6" in page.text
    assert others[6, 0] in page.text


def test_grave_findings_are_not_hidden_by_many_others(tmp_path):
    model, y = told(80)
    images = numbered(80)
    images[:] = images[:, :1, :1]
    X = saved(images, tmp_path)
    Path(X[79, 0]).write_bytes(b"")
    page = written(tmp_path, model, X, y)
    assert "unreadable" in page.text


def test_equal_images_have_no_more_pairs_in_memory_than_are_shown():
    features = np.ones((3000, 8), np.float32)
    tracemalloc.start()
    pairs = near_duplicates(features)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert pairs[["row", "other"]].to_numpy().tolist() == [[0, o] for o in range(1, 61)]
    assert peak < 100e6  # all would take 108 MB, and more on the way


def test_the_page_says_that_a_threshold_is_not_used(tmp_path):
    X, y = photographs(24), halves(24)
    inner = make_feature_classifier(probability=True, **SMALL)
    model = FixedThresholdClassifier(inner, threshold=0.9, pos_label="light")
    said = "not by the model's threshold"
    fitted = model.fit(X, y)
    assert said in written(tmp_path, fitted, X, y).text
    assert said not in written(tmp_path, fitted.estimator_, X, y).text


def test_copies_across_classes_and_in_the_training_images_are_paired(tmp_path):
    X, y = photographs(20), halves(20)
    X[1], X[15] = X[0], X[0]
    model = make_feature_classifier(**SMALL).fit(photographs(20, seed=3), y)
    others = photographs(8, seed=4)
    others[6] = X[12]
    page = written(tmp_path, model, X, y, reference=others)
    assert page.source.count("In two classes") == 2
    assert "row 0: <bdi>dark</bdi>" in page.source
    assert "row 15: <bdi>light</bdi>" in page.source
    assert "Also among the reference images" in page.text
    assert "reference row 6" in page.text
    assert "reference 6" in page.pictures
    assert "has the pixels of row 15" in page.text


def test_near_copies_are_told_from_images_that_are_all_alike():
    rng = np.random.default_rng(0)
    features = 5 + rng.normal(size=(50, 64))
    features[30] = features[3] + 0.05 * rng.normal(size=64)
    found = near_duplicates(features)
    assert found[["row", "other"]].to_numpy().tolist() == [[3, 30]]
    assert found["similarity"][0] > 0.99
    others = rng.normal(size=(4, 64))
    others[2] = features[8]
    found = near_duplicates(features, others)
    assert found[["row", "other"]].to_numpy().tolist() == [[8, 2]]
    assert len(near_duplicates(features[:1])) == 0


def test_slices_robustness_and_their_answers_are_there(tmp_path):
    model, y = told(30)
    columns = ["corruption", "severity", "amount", "score", "drop", "low", "high"]
    rows = [
        ("blur", 1.0, "", 0.9, 0.05, -0.01, 0.1, "blur"),
        ("blur", 2.0, "", 0.7, 0.25, 0.2, 0.3, "blur"),
        ("flip", np.nan, "", 0.95, 0.0, 0.0, 0.0, "flip"),
    ]
    table = pd.DataFrame(rows, columns=[*columns, "augmentation"])
    report = RobustnessReport(table, 0.95, (0.9, 0.99), n_images=30)
    slices = pd.DataFrame({"camera": ["old", "new"] * 15})
    options = ReportOptions(robustness=report)
    page = written(tmp_path, model, numbered(30), y, slices=slices, options=options)
    assert "camera" in page.text
    assert "blur **" in page.text
    copies = [b["data-copy"] for b in page.all("button") if "data-copy" in b]
    assert copies[0] == "Augment(['blur'], strength=3)"
    augment = eval(copies[0], {"Augment": type(report.augment)})
    assert augment.get_params() == report.augment.get_params()
    points = page.source.count("<polyline")
    assert points >= 3


def test_marks_outlive_a_page_that_is_written_anew(tmp_path):
    model, y = told(30)
    X = numbered(30)
    one = written(tmp_path, model, X, y).data["id"]
    few = ReportOptions(n_images=5, title="x")
    assert written(tmp_path, model, X, y, options=few).data["id"] == one
    better, _ = told(30, seed=1)
    assert written(tmp_path, better, X, y).data["id"] == one
    assert written(tmp_path, model, X[::-1], y[::-1]).data["id"] != one
    darker = X.copy()
    darker[..., 1] //= 2
    assert written(tmp_path, model, darker, y).data["id"] != one
    other = np.where(y == "a", "b", y)
    assert written(tmp_path, model, X, other).data["id"] != one


# ---------------------------------------------------------------------- errors


def test_what_is_wrong_is_said_and_no_file_is_left(tmp_path):
    model, y = told(20)
    X = numbered(20)
    for message, given, options in (
        ("but X has 20 images", (model, X, y[:-1]), {}),
        ("slices has 3 rows, but there are 20", (model, X, y), {"slices": [1, 2, 3]}),
        ("no images that can be shown", (model, [{}] * 20, y), {}),
        ("label 'd', which the estimator", (model, X, [*y[:-1], "d"]), {}),
        ("0 and 1 only", (ToldLabels(np.ones((20, 2))), X, np.full((20, 2), 2)), {}),
        ("not finite in row 0", (ToldNumbers([np.nan] * 20), X, np.ones(20)), {}),
    ):
        with pytest.raises(ValueError, match=message):
            written(tmp_path, *given, **options)
    with pytest.raises(IsADirectoryError, match="is a folder"):
        write_report(model, X, y, tmp_path)
    with pytest.raises(TypeError, match="classifier or regressor is needed"):
        written(tmp_path, make_feature_classifier()[0], X, y)
    with pytest.raises(ValueError, match="'n_images' parameter of ReportOptions"):
        ReportOptions(n_images=0)
    assert [*tmp_path.iterdir()] == []


def test_without_jinja_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    model, y = told(20)
    with pytest.raises(ImportError, match=r'pip install "sklearn_dl\[report\]"'):
        written(tmp_path, model, numbered(20), y)


def test_the_data_are_no_script(tmp_path):
    model, y = told(20, classes=["</script>", "<!--", "&amp;"])
    page = written(tmp_path, model, numbered(20), y)
    for name in ("data", "pictures"):
        start = page.source.index(f'id="{name}"') + len(name) + 6
        text = page.source[start : page.source.index("</script>", start)]
        assert not set(text) & set("<>&")
        json.loads(text)
