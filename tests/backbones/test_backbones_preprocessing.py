"""Preprocessing against torchvision's own preset."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import get_model_weights
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from sklearn_dl.backbones import CallablePreprocessing, Preprocessing, load_backbone

PRESETS = {
    f"{name}-{entry.name}": entry.transforms()
    for name in ("resnet18", "mobilenet_v2", "efficientnet_b0", "vit_b_16", "swin_v2_t")
    for entry in get_model_weights(name)
}


def picture(width, height, channels=3, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels))
    smooth = Image.fromarray(pixels.astype(np.uint8).repeat(2, 0).repeat(2, 1))
    return smooth.resize((width, height))


@pytest.fixture(params=PRESETS, scope="module")
def preset(request):
    return PRESETS[request.param]


@pytest.mark.parametrize("size", [(500, 375), (90, 130), (256, 256)])
def test_pil_images_give_exactly_the_presets_pixels(preset, size):
    preprocessing = Preprocessing.from_transforms(preset)
    image = picture(*size)
    cut = preprocessing.geometry(image)
    assert isinstance(cut, Image.Image)
    assert (cut.height, cut.width) == preprocessing.output_size
    out = preprocessing.normalize(F.pil_to_tensor(cut)[None])[0]
    torch.testing.assert_close(out, preset(image), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["uint8", "float"])
def test_tensors_give_exactly_the_presets_values(preset, kind):
    preprocessing = Preprocessing.from_transforms(preset)
    image = F.pil_to_tensor(picture(300, 260))
    if kind == "float":
        image = image / 255
    batch = torch.stack([image, image.flip(-1)])
    cut = preprocessing.geometry(batch)
    assert cut.dtype == batch.dtype
    out = preprocessing.normalize(cut)
    torch.testing.assert_close(out, preset(batch), rtol=0, atol=1e-6)


@pytest.fixture
def preprocessing():
    return Preprocessing.from_transforms(PRESETS["resnet18-IMAGENET1K_V1"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_normalize_keeps_float_dtypes_and_its_input(preprocessing, dtype):
    batch = torch.rand(2, 3, 4, 4).to(dtype)
    before = batch.clone()
    assert preprocessing.normalize(batch).dtype == dtype
    assert torch.equal(batch, before)


def test_one_channel_becomes_three_equal_ones(preprocessing):
    grey = torch.randint(0, 256, (2, 1, 5, 5), dtype=torch.uint8)
    expected = preprocessing.normalize(grey.expand(-1, 3, -1, -1))
    assert torch.equal(preprocessing.normalize(grey), expected)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (torch.zeros(2, 4, 5, 5), r"\(2, 4, 5, 5\)"),
        (torch.zeros(2, 3, 5, 5, dtype=torch.int64), "int64"),
    ],
)
def test_normalize_refuses_other_batches(preprocessing, batch, message):
    with pytest.raises(ValueError, match=message):
        preprocessing.normalize(batch)


def test_another_image_size_keeps_the_ratio_of_resize_to_crop(preprocessing):
    smaller = preprocessing.replace_image_size(112)
    assert (smaller.resize_size, smaller.crop_size) == (128, (112, 112))
    assert smaller.geometry(picture(200, 150)).size == (112, 112)


def test_height_and_width_take_the_whole_image(preprocessing):
    whole = preprocessing.replace_image_size((60, 90))
    assert whole.output_size == (60, 90)
    image = picture(200, 150)
    out = whole.geometry(image)
    assert out.size == (90, 60)
    assert np.array_equal(out, F.resize(image, [60, 90], antialias=True))
    assert whole.replace_image_size(32).output_size == (32, 32)


@pytest.mark.parametrize("size", [0, -3, 2.5, "224", (1, 2, 3), True, (0, 4)])
def test_bad_image_sizes_are_refused(preprocessing, size):
    with pytest.raises(ValueError, match="image_size"):
        preprocessing.replace_image_size(size)


def test_json_round_trip(preset):
    preprocessing = Preprocessing.from_transforms(preset)
    for one in (preprocessing, preprocessing.replace_image_size((4, 8))):
        assert Preprocessing.from_dict(json.loads(json.dumps(one.to_dict()))) == one


@pytest.mark.parametrize("state", [{}, {"mean": [0, 0, 0]}, "x", {"a": 1}])
def test_from_dict_refuses_what_is_no_preprocessing(state):
    with pytest.raises(ValueError, match="fields"):
        Preprocessing.from_dict(state)


def test_bad_numbers_are_refused(preprocessing):
    with pytest.raises(ValueError, match="std must be three numbers, each above zero"):
        preprocessing.replace_normalization((0, 0, 0), (1, 0, 1))
    with pytest.raises(ValueError, match="three numbers"):
        preprocessing.replace_normalization((0,), (1,))


def test_normalization_can_be_replaced(preprocessing):
    other = preprocessing.replace_normalization((0, 0, 0), np.ones(3))
    batch = torch.rand(1, 3, 4, 4)
    assert torch.equal(other.normalize(batch), batch)
    json.dumps(other.to_dict())


def test_a_function_is_a_preprocessing():
    preset = PRESETS["resnet18-IMAGENET1K_V1"]
    preprocessing = CallablePreprocessing(lambda image: preset(image))
    image = picture(300, 260)
    expected = preset(image)
    tensor = F.pil_to_tensor(image)
    assert torch.equal(preprocessing.geometry(image), expected)
    assert torch.equal(preprocessing.geometry(tensor), expected)
    assert torch.equal(preprocessing.geometry(tensor[None])[0], expected)
    assert torch.equal(preprocessing.normalize(expected[None])[0], expected)
    assert preprocessing.output_size == (224, 224)
    assert preprocessing.geometry(tensor[:1]).shape == (3, 224, 224)
    for refused in (lambda: preprocessing.replace_image_size(3), preprocessing.to_dict):
        with pytest.raises((ValueError, TypeError), match="function"):
            refused()


def test_a_function_that_returns_no_tensor_is_refused():
    with pytest.raises(TypeError, match=r"\(3, height, width\)"):
        CallablePreprocessing(np.asarray).geometry(picture(4, 4))


V2 = PRESETS["mobilenet_v2-IMAGENET1K_V2"]


@pytest.mark.parametrize(
    "given",
    [
        "IMAGENET1K_V2",
        get_model_weights("mobilenet_v2").IMAGENET1K_V2,
        V2,
        Preprocessing.from_transforms(V2),
    ],
    ids=["name", "entry", "preset", "preprocessing"],
)
def test_every_way_to_name_a_preprocessing(given):
    backbone = load_backbone("mobilenet_v2", None, preprocessing=given)
    assert backbone.preprocessing == Preprocessing.from_transforms(V2)


def test_random_weights_take_the_first_recipes_preprocessing():
    backbone = load_backbone("mobilenet_v2", None)
    expected = PRESETS["mobilenet_v2-IMAGENET1K_V1"]
    assert backbone.preprocessing == Preprocessing.from_transforms(expected)
    assert not backbone.pretrained


def test_a_function_is_taken_for_a_name_too():
    backbone = load_backbone("squeezenet1_1", None, preprocessing=F.to_tensor)
    assert isinstance(backbone.preprocessing, CallablePreprocessing)


@pytest.mark.parametrize("given", [3, ["IMAGENET1K_V2"]])
def test_anything_else_is_no_preprocessing(given):
    with pytest.raises(TypeError, match="preprocessing must be"):
        load_backbone("mobilenet_v2", None, preprocessing=given)


def test_unknown_preprocessing_names_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'IMAGENET1K_V2'"):
        load_backbone("mobilenet_v2", None, preprocessing="IMAGENET1K_V22")


@pytest.fixture
def areas(monkeypatch):
    """Return a list of how many pixels each call of Pillow's resize makes."""
    made, resize = [], Image.Image.resize

    def counting(image, size, *args, **kwargs):
        made.append(size[0] * size[1])
        return resize(image, size, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "resize", counting)
    return made


@pytest.mark.parametrize("size", [(10_000, 1), (1, 40_000), (9_000, 30), (700, 60)])
def test_of_a_strip_the_part_seen_alone_is_resized(preprocessing, areas, size):
    strip = Image.new("RGB", size, (9, 8, 7))
    cut = preprocessing.geometry(strip)
    assert cut.size == (224, 224)
    assert cut.getcolors() == [(224 * 224, (9, 8, 7))]
    assert max(areas) < 20 * 256 * 256
    tensor = F.pil_to_tensor(strip)
    assert torch.equal(preprocessing.geometry(tensor), F.pil_to_tensor(cut))


@pytest.mark.parametrize("how", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    "size", [(4000, 100), (5003, 400), (160, 3000), (300, 4000), (30_001, 700)]
)
def test_the_part_of_a_strip_has_the_presets_pixels_but_for_rounding(
    preprocessing, size, how
):
    preprocessing = replace(preprocessing, interpolation=how)
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
    image = Image.fromarray(pixels)
    expected = F.resize(image, 256, InterpolationMode(how), antialias=True)
    expected = np.asarray(F.center_crop(expected, 224), dtype=int)
    found = np.asarray(preprocessing.geometry(image), dtype=int)
    assert np.abs(found - expected).max() <= 2
    tensor = F.pil_to_tensor(image)
    cut = preprocessing.geometry(tensor)
    assert np.array_equal(cut.permute(1, 2, 0), found)
    cut = preprocessing.geometry(torch.stack([tensor, tensor]) / 255)
    assert (cut.dtype, cut.shape) == (torch.float32, (2, 3, 224, 224))
    if max(size) < 10_000:
        whole = F.resize(tensor / 255, 256, InterpolationMode(how), antialias=True)
        assert (cut[1] - F.center_crop(whole, 224)).abs().max() < 1e-3


@pytest.mark.parametrize("size", [(850, 100), (90, 700), (20, 170)])
def test_a_long_image_of_which_a_tenth_is_seen_has_the_presets_pixels(
    preprocessing, size
):
    image = picture(*size)
    expected = F.center_crop(F.resize(image, 256, antialias=True), 224)
    np.testing.assert_array_equal(preprocessing.geometry(image), expected)


def test_pad_shows_all_of_an_image_with_black_beside_it(preprocessing):
    padded = preprocessing.replace_resize("pad")
    image = Image.new("RGB", (400, 100), (200, 100, 50))
    found = np.asarray(padded.geometry(image))
    assert found.shape == (224, 224, 3)
    assert (found[84:140] == (200, 100, 50)).all()
    assert not found[:84].any()
    assert not found[140:].any()
    assert padded.part_seen(100, 400) == 1 > preprocessing.part_seen(100, 400)
    assert padded.replace_image_size(64).geometry(image).size == (64, 64)
    assert padded.replace_image_size((64, 96)).geometry(image).size == (96, 64)
    assert Preprocessing.from_dict(padded.to_dict()) == padded
    strip = padded.geometry(Image.new("RGB", (10_000, 1), (9, 9, 9)))
    assert np.asarray(strip).any()


def test_squash_gives_up_the_proportions(preprocessing):
    squashed = preprocessing.replace_resize("squash")
    image = picture(300, 90)
    expected = F.resize(image, [224, 224], antialias=True)
    np.testing.assert_array_equal(squashed.geometry(image), expected)
    assert squashed == preprocessing.replace_image_size((224, 224))


def test_ways_of_resizing_are_asked_for_by_name(preprocessing):
    loaded = load_backbone(
        "mobilenet_v3_small", "builtin", preprocessing="pad", image_size=64
    )
    assert loaded.preprocessing.crop_size == (64, 64)
    assert loaded.preprocessing.resize_side == "longer"
    with pytest.raises(ValueError, match=r"'pad', 'squash'.*got 'crop'"):
        preprocessing.replace_resize("crop")
    with pytest.raises(ValueError, match=r"'shorter' or 'longer'; got 'both'"):
        Preprocessing(8, (8, 8), (0, 0, 0), (1, 1, 1), resize_side="both")
    with pytest.raises(ValueError, match="resizes by itself"):
        CallablePreprocessing(F.to_tensor).replace_resize("pad")
