"""BatchNorm folded into convolutions, and weights cast once, for prediction."""

import copy
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from backbone_cases import SMALL, all_names, small_side
from torch import nn
from torch.nn.utils import parametrizations

from sklearn_dl import ImageClassifier, ImageFeatureExtractor
from sklearn_dl.backbones import (
    _folding,
    forget_shared,
    load_backbone,
    load_shared,
    named_tensors,
    predicting,
    walk,
)
from sklearn_dl.backbones._folding import foldable, inference_form
from sklearn_dl.training import GradientMonitor, WeightAveraging

NORMS = (nn.BatchNorm2d,)


def used_batch_norm(network, seed=0):
    """Give BatchNorm the statistics and weights of one that was trained."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor, low, high):
        tensor.data.copy_(
            low + (high - low) * torch.rand(tensor.shape, generator=generator)
        )

    for _, part in walk(network):
        if isinstance(part, NORMS):
            uniform(part.running_mean, -0.3, 0.3)
            uniform(part.running_var, 0.5, 2.0)
            uniform(part.weight, 0.5, 1.5)
            uniform(part.bias, -0.3, 0.3)
    return network.eval()


def inputs(side, n=2, **options):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 3, side, side, generator=generator, **options)


def relative_error(values, expected):
    return ((values - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("name", all_names(SMALL))
def test_folding_changes_no_features_beyond_rounding(name):
    torch.manual_seed(0)
    network = used_batch_norm(
        load_backbone(name, None, image_size=small_side(name))._network
    )
    x = inputs(small_side(name))
    before = {n: t.clone() for n, t in network.state_dict().items()}
    pairs = foldable(network, x)
    form = inference_form(network, pairs) or network
    with torch.inference_mode():
        expected = network(x)
        assert relative_error(form(x), expected) < 1e-5
    n_norms = sum(isinstance(m, NORMS) for _, m in walk(network))
    if "densenet" not in name and name != "maxvit_t":  # where BatchNorm comes first
        assert len(pairs) == n_norms
    assert sum(isinstance(m, NORMS) for _, m in walk(form)) == n_norms - len(pairs)
    after = network.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_in_float64_only_float64s_rounding_is_left():
    network = used_batch_norm(load_backbone("resnet18", None)._network).double()
    x = inputs(64, dtype=torch.float64)
    form = inference_form(network, foldable(network, x))
    with torch.inference_mode():
        assert relative_error(form(x), network(x)) < 1e-13


def test_what_was_not_folded_is_shared():
    network = load_backbone("resnet18", None)._network.eval()
    assert inference_form(network, []) is None
    form = inference_form(network, [("conv1", "bn1")])
    assert form.conv1 is not network.conv1
    assert isinstance(form.bn1, nn.Identity)
    assert form.layer1[0].conv1.weight.data_ptr() == (
        network.layer1[0].conv1.weight.data_ptr()
    )


class Twice(nn.Module):
    """A convolution whose output goes to a BatchNorm and past it."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x):
        x = self.conv(x)
        return self.norm(x) + x


class Shared(Twice):
    """One BatchNorm after two convolutions."""

    def __init__(self):
        super().__init__()
        self.other = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return self.norm(self.conv(x)) + self.norm(self.other(x))


class Repeated(Twice):
    """One convolution before a BatchNorm and, once more, before none."""

    def forward(self, x):
        return self.conv(self.norm(self.conv(x)))


class Returned(Twice):
    """The convolution's output is what the network gives."""

    def forward(self, x):
        out = self.conv(x)
        self.norm(out)
        return out


class Between(Twice):
    """Something stands between."""

    def forward(self, x):
        return self.norm(self.conv(x).relu_())


class Own(nn.Conv2d):
    """A convolution of somebody's own."""

    def forward(self, x):
        return 2 * super().forward(x)


def own_convolution():
    return nn.Sequential(Own(3, 3, 1), nn.BatchNorm2d(3))


def hooked():
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    network[0].register_forward_hook(lambda module, inputs, output: 2 * output)
    return network


def parametrized():
    conv = parametrizations.weight_norm(nn.Conv2d(3, 3, 1))
    return nn.Sequential(conv, nn.BatchNorm2d(3))


def without_statistics():
    norm = nn.BatchNorm2d(3, track_running_stats=False)
    return nn.Sequential(nn.Conv2d(3, 3, 1), norm)


def reused():
    norm = nn.BatchNorm2d(3)
    return nn.Sequential(nn.Conv2d(3, 3, 1), norm, nn.Conv2d(3, 3, 1), norm)


@pytest.mark.parametrize(
    "build",
    [
        *(Twice, Shared, Repeated, Returned, Between),
        *(own_convolution, hooked, parametrized, without_statistics, reused),
    ],
)
def test_what_another_reads_or_changes_is_not_folded(build):
    assert foldable(build().eval(), torch.zeros(1, 3, 8, 8)) == []


def test_biases_and_norms_without_weights_are_folded():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=True, groups=1),
        nn.BatchNorm2d(4, affine=False),
        nn.Conv2d(4, 4, 3, groups=4, bias=False),
        nn.BatchNorm2d(4),
    )
    network[1].running_mean.uniform_(-1, 1)
    network[1].running_var.uniform_(0.1, 3)
    network[3].running_mean.uniform_(-1, 1)
    network.eval()
    x = inputs(16)
    pairs = foldable(network, x)
    assert pairs == [("0", "1"), ("2", "3")]
    with torch.inference_mode():
        torch.testing.assert_close(inference_form(network, pairs)(x), network(x))


def folds(backbone, x):
    """Return whether features within `predicting` are those of another form."""
    with torch.inference_mode():
        plain = backbone(x)
        with predicting():
            fast = backbone(x)
    assert relative_error(fast, plain) < 1e-5
    return not torch.equal(fast, plain)


@pytest.fixture
def shared():
    forget_shared()
    yield load_shared("resnet18", None, image_size=64, seed=3)
    forget_shared()


def test_only_within_predicting_and_without_gradients(shared):
    x = inputs(64)
    assert folds(shared, x)
    with torch.inference_mode():
        expected = shared(x)
    with predicting():
        pass
    with torch.inference_mode():
        assert torch.equal(shared(x), expected)
    with predicting(), torch.enable_grad():
        assert torch.equal(shared(x), expected)


def test_what_everyone_shares_is_folded_once(shared, monkeypatch):
    made = []
    form = _folding.inference_form
    monkeypatch.setattr(
        _folding, "inference_form", lambda *a: made.append(1) or form(*a)
    )
    x = inputs(64)
    for _ in range(3):
        again = load_shared("resnet18", None, image_size=64, seed=3)
        with torch.inference_mode(), predicting():
            again(x)
            shared(x)
    assert len(made) == 1


def test_who_has_the_parts_sees_them_run(shared):
    seen = []
    shared.module.layer1.register_forward_hook(lambda *args: seen.append(1))
    assert not folds(shared, inputs(64))
    assert seen


def test_a_network_that_trains_is_not_folded(shared):
    shared.freeze("all")
    shared.train()
    x = inputs(64)
    norm = shared._network.bn1
    before = norm.running_mean.clone()
    with torch.inference_mode(), predicting():
        values = shared(x)
    with torch.no_grad():
        assert torch.equal(shared(x), values)  # of the batch's own statistics
    assert not torch.equal(norm.running_mean, before)


def test_after_training_the_new_weights_are_folded(shared):
    x = inputs(64)
    shared.freeze("all")
    assert folds(shared.eval(), x)
    shared.train()
    loss = shared(x).square().mean()
    loss.backward()
    parameters = [p for _, m in walk(shared._network) for p in m._parameters.values()]
    torch.optim.SGD([p for p in parameters if p is not None], lr=0.1).step()
    assert folds(shared.eval(), x)


def test_a_frozen_network_is_not_folded_anew_in_each_epoch(shared, monkeypatch):
    backbone = through_pickle(shared)  # with forms of its own
    x, made, form = inputs(64), [], _folding.inference_form
    monkeypatch.setattr(
        _folding, "inference_form", lambda *a: made.append(1) or form(*a)
    )
    for _ in range(3):
        backbone.train()
        with predicting():
            backbone(x)
    assert len(made) == 1


def test_weights_that_are_loaded_are_folded(shared):
    x = inputs(64)
    shared.freeze("all")
    shared.eval()
    assert folds(shared, x)
    other = load_backbone("resnet18", None).state_dict()
    with torch.inference_mode(), predicting():
        before = shared(x)
        shared.load_state_dict(other)
        assert relative_error(shared(x), before) > 0.1
    assert folds(shared, x)


def through_pickle(backbone):
    return pickle.loads(pickle.dumps(backbone))


@pytest.mark.parametrize("copied", [copy.deepcopy, through_pickle])
def test_copies_fold_for_themselves_and_carry_no_form(shared, copied):
    x = inputs(64)
    plain = len(pickle.dumps(shared))
    assert folds(shared, x)
    assert len(pickle.dumps(shared)) == plain
    assert folds(copied(shared), x)


def test_networks_of_other_classes_are_run_as_they_are():
    class Mine(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))

        def forward(self, x):
            return self.body(x)

    backbone = load_backbone(Mine, image_size=32)
    used_batch_norm(backbone._network)
    assert not folds(backbone, inputs(32))


def test_half_precision_casts_weights_once_and_changes_nothing():
    backbone = load_shared("alexnet", None, image_size=64, seed=0)  # no BatchNorm
    x = inputs(64)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        expected = backbone(x)
        with predicting():
            values = backbone(x)
    assert torch.equal(values, expected)
    form = backbone._ledger.origin.forms._forms[torch.bfloat16].network
    kinds = {type(m): m.weight.dtype for _, m in walk(form) if hasattr(m, "weight")}
    assert kinds == {nn.Conv2d: torch.bfloat16, nn.Linear: torch.bfloat16}


def test_half_precision_with_folding_stays_close(shared):
    used = copy.deepcopy(shared)
    used_batch_norm(used._network)
    x = inputs(64, n=4)
    with torch.inference_mode():
        exact = used(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            plain = used(x).float()
            with predicting():
                fast = used(x).float()
    cosine = nn.functional.cosine_similarity
    assert cosine(fast, exact).min() > 0.999
    assert (fast - exact).norm() < 2 * (plain - exact).norm()


@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v3_small"])
def test_what_one_borrower_changes_no_other_sees(name):
    options = {"image_size": 64, "seed": 5}
    forget_shared()
    first = load_shared(name, None, **options)
    x = inputs(64)
    with torch.inference_mode(), predicting():
        expected = first(x)
    second = load_shared(name, None, **options)
    first.freeze("all")
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.mul_(2)
    first.double()
    with torch.inference_mode(), predicting():
        assert torch.equal(second(x), expected)
        assert torch.equal(load_shared(name, None, **options)(x), expected)
        assert not torch.allclose(first(x.double()).float(), expected)


def test_a_first_estimator_in_another_precision_spoils_no_second():
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), "uint8")
    options = {"weights": None, "random_state": 7, "cache": None, "image_size": 64}
    first = ImageFeatureExtractor("mobilenet_v3_small", **options).fit(images)
    expected = first.transform(images)
    first.set_params(precision="float64").transform(images)
    second = ImageFeatureExtractor("mobilenet_v3_small", **options).fit(images)
    np.testing.assert_array_equal(second.transform(images), expected)


def test_threads_that_begin_together_all_get_the_features(shared):
    backbone = through_pickle(shared)
    x = inputs(64)
    with torch.inference_mode():
        expected = backbone(x)
    barrier = threading.Barrier(4)

    def features(_):
        barrier.wait()
        with torch.inference_mode(), predicting():
            return backbone(x)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(features, range(4)))
    finally:
        sys.setswitchinterval(interval)
    assert all(relative_error(values, expected) < 1e-5 for values in found)
    assert not any(t.is_meta for t in named_tensors(backbone._network).values())


def test_tied_convolutions_are_not_folded():
    network = nn.Sequential(
        *(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)),
        *(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)),
    )
    network[2].weight = network[0].weight
    assert foldable(network.eval(), torch.zeros(1, 3, 8, 8)) == [("4", "5")]


def test_what_cannot_run_without_memory_is_not_folded():
    class Asks(Twice):
        def forward(self, x):
            x = self.norm(self.conv(x))
            return x if x.sum().item() > 0 else -x

    assert foldable(Asks().eval(), torch.zeros(1, 3, 8, 8)) == []


def test_a_network_put_in_place_of_another_is_run(shared):
    x = inputs(64)
    assert folds(shared, x)
    shared.module = load_backbone("resnet18", None)._network
    with torch.inference_mode(), predicting():
        assert torch.equal(shared(x), shared._network(x))


def test_beyond_the_range_of_float16_nothing_is_folded():
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)).eval()
    with torch.no_grad():
        network[1].running_var.fill_(1e-3)
        network[0].weight.fill_(3e4)
    assert isinstance(inference_form(network, [("0", "1")])[1], nn.Identity)
    form = inference_form(network, [("0", "1")], torch.float16)
    assert isinstance(form[1], nn.BatchNorm2d)
    assert form[0].weight.dtype == torch.float16


def test_callbacks_of_the_library_leave_folding_on():
    images = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), "uint8")
    model = ImageClassifier(
        "resnet18",
        weights=None,
        image_size=64,
        trainable="all",
        max_epochs=1,
        random_state=0,
        callbacks=[WeightAveraging(), GradientMonitor()],
    )
    backbone = model.fit(images, [0, 1] * 4).net_.module_.backbone
    model.predict(images)
    assert backbone._forms._forms


def test_gradients_of_maps_can_be_had_from_a_fitted_estimator():
    images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), "uint8")
    options = {"weights": None, "image_size": 64, "max_epochs": 1, "random_state": 0}
    model = ImageClassifier("resnet18", **options).fit(images, [0, 1] * 2)
    network = model.net_.module_.eval()
    maps = []

    def keep(module, inputs, output):
        maps.append(output.requires_grad_())

    network.backbone.module.layer4.register_forward_hook(keep)
    network(inputs(64)).sum().backward()
    assert maps[0].grad_fn is not None or maps[0].grad is not None
