"""ONNX graphs and torch's programs predict what the estimator does."""

import json
import os

import numpy as np
import pandas as pd
import pytest
import torch
from persistence_cases import NUMBERS, SMALL, X, Y, classifier, extractor, regressor
from PIL import Image
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVC, LinearSVC, LinearSVR

from sklearn_dl import ImageClassifier, make_feature_classifier
from sklearn_dl.persistence import (
    ExportedClassifier,
    ExportedRegressor,
    ModelFileError,
    _graph,
    export_onnx,
    export_pt2,
    load_exported,
)
from sklearn_dl.training import Head

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

THREE = np.repeat(["a", "b", "c"], 6)
LABELS = np.stack([Y == "dark", np.arange(18) % 2 == 0], axis=1).astype(int)
EASY = {"layer": "features.2", "optimizer": "adam", "lr": 1e-2, "max_epochs": 10}
SHORT = {**SMALL, "layer": "features.2"}  # a graph of few nodes, quickly exported


def whole(**parameters):
    """Return a classifier whose BatchNorm, too, has learned."""
    own = {"backbone": "resnet18", "trainable": "all", "max_epochs": 4}
    return classifier(**{**own, "lr": 0.01, **parameters})


MODELS = {
    "batch norm": (whole(), Y),
    "head": (
        classifier(**EASY, head=Head((8,), dropout=0.3, normalization="batch")),
        Y,
    ),
    "layer": (classifier(**EASY), Y),
    "pooled map": (classifier(**{**EASY, "layer": ("features.4", "max")}), Y),
    "hinge": (classifier(**EASY, loss="hinge"), Y),
    "labels": (classifier(**EASY), LABELS),
    "bfloat16": (classifier(**EASY, precision="bfloat16"), Y),
    "float64": (classifier(**EASY, precision="float64"), Y),
    "regressor": (regressor(**EASY), NUMBERS),
    "two targets": (regressor(**EASY), np.stack([NUMBERS, -3 * NUMBERS], axis=1)),
    "svm": (make_feature_classifier(**SMALL), Y),
    "svm of three": (make_feature_classifier(**SHORT), THREE),
    "calibrated": (make_feature_classifier(probability=True, **SHORT), THREE),
    "logistic": (make_feature_classifier(classifier=LogisticRegression(), **SHORT), Y),
    "ridge": (
        make_pipeline(extractor(layer="features.2"), StandardScaler(), Ridge()),
        NUMBERS,
    ),
    "svr": (
        make_pipeline(extractor(layer="features.2"), StandardScaler(), LinearSVR()),
        NUMBERS,
    ),
}


def scores(model, images):
    for method in ("predict_proba", "decision_function", "predict"):
        if hasattr(model, method):
            return np.asarray(getattr(model, method)(images))
    raise AssertionError


@pytest.mark.parametrize("name", MODELS)
def test_the_graph_predicts_as_the_estimator(name, tmp_path):
    model, y = MODELS[name]
    model.fit(X, y)
    path = tmp_path / "model.onnx"
    export_onnx(model, path)
    assert os.listdir(tmp_path) == ["model.onnx"]
    half = name == "bfloat16"
    if half:
        model.set_params(precision="float32")
    wanted = scores(model, X)
    spread = np.ptp(wanted, axis=0).max()
    assert spread > 0.1
    scale = max(1.0, np.abs(wanted).max())
    for batch_size in (1, 4, 17):
        again = load_exported(path, batch_size=batch_size)
        found = scores(again, X)
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * scale)
    if isinstance(again, ExportedRegressor):
        assert again.score(X, y) == pytest.approx(model.score(X, y), abs=1e-4)
        return
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    np.testing.assert_array_equal(again.classes_, model.classes_)
    assert again.classes_.dtype == model.classes_.dtype
    assert again.score(X, y) == model.score(X, y)


@pytest.fixture(scope="module")
def model():
    return whole(image_size=40).fit(X, Y)


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export_onnx(model, path)
    return path


@pytest.mark.parametrize("kind", ["object", "string", "category"])
def test_labels_out_of_a_table_come_back(kind, tmp_path):
    model = classifier(**EASY).fit(X, pd.Series(Y).astype(kind))
    export_onnx(model, tmp_path / "model.onnx")
    again = load_exported(tmp_path / "model.onnx")
    assert again.classes_.tolist() == model.classes_.tolist() == ["dark", "light"]
    np.testing.assert_array_equal(again.predict(X), model.predict(X))


def test_the_file_says_what_it_takes(path, model):
    session = onnxruntime.InferenceSession(path)
    (images,), (output,) = session.get_inputs(), session.get_outputs()
    assert images.name == "images"
    assert images.type == "tensor(uint8)"
    assert images.shape[1:] == [40, 40, 3]
    assert isinstance(images.shape[0], str)  # free
    assert output.name == "probabilities"
    metadata = session.get_modelmeta().custom_metadata_map
    about = json.loads(metadata["sklearn_dl"])
    assert about["classes"] == ["dark", "light"]
    assert about["preprocessing"] == model.preprocessing_.to_dict()
    assert about["versions"]["torch"] == torch.__version__.split("+")[0]
    assert str(os.path.dirname(torch.__file__)).encode() not in path.read_bytes()


def test_it_takes_images_as_the_original_does(path, model, tmp_path):
    rng = np.random.default_rng(3)
    sizes = [(61, 47), (40, 100), (33, 33), (45, 46), (200, 41)]
    images = [rng.integers(0, 256, (*size, 3), "uint8") for size in sizes]
    smooth = [
        Image.fromarray(image).resize((size[1], size[0] + 7), Image.Resampling.BICUBIC)
        for image, size in zip(images, sizes, strict=True)
    ]
    paths = []
    for k, image in enumerate(smooth):
        paths.append(str(tmp_path / f"{k}.png"))
        image.save(paths[-1])
    again = load_exported(path, batch_size=2)
    grey = rng.integers(0, 256, (3, 50, 60), "uint8")
    rows = rng.integers(0, 256, (3, 48 * 48 * 3), "uint8")
    model_of_rows = model
    for given in (paths, smooth, images, grey, X, rows):
        np.testing.assert_allclose(
            again.predict_proba(given),
            model_of_rows.predict_proba(given),
            rtol=0,
            atol=1e-4,
        )
    floats = rng.random((3, 40, 40, 3))
    np.testing.assert_allclose(
        again.predict_proba(floats), model.predict_proba(floats), rtol=0, atol=0.02
    )
    with pytest.raises(ValueError, match=r"missing\.png"):
        again.predict([paths[0], "missing.png"])


def test_the_exported_program_predicts_as_the_estimator(model, tmp_path):
    export_pt2(model, tmp_path / "model.pt2")
    extra = {"sklearn_dl.json": ""}
    module = torch.export.load(tmp_path / "model.pt2", extra_files=extra).module()
    assert json.loads(extra["sklearn_dl.json"])["classes"] == ["dark", "light"]
    images = [Image.fromarray(image) for image in X[:17]]
    pixels = np.stack([model.preprocessing_.geometry(image) for image in images])
    wanted = model.predict_proba(images)
    assert np.ptp(wanted[:, 0]) > 0.1
    for n in (1, 4, 17):
        with torch.no_grad():
            found = module(torch.from_numpy(pixels[:n])).numpy()
        np.testing.assert_allclose(found, wanted[:n], rtol=0, atol=1e-4)
    with pytest.raises(ModelFileError, match="loading can run code"):
        load_exported(tmp_path / "model.pt2")


def test_a_graph_that_predicts_otherwise_is_not_written(model, tmp_path, monkeypatch):
    build = _graph.Deployed.forward

    def wrong(self, images):
        return build(self, images) + 2e-4

    monkeypatch.setattr(_graph.Deployed, "forward", wrong)
    for export, name in ((export_onnx, "m.onnx"), (export_pt2, "m.pt2")):
        with pytest.raises(ModelFileError, match="gives other predictions"):
            export(model, tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_exporting_leaves_the_estimator_alone(model, tmp_path):
    before = model.predict_proba(X)
    state = torch.random.get_rng_state()
    _graph.graph_of(model)
    assert torch.equal(state, torch.random.get_rng_state())
    np.testing.assert_array_equal(model.predict_proba(X), before)
    assert model._network.backbone.settled


def test_what_has_no_graph_says_so(model, tmp_path):
    cases = [
        (classifier(tta="flip").fit(X, Y), r"tta='flip' can't be exported"),
        (
            make_feature_classifier(classifier=SVC(), **SMALL).fit(X, Y),
            "SVC can't be exported",
        ),
        (
            make_pipeline(extractor(), MinMaxScaler(), LinearSVC()).fit(X, Y),
            "MinMaxScaler can't be exported",
        ),
        (
            make_feature_classifier(
                classifier=CalibratedClassifierCV(LinearSVC(), cv=2), **SMALL
            ).fit(X, Y),
            "ensemble=False",
        ),
        (
            ImageClassifier(
                "squeezenet1_1", weights=None, preprocessing=to_small, max_epochs=1
            ).fit(X, Y),
            "preprocessing is a function",
        ),
        (extractor().fit(X), "ImageFeatureExtractor can't be exported"),
    ]
    for estimator, message in cases:
        with pytest.raises(ModelFileError, match=message):
            export_onnx(estimator, tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="not fitted"):
        export_onnx(classifier(), tmp_path / "model.onnx")
    with pytest.raises(ModelFileError, match=r"must end in '\.pt2'"):
        export_pt2(model, tmp_path / "model.onnx")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named(package, model, tmp_path, monkeypatch):
    from importlib.util import find_spec

    from sklearn_dl.persistence import _export, _exported_file

    def without(name):
        return None if name == package else find_spec(name)

    monkeypatch.setattr(_export, "find_spec", without)
    with pytest.raises(ImportError, match=rf"{package}: pip install .*export"):
        export_onnx(model, tmp_path / "model.onnx")
    monkeypatch.setattr(_exported_file, "find_spec", without)
    (tmp_path / "model.onnx").write_bytes(b"")
    kind = ImportError if package == "onnxruntime" else ModelFileError
    with pytest.raises(kind):
        load_exported(tmp_path / "model.onnx")


def to_small(image):
    return torch.from_numpy(np.array(image.resize((32, 32)))).permute(2, 0, 1) / 255


def test_it_is_an_estimator_of_scikit_learn(path, model):
    import pickle

    from sklearn.base import clone, is_classifier
    from sklearn.ensemble import VotingClassifier
    from sklearn.utils.validation import check_is_fitted

    again = load_exported(path, batch_size=5)
    assert isinstance(again, ExportedClassifier)
    assert is_classifier(again)
    check_is_fitted(again)
    copied = pickle.loads(pickle.dumps(again))
    for other in (clone(again), copied):
        assert other.batch_size == 5
        np.testing.assert_array_equal(other.predict_proba(X), again.predict_proba(X))
    voting = VotingClassifier([("one", again)], voting="soft").fit(X, Y)
    np.testing.assert_array_equal(voting.predict(X), again.predict(X))
