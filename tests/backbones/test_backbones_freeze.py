"""What stays frozen, and how stages are named."""

import pytest
import torch
from backbone_cases import images
from torch import nn

from sklearn_dl.backbones import load_backbone


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    return load_backbone("resnet18", None, image_size=64)


@pytest.fixture(scope="module")
def efficientnet():
    torch.manual_seed(0)
    return load_backbone("efficientnet_b0", None, image_size=64)


def trainable_stages(backbone):
    params = dict(backbone.module.named_parameters())
    flags = {
        s: {params[n].requires_grad for n in ns} for s, ns in backbone.stages.items()
    }
    assert all(len(found) == 1 for found in flags.values())
    return [stage for stage, found in flags.items() if found == {True}]


@pytest.mark.parametrize(
    ("trainable", "expected"),
    [
        ("head", []),
        (0, []),
        ("all", ["layer1", "layer2", "layer3", "layer4"]),
        (2, ["layer3", "layer4"]),
        ("layer4", ["layer4"]),
        (["layer1", "layer3"], ["layer1", "layer3"]),
        (("layer2",), ["layer2"]),
    ],
)
def test_freeze_makes_the_named_stages_trainable(resnet, trainable, expected):
    resnet.freeze(trainable)
    assert trainable_stages(resnet) == expected


@pytest.mark.parametrize(
    ("trainable", "message"),
    [
        ("layer5", "Did you mean 'layer4'"),
        (["layer4", "layre3"], "'layer3'"),
        (5, "layer1, layer2, layer3, layer4"),
        (-1, "4 stages"),
        (1.5, "1.5"),
        (True, "True"),
        (None, "None"),
    ],
)
def test_unknown_stages_are_named_with_the_valid_ones(resnet, trainable, message):
    with pytest.raises(ValueError, match=message):
        resnet.freeze(trainable)


def test_what_a_caller_set_to_train_alone_is_set_back(efficientnet):
    for module in efficientnet.module.modules():
        if isinstance(module, torch.nn.Dropout | torch.nn.BatchNorm2d):
            module.train()
    efficientnet.eval()
    assert not any(m.training for m in efficientnet.modules())
    efficientnet.train()
    for module in efficientnet.module.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    efficientnet.train()
    assert all(m.training for m in efficientnet.module.modules())


def test_frozen_part_stays_in_evaluation_mode_as_a_whole(efficientnet):
    efficientnet.freeze("head")
    efficientnet.train()
    assert not any(m.training for m in efficientnet.module.modules())
    x = images(64)
    assert torch.equal(efficientnet(x), efficientnet(x))  # no dropout, no depth
    efficientnet.freeze("all")
    assert all(m.training for m in efficientnet.module.modules())
    efficientnet.eval()
    assert not any(m.training for m in efficientnet.modules())


def test_parts_without_parameters_follow_the_stage_before_them(efficientnet):
    efficientnet.freeze(["stage4"])
    efficientnet.train()
    module = efficientnet.module
    assert module.features[8][2].training  # activation of stage4
    assert not module.features[0][2].training  # activation of the stem
    assert not module.features[5].training
    assert module.features[6].training
    assert module.features[7][0].stochastic_depth.training
    assert not module.features[5][1].stochastic_depth.training


def test_dropout_after_a_frozen_layer_is_frozen_with_it():
    torch.manual_seed(0)
    backbone = load_backbone("vgg11", None, image_size=32)
    backbone.freeze(["fc2"])
    backbone.train()
    classifier = backbone.module.classifier
    assert not classifier[2].training  # behind fc1, which is frozen
    assert isinstance(classifier[5], nn.Identity)  # belongs to the new head
    backbone.freeze(["fc1"])
    assert classifier[2].training


def test_freeze_batch_norm_keeps_statistics_of_trainable_stages(resnet):
    resnet.freeze(2, freeze_batch_norm=True)
    resnet.train()
    before = {k: v.clone() for k, v in resnet.module.named_buffers()}
    resnet(images(64))
    after = dict(resnet.module.named_buffers())
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert resnet.module.layer4[0].conv1.training
    assert resnet.module.layer4[0].bn1.weight.requires_grad

    resnet.freeze(2)
    resnet(images(64))
    moved = {k.split(".")[0] for k in before if not torch.equal(before[k], after[k])}
    assert moved == {"layer3", "layer4"}
