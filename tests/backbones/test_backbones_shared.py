"""Frozen backbones that a process shares, and what tells one from another."""

import copy
import gc
import os
import pickle
import sys
import threading
import weakref
from functools import partial
from io import BytesIO

import processes
import pytest
import torch
from backbone_cases import QUICK, all_names, images, small_side
from torch import nn
from torchvision.models import SqueezeNet1_1_Weights as Weights
from torchvision.models import squeezenet1_1

from sklearn_dl._runtime import seeded
from sklearn_dl.backbones import (
    Backbone,
    _backbone,
    _load,
    images_seen,
    load_backbone,
    named_tensors,
    place,
    share,
    shared_backbone,
)
from sklearn_dl.backbones._load import forget_shared

SMALL = "shufflenet_v2_x0_5"
SIZE = {"image_size": 32}
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def nothing_shared():
    forget_shared()
    yield
    forget_shared()


def tensors(backbone):
    return named_tensors(backbone.module)


def fresh(backbone):
    """Return an identity that nothing is kept of."""
    return copy.deepcopy(backbone).identity()


def addresses(backbone):
    return {name: tensor.data_ptr() for name, tensor in tensors(backbone).items()}


def copies(backbone):
    return {name: tensor.detach().clone() for name, tensor in tensors(backbone).items()}


def same_values(backbone, expected):
    found = tensors(backbone)
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], expected[name]) for name in expected
    )


def plain(name=SMALL, seed=0, **options):
    with seeded(seed):
        return load_backbone(name, None, **{**SIZE, **options})


def shared(name=SMALL, **options):
    return shared_backbone(name, None, **{**SIZE, **options})


@pytest.fixture
def loads(monkeypatch):
    """Count how often a backbone is really loaded."""
    made = []

    def load(*args, **kwargs):
        made.append(args)
        return load_backbone(*args, **kwargs)

    monkeypatch.setattr(_load, "load_backbone", load)
    return made


@pytest.fixture
def digests(monkeypatch):
    """Count how often tensors are really hashed."""
    made = []

    def weights(network, real=_backbone.digest_weights):
        made.append(network)
        return real(network)

    monkeypatch.setattr(_backbone, "digest_weights", weights)
    return made


ANOTHER_PROCESS = """
import os, threading
from sklearn_dl.backbones import _fold, shared_backbone

def load():
    return shared_backbone("squeezenet1_1", None, image_size=32, seed=3).identity()

identity, held, done = load(), threading.Event(), threading.Event()
print(identity)

def hold():
    with _fold.ONCE.lock:
        held.set()
        done.wait()

if hasattr(os, "fork"):
    threading.Thread(target=hold).start()
    held.wait()
    child = os.fork()
    if not child:
        os._exit(0 if load() == identity else 3)
    print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    done.set()
"""


@pytest.fixture(scope="module")
def another_process():
    """Return what a new process says of a network, and whether its child may load."""
    return processes.run(ANOTHER_PROCESS).stdout


# ------------------------------------------------------------------------ identity


def test_identity_depends_on_the_frozen_network_alone():
    backbone = plain("mobilenet_v3_small")
    identity = backbone.identity()
    assert len(bytes.fromhex(identity)) == 32
    assert copy.deepcopy(backbone).identity() == identity
    assert pickle.loads(pickle.dumps(backbone)).identity() == identity
    assert plain("mobilenet_v3_small").identity() == identity
    backbone.freeze("all")
    backbone.train()
    backbone.to(memory_format=torch.channels_last)
    for buffer_name, buffer in backbone.module.named_buffers():
        if buffer_name.endswith("num_batches_tracked"):
            buffer += 5
    backbone.preprocessing = backbone.preprocessing.replace_normalization(
        (0,) * 3, [1] * 3
    )
    assert backbone.identity() == identity
    assert fresh(backbone) == identity


def test_identity_is_the_same_in_another_process(another_process):
    assert shared("squeezenet1_1", seed=3).identity() in another_process


def test_identity_tells_networks_apart():
    def with_setting(**settings):
        backbone = plain()
        for name, value in settings.items():
            setattr(backbone.module.conv1[1], name, value)
        return backbone

    def with_value(name):
        backbone = plain()
        flat = backbone.module.state_dict()[name].view(-1)
        flat[-1] = torch.nextafter(flat[-1], torch.tensor(9.0))
        return backbone

    def with_layer(new):
        backbone = plain()
        backbone.module.maxpool = new
        return backbone

    different = [
        plain(),
        plain(seed=1),
        plain(layer="stage4"),
        plain(layer=("stage4", "max")),
        with_setting(eps=1e-3),
        with_value("conv5.0.weight"),
        with_value("conv5.1.running_var"),
        with_layer(nn.AvgPool2d(3, 2, 1)),
        plain().double(),
        plain("shufflenet_v2_x1_0"),
    ]
    assert len({backbone.identity() for backbone in different}) == len(different)


class Scaled(nn.Module):
    def __init__(self, scale=1.0):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.scales = [scale]

    def forward(self, x):
        return self.body(x) * self.scales[0]


class Shifted(Scaled):
    def forward(self, x):
        return self.scaled(x) + 1

    def scaled(self, x):
        return self.body(x) * self.scales[0]


def seeded_net(net):
    with seeded(0):
        return net()


def test_identity_holds_the_settings_code_and_hooks_of_own_classes(monkeypatch):
    def hooked():
        net = Scaled()
        net.body.register_forward_hook(lambda module, args, out: out * 2)
        return net

    def identity(net):
        return load_backbone(partial(seeded_net, net), **SIZE).identity()

    found = {identity(net) for net in (Scaled, partial(Scaled, 2.0), Shifted, hooked)}
    assert len(found) == 4
    assert identity(Shifted) in found
    monkeypatch.setattr(Shifted, "scaled", lambda self, x: self.body(x))
    assert identity(Shifted) not in found


def copied(**options):
    """Return a copy of a shared backbone, as the user is given one."""
    backbone = copy.deepcopy(shared(**options))
    backbone.unsettle()
    return backbone


@pytest.mark.parametrize("load", [plain, copied])
def test_identity_sees_what_is_not_a_tensor_change(load):
    backbone, expected = load(), load().identity()
    assert backbone.identity() == expected
    handle = backbone.module.conv5.register_forward_hook(lambda m, args, out: out * 0)
    assert backbone.identity() != expected
    handle.remove()
    assert backbone.identity() == expected
    backbone.module.conv1[1].eps = 10.0
    assert backbone.identity() != expected
    backbone.module.conv1[1].eps = 1e-5
    backbone.module.conv1[2] = nn.Tanh()
    assert backbone.identity() != expected


FACTOR = 1.0


class ByGlobal(Scaled):
    def forward(self, x):
        return self.body(x) * FACTOR


@pytest.mark.parametrize("load", [load_backbone, shared_backbone])
def test_identity_sees_a_global_of_own_code_change(load, monkeypatch):
    backbone = load(partial(seeded_net, ByGlobal), **SIZE)
    before = backbone.identity()
    monkeypatch.setattr(sys.modules[__name__], "FACTOR", 3.0)
    assert backbone.identity() != before


def test_identity_sees_a_forward_that_was_replaced():
    backbone, expected = copied(), shared().identity()
    module = backbone.module
    module.forward = lambda x: type(module).forward(module, x) * 2
    assert backbone.identity() != expected


@pytest.mark.filterwarnings("ignore:.torch.jit.script:FutureWarning")
def test_a_scripted_network_is_refused():
    def scripted():
        return torch.jit.script(Scaled().body)

    with pytest.raises(TypeError, match="a scripted network, whose parts"):
        shared_backbone(scripted, **SIZE)


def step(backbone, optimizer=torch.optim.SGD, **options):
    trained = [p for p in backbone.parameters() if p.requires_grad]
    optimizer = optimizer(trained, lr=0.1, **options)
    backbone(images(32, 4)).square().sum().backward()
    optimizer.step()


def sgd_step(backbone):
    backbone.freeze(1, freeze_batch_norm=True)
    step(backbone.train())


def fused_step(backbone):
    backbone.freeze(1, freeze_batch_norm=True)
    step(backbone.train(), torch.optim.Adam, fused=True)


def batch_norm_statistics(backbone):
    backbone.freeze("all")
    with torch.no_grad():
        backbone.train()(images(32, 4))


def loaded(backbone):
    backbone.load_state_dict(plain(seed=1).state_dict())


def assigned(backbone):
    backbone.module.conv5[0].weight = nn.Parameter(torch.ones(1024, 192, 1, 1))


def new_data(backbone):
    bias = backbone.module.conv5[1].bias
    bias.data = bias.data + 1


CHANGES = [
    sgd_step,
    fused_step,
    batch_norm_statistics,
    loaded,
    assigned,
    new_data,
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("load", [plain, copied])
def test_identity_sees_a_change(load, change):
    backbone = load()
    backbone.freeze("head")
    before = backbone.identity(), backbone.fingerprint()
    change(backbone)
    assert backbone.identity() != before[0]
    assert backbone.fingerprint() != before[1]
    assert backbone.identity() == fresh(backbone)


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_trained_after_it_settled_is_another(change):
    backbone = copy.deepcopy(shared())
    assert backbone.settled
    before = backbone.fingerprint()
    backbone.freeze("all")
    assert not backbone.settled
    change(backbone)
    backbone.settle()
    assert backbone.fingerprint() != before
    assert backbone.identity() == fresh(backbone)


def test_a_settled_backbone_keeps_its_identity_and_no_other_does(digests):
    backbone = plain()
    backbone.freeze("head")
    first = backbone.identity()
    assert backbone.identity() == first
    assert len(digests) == 2
    backbone.settle()
    backbone.freeze(0)
    backbone.train().eval()
    other = backbone.replace_preprocessing(
        backbone.preprocessing.replace_image_size(64)
    )
    assert backbone.identity() == other.identity() == backbone.identity() == first
    assert backbone.fingerprint() != other.fingerprint()
    assert len(digests) == 3
    copies = copy.deepcopy(backbone), pickle.loads(pickle.dumps(backbone))
    assert all(c.settled and c.identity() == first for c in copies)
    assert len(digests) == 5  # they keep nothing of it
    other.unsettle()
    assert not backbone.settled
    backbone.identity()
    assert len(digests) == 6


def test_the_fingerprint_sees_what_a_function_reads(monkeypatch):
    def scaled(image):
        return torch.ones(3, 32, 32) * FACTOR

    backbone = shared_backbone("squeezenet1_1", None, preprocessing=scaled)
    before = backbone.fingerprint()
    assert backbone.fingerprint() == before
    monkeypatch.setattr(sys.modules[__name__], "FACTOR", 3.0)
    assert backbone.fingerprint() != before


# ------------------------------------------------------------------------- sharing


@pytest.mark.parametrize(
    "name",
    all_names(QUICK),
)
def test_shared_backbones_equal_those_loaded_alone(name):
    side = small_side(name)
    own = place(plain(name, image_size=side), CPU, torch.float32)
    first, second = (shared(name, image_size=side) for _ in range(2))
    assert same_values(second, copies(own))
    assert first.module is second.module
    assert second.identity() == own.identity() == fresh(second)
    for attribute in ("name", "n_features", "preprocessing", "stages"):
        assert getattr(second, attribute) == getattr(own, attribute)
    own.freeze("head")  # or attention would go another way, for its gradients
    assert torch.equal(second(images(side)), own(images(side)))


def test_shared_backbone_is_frozen_in_channels_last_and_moves_without_a_copy():
    backbone = shared()
    before = addresses(backbone)
    assert not backbone.trains
    backbone.train()
    assert not any(m.training for m in backbone.module.modules())
    assert tensors(backbone)["conv1.0.weight"].is_contiguous(
        memory_format=torch.channels_last
    )
    backbone.to(CPU, torch.float32).to(memory_format=torch.channels_last)
    assert addresses(place(backbone, CPU, torch.float32)) == before


@pytest.mark.parametrize(
    "layer", ["stage3", ("pooled", "max"), ("stage2.1", "flatten")]
)
def test_layers_are_tapped_in_shared_backbones(layer):
    shared(layer=layer)
    again = shared(layer=layer)
    own = place(plain(layer=layer), CPU, torch.float32)
    assert again.layer == own.layer == layer
    assert torch.equal(again(images(32)), own(images(32)))


def test_each_has_its_own_preprocessing_around_the_same_network():
    first = shared()
    other = first.preprocessing.replace_normalization((0.1,) * 3, (0.2,) * 3)
    second = first.replace_preprocessing(other)
    third = shared_backbone(SMALL, None, preprocessing=other)
    assert first.module is second.module is third.module is shared().module
    assert first.preprocessing != second.preprocessing == third.preprocessing
    assert shared().preprocessing == first.preprocessing
    assert first.fingerprint() != second.fingerprint() == third.fingerprint()


def test_the_function_that_is_given_is_the_one_that_is_called():
    def make():
        return lambda image: torch.ones(3, 32, 32)

    functions = make(), make()
    found = [shared_backbone("squeezenet1_1", None, preprocessing=f) for f in functions]
    assert [b.preprocessing.transform for b in found] == [*functions]
    assert found[0].module is found[1].module


def test_a_request_is_loaded_and_hashed_once(loads, digests):
    for _ in range(4):
        shared("squeezenet1_1").identity()
    assert len(loads) == len(digests) == 1
    shared("squeezenet1_1", seed=1)
    shared("squeezenet1_1", layer="features.3")
    assert len(loads) == 3


def test_random_weights_depend_on_the_seed_and_leave_the_generator():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = shared("squeezenet1_1", seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    forget_shared()
    assert shared("squeezenet1_1", seed=1).identity() == first.identity()
    assert shared("squeezenet1_1", seed=2).identity() != first.identity()


def test_equal_networks_share_whatever_they_are_called():
    by_name = shared("squeezenet1_1")
    larger = shared("squeezenet1_1", image_size=64)
    assert addresses(larger) == addresses(by_name)
    assert larger.preprocessing.crop_size == (64, 64)
    assert shared("squeezenet1_1").preprocessing.crop_size == (32, 32)


@pytest.mark.slow
def test_networks_of_different_image_sizes_are_different():
    small, large = (shared("vit_b_32", image_size=side) for side in (32, 64))
    assert addresses(small) != addresses(large)
    assert small.identity() != large.identity()
    assert large(images(64)).shape == small(images(32)).shape


def test_each_gets_the_preprocessing_that_was_given():
    def new():
        return lambda image: torch.zeros(3, 32, 32)

    load = partial(shared_backbone, "squeezenet1_1", None)
    for prepare in (new(), new()):  # alike, but not the same
        assert load(preprocessing=prepare).preprocessing.transform is prepare
    assert load().preprocessing.crop_size == (224, 224)
    for _ in range(2):
        backbone = load(preprocessing="IMAGENET1K_V1", image_size=48)
        assert backbone.preprocessing.crop_size == (48, 48)


def test_callables_are_called_each_time_and_shared_by_content():
    made = []

    def same():
        made.append(1)
        return seeded_net(Scaled)

    def other():
        made.append(1)
        with seeded(len(made)):
            return Scaled()

    a, b = (shared_backbone(same, **SIZE) for _ in range(2))
    assert len(made) == 2
    assert addresses(a) == addresses(b)
    c, d = (shared_backbone(other, **SIZE) for _ in range(2))
    assert len({x.identity() for x in (a, c, d)}) == 3
    assert len({x.module.body[0].weight.data_ptr() for x in (a, c, d)}) == 3


def test_a_module_that_stands_twice_stays_one():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = self.second = nn.Conv2d(3, 3, 3)

        def forward(self, x):
            return self.second(self.first(x))

    facts = {"name": "twice", "n_features": 3, "pretrained": False}
    prepared = plain("squeezenet1_1").preprocessing
    stages = {"all": ["first.weight", "first.bias"]}
    built = Backbone(Twice(), **facts, preprocessing=prepared, stages=stages)
    shared = share(built, CPU, torch.float32)
    expected = copies(shared)
    own = copy.deepcopy(shared)
    assert own.module.second is own.module.first
    own.freeze("all")
    step(own.train())
    assert own.module.second is own.module.first
    assert same_values(shared, expected)
    assert not same_values(own, expected)


def test_a_changed_file_is_read_again(tmp_path, loads):
    file = tmp_path / "weights.pth"
    torch.save(plain("squeezenet1_1", seed=1).module.state_dict(), file)
    load = partial(shared_backbone, "squeezenet1_1", file, **SIZE)
    first = load()
    assert load().module is first.module
    assert len(loads) == 1
    status = file.stat()
    torch.save(plain("squeezenet1_1", seed=2).module.state_dict(), file)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    second = load()
    assert len(loads) == 2
    assert second.identity() == plain("squeezenet1_1", seed=2).identity()
    assert first.identity() == plain("squeezenet1_1", seed=1).identity()


def test_a_file_is_the_same_from_everywhere(tmp_path, monkeypatch, loads):
    file = tmp_path / "weights.pth"
    torch.save(plain("squeezenet1_1", seed=1).module.state_dict(), file)
    first = shared_backbone("squeezenet1_1", file, **SIZE)
    monkeypatch.chdir(tmp_path)
    again = shared_backbone("squeezenet1_1", "weights.pth", **SIZE)
    assert len(loads) == 1
    assert first.module is again.module


def test_published_weights_are_found_again_by_their_file(no_network, loads):
    load = partial(shared_backbone, "squeezenet1_1", **SIZE)
    with pytest.raises(OSError, match="could not be downloaded"):
        load()
    no_network.mkdir(parents=True, exist_ok=True)
    file = no_network / os.path.basename(Weights.DEFAULT.url)
    with seeded(4):
        torch.save(squeezenet1_1().state_dict(), file)
    del loads[:]
    first = load()
    for weights in ("DEFAULT", "IMAGENET1K_V1", Weights.IMAGENET1K_V1):
        assert load(weights).module is first.module
    assert len(loads) == 1
    file.unlink()
    with pytest.raises(OSError, match="could not be downloaded"):
        load()


def test_downloaded_weights_are_found_again(no_network, monkeypatch, loads):
    def download(url, path, *args, **kwargs):
        torch.save(squeezenet1_1().state_dict(), path)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    first, again = (shared_backbone("squeezenet1_1", **SIZE) for _ in range(2))
    assert len(loads) == 1
    assert first.module is again.module


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("resnet19",), {}, "Did you mean"),
        (("resnet18", "IMAGENET1K_V7"), {}, "Unknown weights"),
        (("resnet18", 7), {}, "int"),
        (("resnet18", "no/such.pth"), {}, "no file of weights"),
        (("resnet18", None), {"layer": "layer9"}, "Unknown layer"),
        (("resnet18", None), {"layer": ["layer4"]}, "must be a name or a pair"),
        (("resnet18", None), {"layer": ("layer4", "sum")}, "pooling must be"),
        (("inception_v3", None), {"image_size": 20}, "too small"),
    ],
)
def test_mistakes_are_named_each_time(arguments, options, message):
    for _ in range(2):
        with pytest.raises((ValueError, TypeError, OSError), match=message):
            shared_backbone(*arguments, **options)


def test_shared_in_inference_mode_can_be_trained_later():
    with torch.inference_mode():
        backbone = shared("squeezenet1_1")
    backbone = copy.deepcopy(backbone)
    backbone.freeze("all")
    step(backbone.train())


# ----------------------------------------------------------------------- isolation


def head_only(backbone):
    head = nn.Linear(backbone.n_features, 2)
    optimizer = torch.optim.SGD(
        [p for p in [*backbone.parameters(), *head.parameters()] if p.requires_grad],
        1.0,
    )
    backbone.train()
    head(backbone(images(32, 4))).sum().backward()
    optimizer.step()


def last_stage(backbone):
    backbone.freeze(1)
    step(backbone.train())


def everything(backbone):
    backbone.freeze("all")
    step(backbone.train(), torch.optim.AdamW, weight_decay=0.5)


def gradually(backbone):
    optimizer = torch.optim.SGD(backbone.parameters(), lr=0.1)
    for k in range(1, 5):
        backbone.freeze(k)
        backbone.train()(images(32, 4)).square().sum().backward()
        optimizer.step()
    assert all(p.grad is not None for p in backbone.parameters())


def load_above(backbone):
    state = {f"0.{k}": v + 1 for k, v in backbone.state_dict().items()}
    nn.Sequential(backbone).load_state_dict(state)


def load_some(backbone):
    state = {"module.conv1.1.weight": torch.full((24,), 3.0)}
    backbone.load_state_dict(state, strict=False)
    assert backbone.module.conv1[1].weight[0] == 3


def moved(backbone):
    backbone.double()
    with torch.no_grad():
        for p in backbone.parameters():
            p.zero_()


def written_past_the_version(backbone):
    for p in backbone.module.parameters():
        p.data.zero_()


def unfrozen_by_hand(backbone):
    backbone.requires_grad_(True)
    step(backbone)


@pytest.mark.parametrize(
    "use",
    [
        *(head_only, last_stage, everything, gradually, load_above, load_some),
        *(moved, written_past_the_version, unfrozen_by_hand, *CHANGES),
    ],
)
def test_what_one_does_to_a_copy_no_other_sees(use):
    before, after = shared(), shared()
    expected, identity = copies(before), before.identity()
    used = copy.deepcopy(before)
    use(used)
    if use is not head_only:
        assert not same_values(used, expected)
    for backbone in (before, after, shared()):
        assert same_values(backbone, expected)
        assert fresh(backbone) == backbone.identity() == identity
    assert shared().module is before.module


def test_a_shared_backbone_refuses_to_be_trained():
    backbone = shared()
    for change in (
        backbone.unsettle,
        partial(backbone.freeze, "all"),
        partial(backbone.replace_preprocessing(None).freeze, 1),
    ):
        with pytest.raises(RuntimeError, match=r"copy\.deepcopy"):
            change()
    backbone.freeze("head", freeze_batch_norm=True)
    assert backbone.settled
    assert not any(p.requires_grad for p in backbone.parameters())
    backbone.train()
    assert not any(part.training for part in backbone.module.modules())


def test_training_a_shared_backbone_equals_training_one_alone():
    own, borrowed = place(plain(), CPU, torch.float32), copy.deepcopy(shared())
    for backbone in (own, borrowed):
        backbone.freeze(2)
        for _ in range(2):
            step(backbone.train())
    assert same_values(borrowed, copies(own))


def pickled(pair):
    return pickle.loads(pickle.dumps(pair))


def saved(pair):
    file = BytesIO()
    torch.save(pair, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def test_copies_of_several_are_independent_even_of_each_other():
    pair = [shared(), shared()]
    expected = copies(pair[0])
    first, second = copy.deepcopy(pair)
    assert first.settled
    assert not first.shared
    assert first.identity() == second.identity() == pair[0].identity()
    everything(first)
    assert not same_values(first, expected)
    for backbone in (second, *pair):
        assert same_values(backbone, expected)


@pytest.mark.parametrize("through", [pickled, saved])
def test_those_of_one_file_share_a_network_that_stays_as_it_is(through):
    pair = [shared(), shared()]
    first, second = through(pair)
    assert first.module is second.module is not pair[0].module
    assert first.shared
    assert first.settled
    with pytest.raises(RuntimeError, match=r"copy\.deepcopy"):
        first.freeze("all")
    own = copy.deepcopy(first)
    everything(own)
    assert first.identity() == second.identity() == pair[0].identity() != own.identity()
    # Several estimators may hold it: what has to move is a copy.
    moved = place(first, CPU, torch.float64)
    assert moved.module is not first.module
    assert {t.dtype for t in moved.parameters()} == {torch.float64}
    assert {t.dtype for t in first.parameters()} == {torch.float32}
    assert first.identity() == second.identity() == pair[0].identity()


# ------------------------------------------------------------------------ registry


def test_recent_ones_are_kept_up_to_the_bound(monkeypatch, loads):
    size = sum(p.nbytes for p in shared("squeezenet1_1").parameters())
    forget_shared()
    del loads[:]
    monkeypatch.setattr(_load, "_KEPT_BYTES", 2 * size + size // 2)
    for seed in (0, 1, 0, 2):  # 1 is the least recently used
        shared("squeezenet1_1", seed=seed)
    assert len(loads) == 3
    shared("squeezenet1_1", seed=2)
    shared("squeezenet1_1", seed=0)
    assert len(loads) == 3
    shared("squeezenet1_1", seed=1)
    assert len(loads) == 4


def test_those_in_use_are_found_and_the_latest_is_kept(monkeypatch, loads):
    monkeypatch.setattr(_load, "_KEPT_BYTES", 0)
    held = shared("squeezenet1_1", seed=0)
    shared("squeezenet1_1", seed=1)
    shared("squeezenet1_1", seed=1)
    assert len(loads) == 2
    assert shared("squeezenet1_1", seed=0).module is held.module
    assert len(loads) == 2
    shared("squeezenet1_1", seed=1)
    assert len(loads) == 3
    del held
    shared("squeezenet1_1", seed=0)
    assert len(loads) == 4


def test_folded_forms_count_in_what_is_kept(monkeypatch, loads):
    first = shared()
    alone = first._kept.n_bytes
    assert alone == sum(t.nbytes for t in tensors(first).values())
    with torch.no_grad():
        first(images(32))
    assert 1.5 * alone < first._kept.n_bytes < 2 * alone
    monkeypatch.setattr(_load, "_KEPT_BYTES", 2.5 * alone)
    left = weakref.ref(first.module)
    del first
    for seed in (1, 0):
        shared(seed=seed)
    assert left() is None
    assert len(loads) == 3


def test_ever_new_backbones_leave_nothing_behind(monkeypatch):
    monkeypatch.setattr(_load, "_KEPT_BYTES", 0)
    x, left = images(32), []
    for seed in range(8):
        backbone = shared(seed=seed, layer="stage3")
        with torch.no_grad():
            backbone(x)
        left.append(weakref.ref(backbone.module))
    del backbone
    assert len(_load._SHARED.recent) == 1
    assert sum(ref() is not None for ref in left) == 1
    assert len(_load._SHARED.requested) == len(_load._SHARED.contents) == 1


def test_what_was_found_of_architectures_is_bounded(monkeypatch):
    monkeypatch.setattr(_backbone, "_FOUND", {str(i): [] for i in range(64)})
    with torch.no_grad():
        shared("squeezenet1_1", seed=77)(images(32))
    assert len(_backbone._FOUND) == 1


def test_requests_that_find_a_network_are_bounded(monkeypatch):
    monkeypatch.setattr(_load, "_SHELLS", 3)
    forget_shared()
    made = [shared_backbone("squeezenet1_1", None, image_size=32 + i) for i in range(5)]
    kept = made[0]._kept
    assert all(one._kept is kept for one in made)
    assert len(kept.shells) == len(_load._SHARED.requested) == 3
    again = shared_backbone("squeezenet1_1", None, image_size=32)
    assert again.module is kept.network


def test_a_settled_backbone_stays_in_evaluation_mode():
    backbone = load_backbone("mobilenet_v3_small", "builtin")
    backbone.settle()
    backbone.train()
    before = backbone.identity()
    backbone(images(32))
    assert not any(m.training for m in backbone.module.modules())
    backbone.unsettle()
    assert backbone.identity() == before


def test_a_network_that_is_let_go_of_gives_its_memory_back(monkeypatch):
    released = []
    monkeypatch.setattr(_load, "release_memory", lambda **how: released.append(how))
    monkeypatch.setattr(_load, "_KEPT_BYTES", 0)
    forget_shared()
    del released[:]
    for seed in (1, 2):
        shared("squeezenet1_1", seed=seed)
    assert released == [{"at_once": True}]


def test_memory_is_given_back_at_once():
    gc.disable()
    try:
        held = [shared("squeezenet1_1"), plain("squeezenet1_1")]
        forget_shared()
        held[1].identity()
        with torch.no_grad():
            held[0](images(32))
        left = [weakref.ref(p) for b in held for p in b.parameters()]
        del held
        assert not any(ref() is not None for ref in left)
    finally:
        gc.enable()


def test_forgetting_leaves_those_in_use():
    held = shared("squeezenet1_1")
    expected = copies(held)
    forget_shared()
    again = shared("squeezenet1_1")
    assert again.module is not held.module
    assert same_values(held, expected)
    assert same_values(again, expected)


def test_threads_get_one_set(loads):
    found, start = [], threading.Barrier(4)

    def load():
        start.wait()
        found.append(shared("squeezenet1_1"))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    assert len({id(backbone.module) for backbone in found}) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_process_is_not_locked_out(another_process):
    assert "child 0" in another_process


def test_a_callable_may_load_another_shared_backbone():
    backbone = shared_backbone(lambda: shared("squeezenet1_1").module, **SIZE)
    assert same_values(backbone, copies(shared("squeezenet1_1")))


def test_callables_and_what_others_built_are_found_by_their_content():
    made = []

    def make():
        made.append(seeded_net(partial(nn.Conv2d, 3, 4, 3)))
        return made[-1]

    first, second = (shared_backbone(make, **SIZE) for _ in range(2))
    assert len(made) == 2
    assert first.module is second.module
    built = share(copy.deepcopy(first), CPU, torch.float32)
    assert built.module is first.module
    other = share(load_backbone(make, **SIZE), CPU, torch.float64)
    assert other.module is not first.module


# --------------------------------------------------------------------------- place


def test_place_converts_only_what_is_not_there():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8))
    place(net, CPU, torch.float32)
    assert not net.training
    assert net[0].weight.is_contiguous(memory_format=torch.channels_last)
    # The strides that channels first and channels last have in common.
    net[1].weight.data = net[1].weight.data.as_strided((8, 4, 1, 1), (4, 1, 1, 1))
    before = [t.data_ptr() for t in net.state_dict().values()]
    place(net.train(), torch.device("cpu", 0), torch.float32)
    assert [t.data_ptr() for t in net.state_dict().values()] == before
    assert not net.training
    place(net, CPU, torch.float64)
    assert net[2].running_var.dtype == torch.float64
    assert net[2].num_batches_tracked.dtype == torch.int64
    assert place(net, torch.device("meta"), torch.float64)[0].weight.is_meta


@pytest.mark.parametrize("around", [lambda b: b, nn.Sequential])
def test_a_shared_backbone_that_must_move_is_copied(around):
    network, expected = around(shared()), copies(shared())
    assert place(network, CPU, torch.float32) is network
    moved = place(network, CPU, torch.float64)
    assert moved is not network
    assert {t.dtype for t in moved.parameters()} == {torch.float64}
    assert same_values(shared(), expected)
    with torch.no_grad():  # of a form of its own
        assert moved(images(32).double()).dtype == torch.float64
        assert network(images(32)).dtype == torch.float32


def test_a_settled_backbone_that_moves_keeps_nothing_of_before():
    backbone = copy.deepcopy(shared())
    x = images(32)
    before = backbone.identity()
    with torch.no_grad():
        expected = backbone(x)
        assert place(backbone, CPU, torch.float64) is backbone
        assert backbone.settled
        assert backbone.identity() != before
        torch.testing.assert_close(backbone(x.double()).float(), expected)


# --------------------------------------------------------------------- images seen


def test_images_are_counted_in_the_thread_that_runs_them():
    backbone = plain("squeezenet1_1").eval()
    before, elsewhere = images_seen(), []

    def other():
        start = images_seen()
        backbone(images(32, 4))
        elsewhere.append(images_seen() - start)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    backbone(images(32, 3))
    backbone.module(images(32, 3))
    assert (images_seen() - before, elsewhere) == (3, [4])


@pytest.mark.filterwarnings("ignore:.torch.jit.trace:FutureWarning")
def test_counting_stays_out_of_exported_graphs():
    backbone = shared("squeezenet1_1")
    before = images_seen()
    exported = torch.export.export(backbone, (images(32),)).module()
    traced = torch.jit.trace(backbone, images(32), check_trace=False)
    assert type(images_seen()) is int
    assert images_seen() == before
    for graph in (exported, traced):
        torch.testing.assert_close(graph(images(32)), backbone.module(images(32)))
