"""A network's frozen prefix and the rest of it are together the whole network."""

import copy

import pytest
import torch
from backbone_cases import SMALL, images
from torch import nn
from torchvision.ops import StochasticDepth

from sklearn_dl.backbones import Backbone, load_backbone, shared_backbone

N_STAGES = {"alexnet": 5, "vgg11": 7, "googlenet": 3, "inception_v3": 3}
N_STAGES |= {"squeezenet1_1": 3}
FAST = {"mnasnet0_5": 1, "mobilenet_v3_small": 2, "resnet18": 3, "densenet121": 1}
FAST |= {"alexnet": 1, "convnext_tiny": 1, "squeezenet1_1": 2, "shufflenet_v2_x0_5": 1}
BORDERS = [
    pytest.param(name, k, marks=() if FAST.get(name) == k else pytest.mark.slow)
    for name in SMALL
    for k in range(1, N_STAGES.get(name, 4))
]


def restless(backbone):
    """Make a network's random layers drop much, also those that are functions."""
    for part in backbone.modules():
        if isinstance(part, nn.Dropout | StochasticDepth):
            part.p = 0.4
        if hasattr(part, "drop_rate"):
            part.drop_rate = 0.4
    return backbone


def cut(backbone, trainable):
    halves = backbone.halves(trainable)
    assert not isinstance(halves, str), halves
    return halves


@pytest.mark.parametrize(("name", "k"), BORDERS)
def test_prefix_and_rest_are_the_whole(name, k):
    backbone = restless(load_backbone(name, None, image_size=SMALL[name]))
    assert k < len(backbone.stages)
    halves = cut(backbone, k)
    backbone.freeze(k)
    x = images(SMALL[name], n=3, seed=1)
    frozen = [n for s in list(backbone.stages)[:-k] for n in backbone.stages[s]]
    assert {n for n, _ in halves.prefix.module.named_parameters()} == set(frozen)
    outputs = []
    for training in (False, True):
        backbone.train(training)
        with torch.no_grad():
            torch.manual_seed(2)
            whole = backbone(x)
            torch.manual_seed(2)
            rows = Backbone.forward(unsettled(halves.prefix), x)
            assert torch.equal(backbone.rest(halves.maps(rows), halves.entry), whole)
        outputs.append(whole)
    assert torch.equal(*outputs) != any(map(acts_in_training, backbone.modules()))


def acts_in_training(part):
    kinds = nn.Dropout | StochasticDepth | nn.BatchNorm2d
    return part.training and (isinstance(part, kinds) or hasattr(part, "drop_rate"))


def unsettled(prefix):
    """Return a prefix that computes as the whole does, BatchNorm not folded."""
    prefix = copy.deepcopy(prefix)
    prefix.unsettle()
    return prefix.eval()


def test_gradients_are_those_of_the_whole():
    backbone = load_backbone("resnet18", None, image_size=32)
    halves = cut(backbone, 2)
    backbone.freeze(2, freeze_batch_norm=True)
    backbone.train()
    x = images(32, n=4)
    rows = Backbone.forward(unsettled(halves.prefix), x).detach()
    found = []
    for inputs in (
        lambda: backbone(x),
        lambda: backbone.rest(halves.maps(rows), "layer3"),
    ):
        backbone.zero_grad()
        inputs().square().sum().backward()
        grads = {
            n: p.grad for n, p in backbone.named_parameters() if p.grad is not None
        }
        found.append({name: grad.clone() for name, grad in grads.items()})
    assert found[0].keys() == found[1].keys()
    assert len(found[0]) == 30
    assert all(torch.equal(found[1][name], grad) for name, grad in found[0].items())


def test_the_prefix_of_a_trained_network_is_known_by_its_content():
    backbone = shared_backbone("squeezenet1_1", None, image_size=32)
    known = cut(backbone, 1).prefix.identity()
    trained = copy.deepcopy(backbone)
    trained.freeze(1)
    with torch.no_grad():
        for parameter in trained.parameters():
            if parameter.requires_grad:
                parameter.add_(1)
    assert cut(trained, 1).prefix.identity() == known
    with torch.no_grad():
        next(trained.parameters()).add_(1)
    trained.unsettle()
    assert cut(trained, 1).prefix.identity() != known
    assert cut(backbone, 2).prefix.identity() != known


def test_a_prefix_has_the_memory_of_its_network():
    backbone = shared_backbone("squeezenet1_1", None, image_size=32)
    before = [*backbone.module.named_modules()]
    own = dict(backbone.module.named_parameters())
    prefix = cut(backbone, 1).prefix
    assert prefix.settled
    assert prefix.shared
    assert not prefix.trains
    for name, parameter in prefix.module.named_parameters():
        assert parameter is own[name]
    assert [*backbone.module.named_modules()] == before


class Branching(nn.Module):
    def forward(self, x):
        return x * 2 if x.sum() > 0 else x


@pytest.mark.parametrize(
    ("backbone", "trainable", "reason"),
    [
        ("squeezenet1_1", "all", "no stage in front of those that are trained"),
        ("squeezenet1_1", ["stage1", "stage3"], "no stage in front of those"),
        ("squeezenet1_1", "head", "no stage in front of those that are trained"),
        (lambda: nn.Sequential(*layers(), Branching()), 1, "code beyond torch"),
    ],
)
def test_why_a_network_runs_as_a_whole_is_recorded(backbone, trainable, reason):
    found = load_backbone(backbone, None, image_size=32).halves(trainable)
    assert isinstance(found, str)
    assert reason in found


def layers():
    return [
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
    ]


def test_halves_that_differ_are_not_taken(monkeypatch):
    from sklearn_dl.backbones import _backbone

    rest_of = _backbone.rest_of

    def wrong(network, entry):
        rest = rest_of(network, entry)
        training = any(part.training for part in network.modules())
        return (lambda x: rest(x) + 1) if training else rest

    monkeypatch.setattr(_backbone, "rest_of", wrong)
    found = load_backbone("squeezenet1_1", None, image_size=32).halves(1)
    assert found == (
        "'squeezenet1_1' runs as a whole: its halves differ from it in training mode."
    )


def test_halves_that_fail_are_not_taken(monkeypatch):
    from sklearn_dl.backbones import _backbone

    def fails(network, entry):
        raise RuntimeError

    monkeypatch.setattr(_backbone, "rest_of", fails)
    found = load_backbone("squeezenet1_1", None, image_size=32).halves(1)
    assert found.endswith("runs as a whole: trying its halves ended in RuntimeError.")


def test_hooks_in_both_halves_are_called():
    backbone = load_backbone("resnet18", None, image_size=32)
    called = []
    for name in ("layer1", "layer1.0.conv1", "layer4", "layer4.1.bn2", "avgpool"):
        part = backbone.module.get_submodule(name)
        part.register_forward_hook(lambda *_, name=name: called.append(name))
    halves = cut(backbone, 1)
    assert called == []  # no image of the user's has come
    backbone.freeze(1)
    with torch.no_grad():
        maps = halves.maps(halves.prefix(images(32)))
        assert called == ["layer1.0.conv1", "layer1"]
        called.clear()
        backbone.rest(maps, halves.entry)
    assert called == ["layer4.1.bn2", "layer4", "avgpool"]


def test_a_layer_as_output_keeps_its_prefix():
    backbone = load_backbone("resnet18", None, layer="layer4.0", image_size=32)
    halves = cut(backbone, 1)
    with torch.no_grad():
        rows = Backbone.forward(unsettled(halves.prefix), images(32))
        found = backbone.eval().rest(halves.maps(rows), halves.entry)
    with torch.no_grad():
        assert torch.equal(found, backbone(images(32)))


def ends_before_batch_norm():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3)
    )


def ends_before_a_block():
    block = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3))
    return nn.Sequential(nn.Conv2d(3, 4, 3), block)


@pytest.mark.parametrize(
    ("network", "k"),
    [*FAST.items(), (ends_before_batch_norm, 1), (ends_before_a_block, 1)],
)
def test_halves_of_a_network_that_predicts_are_the_whole(network, k):
    size = SMALL.get(network, 32)
    backbone = load_backbone(network, None, image_size=size)
    generator = torch.Generator().manual_seed(0)
    for name, tensor in backbone.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            tensor.uniform_(0.5, 1.5, generator=generator)
    backbone.freeze("head")
    backbone.settle()
    halves, x = cut(backbone, k), images(size, n=3, seed=1)
    with torch.no_grad():
        found = backbone.rest(halves.maps(halves.prefix(x)), halves.entry)
        torch.testing.assert_close(found, backbone(x), rtol=1e-3, atol=1e-4)
