"""Images of any number of channels: what is read of arrays and files."""

import io
import pickle
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile
import torch
from odd_files import packed, png_of, tiff
from PIL import Image
from sklearn.base import clone

from sklearn_dl._images import as_source
from sklearn_dl.datasets import Channels, ImageDecodeError, verify_images

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
        ((2, 40, 30, 13), Channels(1), "with 1 channel expected"),
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


def palette_tiff():
    stream = io.BytesIO()
    image = Image.new("P", (16, 16), 1)
    image.putpalette([0, 0, 0, 255, 51, 0])
    image.save(stream, "TIFF")
    return stream.getvalue()


def flat(value, n, dtype, **tags):
    layout = {"planarconfig": "contig"} if n > 1 else {}
    shape = (24, 20, n) if n > 1 else (24, 20)
    return tiff(np.full(shape, value, dtype), **layout, **tags)


def pages(*images, **tags):
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        for array, options in images:
            writer.write(array, metadata=None, **{**tags, **options})
    return stream.getvalue()


def thumbnail_first():
    small = np.full((6, 5), 9, "u1"), {"subfiletype": 1}
    planes = [(np.full((24, 20), value, "u1"), {}) for value in (51, 102)]
    return pages(small, *planes, photometric="minisblack")


@pytest.mark.parametrize(
    ("make", "asked", "expected"),
    [
        (lambda: flat(51, 1, "u1", photometric="miniswhite"), [0], [0.8]),
        (lambda: flat(51, 5, "u1", photometric="miniswhite"), 5, [0.8] * 5),
        (lambda: flat(2**31, 4, "u4"), 4, [0.5] * 4),
        (lambda: flat(2**31, 3, "u4", photometric="rgb"), [2, 0], [0.5] * 2),
        (lambda: packed(np.full(64, 819), 12), [0], [0.2]),
        (palette_tiff, [1, 0], [0.2, 1]),
        (thumbnail_first, 2, [0.2, 0.4]),
        (thumbnail_first, [1], [0.4]),
        (lambda: flat(0.25, 4, "f8"), 4, [0.25] * 4),
        (lambda: flat(51, 4, "u1", photometric="separated"), 4, [0.2] * 4),
        (lambda: flat(51, 2, "u1"), 2, [0.2] * 2),
    ],
)
def test_bands_of_a_tiff_mean_what_its_tags_say(make, asked, expected):
    source = as_source([make()], image_shape=Channels(asked))
    pixels = source[0] / (255 if source[0].dtype == np.uint8 else 1)
    np.testing.assert_allclose(pixels[0, 0], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (flat(-5, 13, "i2"), r"row 1: signed pixels \(int16\)"),
        (flat(-5, 1, "i1"), r"row 1: signed pixels \(int8\)"),
        (flat(np.nan, 13, "f4"), "row 1: NaN or infinite"),
        (flat(3, 13, "u2")[:400], "row 1: a damaged or truncated TIFF"),
        (b"<html>", "row 1: an HTML page"),
        (b"", "row 1: empty"),
    ],
    ids=["int16", "int8", "NaN", "cut", "HTML", "empty"],
)
def test_files_of_bands_are_refused_as_photographs_are(data, reason):
    good = flat(3, 13, "u2")
    source = as_source([good, data], image_shape=Channels([0]))
    with pytest.raises(ImageDecodeError, match=reason):
        source[1]


@pytest.mark.parametrize("suffix", ["tif", "npy"])
@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.full((20, 24, 5), 4000, "u2"), r"16-bit pixels.*\* 16\.00"),
        (np.full((20, 24, 5), 3000, "f4"), "float pixels from 3000"),
    ],
    ids=["12 bits", "floats"],
)
def test_numbers_of_bands_on_another_scale_are_said(values, said, suffix, tmp_path):
    path = tmp_path / f"0.{suffix}"
    if suffix == "npy":
        np.save(path, values)
    else:
        path.write_bytes(tiff(values, planarconfig="contig"))
    source = as_source([path, path], image_shape=Channels(5))
    with pytest.warns(UserWarning, match=f"0.{suffix}.*{said}") as told:
        source[0], source[1]
    assert len(told) == 1
    found = verify_images([path], image_shape=Channels(5))
    assert "scale" in set(found["kind"])


def test_nan_in_an_npy_file_is_named_with_its_row(tmp_path):
    paths = [tmp_path / f"{row}.npy" for row in range(2)]
    for value, path in zip((0.5, np.nan), paths, strict=True):
        np.save(path, np.full((20, 24, 5), value, "f4"))
    with pytest.raises(ImageDecodeError, match=r"row 1, .*1\.npy.*NaN or infinite"):
        as_source(paths, image_shape=Channels(5))[1]


def test_further_pages_of_bands_are_said():
    bands = [(np.full((24, 20, 5), value, "u1"), {}) for value in (7, 8)]
    stream = pages(*bands, planarconfig="contig", photometric="minisblack")
    with pytest.warns(UserWarning, match="2 pages.*the first"):
        assert read([stream], Channels(5)).max() == 7
    colours = [(np.full((24, 20, 3), value, "u1"), {}) for value in (1, 2, 3)]
    rgb = pages(*colours, photometric="rgb")
    with pytest.warns(UserWarning, match="3 pages"):  # of colours, in any order
        assert read([rgb], Channels([2, 1, 0])).max() == 1


@pytest.mark.parametrize("how", ["pages", "ome", "imagej"])
def test_three_pages_are_three_channels_where_so_many_are_asked_for(how):
    values = np.arange(3, dtype="u1").repeat(480).reshape(3, 24, 20) * 60
    options = {} if how == "pages" else {how: True, "metadata": {"axes": "CYX"}}
    data = tiff(values, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for asked in (Channels(3), Channels(3, rgb=False), Channels([0, 1, 2])):
            assert read([data], asked)[0, 0, 0].tolist() == [0, 60, 120]
    with pytest.warns(UserWarning, match="3 pages"):
        assert read([data], Channels(1)).max() == 0
    with pytest.warns(UserWarning, match="2 pages"):  # not one for each channel
        assert set(read([tiff(values[1:])], Channels(3)).ravel()) == {60}


def test_two_bands_are_refused_unless_they_are_asked_for(tmp_path):
    for layout in ("contig", "separate"):
        shape = (24, 20, 2) if layout == "contig" else (2, 24, 20)
        data = tiff(np.full(shape, 9, "u1"), planarconfig=layout)
        with pytest.raises(ImageDecodeError, match=r"2 channels of 8 .*Channels\(2\)"):
            as_source([data])[0]
        assert read([data], Channels(2)).shape == (1, 24, 20, 2)


def test_nothing_is_logged_of_a_tiff_of_many_bands(tmp_path, caplog):
    paths = tiff_files(tmp_path, planarconfig="contig")
    read(paths, Channels(13))
    with pytest.raises(ImageDecodeError, match="13 channels"):
        as_source(paths)[0]
    assert not caplog.records


@pytest.mark.parametrize("n", [2, 4])
def test_a_png_of_16_bits_keeps_them_beside_its_alpha(n):
    values = RNG.integers(0, 65536, (16, 24, n), dtype=np.uint16)
    data = png_of(values, 16, {2: 4, 4: 6}[n])
    pixels = (values / np.float32(65535))[None]
    assert np.array_equal(read([data], Channels(n)), pixels)
    assert np.array_equal(read([data], Channels([1, 0])), pixels[..., [1, 0]])
    # What Pillow has opened holds their upper bytes.
    opened = read([Image.open(io.BytesIO(data))], Channels(n))
    assert np.array_equal(opened[0], values >> 8)


@pytest.mark.parametrize("asked", [Channels(1), Channels(3), Channels(4)])
def test_threads_load_a_lazily_opened_image_one_after_another(asked, monkeypatch):
    stream = io.BytesIO()
    Image.fromarray(TILES[0, ..., :4].astype(np.uint8)).save(stream, "PNG")
    image, working, most = Image.open(stream), [], []
    load = type(image).load

    def slow(self):
        working.append(threading.get_ident())
        most.append(len(set(working)))
        time.sleep(0.02)
        loaded = load(self)
        working.remove(threading.get_ident())
        return loaded

    monkeypatch.setattr(type(image), "load", slow)
    source = as_source([image] * 4, image_shape=asked)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(source.__getitem__, range(4)))
    assert max(most) == 1


@pytest.mark.parametrize("asked", [1, 3, 4, [3], [2, 1, 0]])
def test_channels_of_files_can_be_written_to(asked):
    image = Image.fromarray(TILES[0, ..., :4].astype(np.uint8))
    assert as_source([image], image_shape=Channels(asked))[0].flags.writeable


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


def test_positions_are_any_sequence():
    for positions in ((0, 1, 2), range(3), np.arange(3)):
        assert np.array_equal(read(TILES, Channels(positions)), PIXELS[..., :3])


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
