"""Several devices share out the batches: here two that are both the CPU."""

import pickle
import threading
import time

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch.utils.data import TensorDataset

from sklearn_dl import ImageClassifier, ImageFeatureExtractor
from sklearn_dl._extraction import run_network
from sklearn_dl._images import as_source
from sklearn_dl._runtime import Execution
from sklearn_dl.backbones import Preprocessing
from sklearn_dl.datasets import load_torch_dataset
from sklearn_dl.persistence import load, save

PLAIN = Preprocessing(None, (8, 8), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
TWO = ["cpu", "cpu"]
SMALL = {"backbone": "squeezenet1_1", "weights": None, "image_size": 32}
SMALL["random_state"] = 0
rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (50, 32, 32, 3), "uint8")


class Notes:
    """What a network and its copies did."""

    def __init__(self):
        self.threads, self.batches = set(), 0

    def __deepcopy__(self, memo):
        return self


class Slow(torch.nn.Module):
    """A device that takes its time, and notes which threads it works in.

    It keeps what it computes with, as networks of users do.
    """

    def __init__(self, seconds, fails_at=None):
        super().__init__()
        self.seconds, self.fails_at, self.notes = seconds, fails_at, Notes()

    def forward(self, x):
        self.kept = x.mean((2, 3))
        self.notes.threads.add(threading.get_ident())
        self.notes.batches += 1
        if self.notes.batches == self.fails_at:
            raise ArithmeticError("the device broke")
        # Batches come to their end in another order than they began.
        time.sleep(self.seconds * (2 - self.notes.batches % 2))
        return self.kept


def run(network, device, n=48):
    execution = Execution.of(device, "float32", 4)
    return run_network(network, as_source(IMAGES[:n, :8, :8]), PLAIN, execution)


def test_each_batch_goes_to_the_first_that_is_free_and_rows_stay_in_order():
    one, two = Slow(0.005), Slow(0.005)
    expected = run(one, "cpu")
    np.testing.assert_array_equal(run(two, TWO), expected)
    assert len(one.notes.threads) == 1
    assert len(two.notes.threads) == 2
    assert one.notes.batches == two.notes.batches == 12


class Meeting(torch.nn.Module):
    """A device that works on a batch when another one works too."""

    def __init__(self, patience):
        super().__init__()
        self.barrier = threading.Barrier(2, timeout=patience)

    def __deepcopy__(self, memo):  # copies meet at one barrier
        return self

    def forward(self, x):
        self.barrier.wait()  # BrokenBarrierError where nobody comes
        return x.mean((2, 3))


def test_two_devices_work_at_the_same_time():
    assert len(run(Meeting(60), TWO)) == 48
    with pytest.raises(threading.BrokenBarrierError):
        run(Meeting(0.1), "cpu")


def test_an_error_of_one_device_ends_it_all():
    before = threading.active_count()
    with pytest.raises(ArithmeticError, match="the device broke"):
        run(Slow(0.001, fails_at=3), TWO)
    assert threading.active_count() == before


@pytest.mark.parametrize("cache", [None, "memory", "folder"])
@pytest.mark.parametrize("form", ["array", "dataset"])
def test_features_are_those_of_one_device(cache, form, tmp_path):
    X = IMAGES
    if form == "dataset":  # whose images are known when they are read
        pixels = torch.from_numpy(X).permute(0, 3, 1, 2)
        X = load_torch_dataset(TensorDataset(pixels, torch.zeros(len(pixels)))).data
    cache = tmp_path if cache == "folder" else cache
    one = ImageFeatureExtractor(**SMALL, batch_size=4, cache=None).fit(X)
    two = clone(one).set_params(device=TWO, cache=cache).fit(X)
    for _ in range(2):
        np.testing.assert_allclose(two.transform(X), one.transform(X), atol=1e-5)


def test_a_model_predicts_on_several_and_keeps_the_parameter(tmp_path):
    y = np.arange(50) % 2
    options = {**SMALL, "max_epochs": 1, "batch_size": 8}
    for trainable in ("head", "all"):
        one = ImageClassifier(**options, trainable=trainable).fit(IMAGES, y)
        two = clone(one).set_params(device=TWO).fit(IMAGES, y)
        expected = one.predict_proba(IMAGES)
        np.testing.assert_allclose(two.predict_proba(IMAGES), expected, atol=1e-6)
        save(two, tmp_path / "two.model")
        for again in (pickle.loads(pickle.dumps(two)), load(tmp_path / "two.model")):
            assert again.device == TWO
            np.testing.assert_allclose(again.predict_proba(IMAGES), expected, atol=1e-6)
