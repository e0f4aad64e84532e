"""Each corruption is what its name says, and as far as its augmentation goes."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from robustness_cases import photographs
from torchvision.transforms.v2 import functional as F

from sklearn_dl._images import decode_image
from sklearn_dl.augmentation import AUGMENTATIONS, Augment, resolve_augment
from sklearn_dl.backbones import Preprocessing
from sklearn_dl.inspection import corrupt_image, list_corruptions

NAMES = list_corruptions()["corruption"].tolist()
# Those that draw signs, places or noise.
DRAWN = {"rotation", "translation", "shear", "color_cast", "noise", "occlusion"}
PLAIN = Preprocessing((48, 40), (48, 40), mean=(0.5,) * 3, std=(0.2,) * 3)


@pytest.fixture(scope="module")
def image():
    return Image.fromarray(photographs(2)[1])


def pixels(image):
    return np.asarray(image).astype(float)


def by_hand(image, corruption, severity):
    """Return what a corruption is, by other code."""
    values = pixels(image)
    if corruption == "flip":
        return ImageOps.mirror(image)
    if corruption == "vertical_flip":
        return ImageOps.flip(image)
    if corruption in ("darker", "brighter"):
        sign = -1 if corruption == "darker" else 1
        return np.clip(values * (1 + sign * 0.4 * severity), 0, 255)
    if corruption in ("less_contrast", "more_contrast"):
        sign = -1 if corruption == "less_contrast" else 1
        grey = (values @ [0.299, 0.587, 0.114]).mean()
        return np.clip(grey + (values - grey) * (1 + sign * 0.4 * severity), 0, 255)
    if corruption == "grayscale":
        grey = (values @ [0.299, 0.587, 0.114])[..., None]
        return values + (grey - values) * severity
    if corruption == "jpeg":
        file = io.BytesIO()
        image.save(file, "JPEG", quality=round(95 - 65 * severity))
        return Image.open(file)
    if corruption == "blur":
        sigma = 0.0075 * 107 * severity  # of larger images, of their side
        tensor = torch.from_numpy(values).permute(2, 0, 1)
        return F.gaussian_blur(tensor, 2 * int(np.ceil(3 * sigma)) + 1, sigma).permute(
            1, 2, 0
        )
    if corruption in ("smaller", "larger"):
        factor = 1.25 ** (severity if corruption == "larger" else -severity)
        tensor = torch.from_numpy(values).permute(2, 0, 1)
        moved = F.affine(
            tensor, 0, [0, 0], factor, [0, 0], F.InterpolationMode.BILINEAR
        )
        return moved.permute(1, 2, 0)
    raise ValueError(corruption)


@pytest.mark.parametrize("severity", [0.5, 1.0])
@pytest.mark.parametrize("corruption", [name for name in NAMES if name not in DRAWN])
def test_a_corruption_is_what_other_code_makes(image, corruption, severity):
    expected = by_hand(image, corruption, severity)
    result = pixels(corrupt_image(image, corruption, severity))
    # What comes in from outside, and the blur's border, are rules of their own.
    inner = (slice(14, -14), slice(14, -14))
    inside = (
        inner if corruption in ("smaller", "larger", "blur") else (slice(None),) * 2
    )
    assert np.abs(result - pixels(expected))[inside].max() <= 1.01


def test_a_rotation_turns_either_way(image):
    found = {}
    for row in range(12):
        result = pixels(corrupt_image(image, "rotation", 1.0, row=row))
        for degrees in (15, -15):
            expected = pixels(image.rotate(degrees, Image.Resampling.BILINEAR))
            inner = (slice(14, -14), slice(14, -14))
            if np.abs(result - expected)[inner].max() <= 2:
                found[row] = degrees
    assert len(found) == 12
    assert set(found.values()) == {15, -15}


def test_a_translation_moves_by_a_tenth_of_the_sides(image):
    values = pixels(image)
    for row in range(8):
        result = pixels(corrupt_image(image, "translation", 1.25, row=row))
        moves = [
            (y, x)
            for y in (-6, 6)
            for x in (-5, 5)
            if np.array_equal(
                np.roll(values, (y, x), (0, 1))[7:-7, 7:-7], result[7:-7, 7:-7]
            )
        ]
        assert len(moves) == 1  # 48 and 40 pixels, an eighth


def test_a_shear_slants_columns_and_rows(image):
    tensor = torch.from_numpy(pixels(image)).permute(2, 0, 1)
    result = pixels(corrupt_image(image, "shear", 1.0, row=3))
    tangent = np.tan(np.radians(10))
    errors = []
    for x in (-tangent, tangent):
        for y in (-tangent, tangent):
            inverse = np.linalg.inv([[1, x], [y, 1]])
            theta = torch.tensor(
                np.column_stack([inverse * [[1, 48 / 40], [40 / 48, 1]], [0, 0]])
            )
            grid = torch.nn.functional.affine_grid(
                theta[None], (1, 3, 48, 40), align_corners=False
            )
            moved = torch.nn.functional.grid_sample(
                tensor[None], grid, align_corners=False
            )[0].permute(1, 2, 0)
            errors.append(np.abs(result - moved.numpy())[14:-14, 14:-14].max())
    assert min(errors) <= 1.01


def test_a_cast_moves_one_channel_against_the_others():
    grey = np.full((4, 4, 3), 128, "uint8")
    seen = set()
    for row in range(60):
        change = corrupt_image(grey, "color_cast", 1.0, row=row)[0, 0].astype(int) - 128
        assert np.abs(change).tolist() == pytest.approx([25.5] * 3, abs=0.51)
        seen.add(tuple(np.sign(change)))
    assert len(seen) == 6


def test_large_images_are_blurred_by_a_share_of_their_shorter_side():
    step = np.zeros((200, 240, 3), "uint8")
    step[:, 120:] = 255
    profile = corrupt_image(step, "blur", 2.0)[100, :, 0] / 255.0
    places = np.arange(240) + 0.5 - 120
    slope = np.diff(profile)
    deviation = np.sqrt((slope * (places[1:] - 0.5) ** 2).sum() / slope.sum())
    assert deviation == pytest.approx(0.015 * 200, rel=0.03)


def test_noise_has_its_deviation():
    grey = np.full((200, 200, 3), 128, "uint8")
    result = corrupt_image(grey, "noise", 2.0).astype(float)
    assert result.std() == pytest.approx(0.12 * 255, rel=0.02)
    assert result.mean() == pytest.approx(128, abs=0.5)


def test_an_occlusion_covers_its_share_with_one_colour(image):
    for row in range(6):
        result = pixels(corrupt_image(image, "occlusion", 2.0, row=row))
        hidden = (result != pixels(image)).any(2)
        assert hidden.mean() == pytest.approx(0.33, abs=0.03)
        assert len(np.unique(result[hidden], axis=0)) == 1


@pytest.mark.parametrize("corruption", NAMES)
def test_a_corruption_depends_on_seed_kind_and_row_alone(image, corruption):
    first = pixels(corrupt_image(image, corruption, 1.0, seed=1, row=2))
    np.random.default_rng(0).random()
    torch.rand(1)
    assert np.array_equal(
        first, pixels(corrupt_image(image, corruption, seed=1, row=2))
    )
    for others in ([(1, r) for r in range(3, 9)], [(s, 2) for s in range(2, 8)]):
        found = [
            pixels(corrupt_image(image, corruption, seed=s, row=r)) for s, r in others
        ]
        differ = any(not np.array_equal(first, other) for other in found)
        assert differ == (corruption in DRAWN)


@pytest.mark.parametrize("corruption", NAMES)
def test_forms_of_one_image_agree(image, corruption, tmp_path):
    image.save(tmp_path / "image.png")
    expected = corrupt_image(image, corruption)
    assert expected.mode == "RGB"
    assert expected.size == image.size
    of_file = corrupt_image(tmp_path / "image.png", corruption)
    assert np.array_equal(pixels(of_file), pixels(expected))
    array = corrupt_image(np.asarray(image), corruption)
    assert array.dtype == np.uint8
    assert np.array_equal(array, pixels(expected))
    floats = corrupt_image(np.asarray(image).astype(np.float32) / 255, corruption)
    assert floats.dtype == np.float32
    assert np.abs(floats * 255 - pixels(expected)).max() <= 0.51


@pytest.mark.parametrize("corruption", NAMES)
def test_grey_images_stay_grey_and_have_no_colour_to_change(corruption):
    array = photographs(1, channels=1)[0]
    image = Image.fromarray(array[..., 0])
    if corruption in ("color_cast", "grayscale"):
        with pytest.raises(ValueError, match=f"Grey images have no '{corruption}'"):
            corrupt_image(image, corruption)
        return
    assert corrupt_image(image, corruption).mode == "L"
    assert corrupt_image(array, corruption).shape == array.shape


@pytest.mark.parametrize("corruption", NAMES)
def test_each_corruption_names_an_augmentation_that_goes_as_far(image, corruption):
    name = list_corruptions().set_index("corruption").loc[corruption, "augmentation"]
    assert name in AUGMENTATIONS
    augmenter, _ = resolve_augment(Augment(name, strength=1.0), PLAIN)
    plain = pixels(image)
    moved = np.abs(pixels(corrupt_image(image, corruption, 1.0)) - plain).mean()
    draws = [
        augmenter(image, np.random.default_rng(s)).permute(1, 2, 0).numpy()
        for s in range(200)
    ]
    furthest = max(np.abs(draw - plain).mean() for draw in draws)
    assert furthest >= 0.8 * moved > 0


def test_severities_end_where_the_augmentation_ends(image):
    for corruption in (
        "rotation",
        "translation",
        "shear",
        "darker",
        "jpeg",
        "grayscale",
    ):
        far = pixels(corrupt_image(image, corruption, 30.0))
        assert np.array_equal(far, pixels(corrupt_image(image, corruption, 50.0)))


def test_any_size_can_be_corrupted():
    for size in ((1, 1), (1, 7), (3, 2), (201, 33)):
        tiny = np.random.default_rng(0).integers(0, 256, (*size, 3), "uint8")
        for corruption in NAMES:
            assert corrupt_image(tiny, corruption, 2.0).shape == tiny.shape


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("rotate",),
            "There is no corruption 'rotate'; the corruptions are smaller, larger",
        ),
        (("blur", 0), "severity must be positive, got 0"),
        (("blur", float("nan")), "severity must be positive, got nan"),
    ],
)
def test_what_is_wrong_is_said(image, arguments, message):
    with pytest.raises(ValueError, match=message):
        corrupt_image(image, *arguments)


def test_normalised_floats_are_refused():
    with pytest.raises(ValueError, match=r"Row 5 holds floats from -2 to 2: .* \[0, 1"):
        corrupt_image(np.float32([[[-2.0] * 3, [2.0] * 3]]), "blur", row=5)


def test_a_file_with_an_orientation_is_corrupted_as_it_is_seen(tmp_path):
    image = Image.fromarray(photographs(1)[0])
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    seen = decode_image(tmp_path / "turned.png")
    assert seen.size == image.size[::-1]
    corrupted = corrupt_image(tmp_path / "turned.png", "flip")
    assert np.array_equal(pixels(corrupted), pixels(ImageOps.mirror(seen)))
