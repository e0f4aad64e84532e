"""The command line writes a report, and trains with its corrections."""

import csv
import re

import numpy as np
import pandas as pd
import pytest
from commands_cases import command, train_small, write_broken, write_folder

from sklearn_dl import ImageClassifier
from sklearn_dl._commands._corrections import Corrections
from sklearn_dl.datasets import load_image_folder
from sklearn_dl.persistence import save


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def corrections(rows):
    with open("corrections.csv", "w", newline="") as file:
        csv.writer(file).writerows([("path", "old", "new", "action"), *rows])
    return "corrections.csv"


def test_a_report_is_written(model, folder, tmp_path, capsys):
    assert command("report", model, folder, "--images", 4, "--title", "a <title>") == 0
    out, _ = capsys.readouterr()
    assert re.fullmatch(r"written to report\.html \(0\.\d MB\)\n", out)
    page = (tmp_path / "report.html").read_text()
    assert "<title>a &lt;title&gt;</title>" in page
    assert "12 images in 2 classes" in page
    assert str(folder) in page


def test_folds_reference_and_slices_reach_it(model, folder, tmp_path):
    files = sorted(folder.rglob("*.png"))
    frame = pd.DataFrame({"path": files, "target": [f.parent.name for f in files]})
    frame["camera"] = np.arange(12) % 2
    frame.to_csv("table.csv", index=False)
    more = ("--reference", folder, "--slice", "camera", "--out", "page.html")
    assert command("report", model, "table.csv", "--folds", 2, *more) == 0
    page = (tmp_path / "page.html").read_text()
    assert "clones fitted without the image, 2 folds" in page
    assert "Also among the reference images" in page
    assert "<bdi>camera</bdi>" in page


def test_images_that_cannot_be_read_stand_in_the_page(model, tmp_path):
    photos = write_folder(tmp_path / "photos")
    broken = write_broken(photos / "dark" / "broken.png")
    assert command("report", model, photos) == 0
    page = (tmp_path / "report.html").read_text()
    assert str(broken) in page
    assert "12 images in 2 classes" in page


def test_training_takes_corrections(tmp_path, capsys):
    photos = write_folder(tmp_path / "photos" / "train")
    other = write_folder(tmp_path / "photos" / "val", 3)
    rows = [
        (photos / "dark" / "0.png", "dark", "light", "relabel"),
        (photos / "dark" / "1.png", "dark", "", "drop"),
        (other / "light" / "2.png", "light", "", "drop"),
        (photos / "gone.png", "dark", "", "drop"),
    ]
    file = corrections(rows)
    assert train_small("photos", "--corrections", file, "--out", "m") == 0
    out, err = capsys.readouterr()
    assert "corrections.csv: 1 relabelled, 2 dropped, 0 kept" in out
    assert "11 images to learn from in 2 classes (dark 4, light 7), 5 held out" in out
    assert f"corrections.csv: {str(photos / 'gone.png')!r}: not in the data" in err
    assert "2.png" not in err
    assert command("report", "m", photos, "--corrections", file) == 0
    assert "11 images in 2 classes" in (tmp_path / "report.html").read_text()


def test_a_class_that_no_image_had_is_said(folder, capsys):
    file = sorted(folder.rglob("*.png"))[0]
    rows = [(file, file.parent.name, "ligth", "relabel")]
    made = Corrections(corrections(rows))
    made(load_image_folder(folder))
    made.describe()
    assert "to a class that no image had" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{model}", "nowhere"], "No such file: 'nowhere'"),
        (["{graph}", "{folder}"], "is exported; the report needs what train saved"),
        (
            ["{model}", "{folder}", "--slice", "camera"],
            "a folder, which has no columns",
        ),
        (["{model}", "{folder}", "--out", "{folder}"], "is a folder"),
        (["{model}", "{folder}", "--images", "0"], "'n_images' parameter"),
        (["{model}", "{folder}", "--corrections", "no.csv"], "No such file: 'no.csv'"),
    ],
)
def test_wrong_input_is_said_in_one_line(arguments, message, model, folder, capsys):
    places = {"model": model, "graph": "m.onnx", "folder": folder}
    if "{graph}" in arguments:
        with open("m.onnx", "wb") as file:
            file.write(b"x")
    arguments = [argument.format(**places) for argument in arguments]
    assert command("report", *arguments) == 2
    _, err = capsys.readouterr()
    assert message in err
    assert err.count("\n") == 1


def test_labels_are_named_by_their_columns(folder, tmp_path):
    files = sorted(folder.rglob("*.png"))
    frame = pd.DataFrame({"path": files, "cat": [0, 1] * 6, "dog": [0] * 6 + [1] * 6})
    frame.to_csv("table.csv", index=False)
    names = ["cat", "dog"]
    classifier = ImageClassifier(
        "mobilenet_v3_small", weights=None, image_size=32, max_epochs=1
    )
    classifier.fit(frame["path"], frame[names].to_numpy())
    save(classifier, "labels.model")
    given = ("labels.model", "table.csv", "--target", "cat", "--target", "dog")
    assert command("report", *given) == 0
    page = (tmp_path / "report.html").read_text()
    assert '<th scope="row"><bdi>dog</bdi></th>' in page
