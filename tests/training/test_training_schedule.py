import copy
import io
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.base import clone
from skorch.history import History
from torch.optim import lr_scheduler as torchs

from sklearn_dl.training import SCHEDULES, Schedule, resolve_schedule
from sklearn_dl.training._schedule import LearningRates

RATES = (0.1, 0.003)  # of the head and of the backbone
EPOCHS, STEPS = 6, 4
LOSSES = [1.0, 0.9, 0.95, 0.94, 0.93, 0.92]


def optimizer(rates=RATES, cls=torch.optim.SGD, **arguments):
    names = ("head", "backbone/1", "backbone/0")
    groups = [
        {"params": [torch.nn.Parameter(torch.ones(2))], "lr": rate, "name": name}
        for rate, name in zip(rates, names, strict=False)
    ]
    return cls(groups, **arguments)


def fake_net(optimizer_, *, n_epochs=EPOCHS):
    return SimpleNamespace(
        optimizer_=optimizer_,
        history=History(),
        warming_up_=False,
        phase_epoch_=0,
        phase_epochs_=n_epochs,
        steps_per_epoch_=STEPS,
    )


def run_epochs(rates, net, n_epochs, losses=LOSSES, name="valid_loss"):
    """Run epochs as the net does; return the groups' rates before every step."""
    seen = []
    for _ in range(n_epochs):
        net.history.new_epoch()
        rates.on_epoch_begin(net)
        for _ in range(STEPS):
            seen.append([group["lr"] for group in net.optimizer_.param_groups])
            rates.on_batch_end(net, training=True)
        rates.on_batch_end(net, training=False)  # validation moves nothing
        net.history.record("train_loss", 0.5)
        net.history.record(name, losses[net.phase_epoch_])
        rates.on_epoch_end(net)
        net.phase_epoch_ += 1
    return np.array(seen)


def started(schedule, net):
    rates = LearningRates(schedule)
    rates.on_train_begin(net)
    return rates


def by_torch(build, per_step, reads_loss=False):
    """Drive torch's own scheduler by hand over a real optimizer."""
    opt = optimizer(momentum=0.9)
    scheduler = build(opt)
    seen = []
    for epoch in range(EPOCHS):
        for _ in range(STEPS):
            seen.append([group["lr"] for group in opt.param_groups])
            opt.step()
            if per_step and len(seen) < EPOCHS * STEPS:
                scheduler.step()
        if not per_step:
            scheduler.step(*([LOSSES[epoch]] if reads_loss else []))
    return np.array(seen)


def wave(step, n_steps):
    return 1.5 - step / n_steps


def warm_cosine(opt):
    rise = torchs.LinearLR(opt, start_factor=0.2, total_iters=5)
    fall = torchs.CosineAnnealingLR(opt, T_max=EPOCHS * STEPS - 5)
    return torchs.SequentialLR(opt, [rise, fall], milestones=[5])


@pytest.mark.parametrize(
    ("schedule", "build", "per_step"),
    [
        ("constant", lambda opt: torchs.ConstantLR(opt, factor=1.0), True),
        (
            Schedule("step", step_size=2, gamma=0.3),
            lambda opt: torchs.StepLR(opt, 2, gamma=0.3),
            False,
        ),
        ("exponential", lambda opt: torchs.ExponentialLR(opt, 0.9), False),
        (
            "cosine",
            lambda opt: torchs.CosineAnnealingLR(opt, T_max=EPOCHS * STEPS),
            True,
        ),
        (Schedule(warmup_steps=5, warmup_start=0.2), warm_cosine, True),
        (Schedule(warmup_steps=5 / 24, warmup_start=0.2), warm_cosine, True),
        (
            "one_cycle",
            lambda opt: torchs.OneCycleLR(
                opt, max_lr=list(RATES), epochs=EPOCHS, steps_per_epoch=STEPS
            ),
            True,
        ),
        (
            wave,
            lambda opt: torchs.LambdaLR(opt, lambda step: wave(step, EPOCHS * STEPS)),
            True,
        ),
    ],
)
def test_rates_are_those_of_torchs_scheduler(schedule, build, per_step):
    net = fake_net(optimizer())
    ours = run_epochs(started(schedule, net), net, EPOCHS)
    theirs = by_torch(build, per_step)
    assert ours.shape == theirs.shape == (EPOCHS * STEPS, 2)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    if schedule != "constant":
        assert len(np.unique(ours[:, 0])) > 2
    if schedule != "constant" and per_step:
        assert ours[1, 0] != ours[0, 0]


def test_plateau_is_torchs_and_reduces_after_more_than_patience_epochs():
    net = fake_net(optimizer())
    schedule = Schedule("plateau", patience=1, gamma=0.5, min_factor=0.3)
    ours = run_epochs(started(schedule, net), net, EPOCHS)
    theirs = by_torch(
        lambda opt: torchs.ReduceLROnPlateau(
            opt, factor=0.5, patience=1, min_lr=[0.3 * rate for rate in RATES]
        ),
        per_step=False,
        reads_loss=True,
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    # The best is epoch 2; 3 and 4 miss it, so 5 is slower.
    factors = ours[::STEPS, 0] / RATES[0]
    np.testing.assert_allclose(factors, [1, 1, 1, 1, 0.5, 0.5])


def test_plateau_reduces_even_the_smallest_rates():
    net = fake_net(optimizer((1e-7, 1e-9)))
    seen = run_epochs(started(Schedule("plateau", patience=0), net), net, 4)
    np.testing.assert_allclose(seen[-1], [1e-8, 1e-10])


def test_a_score_improves_upwards_and_a_train_loss_stands_in_for_a_missing_one():
    rising = [0.1, 0.2, 0.3, 0.4]
    for monitor, slower in (("valid_score", False), ("my_loss", True)):
        net = fake_net(optimizer())
        schedule = Schedule("plateau", monitor=monitor, patience=0)
        seen = run_epochs(started(schedule, net), net, 4, rising, monitor)
        assert (seen[-1, 0] < RATES[0]) == slower
    net = fake_net(optimizer())
    watching = started(Schedule("plateau", patience=0), net)
    run_epochs(watching, net, 3, rising, "other")  # train_loss stays at 0.5
    assert net.optimizer_.param_groups[0]["lr"] == pytest.approx(0.001)


def test_a_monitor_that_is_not_in_the_history_is_named():
    net = fake_net(optimizer())
    watching = started(Schedule("plateau", monitor="valid_score"), net)
    with pytest.raises(ValueError, match=r"'valid_score'.*train_loss, valid_loss"):
        run_epochs(watching, net, 1)


def test_the_exponential_rate_of_epoch_k_is_the_first_times_gamma_to_k_less_one():
    net = fake_net(optimizer())
    schedule = Schedule("exponential", gamma=0.7)
    seen = run_epochs(started(schedule, net), net, EPOCHS)[::STEPS]
    expected = [[rate * 0.7 ** (k - 1) for rate in RATES] for k in range(1, EPOCHS + 1)]
    np.testing.assert_allclose(seen, expected, rtol=1e-12)
    np.testing.assert_allclose(net.history[:, "lr"], np.array(expected)[:, 0])


@pytest.mark.parametrize("kind", ["step", "exponential", "cosine", "one_cycle", wave])
def test_no_rate_falls_below_the_lowest_factor(kind):
    schedule = Schedule(kind, min_factor=0.6, gamma=0.5, step_size=1)
    net = fake_net(optimizer())
    factors = run_epochs(started(schedule, net), net, EPOCHS) / RATES
    np.testing.assert_allclose(factors.min(), 0.6, atol=0.01)
    assert factors.min() >= 0.6 - 1e-12
    np.testing.assert_allclose(factors[:, 0], factors[:, 1])
    np.testing.assert_allclose(schedule.factors(EPOCHS, STEPS), factors[:, 0])


def test_the_cosine_ends_at_the_lowest_factor_as_torchs_eta_min():
    opt = optimizer((1.0,))
    theirs = torchs.CosineAnnealingLR(opt, T_max=8, eta_min=0.25)
    expected = []
    for _ in range(8):
        expected.append(opt.param_groups[0]["lr"])
        opt.step()
        theirs.step()
    np.testing.assert_allclose(Schedule(min_factor=0.25).factors(8), expected)


def test_the_warm_up_rises_to_whatever_the_schedule_says():
    factors = Schedule("exponential", gamma=0.5, warmup_steps=4, warmup_start=0.5)
    np.testing.assert_allclose(
        factors.factors(3, 2), [0.5, 0.625, 0.75 / 2, 0.875 / 2, 0.25, 0.25]
    )
    rising = Schedule("constant", warmup_steps=2, warmup_start=0.5).factors(4)
    np.testing.assert_allclose(rising, [0.5, 0.75, 1, 1])
    all_rise = Schedule("cosine", warmup_steps=9).factors(4)
    assert np.all(np.diff(all_rise) > 0)


@pytest.mark.parametrize("rate", ["momentum", "betas"])
def test_one_cycle_moves_the_momentum_only_when_asked(rate):
    cls = torch.optim.SGD if rate == "momentum" else torch.optim.Adam
    arguments = {"momentum": 0.9} if rate == "momentum" else {}
    reference = optimizer(cls=cls, **arguments)
    theirs = torchs.OneCycleLR(reference, list(RATES), total_steps=EPOCHS * STEPS)
    ours = optimizer(cls=cls, **arguments)
    net = fake_net(ours)
    cycle = started(Schedule("one_cycle", cycle_momentum=True), net)
    net.history.new_epoch()
    cycle.on_epoch_begin(net)
    for _ in range(EPOCHS * STEPS - 1):
        for one, other in zip(ours.param_groups, reference.param_groups, strict=True):
            assert one["lr"] == pytest.approx(other["lr"])
            assert one[rate] == pytest.approx(other[rate])
        reference.step()
        theirs.step()
        cycle.on_batch_end(net, training=True)
    untouched = optimizer(cls=cls, **arguments)
    before = untouched.param_groups[0][rate]
    net = fake_net(untouched)
    run_epochs(started("one_cycle", net), net, 2)
    assert untouched.param_groups[0][rate] == before


def test_cycling_a_momentum_that_is_not_there_is_an_error():
    net = fake_net(optimizer(cls=torch.optim.Adagrad))
    cycle = started(Schedule("one_cycle", cycle_momentum=True), net)
    with pytest.raises(ValueError, match="Adagrad has no momentum"):
        run_epochs(cycle, net, 1)


def test_the_schedule_begins_after_the_warm_up_of_the_head_with_the_new_optimizer():
    head_only = optimizer((0.02,))
    net = fake_net(head_only, n_epochs=2)
    net.warming_up_ = True
    rates = started("cosine", net)
    warmup = run_epochs(rates, net, 2)
    assert np.all(warmup == 0.02)
    net.warming_up_, net.phase_epoch_, net.phase_epochs_ = False, 0, EPOCHS
    net.optimizer_ = optimizer((*RATES, 0.0001))
    seen = run_epochs(rates, net, EPOCHS)
    np.testing.assert_allclose(seen[:, :2], by_torch_cosine(), rtol=1e-9)
    # An epoch's row tells what it started with; the backbone stood still at first.
    np.testing.assert_allclose(net.history[:, "lr"], [0.02, 0.02, *seen[::STEPS, 0]])
    np.testing.assert_allclose(
        net.history[:, "backbone_lr"], [0.0, 0.0, *seen[::STEPS, 1]]
    )


def by_torch_cosine():
    return by_torch(lambda o: torchs.CosineAnnealingLR(o, EPOCHS * STEPS), True)


def test_a_head_alone_has_no_rate_of_a_backbone():
    net = fake_net(optimizer((0.1,)))
    run_epochs(started("constant", net), net, 1)
    assert "backbone_lr" not in net.history[0]
    assert net.history[0, "lr"] == 0.1


def test_a_second_training_starts_anew_and_no_rate_is_stale():
    first = optimizer()
    net = fake_net(first)
    rates = started("cosine", net)
    run_epochs(rates, net, EPOCHS)
    rates.on_train_end(net)
    second = optimizer((0.5, 0.25))
    for group in second.param_groups:  # what torch's schedulers leave behind
        group["initial_lr"] = 7.0
    net = fake_net(second)
    rates.on_train_begin(net)
    seen = run_epochs(rates, net, EPOCHS)
    np.testing.assert_allclose(seen / [0.5, 0.25], by_torch_cosine() / RATES)


def reload(state):
    """Write a state to a file that loads without running code."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("done", range(1, EPOCHS))
@pytest.mark.parametrize(
    "schedule",
    [
        *SCHEDULES,
        wave,
        Schedule("plateau", patience=0),
        Schedule("one_cycle", cycle_momentum=True),
        Schedule(warmup_steps=0.5),
    ],
)
def test_a_resumed_run_goes_on_exactly(schedule, done):
    net = fake_net(optimizer(momentum=0.9))
    rates = started(schedule, net)
    run_epochs(rates, net, done)
    state = reload(rates.state_dict())
    kept = copy.deepcopy(net.optimizer_.state_dict())
    unbroken = run_epochs(rates, net, EPOCHS - done)

    later = fake_net(optimizer(momentum=0.9))
    again = started(schedule, later)
    later.optimizer_.load_state_dict(kept)
    later.phase_epoch_ = done
    again.load_state_dict(state)
    assert np.array_equal(run_epochs(again, later, EPOCHS - done), unbroken)
    expected = [group["momentum"] for group in net.optimizer_.param_groups]
    assert [g["momentum"] for g in later.optimizer_.param_groups] == expected


def test_a_run_resumed_between_two_phases_begins_the_second_one():
    net = fake_net(optimizer((0.02,)), n_epochs=2)
    net.warming_up_ = True
    rates = started("cosine", net)
    run_epochs(rates, net, 2)
    later = fake_net(optimizer())
    again = started("cosine", later)
    again.load_state_dict(reload(rates.state_dict()))
    np.testing.assert_allclose(run_epochs(again, later, EPOCHS), by_torch_cosine())


class TwoSteps:
    """An optimizer around another one; it shares the groups and nothing else."""

    def __init__(self, base):
        self.param_groups = base.param_groups


def test_only_the_groups_of_an_optimizer_are_used():
    base = optimizer()
    net = fake_net(TwoSteps(base))
    seen = run_epochs(started("one_cycle", net), net, EPOCHS)
    assert seen[0, 0] == pytest.approx(RATES[0] / 25)
    assert base.param_groups[0]["lr"] == pytest.approx(RATES[0] / 25e4)
    assert base.param_groups[1]["lr"] == pytest.approx(RATES[1] / 25e4)


@pytest.mark.parametrize("schedule", [*SCHEDULES, wave])
def test_the_optimizer_is_left_as_it_was_and_may_skip_steps(schedule):
    opt = optimizer()
    keys = set(opt.param_groups[0])
    net = fake_net(opt)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch's, of a step it missed
        run_epochs(started(schedule, net), net, EPOCHS)
    assert set(opt.param_groups[0]) == keys
    assert "step" not in vars(opt)


def test_a_constant_schedule_leaves_the_rates_to_others():
    net = fake_net(optimizer())
    rates = started("constant", net)
    run_epochs(rates, net, 1)
    net.optimizer_.param_groups[0]["lr"] = 0.7
    assert np.all(run_epochs(rates, net, 1)[:, 0] == 0.7)
    assert net.history[:, "lr"] == [0.1, 0.7]


def test_a_resolved_schedule_is_one_object_that_grids_reach_into():
    assert resolve_schedule("step").kind == "step"
    assert resolve_schedule(wave).kind is wave
    schedule = Schedule("cosine", warmup_lr=1e-3)
    assert resolve_schedule(schedule) is schedule
    assert clone(schedule).set_params(kind="step").get_params()["warmup_lr"] == 1e-3
    copied = clone(LearningRates(schedule), safe=False)
    assert copied.get_params()["schedule__kind"] == "cosine"


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("cosinus", "'kind' parameter of Schedule must be a str among"),
        (Schedule, "is a class"),
        (Schedule(warmup_steps=1.5), "warmup_steps"),
        (Schedule(warmup_steps=-1), "warmup_steps"),
        (Schedule(warmup_start=0), "warmup_start"),
        (Schedule("step", gamma=1.5), "gamma"),
        (Schedule("step", step_size=0), "step_size"),
        (Schedule(min_factor=2), "min_factor"),
        (Schedule(warmup_lr=0.0), "warmup_lr"),
        (Schedule("one_cycle", warmup_steps=3), "doesn't go with kind='one_cycle'"),
        (Schedule("plateau", warmup_steps=0.1), "doesn't go with kind='plateau'"),
    ],
)
def test_a_wrong_schedule_is_refused_by_name(schedule, message):
    with pytest.raises(ValueError, match=message):
        LearningRates(schedule).on_train_begin(None)


def test_a_callable_must_give_a_factor():
    with pytest.raises(ValueError, match=r"gave -1\.0 at step 2 of 4"):
        Schedule(lambda step, n_steps: 1 - step).factors(4)


def test_the_factors_of_plateau_are_not_known_beforehand():
    with pytest.raises(ValueError, match="follows the losses"):
        Schedule("plateau").factors(3)
