"""The course on a small folder: what it writes, and that tests choose nothing."""

import re
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sklearn_dl.datasets import load_image_folder
from sklearn_dl.model_selection import Experiments
from sklearn_dl.persistence import load, load_exported

EXAMPLES = Path(__file__).parents[2] / "examples"
N_TRAIN, N_TEST = 24, 10
STEPS = [
    *("raw pixels", "features + SVM", "trained head", "regularised head"),
    *("augmented", "tuned head", "soft vote"),
]
PICTURES = {
    *("history.png", "top_losses.png", "confused.png", "saliency.png", "features.png"),
    *("robustness.png", "augmentations.png", "robustness_after.png"),
    *("diversity.png", "experiments.png"),
}


@pytest.fixture
def photos(tmp_path):
    """Return a folder of two kinds of stripes, split in two; a few are mislabelled."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    for part, n in (("train", N_TRAIN), ("val", N_TEST)):
        for kind, name in enumerate(("across", "down")):
            (folder / part / name).mkdir(parents=True)
            for i in range(n // 2):
                pixels = rng.integers(0, 90, (40, 40, 3), "uint8")
                pixels[:, ::8] += 150
                wrong = i == 0
                image = Image.fromarray(pixels).rotate(90 * (kind ^ wrong))
                image.save(folder / part / name / f"{i}.png")
    return folder


@pytest.fixture
def walk(monkeypatch, capsys):
    """Return a function that goes through the course and returns what it prints."""
    mpl = pytest.importorskip("matplotlib")
    mpl.use("Agg")

    def walk(folder, output, *arguments):
        command = ["course.py", "--data", folder, "--output", output, "--quick"]
        command += ["--image-size", 32, *arguments]
        monkeypatch.setattr(sys, "argv", [str(argument) for argument in command])
        monkeypatch.syspath_prepend(EXAMPLES)
        runpy.run_path(str(EXAMPLES / "course.py"), run_name="__main__")
        return capsys.readouterr().out

    return walk


@pytest.fixture
def without_onnx(monkeypatch):
    """Hide ONNX."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, package, None)


def scores(output, metric):
    """Return names and scores of a metric from the file that the course left."""
    table = Experiments(output / "experiments.jsonl").table
    table = table[table["metric"] == metric]
    return dict(zip(table["name"], table["score"], strict=True))


def test_the_course_from_start_to_end(walk, photos, tmp_path, without_onnx):
    output = tmp_path / "course"
    printed = walk(photos, output)
    assert f"photos: {N_TRAIN} images to learn from, {N_TEST} for the last" in printed
    assert {path.name for path in output.glob("*.png")} == PICTURES
    for name in PICTURES:
        with Image.open(output / name) as picture:
            assert min(picture.size) > 150
            assert len(np.unique(np.asarray(picture.convert("L")))) > 5
    assert "\nNew weaknesses: " in printed
    assert printed.count("\n== ") == len(re.findall(r"^\(\d+\.\d s\)$", printed, re.M))

    folds = scores(output, "accuracy, folds")
    assert list(folds) == STEPS
    assert len(scores(output, "accuracy, folds of the search")) == 6
    assert list(scores(output, "accuracy, corrupted images")) == [
        "trained head",
        "augmented",
    ]
    tested = scores(output, "accuracy, test images")
    assert list(tested) == STEPS
    last = re.search(r"which chose nothing.*One image", printed, re.S)[0]
    rows = re.findall(r"^ *(\S.*?) +(\d\.\d{3}) +(\d\.\d{3}) *(\*?) *$", last, re.M)
    assert [row[:3] for row in rows] == [
        (name, f"{folds[name]:.3f}", f"{tested[name]:.3f}") for name in STEPS
    ]
    ours = {name: score for name, score in folds.items() if name != "raw pixels"}
    chosen = max(ours, key=ours.get)
    assert [row[0] for row in rows if row[3]] == [chosen]

    val = load_image_folder(photos / "val")
    model = load(output / "final.model")
    assert model.score(val.data, val.target) == tested[chosen]
    assert "final.model" in printed
    assert "loaded: equal to the last bit." in printed
    assert "pip install 'sklearn_dl[export]'" in printed
    assert not (output / "final.onnx").exists()


@pytest.mark.slow
def test_the_test_images_choose_nothing(walk, photos, tmp_path):
    first = walk(photos, tmp_path / "first")
    other = tmp_path / "other" / "photos"
    shutil.copytree(photos / "train", other / "train")
    shutil.copytree(photos / "val" / "across", other / "val" / "down")
    shutil.copytree(photos / "val" / "down", other / "val" / "across")
    second = walk(other, tmp_path / "second")
    for metric in ("folds", "folds of the search", "corrupted images"):
        expected = scores(tmp_path / "first", f"accuracy, {metric}")
        assert scores(tmp_path / "second", f"accuracy, {metric}") == expected
        assert expected
    expected = scores(tmp_path / "first", "accuracy, test images")
    swapped = scores(tmp_path / "second", "accuracy, test images")
    assert swapped == pytest.approx({name: 1 - s for name, s in expected.items()})
    assert any(score != 0.5 for score in expected.values())
    chosen = r"^Chosen by the folds: .*$"
    assert re.findall(chosen, first, re.M) == re.findall(chosen, second, re.M) != []

    pytest.importorskip("onnxscript")
    assert "100.0% equal, probabilities within" in first
    val = load_image_folder(photos / "val")
    graph = load_exported(tmp_path / "first" / "final.onnx")
    name = re.search(r"^A graph is of one network: '(.*?)'", first, re.M)
    name = name or re.search(r"^Chosen by the folds: '(.*?)'", first, re.M)
    assert graph.score(val.data, val.target) == expected[name[1]]


def test_the_course_says_what_it_cannot_do(walk, photos, tmp_path, capsys):
    output = tmp_path / "course"
    for path in sorted((photos / "train" / "down").iterdir())[:4]:
        path.unlink()
    with pytest.raises(SystemExit, match=r"class 'down' has 8 images .* at least 10"):
        walk(photos, output)
    assert not output.exists()
    output.mkdir()
    (output / "experiments.jsonl").write_text("")
    with pytest.raises(SystemExit):
        walk(photos, output)
    assert "holds an earlier run; give another one" in capsys.readouterr().err
    assert [path.name for path in output.iterdir()] == ["experiments.jsonl"]
