"""Exported models without torch, and on real photographs."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from persistence_cases import X, Y, classifier, livened, run
from PIL import Image

from sklearn_dl import ImageClassifier, ImageFeatureExtractor, make_feature_classifier
from sklearn_dl.backbones import Preprocessing
from sklearn_dl.persistence import (
    ModelFileError,
    export_onnx,
    export_pt2,
    export_state_dict,
    load,
    load_exported,
    save,
)
from sklearn_dl.persistence._exported import _geometry
from sklearn_dl.persistence._exported_file import seal

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

FIVE = ["mobilenet_v2", "resnet18", "efficientnet_b0", "convnext_tiny", "vit_b_16"]
ASSETS = os.environ.get("SKLEARN_DL_ASSETS")
needs_assets = pytest.mark.skipif(not ASSETS, reason="SKLEARN_DL_ASSETS is not set")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    model = classifier(layer="features.2", optimizer="adam", lr=1e-2, max_epochs=10)
    export_onnx(model.fit(X, Y), path)
    return path


def test_it_runs_where_torch_is_not_installed(path, tmp_path):
    files = []
    for k, image in enumerate(X):
        files.append(tmp_path / f"{k}.png")
        Image.fromarray(image).save(files[-1])
    code = (
        "import sys\n"
        "class Forbidden:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'torchvision', 'skorch', 'onnx'):\n"
        "            raise ImportError(name + ' is not there')\n"
        "sys.meta_path.insert(0, Forbidden())\n"
        "import sklearn_dl.persistence\n"
        "dir(sklearn_dl.persistence)\n"
        "from sklearn_dl.persistence import load_exported, ModelFileError\n"
        "import numpy as np\n"
        "model = load_exported(sys.argv[1])\n"
        "from_files = model.predict_proba(sys.argv[2:])\n"
        "images = np.stack([np.asarray(i) for i in map(__import__('PIL.Image')."
        "Image.open, sys.argv[2:])])\n"
        "assert (model.predict_proba(images) == from_files).all()\n"
        "print(model.score(sys.argv[2:], ['dark'] * 9 + ['light'] * 9))\n"
        "assert not {'torch', 'torchvision', 'skorch'} & set(sys.modules)\n"
        "try:\n    from sklearn_dl.persistence import load\n"
        "except ImportError:\n    print('no torch')\n"
    )
    import subprocess
    import sys

    result = subprocess.run(
        [sys.executable, "-c", code, str(path), *map(str, files)],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split("\n")[:2] == ["1.0", "no torch"]


@pytest.mark.parametrize("side", ["shorter", "longer"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    "rule",
    [
        (256, (224, 224), "bilinear"),
        (232, (224, 224), "bicubic"),
        (37, (32, 32), "lanczos"),
        (32, (64, 48), "nearest"),  # a crop that is larger than the image
        (40, (40, 61), "box"),
        ((33, 71), None, "bilinear"),
        ((33, 71), (30, 30), "hamming"),
        (None, (31, 50), "bilinear"),
        (None, None, "bilinear"),
    ],
)
def test_geometry_is_that_of_the_networks(rule, mode, side):
    resize, crop, interpolation = rule
    how = {"interpolation": interpolation, "resize_side": side}
    preprocessing = Preprocessing(resize, crop, (0.5,) * 3, (0.5,) * 3, **how)
    rng = np.random.default_rng(0)
    sizes = [(60, 41), (41, 60), (37, 37), (333, 500), (31, 32), (2, 90), (3000, 4)]
    for height, width in sizes:
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3), "uint8"))
        image = image.convert(mode)
        np.testing.assert_array_equal(
            np.asarray(_geometry(image, preprocessing.to_dict())),
            np.asarray(preprocessing.geometry(image)),
        )


def sealed(model) -> bytes:
    """Return a model of onnx as `export_onnx` writes it."""
    data = model.SerializeToString()
    return data + seal(data)


def opened(path):
    """Return the model of onnx in a file, without digest, and what describes it."""
    model = onnx.load(path)
    digest = model.metadata_props[1]
    assert digest.key == "sklearn_dl.sha256"
    model.metadata_props.remove(digest)
    return model, model.metadata_props[0]


def test_files_that_are_no_export_are_refused(path, tmp_path):
    other = tmp_path / "other.onnx"
    for content in (b"", b"text", path.read_bytes()[:1000]):
        other.write_bytes(content)
        with pytest.raises(ModelFileError, match=r"other\.onnx .* no file of export"):
            load_exported(other)
    model, entry = opened(path)
    about = json.loads(entry.value)
    for text in ("text", "{}", "[" * 10**5, json.dumps({**about, "version": 1})):
        entry.value = text
        other.write_bytes(sealed(model))
        with pytest.raises(ModelFileError, match=r"none of export_onnx|Update"):
            load_exported(other)
    data = sealed(model).replace(b"\n\nsklearn_dl\x12", b"\n\nsklearn_d\xff\x12")
    data = data[: -len(seal(b""))]
    other.write_bytes(data + seal(data))
    with pytest.raises(ModelFileError, match=r"other\.onnx"):
        load_exported(other)
    save(classifier(), tmp_path / "model")
    with pytest.raises(ModelFileError, match="a file of save"):
        load_exported(tmp_path / "model")
    for name in ("model.pt2", "model.pth"):
        torch.save({}, tmp_path / name)
        with pytest.raises(ModelFileError, match="can run code"):
            load_exported(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="There is no file"):
        load_exported(tmp_path / "missing.onnx")


def test_a_file_that_changed_in_any_place_says_so(path, tmp_path):
    other, data = tmp_path / "other.onnx", path.read_bytes()
    rng = np.random.default_rng(0)
    places = [*rng.integers(0, len(data), 10), *range(-len(seal(b"")), 0, 7)]
    for place in [*places, data.index(b'"version": 2') + 11]:
        changed = bytearray(data)
        changed[place] ^= int(rng.integers(1, 256))
        other.write_bytes(changed)
        with pytest.raises(ModelFileError, match=r"other\.onnx is not what export"):
            load_exported(other)
    other.write_bytes(data[: -len(seal(b""))])
    with pytest.raises(ModelFileError, match="missing or differs"):
        load_exported(other)


def test_a_file_that_another_tool_changed_says_so(path, tmp_path):
    model = onnx.load(path)
    onnx.checker.check_model(model)
    model.producer_name = "another"
    onnx.save(model, tmp_path / "other.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "other.onnx")
    assert session.run(None, {"images": X})[0].shape == (len(X), 2)
    with pytest.raises(ModelFileError, match="changed by another tool"):
        load_exported(tmp_path / "other.onnx")


def test_a_graph_can_not_refer_to_other_files(path, tmp_path):
    model, _ = opened(path)
    (tmp_path / "secret").write_bytes(b"\0" * 10**6)
    tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    onnx.external_data_helper.set_external_data(tensor, "secret", length=4)
    tensor.ClearField("raw_data")
    (tmp_path / "other.onnx").write_bytes(sealed(model))
    with pytest.raises(ModelFileError, match="no ONNX graph"):
        load_exported(tmp_path / "other.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("name", FIVE)
def test_five_families_are_exported_within_a_ten_thousandth(name, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (17, 4, 4, 3)).astype("uint8")
    size = 64
    images = np.repeat(np.repeat(images, size // 4, axis=1), size // 4, axis=2)
    y = np.arange(17) % 3
    plain = Preprocessing(None, None, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
    sized = plain.replace_image_size((size, size))
    model = ImageClassifier(
        name,
        weights=None,
        preprocessing=sized,
        max_epochs=1,
        random_state=0,
        cache=None,
    )
    model = livened(model.fit(images, y), images)
    wanted = model.predict_proba(images)
    assert np.ptp(wanted, axis=0).max() > 0.1
    export_onnx(model, tmp_path / "model.onnx")
    export_pt2(model, tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2").module()
    for n in (1, 4, 17):
        again = load_exported(tmp_path / "model.onnx", batch_size=n)
        np.testing.assert_allclose(
            again.predict_proba(images), wanted, rtol=0, atol=1e-4
        )
        with torch.no_grad():
            found = program(torch.from_numpy(images[:n])).numpy()
        np.testing.assert_allclose(found, wanted[:n], rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def photographs():
    from sklearn_dl.datasets import load_image_folder

    folder = Path(str(ASSETS)) / "hymenoptera_data"
    train = load_image_folder(folder / "train")
    every = load_image_folder(folder / "val")
    some = np.random.default_rng(0).permutation(len(train.data))[:60]
    return (
        np.ravel(train.data)[some].tolist(),
        np.asarray(train.target)[some],
        np.ravel(every.data).tolist(),
        np.asarray(every.target),
    )


@pytest.mark.slow
@needs_assets
def test_photographs_are_told_apart_as_before(photographs, tmp_path):
    files, labels, others, truth = photographs
    weights = f"{ASSETS}/mobilenet_v2_imagenet.pth"
    model = ImageClassifier(
        "mobilenet_v2", weights=weights, random_state=0, cache=None
    ).fit(files, labels)
    wanted = model.predict_proba(others)
    assert model.classes_[wanted.argmax(1)].tolist().count("bees") > 20
    save(model, tmp_path / "model")
    np.testing.assert_array_equal(
        load(tmp_path / "model").predict_proba(others), wanted
    )
    save(model, tmp_path / "small", backbones="reference")
    assert (tmp_path / "small").stat().st_size < 100_000
    np.testing.assert_array_equal(
        load(tmp_path / "small").predict_proba(others[:8]),
        model.predict_proba(others[:8]),
    )
    code = (
        "import numpy as np; from sklearn_dl.persistence import load\n"
        "np.save(sys.argv[2], load(sys.argv[1]).predict_proba(sys.argv[3:]))"
    )
    run(code, tmp_path / "model", tmp_path / "found.npy", *others)
    np.testing.assert_array_equal(np.load(tmp_path / "found.npy"), wanted)

    export_onnx(model, tmp_path / "model.onnx")
    for batch_size in (1, 4, 17):
        again = load_exported(tmp_path / "model.onnx", batch_size=batch_size)
        found = again.predict_proba(others)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)
        assert again.score(others, truth) > 0.9

    path = tmp_path / "weights.safetensors"
    export_state_dict(model, path)
    features = [
        ImageFeatureExtractor("mobilenet_v2", weights=w, cache=None)
        .fit(others)
        .transform(others[:16])
        for w in (weights, str(path))
    ]
    np.testing.assert_array_equal(*features)


@pytest.mark.slow
@needs_assets
def test_features_and_a_linear_model_are_exported_too(photographs, tmp_path):
    files, labels, others, truth = photographs
    weights = f"{ASSETS}/mobilenet_v2_imagenet.pth"
    model = make_feature_classifier(weights=weights, probability=True, cache=None)
    model.fit(files, labels)
    export_onnx(model, tmp_path / "model.onnx")
    again = load_exported(tmp_path / "model.onnx")
    np.testing.assert_allclose(
        again.predict_proba(others), model.predict_proba(others), rtol=0, atol=1e-4
    )
    assert again.score(others, truth) > 0.9


def altered(path, tmp_path, change):
    """Return a copy of an exported file with other metadata."""
    model, entry = opened(path)
    metadata = json.loads(entry.value)
    change(metadata)
    entry.value = json.dumps(metadata)
    (tmp_path / "altered.onnx").write_bytes(sealed(model))
    return tmp_path / "altered.onnx"


@pytest.mark.parametrize(
    "change",
    [
        *(
            lambda found, key=key: found.pop(key)
            for key in ("version", "kind", "preprocessing", "classes", "output")
        ),
        lambda found: found.update(version="1"),
        lambda found: found.update(version=99, versions=["later"]),
        lambda found: found.update(classes_dtype="nonsense"),
        lambda found: found.update(classes_dtype="object"),
        lambda found: found.update(kind="wonders"),
        lambda found: found.update(output="scores"),
        lambda found: found.update(classes=["dark"]),
        lambda found: found.update(classes=[["dark", "light"]]),
        lambda found: found["preprocessing"].update(crop_size=[40000, 40000]),
        lambda found: found["preprocessing"].update(resize_size=10**9),
        lambda found: found["preprocessing"].update(crop_size=[33, 32]),
        lambda found: found["preprocessing"].update(interpolation="magic"),
        lambda found: found.update(preprocessing=[]),
        lambda found: found.update(channels={"channels": [4, 3]}),
        lambda found: found.update(channels={"channels": [4, 3, 2], "shape": "x"}),
        lambda found: found.update(channels=[4, 3, 2]),
        lambda found: found["preprocessing"].update(mean=[0.5, 0.5]),
        lambda found: found["preprocessing"].update(std=[0.0, 0.2, 0.2]),
    ],
)
def test_metadata_that_contradict_the_graph_are_refused(path, tmp_path, change):
    with pytest.raises(ModelFileError, match=r"altered\.onnx"):
        load_exported(altered(path, tmp_path, change))
    assert load_exported(altered(path, tmp_path, len)).predict(X).shape == (len(X),)


def test_another_path_is_another_model(path, tmp_path):
    model = load_exported(path)
    before = model.predict(X)
    other = altered(path, tmp_path, lambda found: found.update(classes=["x", "y"]))
    assert set(model.set_params(path=other).predict(X)) <= {"x", "y"}
    np.testing.assert_array_equal(model.set_params(path=path).predict(X), before)
    with pytest.raises(FileNotFoundError, match=r"none\.onnx"):
        model.set_params(path=tmp_path / "none.onnx").predict(X)


def test_files_of_others_are_told_where_they_belong(path, tmp_path):
    save(ImageClassifier(), tmp_path / "some.onnx")
    with pytest.raises(ModelFileError, match="file of save: read it with load"):
        load_exported(tmp_path / "some.onnx")
    with pytest.raises(ModelFileError, match="is for load_exported"):
        load(path)
    with pytest.raises(IsADirectoryError, match="is a folder"):
        load_exported(tmp_path)
    whatever = tmp_path / "graph.pt"
    whatever.write_bytes(path.read_bytes())
    assert load_exported(whatever).predict(X).shape == (len(X),)


def test_a_missing_folder_is_said_before_the_export(monkeypatch):
    def never(*args):
        raise AssertionError("it began to export")

    monkeypatch.setattr("sklearn_dl.persistence._export.graph_of", never)
    for export in (export_onnx, export_pt2):
        with pytest.raises(FileNotFoundError, match="no folder"):
            export(ImageClassifier(), "no/such/folder/model.pt2")
