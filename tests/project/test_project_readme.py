"""The quickstart of README: on folders, without a network, and what it refuses."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "examples" / "quickstart.py"
NOWHERE = {"HTTPS_PROXY": "http://127.0.0.1:9"}


@pytest.mark.parametrize(
    ("arguments", "said", "rows"),
    [
        ([], "Weights: builtin of mobilenet_v3_small", ["random weights + SVM"]),
        (["--weights", "none", "--backbone", "squeezenet1_1"], "Weights: random", []),
        (
            ["--backbone", "squeezenet1_1"],
            "Weights: builtin, those in the package",
            ["random weights + SVM"],
        ),
    ],
)
def test_the_quickstart_runs_on_a_folder_without_a_network(
    machine, arguments, said, rows
):
    output = machine / "predictions.png"
    command = [QUICKSTART, "--data", machine / "photos", "--image-size", "48"]
    result = subprocess.run(
        [sys.executable, *command, "--output", output, *arguments],
        env=os.environ | NOWHERE | {"TORCH_HOME": str(machine / "none")},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert said in result.stdout
    for row in ("raw pixels", *rows, "features + SVM", "trained head"):
        assert re.search(rf"^{re.escape(row)} +[01]\.\d{{3}} ", result.stdout, re.M)
    with Image.open(output) as picture:
        assert min(picture.size) > 500


def test_the_quickstart_beats_raw_pixels_by_ten_points_without_a_network(tmp_path):
    pytest.importorskip("skimage")
    result = subprocess.run(
        [sys.executable, QUICKSTART],
        cwd=tmp_path,
        env=os.environ | NOWHERE | {"TORCH_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    rows = dict(re.findall(r"^(\w[\w +]+?)  +([01]\.\d{3}) ", result.stdout, re.M))
    ours = [float(rows[name]) for name in ("features + SVM", "trained head")]
    assert min(ours) >= float(rows["raw pixels"]) + 0.1
    assert max(ours) >= float(rows["random weights + SVM"]) + 0.1
    assert re.search("not learned from .*: raw pixels 0.* 0", result.stdout)
    assert re.search("digits, .*: raw pixels 0.*SVM 0", result.stdout)
    with Image.open(tmp_path / "predictions.png") as picture:
        assert min(picture.size) > 1000


def test_the_quickstart_learns_from_other_pixels_than_it_tests_on():
    cut_patches = runpy.run_path(str(QUICKSTART))["cut_patches"]
    rows, columns = np.mgrid[:200, :300]
    photo = np.dstack([rows, columns // 256, columns % 256]).astype("uint8")
    X_train, X_test, y_train, y_test = cut_patches({"a": photo, "b": photo})
    found = []
    for X, y in ((X_train, y_train), (X_test, y_test)):
        assert len(X) == len(y)
        assert list(np.unique(y)) == ["a", "b"]
        found.append(
            np.unique(np.concatenate([patch[0] for patch in X])[:, 1:], axis=0)
        )
    last, first = found[0][-1] @ [256, 1], found[1][0] @ [256, 1]
    assert first - last >= 12


def test_the_quickstart_says_where_its_photographs_are(monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.setitem(sys.modules, "skimage", None)
    monkeypatch.setattr(sys, "argv", ["quickstart.py"])
    with pytest.raises(SystemExit):
        runpy.run_path(str(QUICKSTART), run_name="__main__")
    assert "pip install 'sklearn_dl[examples]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "gone.pth"], "gone.pth"),
        (["--data", "photos/ants"], "photos/ants"),
        (["--data", "few"], "class 'a' of few has 1 images"),
        (["--output", "no/such/folder.png"], "no folder no/such"),
        (
            ["--backbone", "inception_v3", "--weights", "none", "--image-size", "64"],
            "does not take images of 64 x 64",
        ),
    ],
)
def test_the_quickstart_says_in_a_line_what_it_cannot_do(
    machine, arguments, message, monkeypatch, capsys
):
    for name in "ab":
        (machine / "few" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(machine / "few" / name / "1.png")
    monkeypatch.chdir(machine)
    monkeypatch.setattr(sys, "argv", ["quickstart.py", *arguments])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(QUICKSTART), run_name="__main__")
    assert stop.value.code
    said = stop.value.code if isinstance(stop.value.code, str) else ""
    assert re.search(message, (said or capsys.readouterr().err).splitlines()[-1])
