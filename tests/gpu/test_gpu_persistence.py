"""Models of a CUDA device, saved and loaded where there is none."""

import os
import subprocess
import sys

import numpy as np
import pytest
from gpu_cases import NEEDS_CUDA

from sklearn_dl import ImageClassifier
from sklearn_dl.persistence import export_onnx, load, load_exported, save

pytestmark = NEEDS_CUDA
IMAGES = np.random.default_rng(0).integers(0, 256, (24, 64, 64, 3), "uint8")


@pytest.fixture(scope="module", params=["head", "all"])
def model(request):
    return ImageClassifier(
        "resnet18",
        weights=None,
        trainable=request.param,
        image_size=(64, 64),
        max_epochs=2,
        device="cuda",
        random_state=0,
    ).fit(IMAGES, np.arange(24) % 3)


def test_it_loads_on_the_device_and_predicts_the_same(model, tmp_path):
    save(model, tmp_path / "some.model")
    again = load(tmp_path / "some.model")
    tensors = [*again.module_.state_dict().values()]
    assert {tensor.device.type for tensor in tensors} == {"cuda"}
    np.testing.assert_allclose(
        again.predict_proba(IMAGES), model.predict_proba(IMAGES), atol=1e-4
    )


def test_it_loads_where_there_is_no_gpu(model, tmp_path):
    save(model, tmp_path / "some.model")
    np.save(tmp_path / "images.npy", IMAGES)
    code = (
        "import sys, warnings, numpy as np, torch\n"
        "assert not torch.cuda.is_available()\n"
        "from sklearn_dl.persistence import load\n"
        "warnings.simplefilter('ignore')\n"
        "model = load('some.model')\n"
        "np.save('found.npy', model.predict_proba(np.load('images.npy')))\n"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        check=True,
    )
    found = np.load(tmp_path / "found.npy")
    np.testing.assert_allclose(found, model.predict_proba(IMAGES), atol=2e-3)


def test_its_graph_predicts_the_same(model, tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    export_onnx(model, tmp_path / "some.onnx")
    found = load_exported(tmp_path / "some.onnx").predict_proba(IMAGES)
    np.testing.assert_allclose(found, model.predict_proba(IMAGES), atol=2e-3)
