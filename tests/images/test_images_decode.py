"""Decoding: every form of file becomes the right RGB pixels, or a named error."""

import io
import os
import pickle
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from sklearn_dl._images import (
    ImageDecodeError,
    as_source,
    decode_image,
    verify_images,
)

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (9, 13, 3), dtype=np.uint8)
RGB = Image.fromarray(PIXELS)


def pixels(image):
    decoded = decode_image(image)
    assert decoded.mode == "RGB"
    return np.asarray(decoded)


def encoded(image, format, **options):
    stream = io.BytesIO()
    image.save(stream, format=format, **options)
    return stream.getvalue()


def by_hand_over_white(rgba):
    rgba = rgba.astype(np.float64)
    alpha = rgba[..., 3:] / 255
    return np.floor(rgba[..., :3] * alpha + 255 * (1 - alpha) + 0.5).astype(np.uint8)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_path_bytes_and_pil_give_the_pixels_pillow_gives(tmp_path, format):
    data = encoded(RGB, format)
    path = tmp_path / "image"
    path.write_bytes(data)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    with Image.open(path) as opened:
        for form in (str(path), path, data, bytearray(data), opened):
            np.testing.assert_array_equal(pixels(form), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(orientation, format):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(RGB, format, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    np.testing.assert_array_equal(pixels(data), np.asarray(expected))
    if orientation > 4:
        assert pixels(data).shape == (13, 9, 3)


def test_damaged_exif_does_not_make_an_image_unreadable():
    data = encoded(RGB, "JPEG", exif=b"Exif\0\0not exif at all")
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(pixels(data), expected)


def test_grey_and_one_bit_and_palette_and_cmyk_and_ycbcr_become_rgb():
    grey = RGB.convert("L")
    np.testing.assert_array_equal(
        pixels(grey), np.repeat(np.asarray(grey)[..., None], 3, 2)
    )
    bits = RGB.convert("1")
    assert set(np.unique(pixels(bits))) == {0, 255}
    palette = RGB.quantize(8)
    colours = np.reshape(palette.getpalette(), (-1, 3))
    np.testing.assert_array_equal(pixels(palette), colours[np.asarray(palette)])
    for mode in ("CMYK", "YCbCr", "HSV", "RGBX"):
        other = RGB.convert(mode)
        np.testing.assert_array_equal(pixels(other), np.asarray(other.convert("RGB")))


def test_lab_becomes_rgb():
    lab = Image.new("LAB", (4, 4), (255, 128, 128))
    assert pixels(lab).min() > 250


@pytest.mark.parametrize("size", [(16, 16), (5, 7)])
def test_rgba_is_laid_over_white_rounded_exactly(size):
    rgba = RNG.integers(0, 256, (*size, 4), dtype=np.uint8)
    expected = by_hand_over_white(rgba)
    np.testing.assert_array_equal(pixels(Image.fromarray(rgba)), expected)
    np.testing.assert_array_equal(
        pixels(encoded(Image.fromarray(rgba), "PNG")), expected
    )
    np.testing.assert_array_equal(as_source(rgba[None])[0], expected)


def test_every_pair_of_colour_and_alpha_agrees_between_pil_and_array():
    colour, alpha = np.meshgrid(np.arange(256), np.arange(256))
    rgba = np.stack([colour, colour, colour, alpha], axis=-1).astype(np.uint8)
    expected = by_hand_over_white(rgba)
    np.testing.assert_array_equal(pixels(Image.fromarray(rgba)), expected)
    np.testing.assert_array_equal(as_source(rgba[None])[0], expected)


def test_grey_alpha_and_premultiplied_alpha_are_laid_over_white():
    la = Image.merge("LA", [Image.new("L", (2, 2), 0), Image.new("L", (2, 2), 51)])
    assert pixels(la)[0, 0].tolist() == [204, 204, 204]
    premultiplied = Image.new("RGBA", (2, 2), (0, 0, 0, 51)).convert("RGBa")
    assert pixels(premultiplied)[0, 0].tolist() == [204, 204, 204]
    la = la.convert("La")
    assert pixels(la)[0, 0].tolist() == [204, 204, 204]


def test_a_transparent_colour_of_a_palette_rgb_or_grey_png_becomes_white():
    palette = Image.new("P", (2, 1))
    palette.putpalette([200, 0, 0, 0, 100, 0])
    palette.putdata([0, 1])
    one = encoded(palette, "PNG", transparency=0)
    assert pixels(one).tolist() == [[[255, 255, 255], [0, 100, 0]]]
    several = encoded(palette, "PNG", transparency=bytes([255, 0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pixels(several).tolist() == [[[200, 0, 0], [255, 255, 255]]]
    rgb = Image.new("RGB", (2, 1), (1, 2, 3))
    rgb.putpixel((1, 0), (9, 9, 9))
    data = encoded(rgb, "PNG", transparency=(1, 2, 3))
    assert pixels(data).tolist() == [[[255, 255, 255], [9, 9, 9]]]


def test_rgb_made_from_a_palette_keeps_its_colours_though_pillow_keeps_a_note():
    palette = Image.new("P", (1, 1))
    palette.putpalette([200, 0, 0])
    data = encoded(palette, "GIF", transparency=0)
    rgb = Image.open(io.BytesIO(data)).convert("RGB")
    assert pixels(rgb).tolist() == np.asarray(rgb).tolist()


def test_sixteen_bit_files_are_scaled_not_clipped(tmp_path):
    values = np.array([[0, 128, 129, 256, 257, 32768, 65535]], dtype=np.uint16)
    expected = np.rint(values / 257).astype(np.uint8)
    for suffix in (".png", ".tif"):
        path = tmp_path / f"deep{suffix}"
        Image.fromarray(values).save(path)
        np.testing.assert_array_equal(pixels(path)[..., 0], expected)


@pytest.mark.parametrize("most", [255, 65535])
def test_a_pil_image_of_int32_means_what_the_array_means(most):
    values = np.array([[0, 9, 99, 128, most]], dtype=np.int32)
    whole = Image.fromarray(values)
    assert whole.mode == "I"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found, expected = as_source([whole])[0], as_source(values[:, None])[0]
    np.testing.assert_array_equal(np.asarray(found)[..., :1], expected)


def test_float_images_are_taken_as_they_are_and_nan_is_an_error():
    unit = np.array([[0, 0.5, 1]], dtype=np.float32)
    assert pixels(Image.fromarray(unit))[0, :, 0].tolist() == [0, 128, 255]
    large = Image.fromarray(unit * 200)
    with pytest.warns(UserWarning, match="as they are. These look like 0-255"):
        assert decode_image(large).getextrema()[0] == (0, 255)
    with pytest.warns(UserWarning, match="as they are"):
        np.testing.assert_array_equal(as_source([large])[0][..., 0], unit * 200)
    with pytest.raises(ImageDecodeError, match="NaN"):
        decode_image(Image.fromarray(unit * np.nan))


@pytest.mark.parametrize("format", ["GIF", "WEBP", "TIFF", "PNG"])
def test_the_first_frame_of_an_animation_is_taken(format):
    frames = [Image.new("RGB", (8, 8), c) for c in ((250, 0, 0), (0, 0, 250))]
    options = {"lossless": True} if format == "WEBP" else {}
    data = encoded(
        frames[0], format, save_all=True, append_images=frames[1:], **options
    )
    assert pixels(data)[4, 4].tolist() == [250, 0, 0]


def test_an_rgb_pil_image_is_used_as_it_is_and_none_is_changed():
    assert decode_image(RGB) is RGB
    rgba = Image.new("RGBA", (2, 2), (1, 2, 3, 4))
    turned = RGB.copy()
    turned.getexif()[0x0112] = 6
    decode_image(rgba), decode_image(turned)
    assert rgba.mode == "RGBA"
    assert turned.size == RGB.size


def test_arrays_decode_to_rgb():
    np.testing.assert_array_equal(pixels(PIXELS), PIXELS)
    np.testing.assert_array_equal(pixels(PIXELS / 255), PIXELS)
    np.testing.assert_array_equal(pixels(PIXELS.transpose(2, 0, 1)), PIXELS)
    assert pixels(PIXELS[..., 0]).shape == (9, 13, 3)


def bad_files(folder):
    (folder / "zero.jpg").write_bytes(b"")
    (folder / "text.png").write_text("no image")
    whole = encoded(RGB.resize((64, 64)), "JPEG")
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    png = encoded(RGB.resize((64, 64)), "PNG")
    (folder / "cut.png").write_bytes(png[: len(png) // 2])
    (folder / "dir.jpg").mkdir()
    return {
        "zero.jpg": "0 bytes",
        "text.png": "not an image",
        "cut.jpg": "truncated",
        "cut.png": "truncated",
        "dir.jpg": "directory",
        "gone.jpg": "no such file",
    }


def test_each_bad_file_is_named_with_row_path_and_reason(tmp_path):
    for name, reason in bad_files(tmp_path).items():
        path = str(tmp_path / name)
        source = as_source([path, path])
        with pytest.raises(ImageDecodeError, match=reason) as caught:
            source[1]
        assert "row 1" in str(caught.value)
        assert name in str(caught.value)
        [(row, where, why)] = caught.value.failures
        assert (row, where) == (1, path)
        assert reason in why
        with pytest.raises(ImageDecodeError, match=reason):
            decode_image(path)


def test_bad_bytes_are_named_by_row():
    source = as_source([b"", b"nonsense", encoded(RGB, "PNG")])
    for row, reason in ((0, "0 bytes"), (1, "not an image")):
        with pytest.raises(ImageDecodeError, match=f"row {row}: .*{reason}"):
            source[row]
    assert source[2].size == RGB.size


def test_verify_images_lists_every_bad_file_in_order(tmp_path):
    reasons = bad_files(tmp_path)
    good = tmp_path / "good.png"
    RGB.save(good)
    X = [good, *(tmp_path / name for name in reasons), good]
    table = verify_images(X)
    assert list(table.columns) == ["row", "path", "reason", "kind"]
    assert set(table["kind"]) == {"unreadable"}
    assert table["row"].tolist() == list(range(1, 1 + len(reasons)))
    assert table["path"].tolist() == [str(path) for path in X[1:-1]]
    for found, expected in zip(table["reason"], reasons.values(), strict=True):
        assert expected in found
    assert len(verify_images([good])) == 0
    assert verify_images([b"x"])["path"].tolist() == [None]


def test_an_error_of_many_prints_ten_and_keeps_all():
    errors = [ImageDecodeError([(row, f"{row}.jpg", "broken")]) for row in range(12)]
    error = ImageDecodeError.join(reversed(errors))
    assert [failure[0] for failure in error.failures] == list(range(12))
    assert "12 images" in str(error)
    assert "row 9, '9.jpg': broken" in str(error)
    assert "and 2 more" in str(error)
    assert "10.jpg" not in str(error)
    copy = pickle.loads(pickle.dumps(error))
    assert copy.failures == error.failures
    assert str(copy) == str(error)
    assert str(ImageDecodeError("as a loader worker does")) == "as a loader worker does"


def test_a_bomb_is_refused_before_decoding_and_the_limit_can_be_raised(
    tmp_path, monkeypatch
):
    path = tmp_path / "large.png"
    RGB.save(path)
    n = RGB.width * RGB.height
    for limit in (n - 1, n // 3):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with pytest.raises(ImageDecodeError, match=r"large.*MAX_IMAGE_PIXELS"):
                decode_image(path)
    for limit in (n, None):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        np.testing.assert_array_equal(pixels(path), PIXELS)


def test_files_are_closed_after_success_and_failure(tmp_path):
    for k in range(3):
        RGB.save(tmp_path / f"{k}.gif", save_all=True, append_images=[RGB])
    bad_files(tmp_path)
    before = (
        len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else None
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        verify_images(sorted(tmp_path.iterdir()))
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) <= before


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    RGB.save(tmp_path / "mine.png")
    np.testing.assert_array_equal(pixels("~/mine.png"), PIXELS)


def test_threads_may_read_one_lazily_opened_image():
    data = encoded(RGB.resize((300, 300)), "PNG")
    expected = np.asarray(Image.open(io.BytesIO(data)))
    for _ in range(5):
        opened = Image.open(io.BytesIO(data))
        source = as_source([opened] * 8)
        start = threading.Barrier(8)

        def read(row, source=source, start=start):
            start.wait()
            return np.asarray(source[row])

        with ThreadPoolExecutor(8) as pool:
            for found in pool.map(read, range(8)):
                np.testing.assert_array_equal(found, expected)


def test_real_photographs_equal_pillows(request):
    folder = os.environ.get("SKLEARN_DL_ASSETS")
    if not folder:
        pytest.skip("SKLEARN_DL_ASSETS is not set")
    paths = sorted(Path(folder, "hymenoptera_data", "val").glob("*/*"))[::15]
    paths += sorted(Path(folder, "hymenoptera_data", "train").glob("*/*.[gj][ip][fe]*"))
    assert {path.suffix for path in paths} >= {".jpg", ".gif", ".jpeg"}
    source = as_source(paths)
    for row, path in enumerate(paths):
        with Image.open(path) as opened:
            expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
        np.testing.assert_array_equal(np.asarray(source[row]), expected)
        np.testing.assert_array_equal(pixels(path.read_bytes()), expected)
