"""Quick walks over a network and quick copies of it, against torch's own."""

from collections import OrderedDict
from copy import deepcopy

import pytest
import torch
from torch import nn

from sklearn_dl.backbones import load_backbone, load_shared, walk
from sklearn_dl.backbones._walk import Mould, named_tensors

NAMES = ["densenet121", "mobilenet_v2", "squeezenet1_1", "swin_t", "vit_b_32"]


class Tied(nn.Module):
    """A part under two names, an empty part, a missing one, odd attributes."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.second = self.first
        self.empty = nn.Sequential()
        self.missing = None
        self.register_module("absent", None)
        self.register_parameter("nothing", None)
        self.register_buffer("count", torch.zeros(3))
        self.watched = [self.first]
        self.seen: list = []
        self.also_seen = self.seen
        self.scale = torch.ones(2)  # neither a parameter nor a buffer


class Counted(nn.Module):
    """Knows by itself how it is copied."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.copies = 0

    def __deepcopy__(self, memo):
        new = type(self)()
        new.copies = self.copies + 1
        return new


@pytest.fixture(params=NAMES)
def network(request):
    return load_backbone(request.param, None)


def test_a_walk_visits_what_torch_does(network):
    expected = dict(network.named_modules(remove_duplicate=False))
    found = [(prefix.removesuffix("."), part) for prefix, part in walk(network)]
    assert [name for name, _ in found] == list(expected)
    assert all(part is expected[name] for name, part in found)


def test_a_walk_visits_tied_and_empty_parts():
    assert [p for p, _ in walk(Tied())] == ["", "first.", "second.", "empty."]
    assert list(named_tensors(Tied())) == [
        *("first.weight", "first.bias", "second.weight", "second.bias"),
        "count",
    ]


def test_tensors_are_those_of_torch(network):
    parameters = dict(network.named_parameters(remove_duplicate=False))
    buffers = dict(network.named_buffers(remove_duplicate=False))
    found = named_tensors(network)
    assert list(found) == [*parameters, *buffers]
    assert all(found[n] is t for n, t in (parameters | buffers).items())


def _cast(module: nn.Module):
    tensors = {id(t): deepcopy(t) for t in named_tensors(module).values()}
    return Mould(module, []).cast(tensors)


def _containers(module: nn.Module) -> set[int]:
    """Return the ids of all that must not be the same in a copy."""
    found = set()
    for _, part in walk(module):
        found |= {id(part), id(vars(part))}
        values = vars(part).values()
        found |= {id(v) for v in values if type(v) in (dict, list, set, OrderedDict)}
    return found


def test_a_cast_is_a_deep_copy(network):
    copy, expected = _cast(network), deepcopy(network)
    for (name, part), (_, other) in zip(walk(copy), walk(expected), strict=True):
        assert type(part) is type(other), name
        assert list(vars(part)) == list(vars(other)), name
        for key, value in vars(part).items():
            assert type(value) is type(vars(other)[key]), (name, key)
    assert str(copy) == str(network)
    assert not _containers(copy) & _containers(network)
    x = (
        torch.rand(2, 3, 64, 64)
        if "vit" not in network.name
        else torch.rand(1, 3, 224, 224)
    )
    with torch.inference_mode():
        torch.testing.assert_close(copy.eval()(x), expected.eval()(x), rtol=0, atol=0)


def test_a_cast_keeps_what_is_the_same_the_same():
    network = Tied()
    copy = _cast(network)
    assert copy.first is copy.second is copy.watched[0]
    assert copy.first is not network.first
    assert copy.seen is copy.also_seen
    assert copy.seen is not network.seen
    assert copy.scale is not network.scale
    assert copy.absent is None
    assert copy.nothing is None
    copy.first.register_forward_hook(print)
    assert not network.first._forward_hooks
    assert type(copy._parameters) is type(network._parameters)


def test_a_module_that_copies_itself_does_so():
    network = nn.Sequential(Counted(), nn.ReLU())
    assert _cast(network)[0].copies == 1
    assert network[0].copies == 0


def test_shells_of_one_network_have_nothing_but_tensors_in_common():
    first, second = (load_shared("mobilenet_v2", None, image_size=32) for _ in "ab")
    assert not _containers(first.module) & _containers(second.module)
    first.freeze("all")
    assert first.trains
    assert not second.trains
    assert not second.module.training
    assert first.train().module.training


def test_what_is_wholly_frozen_stays_in_evaluation_mode():
    network = load_backbone("mobilenet_v2", None)
    network.freeze("head")
    network.module.train()  # past the backbone's own method
    assert network.train().training
    assert not any(part.training for _, part in walk(network.module))
