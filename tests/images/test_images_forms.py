"""Forms of X beyond lists and arrays: sequences, cells of bytes, arrays in files."""

import collections
import io
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sklearn_dl._images import as_source

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), dtype=np.uint8)


def encoded(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


BYTES = [encoded(pixels) for pixels in IMAGES]
CELLS = [{"bytes": content, "path": f"{row}.png"} for row, content in enumerate(BYTES)]


class Items(Sequence):
    """A sequence that makes its items, and counts how often it does."""

    def __init__(self, make, n=5):
        self.make, self.n, self.made = make, n, []

    def __len__(self):
        return self.n

    def __getitem__(self, row):
        if row >= self.n:
            raise IndexError(row)
        self.made.append(row)
        return self.make(row)


class Stored:
    """An array in a file, which takes slices and counts the rows it reads."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self.read = 0

    def __len__(self):
        return len(self.array)

    def __array__(self, dtype=None, copy=None):
        raise AssertionError("read whole")

    def __getitem__(self, rows):
        if not isinstance(rows, slice):
            raise TypeError("lists of rows take long")
        taken = self.array[rows]
        self.read += len(taken)
        return taken


def pixels_of(source):
    return np.stack([np.asarray(source[row]) for row in range(len(source))])


@pytest.mark.parametrize("make", [collections.UserList, collections.deque])
def test_any_sequence_is_read_as_a_list(make):
    np.testing.assert_array_equal(pixels_of(as_source(make(BYTES))), IMAGES)
    np.testing.assert_array_equal(as_source(make(IMAGES)).batch([1, 0]), IMAGES[[1, 0]])
    assert as_source(make(["a.png", "b.png"])).path(1) == "b.png"
    with pytest.raises(ValueError, match="0 sample"):
        as_source(make([]))
    with pytest.raises(ValueError, match=r"missing value \(None\) in row 1"):
        as_source(make(["a.png", None]))


def test_a_sequence_that_decodes_images_is_read_row_by_row():
    items = Items(lambda row: Image.fromarray(IMAGES[row]))
    source = as_source(items)
    assert items.made == [0]  # to see what it holds
    np.testing.assert_array_equal(pixels_of(source.take([3, 1])), IMAGES[[3, 1]])
    assert items.made == [0, 3, 1]


def test_an_image_that_a_sequence_cannot_decode_is_named_by_its_row():
    def make(row):
        return Image.open(io.BytesIO(b"no image" if row == bad else BYTES[row]))

    for bad in (0, 3):
        with pytest.raises(ValueError, match=f"row {bad}"):
            pixels_of(as_source(Items(make)))


@pytest.mark.parametrize(
    "make",
    [
        list,
        lambda cells: pd.Series(cells, index=range(9, 4, -1)),
        lambda cells: pd.DataFrame({"image": cells}),
        lambda cells: pd.DataFrame({"image": cells}).to_numpy(),
        collections.UserList,
    ],
    ids=["list", "Series", "frame", "column", "sequence"],
)
def test_cells_of_bytes_and_path_are_what_they_hold(make, tmp_path):
    source = as_source(make(CELLS))
    np.testing.assert_array_equal(pixels_of(source), IMAGES)
    assert source.digests([2]) == as_source(BYTES).digests([2])
    (tmp_path / "1.png").write_bytes(BYTES[1])
    source = as_source(make([{"bytes": None, "path": str(tmp_path / "1.png")}] * 5))
    assert source.path(4) == str(tmp_path / "1.png")
    np.testing.assert_array_equal(np.asarray(source[4]), IMAGES[1])
    source = as_source(make([*CELLS[:4], {"path": str(tmp_path / "1.png")}]))
    assert source.path(3) is None
    np.testing.assert_array_equal(pixels_of(source), IMAGES[[0, 1, 2, 3, 1]])
    with pytest.raises(ValueError, match=r"missing value .* in row 4"):
        as_source(make([*CELLS[:4], {"bytes": None, "path": None}]))


def test_cells_beside_labels_name_the_column_to_take():
    table = pd.DataFrame({"image": CELLS, "label": range(5)})
    with pytest.raises(ValueError, match="byte string in row 0, column 0"):
        as_source(table)


def test_an_array_in_a_file_is_read_by_rows():
    stored = Stored(IMAGES)
    source = as_source(stored)
    assert stored.read == 0
    np.testing.assert_array_equal(source.batch([4, 1, 4]), IMAGES[[4, 1, 4]])
    assert stored.read == 2
    part = source.take([3, 0, 1])
    assert stored.read == 2
    np.testing.assert_array_equal(part.batch([2, 0]), IMAGES[[1, 3]])
    np.testing.assert_array_equal(part.take([1]).batch([0]), IMAGES[[0]])
    assert source.digests([2, 2]) == as_source(IMAGES).digests([2, 2])
    assert part.batch(np.array([], dtype=int)).shape == (0, 6, 7, 3)


def test_rows_of_pixels_and_floats_may_be_in_a_file_too():
    rows = IMAGES.reshape(5, -1)
    source = as_source(Stored(rows), image_shape=(6, 7, 3))
    assert source.n_features == 6 * 7 * 3
    np.testing.assert_array_equal(source.batch([3, 1]), IMAGES[[3, 1]])
    floats = (IMAGES / 255).astype(np.float32)
    floats[3, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN: first in row 3"):
        as_source(Stored(floats))
    with pytest.raises(ValueError, match="0 sample"):
        as_source(Stored(rows[:0]))
