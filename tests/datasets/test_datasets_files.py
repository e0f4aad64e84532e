"""Folders and tables of paths."""

import os
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from sklearn_dl._images import as_source
from sklearn_dl.datasets import (
    Channels,
    ImageDecodeError,
    decode_image,
    load_image_folder,
    load_image_frame,
    verify_images,
)


def save(path, colour=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4), (colour, 0, 0)).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    for row, name in enumerate(
        ["bees/2.png", "bees/10.jpg", "bees/deep/er/a.gif", "ants/B.JPG", "ants/a.jpeg"]
    ):
        save(tmp_path / name, 10 * row)
    (tmp_path / "ants" / ".hidden.jpg").write_bytes(b"")
    (tmp_path / ".git").mkdir()
    (tmp_path / "ants" / "notes.txt").write_text("no image")
    (tmp_path / "readme.md").write_text("no image")
    return tmp_path


# ----------------------------------------------------------------- folder


def test_a_folder_gives_paths_in_one_column_and_class_names(folder):
    bunch = load_image_folder(folder)
    expected = [
        "ants/B.JPG",
        "ants/a.jpeg",
        "bees/10.jpg",
        "bees/2.png",
        "bees/deep/er/a.gif",
    ]
    assert [Path(p).relative_to(folder).as_posix() for p in bunch.filenames] == expected
    assert bunch.data.shape == (5, 1)
    assert bunch.data.dtype == object
    assert all(isinstance(path, str) for path in bunch.data[:, 0])
    assert bunch.data[:, 0].tolist() == bunch.filenames.tolist()
    assert bunch.target.tolist() == ["ants"] * 2 + ["bees"] * 3
    assert bunch.target.dtype.kind == "U"
    assert bunch.target_names.tolist() == ["ants", "bees"]
    source = as_source(bunch.data)
    assert set(verify_images(source)["kind"]) == {"one colour"}
    assert source[3].getpixel((0, 0)) == (0, 0, 0)
    X, y = load_image_folder(str(folder), return_X_y=True)
    assert X.tolist() == bunch.data.tolist()
    assert y.tolist() == bunch.target.tolist()


def test_what_was_left_out_of_a_folder_is_listed_hidden_files_aside(folder):
    skipped = load_image_folder(folder).skipped
    assert {Path(path).name: reason for path, reason in skipped.to_numpy()} == {
        "readme.md": "not in a class folder",
        "notes.txt": "not an image by its suffix",
    }


def test_a_folder_is_read_in_the_order_of_torchvision(tmp_path):
    for name in ["b/2.png", "b/10.png", "b/x/1.png", "a/Z.png", "a/b.png", "b/c.jpeg"]:
        save(tmp_path / name)
    reference = ImageFolder(tmp_path)
    bunch = load_image_folder(tmp_path)
    assert bunch.filenames.tolist() == [path for path, _ in reference.samples]
    assert bunch.target.tolist() == [reference.classes[k] for k in reference.targets]


def test_classes_and_extensions_can_be_chosen(folder):
    assert set(load_image_folder(folder, classes=["bees"]).target) == {"bees"}
    for extensions in (["jpg"], [".JPG"], "jpg"):
        bunch = load_image_folder(folder, extensions=extensions)
        assert [Path(path).name for path in bunch.filenames] == ["B.JPG", "10.jpg"]
    with pytest.raises(ValueError, match=r"'beees'.*Did you mean 'bees'"):
        load_image_folder(folder, classes=["beees"])


def test_links_are_followed_and_a_circle_of_links_ends(folder, tmp_path_factory):
    elsewhere = save(tmp_path_factory.mktemp("elsewhere") / "linked.png")
    (folder / "ants" / "link").symlink_to(elsewhere.parent)
    (folder / "ants" / "circle").symlink_to(folder / "ants")
    names = [Path(path).name for path in load_image_folder(folder).filenames]
    assert names.count("linked.png") == 1
    assert names.count("B.JPG") == 1


def test_folder_errors_say_what_is_wrong(folder, tmp_path_factory):
    with pytest.raises(FileNotFoundError, match=r"No such folder: .*nowhere"):
        load_image_folder(folder / "nowhere")
    with pytest.raises(NotADirectoryError, match=r"readme\.md.* is a file"):
        load_image_folder(folder / "readme.md")
    with pytest.raises(ValueError, match=r"1 images lie in it directly.*subfolder"):
        load_image_folder(folder / "bees" / "deep" / "er")
    with pytest.raises(ValueError, match="One subfolder per class"):
        load_image_folder(tmp_path_factory.mktemp("empty"))
    (folder / "wasps").mkdir()
    with pytest.raises(ValueError, match=r"'wasps'.*1 of 3 are empty"):
        load_image_folder(folder)
    with pytest.raises(ValueError, match="verify must be"):
        load_image_folder(folder, verify="maybe")


def test_a_folder_is_verified_only_when_asked(folder):
    (folder / "ants" / "cut.png").write_bytes(b"\x89PNG")
    (folder / "bees" / "zero.jpg").write_bytes(b"")
    assert len(load_image_folder(folder).data) == 7
    for verify in ("raise", True):
        with pytest.raises(ImageDecodeError, match="2 images") as caught:
            load_image_folder(folder, verify=verify)
        names = [Path(path).name for _, path, _ in caught.value.failures]
        assert names == ["cut.png", "zero.jpg"]
        assert "0 bytes" in str(caught.value)
    bunch = load_image_folder(folder, verify="skip")
    assert len(bunch.data) == len(bunch.target) == len(bunch.filenames) == 5
    assert {Path(path).name for path in bunch.skipped["path"]} >= {
        "cut.png",
        "zero.jpg",
    }
    assert set(verify_images(bunch.data)["kind"]) == {"one colour"}


def test_the_ants_and_bees_folder_is_whole():
    assets = os.environ.get("SKLEARN_DL_ASSETS")
    if not assets:
        pytest.skip("SKLEARN_DL_ASSETS is not set: no real photographs")
    bunch = load_image_folder(Path(assets, "hymenoptera_data", "train"))
    names, counts = np.unique(bunch.target, return_counts=True)
    assert dict(zip(names, counts, strict=True)) == {"ants": 124, "bees": 121}
    suffixes = {Path(path).suffix for path in bunch.filenames}
    assert suffixes == {".jpg", ".jpeg", ".gif"}


# ------------------------------------------------------------------ frame


@pytest.fixture
def table(tmp_path):
    for row in range(3):
        save(tmp_path / "photos" / f"{row}.png", row)
    return pd.DataFrame(
        {
            "path": ["0.png", "1.png", "2.png"],
            "kind": ["wasp", "ant", "wasp"],
            "length": [1.5, 2.5, 3.5],
            "legs": [6, 6, 8],
        },
        index=[5, 5, 9],
    )


def test_a_frame_gives_paths_under_root_and_class_names(table, tmp_path):
    bunch = load_image_frame(table, target="kind", root=tmp_path / "photos")
    assert bunch.data.shape == (3, 1)
    assert bunch.target.tolist() == ["wasp", "ant", "wasp"]
    assert bunch.target_names.tolist() == ["ant", "wasp"]
    assert bunch.frame is table
    assert as_source(bunch.data)[2].getpixel((0, 0)) == (2, 0, 0)
    X, y = load_image_frame(
        table, target="kind", root=str(tmp_path / "photos"), return_X_y=True
    )
    assert (X == bunch.data).all()
    assert (y == bunch.target).all()


def test_absolute_paths_ignore_root_and_no_root_leaves_paths(table, tmp_path):
    assert load_image_frame(table, target=None).filenames.tolist() == list(
        table["path"]
    )
    table["path"] = [tmp_path / "photos" / name for name in table["path"]]
    bunch = load_image_frame(table, target=None, root="/elsewhere")
    assert bunch.target is None
    assert bunch.filenames.tolist() == [str(path) for path in table["path"]]


def test_one_target_is_1d_and_several_are_2d(table):
    y = load_image_frame(table, target="length").target
    assert y.dtype == np.float64
    assert y.tolist() == [1.5, 2.5, 3.5]
    bunch = load_image_frame(table, target=["length", "legs"])
    np.testing.assert_array_equal(bunch.target, [[1.5, 6], [2.5, 6], [3.5, 8]])
    assert bunch.target_names == ["length", "legs"]
    assert load_image_frame(table, target=["legs"]).target.shape == (3, 1)


@pytest.mark.parametrize("dtype", ["category", "string", object, "str"])
def test_labels_of_every_text_dtype_become_plain_arrays(table, dtype):
    table["kind"] = table["kind"].astype(dtype)
    y = load_image_frame(table, target="kind").target
    assert type(y) is np.ndarray
    assert y.tolist() == ["wasp", "ant", "wasp"]
    table["legs"] = table["legs"].astype("Int64")
    assert load_image_frame(table, target="legs").target.dtype == np.int64


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "tsv", "parquet", "xlsx"])
def test_a_frame_can_be_a_file(table, tmp_path, suffix):
    file = tmp_path / f"table.{suffix}"
    if suffix == "parquet":
        table.to_parquet(file)
    elif suffix == "xlsx":
        pytest.importorskip("openpyxl")
        table.to_excel(file, index=False)
    else:
        table.to_csv(file, index=False, sep="\t" if suffix == "tsv" else ",")
    bunch = load_image_frame(file, target=["length", "legs"])
    assert bunch.filenames.tolist() == list(table["path"])
    np.testing.assert_array_equal(bunch.target, table[["length", "legs"]])


def test_frame_errors_name_the_column_and_the_row(table, tmp_path):
    with pytest.raises(ValueError, match=r"no column 'paht'.*Did you mean 'path'"):
        load_image_frame(table, path="paht", target=None)
    with pytest.raises(
        ValueError, match=r"no column 'target'. There is 'path', 'kind'"
    ):
        load_image_frame(table)
    with pytest.raises(ValueError, match="2 columns named 'path'"):
        load_image_frame(pd.concat([table, table], axis=1), target=None)
    with pytest.raises(TypeError, match=r"'legs' is to hold paths, row 0 is 6"):
        load_image_frame(table, path="legs", target=None)
    with pytest.raises(ValueError, match="no rows"):
        load_image_frame(table.iloc[:0], target="kind")
    with pytest.raises(FileNotFoundError, match=r"no\.csv"):
        load_image_frame(tmp_path / "no.csv")
    holes = table.reset_index(drop=True)
    holes.loc[1, "path"] = None
    holes.loc[2, ["kind", "length"]] = None
    with pytest.raises(ValueError, match="Missing path in column 'path', row 1"):
        load_image_frame(holes, target="legs")
    for name in ("kind", "length"):
        with pytest.raises(
            ValueError, match=f"Missing value in column '{name}', row 2"
        ):
            load_image_frame(holes.fillna({"path": "x"}), target=name)


def test_a_frame_is_verified_only_when_asked(table, tmp_path):
    root = tmp_path / "photos"
    (root / "1.png").unlink()
    assert len(load_image_frame(table, target="kind", root=root).data) == 3
    with pytest.raises(ImageDecodeError, match=r"row 1, .*1\.png.*no such file"):
        load_image_frame(table, target="kind", root=root, verify="raise")
    bunch = load_image_frame(table, target="kind", root=root, verify="skip")
    assert bunch.target.tolist() == ["wasp", "wasp"]
    assert bunch.skipped["row"].tolist() == [1]
    assert len(bunch.frame) == 2
    with pytest.raises(ValueError, match="None of the 3 images"):
        load_image_frame(table, target="kind", verify="skip")


def test_an_image_is_decoded_as_the_estimators_do(tmp_path):
    path = tmp_path / "glass.png"
    Image.new("RGBA", (4, 3), (0, 0, 0, 0)).save(path)
    image = decode_image(path)
    assert (image.mode, image.size, image.getpixel((0, 0))) == (
        "RGB",
        (4, 3),
        (255,) * 3,
    )
    path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(ImageDecodeError, match=r"glass\.png"):
        decode_image(path)


@pytest.mark.skipif(sys.platform != "linux", reason="names are Unicode")
def test_names_that_are_no_unicode_are_verified_too(tmp_path):
    (tmp_path / "ant").mkdir()
    good, bad = (
        os.fsdecode(os.fsencode(tmp_path / "ant") + b"/\xff" + end)
        for end in (b"1.png", b"2.png")
    )
    Image.new("RGB", (4, 3)).save(good)
    Path(bad).write_bytes(b"no image")
    bunch = load_image_folder(tmp_path, verify="skip")
    assert bunch.data.ravel().tolist() == [good]
    assert bunch.skipped["path"].tolist() == [bad]


def test_files_of_other_channels_are_verified_as_what_they_are(tmp_path):
    for name in ("a/1.npy", "b/2.npy"):
        (tmp_path / name).parent.mkdir()
        np.save(tmp_path / name, np.eye(8, dtype=np.uint8)[..., None].repeat(13, 2))
    (tmp_path / "b" / "3.npy").write_bytes(b"no array")
    options = {"extensions": ["npy"], "verify": "skip", "image_shape": Channels(13)}
    bunch = load_image_folder(tmp_path, **options)
    assert [Path(p).name for p in bunch.filenames] == ["1.npy", "2.npy"]
    table = pd.DataFrame({"path": [*bunch.filenames, str(tmp_path / "b" / "3.npy")]})
    options = {"target": None, "image_shape": Channels(13)}
    with pytest.raises(ImageDecodeError, match=r"3\.npy"):
        load_image_frame(table, verify="raise", **options)
    kept = load_image_frame(table, verify="skip", **options)
    assert list(kept.skipped["row"]) == [2]


def test_verification_lists_arrays_whose_numbers_are_odd():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 65536, (3, 8, 8, 3), dtype=np.uint16)
    images[1] //= 16
    ragged = [images[0], images[1, :6], images[2]]
    floats = images.astype(np.float32) / [[[[65535]]], [[[257]]], [[[65535]]]]
    for X in (images, list(images), ragged, floats):
        with (
            pytest.warns(UserWarning, match="divide X")
            if X is floats
            else nullcontext()
        ):
            found = verify_images(X)
        assert found[["row", "kind"]].to_numpy().tolist() == [[1, "scale"]]


def test_missing_targets_are_no_two_classes():
    X = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), "uint8")[[0, 0, 1]]
    assert len(verify_images(X, [np.nan, np.nan, 1.0])) == 0
    assert len(verify_images(X, [np.nan, 2.0, 1.0])) == 2
    for labels, n in (([pd.NA, pd.NA, "a"], 0), ([pd.NA, "b", "a"], 2)):
        assert len(verify_images(X, pd.Series(labels))) == n
