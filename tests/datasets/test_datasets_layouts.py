"""Folders as people have them: each loads, or says what is wrong and what to write."""

import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from sklearn_dl._images import as_source
from sklearn_dl.datasets import load_image_folder, verify_images

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def write(path):
    """Write an image where the suffix is one of Pillow's or NumPy's, else a few bytes.

    A file without a suffix is a PNG.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = path.suffix.lower()
    if kind in (".heic", ".jxl", ".nef", ".dcm", ".txt"):
        path.write_bytes(b"something else")
    elif kind == ".npy":
        np.save(path, PIXELS)
    else:
        known = Image.registered_extensions()
        Image.fromarray(PIXELS).save(path, format=known.get(kind, "PNG"))


class Layout(NamedTuple):
    """Files, and what a call must give: classes and counts, or a text."""

    files: str
    classes: dict[str, int] | None = None
    warns: str | None = None
    error: str | None = None
    options: dict[str, Any] | None = None


LAYOUTS = {
    "plain classes": Layout("cat/1.jpg cat/2.PNG dog/a/1.webp", {"cat": 2, "dog": 1}),
    "traces of systems": Layout(
        "cat/1.jpg cat/.DS_Store.txt dog/1.jpg __MACOSX/cat/1.txt dog/@eaDir/1.jpg",
        {"cat": 1, "dog": 1},
    ),
    "photographs of telephones among JPEG": Layout(
        "cat/1.jpg cat/2.HEIC cat/3.heic dog/1.jpg dog/note.txt",
        {"cat": 1, "dog": 1},
        warns=r"3 files .* left out.*: 2 \.heic, 1 \.txt\. For \.heic: pip install",
    ),
    "raw photographs beside their JPEG": Layout(
        "cat/1.jpg cat/1.NEF dog/1.jpg dog/1.jxl",
        {"cat": 1, "dog": 1},
        warns=r"\.jxl: pip install pillow-jxl-plugin.*\.nef: develop it",
    ),
    "notes beside images": Layout(
        "cat/1.jpg cat/a.txt dog/1.jpg", {"cat": 1, "dog": 1}
    ),
    "a class of HEIC alone": Layout(
        "cat/1.jpg dog/1.heic dog/2.heic",
        error=r"'dog' .*\(1 of 2 have none\).*2 \.heic\. For .*register_heif_opener",
    ),
    "DICOM": Layout(
        "cat/1.dcm cat/2.dcm dog/1.dcm",
        error=r"2 of 2 .*2 \.dcm\. For \.dcm: .*pydicom",
    ),
    "files without a suffix": Layout(
        "cat/1 cat/2 dog/1", error=r"2 without a suffix\. extensions=\[''\] takes"
    ),
    "files without a suffix, asked for": Layout(
        "cat/1 cat/2.txt dog/1", {"cat": 1, "dog": 1}, options={"extensions": [""]}
    ),
    "arrays": Layout("cat/1.npy dog/1.npy", error=r"\.npy: extensions=\['\.npy'\]"),
    "arrays, asked for": Layout(
        "cat/1.npy cat/1.jpg dog/1.npy",
        {"cat": 1, "dog": 1},
        options={"extensions": [".npy"]},
    ),
    "stereo photographs": Layout("cat/1.mpo dog/1.MPO", {"cat": 1, "dog": 1}),
    "an empty class": Layout("cat/1.jpg dog/", error=r"1 of 2 are empty.* Remove it"),
    "train and val": Layout(
        "train/cat/1.jpg val/cat/1.jpg",
        error=r"parts of a data set, 'train', 'val', not classes.*load.*train'\)",
    ),
    "parts of images without classes": Layout(
        "dev/1.jpg Test/1.jpg", error=r"'Test', 'dev', not classes"
    ),
    "train alone": Layout("train/cat/1.jpg train/dog/1.jpg", error="'train', not cl"),
    "train among others": Layout(
        "notebooks/1.jpg Training_set/cat/1.jpg", error="'Training_set', not classes"
    ),
    "a prefix, and each part within itself": Layout(
        "seg_train/seg_train/sea/1.jpg seg_test/seg_test/sea/1.jpg seg_pred/1.jpg",
        error=r"'seg_pred', 'seg_test', .*load_image_folder\(.*seg_train.seg_train'\)",
    ),
    "an archive of parts": Layout(
        "archive/train2017/cat/1.jpg archive/val2017/cat/1.jpg",
        error=r"'archive.train2017', 'archive.val2017', not classes",
    ),
    "parts that are classes": Layout(
        "train/1.jpg test/1.jpg",
        {"test": 1, "train": 1},
        options={"classes": ["train", "test"]},
    ),
    "a class called train": Layout(
        "car/1.jpg plane/1.jpg train/1.jpg", {"car": 1, "plane": 1, "train": 1}
    ),
    "classes that only sound like parts": Layout(
        "bullet_train/1.jpg steam_train/1.jpg", {"bullet_train": 1, "steam_train": 1}
    ),
    "words with such a word in them": Layout(
        "test_tube/a/1.jpg training_shoe/a/1.jpg", {"test_tube": 1, "training_shoe": 1}
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_folder_loads_or_says_what_to_write(name, tmp_path):
    layout = LAYOUTS[name]
    for file in layout.files.split():
        if file.endswith("/"):
            (tmp_path / file).mkdir()
        else:
            write(tmp_path / file)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if layout.error is not None:
            with pytest.raises(ValueError, match=layout.error):
                load_image_folder(tmp_path, **(layout.options or {}))
            return
        bunch = load_image_folder(tmp_path, **(layout.options or {}))
    told = [str(warning.message) for warning in caught]
    if layout.warns is None:
        assert told == []
    else:
        assert re.search(layout.warns, *told)
    names, counts = np.unique(bunch.target, return_counts=True)
    assert dict(zip(names.tolist(), counts.tolist(), strict=True)) == layout.classes
    assert bunch.target_names.tolist() == sorted(layout.classes)
    source = as_source(bunch.data)
    for row in range(len(source)):
        assert np.asarray(source[row]).shape == PIXELS.shape


def test_an_array_in_a_file_is_the_image_it_was(tmp_path):
    write(tmp_path / "cat" / "1.npy")
    X = load_image_folder(tmp_path, extensions=["npy"]).data
    np.testing.assert_array_equal(as_source(X)[0], PIXELS)


def test_what_other_packages_taught_pillow_to_open_is_taken(tmp_path, monkeypatch):
    from PIL import PngImagePlugin

    class OwnImageFile(PngImagePlugin.PngImageFile):
        format = "OWN"

    for name, table in (("OPEN", {}), ("EXTENSION", {}), ("ID", [])):
        monkeypatch.setattr(Image, name, type(table)(getattr(Image, name)))
    Image.register_open("OWN", OwnImageFile)
    Image.register_extension("OWN", ".own")
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.fromarray(PIXELS).save(tmp_path / name / "1.own", format="PNG")
    X = load_image_folder(tmp_path).data
    assert [Path(path).name for path in X[:, 0]] == ["1.own", "1.own"]
    np.testing.assert_array_equal(np.asarray(as_source(X)[1]), PIXELS)


def test_one_image_in_two_classes_is_found_by_its_content(tmp_path):
    rng = np.random.default_rng(1)
    for name in ("cat/1.png", "cat/2.png", "dog/3.png", "dog/4.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        pixels = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    with Image.open(tmp_path / "cat" / "2.png") as image:  # another file of its pixels
        image.save(tmp_path / "dog" / "again.bmp")
    X, y = load_image_folder(tmp_path, return_X_y=True)
    found = verify_images(X, y)
    assert found["kind"].tolist() == ["two classes"] * 2
    assert [Path(path).name for path in found["path"]] == ["2.png", "again.bmp"]
    assert "in 'cat', has the pixels of row 4" in found["reason"][0]
