"""First convolutions that are adapted to other numbers of channels."""

from functools import partial

import numpy as np
import pytest
import torch
import torchvision
from backbone_cases import ALL, SMALL, small_side
from PIL import Image
from torch import nn

from sklearn_dl.backbones import (
    CallablePreprocessing,
    Preprocessing,
    _zoo,
    further_kernels,
    load_backbone,
    shared_backbone,
)
from sklearn_dl.backbones._cut import find_stem
from sklearn_dl.datasets import Channels

SMALL_NET = ("mobilenet_v3_small", "builtin")


def pixels(n_channels, side=64, n=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(
        0, 256, (n, n_channels, side, side), generator=generator, dtype=torch.uint8
    )


def features(backbone, images):
    backbone.freeze("head")
    backbone.settle()
    with torch.no_grad():
        return backbone(backbone.preprocessing.normalize(images))


def builtin(channels=None, **options):
    return load_backbone(*SMALL_NET, image_size=64, channels=channels, **options)


@pytest.mark.parametrize("name", SMALL)
def test_features_of_rgb_and_anything_are_those_of_rgb(name, tmp_path):
    torch.manual_seed(0)
    side, path = small_side(name), tmp_path / "weights.pth"
    torch.save(_zoo.build(name, (side, side)).state_dict(), path)
    load = partial(load_backbone, name, path, image_size=(side, side))
    images = pixels(5, side, 2)
    expected = features(load(), images[:, :3])
    got = features(load(channels=Channels(5, rgb=True)), images)
    scale = max(1e-30, float(expected.abs().max()))
    assert (got - expected).abs().max() <= 1e-5 * scale
    twice = load(channels=Channels(6, rgb=False))
    got = features(twice, images[:, [0, 1, 2, 0, 1, 2]])
    assert (got - expected).abs().max() <= 2e-5 * scale
    names = [name for names in twice.stages.values() for name in names]
    assert sorted(names) == sorted(name for name, _ in twice.module.named_parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_every_network_begins_with_one_convolution_of_rgb(name):
    side = small_side(name)
    module = _zoo.build(name, (side, side), shapes_only=True)
    conv = module.get_submodule(find_stem(module, (side, side)))
    assert (conv.in_channels, conv.groups) == (3, 1)


def test_one_channel_has_the_sum_of_the_kernels():
    rgb, grey = builtin(), builtin(1)
    stem = find_stem(rgb.module, (64, 64))
    kernels = rgb.module.get_submodule(stem).weight
    assert torch.equal(
        grey.module.get_submodule(stem).weight, kernels.sum(1, keepdim=True)
    )
    preset = rgb.preprocessing
    assert grey.preprocessing.mean == pytest.approx((np.mean(preset.mean),))
    assert features(grey, pixels(1)).shape == (3, rgb.n_features)


def test_channels_that_are_no_colours_have_the_kernels_repeated_and_scaled():
    stem = find_stem(builtin().module, (64, 64))
    kernels = builtin().module.get_submodule(stem).weight
    seven = builtin(7)
    expected = torch.cat([kernels, kernels, kernels[:, :1]], 1) * 3 / 7
    assert torch.allclose(seven.module.get_submodule(stem).weight, expected)
    mean = seven.preprocessing.mean
    assert mean[:3] == mean[3:6] == builtin().preprocessing.mean
    assert not seven.preprocessing.rgb


def test_further_channels_begin_at_zero_and_are_trained():
    backbone = builtin(4)
    (further,) = further_kernels(backbone)
    assert further.shape[1] == 1
    assert not further.any()
    backbone.freeze("all")
    backbone(backbone.preprocessing.normalize(pixels(4))).sum().backward()
    assert further.grad.any()
    assert backbone.stages["stage1"].count("features.0.0.further") == 1
    assert not further_kernels(builtin(Channels(4, rgb=False)))


def test_random_networks_have_kernels_of_their_own_for_each_channel():
    torch.manual_seed(0)
    load = partial(load_backbone, "resnet18", None, image_size=64)
    rgb, many = load(), load(channels=Channels(48, rgb=True))
    assert not further_kernels(many)
    weight = many.module.conv1.weight.detach()
    expected = float(rgb.module.conv1.weight.detach().std()) / 4
    assert float(weight.std()) == pytest.approx(expected, rel=0.05)
    assert len({tuple(k.flatten().tolist()) for k in weight.transpose(0, 1)}) == 48


def test_three_channels_are_the_network_for_rgb():
    same = [shared_backbone(*SMALL_NET, channels=c) for c in (None, 3, [2, 1, 0])]
    assert len({id(backbone.module) for backbone in same}) == 1
    four = shared_backbone(*SMALL_NET, channels=4)
    again = shared_backbone(*SMALL_NET, channels=[3, 2, 1, 7])
    assert four.module is again.module
    other = shared_backbone(*SMALL_NET, channels=Channels(4, rgb=False))
    known = {b.identity() for b in (same[0], four, other)}
    assert len(known) == 3


def test_a_file_of_weights_for_all_channels_is_taken_as_it_is(tmp_path):
    torch.manual_seed(0)
    module = torchvision.models.resnet18()
    module.conv1 = nn.Conv2d(5, 64, 7, 2, 3, bias=False)
    torch.save(module.state_dict(), tmp_path / "five.pth")
    images = pixels(5)
    for rgb in (True, False):
        backbone = load_backbone(
            "resnet18",
            tmp_path / "five.pth",
            image_size=64,
            channels=Channels(5, rgb=rgb),
        )
        module.fc = nn.Identity()
        with torch.no_grad():
            expected = module.eval()(backbone.preprocessing.normalize(images))
        assert torch.allclose(features(backbone, images), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_the_own_normalisation_of_a_network_is_that_of_all_channels(name, tmp_path):
    torch.manual_seed(0)
    side = SMALL[name]
    torch.save(_zoo.build(name).state_dict(), tmp_path / "weights.pth")
    load = partial(load_backbone, name, tmp_path / "weights.pth", image_size=side)
    six = load(channels=6)
    assert six.module.transform_input is False
    stem = six.module.get_submodule(find_stem(six.module, (side, side)))
    # From ImageNet's mean and deviation to 0.5 and 0.5.
    assert stem.scale == pytest.approx([0.458, 0.448, 0.45] * 2)
    assert stem.shift == pytest.approx([-0.03, -0.088, -0.188] * 2)


def test_a_callable_for_its_own_number_of_channels_is_left_alone():
    def network(n):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(n, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    for n in (1, 13):
        own = load_backbone(partial(network, n))
        assert own.preprocessing.n_channels == n
        assert features(own, pixels(n)).shape == (3, 4)
        asked = load_backbone(partial(network, n), channels=n)
        assert torch.equal(asked.module[0].weight, own.module[0].weight)
    with pytest.raises(ValueError, match=r"takes images of 13 channels.*adapted to 5"):
        load_backbone(partial(network, 13), channels=5)
    adapted = load_backbone(partial(network, 3), channels=5)
    assert features(adapted, pixels(5)).shape == (3, 4)


def test_a_network_that_reads_rgb_in_another_way_is_not_adapted():
    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 4)

        def forward(self, x):
            return self.linear(x.mean((2, 3)))

    assert load_backbone(Reads).n_features == 4
    grouped = nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.Flatten())
    for function in (Reads, lambda: grouped):
        with pytest.raises(ValueError, match=r"no convolution .*can't be adapted to 5"):
            load_backbone(function, channels=5)


def test_networks_of_timm_for_one_channel_and_many():
    timm = pytest.importorskip("timm")
    create = partial(timm.create_model, "test_resnet", pretrained=False)
    one = load_backbone(partial(create, in_chans=1), image_size=64)
    assert features(one, pixels(1)).shape == (3, one.n_features)
    many = load_backbone(create, image_size=64, channels=Channels(5, rgb=True))
    assert features(many, pixels(5)).shape == (3, many.n_features)


def test_colour_images_become_grey_for_a_network_of_one_channel():
    one = Preprocessing(None, None, (0.5,), (0.5,))
    image = pixels(3, 8, 1)
    grey = Image.fromarray(image[0].permute(1, 2, 0).numpy()).convert("L")
    expected = (np.asarray(grey) / 255 - 0.5) / 0.5
    got = one.normalize(image)
    assert got.shape == (1, 1, 8, 8)
    assert np.abs(got[0, 0].numpy() - expected).max() <= 1.01 / 255


def test_each_band_is_resized_as_a_grey_image_is():
    preprocessing = builtin(5).preprocessing
    image = pixels(5, 90, 1)[0]
    resized = preprocessing.geometry(image)
    for band, expected in zip(resized, image, strict=True):
        grey = preprocessing.geometry(Image.fromarray(expected.numpy()))
        assert np.array_equal(band.numpy(), np.asarray(grey))
    with pytest.raises(ValueError, match=r"\(n, 5, H, W\), got shape \(1, 3,"):
        preprocessing.normalize(pixels(3, 64, 1))


def test_a_preprocessing_for_many_channels_is_written_down():
    many = builtin(Channels(5, rgb=False)).preprocessing
    assert Preprocessing.from_dict(many.to_dict()) == many
    assert builtin(preprocessing=many).preprocessing.n_channels == 5
    with pytest.raises(ValueError, match="for 5 channels, not for 6"):
        builtin(6, preprocessing=many)
    with pytest.raises(ValueError, match="must be 5 numbers"):
        many.replace_normalization((0.5,) * 3, (0.5,) * 3)


def test_a_function_gets_all_channels_as_a_tensor():
    function = CallablePreprocessing(lambda x: x.float() / 255)
    backbone = load_backbone(*SMALL_NET, preprocessing=function, channels=5)
    image = pixels(5, 64, 1)[0]
    assert torch.equal(backbone.preprocessing.geometry(image), image.float() / 255)
