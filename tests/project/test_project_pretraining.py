"""The script that makes the weights in the package, in a run of a few crops."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torchvision.models import mobilenet_v2

from sklearn_dl.backbones import load_backbone

SCRIPT = Path(__file__).parents[2] / "examples" / "pretrain_builtin.py"
NAME = "mobilenet_v3_small"

pytestmark = pytest.mark.slow


def distil(folder, crops):
    command = [sys.executable, SCRIPT, "--teacher", folder / "teacher.pth"]
    command += ["--out", folder / "run", "--crops", str(crops), "--batch", "32"]
    command += ["--size", "64", "--small", "64", "--drawn", "32", "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    with open(folder / "run" / "log.csv", newline="") as file:
        return done.stdout, list(csv.DictReader(file))


def test_it_learns_goes_on_and_writes_what_loads(tmp_path):
    pytest.importorskip("skimage")
    torch.manual_seed(0)
    torch.save(mobilenet_v2().state_dict(), tmp_path / "teacher.pth")
    _, log = distil(tmp_path, 128)
    assert [int(row["crops"]) for row in log] == [128]
    said, log = distil(tmp_path, 256)
    assert "going on after 128 crops" in said
    assert [int(row["crops"]) for row in log] == [128, 256]
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    steps = {float(s["step"]) for s in state["optimizer"]["state"].values()}
    assert steps == {256 / 32}  # those before the interruption count
    assert 3.0 < float(log[1]["loss"]) < 3.6  # of who knows nothing yet
    said, again = distil(tmp_path, 256)
    assert "all crops are seen" in said
    assert again == log

    file = tmp_path / "run" / f"{NAME}.safetensors"
    state = load_file(file)
    assert state["classifier.0.weight"].dtype == torch.float16
    assert not any(name.startswith("classifier.3.") for name in state)
    backbone = load_backbone(NAME, file)
    assert backbone.preprocessing.crop_size == (64, 64)
    features = backbone.eval()(torch.randn(8, 3, 64, 64))
    assert features.isfinite().all()
    assert features.std(dim=0).mean() > 1e-5
