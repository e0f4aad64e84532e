import math
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.base import clone
from skorch.history import History

from sklearn_dl.training import StoppingRules


class Stopped(Exception):
    pass


class FakeNet(SimpleNamespace):
    def stop_now(self):
        self.stop_ = True
        raise Stopped


def started(**rules):
    net = FakeNet(
        history=History(), stop_=False, stop_reason_="", warming_up_=False, steps=0
    )
    stopping = StoppingRules(**rules)
    stopping.initialize()
    stopping.on_train_begin(net)
    return net, stopping


def run_epoch(net, stopping, loss=1.0, *, n_steps=3, gradients=(), **values):
    """Run an epoch as the net does."""
    net.history.new_epoch()
    stopping.on_epoch_begin(net, dataset_valid=[0])
    for step in range(n_steps):
        stopping.on_batch_begin(net, training=True)
        if gradients:
            stopping.on_grad_computed(net, named(gradients[step]), training=True)
        net.steps += 1
        stopping.on_batch_end(net, training=True)
    stopping.on_batch_begin(net, training=False)
    stopping.on_batch_end(net, training=False)
    net.history.record("train_loss", loss)
    for name, value in values.items():
        net.history.record(name, value)
    stopping.on_epoch_end(net)


def named(gradients):
    for number, values in enumerate(gradients):
        parameter = torch.nn.Parameter(torch.zeros(len(values)))
        parameter.grad = torch.tensor(values)
        yield f"p{number}", parameter
    yield "frozen", torch.nn.Parameter(torch.zeros(1))


def epochs_until_stopped(losses, **rules):
    net, stopping = started(**rules)
    for epoch, loss in enumerate(losses, start=1):
        run_epoch(net, stopping, loss)
        if net.stop_:
            return epoch, stopping.reason_
    return None, stopping.reason_


def test_steps_end_training_within_an_epoch():
    net, stopping = started(max_steps=7)
    run_epoch(net, stopping)
    run_epoch(net, stopping)
    assert not net.stop_
    with pytest.raises(Stopped):
        run_epoch(net, stopping)
    assert net.steps == 7
    assert net.stop_reason_ == stopping.reason_ == "max_steps=7 were taken"


def test_steps_that_end_with_an_epoch_leave_it_whole():
    net, stopping = started(max_steps=6)
    run_epoch(net, stopping)
    run_epoch(net, stopping)
    assert (net.stop_, net.steps, len(net.history)) == (True, 6, 2)


def test_seconds_end_training_before_a_step_or_after_an_epoch(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    net, stopping = started(max_seconds=5)
    clock[0] += 4.9
    run_epoch(net, stopping)
    assert not net.stop_
    clock[0] += 0.2
    with pytest.raises(Stopped):
        run_epoch(net, stopping)
    assert net.steps == 3
    assert stopping.reason_ == "max_seconds=5 passed (5.1 s)"

    # Validation takes time, too: three steps, then the end of the epoch.
    monkeypatch.setattr(time, "monotonic", iter([0.0, 1.0, 2.0, 3.0, 6.0]).__next__)
    net, stopping = started(max_seconds=5)
    run_epoch(net, stopping)
    assert net.stop_


def test_seconds_of_the_run_before_count(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    _, first = started(max_seconds=60)
    clock[0] += 40
    state = first.state_dict()
    clock[0] = 3.0  # another machine's clock
    net, second = started(max_seconds=60)
    second.load_state_dict(state)
    clock[0] += 19
    run_epoch(net, second)
    assert not net.stop_
    clock[0] += 1
    with pytest.raises(Stopped):
        run_epoch(net, second)


def test_a_target_ends_training_when_it_is_reached():
    net, stopping = started(target_score=0.9)
    run_epoch(net, stopping, valid_score=0.89)
    assert not net.stop_
    run_epoch(net, stopping, valid_score=0.9)
    assert net.stop_
    assert stopping.reason_ == "valid_score 0.9 reached target_score=0.9"

    net, stopping = started(target_loss=0.5, monitor="valid_loss")
    run_epoch(net, stopping, 0.1, valid_loss=0.51)
    assert not net.stop_
    run_epoch(net, stopping, 0.1, valid_loss=0.5)
    assert stopping.reason_ == "valid_loss 0.5 reached target_loss=0.5"


def reference_of_improvement(losses, n_iter_no_change, least):
    """Count misses against the lowest loss before, in numpy."""
    losses = np.array(losses)
    before = np.minimum.accumulate(losses)[:-1]
    misses = before - losses[1:] < least(before)
    for end in range(n_iter_no_change, len(losses)):
        if misses[end - n_iter_no_change : end].all():
            return end + 1
    return None


@pytest.mark.parametrize("n_iter_no_change", [1, 2, 3])
@pytest.mark.parametrize("seed", range(8))
def test_improvement_is_of_the_loss_on_the_lowest_one_before(seed, n_iter_no_change):
    rng = np.random.default_rng(seed)
    losses = np.exp(-0.3 * np.arange(20)) + 0.05 * rng.standard_normal(20) + 1
    epoch, _ = epochs_until_stopped(
        losses, min_improvement=0.04, n_iter_no_change=n_iter_no_change
    )
    assert epoch == reference_of_improvement(losses, n_iter_no_change, lambda b: 0.04)
    epoch, _ = epochs_until_stopped(
        losses, min_relative_improvement=0.03, n_iter_no_change=n_iter_no_change
    )
    assert epoch == reference_of_improvement(
        losses, n_iter_no_change, lambda before: 0.03 * before
    )


def test_noise_between_neighbours_is_no_improvement():
    # Every other epoch is far better than its neighbour, and none beats the best.
    noisy = [1.0, 1.5, 1.1, 1.5, 1.1, 1.5]
    epoch, reason = epochs_until_stopped(noisy, min_improvement=0.1, n_iter_no_change=4)
    assert epoch == 5
    assert reason == (
        "train_loss improved on its lowest, 1, by less than min_improvement=0.1 in "
        "4 epochs in a row"
    )


def test_no_improvement_asked_means_any():
    rules = {"min_improvement": 0.0, "n_iter_no_change": 2}
    assert epochs_until_stopped([1.0, 0.99, 0.98, 0.97], **rules)[0] is None
    assert epochs_until_stopped([1.0, 1.0, 1.0, 1.0], **rules)[0] == 3
    rules = {"min_relative_improvement": 0.0, "n_iter_no_change": 2}
    assert epochs_until_stopped([1.0, 0.99, 0.98, 0.97], **rules)[0] is None
    assert epochs_until_stopped([1.0, 1.0, 1.0, 1.0], **rules)[0] == 3


def test_a_loss_that_is_no_number_never_improves():
    losses = [math.nan] * 4
    assert epochs_until_stopped(losses, min_improvement=0.1, n_iter_no_change=3)[0] == 4


def test_rules_on_improvement_wait_for_the_warm_up_of_the_head():
    net, stopping = started(min_improvement=0.1, n_iter_no_change=2, min_grad_norm=1.0)
    net.warming_up_ = True
    for _ in range(5):
        run_epoch(net, stopping, 0.2, gradients=[[[0.1]]] * 3)
    assert not net.stop_
    net.warming_up_ = False
    for _ in range(3):
        assert not net.stop_
        run_epoch(net, stopping, 0.9)
    assert net.stop_


def test_a_small_mean_norm_of_the_gradient_ends_training():
    batches = [[[3.0], [0.0, 4.0]], [[0.0], [0.0, 1.0]], [[2.0], [2.0, 1.0]]]
    norms = [np.linalg.norm(np.concatenate(b)) for b in batches]  # 5, 1, 3
    for least, ends in ((np.mean(norms) - 1e-3, False), (np.mean(norms) + 1e-3, True)):
        net, stopping = started(min_grad_norm=least)
        run_epoch(net, stopping, gradients=batches)
        assert net.stop_ == ends
    assert "mean norm of the gradient, 3, is below min_grad_norm=3.001" in (
        stopping.reason_
    )


def test_the_norm_is_of_one_epoch_and_leaves_overflowing_batches_out():
    net, stopping = started(min_grad_norm=2.0)
    run_epoch(net, stopping, gradients=[[[100.0]], [[math.inf]], [[3.0]]])
    assert not net.stop_
    run_epoch(net, stopping, gradients=[[[1.0]], [[math.inf]], [[1.5]]])
    assert net.stop_
    assert "1.25" in stopping.reason_
    net, stopping = started(min_grad_norm=2.0)
    run_epoch(net, stopping, gradients=[[[math.inf]]] * 3)
    assert not net.stop_


@pytest.mark.parametrize("done", [1, 2, 3])
def test_a_resumed_run_ends_where_the_unbroken_one_does(done):
    losses = [1.0, 1.05, 0.99, 1.2, 1.1, 1.0, 0.9]
    rules = {"min_improvement": 0.05, "n_iter_no_change": 3, "max_steps": 15}
    unbroken, reason = epochs_until_stopped(losses, **rules)
    assert unbroken == 4
    net, first = started(**rules)
    for loss in losses[:done]:
        run_epoch(net, first, loss)
    later, second = started(**rules)
    second.load_state_dict(first.state_dict())
    for loss in losses[done:unbroken]:
        assert not later.stop_
        run_epoch(later, second, loss)
    assert later.stop_
    assert second.reason_ == reason
    assert second.steps_ == 12


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({}, "no rule: set one of .*max_seconds"),
        ({"n_iter_no_change": 3}, "no rule"),
        ({"max_steps": 0}, "max_steps.*Got 0"),
        ({"max_seconds": -1.0}, "max_seconds.*Got -1.0"),
        ({"min_improvement": -0.1}, "min_improvement.*Got -0.1"),
        ({"target_score": "high"}, "target_score.*Got 'high'"),
        ({"max_steps": 1, "n_iter_no_change": 0}, "n_iter_no_change.*Got 0"),
    ],
)
def test_wrong_rules_are_refused(rules, message):
    with pytest.raises(ValueError, match=message):
        StoppingRules(**rules).initialize()


def test_a_rule_without_its_column_says_what_is_missing():
    net, stopping = started(target_score=0.5)
    net.history.new_epoch()
    with pytest.raises(ValueError, match="needs validation rows"):
        stopping.on_epoch_begin(net, dataset_valid=None)
    net, stopping = started(target_loss=0.5, monitor="valid_loss")
    with pytest.raises(ValueError, match="'valid_loss' of StoppingRules is not in"):
        run_epoch(net, stopping)


def test_rules_can_be_cloned_after_training():
    net, stopping = started(max_steps=3, min_grad_norm=1e-9)
    run_epoch(net, stopping, gradients=[[[1.0]]] * 3)
    assert clone(stopping, safe=False).get_params() == stopping.get_params()
