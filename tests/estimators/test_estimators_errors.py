"""Bad input: an error that names the place, and nothing left broken."""

import numpy as np
import pandas as pd
import pytest
import torch
from estimator_cases import SMALL, classifier, extractor, regressor
from PIL import Image
from sklearn.exceptions import NotFittedError

from sklearn_dl import ImageFeatureExtractor
from sklearn_dl.datasets import verify_images


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Return a classifier and an extractor that were fitted, with their answers."""
    X = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), "uint8")
    y = np.repeat(["a", "b"], 4)
    model, features = classifier().fit(X, y), extractor().fit(X)
    return X, y, model, features


def _bad_file(kind, folder, image_files):
    """Make a file that is no image; return its path and what is said of it."""
    path = folder / f"{kind}.png"
    if kind == "missing":
        return path, "no such file"
    if kind == "directory":
        path.mkdir()
        return path, "a directory"
    if kind == "zero bytes":
        path.write_bytes(b"")
        return path, ""
    if kind == "text":
        path.write_text("hello")
        return path, "not an image"
    with open(image_files[0], "rb") as file:
        path.write_bytes(file.read()[:500])
    return path, ""


@pytest.mark.parametrize(
    "kind", ["missing", "directory", "zero bytes", "text", "truncated"]
)
def test_a_bad_file_is_named_with_its_row(kind, tmp_path, image_files, good):
    X, _, model, features = good
    path, reason = _bad_file(kind, tmp_path, image_files)
    paths = [*image_files[:5], str(path), *image_files[5:8]]
    y = np.repeat(["a", "b"], [5, 4])
    pattern = rf"row 5.*{path.name}.*{reason}"
    P, F = model.predict_proba(X), features.transform(X)
    for trainable in ("head", "all"):
        fresh = classifier(trainable=trainable)
        with pytest.raises(ValueError, match=pattern):
            fresh.fit(paths, y)
        with pytest.raises(NotFittedError):
            fresh.predict(paths)
    for call in (model.predict, model.predict_proba, features.transform):
        with pytest.raises(ValueError, match=pattern):
            call(paths)
    with pytest.raises(ValueError, match=pattern):
        model.score(paths, y)
    with pytest.raises(ValueError, match=pattern):
        classifier().fit(X, good[1], X_val=paths, y_val=y)
    np.testing.assert_array_equal(model.predict_proba(X), P)
    np.testing.assert_array_equal(features.transform(X), F)
    assert verify_images(paths)["row"].tolist() == [5]


def test_all_bad_files_of_a_batch_are_named(tmp_path, image_files):
    paths = list(image_files)
    for row in (1, 3, 20):
        paths[row] = str(tmp_path / f"gone{row}.png")
    model = extractor(batch_size=10, cache=None).fit(paths)
    with pytest.raises(ValueError, match=r"2 images.*\n.*row 1.*\n.*row 3"):
        model.transform(paths)
    with pytest.raises(ValueError, match=r"(?s)3 images.*row 1.*row 3.*row 20"):
        extractor(batch_size=24).fit(paths).transform(paths)


def test_a_bad_file_in_a_loaders_worker_is_named(tmp_path, image_files):
    paths = list(image_files)
    paths[3] = str(tmp_path / "gone.png")
    workers = {"iterator_train__num_workers": 1}
    model = classifier(trainable="all", net_params=workers, batch_size=24)
    with pytest.raises(ValueError, match=r"row 3.*gone.png"):
        model.fit(paths, np.arange(24) % 2)


def _with_nan(value):
    X = np.random.default_rng(0).random((6, 8, 8, 3))
    X[4, 0, 0, 0] = value
    return X


BAD_X = {
    "empty list": ([], ValueError, r"0 sample"),
    "empty array": (np.empty((0, 8, 8, 3), "uint8"), ValueError, r"0 sample"),
    "one path": ("image.png", TypeError, r"\['image.png'\]"),
    "one image": (np.zeros((8, 8, 3), "uint8"), ValueError, r"X\[None\]"),
    "one PIL image": (Image.new("RGB", (8, 8)), TypeError, r"\[X\]"),
    "mixed": (["a.png", np.zeros((8, 8))] * 3, ValueError, "row 0 is a path, row 1"),
    "missing value": (["a.png", None] * 3, ValueError, "missing value.*row 1"),
    "NaN": (_with_nan(np.nan), ValueError, "NaN.*row 4"),
    "infinity": (_with_nan(np.inf), ValueError, "infinity.*row 4"),
    "NaN in rows": (_with_nan(np.nan).reshape(6, -1), ValueError, "NaN.*row 4"),
    "complex": (np.zeros((6, 8, 8), complex), ValueError, "[Cc]omplex"),
    "no channels": (np.zeros((6, 8, 8, 5), "uint8"), ValueError, "axis of channels"),
    "five axes": (np.zeros((6, 1, 8, 8, 3), "uint8"), ValueError, "5 axes"),
    "two columns": (
        pd.DataFrame({"path": ["a.png"] * 6, "b": 1}), ValueError, "2 columns",
    ),
    "number": (3, TypeError, "int"),
    "None": (None, TypeError, "NoneType"),
    "dates": (np.zeros(6, "datetime64[s]"), (TypeError, ValueError), "."),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_X)
def test_an_x_that_holds_no_images(name, good):
    bad, kind, pattern = BAD_X[name]
    X, _, model, features = good
    P = model.predict_proba(X)
    y = np.arange(6) % 2
    for make in (classifier, regressor, extractor):
        fresh = make()
        before = set(vars(fresh))
        with pytest.raises(kind, match=pattern):
            fresh.fit(bad, y)
        assert set(vars(fresh)) == before
    for call in (model.predict, model.predict_proba, features.transform):
        with pytest.raises(kind, match=pattern):
            call(bad)
    np.testing.assert_array_equal(model.predict_proba(X), P)


@pytest.mark.parametrize(
    ("image_shape", "pattern"),
    [
        ((7, 9), "63 values a row, but X has 64 columns"),
        ((8, 8, 3), "192"),
        ((8,), "image_shape must be"),
        ((8, 8, 2), r"8 \* 8 \* 2 = 128 values a row"),
        (("8", "x"), "image_shape must be"),
    ],
)
def test_a_wrong_image_shape(image_shape, pattern, small_rows):
    X, y = small_rows
    for make in (classifier, extractor):
        with pytest.raises(ValueError, match=pattern):
            make(image_shape=image_shape).fit(X, y)


def test_float_images_in_0_to_255_warn(good):
    X, y, model, features = good
    with pytest.warns(UserWarning, match="look like 0-255"):
        classifier(max_epochs=1).fit(X.astype(float), y)
    with pytest.warns(UserWarning, match="look like 0-255"):
        model.predict(X.astype(float))
    with pytest.warns(UserWarning, match="look like 0-255"):
        features.transform(X.astype(float))


BAD_Y = {
    "one class": (classifier, ["a"] * 8, "one class, .*'a'"),
    "another length": (classifier, ["a", "b"], r"\[8, 2\]"),
    "a length of the regressor's": (regressor, [1.0, 2], r"\[8, 2\]"),
    "None": (classifier, None, "requires y"),
    "None of the regressor": (regressor, None, "requires y"),
    "continuous": (classifier, np.linspace(0, 1, 8), "continuous"),
    "NaN": (classifier, [0, 1, np.nan] * 2 + [0, 1], "NaN"),
    "NaN targets": (regressor, [0, 1, np.nan] * 2 + [0, 1], "value .NaN. in row 2"),
    "infinite targets": (regressor, [0, 1, np.inf] * 2 + [0, 1], "y contains inf"),
    "several columns": (classifier, np.arange(16).reshape(8, 2), "1d array"),
    "words": (regressor, ["a"] * 8, "could not convert|dtype"),
}


@pytest.mark.parametrize("name", BAD_Y)
def test_a_y_that_does_not_fit(name, good):
    make, y, pattern = BAD_Y[name]
    model = make()
    before = set(vars(model))
    with pytest.raises(ValueError, match=pattern):
        model.fit(good[0], y)
    assert set(vars(model)) == before


@pytest.mark.parametrize(
    ("weight", "pattern"),
    [
        (np.ones(3), r"sample_weight"),
        ([1] * 7 + [-1], "[Nn]egative"),
        ([1] * 7 + [np.nan], "NaN"),
        (np.zeros(8), "zero"),
    ],
)
def test_weights_that_do_not_fit(weight, pattern, good):
    with pytest.raises(ValueError, match=pattern):
        classifier().fit(*good[:2], sample_weight=weight)


@pytest.mark.parametrize(
    ("X_val", "y_val", "pattern"),
    [
        (True, None, "X_val and y_val"),
        (None, True, "X_val and y_val"),
        (True, ["a", "b"], r"\[8, 2\]"),
        (True, ["a", "c"] * 4, "y_val.*'c'"),
    ],
)
def test_validation_rows_that_do_not_fit(X_val, y_val, pattern, good):
    X, y = good[:2]
    X_val = X if X_val else None
    y_val = y if y_val is True else y_val
    with pytest.raises(ValueError, match=pattern):
        classifier().fit(X, y, X_val=X_val, y_val=y_val)


def test_validation_rows_of_another_width(small_rows):
    X, y = small_rows
    with pytest.raises(ValueError, match=r"49 features.*64"):
        classifier().fit(X, y, X_val=X[:, :49], y_val=y)


PARAMETERS = {
    "backbone": ({"backbone": "resnet19"}, "resnet19.*resnet18"),
    "weights": ({"weights": "IMAGENET1K_V9"}, "IMAGENET1K_V9.*IMAGENET1K_V1"),
    "layer": ({"layer": "pre_logit"}, "pre_logit.*pre_logits"),
    "pooling": ({"layer": ("pooled", "mean")}, "pool.*mean"),
    "image_size": ({"image_size": (32,)}, "image_size.*32"),
    "small image_size": ({"image_size": 3}, "3"),
    "precision": ({"precision": "half"}, "precision.*half"),
    "preprocessing": ({"preprocessing": "mean"}, "preprocessing='mean' must be 'data'"),
    "batch_size": ({"batch_size": 0}, "batch_size.*0"),
    "device": ({"device": "gpu"}, "device='gpu'.*cpu"),
    "random_state": ({"random_state": "a"}, "random_state"),
}
OF_TRAINING = {
    "stage": ({"trainable": "stage9"}, "stage9.*stage3"),
    "too many stages": ({"trainable": 99}, "99.*3 stages"),
    "trainable True": ({"trainable": True}, "trainable.*True"),
    "max_epochs": ({"max_epochs": 0}, "max_epochs"),
    "lr": ({"lr": 0.0}, "lr"),
    "optimizer": ({"optimizer": "adamm"}, "optimizer.*adamm"),
    "validation_fraction": ({"validation_fraction": 1.0}, "validation_fraction"),
    "scoring": ({"scoring": "accurate"}, "scoring.*accurate"),
    "net_params": ({"net_params": {"lrr": 1}}, "lrr"),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_parameter_that_is_none(name, good):
    parameters, pattern = PARAMETERS[name]
    for make in (classifier, extractor):
        model = make(**parameters)
        with pytest.raises(ValueError, match=f"(?s){pattern}"):
            model.fit(*good[:2])
        with pytest.raises(NotFittedError):
            (model.predict if make is classifier else model.transform)(good[0])


@pytest.mark.parametrize("name", OF_TRAINING)
def test_a_parameter_of_training_that_is_none(name, good):
    parameters, pattern = OF_TRAINING[name]
    with pytest.raises((ValueError, TypeError), match=pattern):
        classifier(**parameters).fit(*good[:2])


def test_a_wrong_checkpoint_says_whose_it_is(pretrained_file, tmp_path, good):
    model = ImageFeatureExtractor(**{**SMALL, "weights": pretrained_file})
    with pytest.raises(ValueError, match=r"(?s)resnet18"):
        model.fit(*good[:2])
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(pretrained_file.read_bytes()[:10_000])
    with pytest.raises(ValueError, match=r"damaged.pth"):
        classifier(backbone="resnet18", weights=damaged).fit(*good[:2])
    gone = tmp_path / "gone.pth"
    with pytest.raises((ValueError, OSError), match=r"gone.pth"):
        classifier(backbone="resnet18", weights=str(gone)).fit(*good[:2])


def test_no_code_of_a_weights_file_runs(tmp_path, good):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"x": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match=r"evil.pth"):
        classifier(weights=tmp_path / "evil.pth").fit(*good[:2])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("make", [classifier, regressor, extractor])
def test_unfitted_use(make, good):
    model = make()
    name = "transform" if make is extractor else "predict"
    with pytest.raises(NotFittedError, match="not fitted yet"):
        getattr(model, name)(good[0])
    with pytest.raises(NotFittedError):
        make().score(*good[:2]) if make is not extractor else model.transform([])


def test_another_number_of_pixels_at_prediction(small_rows):
    X, y = small_rows
    model = classifier().fit(X, y)
    with pytest.raises(ValueError, match=r"X has 49 features.*expecting 64"):
        model.predict(X[:, :49])
    assert model.predict(X).shape == (40,)


def test_options_that_contradict_each_other(data):
    params = {"iterator_train__drop_last": True, "iterator_train__batch_size": 100}
    with pytest.raises(ValueError, match="batch"):
        classifier(net_params=params).fit(*data)  # not one step would be made


def test_early_stopping_on_one_row():
    X = np.zeros((1, 32, 32, 3), "uint8")
    with pytest.raises(ValueError, match="early_stopping"):
        regressor(early_stopping=True).fit(X, [1.0])
