"""The report states the drops of corrupted images, for any estimator and form."""

import io
import pickle
import threading

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from robustness_cases import ByBrightness, assets_or_skip, halves, photographs, reported
from sklearn.base import BaseEstimator, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import BaggingClassifier, VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import f1_score, r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC

from sklearn_dl import (
    ImageClassifier,
    ImageFeatureExtractor,
    ImageRegressor,
    make_feature_classifier,
)
from sklearn_dl._extraction import FeatureCache
from sklearn_dl._images import ImageDecodeError, as_source
from sklearn_dl.augmentation import Augment, resolve_augment
from sklearn_dl.backbones import Preprocessing
from sklearn_dl.datasets import load_image_folder, load_torch_dataset
from sklearn_dl.inspection import (
    RobustnessReport,
    _statistics,
    corrupt_image,
    list_corruptions,
    robustness_report,
)
from sklearn_dl.inspection import _stream as stream

N = 24
SMALL = {
    "backbone": "squeezenet1_1",
    "weights": None,
    "image_size": 32,
    "random_state": 0,
}
NAMES = list_corruptions()["corruption"].tolist()


@pytest.fixture(scope="module")
def images():
    return photographs(N)


@pytest.fixture(scope="module")
def labels():
    return halves(N)


@pytest.fixture(scope="module")
def fitted(images, labels):
    model = ImageClassifier(
        **SMALL, layer="features.2", optimizer="adam", lr=1e-2, max_epochs=10
    )
    return model.fit(images, labels)


def by_hand(model, images, labels, corruption, severity, seed):
    corrupted = [
        np.asarray(corrupt_image(image, corruption, severity, seed=seed, row=row))
        for row, image in enumerate(images)
    ]
    return np.mean(model.predict(np.stack(corrupted)) == labels)


def test_each_drop_is_that_of_images_corrupted_by_hand(fitted, images, labels):
    from sklearn_dl._runtime import draw_seed

    report = reported(
        fitted, images, labels, corruptions=NAMES, n_resamples=20, random_state=3
    )
    clean = fitted.score(images, labels)
    assert report.clean_score == clean > 0.9
    assert set(report.table["corruption"]) == set(NAMES)
    for row in report.table.itertuples():
        severity = 1.0 if np.isnan(row.severity) else row.severity
        score = by_hand(fitted, images, labels, row.corruption, severity, draw_seed(3))
        assert row.score == pytest.approx(score)
        assert row.drop == pytest.approx(clean - score)
    assert report.table["drop"].max() > 0.2


def test_each_drop_is_that_of_images_corrupted_by_other_code(images, labels):
    """Pillow and NumPy corrupt the files; the report sees the plain ones."""
    model = ByBrightness().fit()
    values = images.astype(float)
    grey = (values @ [0.299, 0.587, 0.114]).mean((1, 2))[:, None, None, None]
    expected = {
        ("darker", 1.0): values * 0.6,
        ("brighter", 0.5): values * 1.2,
        ("less_contrast", 2.0): grey + (values - grey) * 0.2,
        ("grayscale", 1.0): (values @ [0.299, 0.587, 0.114])[..., None] * np.ones(3),
        ("flip", np.nan): values[:, :, ::-1],
    }
    report = reported(model, images, labels, corruptions=[name for name, _ in expected])
    table = report.table.set_index(["corruption", "severity"])
    clean = model.score(images, labels)
    for key, corrupted in expected.items():
        corrupted = np.clip(np.round(corrupted), 0, 255).astype("uint8")
        assert table.loc[key, "drop"] == clean - model.score(corrupted, labels)
    assert table.loc[("darker", 1.0), "drop"] > 0.3


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def forms(images, folder):
    paths = []
    for row, image in enumerate(images):
        paths.append(str(folder / f"{row}.png"))
        Image.fromarray(image).save(paths[-1])
    column = np.array(paths, dtype=object)[:, None]
    pil = np.empty((len(images), 1), dtype=object)
    pil[:, 0] = [Image.fromarray(image) for image in images]
    ragged = [image[: 48 - row % 2] for row, image in enumerate(images)]
    dataset = list(zip(images, range(len(images)), strict=True))
    return {
        "array": images,
        "first": np.ascontiguousarray(images.transpose(0, 3, 1, 2)),
        "tensor": torch.from_numpy(images).permute(0, 3, 1, 2),
        "floats": images / 255,
        "rows": images.reshape(len(images), -1),
        "int_rows": images.reshape(len(images), -1).astype(np.int64),
        "float_frame": pd.DataFrame(images.reshape(len(images), -1) / 255),
        "paths": paths,
        "array_of_paths": column[:, 0],
        "Series": pd.Series(paths),
        "column": column,
        "frame": pd.DataFrame({"file": paths}),
        "PIL": list(pil[:, 0]),
        "PIL_column": pil,
        "bytes": [png(image) for image in images],
        "ragged": ragged,
        "dataset": load_torch_dataset(dataset).data,
        "rgba": np.concatenate(
            [images, np.full((*images.shape[:3], 1), 255, "uint8")], 3
        ),
        "equal_list": list(images),
    }


FORMS = (
    "array first tensor floats rows int_rows float_frame paths array_of_paths Series "
    "column frame PIL PIL_column bytes ragged dataset rgba equal_list"
).split()


@pytest.mark.parametrize("form", FORMS)
def test_what_the_estimator_is_given_has_the_form_of_x(form, images, labels, tmp_path):
    X = forms(images, tmp_path)[form]
    shape = (48, 40, 3) if "rows" in form or form == "float_frame" else None
    model = ByBrightness(image_shape=shape).fit()
    report = reported(
        model, X, labels, corruptions=["darker", "flip"], severities=1, n_resamples=5
    )
    assert report.clean_score == model.score(X, labels)
    darker = np.round(images * 0.6)
    expected = np.mean(
        np.where(darker.mean((1, 2, 3)) > 120, "light", "dark") == labels
    )
    assert report.table["score"].tolist() == [expected, report.clean_score]
    seen = model.seen_[0]
    assert type(seen) is (np.ndarray if isinstance(X, pd.Series) else type(X))
    if hasattr(X, "shape"):
        assert seen.shape[1:] == X.shape[1:]
    if isinstance(X, pd.DataFrame):
        assert seen.columns.tolist() == X.columns.tolist()
    if form in ("array", "first", "tensor", "floats", "rows", "int_rows", "rgba"):
        assert seen.dtype == X.dtype
        assert np.allclose(np.asarray(seen), np.asarray(X[: len(seen)]), atol=1e-6)
    if form == "float_frame":
        assert np.abs(seen.to_numpy() - X.to_numpy()[: len(seen)]).max() < 1e-6


def test_scales_of_numbers_are_kept():
    """Foreign estimators know nothing of our rules for dtypes."""
    truth = np.repeat([0, 1], 10)
    black = np.zeros((20, 36), bool)
    black[10:, :30] = True

    class Share(ByBrightness):
        def means(self, X):
            return np.asarray(X, float).mean(1)

    model = Share(threshold=0.5)
    model.fit()
    model.classes_ = np.array([0, 1])
    for X in (black, black.astype(float)):
        report = reported(model, X, truth, corruptions=["flip"], n_resamples=5)
        assert report.clean_score == 1.0
        assert model.seen_[-1].dtype == X.dtype


def test_pipelines_and_ensembles_are_estimators_like_others(images, labels, tmp_path):
    rows = images.reshape(N, -1)
    paths = forms(images, tmp_path)["column"]
    shape = {"image_shape": (48, 40, 3)}
    head = ImageClassifier(**SMALL, layer="features.2", max_epochs=2)
    svc = make_feature_classifier(classifier=SVC(), **SMALL, layer="features.2")
    cases = [
        (svc, list(paths[:, 0])),
        (VotingClassifier([("head", head), ("svc", svc)]), list(paths[:, 0])),
        (BaggingClassifier(head, n_estimators=2, random_state=0), paths),
        (make_pipeline(StandardScaler(), SVC()), rows),
        (clone(head).set_params(**shape), rows),
        (
            make_pipeline(
                FunctionTransformer(lambda X: X.reshape(len(X), -1) / 255),
                LogisticRegression(),
            ),
            images,
        ),
    ]
    for model, X in cases:
        model.fit(X, labels)
        shape = (48, 40, 3) if X is rows else None
        report = reported(
            model,
            X,
            labels,
            corruptions=["darker", "noise"],
            severities=2,
            n_resamples=5,
            image_shape=None if "image_shape" in model.get_params() else shape,
        )
        assert report.clean_score == model.score(X, labels)


def test_a_regressor_is_scored_by_r2(images):
    y = images.mean((1, 2, 3)) / 255
    model = ImageRegressor(**SMALL, layer="features.2", max_epochs=5).fit(images, y)
    report = reported(model, images, y, corruptions=["darker"], severities=[1, 2])
    darker = np.stack([corrupt_image(image, "darker", 2.0) for image in images])
    expected = r2_score(y, model.predict(darker))
    assert report.scoring == "r2"
    assert report.table["score"].iloc[1] == pytest.approx(expected, abs=1e-6)
    error = reported(
        model, images, y, corruptions=["darker"], scoring="neg_mean_absolute_error"
    )
    assert error.clean_score == pytest.approx(-np.abs(model.predict(images) - y).mean())
    assert (error.table["drop"] > 0).all()
    assert error.table["drop"].between(error.table["low"], error.table["high"]).all()


def test_several_outputs_and_several_labels():
    images = photographs(N)
    y = np.column_stack([images.mean((1, 2, 3)), images[..., 0].mean((1, 2))])
    model = make_pipeline(ImageFeatureExtractor(**SMALL), Ridge()).fit(images, y)
    report = reported(model, images, y, corruptions="noise", n_resamples=10)
    assert report.clean_score == pytest.approx(model.score(images, y))
    many = (y > np.median(y, axis=0)).astype(int)
    model = ImageClassifier(**SMALL, max_epochs=2).fit(images, many)
    report = reported(model, images, many, corruptions="noise", n_resamples=10)
    assert report.clean_score == pytest.approx(model.score(images, many))


def test_intervals_are_those_of_a_plain_bootstrap(images, labels):
    model = ByBrightness().fit()
    report = reported(
        model, images, labels, corruptions=["darker"], severities=1, n_resamples=4000
    )
    right = model.predict(images) == labels
    wrong = model.predict(np.round(images * 0.6).astype("uint8")) == labels
    difference = right.astype(float) - wrong
    rng = np.random.default_rng(1)
    means = [rng.choice(difference, N).mean() for _ in range(4000)]
    low, high = np.percentile(means, [2.5, 97.5])
    row = report.table.iloc[0]
    assert row["low"] == pytest.approx(low, abs=1 / N)
    assert row["high"] == pytest.approx(high, abs=1 / N)
    assert row["low"] < row["drop"] < row["high"]
    narrow = reported(
        model,
        images,
        labels,
        corruptions=["darker"],
        severities=1,
        confidence_level=0.5,
    ).table.iloc[0]
    assert narrow["high"] - narrow["low"] < row["high"] - row["low"]


@pytest.mark.parametrize("scoring", ["accuracy", "f1_macro"])
def test_intervals_are_of_paired_differences(scoring, images):
    labels = np.random.default_rng(0).choice(["dark", "light"], N)
    report = reported(
        ByBrightness().fit(),
        images,
        labels,
        corruptions="flip",
        scoring=scoring,
        n_resamples=50,
        per_class=True,
    )
    assert report.clean_score < 0.8
    assert report.clean_interval[0] < report.clean_score < report.clean_interval[1]
    for table in (report.table, report.classes):
        assert (table[["drop", "low", "high"]] == 0).all(axis=None)


@pytest.mark.parametrize(
    "scoring",
    ["r2", "neg_mean_absolute_error", "neg_mean_squared_error"],
)
def test_fast_ways_of_scoring_samples_agree_with_the_scorer(scoring):
    from sklearn_dl.inspection._scores import Scoring, bootstrap

    rng = np.random.default_rng(0)
    truth = rng.normal(size=(30, 2))
    predictions = [truth + rng.normal(size=(30, 2)) for _ in range(3)]
    score = Scoring(scoring, "regression", truth)
    found = bootstrap(score.of_rows(predictions), 30, 20, 5)
    expected = bootstrap(lambda rows: [score(p, rows) for p in predictions], 30, 20, 5)
    assert found == pytest.approx(expected)


def test_other_scores_and_callables(images, labels):
    model = ByBrightness().fit()
    options = {"corruptions": ["darker"], "severities": 1, "n_resamples": 20}
    report = reported(model, images, labels, scoring="f1_macro", **options)
    darker = np.stack([corrupt_image(image, "darker") for image in images])
    predicted = model.predict(darker)
    expected = f1_score(labels, predicted, average="macro")
    assert report.table["score"][0] == pytest.approx(expected)

    def bright(estimator, X, y):
        return np.mean(estimator.predict(X)[y == "light"] == "light")

    report = reported(model, images, labels, scoring=bright, **options)
    assert report.scoring == "bright"
    assert report.table["score"][0] == np.mean(predicted[labels == "light"] == "light")
    for name in ("roc_auc", "neg_log_loss"):
        with pytest.raises(
            ValueError, match=f"scoring='{name}' asks for probabilities"
        ):
            reported(model, images, labels, scoring=name, **options)
    with pytest.raises(ValueError, match="scoring='acuracy' is no scorer's name"):
        reported(model, images, labels, scoring="acuracy", **options)


def test_classes_have_drops_of_their_own(images, labels):
    model = ByBrightness().fit()
    report = reported(
        model,
        images,
        labels,
        corruptions=["darker"],
        severities=[0.5, 1],
        per_class=True,
    )
    darker = np.stack([corrupt_image(image, "darker") for image in images])
    for label in ("dark", "light"):
        rows = labels == label
        clean = np.mean(model.predict(images)[rows] == label)
        score = np.mean(model.predict(darker)[rows] == label)
        assert report.table[f"drop[{label}]"][1] == pytest.approx(clean - score)
        found = report.classes.query("`class` == @label and severity == 1").iloc[0]
        assert found["n"] == rows.sum()
        assert found["score"] == pytest.approx(score)
        assert found["low"] <= found["drop"] <= found["high"]
    assert report.table["drop[light]"][1] > 0.5 > report.table["drop[dark]"][1]
    weighted = (report.table["drop[light]"] + report.table["drop[dark]"]) / 2
    assert weighted.tolist() == pytest.approx(report.table["drop"].tolist())


def test_drops_of_many_classes_stand_in_the_table_only():
    images = photographs(60)
    y = np.repeat(range(10), 6)
    model = make_feature_classifier(**SMALL).fit(images, y)
    report = reported(
        model, images, y, corruptions="blur", n_resamples=5, per_class=True
    )
    assert "drop[7]" in report.table
    assert len(report.classes) == 3 * 10
    assert "drop[7]" not in str(report)
    assert report.clean_score == model.score(images, y)


def test_threads_end_with_an_error(images, labels):
    class Fails(ByBrightness):
        def predict(self, X):
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken") as caught:
        reported(Fails().fit(), images, labels)
    names = [thread.name for thread in threading.enumerate()]
    assert caught.traceback
    assert not any(name.startswith("sklearn_dl-corruption") for name in names)


def test_a_report_repeats_and_batches_change_nothing(fitted, images, labels):
    options = {"corruptions": ["noise", "occlusion", "rotation"], "severities": [1, 2]}
    first = reported(fitted, images, labels, **options)
    again = reported(fitted, images, labels, batch_size=5, **options)
    pd.testing.assert_frame_equal(first.table, again.table)
    seen = []
    for seed in (0, 0, 1):
        model = ByBrightness().fit()
        reported(model, images, labels, corruptions="noise", random_state=seed)
        seen.append(model.seen_[1])
    assert np.array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[0], seen[2])


def test_severities_that_are_the_same_count_once(images, labels):
    report = reported(
        ByBrightness().fit(), images, labels, n_resamples=5, severities=[2, 0.5, 1, 4]
    )
    counts = report.table["corruption"].value_counts()
    assert "vertical_flip" not in counts
    assert counts["flip"] == 1
    grayscale = report.table.query("corruption == 'grayscale'")
    assert grayscale["severity"].tolist() == [0.5, 1]  # all colour is gone at 1
    assert counts["rotation"] == 4
    steps = report.table.query("corruption == 'rotation'")["severity"].tolist()
    assert steps == [0.5, 1, 2, 4]


class Watched:
    """A dataset that counts its readings and the most images alive at once."""

    def __init__(self, images):
        self.images, self.reads = images, 0

    def __len__(self):
        return len(self.images)

    def __getitem__(self, row):
        self.reads += 1
        return Image.fromarray(self.images[row])


def test_each_image_is_decoded_once_and_few_are_alive(images, labels, monkeypatch):
    dataset = Watched(images)
    X = load_torch_dataset(dataset).data
    dataset.reads = 0
    alive, most, lock = set(), [0], threading.Lock()
    original = stream.corrupted

    def counted(image, *arguments):
        result = original(image, *arguments)
        with lock:
            alive.add(id(result))
            most[0] = max(most[0], len(alive))
        return result

    monkeypatch.setattr(stream, "corrupted", counted)

    class Forgets(ByBrightness):
        def predict(self, X):
            result = super().predict(X)
            self.seen_.clear()
            alive.difference_update(id(image) for image in np.ravel(X))
            return result

    reported(
        Forgets().fit(),
        X,
        labels,
        batch_size=4,
        n_resamples=5,
    )
    assert dataset.reads == N
    assert 4 <= most[0] <= 8  # a batch, and the next corruption of it


def test_large_images_come_in_smaller_batches(monkeypatch):
    monkeypatch.setattr(stream, "_PIXELS", 48 * 40 * 3)
    model = ByBrightness().fit()
    reported(model, list(photographs(8)), halves(8), corruptions="flip")
    assert {len(X) for X in model.seen_} == {3, 2}


def test_the_cache_of_the_estimator_is_left_alone(images, labels):
    cache = FeatureCache("memory", name="curves")
    cache.clear()
    model = make_feature_classifier(**SMALL, cache=cache)
    model = VotingClassifier([("a", model), ("b", clone(model))]).fit(images, labels)
    before = cache.statistics()
    state = pickle.dumps(model)
    assert before.entries == N
    reported(model, images, labels, corruptions="noise", n_resamples=5)
    assert cache.statistics() == before
    assert pickle.dumps(model) == state
    assert stream._CACHE.statistics().entries == 0


def test_members_of_an_ensemble_still_share_their_features(images, labels):
    from sklearn_dl.backbones import images_seen

    model = make_feature_classifier(**SMALL)
    model = VotingClassifier([("a", model), ("b", clone(model))]).fit(images, labels)
    before = images_seen()
    reported(model, images, labels, corruptions="noise", n_resamples=5)
    assert images_seen() - before == 4 * N  # clean, and three severities


def small_report(drops, **options):
    rows = [
        {
            "corruption": corruption,
            "severity": severity,
            "amount": "",
            "score": 0.9 - drop,
            "drop": drop,
            "low": low,
            "high": 2 * drop - low,
            "augmentation": list_corruptions().set_index("corruption")["augmentation"][
                corruption
            ],
        }
        for corruption, severity, drop, low in drops
    ]
    return RobustnessReport(pd.DataFrame(rows), 0.9, (0.85, 0.95), **options)


def test_weaknesses_lie_above_zero_and_severe_ones_above_the_margin():
    report = small_report(
        [
            ("rotation", 1.0, 0.02, 0.0),
            ("darker", 0.5, 0.02, 0.01),
            ("blur", 1.0, 0.1, 0.05),
            ("blur", 2.0, 0.2, 0.1),
            ("flip", np.nan, 0.1, 0.031),
        ]
    )
    assert report.weaknesses["corruption"].tolist() == [
        "blur",
        "blur",
        "flip",
        "darker",
    ]
    assert report.weaknesses["severe"].tolist() == [True, True, True, False]
    assert report.augment.transforms == ["flip", "brightness", "blur"]
    # Half as far again as the severest corruption, and none less far than by itself.
    assert report.augment.strength == {"blur": 3.0}
    assert report.severe_augment.transforms == ["flip", "blur"]
    assert report.augment_for(0.08).transforms == ["blur"]
    assert report.augment_for(0.08).strength == 3.0
    assert "augment=Augment(['flip', 'blur'], strength={'blur': 3.0})" in str(report)
    covered = small_report([("occlusion", 2.0, 0.2, 0.1), ("rotation", 0.5, 0.2, 0.1)])
    assert covered.augment.strength == {"erase": 2.0}  # hides as much in the mean
    assert small_report([("rotation", 0.5, 0.2, 0.1)]).augment == ["rotation"]
    assert report.augment_for(0.5) is None
    text = str(report)
    assert text.count("**") == 4
    assert "** Beyond 0.03: flip, blur. augment=" in text
    assert "<table" in report._repr_html_()
    assert "&lt;" not in small_report([("flip", np.nan, 0.0, 0.0)])._repr_html_()
    assert "No drop is beyond chance." in str(
        small_report([("flip", np.nan, 0.0, 0.0)])
    )


def answers():
    yield from (small_report([(name, s, 0.2, 0.1)]) for name in NAMES for s in (1, 2.0))
    yield small_report([(name, 1.0, 0.2, 0.1) for name in NAMES])
    yield small_report([(n, 1 + i, 0.2, 0.1) for i, n in enumerate(NAMES)])
    yield small_report([(name, 40.0, 0.2, 0.1) for name in NAMES])
    yield small_report([("flip", np.nan, 0.0, 0.0)])


def test_every_answer_goes_straight_into_augment():
    preprocessing = Preprocessing(36, (32, 32), mean=(0.5,) * 3, std=(0.2,) * 3)
    image = Image.fromarray(photographs(1)[0])
    seen = set()
    for report in answers():
        for value in (report.augment, report.severe_augment):
            augmenter, _ = resolve_augment(value, preprocessing)
            if value is None:
                assert augmenter is None
                continue
            names = value.transforms if isinstance(value, Augment) else value
            assert list(augmenter.steps[0].strengths) == list(names)
            seen |= set(names)
            assert augmenter(image, np.random.default_rng(0)).shape == (3, 32, 32)
    assert seen == set(list_corruptions()["augmentation"])


@pytest.mark.parametrize("severity", [1.0, 2.0])
def test_a_network_trains_on_all_answers_together(severity, images, labels):
    report = small_report([(name, severity, 0.2, 0.1) for name in NAMES])
    model = ImageClassifier(
        **SMALL, trainable=1, max_epochs=1, augment=report.augment
    ).fit(images, labels)
    assert np.isfinite(model.history_["train_loss"]).all()
    clone(model).set_params(augment__strength=0.5).fit(images, labels)


def test_the_report_of_an_estimator_answers_what_it_found(images, labels):
    report = reported(
        ByBrightness().fit(), images, labels, corruptions=["darker", "flip", "noise"]
    )
    assert set(report.weaknesses["corruption"]) == {"darker"}
    assert report.augment.transforms == ["brightness"]
    assert "darker" in str(report)
    assert "flip" in str(report)


def test_shifts_are_named_and_none_where_there_are_none():
    reference, images = photographs(120, seed=1), photographs(60, seed=2)
    labels = halves(60)
    model = ByBrightness().fit()
    options = {"corruptions": "flip", "n_resamples": 5}
    plain = reported(model, images, labels, reference, **options)
    assert plain.shifted == []
    assert "no shift found" in str(plain)
    assert reported(model, images, labels, **options).shifts is None
    warm = np.clip(images * [1.2, 1, 0.8], 0, 255).astype("uint8")
    blurred = [corrupt_image(image, "blur", 2.0) for image in images]
    cases = {
        "darker": (images * 0.6).astype("uint8"),
        "redder": warm,
        "yellower": warm,
        "blurred": np.stack(blurred),
        "less contrast": np.stack([corrupt_image(i, "less_contrast") for i in images]),
    }
    for direction, corrupted in cases.items():
        found = reported(model, corrupted, labels, reference, **options)
        assert direction in found.shifted
        assert direction in str(found)
        answers = found.shifts.loc[found.shifts["shifted"], "augmentation"]
        augmenter, _ = resolve_augment(
            answers.tolist(), Preprocessing(36, (32, 32), (0.5,) * 3, (0.2,) * 3)
        )
        assert augmenter is not None


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"y": halves(5)}, ValueError, "shape .5,., but X has 24 images"),
        ({"corruptions": ["blurr"]}, ValueError, "There is no corruption 'blurr'"),
        ({"corruptions": []}, ValueError, "corruptions is empty"),
        (
            {"severities": [0, 1]},
            ValueError,
            r"severities must be positive .* \[0, 1\]",
        ),
        ({"estimator": StandardScaler()}, TypeError, "got StandardScaler"),
        ({"estimator": ImageClassifier()}, NotFittedError, "not fitted"),
        ({"X": photographs(N) * 1.0}, ValueError, "Row 0 holds floats from"),
        ({"n_resamples": 0}, ValueError, "n_resamples"),
    ],
)
@pytest.mark.filterwarnings("ignore:X has float pixels")
def test_what_is_wrong_is_said(change, error, message, images, labels):
    arguments = {"estimator": ByBrightness().fit(), "X": images, "y": labels, **change}
    with pytest.raises(error, match=message):
        reported(**arguments)


def test_images_that_cannot_be_read_are_named(tmp_path, labels):
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    paths = forms(photographs(N), tmp_path)["paths"]
    paths[7] = str(tmp_path / "bad.jpg")
    with pytest.raises(ImageDecodeError, match=r"row 7, .*bad\.jpg"):
        reported(ByBrightness().fit(), paths, labels, corruptions="flip")
    assert stream._CACHE.statistics().entries == 0


def test_missing_labels_and_per_class_of_numbers_are_refused(images):
    y = np.linspace(0, 1, N)
    y[3] = np.nan
    model = ImageRegressor(**SMALL, max_epochs=1).fit(images, np.linspace(0, 1, N))
    with pytest.raises(ValueError, match=r"y has a missing value .* in row 3"):
        reported(model, images, y)
    with pytest.raises(ValueError, match="per_class=True needs a classifier"):
        reported(model, images, np.linspace(0, 1, N), per_class=True)


def test_verbose_shows_one_bar(fitted, images, labels, capsys):
    model = clone(fitted).set_params(verbose=0).fit(images, labels)
    model.verbose = 1
    reported(model, images, labels, corruptions="flip", n_resamples=5, verbose=1)
    err = capsys.readouterr().err
    assert "corrupted images" in err
    assert "100%" in err
    assert "predict" not in err
    reported(model, images, labels, corruptions="flip", n_resamples=5)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("corruptions", "error", "message"),
    [
        (3, TypeError, "corruptions must be a name"),
        ([["darker"]], ValueError, r"There is no corruption \['darker'\]"),
    ],
)
def test_corruptions_are_names(corruptions, error, message, images, labels):
    with pytest.raises(error, match=message):
        reported(ByBrightness().fit(), images, labels, corruptions=corruptions)


class Holder(BaseEstimator):
    """Keeps estimators where `get_params` doesn't look."""

    def __init__(self, *, kept=None):
        self.kept = kept


@pytest.mark.parametrize(
    "wrap",
    [
        lambda m: m,
        FrozenEstimator,
        lambda m: CalibratedClassifierCV(FrozenEstimator(m)),
        lambda m: make_pipeline(FrozenEstimator(m)),
        lambda m: Holder(kept={"a": [1, ("b", FrozenEstimator(m))]}),
    ],
)
def test_the_shape_of_rows_is_found_within(wrap):
    model = ByBrightness(image_shape=(8, 32))
    assert stream.image_shape_of(wrap(model)) == (8, 32)
    assert stream.image_shape_of(wrap(ByBrightness())) is None


def test_what_leads_back_to_itself_is_looked_at_once():
    held = Holder()
    held.kept = [held]
    assert stream.image_shape_of(Holder(kept=held)) is None


def test_grey_arrays_have_no_corruptions_of_colour():
    grey = photographs(N, channels=1)[..., 0]
    report = reported(ByBrightness().fit(), grey, halves(N), n_resamples=5)
    assert not {"color_cast", "grayscale"} & set(report.table["corruption"])
    with pytest.raises(ValueError, match="Grey images have no 'color_cast'"):
        reported(ByBrightness().fit(), grey, halves(N), corruptions="color_cast")


@pytest.mark.slow
def test_ants_and_bees_name_their_shifts():
    folder = assets_or_skip() / "hymenoptera_data"
    X, _ = load_image_folder(folder / "train", return_X_y=True)
    X_val, y_val = load_image_folder(folder / "val", return_X_y=True)
    source = as_source(X_val)
    images = [source[row] for row in range(len(source))]
    model = ByBrightness().fit()
    model.classes_ = np.unique(y_val)

    def shifted(images):
        report = reported(model, images, y_val, X, corruptions="flip", n_resamples=5)
        return report.shifted

    def tinted(image):
        values = np.asarray(image) * [1.15, 1.0, 0.85]
        return Image.fromarray(np.clip(values, 0, 255).astype("uint8"))

    assert shifted(images) == []
    assert "darker" in shifted([corrupt_image(i, "darker", 0.5) for i in images])
    assert "blurred" in shifted([corrupt_image(i, "blur", 0.5) for i in images])
    assert {"redder", "yellower"} <= set(shifted([tinted(i) for i in images]))


def test_files_of_8_and_16_bits_are_corrupted_together(tmp_path):
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{k}.png" for k in range(4)]
    for k, path in enumerate(paths):
        values = rng.integers(0, 65536, (40, 30)).astype("u2")
        deep = Image.fromarray(values if k % 2 else (values >> 8).astype("u1"))
        deep.save(path)
    model = ImageClassifier(
        "mobilenet_v3_small", weights="builtin", image_size=32, max_epochs=1
    ).fit(paths, [0, 1, 0, 1])
    report = robustness_report(
        model, paths, [0, 1, 0, 1], corruptions=["color_cast", "blur"], severities=(1,)
    )
    assert np.isfinite(report.table["score"]).all()


def test_a_reference_image_that_cannot_be_read_is_named_by_its_row(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(_statistics, "_MOST", 4)
    Image.new("RGB", (8, 8)).save(tmp_path / "there.png")
    paths = [str(tmp_path / "there.png")] * 6 + ["gone.png"] * 6
    with pytest.raises(ImageDecodeError) as caught:
        _statistics.reference_statistics(as_source(paths), 0, 0)
    assert caught.value.failures[0][0] >= 6
