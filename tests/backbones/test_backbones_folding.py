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
    _backbone,
    _fold,
    load_backbone,
    shared_backbone,
)
from sklearn_dl.backbones._fold import foldable, inference_form
from sklearn_dl.backbones._load import forget_shared
from sklearn_dl.training import GradientMonitor, WeightAveraging

NORMS = (nn.BatchNorm2d,)


def used_batch_norm(network, seed=0):
    """Give BatchNorm the statistics and weights of one that was trained."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor, low, high):
        tensor.data.copy_(
            low + (high - low) * torch.rand(tensor.shape, generator=generator)
        )

    for part in network.modules():
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
        load_backbone(name, None, image_size=small_side(name)).module
    )
    x = inputs(small_side(name))
    before = {n: t.clone() for n, t in network.state_dict().items()}
    pairs = foldable(network)
    form = inference_form(network, pairs)
    with torch.inference_mode():
        expected = network(x)
        assert relative_error(form(x), expected) < 1e-5
    n_norms = sum(isinstance(m, NORMS) for m in network.modules())
    if "densenet" not in name and name != "maxvit_t":  # where BatchNorm comes first
        assert len(pairs) == n_norms
    assert sum(isinstance(m, NORMS) for m in form.modules()) == n_norms - len(pairs)
    after = network.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


@pytest.mark.parametrize(
    ("name", "layer", "n_pairs"),
    [
        ("resnet18", "layer2", 10),
        ("resnet18", "layer2.0.conv2", 6),
        ("mobilenet_v2", "features.3", 9),
        ("densenet121", ("pre_logits", "max"), 59),
    ],
)
def test_what_is_cut_at_a_layer_is_folded_up_to_there(name, layer, n_pairs):
    backbone = load_backbone(name, None, layer=layer, image_size=64)
    used_batch_norm(backbone.module)
    backbone.settle()
    assert len(foldable(backbone.module)) == n_pairs
    assert folds(backbone, inputs(64))


def test_in_float64_only_float64s_rounding_is_left():
    network = used_batch_norm(load_backbone("resnet18", None).module).double()
    x = inputs(64, dtype=torch.float64)
    form = inference_form(network, foldable(network))
    with torch.inference_mode():
        assert relative_error(form(x), network(x)) < 1e-13


def test_what_was_not_folded_is_shared():
    network = load_backbone("resnet18", None).module.eval()
    assert inference_form(network, []) is network
    form = inference_form(network, [("conv1", "bn1")])
    assert form.conv1 is not network.conv1
    assert isinstance(form.bn1, nn.Identity)
    assert form.layer1[0].conv1.weight.data_ptr() == (
        network.layer1[0].conv1.weight.data_ptr()
    )
    assert {n for n, _ in form.named_parameters()} == {
        "conv1.bias",
        *(n for n, _ in network.named_parameters() if not n.startswith("bn1.")),
    }


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
    assert foldable(build().eval()) == []


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
    pairs = foldable(network)
    assert pairs == [("0", "1"), ("2", "3")]
    with torch.inference_mode():
        torch.testing.assert_close(inference_form(network, pairs)(x), network(x))


def folds(backbone, x):
    """Return whether features without gradients are those of another form."""
    plain = backbone(x).detach()
    with torch.inference_mode():
        fast = backbone(x)
    assert relative_error(fast, plain) < 1e-5
    return not torch.equal(fast, plain)


@pytest.fixture
def shared():
    forget_shared()
    yield shared_backbone("resnet18", None, image_size=64, seed=3)
    forget_shared()


def test_only_a_settled_backbone_and_only_without_gradients(shared):
    x = inputs(64)
    assert folds(shared, x)
    with torch.no_grad():
        own = copy.deepcopy(shared)
        assert not torch.equal(own(x), shared.module(x))
        own.unsettle()
        assert torch.equal(own(x), shared.module(x))
        with torch.enable_grad():
            assert torch.equal(shared(x), shared.module(x))


@pytest.fixture
def made(monkeypatch):
    """Count how often a network is really folded."""
    made, form = [], _fold.inference_form
    monkeypatch.setattr(
        _backbone, "inference_form", lambda *a: made.append(1) or form(*a)
    )
    return made


def test_what_everyone_shares_is_folded_once(shared, made):
    x = inputs(64)
    for _ in range(3):
        again = shared_backbone("resnet18", None, image_size=64, seed=3)
        again = again.replace_preprocessing(again.preprocessing.replace_image_size(32))
        with torch.inference_mode():
            again(x)
            shared(x)
    assert len(made) == 1


def test_networks_of_one_architecture_are_traced_once(shared, monkeypatch):
    traced, find = [], _fold.foldable
    monkeypatch.setattr(_backbone, "_FOUND", {})
    monkeypatch.setattr(_backbone, "foldable", lambda n: traced.append(1) or find(n))
    for seed in (4, 5):
        assert folds(
            shared_backbone("resnet18", None, image_size=64, seed=seed), inputs(64)
        )
    assert len(traced) == 1


def test_a_network_that_trains_is_not_folded(shared):
    own = copy.deepcopy(shared)
    own.freeze("all")
    own.train()
    x = inputs(64)
    before = own.module.bn1.running_mean.clone()
    with torch.no_grad():
        values = own(x)
        assert torch.equal(own(x), values)  # of the batch's own statistics
    assert not torch.equal(own.module.bn1.running_mean, before)


def test_after_training_the_new_weights_are_folded(shared):
    x, own = inputs(64), copy.deepcopy(shared)
    assert folds(own, x)
    own.freeze("all")
    own.train()
    own(x).square().mean().backward()
    torch.optim.SGD(own.parameters(), lr=0.1).step()
    assert not folds(own.eval(), x)
    own.settle()
    assert folds(own, x)


def test_a_frozen_network_is_not_folded_anew_in_each_epoch(shared, made):
    backbone = through_pickle(shared)  # with forms of its own
    x = inputs(64)
    for _ in range(3):
        backbone.train()
        with torch.no_grad():
            backbone(x)
    assert len(made) == 1


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
    used_batch_norm(backbone.module)
    backbone.settle()
    assert not folds(backbone, inputs(32))


def test_half_precision_casts_weights_once_and_changes_nothing():
    # A copy: another test may have used the shared one in another precision.
    shared = shared_backbone("alexnet", None, image_size=64, seed=0)  # no BatchNorm
    backbone, x = copy.deepcopy(shared), inputs(64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = backbone(x).detach()
        with torch.inference_mode():
            values = backbone(x)
    assert torch.equal(values, expected)
    (form,) = backbone._kept.forms.values()
    kinds = {type(m): m.weight.dtype for m in form.modules() if hasattr(m, "weight")}
    assert kinds == {nn.Conv2d: torch.bfloat16, nn.Linear: torch.bfloat16}


def test_half_precision_with_folding_stays_close(shared):
    used = copy.deepcopy(shared)
    used_batch_norm(used.module)
    x = inputs(64, n=4)
    exact = used(x).detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain = used(x).detach().float()
        with torch.no_grad():
            fast = used(x).float()
    cosine = nn.functional.cosine_similarity
    assert cosine(fast, exact).min() > 0.999
    assert (fast - exact).norm() < 2 * (plain - exact).norm()


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
    expected = backbone(x).detach()
    barrier = threading.Barrier(4)

    def features(_):
        barrier.wait()
        with torch.inference_mode():
            return backbone(x)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(features, range(4)))
    finally:
        sys.setswitchinterval(interval)
    assert all(relative_error(values, expected) < 1e-5 for values in found)


def test_others_compute_while_a_network_is_traced(shared):
    x, stop, failed = inputs(64), threading.Event(), []
    expected = shared(x).detach()

    def others():
        while not stop.is_set():
            try:
                assert torch.equal(shared.module(x), expected)
            except Exception as error:
                failed.append(error)
                return

    thread = threading.Thread(target=others)
    with torch.no_grad():
        thread.start()
        found = [foldable(shared.module) for _ in range(20)]
        stop.set()
        thread.join()
    assert not failed
    assert all(len(pairs) == 20 for pairs in found)


def test_tied_convolutions_are_folded_each_with_its_norm():
    network = nn.Sequential(
        *(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    )
    network[2].weight = network[0].weight
    used_batch_norm(network)
    x = inputs(8)
    with torch.no_grad():
        expected, form = network(x), inference_form(network, foldable(network))
        torch.testing.assert_close(form(x), expected)
    assert isinstance(form[3], nn.Identity)


def test_a_convolution_whose_weight_is_used_apart_is_not_folded():
    class Penalised(Twice):
        def forward(self, x):
            return self.norm(self.conv(x)) * self.conv.weight.square().sum()

    assert foldable(Penalised().eval()) == []


def test_what_cannot_be_traced_is_not_folded():
    class Asks(Twice):
        def forward(self, x):
            x = self.norm(self.conv(x))
            return x if x.sum().item() > 0 else -x

    assert foldable(Asks().eval()) == []


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
    backbone = model.fit(images, [0, 1] * 4)._network.backbone
    model.predict(images)
    assert backbone._kept.forms


def test_gradients_of_maps_can_be_had_from_a_fitted_estimator():
    images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), "uint8")
    options = {"weights": None, "image_size": 64, "max_epochs": 1, "random_state": 0}
    model = ImageClassifier("resnet18", **options).fit(images, [0, 1] * 2)
    network = copy.deepcopy(model.module_).eval()
    maps = []

    def keep(module, inputs, output):
        maps.append(output.requires_grad_())

    network.backbone.module.layer4.register_forward_hook(keep)
    network(inputs(64)).sum().backward()
    assert maps[0].grad_fn is not None or maps[0].grad is not None
