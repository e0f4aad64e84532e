"""Odd files: each becomes the pixels that its format's specification says."""

import importlib.util
import io
import os
import socket
import warnings

import numpy as np
import pytest
import tifffile
from odd_files import CASES, FRACTIONS, grey_tiff, packed, stripes, tiff
from PIL import Image, UnidentifiedImageError

from sklearn_dl._images import (
    ImageDecodeError,
    as_source,
    decode_image,
    digest_image,
    verify_images,
)


def read(data):
    """Return what the network gets, in [0, 1], and what decode_image shows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        source, shown = as_source([data])[0], np.asarray(decode_image(data))
    pixels = np.asarray(source)
    return pixels / (255 if pixels.dtype == np.uint8 else 1), shown


@pytest.mark.parametrize("name", CASES)
def test_a_file_becomes_the_pixels_its_format_says(name, tmp_path):
    data, expected = CASES[name]()
    pixels, shown = read(data)
    assert pixels.shape[:2] == expected.shape[:2]
    # Only what is composed over white in 8 bits is rounded once more.
    np.testing.assert_allclose(
        pixels, np.broadcast_to(expected, pixels.shape), atol=0.004
    )
    rounded = np.rint(np.clip(expected, 0, 1) * 255)
    assert np.abs(shown - rounded).max() <= 1
    path = tmp_path / "file"
    path.write_bytes(data)
    np.testing.assert_array_equal(read(path)[0], pixels)


@pytest.mark.parametrize(
    "name",
    [n for n in CASES if "16 bits" in n or "u2" in n or n.startswith("tiff of 1")],
)
def test_no_level_of_a_deep_file_is_lost(name):
    data, expected = CASES[name]()
    pixels, _ = read(data)
    np.testing.assert_allclose(
        pixels, np.broadcast_to(expected, pixels.shape), atol=1e-6
    )


@pytest.mark.parametrize("name", CASES)
def test_an_image_that_pillow_opened_shows_what_its_file_shows(name):
    data, expected = CASES[name]()
    try:
        opened = Image.open(io.BytesIO(data))
    except UnidentifiedImageError:
        return  # beyond Pillow
    if "separate" in name:  # Pillow mixes up its bands
        with pytest.raises(ImageDecodeError, match=r"planar.*pass its path"):
            decode_image(opened)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        shown = np.asarray(decode_image(opened))
    if name == "tiff turned by XMP alone" and len(shown) != len(expected):
        expected = np.rot90(expected, -1)  # some releases of Pillow do so in loading
    assert np.abs(shown - np.clip(expected, 0, 1) * 255).max() <= 2


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_file_of_16_bits_is_the_array_of_its_numbers(suffix, tmp_path):
    values = np.arange(1000, 1400, dtype=np.uint16).reshape(20, 20) * 40
    path = tmp_path / f"deep{suffix}"
    Image.fromarray(values).save(path)
    found, array = as_source([path])[0], as_source(values[None])[0]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, array)
    assert digest_image(Image.fromarray(values)) == digest_image(array)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_what_tifffile_reads_is_turned_as_what_pillow_reads(orientation):
    tags = {"extratags": [(274, 3, 1, orientation, True)]}
    values = np.random.default_rng(0).random((5, 7))
    by_tifffile = as_source([tiff(values, **tags)])[0]
    by_pillow = as_source([tiff(values.astype("f4"), **tags)])[0]
    np.testing.assert_array_equal(by_tifffile, by_pillow)


def test_the_limit_of_pixels_holds_for_what_tifffile_reads(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 34)
    with pytest.raises(ImageDecodeError, match=r"7 x 5 pixels.*MAX_IMAGE_PIXELS"):
        decode_image(tiff(np.zeros((5, 7))))


@pytest.mark.parametrize("dtype", ["u2", "f4"])
def test_arrays_of_either_byte_order_mean_the_same(dtype):
    values = stripes(FRACTIONS * (65535 if dtype == "u2" else 1), dtype)[None]
    expected = as_source(values)[0]
    np.testing.assert_array_equal(as_source(values.astype(f">{dtype}"))[0], expected)
    np.testing.assert_array_equal(
        as_source([values[0].astype(f">{dtype}"), values[0, :9]])[0], expected
    )
    assert expected.max() == 1


def test_colour_jpeg_2000_of_more_than_8_bits_is_refused():
    data, _ = CASES["jpeg 2000 RGB codestream"]()
    at = data.index(b"\xff\x51") + 2 + 2 + 36
    deep = data[:at] + bytes([11, 1, 1] * 3) + data[at + 9 :]
    with pytest.raises(ImageDecodeError, match=r"12 bits: read it with imagecodecs"):
        decode_image(deep)


@pytest.mark.parametrize("dtype", ["i1", "<i2", ">i2", "<i4"])
def test_signed_pixels_are_refused_with_the_way_out(dtype):
    order, bits = dtype[0].replace("i", "<"), 8 * np.dtype(dtype).itemsize
    data = tiff(stripes([-100, 0, 100], dtype), byteorder=order)
    with pytest.raises(ImageDecodeError, match=f"signed pixels .int{bits}.*Scale them"):
        decode_image(data)


def test_channels_that_are_no_colours_are_counted():
    for n, dtype, bits in ((13, "u2", 16), (4, "u1", 8), (5, "f4", 32)):
        data = tiff(np.zeros((16, 24, n), dtype), planarconfig="contig")
        with pytest.raises(
            ImageDecodeError, match=rf"{n} channels of {bits} bits.*Channels\({n}\)"
        ):
            decode_image(data)
    with pytest.raises(ImageDecodeError, match="complex"):
        decode_image(tiff(np.zeros((16, 24), "c8")))


@pytest.mark.parametrize("most", [200, 900, 4000, 8000])
def test_few_bits_in_16_are_said_once_a_call_with_the_factor(most, tmp_path):
    values = np.full((9, 9), most, np.uint16)
    paths = [tmp_path / f"{k}.png" for k in range(3)]
    for path in paths:
        Image.fromarray(values).save(path)
    factor = {900: "64.06", 4000: "16.00", 8000: "8.00"}.get(most, "as uint8")
    source = as_source(paths)
    with pytest.warns(UserWarning, match=f"0.png.*16-bit.*{factor}") as told:
        [source[k] for k in range(3)]
    assert len(told) == 1
    with pytest.warns(UserWarning, match=f"X has 16-bit.*{factor}"):
        as_source(values[None])
    with pytest.warns(UserWarning, match="0.png"):  # another call
        as_source(paths)[0]


def test_a_full_or_empty_range_of_16_bits_is_not_worth_a_word():
    for most in (0, 8192, 65535):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            as_source(np.full((1, 9, 9), most, np.uint16))
            decode_image(Image.fromarray(np.full((9, 9), most, np.uint16)))


@pytest.mark.parametrize("values", [FRACTIONS, FRACTIONS * 1.001, FRACTIONS * 255])
def test_float_files_have_the_scale_of_float_arrays(values):
    data = tiff(stripes(values, "f4"))
    pixels, _ = read(data)
    np.testing.assert_array_equal(pixels[0, ::8, 0], np.float32(values))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        as_source([data])[0]
    assert [("as they are" in str(w.message)) for w in told] == [True] * int(
        values.max() > 1
    )


def pages(*images, **tags):
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        for value, options in images:
            shape = (12, 10) if options.get("subfiletype") else (24, 20)
            kind = {"photometric": "minisblack", **tags, **options}
            dtype = bool if options.get("subfiletype") == 4 else "u1"
            writer.write(np.full(shape, value, dtype), **kind)
    return stream.getvalue()


def hyperstack(**options):
    values = np.zeros((5, 24, 20), "u2")
    values[0] = 9000
    stream = io.BytesIO()
    tifffile.imwrite(stream, values, **options)
    return stream.getvalue()


STACKS = {
    "pages": (lambda: pages((35, {}), (70, {}), (90, {})), 3, 35),
    "ImageJ": (lambda: hyperstack(imagej=True), 5, 35),
    "OME": (lambda: hyperstack(ome=True, photometric="minisblack"), 5, 35),
    "of tifffile": (lambda: hyperstack(photometric="minisblack"), 5, 35),
    "a thumbnail first": (
        lambda: pages((9, {"subfiletype": 1}), (35, {}), (70, {})),
        2,
        35,
    ),
}


@pytest.mark.parametrize("name", STACKS)
def test_pages_that_are_not_read_are_said_once_a_call(name):
    make, n_pages, first = STACKS[name]
    data = make()
    source = as_source([data, data])
    said = f"{n_pages} pages.*the first.*key=page"
    with pytest.warns(UserWarning, match=said) as told:
        pixels = [np.asarray(source[row]) for row in range(2)][1]
    assert len([w for w in told if "pages" in str(w.message)]) == 1
    scale = 255 if pixels.dtype != np.uint8 else 1
    assert round(float(pixels[0, 0, 0]) * scale) == first


def test_thumbnails_and_masks_are_not_the_picture():
    small, mask = {"subfiletype": 1}, {"subfiletype": 4}
    one = (70, {})
    behind = io.BytesIO()
    with tifffile.TiffWriter(behind) as writer:
        writer.write(np.full((6, 8, 3), 9, "u1"), subfiletype=1, subifds=1)
        writer.write(np.full((24, 20, 3), 70, "u1"), photometric="rgb")
    for data in (
        pages(one, (9, small)),
        pages((9, small), one),
        pages((9, small), (9, mask), one, (9, small)),
        pages(one, (9, mask)),
        behind.getvalue(),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            image = decode_image(data)
        assert image.size == (20, 24)
        assert image.getpixel((0, 0)) == (70, 70, 70)
    alone = decode_image(pages((9, small)))  # there is no other
    assert alone.getpixel((0, 0)) == (9, 9, 9)


def test_a_page_that_was_sought_is_the_one_that_is_read():
    data = pages((35, {}), (70, {}))
    image = Image.open(io.BytesIO(data))
    image.seek(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode_image(image).getpixel((0, 0)) == (70, 70, 70)


def test_an_alpha_that_tiff_drops_is_laid_over_white_when_asked_for():
    data, colours = CASES["tiff RGB and unassalpha u1"]()
    opened = Image.open(io.BytesIO(data))
    share = stripes([0.2, 0.6, 1])[..., None]
    asked = np.asarray(decode_image(opened.convert("RGBA")))
    expected = (colours * share + 1 - share) * 255
    assert np.abs(asked - expected).max() <= 1
    np.testing.assert_array_equal(
        np.asarray(decode_image(opened)), np.rint(colours * 255)
    )


def test_a_note_of_a_transparent_colour_that_cannot_be_trusted_is_said():
    data, _ = CASES["png RGB 8 bits, one colour transparent"]()
    opened = Image.open(io.BytesIO(data))
    for copy in (opened.copy(), opened.crop((0, 0, 9, 9))):
        with pytest.warns(UserWarning, match=r"transparent colour.*convert\('RGBA'\)"):
            decode_image(copy)
    clear = decode_image(opened.copy().convert("RGBA"))
    assert clear.getpixel((0, 0)) == (255, 255, 255)
    gif, _ = CASES["gif of a small frame, clear 0, local palette False"]()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decode_image(Image.open(io.BytesIO(gif)).convert("RGB"))


NAMED = {
    "an HTML page": b"\n <!DOCTYPE html><html>",
    "an HTML page, not": b"\xef\xbb\xbf<html lang='en'>",
    "Git LFS pointer.*git lfs pull": b"version https://git-lfs.github.com/spec/v1\n",
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "SVG, a drawing": b"<?xml version='1.0'?>\n<!-- by hand -->\n<svg/>",
    "XML": b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
    "JSON": b'{"error": 404}',
    r"pip install pillow-heif.*register_heif_opener\(\)": b"\0\0\0\x18ftypheic\0\0",
    "HEIC": b"\0\0\0\x18ftypmif1\0\0",
    "AVIF": b"\0\0\0\x18ftypavis\0\0",
    "video": b"\0\0\0\x18ftypisom\0\0",
    "rawpy": b"\0\0\0\x18ftypcrx \0\0",
    "DICOM: .*pydicom.*pixel_array.*arrays": bytes(128) + b"DICM",
    "HDF5": b"\x89HDF\r\n\x1a\n",
    "numpy.load": b"\x93NUMPY\1\0",
    "PDF": b"%PDF-1.7",
    "ZIP": b"PK\3\4",
    "gzip": b"\x1f\x8b\x08",
    "JPEG XL": b"\xff\x0a\0\0",
    "OpenEXR": b"\x76\x2f\x31\x01",
    "PSD of a kind": b"8BPS\0\1\0\0",
    "truncated WebP": b"RIFF\x20\0\0\0WEBPVP8 ",
    "truncated JPEG": b"\xff\xd8\xff\xe0\0",
    "truncated GIF": b"GIF89a",
    "not an image": bytes(range(200)),
}


@pytest.mark.parametrize("name", NAMED)
def test_what_is_no_image_is_named_without_its_bytes(name, tmp_path):
    path = tmp_path / "file.jpg"
    path.write_bytes(NAMED[name])
    for form in (path, NAMED[name]):
        with pytest.raises(ImageDecodeError, match=name) as caught:
            as_source([form])[0]
        assert "row 0" in str(caught.value)
        assert "\\x" not in str(caught.value)


def test_fits_is_refused_with_the_way_out():
    cards = ["SIMPLE  =                    T", "BITPIX  =                   16"]
    cards += ["NAXIS   =                    2", "NAXIS1  =                    4"]
    cards += ["NAXIS2  =                    4", "END"]
    header = "".join(card.ljust(80) for card in cards).ljust(2880).encode()
    with pytest.raises(ImageDecodeError, match=r"FITS.*fits.getdata.*arrays"):
        decode_image(header + bytes(2880))


@pytest.mark.parametrize("size", [8, 60, 200])
def test_a_cut_tiff_is_named(size):
    data, _ = grey_tiff("u2", 65535, "<", "minisblack")
    with pytest.raises(ImageDecodeError, match=r"TIFF|trunc|bytes|data"):
        decode_image(data[:size])


def test_a_cut_webp_is_named():
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), "uint8")
    Image.fromarray(noise).save(stream, "WEBP", lossless=True)
    with pytest.raises(ImageDecodeError, match=r"WebP|trunc|decod"):
        decode_image(stream.getvalue()[:900])


def test_much_text_in_a_png_names_its_constant():
    from PIL import PngImagePlugin

    info, stream = PngImagePlugin.PngInfo(), io.BytesIO()
    info.add_text("note", "x" * (PngImagePlugin.MAX_TEXT_CHUNK + 1), zip=True)
    Image.new("L", (4, 4)).save(stream, "PNG", pnginfo=info)
    with pytest.raises(
        ImageDecodeError, match=r"raise PIL.PngImagePlugin.MAX_TEXT_CHUNK"
    ):
        decode_image(stream.getvalue())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_what_could_keep_a_reader_waiting_is_refused(kind, tmp_path):
    path = str(tmp_path / "x")
    bound = None
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        bound = socket.socket(socket.AF_UNIX)
        os.chdir(tmp_path)  # names of sockets are short
        bound.bind("x")
    else:
        path = os.devnull
    source = as_source([path])
    for look in (
        lambda: source[0],
        lambda: source.digests([0]),
        lambda: decode_image(path),
    ):
        with pytest.raises(ImageDecodeError, match=kind):
            look()
    assert kind in verify_images([path])["reason"][0]
    if bound is not None:
        bound.close()


def test_tifffile_is_asked_for_only_where_pillow_ends(monkeypatch):
    deep, _ = CASES["tiff f8 <"]()
    plain, _ = CASES["tiff u2 < miniswhite"]()
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    decode_image(plain)
    with pytest.raises(ImageDecodeError, match=r"pip install 'sklearn_dl\[tiff\]'"):
        decode_image(deep)


def test_a_compression_that_needs_imagecodecs_is_read_or_named():
    samples = np.arange(64, dtype=np.uint16) * 60
    data = packed(samples, 10)
    # the tag of compression, 5 is LZW
    at = data.index(bytes([3, 1, 3, 0]))
    lzw = data[: at + 8] + b"\5" + data[at + 9 :]
    match = "needs imagecodecs: pip install" if not has_imagecodecs() else ""
    with pytest.raises(ImageDecodeError, match=match):
        decode_image(lzw)


def has_imagecodecs():
    return importlib.util.find_spec("imagecodecs") is not None


def odd_folder(folder):
    """Return paths, labels and the kinds that each should be listed with."""
    noise = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "good.png")
    Image.fromarray(noise).save(folder / "again.bmp")
    Image.fromarray(noise[:9]).save(folder / "other.png")
    Image.new("RGBA", (9, 9), (200, 0, 0, 0)).save(folder / "clear.png")
    Image.fromarray(noise[..., 0].astype("u2") * 8).save(folder / "dark.png")
    frames = [Image.fromarray(noise[k:]) for k in range(3)]
    frames[0].crop((0, 0, 7, 7)).save(
        folder / "pages.tif", save_all=True, append_images=frames
    )
    (folder / "page.jpg").write_bytes(b"<html>")
    names = ["good.png", "again.bmp", "other.png", "clear.png", "dark.png"]
    names += ["pages.tif", "page.jpg"]
    kinds = [{"two classes"}, {"two classes"}, set(), {"one colour"}, {"scale"}]
    kinds += [{"pages"}, {"unreadable"}]
    return [folder / name for name in names], list("abababa"), kinds


def test_verify_images_lists_what_is_odd_by_its_kind(tmp_path):
    paths, y, kinds = odd_folder(tmp_path)
    table = verify_images(paths, y)
    found = [set(table["kind"][table["row"] == row]) for row in range(len(paths))]
    assert found == kinds
    assert table["row"].is_monotonic_increasing
    assert table["path"].tolist() == [str(paths[row]) for row in table["row"]]
    reasons = dict(zip(table["row"], table["reason"], strict=True))
    assert reasons[0] == f"in 'a', has the pixels of row 1, {str(paths[1])!r}, in 'b'"
    assert reasons[3] == "is of one colour, (255, 255, 255)"
    assert "4 pages" in reasons[5]
    without = verify_images(paths)
    assert "two classes" not in set(without["kind"])
    same = verify_images([paths[0], paths[1]], ["a", "a"])
    assert len(same) == 0
    with pytest.raises(ValueError, match="inconsistent numbers"):
        verify_images(paths, y[:3])


def test_verify_images_looks_at_arrays_and_pil_images():
    noise = np.random.default_rng(0).random((3, 8, 8, 3))
    noise[1] = 0.5
    noise[2] = noise[0]
    table = verify_images(noise, [0, 1, 2])
    assert table["kind"].tolist() == ["two classes", "one colour", "two classes"]
    images = [Image.new("L", (9, 9), 70), Image.new("F", (9, 9), 200)]
    table = verify_images(images)
    found = sorted(zip(table["row"], table["kind"], strict=True))
    assert found == [(0, "one colour"), (1, "one colour"), (1, "scale")]


def test_loaders_leave_out_what_fails_and_keep_what_is_odd(tmp_path):
    from sklearn_dl.datasets import load_image_folder

    (tmp_path / "a").mkdir()
    paths, _, _ = odd_folder(tmp_path / "a")
    data = load_image_folder(tmp_path, verify="skip")
    assert len(data.data) == len(paths) - 1
    assert data.skipped["path"].tolist() == [str(tmp_path / "a" / "page.jpg")]


def test_a_deep_file_takes_little_memory_beside_its_pixels():
    import tracemalloc

    side = 1500
    image = Image.fromarray(np.full((side, side), 1234, np.uint16))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    data = stream.getvalue()
    source = as_source([data])
    source[0]
    tracemalloc.start()
    pixels = source[0]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert pixels.nbytes == 4 * side**2
    # What Pillow itself holds isn't traced.
    assert peak < 11 * side**2
