"""Backbones that a callable returns."""

import copy
import pickle
from collections import OrderedDict
from functools import partial

import pytest
import torch
import torchvision
from backbone_cases import images
from torch import nn

from sklearn_dl.backbones import Preprocessing, load_backbone


class Timm(nn.Module):
    """What a timm model promises, in small."""

    def __init__(self, num_classes=1000):
        super().__init__()
        self.conv_stem = nn.Conv2d(3, 4, 3, stride=2)
        self.bn1 = nn.BatchNorm2d(4)
        self.blocks = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(c, 2 * c, 3), nn.ReLU()) for c in (4, 8, 16))
        )
        self.norm = nn.GroupNorm(1, 32)
        self.num_features = 32
        self.num_classes = num_classes
        self.head = nn.Linear(32, num_classes)
        self.pretrained_cfg = {
            "architecture": "tiny",
            "input_size": (3, 64, 64),
            "crop_pct": 0.8,
            "interpolation": "bicubic",
            "mean": (0.5, 0.5, 0.5),
            "std": (0.4, 0.4, 0.4),
            "classifier": "head",
        }

    def reset_classifier(self, num_classes):
        self.num_classes = num_classes
        self.head = nn.Linear(32, num_classes) if num_classes else nn.Identity()

    def forward(self, x):
        x = self.norm(self.blocks(self.bn1(self.conv_stem(x))))
        return self.head(x.mean((2, 3)))


def test_a_timm_model_loses_its_head_and_tells_its_preprocessing():
    torch.manual_seed(0)
    model = Timm().eval()
    backbone = load_backbone(lambda: model).eval()
    assert (backbone.name, backbone.n_features) == ("tiny", 32)
    assert backbone.pretrained
    assert backbone.preprocessing == Preprocessing(
        80, (64, 64), (0.5,) * 3, (0.4,) * 3, "bicubic"
    )
    x = images(64)
    assert torch.equal(model.head(backbone(x)), model(x))
    assert model.num_classes == 1000  # the user's own is as it was


def test_a_checkpoint_with_a_head_is_loaded_into_a_timm_model(tmp_path):
    other = Timm(num_classes=7)
    torch.save({"state_dict": other.state_dict()}, tmp_path / "w.pth")
    backbone = load_backbone(Timm, tmp_path / "w.pth")
    own = backbone.module.state_dict()
    assert all(torch.equal(own[key], other.state_dict()[key]) for key in own)


def test_stages_of_a_callable_join_small_parts_to_their_neighbours():
    backbone = load_backbone(Timm)
    listed = [p for names in backbone.stages.values() for p in names]
    assert sorted(listed) == sorted(n for n, _ in backbone.module.named_parameters())
    assert list(backbone.stages) == ["conv_stem", "blocks.0", "blocks.1", "blocks.2"]
    assert "bn1.weight" in backbone.stages["blocks.0"]
    assert "norm.weight" in backbone.stages["blocks.2"]
    backbone.freeze(1)
    assert backbone.module.norm.weight.requires_grad
    assert not backbone.module.bn1.weight.requires_grad


def features_of_resnet():
    return nn.Sequential(*list(torchvision.models.resnet18().children())[:-2])


@pytest.mark.parametrize(
    ("pooling", "width"), [(None, 512), ("max", 512), ("flatten", 2048)]
)
def test_maps_of_a_callable_are_pooled(pooling, width):
    torch.manual_seed(0)
    backbone = load_backbone(
        features_of_resnet, layer=("pre_logits", pooling), image_size=64
    ).eval()
    x = images(64)
    with torch.inference_mode():
        maps = backbone.module(x)
        expected = {"max": maps.amax((2, 3)), "flatten": maps.flatten(1)}.get(
            pooling, maps.mean((2, 3))
        )
        torch.testing.assert_close(backbone(x), expected)
    assert backbone.n_features == width
    assert backbone.preprocessing.mean == (0.485, 0.456, 0.406)


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.cls = nn.Parameter(torch.randn(1, 1, 8))
        self.patches = nn.Conv2d(3, 8, 16, stride=16)
        self.block = nn.Linear(8, 8)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        return self.block(torch.cat([self.cls.expand(len(x), -1, -1), x], 1))


class ChannelsLast(nn.Conv2d):
    def forward(self, x):
        return super().forward(x).permute(0, 2, 3, 1)


def test_tokens_and_channels_last_maps_are_pooled():
    x = images(64)
    for pooling, reduce in {
        "avg": lambda t: t.mean(1),
        None: lambda t: t[:, 0],
    }.items():
        backbone = load_backbone(Tokens, layer=("pre_logits", pooling), image_size=64)
        torch.testing.assert_close(backbone(x), reduce(backbone.module(x)))
    backbone = load_backbone(partial(ChannelsLast, 3, 5, 3), image_size=64)
    assert backbone.n_features == 5
    torch.testing.assert_close(backbone(x), backbone.module(x).mean((1, 2)))


def test_a_layer_of_a_callable_by_name():
    whole = Timm().eval()
    backbone = load_backbone(lambda: whole, layer="blocks.1").eval()
    assert backbone.n_features == 16
    x = images(64)
    expected = whole.blocks[:2](whole.bn1(whole.conv_stem(x))).mean((2, 3))
    torch.testing.assert_close(backbone(x), expected)
    assert not any(
        n.startswith(("blocks.2", "norm")) for n in backbone.module.state_dict()
    )


def test_the_trial_run_leaves_buffers_modes_and_generator_alone():
    made = []

    def make():
        torch.manual_seed(3)
        made.append(nn.Sequential(Timm(num_classes=3), nn.Dropout()))
        return made[-1]

    make()
    state = torch.get_rng_state()
    backbone = load_backbone(make, layer="0")
    assert torch.equal(torch.get_rng_state(), state)
    assert len(made) == 2  # called once
    own = backbone.module.state_dict()
    expected = made[0].state_dict()
    assert all(torch.equal(own[k], expected[k]) for k in own)
    assert all(m.training for m in backbone.modules())


class NoMeta(nn.Linear):
    """A layer that cannot run without values."""

    def forward(self, x):
        if not x.new_ones(1).item():
            return x
        return super().forward(x.mean((2, 3)))


def test_a_network_that_needs_values_is_tried_with_values():
    assert load_backbone(partial(NoMeta, 3, 6)).n_features == 6


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: 3, TypeError, "must return a torch.nn.Module, got int"),
        (nn.Linear(3, 3), TypeError, "give a function"),
        (partial(nn.Linear, 5, 3), ValueError, "does not take images of 224 x 224"),
        (nn.LSTM, TypeError, "missing"),
    ],
)
def test_what_is_no_backbone_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        load_backbone(make)


def test_an_entry_name_is_no_weights_of_a_callable():
    with pytest.raises(ValueError, match="callable backbone"):
        load_backbone(Timm, "IMAGENET1K_V1")


def test_weights_none_means_not_pretrained():
    assert not load_backbone(Timm, None).pretrained


def test_vectors_take_no_pooling():
    with pytest.raises(ValueError, match="does not apply"):
        load_backbone(Timm, layer=("pre_logits", "avg"))


@pytest.mark.parametrize("layer", ["pre_logits", "blocks.1"])
def test_copies_of_a_callables_backbone(layer):
    backbone = load_backbone(Timm, layer=layer).eval()
    x = images(64)
    for other in (copy.deepcopy(backbone), pickle.loads(pickle.dumps(backbone))):
        assert torch.equal(other(x), backbone(x))


def test_one_block_is_one_stage():
    make = partial(nn.Sequential, OrderedDict(conv=nn.Conv2d(3, 4, 3), act=nn.ReLU()))
    assert load_backbone(make, image_size=32).stages == {
        "conv": ["conv.weight", "conv.bias"]
    }
