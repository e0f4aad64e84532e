"""Corrections relabel and drop what they name, and nothing else."""

import csv
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sklearn_dl.datasets import (
    apply_corrections,
    load_image_csv,
    load_image_folder,
    load_image_frame,
    load_torch_dataset,
)

COLUMNS = ["path", "old", "new", "action"]


@pytest.fixture
def photos(tmp_path):
    for name in ("ants/1", "ants/2", "ants/3", "bees/1", "bees/2"):
        file = tmp_path / "photos" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(file)
    return tmp_path / "photos"


def file_of(rows, folder, **options):
    path = folder / "corrections.csv"
    with path.open("w", newline="", errors="surrogateescape") as file:
        csv.writer(file, **options).writerows([COLUMNS, *rows])
    return path


def marks(photos):
    return [
        (str(photos / "ants" / "1.png"), "ants", "bees", "relabel"),
        (str(photos / "ants" / "2.png"), "ants", "", "drop"),
        (str(photos / "bees" / "1.png"), "bees", "bees", "keep"),
    ]


def test_a_folder_is_corrected_and_no_file_changes(photos, tmp_path):
    before = {path: path.read_bytes() for path in photos.rglob("*.png")}
    plain = load_image_folder(photos)
    bunch = load_image_folder(photos, corrections=file_of(marks(photos), tmp_path))
    names = [Path(path).relative_to(photos).as_posix() for path in bunch.data[:, 0]]
    assert names == ["ants/1.png", "ants/3.png", "bees/1.png", "bees/2.png"]
    assert bunch.target.tolist() == ["bees", "ants", "bees", "bees"]
    assert bunch.filenames.tolist() == bunch.data[:, 0].tolist()
    assert bunch.target.dtype == plain.target.dtype
    assert bunch.corrections["outcome"].tolist() == ["relabelled", "dropped", "kept"]
    assert {path: path.read_bytes() for path in photos.rglob("*.png")} == before
    X, y = load_image_folder(
        photos, corrections=file_of(marks(photos), tmp_path), return_X_y=True
    )
    assert y.tolist() == bunch.target.tolist()
    assert X.shape == (4, 1)


def test_a_bunch_a_pair_and_a_table_are_corrected_alike(photos, tmp_path):
    file, bunch = file_of(marks(photos), tmp_path), load_image_folder(photos)
    frame = pd.DataFrame(
        {"path": bunch.filenames, "target": bunch.target, "n": range(5)}
    )
    expected = ["bees", "ants", "bees", "bees"]
    changed, table = apply_corrections(bunch, file, return_table=True)
    assert changed.target.tolist() == expected
    assert bunch.target.tolist() == ["ants"] * 3 + ["bees"] * 2  # as it was
    X, y = apply_corrections((bunch.data, bunch.target), file)
    assert X.tolist() == changed.data.tolist()
    assert y.tolist() == expected
    found = apply_corrections(frame, file)
    assert found["target"].tolist() == expected
    assert found["n"].tolist() == [0, 2, 3, 4]
    assert found.index.tolist() == [0, 2, 3, 4]
    assert found.dtypes.equals(frame.dtypes)
    renamed = frame.rename(columns={"path": "file", "target": "kind"})
    found = apply_corrections(renamed, file, path="file", target="kind")
    assert found["kind"].tolist() == expected
    again = pd.read_csv(file, keep_default_na=False)
    assert apply_corrections((bunch.data, bunch.target), again)[1].tolist() == expected
    assert table.columns.tolist() == [*COLUMNS, "outcome"]


def test_a_bunch_of_a_table_has_its_frame_corrected(photos, tmp_path):
    frame = pd.DataFrame({"path": ["ants/1.png", "bees/1.png"], "target": [3, 4]})
    bunch = load_image_frame(frame, root=photos)
    rows = [(bunch.filenames[0], "3", "4", "relabel")]
    found = apply_corrections(bunch, file_of(rows, tmp_path))
    assert found.target.tolist() == [4, 4]
    assert found.target.dtype == bunch.target.dtype
    assert found.frame["target"].tolist() == [4, 4]
    assert frame["target"].tolist() == [3, 4]
    dropped = [(bunch.filenames[1], "4", "", "drop")]
    assert len(apply_corrections(bunch, file_of(dropped, tmp_path)).frame) == 1


def test_the_frame_of_several_targets_is_corrected(photos, tmp_path):
    files = sorted(map(str, photos.rglob("*.png")))[:3]
    table = pd.DataFrame({"path": files, "cat": [0, 1, 0], "dog": [1, 1, 0]})
    bunch = load_image_frame(table, target=["cat", "dog"])
    rows = [(files[0], "0;1", "1;0", "relabel"), (files[1], "1;1", "", "drop")]
    found = apply_corrections(bunch, file_of(rows, tmp_path))
    assert found.target.tolist() == [[1, 0], [0, 0]]
    assert found.frame[["cat", "dog"]].to_numpy().tolist() == [[1, 0], [0, 0]]
    assert bunch.frame["cat"].tolist() == [0, 1, 0]


def test_paths_are_the_same_relative_or_absolute(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [("photos/ants/1.png", "ants", "bees", "relabel")]
    file = file_of(rows, tmp_path)
    assert load_image_folder(photos, corrections=file).target[0] == "bees"
    rows = [(str(photos / "ants" / "1.png"), "ants", "bees", "relabel")]
    file = file_of(rows, tmp_path)
    assert load_image_folder("photos", corrections=file).target[0] == "bees"


def test_images_without_paths_are_found_by_their_rows(tmp_path):
    sheet = pd.DataFrame([[7, *range(9)], [2, *range(9)], [7, *range(9)]])
    bunch = load_image_csv(sheet.set_axis([f"c{k}" for k in range(10)], axis=1), "c0")
    rows = [("1", "2", "7", "relabel"), ("2", "7", "", "drop")]
    found = apply_corrections(bunch, file_of(rows, tmp_path))
    assert found.target.tolist() == [7, 7]
    assert found.data.shape == (2, 9)
    images = [np.zeros((8, 8, 3), "uint8")] * 3
    X, y = apply_corrections(
        (images, ["a", "b", "c"]),
        pd.DataFrame([("0", "a", "", "drop")], columns=COLUMNS),
    )
    assert len(X) == 2
    assert y.tolist() == ["b", "c"]
    dataset = load_torch_dataset([(image, "a") for image in images])
    rows = [("0", "a", "longer", "relabel")]
    with pytest.warns(UserWarning, match="no image had"):
        assert apply_corrections(dataset, file_of(rows, tmp_path)).target[0] == "longer"


def test_decoded_images_are_found_by_their_path_or_their_row(photos):
    decoded = [Image.new("RGB", (8, 8), (k, 0, 0)) for k in range(2)]
    X, y = [*decoded, Image.open(photos / "ants" / "1.png")], np.array(["a", "b", "b"])
    rows = [
        ("1", "b", "a", "relabel"),
        (str(photos / "ants" / "1.png"), "b", "", "drop"),
    ]
    marked = pd.DataFrame(rows, columns=COLUMNS)
    found, labels = apply_corrections((X, y), marked)
    assert found == decoded
    assert labels.tolist() == ["a", "a"]


@pytest.mark.parametrize(
    ("y", "old", "new", "expected"),
    [
        (np.array([1.5, 2.0]), "1.5", "0.25", [0.25, 2.0]),
        (np.array([True, False]), "True", "False", [False, False]),
        (np.array([[1, 0], [0, 1]]), "1;0", "1;1", [[1, 1], [0, 1]]),
        (np.array([[0.5, 1.0], [2, 3]]), "0.5;1", "7;8.5", [[7, 8.5], [2, 3]]),
        (np.array([[True, False], [False, False]]), "1;0", "0;1", [[0, 1], [0, 0]]),
        (np.array(["NA", "nan"], object), "NA", "nan", ["nan", "nan"]),
        (np.array([10**18, 5]), str(10**18), str(10**18 + 1), [10**18 + 1, 5]),
    ],
)
def test_targets_keep_their_type(y, old, new, expected, tmp_path):
    file = file_of([("a.png", old, new, "relabel")], tmp_path)
    _, found = apply_corrections((["a.png", "b.png"], y), file)
    assert found.tolist() == expected
    assert found.dtype == y.dtype


def test_a_categorical_column_gets_new_classes(tmp_path):
    frame = pd.DataFrame({"path": ["a", "b"], "target": pd.Categorical(["x", "y"])})
    file = file_of([("a", "x", "z", "relabel")], tmp_path)
    with pytest.warns(UserWarning, match="relabelled to a class that no image had"):
        found = apply_corrections(frame, file)
    assert found["target"].tolist() == ["z", "y"]
    assert found["target"].dtype.categories.tolist() == ["x", "y", "z"]


def test_what_no_longer_fits_is_said(photos, tmp_path):
    gone = str(photos / "ants" / "9.png")
    rows = [
        (gone, "ants", "bees", "relabel"),
        (str(photos / "bees" / "1.png"), "ants", "", "drop"),
        (str(photos / "bees" / "2.png"), "ants", "bees", "relabel"),
        *marks(photos)[:1],
    ]
    with pytest.warns(UserWarning, match="1 relabelled, 0 dropped") as caught:
        bunch = load_image_folder(photos, corrections=file_of(rows, tmp_path))
    assert repr(gone) in str(caught[0].message)
    assert bunch.target.tolist() == ["bees", "ants", "ants", "bees", "bees"]
    outcomes = bunch.corrections["outcome"].tolist()
    assert outcomes[0] == "not in the data"
    assert "its label is 'bees', no longer the old one" in outcomes[1]
    assert outcomes[2:] == ["was so before", "relabelled"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("delimiter", [",", ";"])
def test_a_spreadsheet_may_have_saved_it(delimiter, encoding, tmp_path):
    names = ['a,b;"c".png', "line\nbreak.png", "زهرة.png"]
    rows = [(name, "Grün", "gelb", "relabel") for name in names]
    path = file_of(rows, tmp_path, delimiter=delimiter)
    path.write_bytes(path.read_text().encode(encoding))
    y = np.array(["Grün"] * 3 + ["gelb"])
    _, found = apply_corrections(([*names, "other.png"], y), path)
    assert found.tolist() == ["gelb"] * 4


@pytest.mark.skipif(os.name == "nt", reason="paths are Unicode there")
def test_names_that_are_no_unicode_are_found(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    file = file_of([(name, "a", "b", "relabel")], tmp_path)
    assert b"caf\xe9" in file.read_bytes()
    X, y = np.array([name, "x.png"], object), np.array(["a", "b"])
    assert apply_corrections((X, y), file)[1].tolist() == ["b", "b"]


def test_one_path_in_two_rows_is_told_by_its_old_label(tmp_path):
    X, y = ["a.png", "a.png"], np.array(["x", "y"])
    rows = [("a.png", "x", "x", "keep"), ("a.png", "y", "x", "relabel")]
    assert apply_corrections((X, y), file_of(rows, tmp_path))[1].tolist() == ["x", "x"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a.png", "x", "y", "rename")], "action 'rename' in line 2"),
        ([("a.png", "x", "y")], "3 cells in line 2, not 4"),
        (
            [("a.png", "x", "y", "relabel"), ("a.png", "x", "", "drop")],
            "two corrections: relabel in line 2 and drop in line 3",
        ),
        ([("a.png", "x", "", "drop"), ("b.png", "y", "", "drop")], "drop every image"),
        ([("a.png", "x", "", "relabel")], "no new label in line 2"),
    ],
)
def test_files_that_are_none_of_corrections_are_refused(rows, message, tmp_path):
    data = ["a.png", "b.png"], np.array(["x", "y"])
    with pytest.raises(ValueError, match=message):
        apply_corrections(data, file_of(rows, tmp_path))


def test_a_table_that_pandas_read_has_floats(tmp_path):
    rows = [
        ("a.png", "1", "2", "relabel"),
        ("b.png", "2", "", "drop"),
        ("", "", "", ""),
    ]
    table = pd.read_csv(file_of(rows[:2], tmp_path))
    data = ["a.png", "b.png"], np.array([1, 2])
    assert table["new"].dtype == float
    assert apply_corrections(data, table)[1].tolist() == [2]
    # Empty rows, as spreadsheets write them.
    assert apply_corrections(data, file_of(rows, tmp_path))[1].tolist() == [2]


@pytest.mark.parametrize(
    ("dtype", "new"), [("uint8", "300"), (float, "nan"), (float, "inf")]
)
def test_numbers_that_targets_cannot_be_are_refused(dtype, new, tmp_path):
    data = ["a.png", "b.png"], np.array([1, 2], dtype=dtype)
    file = file_of([("a.png", "1", new, "relabel")], tmp_path)
    with pytest.raises(ValueError, match=f"line 2, '{new}', is no number"):
        apply_corrections(data, file)


def test_other_input_is_refused(tmp_path):
    data = ["a.png", "b.png"], np.array([1, 2])
    with pytest.raises(FileNotFoundError, match="No such file"):
        apply_corrections(data, tmp_path / "none.csv")
    file = file_of([("a.png", "1", "x", "relabel")], tmp_path)
    with pytest.raises(ValueError, match="line 2, 'x', is no number"):
        apply_corrections(data, file)
    two = np.array([[1, 2], [3, 4]])
    file = file_of([("a.png", "1;2", "1", "relabel")], tmp_path)
    with pytest.raises(ValueError, match="has 1 values, but those of the data have 2"):
        apply_corrections((data[0], two), file)
    (tmp_path / "other.csv").write_text("file,label\n1,2\n")
    with pytest.raises(ValueError, match="no column 'path'"):
        apply_corrections(data, tmp_path / "other.csv")
    with pytest.raises(TypeError, match="Bunch of a loader, a tuple"):
        apply_corrections([1], file)
    with pytest.raises(ValueError, match="no column 'target'"):
        apply_corrections(pd.DataFrame({"path": ["a"], "Target": [1]}), file)
