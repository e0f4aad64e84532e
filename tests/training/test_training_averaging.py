import copy
import pickle

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback
from skorch.dataset import Dataset
from skorch.helper import predefined_split
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sklearn_dl.training import EarlyStopping, WeightAveraging

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 4)).astype("float32")
Y = (X[:, 0] + 0.3 * RNG.normal(size=24) > 0).astype("int64")
X_VAL = RNG.normal(size=(10, 4)).astype("float32")
Y_VAL = (X_VAL[:, 0] > 0).astype("int64")


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU())
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.backbone(x))


def state_of(net):
    return {n: t.clone() for n, t in net.module_.state_dict().items()}


class Watch(Callback):
    """Keeps what the network holds at each hook."""

    def initialize(self):
        self.after_steps = []
        self.validated = []
        self.at_epoch_end = []
        self.began = []
        return self

    def on_batch_begin(self, net, *, training=False, **kwargs):
        (self.began if training else self.validated).append(state_of(net))

    def on_batch_end(self, net, *, training=False, **kwargs):
        if training:
            self.after_steps.append(state_of(net))

    def on_epoch_end(self, net, **kwargs):
        self.at_epoch_end.append(state_of(net))


class Net(NeuralNetClassifier):
    """As much of the estimators' net as the callbacks use."""

    warming_up_ = False
    stop_reason_ = ""

    @property
    def learned_(self):
        return frozenset(n for n, _ in self.module_.named_parameters())


def trained_net(*callbacks, epochs=3, validate=True, lr=0.1):
    torch.manual_seed(0)
    split = predefined_split(Dataset(X_VAL, Y_VAL)) if validate else None
    net = Net(
        Network,
        criterion=nn.CrossEntropyLoss,
        max_epochs=epochs,
        batch_size=8,
        lr=lr,
        train_split=split,
        callbacks=list(callbacks),
        verbose=0,
    )
    net.initialize()
    net.partial_fit(X, Y)
    return net


def assert_same(state, expected):
    assert state.keys() == expected.keys()
    for name in state:
        torch.testing.assert_close(state[name], expected[name], msg=name)


def differ(state, other):
    return any(not torch.allclose(state[n].float(), other[n].float()) for n in state)


def averaged(states, decays):
    """By hand, from the states after each step: whole numbers are those of the last."""
    average = {n: t.double() for n, t in states[0].items()}
    for state, decay in zip(states[1:], decays, strict=True):
        for name, tensor in state.items():
            if tensor.is_floating_point():
                average[name] = decay * average[name] + (1 - decay) * tensor.double()
            else:
                average[name] = tensor
    return {n: t.to(states[0][n].dtype) for n, t in average.items()}


@pytest.mark.parametrize("warmup", [False, True])
def test_the_network_ends_with_the_average_over_the_steps(warmup):
    watch = Watch()
    net = trained_net(WeightAveraging(0.6, warmup=warmup), watch)
    n = np.arange(1, 9)
    decays = np.minimum(0.6, (1 + n) / (10 + n)) if warmup else [0.6] * 8
    expected = averaged(watch.after_steps, decays)
    assert_same(state_of(net), expected)
    assert differ(expected, watch.after_steps[-1])
    assert net.module_.backbone[1].num_batches_tracked == 9


def test_it_equals_torchs_averaged_model():
    watch = Watch()
    net = trained_net(WeightAveraging(0.9, warmup=False), watch)
    model = Network()
    reference = AveragedModel(
        model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True
    )
    for state in watch.after_steps:
        model.load_state_dict(state)
        reference.update_parameters(model)
    state, expected = state_of(net), reference.module.state_dict()
    for states in (state, expected):  # torch averages whole numbers, and rounds
        del states["backbone.1.num_batches_tracked"]
    assert_same(state, expected)


def test_training_goes_on_from_the_weights_as_without_it():
    plain, watch = Watch(), Watch()
    trained_net(plain)
    trained_net(WeightAveraging(0.9), watch)
    for state, expected in zip(watch.after_steps, plain.after_steps, strict=True):
        for name in state:
            assert torch.equal(state[name], expected[name])


def test_validation_and_the_end_of_an_epoch_see_the_average():
    watch = Watch()
    net = trained_net(WeightAveraging(0.9, warmup=False), watch)
    for epoch, (validated, end) in enumerate(
        zip(watch.validated[::2], watch.at_epoch_end, strict=True), 1
    ):
        expected = averaged(watch.after_steps[: 3 * epoch], [0.9] * (3 * epoch - 1))
        assert_same(validated, expected)
        assert_same(end, expected)
    model = Network().eval()
    model.load_state_dict(watch.at_epoch_end[-1])
    loss = nn.functional.cross_entropy(model(torch.tensor(X_VAL)), torch.tensor(Y_VAL))
    assert net.history[-1, "valid_loss"] == pytest.approx(loss.item(), rel=1e-5)


def test_the_end_of_an_epoch_sees_the_average_without_validation_too():
    watch = Watch()
    trained_net(WeightAveraging(0.9, warmup=False), watch, validate=False)
    assert_same(watch.at_epoch_end[0], averaged(watch.after_steps[:3], [0.9] * 2))


def test_it_starts_when_asked():
    watch = Watch()
    net = trained_net(WeightAveraging(0.9, warmup=False, start_epoch=3), watch)
    assert_same(watch.at_epoch_end[1], watch.after_steps[5])
    assert_same(state_of(net), averaged(watch.after_steps[6:], [0.9] * 2))


class Unfreeze(Callback):
    """Trains the head alone for an epoch, then the rest, with a new optimiser."""

    def initialize(self):
        self.done = 0
        return self

    def on_epoch_begin(self, net, **kwargs):
        net.module_.backbone.requires_grad_(self.done > 0)
        if self.done == 1:
            net.initialize_optimizer()
        self.done += 1


def test_what_is_unfrozen_later_joins_the_average():
    watch = Watch()
    net = trained_net(Unfreeze(), WeightAveraging(0.5, warmup=False), watch)
    steps = watch.after_steps
    late = averaged(steps[3:], [0.5] * 5)["backbone.0.weight"]
    head = averaged(steps, [0.5] * 8)["head.weight"]
    state = state_of(net)
    torch.testing.assert_close(state["backbone.0.weight"], late)
    torch.testing.assert_close(state["head.weight"], head)
    frozen = steps[0]["backbone.0.weight"]
    assert torch.equal(watch.at_epoch_end[0]["backbone.0.weight"], frozen)
    assert not torch.equal(state["backbone.0.weight"], frozen)


def test_the_decay_warms_up_again_when_something_joins():
    watch = Watch()
    net = trained_net(Unfreeze(), WeightAveraging(0.999), watch)
    n = np.r_[1:3, 0:6]
    expected = averaged(watch.after_steps, (1 + n) / (10 + n))
    torch.testing.assert_close(net.module_.head.weight.data, expected["head.weight"])


def test_early_stopping_keeps_the_average_of_the_best_epoch():
    watch = Watch()
    stopping = EarlyStopping(
        "valid_loss", lower_is_better=True, n_iter_no_change=9, tol=0.0
    )
    net = trained_net(WeightAveraging(0.5), ("early_stopping", stopping), watch, lr=3.0)
    best = int(np.argmin(net.history[:, "valid_loss"]))
    assert best < 2  # not the last epoch, or the test says nothing
    assert_same(state_of(net), watch.at_epoch_end[best])


class Interrupt(Callback):
    """Raises as Ctrl-C does, at a hook."""

    def __init__(self, hook, count):
        self.hook = hook
        self.count = count

    def _meet(self, hook):
        self.count -= hook == self.hook
        if self.count == 0:
            raise KeyboardInterrupt

    def on_batch_begin(self, net, *, training=False, **kwargs):
        self._meet("training" if training else "validation")

    def on_epoch_begin(self, net, **kwargs):
        self._meet("epoch")


@pytest.mark.parametrize("hook", ["training", "validation", "epoch"])
def test_an_interrupted_training_leaves_the_average_so_far(hook):
    watch = Watch()
    count = {"training": 5, "validation": 2, "epoch": 2}[hook]
    callbacks = [WeightAveraging(0.9, warmup=False), watch, Interrupt(hook, count)]
    net = trained_net(*callbacks)
    n_steps = len(watch.after_steps)
    assert n_steps < 9
    assert_same(state_of(net), averaged(watch.after_steps, [0.9] * (n_steps - 1)))


def test_an_interruption_before_the_first_step_is_harmless():
    net = trained_net(WeightAveraging(0.9), Interrupt("training", 1))
    torch.manual_seed(0)
    assert_same(state_of(net), Network().state_dict())


class Checkpoint(Callback):
    """Keeps all that a resumed run needs, at the end of the first epoch."""

    def __init__(self, averaging):
        self.averaging = averaging

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 1:
            self.state_ = copy.deepcopy(
                {
                    "module": net.module_.state_dict(),
                    "optimizer": net.optimizer_.state_dict(),
                    "averaging": self.averaging.state_dict(),
                    "history": net.history,
                }
            )


class Resume(Callback):
    def __init__(self, averaging, state):
        self.averaging = averaging
        self.state = state

    def on_train_begin(self, net, **kwargs):
        state = pickle.loads(pickle.dumps(self.state))
        net.module_.load_state_dict(state["module"])
        net.optimizer_.load_state_dict(state["optimizer"])
        net.history = state["history"]
        self.averaging.load_state_dict(state["averaging"])


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("validate", [True, False])
def test_a_resumed_run_equals_the_unbroken_one(first, validate):
    averaging = WeightAveraging(0.9)
    checkpoint = Checkpoint(averaging)
    pair = [averaging, checkpoint] if first else [checkpoint, averaging]
    unbroken = trained_net(*pair, validate=validate)
    averaging = WeightAveraging(0.9)
    resume = Resume(averaging, checkpoint.state_)
    pair = [averaging, resume] if first else [resume, averaging]
    resumed = trained_net(*pair, epochs=2, validate=validate)
    for name, tensor in state_of(unbroken).items():
        assert torch.equal(resumed.module_.state_dict()[name], tensor)


def test_it_holds_no_weights_after_training():
    averaging = WeightAveraging(0.9)
    trained_net(averaging)
    assert averaging.state_dict() == {"average": {}, "trained": {}, "steps": 0}
    assert averaging.moving_ == {}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"decay": 1.0}, "decay=1.0 must be above 0 and below 1"),
        ({"decay": "high"}, "decay='high'"),
        ({"start_epoch": 0}, "start_epoch=0 must be an int"),
    ],
)
def test_what_is_wrong_is_named(parameters, message):
    with pytest.raises(ValueError, match=message):
        trained_net(WeightAveraging(**parameters))
