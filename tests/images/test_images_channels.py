"""Images of any number of channels: what is read of arrays and files."""

import io
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone

from sklearn_dl._images import as_source
from sklearn_dl.datasets import Channels, ImageDecodeError

RNG = np.random.default_rng(0)
TILES = RNG.integers(0, 65536, (3, 40, 30, 13), dtype=np.uint16)
PIXELS = (TILES / np.float32(65535)).astype(np.float32)


def read(X, image_shape=None):
    source = as_source(X, image_shape=image_shape)
    return np.stack([np.asarray(source[row]) for row in range(len(source))])


def tiff_files(folder, **options):
    tifffile = pytest.importorskip("tifffile")
    paths = []
    for row, tile in enumerate(TILES):
        paths.append(str(folder / f"{row}.tif"))
        last = options.get("planarconfig") == "contig"
        array = tile if last else tile.transpose(2, 0, 1)
        tifffile.imwrite(paths[-1], array, photometric="minisblack", **options)
    return paths


@pytest.mark.parametrize(
    "X",
    [
        TILES,
        TILES.transpose(0, 3, 1, 2),
        list(TILES),
        torch.from_numpy(PIXELS.transpose(0, 3, 1, 2)),
        list(PIXELS),
    ],
    ids=["last", "first", "list", "tensor", "floats"],
)
def test_arrays_of_many_channels_are_read_without_being_asked_for(X):
    assert np.array_equal(read(X), PIXELS)
    source = as_source(X)
    assert (source.channels.n, source.channels.rgb) == (13, False)


def test_arrays_of_different_sizes_have_one_number_of_channels():
    source = as_source([TILES[0], TILES[1][:35]])
    assert source.channels.n == 13
    assert np.array_equal(source[1], PIXELS[1][:35])
    mixed = as_source([TILES[0], TILES[1][:35, :, :12]])
    with pytest.raises(ImageDecodeError, match=r"row 1: .* with 13 channels expected"):
        mixed[1]


def test_rows_of_pixels_have_as_many_channels_as_their_shape_says():
    rows = TILES.reshape(3, -1)
    for shape in ((40, 30, 13), Channels(13, shape=(40, 30))):
        source = as_source(rows, image_shape=shape)
        assert source.image_shape == (40, 30, 13)
        assert source.batch([0]).shape == (1, 40, 30, 13)
    picked = Channels([3, 1], shape=(40, 30, 13))
    expected = read(rows, (40, 30, 13))[..., [3, 1]]
    assert np.array_equal(read(rows, picked), expected)


@pytest.mark.parametrize(
    ("shape", "asked", "reason"),
    [
        ((2, 12, 16, 10), None, "no axis of channels.*asks for any other number"),
        ((2, 40, 30, 13), Channels(12), "no axis of channels.*with 12 channels"),
        ((2, 40, 30, 3), Channels([0, 3]), "with at least 4 channels expected"),
        ((2, 40, 30), Channels(13), "no axis of channels"),
        ((2, 100), Channels([1, 0]), "how many channels there are"),
    ],
)
def test_axes_that_hold_no_such_channels_are_refused(shape, asked, reason):
    with pytest.raises(ValueError, match=reason):
        as_source(np.zeros(shape, np.uint8), image_shape=asked)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (Channels(0), "at least 1"),
        (Channels(True), "at least 1"),
        (Channels([]), "positions from 0"),
        (Channels([0, -1]), "positions from 0"),
        (Channels("rgb"), "got 'rgb'"),
        (Channels(4, rgb="yes"), "rgb must be"),
        (Channels(2, rgb=True), "needs three channels"),
        (Channels(13, shape=(4,)), "image_shape must be"),
    ],
)
def test_what_is_no_channels_is_refused(asked, reason):
    with pytest.raises(ValueError, match=reason):
        as_source(TILES, image_shape=asked)


def test_a_fourth_channel_is_transparency_unless_it_is_asked_for(tmp_path):
    four = RNG.integers(0, 256, (2, 20, 24, 4), dtype=np.uint8)
    paths = [str(tmp_path / f"{row}.png") for row in range(2)]
    for path, image in zip(paths, four, strict=True):
        Image.fromarray(image).save(path)
    assert read(four).shape == read(paths).shape == (2, 20, 24, 3)
    for X in (four, paths, [Image.fromarray(image) for image in four]):
        assert np.array_equal(read(X, Channels(4)), four)
        assert np.array_equal(read(X, Channels([3, 0])), four[..., [3, 0]])


@pytest.mark.parametrize(
    "options",
    [{"planarconfig": "contig"}, {"planarconfig": "separate"}, {}, {"byteorder": ">"}],
    ids=["contig", "separate", "pages", "big-endian"],
)
def test_bands_of_a_tiff_are_those_of_the_array(tmp_path, options):
    paths = tiff_files(tmp_path, **options)
    assert np.array_equal(read(paths, Channels(13)), PIXELS)
    assert np.array_equal(read(paths, Channels([3, 2, 1])), PIXELS[..., [3, 2, 1]])
    content = [open(path, "rb").read() for path in paths]
    assert np.array_equal(read(content, Channels(13)), PIXELS)


@pytest.mark.parametrize(
    ("tag", "turned"),
    [
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: np.rot90(a, 2)),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.swapaxes(0, 1)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: np.rot90(a, 2).swapaxes(0, 1)),
        (8, lambda a: np.rot90(a)),
    ],
)
def test_the_orientation_of_a_tiff_is_applied(tmp_path, tag, turned):
    extra = [(274, "H", 1, tag, True)]
    paths = tiff_files(tmp_path, planarconfig="contig", extratags=extra)
    source = as_source(paths, image_shape=Channels(13))
    assert np.array_equal(source[0], turned(PIXELS[0]))


def test_npy_files_hold_images_of_any_number_of_channels(tmp_path):
    paths = [str(tmp_path / f"{row}.npy") for row in range(3)]
    for path, tile in zip(paths, TILES, strict=True):
        np.save(path, tile)
    assert np.array_equal(read(paths, Channels(13)), PIXELS)
    with pytest.raises(ImageDecodeError, match=r"row 0, .*0\.npy.*asks for any other"):
        as_source(paths)[0]
    for path, tile in zip(paths, TILES, strict=True):
        np.save(path, tile[..., :3])
    assert np.array_equal(read(paths), PIXELS[..., :3])
    np.save(paths[0], np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ImageDecodeError, match="allow_pickle=False"):
        as_source(paths)[0]


def test_a_file_of_other_channels_is_named_with_its_row(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(TILES[0, ..., :3].astype(np.uint8)).save(path)
    source = as_source([str(path)], image_shape=Channels(13))
    with pytest.raises(
        ImageDecodeError, match=r"row 0, .*photo\.png.*has 3 channels, not 13"
    ):
        source[0]
    source = as_source([str(path)], image_shape=Channels([0, 5]))
    with pytest.raises(ImageDecodeError, match="has 3 channels, and so no channel 5"):
        source[0]


def test_photographs_become_grey_for_one_channel_and_grey_ones_rgb_for_three():
    photo = Image.fromarray(RNG.integers(0, 256, (20, 24, 3), dtype=np.uint8))
    grey = photo.convert("L")
    file = io.BytesIO()
    grey.save(file, "PNG")
    expected = np.asarray(grey)[None, ..., None]
    for image in (photo, grey, file.getvalue()):
        assert np.array_equal(read([image], Channels(1)), expected)
    assert np.array_equal(read([photo], Channels(3)), np.asarray(photo)[None])
    swapped = read([photo], Channels([2, 1, 0]))
    assert np.array_equal(swapped, np.asarray(photo)[None, ..., ::-1])


def test_digests_tell_which_channels_are_taken(tmp_path):
    paths = tiff_files(tmp_path, planarconfig="contig")
    for X in (TILES, paths, [open(path, "rb").read() for path in paths]):
        found = [
            tuple(as_source(X, image_shape=asked).digests(range(3)))
            for asked in (Channels(13), Channels([3, 2, 1]), Channels([1, 2, 3]))
        ]
        assert len({digest for digests in found for digest in digests}) == 9
        again = as_source(X, image_shape=Channels([3, 2, 1])).digests(range(3))
        assert tuple(again) == found[1]
        assert as_source(X, image_shape=Channels(13)).digests([1]) == [found[0][1]]


def test_channels_are_a_value_that_clones_and_grids_take():
    asked = Channels([3, 2, 1], rgb=True, shape=(8, 8, 13))
    for copied in (clone(asked), pickle.loads(pickle.dumps(asked))):
        assert copied.get_params() == asked.get_params()
    assert repr(asked).startswith("Channels(channels=[3, 2, 1], rgb=True")
