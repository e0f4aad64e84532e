"""What each named transform does to an image, against other implementations of it."""

import colorsys
import io
import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from scipy import stats
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms import functional as F

from sklearn_dl.augmentation import AUGMENTATIONS, PRESETS, Augment, resolve_augment
from sklearn_dl.augmentation import _colour as colour
from sklearn_dl.augmentation import _damage as damage
from sklearn_dl.augmentation import _geometry as geometry
from sklearn_dl.backbones import Preprocessing

SMALL = Preprocessing(36, (32, 32), mean=(0.5,) * 3, std=(0.2,) * 3)
DIRECT = Preprocessing((32, 32), None, mean=(0.5,) * 3, std=(0.2,) * 3)


def photograph(height=90, width=120, seed=0, mode="RGB"):
    """Return an image with structure at every scale and no plain border."""
    rng = np.random.default_rng(seed)
    field = rng.normal(size=(height, width, 3)).cumsum(0).cumsum(1)
    field -= field.min((0, 1))
    pixels = (255 * field / field.max((0, 1))).astype("uint8")
    return Image.fromarray(pixels).convert(mode)


def smooth(size=64):
    """Return floats (3, size, size) that another interpolation changes little."""
    y, x = np.mgrid[:size, :size] / size
    waves = [
        np.sin(5 * x + 3 * y),
        np.cos(4 * x - 6 * y),
        np.sin(7 * y) * np.cos(5 * x),
    ]
    return (0.5 + 0.4 * np.stack(waves)).astype("float32")


def as_float(image):
    return F.to_tensor(image)


def plain(image, preprocessing=SMALL):
    return F.pil_to_tensor(preprocessing.geometry(image))


def draws(augment, image, n, preprocessing=SMALL):
    augmenter, _ = resolve_augment(augment, preprocessing)
    return [augmenter(image, np.random.default_rng(seed)) for seed in range(n)]


EVERY = [*AUGMENTATIONS, *PRESETS, "trivial", "rand"]


@pytest.mark.parametrize("name", EVERY)
def test_each_name_changes_the_image_and_depends_on_the_generator_alone(name):
    image = photograph()
    first, again = draws(name, image, 12), draws(name, image, 12)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    different = {view.numpy().tobytes() for view in first}
    assert len(different) >= (2 if "flip" in name or name == "grayscale" else 5)
    assert any(not torch.equal(view, plain(image)) for view in first)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_each_name_takes_grey_colour_and_floats_of_any_size(name, mode):
    channels = 1 if mode == "L" else 3
    augmenter, _ = resolve_augment(name, SMALL)
    images = [photograph(*size, mode=mode) for size in [(90, 120), (28, 28), (300, 4)]]
    for image in [*images, Image.new(mode, (1, 1))]:
        for seed in range(4):
            view = augmenter(image, np.random.default_rng(seed))
            assert view.shape == (channels, 32, 32)
            assert view.dtype == torch.uint8
            floats = augmenter(as_float(image), np.random.default_rng(seed))
            assert floats.shape == (channels, 32, 32)
            assert floats.dtype == torch.float32
            assert floats.min() >= 0
            assert floats.max() <= 1


@pytest.mark.parametrize("name", sorted(set(AUGMENTATIONS) - {"erase"}))
def test_floats_and_bytes_are_changed_alike(name):
    # Resizing alone differs by more than rounding: images of the network's size.
    image = photograph(32, 32)
    for seed in range(5):
        bytes_, floats = (
            resolve_augment(name, DIRECT)[0](view, np.random.default_rng(seed))
            for view in (image, as_float(image))
        )
        torch.testing.assert_close(
            bytes_.float() / 255, floats, atol=0.51 / 255, rtol=0
        )


@pytest.mark.parametrize("name", EVERY)
def test_the_image_that_came_in_stays_as_it_was(name):
    image = as_float(photograph(32, 32))
    before = image.clone()
    draws(name, image, 5, DIRECT)
    assert torch.equal(image, before)


# Places


def test_flip_mirrors_half_of_the_images_exactly():
    image = photograph()
    views = draws("flip", image, 400)
    straight = sum(torch.equal(view, plain(image)) for view in views)
    mirrored = sum(torch.equal(view, plain(image).flip(-1)) for view in views)
    assert straight + mirrored == 400
    assert 160 < mirrored < 240
    views = draws("vertical_flip", image, 20)
    upside_down = [torch.equal(view, plain(image).flip(-2)) for view in views]
    assert 0 < sum(upside_down) < 20


def test_crop_draws_boxes_as_torchvision_does():
    rng = np.random.default_rng(0)
    boxes = np.array([geometry.crop_box(rng, 1.0, 300, 400, 1.0) for _ in range(3000)])
    reference = torch.zeros(3, 300, 400)
    torch.manual_seed(0)
    crop = v2.RandomResizedCrop(8, scale=(0.35, 1))
    draw = getattr(crop, "make_params", None) or crop._get_params  # torchvision 0.19
    expected = np.array(
        [
            draw([reference])[key]
            for _ in range(3000)
            for key in ("top", "left", "height", "width")
        ]
    ).reshape(-1, 4)
    for ours, theirs in zip(boxes.T, expected.T, strict=True):
        assert stats.ks_2samp(ours, theirs).pvalue > 1e-3
    assert (boxes[:, 0] + boxes[:, 2] <= 300).all()
    assert (boxes[:, 1] + boxes[:, 3] <= 400).all()


def test_crop_is_cut_from_the_original_and_resized_once():
    image = photograph(200, 300)
    for seed in range(5):
        box = geometry.crop_box(np.random.default_rng(seed), 1.0, 200, 300, 1.0)
        expected = F.resized_crop(image, *box, [32, 32])
        view = resolve_augment("crop", SMALL)[0](image, np.random.default_rng(seed))
        assert torch.equal(view, F.pil_to_tensor(expected))


def test_crop_keeps_the_ratio_that_prediction_sees():
    rng = np.random.default_rng(0)
    image = photograph(100, 400)
    for preprocessing, ratio in ((SMALL, 1.0), (DIRECT, 4.0)):
        box = geometry.crop_box(np.random.default_rng(1), 1.0, 100, 400, ratio)
        (view,) = draws("crop", image, 2, preprocessing)[1:]
        expected = F.resized_crop(image, *box, [32, 32])
        assert torch.equal(view, F.pil_to_tensor(expected))
    boxes = np.array([geometry.crop_box(rng, 1.0, 100, 400, 4.0) for _ in range(500)])
    logs = np.log(boxes[:, 3] / boxes[:, 2] / 4)
    assert np.abs(logs).max() < math.log(4 / 3) + 0.05


def test_crop_of_a_small_image_pads_by_an_eighth():
    image = photograph(28, 28)
    padded = np.pad(
        np.asarray(DIRECT.geometry(image)), ((4, 4), (4, 4), (0, 0)), mode="symmetric"
    )
    crops = {
        padded[y : y + 32, x : x + 32].transpose(2, 0, 1).tobytes()
        for y in range(9)
        for x in range(9)
    }
    views = {view.numpy().tobytes() for view in draws("crop", image, 300, DIRECT)}
    assert views <= crops
    assert len(views) > 70


def move(matrix, values=None):
    return geometry.warp(smooth() if values is None else values, matrix)


def inner(values, margin=20):
    return np.asarray(values)[..., margin:-margin, margin:-margin]


@pytest.mark.parametrize("degrees", [-30, 10, 90])
def test_rotation_is_counter_clockwise_as_pillow_rotates(degrees):
    pixels = (255 * smooth()).astype("uint8")
    expected = Image.fromarray(pixels.transpose(1, 2, 0)).rotate(
        degrees, Image.Resampling.BILINEAR
    )
    moved = 255 * geometry.warp(
        pixels / np.float32(255), geometry.rotation_matrix(degrees)
    )
    expected = np.asarray(expected).transpose(2, 0, 1)
    assert np.abs(inner(moved) - inner(expected)).max() < 1.01
    assert np.abs(inner(moved) - inner(pixels)).max() > 20


@pytest.mark.parametrize(
    ("matrix", "arguments"),
    [
        (geometry.scale_matrix(1.25, 1.25), {"scale": 1.25}),
        (geometry.scale_matrix(0.8, 0.8), {"scale": 0.8}),
        (geometry.translation_matrix(5, -3), {"translate": [5, -3]}),
        (geometry.rotation_matrix(12), {"angle": -12}),
    ],
    ids=["larger", "smaller", "translation", "rotation"],
)
def test_moves_equal_torchvision(matrix, arguments):
    arguments = {
        "angle": 0,
        "translate": [0, 0],
        "scale": 1.0,
        "shear": [0.0],
        **arguments,
    }
    expected = F.affine(
        torch.from_numpy(smooth()),
        **arguments,
        interpolation=InterpolationMode.BILINEAR,
    )
    np.testing.assert_allclose(inner(move(matrix)), inner(expected), atol=2e-3)


def test_shear_slants_columns_by_its_angle():
    values = np.zeros((1, 65, 65), "float32")
    values[:, :, 32] = 1
    moved = move(geometry.shear_matrix(20, 0), values)
    places = moved[0].argmax(1)
    slope = np.polyfit(np.arange(20, 45), places[20:45], 1)[0]
    assert abs(slope - math.tan(math.radians(20))) < 0.03


def test_perspective_equals_torchvision_between_the_same_corners():
    start = np.array([[0, 0], [64, 0], [64, 64], [0, 64]])
    end = np.array([[6, 3], [60, 5], [58, 62], [2, 57]])
    expected = F.perspective(torch.from_numpy(smooth()), start.tolist(), end.tolist())
    moved = move(geometry.perspective_matrix(start - 32, end - 32))
    np.testing.assert_allclose(inner(moved, 10), inner(expected, 10), atol=2e-3)


def test_moves_are_composed_in_one_interpolation():
    image = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (32, 32), "uint8")
    )
    names = ["rotation", "scale", "translation", "shear"]
    view = draws(names, image, 1, DIRECT)[0]
    draw = (np.random.default_rng(0), 1.0, 32, 32)
    order = ("scale", "rotation", "shear", "translation")
    total = np.eye(3)
    for name in order:
        total = geometry.GEOMETRIC[name](*draw) @ total
    # The same place of each pixel, with one interpolation by Pillow.
    centre = geometry.translation_matrix(16, 16)
    back = centre @ np.linalg.inv(total) @ np.linalg.inv(centre)
    expected = image.transform(
        (32, 32), Image.Transform.AFFINE, back[:2].ravel(), Image.Resampling.BILINEAR
    )
    difference = np.abs(view[0].numpy().astype(int) - np.asarray(expected))
    assert np.median(difference) <= 1
    assert inner(difference, 9).max() <= 2


def test_moves_reach_as_far_as_they_say_and_both_ways():
    rng = np.random.default_rng(0)

    def drawn(name, strength=1.0):
        return np.array(
            [geometry.GEOMETRIC[name](rng, strength, 100, 200) for _ in range(500)]
        )

    scale = drawn("scale")[:, 0, 0]
    assert 0.8 <= scale.min() < 0.82
    assert 1.22 < scale.max() <= 1.25
    matrices = drawn("rotation")
    angle = np.degrees(np.arctan2(matrices[:, 0, 1], matrices[:, 0, 0]))
    assert -15 <= angle.min() < -14
    assert 14 < angle.max() <= 15
    shift = drawn("translation")[:, :2, 2]
    np.testing.assert_allclose(np.abs(shift).max(0), [20, 10], rtol=0.05)
    half = drawn("rotation", 0.5)
    assert np.abs(np.degrees(np.arcsin(half[:, 0, 1]))).max() <= 7.5


def test_photographs_are_reflected_at_the_border():
    values = smooth()
    moved = move(geometry.translation_matrix(10.5, 0), values)
    padded = np.pad(values, ((0, 0), (0, 0), (11, 11)), mode="symmetric")
    expected = (padded[..., 0:64] + padded[..., 1:65]) / 2
    np.testing.assert_allclose(moved, expected, atol=1e-5)


@pytest.mark.parametrize("ground", [0, 255, 77])
def test_a_plain_ground_goes_on_and_no_stroke_is_doubled(ground):
    pixels = np.full((1, 28, 28), ground, "uint8")
    pixels[:, 4:24, 12:16] = 255 - ground
    dark = (pixels != ground).sum()
    for shift in (6.0, 6.5):
        moved = geometry.warp(pixels, geometry.translation_matrix(0, shift))
        values = moved if moved.dtype == np.uint8 else 255 * moved
        assert np.allclose(values[:, 1:8], ground, atol=1e-3)
        assert (np.abs(values - ground) > 1).sum() < dark


def test_elastic_fields_are_smooth_and_of_the_stated_size():
    rng = np.random.default_rng(0)
    fields = np.stack([geometry.elastic_field(rng, 1.0, 56, 56) for _ in range(400)])
    assert abs(fields.std() / (0.03 * 56) - 1) < 0.05
    # Noise under a Gaussian of width s is correlated as exp(-d^2 / 4 s^2).
    distance, width = 10, 0.14 * 56
    products = (fields[..., distance:] * fields[..., :-distance]).mean()
    expected = math.exp(-(distance**2) / (4 * width**2))
    assert abs(products / fields.var() - expected) < 0.06
    field = fields[0]
    x, y = np.meshgrid(np.arange(56), np.arange(56))
    ramp = (x / 56).astype("float32")[None]
    moved = geometry.warp(ramp, np.eye(3), field)
    np.testing.assert_allclose(
        inner(moved[0], 10), inner((x + field[0]) / 56, 10), atol=1e-4
    )
    assert y.shape == moved[0].shape


# Colours


def recoloured(values, *calls):
    colours = colour.ColourMap(values.mean((1, 2)))
    for name, argument in calls:
        getattr(colours, name)(argument)
    return colours.apply(values)


def test_brightness_multiplies():
    values = smooth()
    expected = np.clip(values * 1.4, 0, 1)
    np.testing.assert_allclose(
        recoloured(values, ("brightness", 1.4)), expected, rtol=1e-5
    )
    factors = []
    grey = Image.fromarray(np.full((32, 32), 100, "uint8"))
    for view in draws("brightness", grey, 300, DIRECT):
        assert view.unique().numel() == 1
        factors.append(view[0, 0, 0].item() / 100)
    assert 0.6 <= min(factors) < 0.62
    assert 1.38 < max(factors) <= 1.4


@pytest.mark.parametrize("factor", [0.5, 1.3])
@pytest.mark.parametrize(
    ("name", "enhance"),
    [("contrast", ImageEnhance.Contrast), ("saturation", ImageEnhance.Color)],
)
def test_contrast_and_saturation_equal_pillow(name, enhance, factor):
    image = photograph()
    expected = np.asarray(enhance(image).enhance(factor)).transpose(2, 0, 1)
    values = np.asarray(image).transpose(2, 0, 1) / np.float32(255)
    assert np.abs(255 * recoloured(values, (name, factor)) - expected).max() < 1.6


def test_hue_turns_colours_round_the_greys():
    color = (0.6, 0.4, 0.3)
    values = np.tile(np.array(color, "float32")[:, None, None], (1, 2, 2))
    turned = recoloured(values, ("hue", 0.1))[:, 0, 0]
    y, i, q = colorsys.rgb_to_yiq(*color)
    after = colorsys.rgb_to_yiq(*turned.tolist())
    assert abs(after[0] - y) < 2e-3
    angle = math.atan2(after[2], after[1]) - math.atan2(q, i)
    assert abs(angle / (2 * math.pi) - 0.1) < 5e-3
    grey = np.full((3, 2, 2), 0.4, "float32")
    np.testing.assert_allclose(recoloured(grey, ("hue", 0.3)), grey, atol=1e-5)


def test_changes_of_colour_compose_to_what_they_do_one_by_one():
    values = 0.4 + 0.2 * smooth()
    calls = [("brightness", 1.1), ("contrast", 0.7), ("saturation", 1.2), ("hue", 0.02)]
    one_by_one = values
    for call in calls:
        one_by_one = recoloured(one_by_one, call)
    np.testing.assert_allclose(recoloured(values, *calls), one_by_one, atol=1e-5)


def test_channel_shift_moves_each_channel_by_a_number_of_its_own():
    values = as_float(Image.new("RGB", (32, 32), (120, 120, 120)))
    casts = torch.stack(draws("channel_shift", values, 200, DIRECT)) - values
    assert casts.flatten(2).std(2).max() < 1e-6
    casts = casts[:, :, 0, 0]
    assert 0.095 < casts.abs().max() <= 0.1001
    assert (casts.std(1) > 1e-3).all()


def test_grayscale_is_pillow_grey_a_fifth_of_the_time():
    image = photograph()
    grey = F.pil_to_tensor(SMALL.geometry(image).convert("L")).expand(3, -1, -1).int()
    views = [view.int() for view in draws("grayscale", image, 300)]
    turned = [(view - grey).abs().max() <= 1 for view in views]
    kept = [torch.equal(view, plain(image).int()) for view in views]
    assert sum(turned) + sum(kept) == 300
    assert 35 < sum(turned) < 90


def test_color_moves_brightness_contrast_saturation_and_hue():
    values = as_float(Image.new("RGB", (32, 32), (140, 100, 60)))
    views = torch.stack(draws("color", values, 200, DIRECT))[:, :, 0, 0].tolist()
    before = colorsys.rgb_to_yiq(*values[:, 0, 0].tolist())
    after = np.array([colorsys.rgb_to_yiq(*view) for view in views])
    assert np.ptp(after[:, 0] / before[0]) > 0.3
    chroma = np.hypot(after[:, 1], after[:, 2]) / after[:, 0]
    assert np.ptp(chroma / (np.hypot(*before[1:]) / before[0])) > 0.4
    angle = np.degrees(np.arctan2(after[:, 2], after[:, 1]))
    assert 12 < np.ptp(angle) < 16


# Damage


@pytest.mark.parametrize("sigma", [0.6, 2.0])
def test_blur_equals_torchvision(sigma):
    values = as_float(photograph())
    size = 2 * math.ceil(3 * sigma) + 1
    expected = F.gaussian_blur(values, [size, size], [sigma, sigma])
    blurred = damage.gaussian_blur(values.numpy(), sigma)
    np.testing.assert_allclose(inner(blurred, 8), inner(expected, 8), atol=1e-5)
    np.testing.assert_allclose(blurred.mean(), values.mean(), atol=2e-3)


def test_blur_widens_a_line_by_the_stated_width_half_of_the_time():
    line = torch.zeros(1, 32, 32)
    line[:, :, 16] = 1
    profiles = torch.stack(draws("blur", line, 300, DIRECT))[:, 0, 16]
    widths = ((torch.arange(32) - 16) ** 2 * profiles).sum(1).sqrt()
    assert 120 < (widths == 0).sum() < 180
    assert 0.75 < widths.max() < 0.2 + 0.4 + 0.0075 * 32


def test_noise_is_gaussian_of_many_deviations():
    values = torch.full((3, 32, 32), 0.5)
    noise = [view - values for view in draws("noise", values, 100, DIRECT)]
    deviations = np.array([n.std().item() for n in noise])
    assert deviations.min() < 0.006
    assert 0.055 < deviations.max() < 0.063
    loud = noise[deviations.argmax()].flatten().numpy()
    assert stats.kstest(loud / loud.std(), "norm").pvalue > 1e-3


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg_is_what_pillow_writes_and_reads(mode):
    image = photograph(32, 32, mode=mode)
    for seed, view in enumerate(draws("jpeg", image, 5, DIRECT)):
        share = np.random.default_rng(seed).random()
        quality = round(30 * (95 / 30) ** share)  # as many below 53 as above
        file = io.BytesIO()
        image.save(file, format="JPEG", quality=quality)
        assert torch.equal(view, F.pil_to_tensor(Image.open(file)))


def test_erase_puts_noise_into_one_rectangle_half_of_the_time():
    image = Image.new("RGB", (32, 32), (7, 7, 7))
    areas = []
    for view in draws("erase", image, 300, DIRECT):
        changed = (view != 7).any(0)
        areas.append(changed.float().mean().item())
        if areas[-1]:
            rows, columns = changed.any(1).nonzero(), changed.any(0).nonzero()
            box = view[
                :, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1
            ]
            assert changed.sum() > 0.95 * box[0].numel()
            assert box.numel() < 60 or 90 < box.float().mean() < 165
    erased = np.array([area for area in areas if area])
    assert 120 < len(erased) < 180
    assert erased.min() < 0.05
    assert 0.28 < erased.max() < 0.36


# Strength


@pytest.mark.parametrize("name", [*AUGMENTATIONS, *PRESETS])
def test_without_strength_images_stay_as_in_prediction(name):
    image = photograph()
    for view in draws(Augment(name, strength=0), image, 5):
        assert torch.equal(view, plain(image))


@pytest.mark.parametrize("name", sorted(set(AUGMENTATIONS) - {"flip", "vertical_flip"}))
def test_more_strength_changes_more(name):
    image = photograph()

    def change(strength):
        views = draws(Augment(name, strength=strength), image, 60)
        return np.mean([(v.float() - plain(image)).abs().mean().item() for v in views])

    assert 0 < change(0.3) < change(1) < change(2.5)
