import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands_cases import command, train_small, write_broken, write_folder
from safetensors.torch import load_file

from sklearn_dl import ImageClassifier, ImageRegressor
from sklearn_dl.persistence import ModelFileError, load, load_exported, save


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


SEED = ("--set", "random_state=3")


def accuracy_in(text):
    return float(re.search(r"accuracy (\d\.\d+)", text)[1])


def write_table(folder, numbers):
    files = sorted(path.relative_to(folder) for path in folder.rglob("*.png"))
    table = pd.DataFrame({"file": [str(f) for f in files]})
    table["kind"] = [f.parts[0] for f in files]
    table["grams"] = numbers[: len(files)]
    table["metres"] = 2 * table["grams"]
    table.to_csv(folder / "table.csv", index=False)
    return folder / "table.csv"


def test_a_folder_becomes_a_model_with_its_held_out_score(folder, tmp_path, capsys):
    assert train_small(folder, "--out", "m", *SEED, "--validation", 0.34) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert re.fullmatch(
        r"7 images to learn from in 2 classes \(dark [34], light [34]\), 5 held out "
        r"\(a share of 0.34\)",
        lines[0],
    )
    assert re.fullmatch(r"saved to .*m \(\d\.\d MB\)", lines[2])
    assert "on the 5 held-out images: accuracy" in lines[3]
    assert [line[:13] for line in err.splitlines()] == [
        *("epoch 1 of 2:", "epoch 2 of 2:")
    ]
    model = load("m")
    assert isinstance(model, ImageClassifier)
    assert (model.random_state, model.max_epochs, model.verbose) == (3, 2, 0)
    assert model.callbacks is None
    assert os.listdir(tmp_path) == ["m"]


def test_the_model_is_that_of_the_estimator_on_all_images(folder, capsys):
    train_small(folder, "--out", "m", "--validation", 0, "--quiet")
    out, err = capsys.readouterr()
    assert "none held out" in out
    assert "accuracy" not in out
    assert err == ""
    from sklearn_dl.datasets import load_image_folder

    X, y = load_image_folder(folder, return_X_y=True)
    wanted = ImageClassifier(
        "squeezenet1_1", weights=None, image_size=32, max_epochs=2, random_state=0
    ).fit(X, y)
    np.testing.assert_array_equal(load("m").predict_proba(X), wanted.predict_proba(X))


@pytest.mark.parametrize(
    ("train", "name"), [("train", "val"), ("train", "test"), ("Training", "Testing")]
)
def test_folders_of_parts_are_used_as_such(train, name, folder, tmp_path, capsys):
    shutil.copytree(folder, tmp_path / "data" / train)
    shutil.copytree(folder, tmp_path / "data" / name)
    shutil.rmtree(tmp_path / "data" / name / "light")
    assert train_small("data", "--quiet", "--out", "m") == 0
    out = capsys.readouterr().out
    assert "12 images to learn from in 2 classes (dark 6, light 6), 6 held out" in out
    assert f"(data/{name})" in out
    model = load("m")
    paths = sorted((tmp_path / "data" / name / "dark").iterdir())
    right = np.mean(model.predict([*map(str, paths)]) == "dark")
    assert accuracy_in(out) == pytest.approx(right, abs=5e-4)


def test_another_folder_can_be_held_out(folder, tmp_path, capsys):
    write_folder(tmp_path / "others", n=2)
    arguments = ("--out", "m", "--quiet", "--validation")
    assert train_small(folder, *arguments, "others") == 0
    assert "4 held out (others)" in capsys.readouterr().out
    (tmp_path / "others" / "dark").rename(tmp_path / "others" / "grey")
    assert train_small(folder, *arguments, "others") == 2
    err = capsys.readouterr().err
    assert "others has the class 'grey', of which" in err


def test_parameters_reach_the_estimator(folder):
    code = train_small(
        *(folder, "--out", "m", "--quiet", "--trainable", "1"),
        *("--augment", "flip,rotation", "--set", "lr=0.5", "--set", "batch_size=4"),
        *("--set", "early_stopping=True", "--set", "tta=flip", "--set"),
        *("head__dropout=0.25", "--set", "warmup_epochs=1"),
        *("--set", "augment__views=2"),
    )
    assert code == 0
    model = load("m")
    assert (model.trainable, model.lr, model.early_stopping) == (1, 0.5, True)
    assert (model.augment.transforms, model.batch_size) == (["flip", "rotation"], 4)
    assert model.augment.views == 2
    assert (model.tta, model.head.dropout, model.warmup_epochs) == ("flip", 0.25, 1)


def test_a_table_of_labels_and_of_numbers(tmp_path, capsys):
    folder = write_folder(tmp_path / "images", n=4)
    table = write_table(folder, np.linspace(3.0, 9.0, 8))
    columns = ("--path", "file", "--target")
    assert train_small(table, *columns, "kind", "--out", "m", "--quiet") == 0
    assert "(dark 3, light 3), 2 held out" in capsys.readouterr().out
    assert load("m").classes_.tolist() == ["dark", "light"]
    regression = (*columns, "grams", "--task", "regression", "--out", "m", "--quiet")
    assert train_small(table, *regression) == 0
    assert "mean absolute error" in capsys.readouterr().out
    assert isinstance(load("m"), ImageRegressor)
    assert train_small(table, *regression, "--target", "metres") == 0
    image = str(folder / "dark" / "0.png")
    assert load("m").predict([image]).shape == (1, 2)


def test_a_table_is_read_as_its_options_say(tmp_path, capsys):
    folder = write_folder(tmp_path / "images", n=4)
    files = sorted(folder.rglob("*.png"))
    rows = [f"{f.with_suffix('')}|{('Löwe', 'NA')[k % 2]}" for k, f in enumerate(files)]
    table = tmp_path / "t.txt"
    table.write_text("\n".join(rows), "cp1252")
    options = ("header=None", "sep=|", "encoding=cp1252", "suffix=.png")
    columns = [*("--path", 0, "--target", -1, "--out", "m", "--quiet")]
    told = [part for option in options for part in ("--table", option)]
    assert train_small(table, *columns, *told) == 0
    assert load("m").classes_.tolist() == ["Löwe", "NA"]
    for missing, said in ((options[2], "give encoding="), (options[3], "add the suf")):
        less = [p for o in options if o != missing for p in ("--table", o)]
        assert train_small(table, *columns, *less) == 2
        assert said in capsys.readouterr().err


def test_images_in_a_table_are_named_by_their_rows(tmp_path, capsys):
    folder = write_folder(tmp_path / "images", n=4)
    images = [file.read_bytes() for file in sorted(folder.rglob("*.png"))]
    images[3] = images[3][:60]
    table = pd.DataFrame({"path": images, "target": ["a", "b"] * 4})
    table.to_parquet(tmp_path / "t.parquet")
    assert train_small(tmp_path / "t.parquet", "--out", "m", "--quiet") == 1
    assert capsys.readouterr().err.startswith("train: left out row 3: ")
    assert load("m").classes_.tolist() == ["a", "b"]


def test_broken_images_are_named_and_left_out(tmp_path, capsys):
    images = write_folder(tmp_path / "images", n=3)
    broken = write_broken(images / "dark" / "bad.png")
    (images / "light" / "notes.txt").write_text("no image")
    arguments = (images, "--out", "m", "--quiet", "--validation", 0)
    assert train_small(*arguments, "--strict") == 2
    err = capsys.readouterr().err
    assert repr(str(broken)) in err
    assert err.count("\n") == 1
    assert not Path("m").exists()
    assert train_small(*arguments) == 1
    out, err = capsys.readouterr()
    assert "6 images to learn from" in out
    assert err.startswith(f"train: left out {str(broken)!r}: ")
    assert err.count("\n") == 1
    assert load("m").n_iter_ == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no/data"], "No such file: 'no/data'"),
        (["{data}", "--out", "no/m"], "There is no folder"),
        (["{data}", "--out", "."], "is a folder; give the path of a file"),
        (["{data}/dark"], "No class folders"),
        (["{data}", "--backbone", "resnet19"], "resnet19"),
        (["{data}", "--weights", "no.pth"], "no.pth"),
        (["{data}", "--set", "optimiser=adam"], "optimiser"),
        (["{data}", "--set", "optimizer=adamm"], "adamm"),
        (["{data}", "--set", "optimizer"], "'optimizer' parameter"),
        (["{data}", "--augment", "flop"], "flop"),
        (["{data}", "--weights", "w.pth", "--out", "w.pth"], "is also read"),
        (["{data}", "--validation", "t.csv", "--out", "t.csv"], "is also read"),
        (["{data}", "--set", "device=abacus"], "abacus"),
        (["{data}", "--validation", "1.5"], "in the range (0.0, 1.0)"),
        (["{data}", "--validation", "nan"], "No such file: 'nan'"),
        (["{data}", "--validation", "no/data"], "No such file: 'no/data'"),
        (["{data}", "--task", "regression"], "could not convert string to float"),
        (["{data}", "--epochs", "0"], "int in the range [1, inf)"),
        (["{data}", "--epochs", "2.5"], "invalid int value: '2.5'"),
        (["one"], "y has one class, 'dark'"),
        (["few"], "--validation 0 trains on all"),
        (["table.csv"], "no column 'path'"),
        (["table.csv", "--table", "head=None"], "'head' is none of header, sep"),
        (["table.csv", "--table", "header=no"], "header must be the number of a row"),
        (["table.csv", "--path", "file", "--target", "grams"], "--task regression?"),
        (
            ["table.csv", "--path", "file", "--target", "kind", "--target", "grams"],
            "--task regression?",
        ),
        (
            *(["table.csv", "--task", "regression", "--path", "file"],),
            "no column 'target'",
        ),
        (
            ["table.csv", "--task", "regression", "--path", "file", "--target", "kind"],
            "are no numbers: could not convert string to float: 'dark'",
        ),
    ],
)
def test_wrong_input_is_said_before_training(
    arguments, message, folder, tmp_path, capsys, monkeypatch
):
    shutil.copytree(folder / "dark", tmp_path / "one" / "dark")
    write_folder(tmp_path / "few", n=2)
    (tmp_path / "few" / "light" / "1.png").unlink()
    write_table(folder, np.linspace(0.0, 1.0, 12)).rename(tmp_path / "table.csv")

    for name in ("w.pth", "t.csv"):
        (tmp_path / name).write_text("to be kept")

    def trained(self, *args, **kwargs):
        raise AssertionError("training began")

    monkeypatch.setattr("torch.Tensor.backward", trained)
    before = sorted(os.listdir())
    more = ["--root", folder] if arguments[0] == "table.csv" else []
    more += [] if "--out" in arguments else ["--out", "never"]
    assert train_small(*(a.format(data=folder) for a in arguments), *more) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.count("\n") == 1
    late = ("abacus", "flop", "one class")  # said by fit
    assert "held out" not in out or any(word in err for word in late)
    assert sorted(os.listdir()) == before


def test_an_output_that_cannot_be_written_is_known_at_once(folder, monkeypatch, capsys):
    def full(*args, **kwargs):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    assert train_small(folder, "--out", "m") == 2
    err = capsys.readouterr().err
    assert "m can't be written: Read-only file system" in err
    assert err.count("\n") == 1


def test_exports_by_the_ending(model, graph, classifier, capsys):
    for name in ("a.pt2", "a.safetensors", "a.pth"):
        assert command("export", model, name) == 0, capsys.readouterr().err
        out = capsys.readouterr().out
        assert re.fullmatch(rf"written to {name} \(\d\.\d MB\)\n", out)
    images = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), "uint8")
    np.testing.assert_allclose(
        load_exported(graph).predict_proba(images),  # it was written by the command
        classifier.predict_proba(images),
        atol=1e-4,
    )
    again = ImageClassifier("squeezenet1_1", weights="a.safetensors", image_size=32)
    again.set_params(max_epochs=1).fit(images, [0, 1, 1])
    save(again, "again")
    assert command("export", "again", "b.safetensors") == 0
    tensors, others = load_file("a.safetensors"), load_file("b.safetensors")
    assert tensors.keys() == others.keys()
    assert all(tensors[name].equal(others[name]) for name in tensors)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no.model", "a.onnx"], "There is no file"),
        (["{model}", "a.h5"], "must end in one of"),
        (["{model}", "no/a.onnx"], "There is no folder"),
        (["text", "a.onnx"], "is no model of sklearn_dl"),
    ],
)
def test_exports_that_cannot_be(arguments, message, model, capsys):
    Path("text").write_text("no model")
    assert command("export", *(a.format(model=model) for a in arguments)) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert os.listdir() == ["text"]


def test_info_says_what_a_file_holds(model, graph, capsys):
    facts = []
    for file in (model, graph):
        assert command("info", file) == 0
        facts.append(json.loads(capsys.readouterr().out))
    assert [f["path"] for f in facts] == [str(model), str(graph)]
    assert [f["classes"] for f in facts] == [["dark", "light"]] * 2
    assert [f["input"] for f in facts] == [[32, 32]] * 2
    assert facts[0]["model"] == "ImageClassifier"
    assert (facts[0]["backbone"], facts[0]["n_iter_"]) == ("squeezenet1_1", 3)
    assert facts[0]["versions"]["torch"]
    assert command("info", "no.model") == 2
    with pytest.raises(ModelFileError):
        load_exported(model)


@pytest.mark.slow
@pytest.mark.skipif("SKLEARN_DL_ASSETS" not in os.environ, reason="needs real images")
def test_real_photographs_from_training_to_prediction(capsys):
    assets = Path(os.environ["SKLEARN_DL_ASSETS"])
    images = assets / "hymenoptera_data"
    weights = assets / "mobilenet_v2_imagenet.pth"
    assert command("train", images, "--weights", weights, "--out", "m") == 0
    assert accuracy_in(capsys.readouterr().out) > 0.93
    assert command("export", "m", "m.onnx") == 0
    for file in ("m", "m.onnx"):
        assert command("predict", file, images / "val", "--output", "rows.csv") == 0
        rows = pd.read_csv("rows.csv", keep_default_na=False)
        truth = [Path(path).parent.name for path in rows["path"]]
        assert len(rows) == 153
        assert np.mean(rows["prediction"] == truth) > 0.93
        sums = rows["probability_ants"] + rows["probability_bees"]
        assert np.abs(sums - 1).max() < 1e-4


def test_one_held_out_image_has_an_error_but_no_r2():
    from sklearn.dummy import DummyRegressor

    from sklearn_dl._commands._data import score

    model = DummyRegressor().fit([[0], [1]], [1.0, 2.0])
    said = score(model, np.array([1.0, 2.0]), [[0]], np.array([2.0]))
    assert said == "on the 1 held-out images: mean absolute error 0.5"
