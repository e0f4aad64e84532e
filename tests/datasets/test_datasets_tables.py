"""Tables as people have them: text and files of every kind, and hints."""

import gzip
import io
import json
import os

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import feather, ipc, parquet

from sklearn_dl import ImageClassifier, ImageFeatureExtractor
from sklearn_dl._images import as_source, file_meant
from sklearn_dl.datasets import (
    ImageDecodeError,
    load_image_csv,
    load_image_frame,
    verify_images,
)

FILES = ["007.png", "008.png", "011.png"]
KINDS = ["ant", "bee", "ant"]
NUMBERS = [1.5, 2.25, -3.0]
CLASSES = ["None", "NA", "null"]


def encoded(colour):
    file = io.BytesIO()
    Image.new("RGB", (6, 4), (colour, 0, 0)).save(file, "PNG")
    return file.getvalue()


IMAGES = [encoded(colour) for colour in (7, 8, 11)]
CELLS = [{"bytes": i, "path": f} for i, f in zip(IMAGES, FILES, strict=True)]


@pytest.fixture
def root(tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    for name, image in zip(FILES, IMAGES, strict=True):
        (tmp_path / name).write_bytes(image)
        (tmp_path / "deep" / name).write_bytes(image)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lines(sep=",", paths=FILES, targets=KINDS, header=True, end="\n"):
    rows = [("path", "target")] * header + [*zip(paths, targets, strict=True)]
    return "".join(f"{path}{sep}{target}{end}" for path, target in rows)


def json_lines(**columns):
    return pd.DataFrame(columns).to_json(orient="records", lines=True)


def described(names, file, /, **columns):
    """Write a Parquet file as Hugging Face's datasets do, with its features."""
    table = pa.table(columns)
    features = {"label": {"names": names, "_type": "ClassLabel"}}
    said = json.dumps({"info": {"features": {**features, "image": {}}}})
    parquet.write_table(table.replace_schema_metadata({"huggingface": said}), file)


def streamed(path):
    table = pa.table({"path": FILES, "target": KINDS})
    with ipc.new_stream(path, table.schema) as stream:
        stream.write_table(table)


WITHOUT_SUFFIX = [name.removesuffix(".png") for name in FILES]
DECIMALS = [str(number).replace(".", ",") for number in NUMBERS]
BY_POSITION = {"header": None, "path": 0, "target": 1}

# Name of the file, what is in it or writes it, what to write, and the targets.
READ = {
    "a file without a header": ("t.csv", lines(header=False), BY_POSITION, KINDS),
    "a column from the end": ("t.csv", lines(), {"path": 0, "target": -1}, KINDS),
    "semicolons": ("t.csv", lines(";"), {}, KINDS),
    "semicolons, and commas in a name": (
        *("t.csv", lines(";").replace("target", "target;a,b,c,d").replace("\n", ";\n")),
        *({}, KINDS),
    ),
    "tabs": ("t.tsv", lines("\t"), {}, KINDS),
    "bars": ("t.txt", lines("|"), {}, KINDS),
    "a blank": ("t.txt", lines(" "), {}, KINDS),
    "many blanks": ("t.txt", lines("    "), {}, KINDS),
    "a blank after the comma": ("t.csv", lines(", "), {}, KINDS),
    "a comma at the end of each line": ("t.csv", lines(end=",\n"), {}, KINDS),
    "a separator of two": ("t.txt", lines("::"), {"sep": "::"}, KINDS),
    "Excel's first line": ("t.csv", "sep=;\r\n" + lines(";", end="\r\n"), {}, KINDS),
    "UTF-8 with a mark": ("t.csv", lines().encode("utf-8-sig"), {}, KINDS),
    "UTF-16": ("t.csv", lines("\t").encode("utf-16"), {}, KINDS),
    "UTF-16, compressed": (
        *("t.csv.gz", gzip.compress(lines().encode("utf-16"))),
        *({}, KINDS),
    ),
    "Windows-1252": (
        *("t.csv", lines(targets=["Löwe", "é", "Löwe"]).encode("cp1252")),
        *({"encoding": "cp1252"}, ["Löwe", "é", "Löwe"]),
    ),
    "decimal commas": (
        *("t.csv", lines(";", targets=DECIMALS), {"decimal": ","}, NUMBERS),
    ),
    "JSON lines with ids": (
        *("metadata.jsonl", json_lines(file_name=WITHOUT_SUFFIX, label=KINDS)),
        *({"path": "file_name", "target": "label", "suffix": ".png"}, KINDS),
    ),
    "JSON of rows": (
        *(
            "t.json",
            json.dumps(
                pd.DataFrame({"path": FILES, "target": KINDS}).to_dict("records")
            ),
        ),
        *({}, KINDS),
    ),
    "JSON lines named .json": (
        *("t.json", json_lines(path=FILES, target=KINDS), {}, KINDS),
    ),
    "Parquet of images": (
        *("t.parquet", lambda p: described(["x"], p, image=CELLS, label=[0, 0, 0])),
        *({"path": "image", "target": "label"}, ["x", "x", "x"]),
    ),
    "Parquet with names of classes": (
        *(
            "t.parquet",
            lambda p: described(["bee", "ant"], p, path=FILES, label=[1, 0, 1]),
        ),
        *({"target": "label"}, KINDS),
    ),
    "Feather": (
        "t.feather",
        lambda p: feather.write_feather(pa.table({"path": FILES, "target": KINDS}), p),
        *({}, KINDS),
    ),
    "Arrow as datasets keep it": ("t.arrow", streamed, {}, KINDS),
    "Excel without a header": (
        "t.xlsx",
        lambda p: pd.DataFrame([FILES, KINDS]).T.to_excel(p, index=False, header=False),
        *(BY_POSITION, KINDS),
    ),
    "ids without a suffix": (
        *("t.csv", lines(paths=WITHOUT_SUFFIX), {"suffix": ".png"}, KINDS),
    ),
    "classes called None and NA": ("t.csv", lines(targets=CLASSES), {}, CLASSES),
    "classes called None in Excel": (
        "t.xlsx",
        lambda p: pd.DataFrame({"path": FILES, "target": CLASSES}).to_excel(
            p, index=False
        ),
        *({}, CLASSES),
    ),
}


def write(name, content):
    if callable(content):
        content(name)
    else:
        data = content if isinstance(content, bytes) else content.encode()
        with open(name, "wb") as file:
            file.write(data)
    return name


@pytest.mark.parametrize("case", READ)
def test_a_table_is_read(case, root, recwarn):
    name, content, options, expected = READ[case]
    bunch = load_image_frame(write(name, content), **options, verify="raise")
    assert bunch.target.tolist() == expected
    assert bunch.target_names[0] in {*expected, "target"}
    assert [os.path.basename(f) for f in bunch.filenames] == FILES
    reds = [image.getpixel((0, 0))[0] for image in as_source(bunch.data)]
    assert reds == [7, 8, 11]
    assert not [w for w in recwarn if w.category is UserWarning]


# Name of the file, what is in it, what is asked, and what the error says.
REFUSED = {
    "no header": ("t.csv", lines(header=False), {}, r"header=None, .*path=0"),
    "no header, by name": (
        *("t.csv", lines(header=False), {"header": None}),
        r"no column 'path'. There is 0, 1. Give positions, such as path=0",
    ),
    "another header": ("t.csv", lines(), {"header": "no"}, "header must be the number"),
    "an encoding not given": (
        *("t.csv", lines(targets=["é"] * 3).encode("cp1252"), {}),
        r"'t\.csv' is no text in UTF-8: give encoding=, such as 'cp1252'",
    ),
    "a wrong encoding": (
        *("t.csv", lines().encode(), {"encoding": "utf-16"}),
        r"'t\.csv' is no text in 'utf-16': give encoding=, such as 'cp1252'",
    ),
    "an unknown encoding": (
        *("t.csv", lines(), {"encoding": "ansi"}),
        "encoding='ansi' is not known to Python; there is 'cp1252'",
    ),
    "an encoding of JSON": (
        *("t.jsonl", '{"path": "é"}\n'.encode("cp1252"), {}),
        "is no text in UTF-8",
    ),
    "a comma in a label": (
        *("t.csv", lines(targets=["ant, red", "bee", "ant"]), {}),
        r"'t\.csv' can't be read as CSV: rows differ in length .*sep=','",
    ),
    "an empty cell": (
        *("t.csv", lines(targets=["ant", "", "NA"]), {}),
        "Missing value in column 'target', row 1",
    ),
    "a gap among numbers": (
        *("t.csv", lines(";", targets=["1,5", "NA", "2,5"]), {"decimal": ","}),
        "Missing value in column 'target', row 1",
    ),
    "UTF-16 without a mark": (
        *("t.csv", lines().encode("utf-16-le"), {}),
        r"'t\.csv' is no text in UTF-8: give encoding=.*'utf-16'",
    ),
    "a codec that is not of text": ("t.csv", lines(), {"encoding": "rot13"}, "rot13"),
    "a thing as a label": (
        *("t.jsonl", '{"path": "007.png", "target": {"boxes": [1]}}\n', {}),
        "column 'target' holds a dict in row 0: a target is a label",
    ),
    "no gzip": ("t.csv.gz", lines(), {}, r"'t\.csv\.gz' is damaged, or not what"),
    "no Excel": ("t.xlsx", lines(), {}, r"'t\.xlsx' can't be read as Excel"),
    "no Parquet": ("t.parquet", lines(), {}, r"'t\.parquet' can't be read as Parquet"),
    "no Feather": ("t.feather", lines(), {}, r"'t\.feather' can't be read as Feather"),
    "no JSON": ("t.jsonl", lines(), {}, r"'t\.jsonl' can't be read as .*JSON"),
    "JSON of no rows": (
        *("t.json", '{"images": [1], "labels": [1, 2]}', {}),
        "can't be read as a list of rows, or a row on each line, in JSON",
    ),
    "blank lines": ("t.csv", "\n\n", {}, r"'t\.csv' can't be read as text"),
    "no rows": ("t.csv", "sep=;\n", {}, r"'t\.csv' has no rows"),
    "an image": ("007.png", IMAGES[0], {}, r"'007\.png'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_table_that_is_not_read_says_why(case, root):
    name, content, options, said = REFUSED[case]
    with pytest.raises(ValueError, match=said) as caught:
        load_image_frame(write(name, content), **options)
    assert "0x" not in str(caught.value)  # as errors of codecs have
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (WITHOUT_SUFFIX, r"'007\.png' is there: add the suffix '\.png'"),
        ([f.upper() for f in FILES], r"the suffix is \.png, not \.PNG"),
        ([f"deep\\{f}" for f in FILES], r"'deep/007\.png' is there: write / for"),
        (["7", "8", "11"], r"'007\.png' is there: zeros are lost, .*zfill\(3\)"),
        (["7.png", "8.png", "11.png"], r"'007\.png' is there: zeros are lost"),
        ([f"{f} " for f in FILES], "leave out the blanks"),
        ([f.replace(".", "") for f in FILES], r"write '\.png', with its dot"),
        (["1.png", *FILES[1:], "deep\\011"], "deep/011.png' is there"),
    ],
)
def test_paths_that_are_nearly_right_get_a_hint(paths, said, root):
    table = pd.DataFrame({"path": paths})
    with pytest.warns(UserWarning, match=said):
        load_image_frame(table, target=None)
    with pytest.raises(ImageDecodeError, match=said):
        load_image_frame(table, target=None, verify="raise")
    with pytest.raises(ImageDecodeError, match=said):
        ImageFeatureExtractor("mobilenet_v3_small", weights="builtin").fit_transform(
            paths
        )


def test_files_that_are_nowhere_get_no_hint(root, recwarn):
    load_image_frame(pd.DataFrame({"path": ["1.png", "no/2.png"]}), target=None)
    assert not [w for w in recwarn if w.category is UserWarning]
    assert file_meant("no/2.png") == ""


def test_ids_that_are_numbers_need_a_suffix(root):
    table = pd.DataFrame({"path": [11, 11], "target": ["a", "b"]})
    (root / "11.jpg").write_bytes(IMAGES[2])
    assert load_image_frame(table, suffix=".jpg").filenames[0] == "11.jpg"
    with pytest.raises(TypeError, match=r"row 0 is 11 \(int\). Ids of files need"):
        load_image_frame(table)
    mixed = pd.DataFrame({"path": ["007", "008.png"]})
    bunch = load_image_frame(mixed, target=None, suffix=".png", verify="raise")
    assert bunch.filenames.tolist() == FILES[:2]


def test_targets_with_decimal_commas_are_warned_of(root):
    path = write("t.csv", lines(";", targets=["1,5", "2,25", "3,0"]))
    with pytest.warns(UserWarning, match=r"'1,5': .* give decimal=','"):
        assert load_image_frame(path).target[0] == "1,5"


@pytest.mark.parametrize("path", [1, -1, np.int64(1), "path"])
@pytest.mark.parametrize("header", [0, None])
@pytest.mark.parametrize("name", ["t.csv", "t.xlsx"])
def test_ids_keep_their_zeros_in_a_column_by_position(name, header, path, root):
    if header is None and path == "path":
        path = 1
    table = pd.DataFrame({"target": KINDS, "path": ["007", "008", "011"]})
    write_to = table.to_csv if name == "t.csv" else table.to_excel
    write_to(name, index=False, header=header is not None)
    bunch = load_image_frame(name, path=path, target=0, header=header, suffix=".png")
    assert bunch.filenames.tolist() == FILES


def test_a_suffix_is_added_in_any_case_of_it_once(root):
    table = pd.DataFrame({"path": ["007.PNG", "008"]})
    bunch = load_image_frame(table, target=None, suffix=".png", root="x")
    assert bunch.filenames.tolist() == ["x/007.PNG", "x/008.png"]


def test_files_beside_a_table_are_hinted_at(root, monkeypatch):
    (root / "deep" / "t.csv").write_text(lines())
    (root / "elsewhere").mkdir()
    monkeypatch.chdir(root / "elsewhere")
    path = os.path.join("..", "deep", "t.csv")
    with pytest.warns(UserWarning, match=r"007\.png' is there: give root='\.\..deep'"):
        load_image_frame(path)


def test_an_empty_path_is_missing(root):
    for cells in (["007.png", ""], [CELLS[0], {"bytes": None, "path": ""}]):
        with pytest.raises(ValueError, match="Missing path in column 'path', row 1"):
            load_image_frame(pd.DataFrame({"path": cells}), target=None, suffix=".png")


@pytest.mark.parametrize("kind", [list, tuple, np.array, pd.Index])
def test_several_targets_are_named_in_any_list(kind):
    table = pd.DataFrame({"path": FILES, "a": [1, 2, 3], "b": NUMBERS})
    bunch = load_image_frame(table, target=kind(["a", "b"]))
    np.testing.assert_array_equal(bunch.target, table[["a", "b"]])


@pytest.mark.parametrize("label_delim", [None, " "])
def test_lists_of_labels_become_a_matrix(label_delim, tmp_path):
    table = pd.DataFrame({"path": FILES, "tags": [["b", "a"], [], ["a"]]})
    table.to_parquet(tmp_path / "t.parquet")
    table.to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    for given in (table, tmp_path / "t.parquet", tmp_path / "t.jsonl"):
        bunch = load_image_frame(given, target="tags", label_delim=label_delim)
        assert bunch.target.tolist() == [[1, 1], [0, 0], [1, 0]]
        assert bunch.target_names.tolist() == ["a", "b"]
    numbers = table.assign(tags=[[1.0, 2.0]] * 3)  # of regression
    y = load_image_frame(numbers, target="tags").target
    np.testing.assert_array_equal(y, [[1, 2]] * 3)


def test_several_labels_in_a_cell_become_a_matrix(root):
    table = pd.DataFrame(
        {"path": FILES, "tags": ["haze  clear", "clear", ""], "k": [1.0, 2, 3]}
    )
    bunch = load_image_frame(table, target="tags", label_delim=" ")
    assert bunch.target.tolist() == [[1, 1], [1, 0], [0, 0]]
    assert bunch.target_names.tolist() == ["clear", "haze"]
    bars = table.assign(tags=["No Finding", "Mass| No Finding", "Mass"])
    y = load_image_frame(bars, target="tags", label_delim="|").target
    np.testing.assert_array_equal(y, [[0, 1], [1, 1], [1, 0]])
    gap = table.assign(tags=["a", None, "b"])
    with pytest.raises(ValueError, match=r"column 'tags' .*fillna.*, row 1"):
        load_image_frame(gap, target="tags", label_delim=" ")
    for target in (["tags"], None):
        with pytest.raises(ValueError, match="label_delim=' ' is for one column"):
            load_image_frame(table, target=target, label_delim=" ")
    with pytest.raises(ValueError, match="label_delim is empty"):
        load_image_frame(table, target="tags", label_delim="")


def test_a_column_of_encoded_images_is_fitted_without_files(tmp_path):
    names = [None, *FILES[1:]]
    cells = [{"bytes": i, "path": f} for i, f in zip(IMAGES, names, strict=True)]
    table = pa.table({"image": cells * 4, "bytes": IMAGES * 4, "target": KINDS * 4})
    named = load_image_frame(table, path="image", verify="raise")
    assert named.filenames[:3].tolist() == names
    plain = load_image_frame(table, path="bytes")
    assert plain.filenames is None
    assert (plain.data == named.data).all()
    assert verify_images(plain.data).columns.size == 4
    model = ImageClassifier(
        "mobilenet_v3_small", weights="builtin", image_size=32, max_epochs=1
    )
    assert model.fit(named.data, named.target).predict(plain.data).shape == (12,)


def test_images_in_cells_that_are_none_are_named(tmp_path):
    table = pd.DataFrame({"path": [*CELLS, {"bytes": None, "path": None}]})
    with pytest.raises(ValueError, match="Missing path in column 'path', row 3"):
        load_image_frame(table, target=None)
    table = pd.DataFrame({"path": [IMAGES[0], b"no image" * 100]})
    with pytest.raises(ImageDecodeError, match=r"row 1: not an image") as caught:
        load_image_frame(table, target=None, verify="raise")
    assert len(str(caught.value)) < 100
    kept = load_image_frame(table, target=None, verify="skip")
    assert kept.data.tolist() == [[IMAGES[0]]]
    assert kept.skipped["row"].tolist() == [1]
    with pytest.raises(
        ValueError, match="images can be decoded; the first, row 0: not"
    ):
        load_image_frame(table[1:], target=None, verify="skip")


def test_another_thing_is_no_table():
    class Lazy:
        collect = None

    for thing, said in (
        ({"path": FILES}, "got dict"),
        (pd.Series(FILES), "got Series"),
        (Lazy(), r"got Lazy\. A Lazy is one after \.collect\(\)"),
    ):
        for load in (load_image_frame, load_image_csv):
            with pytest.raises(TypeError, match=said):
                load(thing)


def test_a_code_that_has_no_name_is_missing(tmp_path):
    described(["a"], tmp_path / "t.parquet", image=IMAGES, label=[0, -1, 0])
    with pytest.raises(ValueError, match="Missing value in column 'label', row 1"):
        load_image_frame(tmp_path / "t.parquet", path="image", target="label")


# ------------------------------------------------------------------------- pixels

PIXELS = np.array([[7, 0, 255, 9], [2, 255, 1, 0], [4, 4, 3, 1]], dtype=np.uint8)
SHEET = pd.DataFrame(PIXELS, columns=["a", "b", "c", "d"])
NAMED = SHEET.assign(size=CLASSES)


def text_of(frame, sep, header=True):
    return frame.to_csv(sep=sep, index=False, header=header)


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("t.txt", text_of(NAMED, "|"), {"labels": "size"}),
        ("t.txt", text_of(NAMED, " "), {"labels": -1}),
        ("t.txt", text_of(NAMED, " ").replace(" ", "   "), {"labels": "size"}),
        ("t.csv", "sep=;\n" + text_of(NAMED, ";"), {"labels": "size"}),
        ("t.csv", text_of(NAMED, ",").encode("utf-16"), {"labels": "size"}),
        (
            *(
                "t.csv",
                text_of(NAMED.rename(columns={"size": "größe"}), ";").encode("cp1252"),
            ),
            {"labels": "größe", "encoding": "cp1252"},
        ),
        ("t.txt", text_of(NAMED, "&"), {"labels": "size", "sep": "&"}),
        ("t.csv", text_of(NAMED, ",").replace("\n", ",\n"), {"labels": "size"}),
        ("t.csv", text_of(NAMED, ",", False), {"labels": 4}),
        ("t.csv", text_of(NAMED, ",", False), {"labels": 4, "header": None}),
        ("t.csv", text_of(NAMED, ","), {"labels": "size", "header": 0}),
        ("t.csv", text_of(NAMED, ",", False), {"labels": 4, "header": False}),
        ("t.jsonl", NAMED.to_json(orient="records", lines=True), {"labels": "size"}),
        ("t.feather", NAMED.to_feather, {"labels": "size"}),
        ("t.parquet", NAMED.to_parquet, {"labels": "size"}),
    ],
)
def test_a_sheet_of_pixels_is_read(name, content, options, root):
    bunch = load_image_csv(write(name, content), **options)
    np.testing.assert_array_equal(bunch.data, PIXELS)
    assert bunch.target.tolist() == CLASSES


def test_tables_of_pyarrow_are_sheets_and_labels():
    bunch = load_image_csv(pa.table(SHEET), pa.table({"y": CLASSES}))
    np.testing.assert_array_equal(bunch.data, PIXELS)
    assert bunch.target.tolist() == CLASSES


def test_sheets_that_are_not_read_say_why(root):
    path = write("t.csv", text_of(NAMED, ",").replace("size", "é").encode("cp1252"))
    with pytest.raises(ValueError, match=r"'t\.csv' is no text in UTF-8"):
        load_image_csv(path, "é")
    with pytest.raises(ValueError, match="header must be 'infer', 0 or None, got 3"):
        load_image_csv(path, header=3)
    labels = write("l.txt", "None\n\nNA\n")
    with pytest.raises(ValueError, match="Missing value in labels, row 1"):
        load_image_csv(SHEET, labels)
    long = SHEET.astype(object).set_axis(["x" * 999, *"bcd"], axis=1)
    long.iloc[1, 0] = "y" * 999
    with pytest.raises(ValueError, match="row 1, column 'xxx") as caught:
        load_image_csv(long)
    assert len(str(caught.value)) < 300


# ------------------------------------------------------------- the real libraries


@pytest.mark.slow
def test_tables_of_polars(root):
    polars = pytest.importorskip("polars")
    table = polars.DataFrame({"path": FILES, "target": KINDS, "image": CELLS})
    kinds = polars.col("target").cast(polars.Categorical)
    for frame in (table, table.with_columns(kinds)):
        assert load_image_frame(frame).target.tolist() == KINDS
        assert load_image_frame(frame, path="image").data[2, 0] == IMAGES[2]
    table.write_parquet("t.parquet")
    assert load_image_frame("t.parquet", path="image").target.tolist() == KINDS
    table.write_ipc("t.feather")
    assert load_image_frame("t.feather", path="image").target.tolist() == KINDS
    with pytest.raises(TypeError, match=r"after \.collect\(\)"):
        load_image_frame(table.lazy())
    sheet = load_image_csv(polars.from_pandas(NAMED), "size")
    np.testing.assert_array_equal(sheet.data, PIXELS)
    assert sheet.target.tolist() == CLASSES
    labels = load_image_csv(polars.from_pandas(SHEET), polars.Series(CLASSES))
    assert labels.target.tolist() == CLASSES


@pytest.mark.slow
def test_parquet_of_datasets_of_hugging_face(root):
    pytest.importorskip("datasets.features")  # this folder has the name of theirs
    datasets = pytest.importorskip("datasets")
    (root / "ds").mkdir()
    for kind, name in zip(KINDS, FILES, strict=True):
        (root / "ds" / kind).mkdir(exist_ok=True)
        os.rename(root / name, root / "ds" / kind / name)
    dataset = datasets.load_dataset(
        "imagefolder", data_dir=str(root / "ds"), split="train", cache_dir=str(root)
    )
    dataset.to_parquet("t.parquet")
    bunch = load_image_frame("t.parquet", path="image", target="label")
    assert bunch.target.tolist() == sorted(KINDS)
    assert bunch.target_names.tolist() == ["ant", "bee"]
    assert [os.path.basename(f) for f in bunch.filenames] == [*FILES[::2], FILES[1]]
    reds = [image.getpixel((0, 0))[0] for image in as_source(bunch.data)]
    assert reds == [7, 11, 8]
    with pytest.raises(TypeError, match="load_torch_dataset takes a Dataset"):
        load_image_frame(dataset)
