"""Augmentation of images of other channels than grey and RGB."""

import warnings

import numpy as np
import pytest
import torch

from sklearn_dl.augmentation._augmenter import NAMES
from sklearn_dl.augmentation._presets import resolve_augment
from sklearn_dl.augmentation._views import resolve_views
from sklearn_dl.backbones import Preprocessing

RGB = Preprocessing(24, (24, 24), (0.5,) * 3, (0.5,) * 3)
BANDS = RGB.replace_channels(5, rgb=False)
RGB_AND_MORE = RGB.replace_channels(5, rgb=True)
IMAGE = torch.from_numpy(
    np.random.default_rng(0).integers(0, 256, (5, 30, 32), "uint8")
)


def changed(names, preprocessing, image=IMAGE, seed=3):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        augmenter, _ = resolve_augment(names, preprocessing)
    return augmenter(image, np.random.default_rng(seed))


@pytest.mark.parametrize("preprocessing", [BANDS, RGB_AND_MORE], ids=["bands", "rgb"])
@pytest.mark.parametrize("name", [*NAMES, "light", "standard", "strong"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_every_name_takes_five_channels(name, preprocessing, dtype):
    image = IMAGE if dtype == "uint8" else IMAGE.float() / 255
    result = changed(name, preprocessing, image)
    assert result.shape == (5, 24, 24)
    assert result.dtype == image.dtype


@pytest.mark.parametrize("name", ["flip", "rotation", "scale", "brightness"])
def test_a_channel_changes_as_it_would_alone(name):
    together = changed(name, BANDS)
    one = RGB.replace_channels(1, rgb=False)
    for band, result in zip(IMAGE, together, strict=True):
        alone = changed(name, one, band[None])[0]
        assert (alone.int() - result.int()).abs().max() <= 1


def test_saturation_and_hue_are_those_of_the_first_three_channels():
    # At strength 1 each fifth image loses its colour: take a seed at which it does.
    greyed = [changed("grayscale", RGB_AND_MORE, seed=seed) for seed in range(30)]
    plain = RGB_AND_MORE.geometry(IMAGE)
    lost = [one for one in greyed if not torch.equal(one, plain)]
    assert 0 < len(lost) < 30
    for one in lost:
        assert torch.equal(one[0], one[1])
        assert torch.equal(one[1], one[2])
        assert torch.equal(one[3:], plain[3:])
    assert all(
        torch.equal(changed("grayscale", BANDS, seed=seed), plain) for seed in range(30)
    )


def test_changes_of_colour_say_once_what_they_do():
    with pytest.warns(
        UserWarning, match="color change saturation and hue of the first"
    ):
        resolve_augment("standard", RGB_AND_MORE)
    with pytest.warns(UserWarning, match="color leave saturation and hue alone"):
        resolve_augment("standard", BANDS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resolve_augment(["light", "brightness"], BANDS)
        resolve_augment("standard", RGB)
        resolve_views(3, BANDS, "standard")


def test_recipes_for_rgb_are_refused():
    with pytest.raises(
        ValueError, match=r"'trivial' changes the colours .* 5 channels"
    ):
        resolve_augment(["flip", "trivial"], BANDS)


@pytest.mark.parametrize(("tta", "n"), [("flip", 2), ("five_crop", 5), (3, 3)])
def test_views_have_all_channels(tta, n):
    views = resolve_views(tta, BANDS)(IMAGE)
    assert views.shape == (n, 5, 24, 24)
    if tta == "flip":
        assert torch.equal(views[0], BANDS.geometry(IMAGE))


def test_a_transform_of_ones_own_gets_a_tensor_of_all_channels():
    seen = []

    def mirrored(image):
        seen.append(tuple(image.shape))
        return image.flip(-1)

    result = changed([mirrored], BANDS)
    assert seen == [(5, 24, 24)]
    assert torch.equal(result, BANDS.geometry(IMAGE).flip(-1))
    views = resolve_views(lambda image: [image, image.flip(-1)], BANDS)
    assert views(IMAGE).shape == (2, 5, 24, 24)
    with pytest.raises(TypeError, match="must return an image of 5 channels"):
        changed([lambda image: image[:3]], BANDS)
