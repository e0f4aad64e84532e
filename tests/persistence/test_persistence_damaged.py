"""Damaged files of models are read equal, or refused with their name."""

import zipfile
from functools import partial

import numpy as np
import pytest
from damage import damaged, refusals
from persistence_cases import X, Y, classifier, rewritten

from sklearn_dl import ImageFeatureExtractor
from sklearn_dl.persistence import (
    export_onnx,
    export_state_dict,
    load,
    load_exported,
    save,
)

NAME = "manifest.json"
N = [12, pytest.param(200, marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def model():
    return classifier(layer="features.2").fit(X, Y)


@pytest.mark.parametrize("n", N)
def test_a_damaged_model_is_equal_or_refused(tmp_path, model, n):
    path = tmp_path / "some.model"
    save(model, path)
    wanted, copies = model.predict_proba(X), damaged(path.read_bytes(), n)

    def read(file):
        return load(file).predict_proba(X)

    same = partial(np.array_equal, wanted)
    assert refusals(path, copies, read, same) > n / 2


@pytest.mark.parametrize("n", N)
def test_a_damaged_graph_is_refused(tmp_path, model, n):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    path = tmp_path / "some.onnx"
    export_onnx(model, path)
    whole = path.read_bytes()
    changed = [data for data in damaged(whole, n) if data != whole]
    assert refusals(path, changed, load_exported) == len(changed) > n / 2


# What has no digest can't tell a changed number from a number: it needn't be equal.


@pytest.mark.parametrize("n", N)
def test_damaged_safetensors_are_read_or_refused_by_name(tmp_path, model, n):
    path = tmp_path / "some.safetensors"
    export_state_dict(model, path)
    whole = path.read_bytes()
    head = 8 + int.from_bytes(whole[:8], "little")  # names, shapes, preprocessing
    copies = [part + whole[head:] for part in damaged(whole[:head], n)]

    def read(file):
        features = ImageFeatureExtractor("squeezenet1_1", weights=file, cache=None)
        features.set_params(layer="features.2", image_size=32).fit(X).transform(X)

    assert refusals(path, copies, read) > n / 2


@pytest.mark.parametrize("n", N)
def test_damaged_manifests_are_read_or_refused_by_name(tmp_path, model, n):
    path = tmp_path / "some.model"
    save(model, path)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        manifest = archive.read(NAME)

    def copies():
        for text in damaged(manifest, n):
            path.write_bytes(whole)
            rewritten(path, lambda members, text=text: members.update({NAME: text}))
            yield path.read_bytes()

    def read(file):
        load(file).predict_proba(X)

    assert refusals(path, copies(), read) > n / 2
