"""What other libraries hold images in equals the folder that it was made of.

They are no dependency: ``pip install datasets h5py pillow-heif polars pyarrow zarr``,
then ``pytest -m slow tests/datasets/test_datasets_libraries.py``.
"""

import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.model_selection import GridSearchCV, cross_val_predict

from sklearn_dl import ImageClassifier
from sklearn_dl._images import as_source
from sklearn_dl.datasets import load_image_folder, load_torch_dataset, verify_images

pytestmark = [
    pytest.mark.slow,
    # their own, of what they import
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
]


@pytest.fixture
def folder(tmp_path):
    """Return the bunch of a folder of eight dark ants and eight light bees."""
    rng = np.random.default_rng(0)
    for kind, low in (("ant", 0), ("bee", 120)):
        (tmp_path / "photos" / kind).mkdir(parents=True)
        for k in range(8):
            pixels = rng.integers(low, low + 130, (20, 24, 3), dtype=np.uint8)
            path = tmp_path / "photos" / kind / f"{k}.png"
            Image.fromarray(pixels).save(path)
    return load_image_folder(tmp_path / "photos")


def hugging_face():
    """Return their package, not this folder, which has its name."""
    pytest.importorskip("datasets.features")
    return pytest.importorskip("datasets")


def pixels_of(X):
    source = as_source(X)
    return np.stack([np.asarray(source[row]) for row in range(len(source))])


def classifier():
    return ImageClassifier(
        "mobilenet_v3_small",
        weights="builtin",
        image_size=32,
        max_epochs=2,
        random_state=0,
    )


@pytest.fixture
def hugging(folder, tmp_path, monkeypatch):
    """Return the same folder as a dataset of Hugging Face."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hf = hugging_face()
    kind = hf.Features(
        {"image": hf.Image(), "label": hf.ClassLabel(names=["ant", "bee"])}
    )
    cells = [{"bytes": open(p, "rb").read(), "path": p} for p in folder.filenames]
    codes = [int(name == "bee") for name in folder.target]
    return hf.Dataset.from_dict({"image": cells, "label": codes}, features=kind)


def test_a_dataset_of_hugging_face_has_images_labels_and_names(folder, hugging):
    for dataset in (hugging, hugging.rename_columns({"image": "img", "label": "kind"})):
        bunch = load_torch_dataset(dataset)
        np.testing.assert_array_equal(pixels_of(bunch.data), pixels_of(folder.data))
        assert bunch.target.tolist() == folder.target.tolist()
        assert bunch.target_names.tolist() == folder.target_names.tolist()
    mixed = hugging.shuffle(seed=1)
    bunch = load_torch_dataset(mixed)
    np.testing.assert_array_equal(pixels_of(bunch.data), pixels_of(mixed["image"]))
    assert bunch.target.tolist() == [["ant", "bee"][k] for k in mixed["label"]]


@pytest.mark.parametrize("form", ["numpy", "torch", "pandas", "custom"])
def test_a_format_changes_nothing(folder, hugging, form):
    if form == "custom":
        dataset = hugging.with_transform(
            lambda rows: {"pixel_values": rows["image"], "labels": rows["label"]}
        )
    else:
        dataset = hugging.with_format(form)
    bunch = load_torch_dataset(dataset)
    assert bunch.target.tolist() == folder.target.tolist()
    np.testing.assert_array_equal(pixels_of(bunch.data), pixels_of(folder.data))


def test_columns_go_through_a_search_as_lists_do(hugging):
    X, y = hugging["image"], hugging["label"]
    search = GridSearchCV(classifier(), {"lr": [1e-3, 1e-2]}, cv=2).fit(X, y)
    expected = GridSearchCV(classifier(), {"lr": [1e-3, 1e-2]}, cv=2).fit(X[:], y[:])
    np.testing.assert_array_equal(search.predict_proba(X), expected.predict_proba(X[:]))
    assert search.best_params_ == expected.best_params_
    assert verify_images(X, y).empty
    lazy = load_torch_dataset(hugging)
    predicted = cross_val_predict(classifier(), lazy.data, lazy.target, cv=2)
    assert set(predicted) <= {"ant", "bee"}


def test_labels_of_ten_thousand_rows_come_without_a_decoded_image(monkeypatch):
    hf = hugging_face()
    kind = hf.Features({"img": hf.Image(), "fine_label": hf.ClassLabel(names=["a"])})
    columns = {"img": [{"bytes": b"none", "path": None}] * 10_000}
    columns["fine_label"] = [0] * 10_000
    dataset = hf.Dataset.from_dict(columns, features=kind)
    monkeypatch.delattr(hf.Image, "decode_example")
    bunch = load_torch_dataset(dataset)
    assert bunch.data.shape == (10_000, 1)
    assert set(bunch.target) == {"a"}


@pytest.mark.parametrize(
    "form",
    ["column", "pandas", "pandas frame", "polars", "polars frame", "arrow", "table"],
)
def test_columns_of_structs_are_images(folder, hugging, form, tmp_path):
    pytest.importorskip("polars")
    hf = hugging_face()
    encoded = hugging.cast_column("image", hf.Image(decode=False))
    X = {
        "column": lambda: encoded["image"],
        "pandas": lambda: encoded.to_pandas()["image"],
        "pandas frame": lambda: encoded.to_pandas()[["image"]],
        "polars": lambda: encoded.to_polars()["image"],
        "polars frame": lambda: encoded.to_polars()[["image"]],
        "arrow": lambda: encoded.with_format("arrow")[:]["image"],
        "table": lambda: encoded.with_format("arrow")[:].select(["image"]),
    }[form]()
    np.testing.assert_array_equal(pixels_of(X), pixels_of(folder.data))
    model = classifier().fit(X, folder.target)
    expected = classifier().fit(folder.data, folder.target)
    np.testing.assert_array_equal(
        model.predict_proba(X), expected.predict_proba(folder.data)
    )


def test_structs_of_polars_need_nothing_else(folder, monkeypatch):
    polars = pytest.importorskip("polars")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    paths = np.ravel(folder.data)
    cells = [{"bytes": Path(path).read_bytes(), "path": None} for path in paths]
    for X in (polars.Series("image", cells), polars.DataFrame({"image": cells})):
        np.testing.assert_array_equal(pixels_of(X), pixels_of(folder.data))


def test_structs_beside_labels_are_refused_by_row(hugging):
    pytest.importorskip("polars")
    hf = hugging_face()
    encoded = hugging.cast_column("image", hf.Image(decode=False))
    for table in (encoded.to_pandas(), encoded.to_polars()):
        with pytest.raises(
            ValueError, match=r"2 columns and a (byte string|path) in row 0"
        ):
            as_source(table)


@pytest.fixture(params=["h5py", "zarr"])
def store(request, tmp_path):
    """Return a function that writes an array into a file, and counts no rows."""
    if request.param == "h5py":
        h5py = pytest.importorskip("h5py")
        file = h5py.File(tmp_path / "images.h5", "w")
        yield lambda array: file.create_dataset(f"x{len(file)}", data=array)
        file.close()
    else:
        zarr = pytest.importorskip("zarr")
        yield lambda array: zarr.array(array, chunks=(4, *array.shape[1:]))


def test_arrays_in_files_are_read_by_rows(folder, store):
    images = pixels_of(folder.data)
    floats = (images / 255).astype(np.float32)
    rows = np.ascontiguousarray(images.reshape(16, -1)[:, :1200])  # 20 x 20 x 3
    for array in (images, floats, rows):
        X, rng = store(array), np.random.default_rng(0)
        some = rng.permutation(16)[:7]
        np.testing.assert_array_equal(
            as_source(X).batch(some), as_source(array).batch(some)
        )
        model = classifier().fit(X, folder.target)
        expected = classifier().fit(array, folder.target)
        np.testing.assert_array_equal(
            model.predict_proba(X), expected.predict_proba(array)
        )
    lazy = load_torch_dataset(store(images))
    assert lazy.target is None
    np.testing.assert_array_equal(pixels_of(lazy.data[[3, 1]]), images[[3, 1]])


def test_memory_stays_flat_beside_an_array_in_a_file(tmp_path):
    h5py = pytest.importorskip("h5py")
    shape = (2_000, 224, 224, 3)  # 301 MB
    with h5py.File(tmp_path / "images.h5", "w") as file:
        X = file.create_dataset("x", shape, "uint8", chunks=(8, *shape[1:]))
        tracemalloc.start()
        source = as_source(X).take(np.arange(0, len(X), 2))
        for start in range(0, len(source), 32):
            source.batch(np.arange(start, min(start + 32, len(source))))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert 4 << 20 < peak < 32 << 20  # a batch is 4.8 MB


def test_encoded_images_and_paths_lie_in_files_of_hdf5_too(folder, tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "images.h5", "w") as file:
        paths = file.create_dataset("paths", data=folder.filenames.tolist())
        kind = h5py.vlen_dtype(np.uint8)
        encoded = file.create_dataset("encoded", (16,), dtype=kind)
        for row, path in enumerate(folder.filenames):
            encoded[row] = np.fromfile(path, np.uint8)
        for X in (paths, encoded):
            np.testing.assert_array_equal(pixels_of(X), pixels_of(folder.data))


def test_heic_is_taken_once_its_opener_is_registered(folder, tmp_path, monkeypatch):
    heif = pytest.importorskip("pillow_heif")
    for name, table in (("OPEN", {}), ("EXTENSION", {}), ("ID", []), ("SAVE", {})):
        Image.init()
        monkeypatch.setattr(Image, name, type(table)(getattr(Image, name)))
    for path, label in zip(folder.filenames, folder.target, strict=True):
        (tmp_path / "heic" / label).mkdir(parents=True, exist_ok=True)
        name = path.rsplit("/", 1)[-1].replace(".png", ".heic")
        with Image.open(path) as image:
            exact = {"quality": -1, "chroma": 444, "matrix_coefficients": 0}
            heif.from_pillow(image).save(tmp_path / "heic" / label / name, **exact)
    with pytest.raises(ValueError, match=r"8 \.heic.*register_heif_opener"):
        load_image_folder(tmp_path / "heic")
    heif.register_heif_opener()
    bunch = load_image_folder(tmp_path / "heic")
    assert bunch.target.tolist() == folder.target.tolist()
    np.testing.assert_array_equal(pixels_of(bunch.data), pixels_of(folder.data))
