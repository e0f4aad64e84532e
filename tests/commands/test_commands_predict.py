import contextlib
import csv
import io
import json
import os
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from commands_cases import (
    DARK,
    LIGHT,
    command,
    small_classifier,
    write_broken,
    write_folder,
)
from sklearn.ensemble import VotingClassifier
from sklearn.svm import LinearSVC

from sklearn_dl import ImageFeatureExtractor, ImageRegressor, make_feature_classifier
from sklearn_dl.datasets import Channels
from sklearn_dl.persistence import export_onnx, save

ALL = np.concatenate([DARK, LIGHT])
Y = np.repeat(["dark", "light"], 6)


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def lines_of(text):
    return [json.loads(line) for line in text.splitlines()]


def test_rows_are_what_the_model_says_in_the_order_of_paths(
    model, classifier, folder, capsys
):
    assert command("predict", model, folder) == 0
    out, err = capsys.readouterr()
    rows = rows_of(out)
    assert err == ""
    assert list(rows[0]) == [
        *("path", "prediction", "probability_dark", "probability_light", "error")
    ]
    paths = [str(folder / c / f"{k}.png") for c in ("dark", "light") for k in range(6)]
    assert [row["path"] for row in rows] == paths
    wanted = classifier.predict_proba(ALL)
    got = [[float(row[f"probability_{c}"]) for c in ("dark", "light")] for row in rows]
    np.testing.assert_allclose(got, wanted, rtol=1e-5)
    assert [row["prediction"] for row in rows] == [*classifier.predict(ALL)]
    assert {row["error"] for row in rows} == {""}


def test_json_has_one_object_a_line(model, classifier, folder, capsys):
    paths = sorted((folder / "light").iterdir())[:3]
    assert command("predict", model, *paths, "--format", "json") == 0
    lines = lines_of(capsys.readouterr().out)
    wanted = classifier.predict_proba(LIGHT[:3])
    for line, path, values in zip(lines, paths, wanted, strict=True):
        assert [*line] == [
            *("path", "prediction", "probability_dark", "probability_light", "error")
        ]
        assert (line["path"], line["error"]) == (str(path), None)
        got = [line["probability_dark"], line["probability_light"]]
        np.testing.assert_allclose(got, values, rtol=1e-5)


def test_an_image_named_on_stdin_is_not_written_over(
    model, folder, capsys, monkeypatch
):
    image = folder / "light" / "0.png"
    before = image.read_bytes()
    monkeypatch.setattr(
        "sys.stdin", io.TextIOWrapper(io.BytesIO(f"{image}\n".encode()))
    )
    assert command("predict", model, "-", "--output", image) == 2
    assert "is also read" in capsys.readouterr().err
    assert image.read_bytes() == before


def test_top_names_the_most_probable_classes_first(model, folder, capsys):
    image = folder / "light" / "0.png"
    assert command("predict", model, image, "--top", 9) == 0
    row = rows_of(capsys.readouterr().out)[0]
    assert [k for k in row if k.startswith(("class", "probability"))] == [
        *("class_1", "probability_1", "class_2", "probability_2")
    ]
    assert row["class_1"] == row["prediction"]
    assert float(row["probability_1"]) > 0.5 > float(row["probability_2"])
    command("predict", model, image, "--top", 1, "--format", "json")
    (line,) = lines_of(capsys.readouterr().out)
    assert line["class_1"] == row["class_1"]
    assert line["probability_1"] == pytest.approx(float(row["probability_1"]), abs=1e-6)
    assert "class_2" not in line


def test_an_exported_graph_gives_the_same_rows(model, graph, folder, capsys):
    command("predict", model, folder)
    saved = rows_of(capsys.readouterr().out)
    assert command("predict", graph, folder, "--batch-size", 5) == 0
    exported = rows_of(capsys.readouterr().out)
    assert len(exported) == len(saved) == 12
    for one, other in zip(saved, exported, strict=True):
        assert one["path"] == other["path"]
        assert one["prediction"] == other["prediction"]
        assert abs(
            float(one["probability_dark"]) - float(other["probability_dark"])
        ) < (1e-4)


@pytest.mark.parametrize("file", ["model", "graph"])
def test_broken_images_have_their_error_and_the_others_go_on(
    file, request, tmp_path, capsys
):
    images = write_folder(tmp_path / "images", n=3)
    broken = write_broken(images / "dark" / "1a.png")
    (images / "light" / "empty.jpg").touch()
    gone = images / "gone.png"
    path = request.getfixturevalue(file)
    # Batches of 1: a chunk has several, and the broken ones lie in different ones.
    code = command("predict", path, images, gone, "--batch-size", 1)
    out, err = capsys.readouterr()
    rows = rows_of(out)
    errors = {row["path"]: row["error"] for row in rows if row["error"]}
    assert code == 1
    assert len(rows) == 9
    assert errors.keys() == {*map(str, (broken, images / "light" / "empty.jpg", gone))}
    assert errors[str(gone)] == "no such file"
    assert "empty" in errors[str(images / "light" / "empty.jpg")]
    assert all(bool(row["prediction"]) != bool(row["error"]) for row in rows)
    assert err == "predict: 3 of 9 images could not be read; their rows say why.\n"
    by_class = {row["path"]: row["prediction"] for row in rows if not row["error"]}
    command("predict", path, *by_class)
    alone = {row["path"]: row["prediction"] for row in rows_of(capsys.readouterr().out)}
    assert by_class == alone


def test_errors_found_one_after_the_other_are_those_of_their_rows(
    graph, folder, capsys
):
    good = folder / "dark" / "0.png"
    # One chunk of four batches: each round finds the next of them.
    assert command("predict", graph, good, "g1", good, "g2", "--batch-size", 1) == 1
    rows = rows_of(capsys.readouterr().out)
    assert [row["path"] for row in rows if row["error"]] == ["g1", "g2"]
    assert rows[0]["prediction"] == rows[2]["prediction"] != ""


def test_only_broken_images_are_rows_too(model, tmp_path, capsys):
    assert command("predict", model, tmp_path / "a.png", "--format", "json") == 1
    (line,) = lines_of(capsys.readouterr().out)
    assert line["path"] == str(tmp_path / "a.png")
    assert line["error"] == "no such file"
    assert line["prediction"] is line["probability_dark"] is None


def test_strict_stops_and_writes_no_file(model, folder, tmp_path, capsys):
    output = tmp_path / "rows.csv"
    output.write_text("before")
    arguments = (folder, tmp_path / "gone.png", "--output", output)
    assert command("predict", model, *arguments, "--strict") == 2
    assert "gone.png': no such file" in capsys.readouterr().err
    assert output.read_text() == "before"
    assert os.listdir(tmp_path) == ["rows.csv"]
    assert command("predict", model, *arguments) == 1
    assert len(rows_of(output.read_text())) == 13
    assert os.listdir(tmp_path) == ["rows.csv"]
    assert capsys.readouterr().out == ""
    assert command("predict", model, *arguments[:2], "--strict") == 2
    assert capsys.readouterr().out == ""


def test_paths_come_from_folders_patterns_and_stdin(
    model, folder, tmp_path, capsys, monkeypatch
):
    odd = tmp_path / "odd, näme [1].png"
    odd.write_bytes((folder / "dark" / "0.png").read_bytes())
    stdin = f"{folder}/dark/3.png\r\n\n{odd}\n".encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
    pattern = f"{folder}/**/[01].png"
    assert command("predict", model, pattern, "-", f"{folder}/li*", odd) == 0
    paths = [row["path"] for row in rows_of(capsys.readouterr().out)]
    assert paths == [
        *(f"{folder}/{name}/{k}.png" for name in ("dark", "light") for k in (0, 1)),
        *(f"{folder}/dark/3.png", str(odd)),
        *(f"{folder}/light/{k}.png" for k in range(6)),
        str(odd),
    ]


@pytest.mark.parametrize("name", ["new [1]", "[ab]", "new*", "?"])
def test_a_pattern_below_a_folder_of_any_name_matches(
    name, model, folder, tmp_path, capsys
):
    below = tmp_path / name / "x"
    below.mkdir(parents=True)
    for file in ("1.png", "2.png", "[3].png"):
        (below / file).write_bytes((folder / "dark" / "0.png").read_bytes())
    for pattern, files in (("*/[12].png", "12"), ("**/*.png", ["1", "2", "[3]"])):
        assert command("predict", model, tmp_path / name / pattern) == 0
        paths = [row["path"] for row in rows_of(capsys.readouterr().out)]
        assert paths == [str(below / f"{file}.png") for file in files]


def test_a_file_that_is_not_there_has_a_row_whatever_its_name(
    model, folder, tmp_path, capsys
):
    (tmp_path / "new [1]").mkdir()
    good = folder / "dark" / "0.png"
    gone = [tmp_path / "gone [1].png", tmp_path / "new [1]" / "[2].png", "no/[3].png"]
    assert command("predict", model, *gone, good) == 1
    out, err = capsys.readouterr()
    errors = {row["path"]: row["error"] for row in rows_of(out)}
    assert errors == {**dict.fromkeys(map(str, gone), "no such file"), str(good): ""}
    assert err.startswith("predict: 3 of 4 images could not be read")


def test_without_an_image_there_is_a_table_of_no_rows(model, monkeypatch, capfdbinary):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert command("predict", model, "-") == 0
    header = b"path,prediction,probability_dark,probability_light,error\n"
    assert capfdbinary.readouterr().out == header


def test_a_stdout_without_bytes_gets_text(model, folder):
    with contextlib.redirect_stdout(io.StringIO()) as text:
        assert command("predict", model, folder / "dark", "--quiet") == 0
    assert text.getvalue().startswith("path,prediction,")
    assert len(text.getvalue().splitlines()) == 7


@pytest.mark.parametrize("form", ["csv", "json"])
def test_classes_that_are_no_unicode_are_named(form, folder, tmp_path):
    model = small_classifier()
    model.classes_ = model._targets.classes = np.array(["caf\udce9", "light"])
    save(model, tmp_path / "model")
    out = tmp_path / "rows"
    dark = folder / "dark" / "0.png"
    given = ("predict", tmp_path / "model", dark, "--format", form, "--output", out)
    assert command(*given) == 0
    escaped = rb"probability_caf\xe9"
    if form == "json":
        escaped = escaped.replace(b"\\", rb"\\")
    assert escaped in out.read_bytes()


def test_names_that_are_no_unicode_come_out_as_they_are(model, folder, tmp_path):
    odd = os.fsencode(tmp_path) + b'/b\xff, "a".png'
    with open(odd, "wb") as file:
        file.write((folder / "dark" / "0.png").read_bytes())
    output = tmp_path / "rows"
    assert command("predict", model, os.fsdecode(odd), "--output", output) == 0
    assert os.fsencode(tmp_path) + b'/b\xff, ""a"".png"' in output.read_bytes()
    arguments = ("--output", output, "--format", "json")
    assert command("predict", model, os.fsdecode(odd), *arguments) == 0
    path = json.loads(output.read_text())["path"]  # which is Unicode
    assert path == f'{tmp_path}/b\\xff, "a".png'


def test_images_are_looked_at_in_parts(model, folder, monkeypatch, capsys):
    from sklearn_dl import ImageClassifier

    seen = []
    predict_proba = ImageClassifier.predict_proba

    def counted(self, X):
        seen.append(len(X))
        return predict_proba(self, X)

    monkeypatch.setattr(ImageClassifier, "predict_proba", counted)
    command("predict", model, folder, "--batch-size", 1)
    assert seen == [1, 4, 4, 4]  # the first is for the columns
    assert len(rows_of(capsys.readouterr().out)) == 12


def test_scores_stand_where_there_are_no_probabilities(folder, tmp_path, capsys):
    pipeline = make_feature_classifier(
        backbone="squeezenet1_1", weights=None, image_size=32, random_state=0
    )
    hinge = small_classifier(loss="hinge")
    for model in (pipeline.fit(ALL, Y), hinge):
        save(model, tmp_path / "m")
        assert command("predict", tmp_path / "m", folder) == 0
        rows = rows_of(capsys.readouterr().out)
        assert list(rows[0]) == ["path", "prediction", "score_light", "error"]
        assert [row["prediction"] for row in rows] == [*model.predict(ALL)]
        got = [float(row["score_light"]) for row in rows]
        np.testing.assert_allclose(got, model.decision_function(ALL), rtol=1e-4)
    assert command("predict", tmp_path / "m", folder, "--top", 1) == 2
    assert "gives no probabilities" in capsys.readouterr().err


def test_an_ensemble_predicts_by_its_vote(classifier, folder, tmp_path, capsys):
    members = [("a", small_classifier()), ("b", small_classifier(random_state=1))]
    vote = VotingClassifier(members, voting="soft").fit(ALL, Y.astype(object))
    save(vote, tmp_path / "m")
    assert command("predict", tmp_path / "m", folder) == 0
    rows = rows_of(capsys.readouterr().out)
    got = [float(row["probability_dark"]) for row in rows]
    np.testing.assert_allclose(got, vote.predict_proba(ALL)[:, 0], rtol=1e-5)
    assert [row["prediction"] for row in rows] == [*vote.predict(ALL)]


def test_several_labels_and_several_targets(folder, tmp_path, capsys):
    small = {"weights": None, "image_size": 32, "random_state": 0, "max_epochs": 1}
    labels = small_classifier().set_params(max_epochs=1)
    labels.fit(ALL, np.array([[1, 0, 1], [0, 1, 1]] * 6))
    numbers = ImageRegressor("squeezenet1_1", **small)
    numbers.fit(ALL, np.arange(24.0).reshape(12, 2))
    save(labels, tmp_path / "labels")
    save(numbers, tmp_path / "numbers")
    image = folder / "dark" / "0.png"
    command("predict", tmp_path / "labels", image)
    (row,) = rows_of(capsys.readouterr().out)
    wanted = np.flatnonzero(labels.predict(DARK[:1])[0])
    assert row["prediction"] == ";".join(map(str, wanted))
    assert {"probability_0", "probability_1", "probability_2"} <= row.keys()
    command("predict", tmp_path / "labels", image, "--format", "json")
    (line,) = lines_of(capsys.readouterr().out)
    assert line["prediction"] == [*wanted]
    command("predict", tmp_path / "labels", image, "--top", 1)
    (best,) = rows_of(capsys.readouterr().out)
    assert best["prediction"] == row["prediction"]
    assert best["probability_1"] == max(
        (row[f"probability_{k}"] for k in range(3)), key=float
    )
    command("predict", tmp_path / "numbers", image)
    (row,) = rows_of(capsys.readouterr().out)
    assert list(row) == ["path", "prediction_1", "prediction_2", "error"]
    got = [float(row["prediction_1"]), float(row["prediction_2"])]
    np.testing.assert_allclose(got, numbers.predict(DARK[:1])[0], atol=1e-3)  # of 23


def test_device_and_batch_size_reach_the_members(tmp_path, folder, capsys, monkeypatch):
    from sklearn_dl._commands._answers import image_estimators, open_model

    vote = VotingClassifier([("a", small_classifier())], voting="soft").fit(ALL, Y)
    save(vote.set_params(a__device="auto"), tmp_path / "m")
    model = open_model(str(tmp_path / "m"), "cpu", 7)
    own = image_estimators(model)
    assert {(e.device, e.batch_size, e.verbose) for e in own} == {("cpu", 7, 0)}
    assert model.estimators_[0] in own
    code = command("predict", tmp_path / "m", folder, "--device", "abacus")
    assert code == 2
    assert "'abacus' is not a device of torch" in capsys.readouterr().err
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert command("predict", tmp_path / "m", folder, "--device", "cuda") == 2
    assert "device='cuda' is not available" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (LinearSVC(), "not fitted"),
        (ImageFeatureExtractor(weights=None), "doesn't predict"),
    ],
    ids=["unfitted", "extractor"],
)
def test_models_that_cannot_answer_are_said_in_one_line(
    estimator, message, folder, tmp_path, capsys
):
    save(estimator, tmp_path / "m")
    assert command("predict", tmp_path / "m", folder) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}/no.model", "a.png"], "There is no file"),
        (["{tmp}", "a.png"], "is a folder, not the file"),
        (["{tmp}/text.model", "a.png"], "is no model of sklearn_dl"),
        pytest.param(
            *(["{tmp}/text.onnx", "a.png"], "is no file of export_onnx"),
            marks=pytest.mark.skipif(
                find_spec("onnxruntime") is None, reason="needs onnxruntime"
            ),
        ),
        (["{model}", "{tmp}/none*.png"], "No image matches"),
        (["{model}", "{tmp}/empty"], "There is no image in the folder"),
        (["{model}", "a.png", "--top", "0"], "whole number of 1 or more"),
        (["{model}", "a.png", "--format", "xml"], "--format"),
        (["{model}", "a.png", "--output", "{tmp}/no/rows.csv"], "There is no folder"),
        (["{model}", "a.png", "--output", "{tmp}"], "give the path of a file"),
        (["{model}", "a.png", "--output", "{model}"], "is also read"),
        (["{model}", "{image}", "--output", "{image}"], "is also read"),
        (["{model}", "a.png", "--output", "{tmp}/pipe"], "is a device"),
    ],
)
def test_wrong_input_is_said_in_one_line(
    arguments, message, model, folder, tmp_path, capsys
):
    (tmp_path / "text.model").write_text("no model")
    (tmp_path / "text.onnx").write_text("no graph")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    image = folder / "dark" / "0.png"
    before = image.read_bytes(), model.read_bytes()
    given = [a.format(tmp=tmp_path, model=model, image=image) for a in arguments]
    assert command("predict", *given) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1
    assert (image.read_bytes(), model.read_bytes()) == before


def test_debug_shows_where(tmp_path, capsys):
    assert command("predict", tmp_path / "no", "a.png", "--debug") == 2
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_errors_of_the_program_show_where_they_come_from(
    model, folder, monkeypatch, capsys
):
    from sklearn_dl import ImageClassifier

    def broken(self, X):
        raise RuntimeError("nothing of the input")

    monkeypatch.setattr(ImageClassifier, "predict_proba", broken)
    assert command("predict", model, folder) == 3
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "nothing of the input" in err


@pytest.mark.filterwarnings("ignore:The channels behind")
@pytest.mark.parametrize(
    ("asked", "bands"),
    [(None, 13), (Channels([7, 2], shape=(32, 32, 13)), 13), (Channels(4), 4)],
    ids=str,
)
def test_images_of_other_channels_are_answered(asked, bands, tmp_path, capsys):
    tiles = np.random.default_rng(0).integers(0, 256, (12, 32, 32, bands), "uint8")
    model = small_classifier().set_params(image_shape=asked).fit(tiles, Y)
    np.save(tmp_path / "tile.npy", tiles[0])
    files = [tmp_path / "model.skdl"]
    save(model, files[0])
    if all(map(find_spec, ("onnx", "onnxscript", "onnxruntime"))):
        files.append(tmp_path / "model.onnx")
        export_onnx(model, files[1])
    for file in files:
        assert command("predict", file, tmp_path / "tile.npy") == 0
        (row,) = rows_of(capsys.readouterr().out)
        got = [float(row[f"probability_{c}"]) for c in ("dark", "light")]
        np.testing.assert_allclose(got, model.predict_proba(tiles[:1])[0], atol=1e-4)
