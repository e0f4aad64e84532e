"""Sheets of pixels."""

import builtins
import gzip
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits

from sklearn_dl._images import as_source
from sklearn_dl.datasets import _csv, load_image_csv

PIXELS = np.random.default_rng(0).integers(0, 256, (11, 16), dtype=np.uint8)
LABELS = np.arange(11) % 3
NAMES = [f"pixel{k}" for k in range(16)]


def write(path, frame, header=True, **options):
    if path.suffix == ".parquet":
        frame.set_axis(map(str, frame.columns), axis=1).to_parquet(path)
    elif path.suffix == ".xlsx":
        pytest.importorskip("openpyxl")
        frame.to_excel(path, index=False, header=header)
    else:
        frame.to_csv(path, index=False, header=header, **options)
    return path


@pytest.fixture(autouse=True, params=[1 << 21, 50])
def parts(request, monkeypatch):
    """Read in one part, and in parts of three rows."""
    monkeypatch.setattr(_csv, "_PART_VALUES", request.param)


@pytest.mark.parametrize(
    "name",
    ["x.csv", "x.csv.gz", "x.csv.bz2", "x.csv.xz", "x.zip", "x.xlsx", "x.parquet"],
)
@pytest.mark.parametrize("header", [True, False])
def test_a_sheet_gives_its_pixels_as_uint8(tmp_path, name, header):
    columns = NAMES if header else range(16)
    frame = pd.DataFrame(PIXELS, columns=columns)
    bunch = load_image_csv(write(tmp_path / name, frame, header))
    assert bunch.data.dtype == np.uint8
    assert bunch.data.flags.writeable
    np.testing.assert_array_equal(bunch.data, PIXELS)
    assert bunch.target is None
    assert bunch.image_shape == (4, 4)
    np.testing.assert_array_equal(
        as_source(bunch.data, image_shape=bunch.image_shape)[3][..., 0],
        PIXELS[3].reshape(4, 4),
    )


@pytest.mark.parametrize("sep", [",", ";", "\t"])
def test_separators_are_found(tmp_path, sep):
    path = write(tmp_path / "x.csv", pd.DataFrame(PIXELS, columns=NAMES), sep=sep)
    np.testing.assert_array_equal(load_image_csv(path).data, PIXELS)


@pytest.mark.parametrize("first", [0, 1])
def test_a_header_that_counts_columns_is_no_image(tmp_path, first):
    frame = pd.DataFrame(PIXELS, columns=range(first, first + 16))
    path = write(tmp_path / "x.csv", frame)
    assert load_image_csv(path).data.shape == (11, 16)
    assert load_image_csv(path, header=False).data.shape == (12, 16)


def test_labels_are_a_column_by_name_or_place_a_file_or_values(tmp_path):
    frame = pd.DataFrame(PIXELS, columns=NAMES)
    frame.insert(2, "label", LABELS)
    both = write(tmp_path / "both.csv", frame)
    bare = write(tmp_path / "bare.csv", frame, header=False)
    images = write(tmp_path / "images.csv", frame.drop(columns="label"))
    labels = {
        "named.csv": pd.DataFrame({"y": LABELS}),
        "named.parquet": pd.DataFrame({"y": LABELS}),
        "named.xlsx": pd.DataFrame({"y": LABELS}),
    }
    calls = [(frame, "label"), (both, "label"), (bare, 2), (both, 2), (both, -15)]
    calls += [(images, write(tmp_path / name, y)) for name, y in labels.items()]
    calls += [(images, write(tmp_path / "bare.txt", labels["named.csv"], header=False))]
    calls += [(images, str(tmp_path / "named.csv"))]
    calls += [(images, y) for y in (LABELS, LABELS.tolist(), pd.Series(LABELS))]
    for sheet, y in calls:
        bunch = load_image_csv(sheet, y)
        np.testing.assert_array_equal(bunch.data, PIXELS)
        assert bunch.target.shape == (11,)
        assert bunch.target.dtype == np.int64
        np.testing.assert_array_equal(bunch.target, LABELS)
        assert bunch.target_names.tolist() == [0, 1, 2]
    X, y = load_image_csv(both, "label", return_X_y=True)
    np.testing.assert_array_equal(X, PIXELS)
    np.testing.assert_array_equal(y, LABELS)


def test_text_labels_with_or_without_a_header_are_told_by_their_number(tmp_path):
    words = np.array(["ant", "bee", "wasp"])[LABELS]
    for name, header in (("with.csv", True), ("without.csv", False)):
        path = write(tmp_path / name, pd.DataFrame({"kind": words}), header)
        bunch = load_image_csv(pd.DataFrame(PIXELS), path)
        assert bunch.target.tolist() == words.tolist()
        assert bunch.target_names.tolist() == ["ant", "bee", "wasp"]


def test_the_image_shape_is_recorded_and_checked():
    frame = pd.DataFrame(PIXELS)
    assert load_image_csv(frame, image_shape=(2, 8)).image_shape == (2, 8)
    assert load_image_csv(frame.iloc[:, :12]).image_shape == (2, 2, 3)
    assert load_image_csv(frame.iloc[:, :10]).image_shape is None
    with pytest.raises(ValueError, match=r"5 \* 5 = 25 .* 16 columns"):
        load_image_csv(frame, image_shape=(5, 5))


@pytest.mark.parametrize(
    ("value", "said"), [(256, "256"), (-1, "-1"), (0.5, "0.5"), ("dark", "'dark'")]
)
@pytest.mark.parametrize("form", ["frame", "x.csv", "x.parquet", "x.xlsx"])
def test_a_value_that_is_no_pixel_is_named(tmp_path, form, value, said):
    frame = pd.DataFrame(PIXELS.astype(int), columns=NAMES)
    frame = frame.astype({"pixel5": type(value) if value != "dark" else str})
    frame.loc[7, "pixel5"] = value
    sheet = frame if form == "frame" else write(tmp_path / form, frame)
    with pytest.raises(ValueError, match=f"row 7, column 'pixel5' holds {said}"):
        load_image_csv(sheet)


def test_an_empty_cell_and_rows_of_other_lengths_are_refused(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("a,b,c,d\n1,2,3,4\n1,2,3\n")
    with pytest.raises(ValueError, match="row 1, column 'd' holds an empty cell"):
        load_image_csv(path)
    for text in ("a,b,c,d\n1,2,3,4\n1,2,3,4,5\n", "9,9,3,4\n1,2,3,4\n1,2,3,4,5\n"):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"x\.csv.* differ in length"):
            load_image_csv(path)
    path.write_text("a,b,c\n1,2,3,4\n1,2,3,4\n")
    with pytest.raises(ValueError, match="differ in length"):
        load_image_csv(path)
    path.write_text("a,b,c,d\n")
    with pytest.raises(ValueError, match="0 images"):
        load_image_csv(path)
    path.write_text("")
    with pytest.raises(ValueError, match="0 bytes"):
        load_image_csv(path)


def test_a_saved_index_is_recognised(tmp_path):
    pd.DataFrame(PIXELS, columns=NAMES).to_csv(tmp_path / "x.csv")
    with pytest.raises(ValueError, match=r"no name \(a saved index"):
        load_image_csv(tmp_path / "x.csv")


def test_labels_in_a_file_may_be_of_several_words(tmp_path):
    (tmp_path / "y.txt").write_text("red ant\n" * (len(PIXELS) - 1) + "big bee\n")
    target = load_image_csv(pd.DataFrame(PIXELS), tmp_path / "y.txt").target
    assert target.tolist() == ["red ant"] * (len(PIXELS) - 1) + ["big bee"]


def test_label_errors_say_what_is_wrong(tmp_path):
    frame = pd.DataFrame(PIXELS, columns=NAMES).assign(label=LABELS)
    with pytest.raises(ValueError, match=r"'lable' is neither.*Did you mean 'label'"):
        load_image_csv(frame, "lable")
    with pytest.raises(ValueError, match="labels=20, but the sheet has 17 columns"):
        load_image_csv(frame, 20)
    pixels = frame[NAMES]
    with pytest.raises(ValueError, match="labels has 10 rows, images has 11"):
        load_image_csv(pixels, LABELS[:10])
    with pytest.raises(ValueError, match="labels has 2 columns"):
        load_image_csv(pixels, pd.DataFrame({"a": LABELS, "b": LABELS}))
    with pytest.raises(
        ValueError, match="Missing value in the column of labels, row 3"
    ):
        load_image_csv(
            frame.assign(label=frame["label"].where(frame.index != 3)), "label"
        )
    with pytest.raises(FileNotFoundError, match=r"no\.csv"):
        load_image_csv(tmp_path / "no.csv")
    with pytest.raises(FileNotFoundError, match=r"no\.csv"):
        load_image_csv(pixels, tmp_path / "no.csv")
    with pytest.raises(TypeError, match="a path or a DataFrame, got list"):
        load_image_csv([1])


def test_a_missing_reader_names_the_extra(tmp_path, monkeypatch):
    path = write(tmp_path / "x.parquet", pd.DataFrame(PIXELS))
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("pyarrow"):
            raise ImportError("No module named 'pyarrow'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"sklearn_dl\[tables\]"):
        load_image_csv(path)


def test_warning_filters_are_left_as_they_were(tmp_path):
    path = write(tmp_path / "x.csv", pd.DataFrame(PIXELS))
    before = list(warnings.filters)
    load_image_csv(path)
    assert warnings.filters == before


@pytest.mark.parametrize("parts", [1 << 21], indirect=True)
def test_memory_stays_near_one_byte_a_pixel(tmp_path, parts):
    path = tmp_path / "large.csv"
    line = ",".join(["200"] * 1000) + "\n"
    path.write_text(line * 12_000)  # 12 MB as uint8, 96 MB as int64
    code = (
        "import resource, sys\n"
        "from sklearn_dl.datasets import load_image_csv\n"
        "load_image_csv(sys.argv[2])\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "data = load_image_csv(sys.argv[1]).data\n"
        "after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert data.shape == (12000, 1000)\n"
        "print((after - before) / 1024)\n"
    )
    small = tmp_path / "small.csv"
    small.write_text(line * 3000)
    pytest.importorskip("resource")
    done = subprocess.run(
        [sys.executable, "-c", code, path, small], capture_output=True, check=True
    )
    assert float(done.stdout) < 40


def test_digits_survive_the_round_trip(tmp_path):
    digits = load_digits()
    frame = pd.DataFrame(digits.data.astype(int)).assign(label=digits.target)
    bunch = load_image_csv(write(tmp_path / "digits.csv", frame.iloc[:100]), "label")
    np.testing.assert_array_equal(bunch.data, digits.data[:100])
    np.testing.assert_array_equal(bunch.target, digits.target[:100])
    assert bunch.image_shape == (8, 8)


@pytest.mark.parametrize("parts", [1 << 21], indirect=True)
def test_mnist_as_a_sheet(tmp_path, parts):
    assets = os.environ.get("SKLEARN_DL_ASSETS")
    if not assets:
        pytest.skip("SKLEARN_DL_ASSETS is not set: no images of MNIST")
    folder = Path(assets, "mnist_t10k")
    raw = gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes())
    images = np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 784)[:200]
    raw = gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes())
    labels = np.frombuffer(raw, np.uint8, offset=8)[:200]
    frame = pd.DataFrame(images)
    frame.insert(0, "label", labels)
    path = write(tmp_path / "mnist.csv.gz", frame, header=False)
    bunch = load_image_csv(path, 0)
    np.testing.assert_array_equal(bunch.data, images)
    np.testing.assert_array_equal(bunch.target, labels)
    assert bunch.image_shape == (28, 28)
