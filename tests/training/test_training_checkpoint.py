"""Checkpoints over a small net that keeps the contract, and over the estimators."""

import copy
import os
import signal
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import processes
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetRegressor
from skorch.callbacks import Callback
from skorch.history import History
from torch import nn

from sklearn_dl import ImageClassifier
from sklearn_dl.training import (
    SAM,
    Checkpoint,
    Head,
    Schedule,
    StoppingRules,
    WeightAveraging,
)
from sklearn_dl.training._schedule import LearningRates

EPOCHS = 6


class Net(NeuralNetRegressor):
    """A skorch net that can be resumed; its randomness depends on seed and epoch."""

    fingerprint_ = "net"
    warming_up_ = False
    interrupted_ = False
    stop_reason_ = ""
    stop_ = False

    @property
    def phase_epoch_(self):
        return sum("train_loss" in row for row in self.history)

    @property
    def phase_epochs_(self):
        return self.max_epochs

    def initialize_optimizer(self, *args, **kwargs):
        super().initialize_optimizer(*args, **kwargs)
        for group in self.optimizer_.param_groups:
            group["name"] = "head"
        return self

    def on_epoch_begin(self, net, **kwargs):
        super().on_epoch_begin(net, **kwargs)
        torch.manual_seed(1000 + len(self.history))

    def get_iterator(self, dataset, training=False):
        iterator = super().get_iterator(dataset, training=training)
        self.steps_per_epoch_ = len(iterator)
        return iterator

    def fit_loop(self, X, y=None, epochs=None, **kwargs):
        try:
            for _ in range(self.max_epochs - len(self.history)):
                if self.stop_:
                    break
                super().fit_loop(X, y, epochs=1, **kwargs)
        except KeyboardInterrupt:
            self.interrupted_ = True
        return self

    def training_state(self):
        named = [(n, c) for n, c in self.callbacks_ if hasattr(c, "state_dict")]
        return {
            "module": self.module_.state_dict(),
            "optimizer": self.optimizer_.state_dict(),
            "history": self.history.to_list(),
            "callbacks": {name: callback.state_dict() for name, callback in named},
        }

    def load_training_state(self, state):
        self.module_.load_state_dict(state["module"])
        self.optimizer_.load_state_dict(state["optimizer"])
        self.history = History(copy.deepcopy(state["history"]))
        for name, callback in self.callbacks_:
            if name in state["callbacks"]:
                callback.load_state_dict(state["callbacks"][name])


class Interrupted(Callback):
    """Fails at an epoch, as Ctrl-C or a crash would."""

    def __init__(self, epoch=0, error=RuntimeError):
        self.epoch = epoch
        self.error = error

    def on_batch_end(self, net, **kwargs):
        if len(net.history) == self.epoch:
            raise self.error("on purpose")


def build(directory=None, *extra, epochs=EPOCHS, **arguments):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rates = LearningRates(Schedule("one_cycle", cycle_momentum=True))
    checkpoint = [] if directory is None else [Checkpoint(directory, **arguments)]
    return Net(
        nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1)),
        optimizer=torch.optim.AdamW,
        lr=0.05,
        max_epochs=epochs,
        batch_size=8,
        train_split=None,
        iterator_train__shuffle=True,
        callbacks=[rates, *extra, *checkpoint],
        callbacks__print_log=None,
        verbose=0,
    )


def train(directory=None, *extra, **arguments):
    X = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
    net = build(directory, *extra, **arguments)
    return net.fit(X, X[:, :1] - X[:, 1:2] ** 2)


def numbers(net):
    """Return the history without its times."""
    skipped = ("dur", "batches")
    rows = net.history.to_list()
    return [{k: v for k, v in row.items() if k not in skipped} for row in rows]


def assert_same(one, other):
    assert numbers(one) == numbers(other)
    for name, tensor in one.module_.state_dict().items():
        assert torch.equal(tensor, other.module_.state_dict()[name]), name


def checkpoint_of(net):
    return dict(net.callbacks_)["Checkpoint"]


@pytest.fixture(scope="module")
def unbroken():
    return train()


def test_writing_checkpoints_changes_nothing_and_a_finished_run_leaves_none(
    tmp_path, unbroken
):
    assert_same(train(tmp_path / "made" / "here"), unbroken)
    assert list((tmp_path / "made" / "here").iterdir()) == []


@pytest.mark.parametrize("epoch", range(1, EPOCHS + 1))
@pytest.mark.parametrize("every", [1, 2])
def test_a_run_that_failed_goes_on_and_ends_as_the_unbroken_one(
    tmp_path, unbroken, epoch, every
):
    with pytest.raises(RuntimeError, match="on purpose"):
        train(tmp_path, Interrupted(epoch), every=every)
    done = (epoch - 1) // every * every
    assert len(list(tmp_path.iterdir())) == (done > 0)
    net = train(tmp_path, Interrupted(0), every=every)
    assert checkpoint_of(net).resumed_epoch_ == done
    assert_same(net, unbroken)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_run_keeps_its_file(tmp_path, unbroken):
    net = train(tmp_path, Interrupted(4, KeyboardInterrupt))
    assert net.interrupted_
    assert list(tmp_path.iterdir()) == [checkpoint_of(net).path_]
    assert_same(train(tmp_path, Interrupted(0)), unbroken)


def test_a_finished_run_that_is_kept_is_returned_without_training(tmp_path, unbroken):
    first = train(tmp_path, Interrupted(0), keep=True)
    again = train(tmp_path, Interrupted(EPOCHS), keep=True)  # would fail in training
    assert checkpoint_of(again).resumed_epoch_ == EPOCHS
    for net in (first, again):
        assert_same(net, unbroken)
    assert again.history[:, "dur"] == first.history[:, "dur"]


@pytest.mark.parametrize("keep", [False, True])
def test_a_run_that_a_rule_ended_stays_ended(tmp_path, keep):
    rules = StoppingRules(max_steps=15)
    first = train(tmp_path, rules, keep=keep)
    assert len(first.history) == 3
    assert first.stop_reason_ == "max_steps=15 were taken"
    if keep:
        again = train(tmp_path, clone(rules, safe=False), keep=True)
        assert_same(again, first)
        assert again.stop_reason_ == first.stop_reason_


def test_a_crash_after_the_last_epoch_of_a_run_trains_no_further(tmp_path):
    class Crash(Callback):
        def on_train_end(self, net, **kwargs):
            raise RuntimeError("on purpose")

    expected = train(None, StoppingRules(max_steps=15))
    with pytest.raises(RuntimeError, match="on purpose"):
        train(tmp_path, StoppingRules(max_steps=15), Crash())
    net = train(tmp_path, StoppingRules(max_steps=15))
    assert checkpoint_of(net).resumed_epoch_ == 3
    assert_same(net, expected)
    assert net.stop_reason_ == expected.stop_reason_


def interrupt(directory, **arguments):
    with pytest.raises(RuntimeError, match="on purpose"):
        train(directory, Interrupted(4), **arguments)
    (path,) = directory.iterdir()
    return path


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_moved_aside_and_training_begins_anew(
    tmp_path, unbroken, kept
):
    path = interrupt(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.warns(UserWarning, match=r"can't be read .*, and is now net.*\.broken"):
        net = train(tmp_path, Interrupted(0))
    assert_same(net, unbroken)
    assert [p.name for p in tmp_path.iterdir()] == [f"{path.name}.broken"]


class Evil:
    def __reduce__(self):
        return os.mkdir, ("code_ran",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weights": torch.ones(2)}, "is not a checkpoint of sklearn_dl"),
        ([1, 2], "is not a checkpoint of sklearn_dl"),
        (Evil(), "can't be read"),
        (b"a text", "can't be read"),
    ],
)
def test_a_foreign_file_runs_no_code_and_is_moved_aside(
    tmp_path, unbroken, monkeypatch, content, message
):
    monkeypatch.chdir(tmp_path)
    path = interrupt(tmp_path)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.warns(UserWarning, match=message):
        net = train(tmp_path)
    assert_same(net, unbroken)
    assert [p.name for p in tmp_path.iterdir()] == [f"{path.name}.broken"]


def test_a_file_of_another_fit_is_moved_aside(tmp_path, unbroken):
    path = interrupt(tmp_path)
    state = torch.load(path, weights_only=True)
    torch.save({**state, "fingerprint": "other"}, path)
    with pytest.warns(UserWarning, match="is of another fit"):
        assert_same(train(tmp_path), unbroken)


def test_a_newer_format_is_an_error_that_says_so(tmp_path):
    path = interrupt(tmp_path)
    state = torch.load(path, weights_only=True)
    torch.save({**state, "version": 99}, path)
    with pytest.raises(ValueError, match="has format 99, from a newer sklearn_dl"):
        train(tmp_path)
    assert path.exists()


def test_fits_of_other_parameters_or_data_do_not_share_a_file(tmp_path, monkeypatch):
    path = interrupt(tmp_path)
    monkeypatch.setattr(Net, "fingerprint_", "another")
    net = train(tmp_path, Interrupted(0))
    assert checkpoint_of(net).resumed_epoch_ == 0
    assert list(tmp_path.iterdir()) == [path]


def test_another_setting_of_a_callback_that_takes_part_begins_anew(tmp_path):
    with pytest.raises(RuntimeError, match="on purpose"):
        train(tmp_path, StoppingRules(max_steps=25), Interrupted(4))
    net = train(tmp_path, StoppingRules(max_steps=15))
    assert checkpoint_of(net).resumed_epoch_ == 0
    net = train(tmp_path, StoppingRules(max_steps=25))
    assert checkpoint_of(net).resumed_epoch_ == 3


def test_a_warm_start_does_not_take_the_file_of_a_fresh_fit(tmp_path):
    path = interrupt(tmp_path)
    X = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
    net = build(None, epochs=2).fit(X, X[:, :1])
    net.callbacks_.append(("Checkpoint", Checkpoint(tmp_path, keep=True)))
    net.max_epochs = 3
    net.partial_fit(X, X[:, :1])
    assert path.exists()
    assert checkpoint_of(net).path_.exists()
    assert checkpoint_of(net).path_ != path
    assert checkpoint_of(net).resumed_epoch_ == 0
    assert len(net.history) == 3


def test_a_seed_that_changes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Net, "fingerprint_", None)
    with pytest.raises(ValueError, match="random_state=0"):
        train(tmp_path)


@pytest.mark.parametrize("every", [0, -1, 1.5, "2"])
def test_the_number_of_epochs_between_files_is_checked(tmp_path, every):
    with pytest.raises(ValueError, match=f"every={every!r} must be an int"):
        train(tmp_path, every=every)


def full_disk(*args, **kwargs):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("failing", ["fsync", "save", "replace"])
def test_a_failed_write_warns_and_leaves_the_last_whole_file(
    tmp_path, unbroken, monkeypatch, failing
):
    path = interrupt(tmp_path)
    content = path.read_bytes()

    def half(state, file):
        file.write(b"half a file")
        try:
            full_disk()
        finally:  # what torch does
            raise RuntimeError("[enforce fail] write failed")

    if failing == "save":
        monkeypatch.setattr(torch, "save", half)
    elif failing == "fsync":
        monkeypatch.setattr(os, "fsync", full_disk)
    else:
        monkeypatch.setattr(os, "replace", full_disk)
    with pytest.warns(UserWarning, match=r"can't be written .*disk is full: .*goes on"):
        with pytest.raises(RuntimeError, match="on purpose"):
            train(tmp_path, Interrupted(6))
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == content
    with pytest.warns(UserWarning, match="can't be written"):
        assert_same(train(tmp_path), unbroken)


def test_a_directory_that_can_not_be_made_warns(tmp_path, unbroken):
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match="can't be written"):
        assert_same(train(tmp_path / "file" / "below"), unbroken)


def test_temporaries_of_killed_processes_are_removed(tmp_path):
    old, new, other = (
        tmp_path / name
        for name in (".net.checkpoint.1.tmp", ".net.checkpoint.2.tmp", "mine.tmp")
    )
    for path in (old, new, other):
        path.write_bytes(b"half")
    for path in (old, other):
        os.utime(path, (0, 0))
    train(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([new, other])


def test_a_state_that_needs_code_to_load_is_refused_when_it_is_written(tmp_path):
    class Stateful(Callback):
        def state_dict(self):
            return {"paths": [1, Path("x")]}

    message = r"\['callbacks'\]\['Stateful'\]\['paths'\]\[1\] is of PosixPath"
    with pytest.raises(TypeError, match=message):
        train(tmp_path, Stateful())
    assert list(tmp_path.iterdir()) == []


def test_numbers_of_numpy_are_written_as_plain_ones(tmp_path):
    class Scores(Callback):
        def on_epoch_end(self, net, **kwargs):
            net.history.record("score", np.float32(0.5))

        def state_dict(self):
            return {"array": np.arange(3.0), "best": np.float64(-np.inf), "no": None}

        def load_state_dict(self, state):
            self.loaded_ = state

    with pytest.raises(RuntimeError, match="on purpose"):
        train(tmp_path, Scores(), Interrupted(3))
    net = train(tmp_path, Scores())
    loaded = dict(net.callbacks_)["Scores"].loaded_
    assert torch.equal(loaded["array"], torch.arange(3.0, dtype=torch.float64))
    assert loaded["best"] == -np.inf
    assert net.history[:, "score"] == [0.5] * EPOCHS


def test_a_checkpoint_can_be_cloned_after_training(tmp_path):
    net = train(tmp_path, every=3)
    copied = clone(checkpoint_of(net), safe=False)
    assert copied.get_params() == {"directory": tmp_path, "every": 3, "keep": False}
    assert not hasattr(copied, "path_")


class Slow(Callback):
    """Gives a test the time to kill it."""

    def __init__(self, seconds=0.0):
        self.seconds = seconds

    def on_epoch_begin(self, net, **kwargs):
        time.sleep(self.seconds)


def classifier(directory=None, *extra, **params):
    torch.set_num_threads(1)
    checkpoint = [] if directory is None else [Checkpoint(directory)]
    averaging = WeightAveraging(0.9)
    params = {
        "backbone": "squeezenet1_1",
        "weights": None,
        "image_size": 32,
        "head": Head(hidden_layer_sizes=(8,), dropout=0.3),
        "trainable": 2,
        "warmup_epochs": 2,
        "max_epochs": 5,
        "batch_size": 8,
        "optimizer": "adamw",
        "schedule": "one_cycle",
        "augment": ["light", "mixup"],
        "early_stopping": True,
        "n_iter_no_change": 9,
        "random_state": 0,
        "callbacks": [*extra, averaging, *checkpoint],
        **params,
    }
    return ImageClassifier(**params)


def images():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (30, 32, 32, 3), dtype=np.uint8), np.arange(30) % 3


def assert_same_fit(one, other):
    ours, theirs = (model.module_.state_dict() for model in (one, other))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    pd.testing.assert_frame_equal(
        one.history_.drop(columns="dur"), other.history_.drop(columns="dur")
    )
    X, _ = images()
    assert np.array_equal(one.predict_proba(X), other.predict_proba(X))
    assert one.best_epoch_ == other.best_epoch_


@pytest.fixture(scope="module")
def unbroken_fit():
    return classifier().fit(*images())


@pytest.mark.parametrize("epoch", [2, 3, 4, 5])
def test_a_failed_fit_goes_on_and_ends_as_the_unbroken_one(
    tmp_path, unbroken_fit, epoch
):
    with pytest.raises(RuntimeError, match="on purpose"):
        classifier(tmp_path, Interrupted(epoch)).fit(*images())
    assert len(list(tmp_path.iterdir())) == 1
    model = classifier(tmp_path, Interrupted(0)).fit(*images())
    assert model.callbacks[-1].resumed_epoch_ == epoch - 1
    assert_same_fit(model, unbroken_fit)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "params",
    [
        {"schedule": Schedule("plateau", patience=0, gamma=0.5)},
        {
            "optimizer": "nesterov",
            "schedule": "cosine",
            "augment": "light",
            "warmup_epochs": 0,
        },
        {"n_iter_no_change": 2, "scoring": "accuracy", "tol": 1.0},  # ends at epoch 4
        {"trainable": "head", "warmup_epochs": 0, "augment": None},
        {"optimizer": SAM, "lr": 0.01},
        {"precision": "bfloat16", "max_epochs": 4},
    ],
)
def test_each_recipe_goes_on_as_if_it_had_not_stopped(tmp_path, params):
    whole = classifier(None, **params).fit(*images())
    broken = classifier(tmp_path, Interrupted(4), **params)
    with pytest.raises(RuntimeError, match="on purpose"):
        broken.fit(*images())
    again = classifier(tmp_path, Interrupted(0), **params).fit(*images())
    assert again.callbacks[-1].resumed_epoch_ == 3
    assert_same_fit(again, whole)


def test_a_killed_fit_goes_on_and_ends_as_the_unbroken_one(tmp_path, unbroken_fit):
    code = (
        "import sys; from test_training_checkpoint import Slow, classifier, images\n"
        "classifier(sys.argv[1], Slow(0.3)).fit(*images())"
    )
    process = processes.start(code, tmp_path)
    done = 0
    while done < 3:
        assert process.poll() is None
        time.sleep(0.01)
        for path in tmp_path.glob("*.checkpoint"):
            state = torch.load(path, weights_only=True)
            done = len(state["training"]["history"])
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    model = classifier(tmp_path, Slow()).fit(*images())
    assert 3 <= model.callbacks[-1].resumed_epoch_ < 5
    assert_same_fit(model, unbroken_fit)


@pytest.fixture(autouse=True)
def ctrl_c():
    """Let Ctrl-C interrupt: shells have what runs in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class CtrlC(Callback):
    def on_batch_end(self, net, **kwargs):
        if len(net.history) == 4:
            signal.raise_signal(signal.SIGINT)


def test_ctrl_c_leaves_the_file_and_a_usable_estimator(tmp_path, unbroken_fit):
    model = classifier(tmp_path, CtrlC())
    with pytest.raises(KeyboardInterrupt):
        model.fit(*images())
    assert model.predict(images()[0]).shape == (30,)
    assert len(list(tmp_path.iterdir())) == 1
    assert_same_fit(classifier(tmp_path, Interrupted(0)).fit(*images()), unbroken_fit)


@pytest.mark.parametrize(
    ("rules", "n_epochs"),
    [({"max_steps": 10}, 2), ({"max_steps": 14}, 3), ({"max_seconds": 1e9}, 5)],
)
def test_a_finished_fit_that_is_kept_is_returned(tmp_path, rules, n_epochs):
    def fit(epoch):
        model = classifier(None, StoppingRules(**rules), Interrupted(epoch))
        checkpoint = Checkpoint(tmp_path, keep=True)
        return model.set_params(callbacks=[*model.callbacks, checkpoint]).fit(*images())

    first, again = fit(0), fit(5)  # which would fail in its last epoch
    assert_same_fit(again, first)
    assert again.callbacks[-1].resumed_epoch_ == again.n_iter_
    assert again.n_iter_ == n_epochs
    assert again.stop_reason_ == first.stop_reason_


def test_candidates_and_folds_of_a_search_share_a_directory_and_no_file(tmp_path):
    class Files(Callback):
        seen: ClassVar = []

        def on_train_end(self, net, **kwargs):
            self.seen.append(checkpoint_of(net).path_)

    model = classifier(
        tmp_path, Files(), trainable="head", warmup_epochs=0, early_stopping=False
    ).set_params(max_epochs=1)
    grid = {"lr": [1e-3, 1e-2], "head__dropout": [0.0, 0.5]}
    search = GridSearchCV(model, grid, cv=2).fit(*images())
    assert len(Files.seen) == len(set(Files.seen)) == 9
    assert list(tmp_path.iterdir()) == []
    assert search.best_estimator_.n_iter_ == 1


def test_a_fit_without_a_fixed_seed_is_refused(tmp_path):
    with pytest.raises(ValueError, match="random_state=0"):
        classifier(tmp_path, random_state=None).fit(*images())
