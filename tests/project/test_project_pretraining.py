"""The script that makes the weights in the package, in a run of a few crops."""

import csv
import io
import runpy
import subprocess
import sys
from contextlib import redirect_stderr
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torchvision.models import mobilenet_v2

from sklearn_dl.backbones import load_backbone

SCRIPT = Path(__file__).parents[2] / "tools" / "builtin_weights" / "pretrain.py"
NAME = "mobilenet_v3_small"


@pytest.fixture
def beside(monkeypatch):
    """Let imports find what lies beside the script, as when it runs by itself."""
    monkeypatch.syspath_prepend(SCRIPT.parent)


def distil(folder, crops):
    command = [sys.executable, SCRIPT, "--teacher", folder / "teacher.pth"]
    command += ["--out", folder / "run", "--crops", str(crops), "--batch", "32"]
    command += ["--size", "64", "--small", "64", "--drawn", "32", "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    with open(folder / "run" / "log.csv", newline="") as file:
        return done.stdout, list(csv.DictReader(file))


@pytest.mark.slow
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch", "4"], "--batch must be 16 or more"),
        (["--decay", "0"], "--decay must lie between 0 and 1"),
        (["--crops", "5"], "--crops must be a batch or more"),
        (["--student", "resnet18"], "invalid choice: 'resnet18'"),
        (["--teacher", "nowhere.pth"], "there is no file nowhere.pth"),
    ],
)
def test_options_that_cannot_be_are_refused(
    options, message, tmp_path, monkeypatch, beside
):
    arguments = [str(SCRIPT), "--out", str(tmp_path / "run"), *options]
    monkeypatch.setattr(sys, "argv", arguments)
    said = io.StringIO()
    with redirect_stderr(said), pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert stopped.value.code == 2
    assert message in said.getvalue()
    assert not (tmp_path / "run").exists()


def test_a_teacher_that_is_none_is_named(tmp_path, monkeypatch, beside):
    wrong = tmp_path / "notes.txt"
    wrong.write_text("no tensors")
    arguments = [str(SCRIPT), "--out", str(tmp_path / "run"), "--teacher", str(wrong)]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(
        SystemExit, match=r"notes\.txt can't be had; it must be a state"
    ):
        runpy.run_path(str(SCRIPT), run_name="__main__")


def test_crops_are_drawn_alike_from_a_seed_and_mixed_by_turns(beside):
    from crops import Crops

    photo = torch.randint(0, 256, (3, 120, 160), dtype=torch.uint8)

    def batches():
        generator = torch.Generator().manual_seed(0)
        crops = Crops([(photo, 1.0)], generator, 48, 32)
        return [crops.batch(32, 32) for _ in range(3)]

    found = batches()
    assert all(torch.equal(a, b) for a, b in zip(found, batches(), strict=True))
    for images in found:
        assert images.shape == (32, 3, 32, 32)
        assert images.min() >= 0
        assert images.max() <= 1
        assert (images.flatten(1).std(dim=1) > 0).all()
