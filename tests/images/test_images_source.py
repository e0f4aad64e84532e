"""Any X becomes the right source, or an error that names the place."""

import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import sparse
from sklearn.utils import Bunch

from sklearn_dl._images import ImageSource, as_source

RNG = np.random.default_rng(0)
STACK = RNG.integers(0, 256, (6, 5, 7, 3), dtype=np.uint8)
ALL = np.arange(6)


def everything(source):
    return source.batch(np.arange(len(source)))


def test_importing_the_room_does_not_import_torch():
    code = (
        "import sys, sklearn_dl._images, sklearn_dl.datasets\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("X", "expected"),
    [
        (STACK, STACK),
        (STACK.transpose(0, 3, 1, 2), STACK),
        (torch.from_numpy(STACK).permute(0, 3, 1, 2), STACK),
        (torch.from_numpy(STACK), STACK),
        (list(STACK), STACK),
        (list(torch.from_numpy(STACK).permute(0, 3, 1, 2)), STACK),
        (STACK[..., 0], STACK[..., :1]),
        (STACK[..., :1], STACK[..., :1]),
        (torch.from_numpy(STACK[..., 0]), STACK[..., :1]),
        (list(STACK[..., 0]), STACK[..., :1]),
        (STACK.tolist(), STACK),
        (np.array(STACK.tolist(), dtype=object), STACK),
    ],
)
def test_every_arrangement_of_the_same_images_gives_the_same_pixels(X, expected):
    source = as_source(X)
    assert isinstance(source, ImageSource)
    assert source.kind == "array"
    assert source.stackable
    assert source.n_features is None
    assert source.image_shape == expected.shape[1:]
    assert len(source) == 6
    np.testing.assert_array_equal(everything(source), expected)
    for row in (0, 5, -1):
        np.testing.assert_array_equal(source[row], expected[row])
    with pytest.raises(IndexError, match="row 6"):
        source[6]
    assert as_source(source) is source


def test_ambiguous_axes_are_read_last_for_arrays_and_first_for_tensors():
    X = RNG.integers(0, 256, (2, 3, 9, 3), dtype=np.uint8)
    assert as_source(X).image_shape == (3, 9, 3)
    assert as_source(torch.from_numpy(X)).image_shape == (9, 3, 3)
    assert as_source(X, image_shape=(9, 3, 3)).image_shape == (9, 3, 3)
    with pytest.raises(ValueError, match=r"\(2, 5, 7, 9\) has no axis of channels"):
        as_source(np.zeros((2, 5, 7, 9), np.uint8))


@pytest.mark.parametrize("make", [np.ascontiguousarray, list])
def test_batch_is_a_writable_contiguous_copy(make):
    X = STACK.copy()
    X.setflags(write=False)
    for data in (X, X.transpose(0, 3, 1, 2)):
        out = as_source(make(data)).batch(np.array([4, 1, 4]))
        assert out.flags.c_contiguous
        assert out.flags.writeable
        out[:] = 0
        np.testing.assert_array_equal(X, STACK)
    np.testing.assert_array_equal(as_source(make(X)).batch(ALL % 2 == 0), STACK[::2])
    assert as_source(make(X)).batch(np.array([], dtype=int)).shape == (0, 5, 7, 3)


def test_memory_maps_are_not_read_into_memory(tmp_path):
    mapped = np.lib.format.open_memmap(
        tmp_path / "x.npy", mode="w+", dtype=np.float32, shape=(6, 5, 7, 3)
    )
    mapped[:] = STACK / np.float32(255)
    mapped.flush()
    X = np.load(tmp_path / "x.npy", mmap_mode="r")
    source = as_source(X)
    assert np.shares_memory(source._data, X)
    out = source.batch(ALL[:2])
    assert out.flags.writeable
    np.testing.assert_array_equal(out, X[:2])
    rows = X.reshape(6, -1)
    assert np.shares_memory(as_source(rows, image_shape=(5, 7, 3))._data, X)


# ------------------------------------------------------------------ dtypes


def test_the_dtype_says_what_numbers_mean():
    def one(values, dtype):
        return as_source(np.array(values, dtype).reshape(-1, 1, 2, 1))

    assert everything(one([0, 1], bool)).ravel().tolist() == [0, 255]
    assert everything(one([0, 255], np.int64)).dtype == np.uint8
    deep = everything(one([256, 65535], np.uint16))
    assert deep.dtype == np.float32
    assert deep.ravel().tolist() == pytest.approx([256 / 65535, 1])
    for dtype in (np.float16, np.float32, np.float64):
        out = everything(one([0.25, 1], dtype))
        assert out.dtype == np.float32
        assert out.ravel().tolist() == [0.25, 1]
    half = torch.tensor([0.25, 1], dtype=torch.bfloat16).reshape(1, 1, 1, 2)
    assert everything(as_source(half)).ravel().tolist() == [0.25, 1]


def test_integers_outside_0_255_keep_their_scale_and_warn():
    X = np.array([[[0, -51, 510, 255, 5]]], dtype=np.int32)
    with pytest.warns(UserWarning, match="from -51 to 510, outside 0-255"):
        out = everything(as_source(X))
    np.testing.assert_allclose(out.ravel(), X.ravel() / 255, rtol=1e-6)
    with pytest.warns(UserWarning, match="nearly black"):
        as_source(np.full((1, 2, 2), 200, np.uint16))


def test_floats_outside_0_1_warn_once_and_are_kept():
    with pytest.warns(UserWarning, match="look like 0-255: divide X by 255") as seen:
        source = as_source(STACK.astype(float))
    assert len(seen) == 1
    assert everything(source).max() == STACK.max()
    with pytest.warns(UserWarning, match=r"from -2\.5 to 1") as seen:
        as_source(np.array([[-2.5, 1, 0, 0]]))
    assert "0-255" not in str(seen[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        as_source(STACK / 255)


@pytest.mark.parametrize(
    ("value", "word"), [(np.nan, "NaN"), (np.inf, "infinity"), (1e39, "infinity")]
)
def test_nan_and_infinity_are_refused_by_their_row(value, word):
    X = np.zeros((6, 5, 7, 3))
    X[4, 2, 3, 1] = value
    for form in (X, X.reshape(6, -1), torch.from_numpy(X), list(X)):
        with pytest.raises(ValueError, match=f"Input X contains {word}.*row 4"):
            as_source(form, image_shape=(5, 7, 3))
    uneven = [*X, np.zeros((2, 2))]
    with pytest.raises(ValueError, match=f"Input X contains {word}.*row 4"):
        as_source(uneven)


def test_float_alpha_is_laid_over_white():
    X = np.array([[[[0.2, 0.4, 0.6, 0.5]]]])
    np.testing.assert_allclose(
        everything(as_source(X)).ravel(), [0.6, 0.7, 0.8], rtol=1e-6
    )
    assert as_source(X).image_shape == (1, 1, 3)


# ---------------------------------------------------------- rows of pixels


@pytest.mark.parametrize(
    ("d", "image_shape", "expected"),
    [
        (784, None, (28, 28, 1)),
        (3 * 64, None, (8, 8, 3)),
        (1, None, (1, 1, 1)),
        (105, (5, 7, 3), (5, 7, 3)),
        (35, (5, 7), (5, 7, 1)),
        (35, np.array([5, 7, 1]), (5, 7, 1)),
        (36, (3, 3, 4), (3, 3, 3)),
    ],
)
def test_rows_of_pixels_are_reshaped_channels_last(d, image_shape, expected):
    X = RNG.integers(0, 256, (3, d), dtype=np.uint8)
    source = as_source(X, image_shape=image_shape)
    assert source.kind == "pixels"
    assert source.n_features == d
    assert source.image_shape == expected
    if expected[2] * expected[0] * expected[1] == d:
        np.testing.assert_array_equal(everything(source), X.reshape(-1, *expected))
    np.testing.assert_array_equal(source[2], everything(source)[2])


def test_rows_that_are_no_square_are_padded_with_a_warning():
    X = RNG.integers(0, 256, (3, 10), dtype=np.uint8)
    with pytest.warns(UserWarning, match="10 columns.*4 x 4.*image_shape"):
        source = as_source(X)
    padded = np.zeros((3, 16), np.uint8)
    padded[:, :10] = X
    np.testing.assert_array_equal(everything(source), padded.reshape(3, 4, 4, 1))


@pytest.mark.parametrize(
    "make",
    [
        lambda X: X.tolist(),
        lambda X: tuple(map(tuple, X.tolist())),
        lambda X: list(X),
        pd.DataFrame,
        lambda X: pd.DataFrame(X).astype("Int64"),
        lambda X: X.astype(np.int64),
        torch.from_numpy,
    ],
)
def test_lists_frames_and_tensors_of_rows_are_rows(make):
    X = RNG.integers(0, 256, (3, 16), dtype=np.uint8)
    source = as_source(make(X))
    assert source.n_features == 16
    assert everything(source).dtype == np.uint8
    np.testing.assert_array_equal(everything(source), X.reshape(3, 4, 4, 1))


def test_object_rows_of_numbers_are_converted_to_float():
    X = np.array([[0.0, 0.5, 1.0, 0.25]], dtype=object)
    assert everything(as_source(X)).ravel().tolist() == [0, 0.5, 1, 0.25]
    X[0, 0] = {"a": 1}
    with pytest.raises(TypeError, match=r"argument must be a string.* number"):
        as_source(X)


def test_a_wrong_image_shape_names_both_products():
    X = np.zeros((2, 784), np.uint8)
    with pytest.raises(ValueError, match=r"28 \* 27 = 756 .* 784 columns"):
        as_source(X, image_shape=(28, 27))
    with pytest.raises(ValueError, match=r"\(4, 4, 3\), but .* \(5, 7, 3\)"):
        as_source(STACK, image_shape=(4, 4, 3))
    for bad in (28, (28,), (28, 0), "28x28", (2.5, 3), (1, 2, 3, 4)):
        with pytest.raises(ValueError, match="image_shape must be"):
            as_source(X, image_shape=bad)
    with pytest.raises(ValueError, match=r"28 channels.*Channels come last"):
        as_source(X, image_shape=(1, 28, 28))


# -------------------------------------------------------- scikit-learn's words


@pytest.mark.parametrize(
    ("X", "error", "words"),
    [
        ([], ValueError, r"0 sample\(s\) .*minimum of 1 is required"),
        (np.zeros((0, 4)), ValueError, r"0 sample\(s\) .*minimum of 1 is required"),
        (np.zeros((0, 4, 4)), ValueError, r"0 sample\(s\) \(shape=\(0, 4, 4\)\)"),
        (np.array([], dtype=object), ValueError, r"0 sample\(s\)"),
        (pd.DataFrame({"path": []}, dtype=object), ValueError, r"0 sample\(s\)"),
        (np.zeros((3, 0)), ValueError, r"0 feature\(s\) \(shape=\(3, 0\)\)"),
        (np.zeros((3, 0, 4)), ValueError, "without pixels"),
        (np.zeros(3), ValueError, "Expected 2D array, got 1D array"),
        ([1, 2, 3], ValueError, "Expected 2D array, got 1D array"),
        (pd.Series([1.0, 2]), ValueError, "Expected 2D array, got 1D array"),
        (np.ones((2, 4)) * 1j, ValueError, "Complex data not supported"),
        (np.ones((2, 4, 5)) * 1j, ValueError, "Complex data not supported"),
        (sparse.csr_array(np.eye(3)), TypeError, "[Ss]parse data"),
        (sparse.dok_array(np.eye(3)), TypeError, "[Ss]parse data"),
        ([[1, 2], [3]], ValueError, "different lengths"),
        (np.zeros((1, 1, 1, 1, 1)), ValueError, "5 axes"),
        (np.zeros((5, 7, 3), np.uint8), ValueError, r"one image: pass X\[None\]"),
        (list(np.zeros((5, 7, 3), np.uint8)), ValueError, "one image"),
        ("a.jpg", TypeError, r"one path: .*\['a.jpg'\]"),
        (Path("a.jpg"), TypeError, "one path"),
        (b"abc", TypeError, "one byte string"),
        (Image.new("RGB", (2, 2)), TypeError, "one PIL image"),
        (Bunch(data=[1]), TypeError, "Pass its `data`"),
        (iter(["a.jpg"]), TypeError, "X may be .*got list_iterator"),
        (
            torch.utils.data.TensorDataset(torch.ones(3)),
            TypeError,
            "load_torch_dataset",
        ),
        ([{}, {}], TypeError, "row 0 is of type dict"),
        (np.array([b"ab\0", b"cd"]), ValueError, "zero bytes"),
        (["a.jpg", b"x"], ValueError, "row 0 is a path, row 1 is a byte string"),
        (["a.jpg", "b.jpg", 3], ValueError, "mixes forms: .*row 2 is a number"),
        ([Image.new("L", (1, 1)), "a.jpg"], ValueError, "row 1 is a path"),
        (["a.jpg", None], ValueError, r"missing value \(None\) in row 1"),
        ([None, "a.jpg"], ValueError, r"missing value \(None\) in row 0"),
        (pd.Series(["a.jpg", None]), ValueError, "missing value.* in row 1"),
        (pd.Series(["a", pd.NA], dtype="string"), ValueError, "missing value.* row 1"),
        (pd.DataFrame({"p": ["a", np.nan]}), ValueError, "missing value.* in row 1"),
        (np.array([["a", "b"]]), ValueError, "2 columns and a path in row 0"),
        (pd.DataFrame({"p": ["a"], "q": [1]}), ValueError, "images take one column"),
    ],
)
def test_what_is_no_x_is_refused_with_the_place_and_the_way_out(X, error, words):
    with pytest.raises(error, match=words):
        as_source(X)


def test_narrow_grey_images_are_taken_when_image_shape_says_so():
    X = RNG.integers(0, 256, (6, 5, 3), dtype=np.uint8)
    np.testing.assert_array_equal(
        everything(as_source(X, image_shape=(5, 3))), X[..., None]
    )
    with pytest.raises(ValueError, match="one image"):
        as_source(X, image_shape=(6, 5, 3))


# ------------------------------------------------------------ paths and objects


@pytest.fixture
def files(tmp_path):
    paths = []
    for row, image in enumerate(STACK[:3]):
        paths.append(str(tmp_path / f"{row}.png"))
        Image.fromarray(image).save(paths[-1])
    return paths


@pytest.mark.parametrize(
    ("make", "n_features"),
    [
        (list, None),
        (tuple, None),
        (lambda p: [Path(p[0]), *p[1:]], None),
        (np.array, None),
        (lambda p: np.array(p, dtype=object), None),
        (pd.Series, None),
        (lambda p: pd.Series(p, dtype="string"), None),
        (lambda p: pd.Series(p, dtype="category"), None),
        (lambda p: pd.Series(p, dtype=object, index=[7, 7, 7]), None),
        (pd.Index, None),
        (lambda p: np.array(p)[:, None], 1),
        (lambda p: np.array(p, dtype=object)[:, None], 1),
        (lambda p: [[path] for path in p], 1),
        (lambda p: pd.DataFrame({"path": p}), 1),
        (lambda p: pd.DataFrame({"path": map(Path, p)}), 1),
    ],
)
def test_every_container_of_paths_is_read_lazily(files, make, n_features):
    source = as_source(make(files))
    assert source.kind == "paths"
    assert source.n_features == n_features
    assert not source.stackable
    assert [source.path(row) for row in range(3)] == files
    for row in range(3):
        np.testing.assert_array_equal(np.asarray(source[row]), STACK[row])
    with pytest.raises(TypeError, match="'paths' have no common shape"):
        source.batch(ALL[:2])
    assert as_source(make(["/none/a.jpg"] * 3)).path(0) == "/none/a.jpg"


@pytest.mark.parametrize("column", [False, True])
def test_pil_bytes_and_uneven_arrays_are_objects(files, column):
    pil = [Image.open(path) for path in files]
    uneven = [STACK[0], STACK[1][:3], STACK[2].transpose(2, 0, 1)]
    for objects in (pil, [Path(p).read_bytes() for p in files], uneven):
        X = np.empty(3, dtype=object)
        X[:] = objects
        source = as_source(X[:, None] if column else X)
        assert source.kind == "objects"
        assert source.n_features == (1 if column else None)
        assert not source.stackable
        np.testing.assert_array_equal(np.asarray(source[0]), STACK[0])
        np.testing.assert_array_equal(np.asarray(source[2]), STACK[2])
    assert as_source(pil).path(1) == files[1]
    for image in pil:
        image.close()


def test_uneven_arrays_follow_the_rules_of_stacked_ones():
    floats = [np.full((2, 2), 0.5), np.full((2, 3, 4), 0.5, np.float32)]
    source = as_source(floats)
    assert source[0].shape == (2, 2, 1)
    assert source[0].dtype == np.float32
    assert source[1].shape == (2, 3, 3)
    np.testing.assert_allclose(source[1], 0.75)
    with pytest.warns(UserWarning, match="0-255") as seen:
        as_source([np.full((2, 2), 200.0), np.full((2, 5), 250.0)])
    assert len(seen) == 1
    with pytest.raises(ValueError, match="Row 1 of X is no image"):
        as_source([np.zeros((2, 2)), np.zeros((2, 2, 2, 2))])
    tensors = [torch.zeros(3, 4, 3), torch.zeros(3, 5, 3)]
    assert as_source(tensors)[0].shape == (4, 3, 3)


def test_sources_can_be_pickled_for_worker_processes(files):
    for X in (files, STACK, list(STACK), STACK.reshape(6, -1)):
        copy = pickle.loads(
            pickle.dumps(as_source(X, image_shape=None if X is files else (5, 7, 3)))
        )
        np.testing.assert_array_equal(np.asarray(copy[1]), STACK[1])
