"""All 80 networks: width, features, stages, gradients."""

import copy
import pickle

import joblib
import pytest
import torch
from backbone_cases import (
    QUICK,
    SMALL,
    all_names,
    images,
    is_weighted,
    reference_network,
    small_side,
)
from torch import nn
from torch.nn import functional as F

from sklearn_dl.backbones import load_backbone

RUN = {*SMALL} - {"inception_v3", "maxvit_t", "swin_t", "vgg11", "convnext_tiny"}


def random_backbone(name, seed=0, **options):
    torch.manual_seed(seed)
    options.setdefault("image_size", small_side(name))
    return load_backbone(name, None, **options)


# A network of each family, and those that are built otherwise than it.
SHAPES = {
    *SMALL,
    *("densenet161", "efficientnet_b7", "efficientnet_v2_s", "mobilenet_v3_large"),
    *("regnet_x_400mf", "regnet_y_128gf", "resnet50", "shufflenet_v2_x2_0"),
    *("squeezenet1_0", "swin_v2_t", "vgg19_bn", "vit_l_16", "vit_h_14"),
}


@pytest.mark.parametrize("name", all_names(SHAPES))
def test_stages_partition_the_parameters_and_width_is_the_heads(name, without_memory):
    backbone = load_backbone(name, None)
    params = dict(backbone.module.named_parameters())
    listed = [p for names in backbone.stages.values() for p in names]
    assert sorted(listed) == sorted(params)
    assert len(backbone.stages) >= 3

    whole, head = reference_shapes(name)
    layer = whole.get_submodule(head)
    assert backbone.n_features == getattr(layer, "in_features", None) or (
        layer.in_channels
    )
    assert sorted(params) == sorted(
        n for n, _ in whole.named_parameters() if not n.startswith(f"{head}.")
    )
    check_blocks_and_order(name, backbone)


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("resnet18", {"layer1": 56, "layer2": 28, "layer3": 14, "layer4": 7}),
        ("mobilenet_v2", {"stage1": 56, "stage2": 28, "stage3": 14, "stage4": 7}),
        ("mnasnet0_5", {"stage1": 56, "stage2": 28, "stage3": 14, "stage4": 7}),
        ("efficientnet_b0", {"stage1": 56, "stage2": 28, "stage3": 14, "stage4": 7}),
        ("squeezenet1_1", {"stage1": 55, "stage2": 27, "stage3": 13}),
    ],
)
def test_a_stage_begins_where_the_resolution_falls(name, cells):
    backbone = random_backbone(name, image_size=224)
    sides = {}
    for path, part in backbone.module.named_modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_hook(
                lambda part, x, output, path=path: sides.update(
                    {path: output.shape[-1]}
                )
            )
    with torch.inference_mode():
        backbone.eval()(torch.zeros(1, 3, 224, 224))
    smallest = {  # "fc" is what squeezes the whole map into one cell
        stage: min(sides.get(n.rpartition(".")[0], 224) for n in names if "fc" not in n)
        for stage, names in backbone.stages.items()
    }
    assert smallest == cells


def check_blocks_and_order(name, backbone):
    """Each stage has a convolution or attention block; they stand in order."""
    order = [n for n, _ in backbone.module.named_parameters()]
    starts = []
    for stage, names in backbone.stages.items():
        owners = {backbone.module.get_submodule(n.rpartition(".")[0]) for n in names}
        kinds = (nn.Conv2d, nn.MultiheadAttention)
        blocks = [m for m in owners if isinstance(m, kinds)]
        # torchvision's Swin and MaxViT write attention with linear layers.
        if name.startswith(("swin", "maxvit")) or stage.startswith("fc"):
            blocks = [m for m in owners if is_weighted(m)]
        assert blocks, stage
        starts.append(max(order.index(n) for n in names))
    assert starts == sorted(starts)


def reference_shapes(name):
    from sklearn_dl.backbones._zoo import build

    network = build(name, shapes_only=True)
    return network, [n for n, m in network.named_modules() if is_weighted(m)][-1]


@pytest.mark.parametrize("name", all_names(RUN))
def test_features_are_what_enters_torchvisions_last_layer(name):
    side = small_side(name)
    network, head = reference_network(name, side)
    caught = []
    network.get_submodule(head).register_forward_pre_hook(
        lambda module, inputs: caught.append(inputs[0])
    )
    backbone = random_backbone(name).eval()
    x = images(side)
    with torch.inference_mode():
        network(x)
        features = backbone(x)
    (expected,) = caught
    if expected.ndim == 4:  # squeezenet pools behind its last layer
        expected = F.adaptive_avg_pool2d(expected, 1).flatten(1)
    assert features.shape == (2, backbone.n_features)
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", all_names(QUICK))
def test_gradient_reaches_head_and_freezing_leaves_frozen_tensors_bit_identical(name):
    backbone = random_backbone(name)
    head = nn.Linear(backbone.n_features, 3)
    x, y = images(small_side(name)), torch.tensor([0, 2])

    backbone.freeze("head")
    before = snapshot(backbone)
    train(backbone, head, x, y)
    assert head.weight.grad.abs().sum() > 0
    assert changed(before, backbone) == set()

    last = list(backbone.stages)[-1]
    backbone.freeze(1)
    train(backbone, head, x, y)
    moved = changed(before, backbone)
    assert moved & set(backbone.stages[last])
    frozen = [p for s, names in backbone.stages.items() if s != last for p in names]
    assert not moved & set(frozen)
    # Buffers move only where the last stage's parameters are.
    owners = {p.rpartition(".")[0] for p in backbone.stages[last]}
    assert {key.rpartition(".")[0] for key in moved} <= owners


def snapshot(backbone):
    return {key: value.clone() for key, value in backbone.module.state_dict().items()}


def changed(before, backbone):
    now = backbone.module.state_dict()
    return {key for key in before if not torch.equal(before[key], now[key])}


def train(backbone, head, x, y, steps=2):
    backbone.train()
    params = [*backbone.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(
        [p for p in params if p.requires_grad], lr=0.01, momentum=0.9, weight_decay=0.1
    )
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(head(backbone(x)), y).backward()
        optimizer.step()


POOLED = {"vgg11": 25088, "alexnet": 9216, "mobilenet_v3_small": 576, "maxvit_t": 512}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in RUN else pytest.mark.slow) for n in POOLED],
)
def test_pooled_is_the_output_of_torchvisions_pooling(name):
    side = small_side(name)
    network, _ = reference_network(name, side)
    caught = []
    pooling = "classifier.0" if name == "maxvit_t" else "avgpool"
    network.get_submodule(pooling).register_forward_hook(
        lambda module, inputs, output: caught.append(output.flatten(1))
    )
    backbone = random_backbone(name, layer="pooled").eval()
    x = images(side)
    with torch.inference_mode():
        network(x)
        features = backbone(x)
    assert features.shape == (2, POOLED[name])
    torch.testing.assert_close(features, caught[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pooling", ["avg", "max", "flatten"])
@pytest.mark.parametrize(
    "name",
    ["resnet18", "squeezenet1_1", pytest.param("densenet121", marks=pytest.mark.slow)],
)
def test_pooling_of_the_last_map(name, pooling):
    network, _ = reference_network(name, 64)
    x = images(64)
    with torch.inference_mode():
        if name == "resnet18":
            part = nn.Sequential(*list(network.children())[:-2])
            maps = part(x)
        else:
            maps = F.relu(network.features(x))
        expected = {
            "avg": maps.mean((2, 3)),
            "max": maps.amax((2, 3)),
            "flatten": maps.flatten(1),
        }[pooling]
        features = random_backbone(name, layer=("pre_logits", pooling)).eval()(x)
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-6)


def test_swins_inner_maps_are_pooled_over_height_and_width():
    network, _ = reference_network("swin_t", 224)
    backbone = random_backbone("swin_t", layer="features.3", image_size=224).eval()
    x = images(224, n=1)
    with torch.inference_mode():
        expected = network.features[:4](x).mean((1, 2))
        assert backbone.n_features == 192
        torch.testing.assert_close(backbone(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pooling", [None, "cls", "avg", "max", "flatten"])
def test_tokens_of_a_vision_transformer(pooling):
    network, _ = reference_network("vit_b_32", 64)
    layer = "encoder.layers.encoder_layer_1"
    backbone = random_backbone("vit_b_32", layer=(layer, pooling)).eval()
    caught = []
    network.get_submodule(layer).register_forward_hook(
        lambda module, inputs, output: caught.append(output)
    )
    x = images(64)
    with torch.no_grad():
        network(x)
        features = backbone(x)
    (tokens,) = caught
    expected = {
        "avg": tokens.mean(1),
        "max": tokens.amax(1),
        "flatten": tokens.flatten(1),
    }.get(pooling, tokens[:, 0])
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5)
    assert list(backbone.stages) == ["stage1"]


@pytest.mark.parametrize("layer", ["pre_logits", "pooled", "layer2", "layer2.1.conv1"])
@pytest.mark.parametrize(
    "clone",
    [copy.deepcopy, lambda b: pickle.loads(pickle.dumps(b))],
    ids=["deepcopy", "pickle"],
)
def test_copies_give_the_same_features_and_train_alike(layer, clone):
    backbone = random_backbone("resnet18", layer=layer)
    backbone.freeze(1)
    other = clone(backbone)
    x = images(64)
    for mode in (False, True):
        torch.testing.assert_close(
            backbone.train(mode)(x), other.train(mode)(x), rtol=0, atol=0
        )
    assert [p.requires_grad for p in backbone.parameters()] == [
        p.requires_grad for p in other.parameters()
    ]


def test_joblib_round_trip(tmp_path):
    backbone = random_backbone("squeezenet1_1", layer="features.5").eval()
    joblib.dump(backbone, tmp_path / "backbone.joblib")
    other = joblib.load(tmp_path / "backbone.joblib")
    assert torch.equal(backbone(images(64)), other(images(64)))


def test_layers_behind_the_wanted_one_are_removed():
    backbone = random_backbone("resnet18", layer="layer2.0")
    names = {n for n, _ in backbone.module.named_parameters()}
    assert {n.split(".")[0] for n in names} == {"conv1", "bn1", "layer1", "layer2"}
    assert not any(n.startswith("layer2.1") for n in backbone.module.state_dict())
    assert list(backbone.stages) == ["layer1", "layer2"]


def test_building_pretrained_leaves_the_generator_alone(tmp_path):
    network, _ = reference_network("swin_t", 224)
    torch.save(network.half().state_dict(), tmp_path / "swin.pth")
    torch.manual_seed(7)
    state = torch.get_rng_state()
    load_backbone("swin_t", tmp_path / "swin.pth")
    assert torch.equal(state, torch.get_rng_state())


def test_random_networks_follow_the_callers_seed():
    one, two, other = (random_backbone("squeezenet1_1", seed=s) for s in (1, 1, 2))
    key = "features.0.weight"
    assert torch.equal(one.module.state_dict()[key], two.module.state_dict()[key])
    assert not torch.equal(one.module.state_dict()[key], other.module.state_dict()[key])


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "mnasnet0_5"])
def test_random_networks_have_usual_batch_norm_momentum(name):
    momenta = {
        m.momentum
        for m in random_backbone(name).modules()
        if isinstance(m, nn.BatchNorm2d)
    }
    assert momenta == {0.1}


def test_vision_transformer_positions_are_interpolated_to_the_image_size(tmp_path):
    network, _ = reference_network("vit_b_32", 64)
    state = {k: v for k, v in network.state_dict().items() if "layer_" not in k}
    kept = {k: v for k, v in network.state_dict().items() if "encoder_layer_0." in k}
    torch.save({**state, **kept}, tmp_path / "vit.pth")
    backbone = load_backbone(
        "vit_b_32",
        tmp_path / "vit.pth",
        layer="encoder.layers.encoder_layer_0",
        image_size=128,
    )
    positions = backbone.module.state_dict()["encoder.pos_embedding"]
    old = network.encoder.pos_embedding[:, 1:].transpose(1, 2).reshape(1, 768, 2, 2)
    new = F.interpolate(old, size=4, mode="bicubic", align_corners=True)
    assert positions.shape == (1, 17, 768)
    torch.testing.assert_close(positions[0, 1:].T.reshape(1, 768, 4, 4), new)
    assert backbone.eval()(images(128)).shape == (2, 768)


def test_small_covers_every_family():
    from sklearn_dl.backbones._cut import _LAST_MAP

    families = {type(reference_shapes(name)[0]).__name__ for name in SMALL}
    assert families == set(_LAST_MAP)
