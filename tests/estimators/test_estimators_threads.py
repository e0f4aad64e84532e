"""Fits in threads give what they give one after another, and wait for nobody."""

import threading

import numpy as np
import processes
import pytest
from estimator_cases import classifier, extractor, two_brightnesses
from joblib import Parallel, delayed
from torchvision.transforms import v2

from sklearn_dl.augmentation import Augment
from sklearn_dl.training import Head

X, Y = two_brightnesses(16)
DROPOUT = Head(dropout=0.5)
SETTINGS = {
    "dropout": {"head": DROPOUT, "cache": None},
    "random weights": {"weights": None, "head": DROPOUT},
    "the whole network": {"weights": None, "trainable": "all", "max_epochs": 2},
    "a transform of others": {"augment": v2.RandomHorizontalFlip(), "head": DROPOUT},
    "mixing": {"augment": Augment("light", mix="mixup"), "trainable": 1},
    "early stopping": {"early_stopping": True, "head": DROPOUT},
}


def predicted(setting, seed):
    model = classifier(random_state=seed, **SETTINGS[setting]).fit(X, Y)
    return model.predict_proba(X)


def test_fits_at_once_are_those_one_after_another():
    runs = [(setting, seed) for seed in (1, 2) for setting in SETTINGS]
    expected = [predicted(*run) for run in runs]
    found = Parallel(4, backend="threading")(delayed(predicted)(*run) for run in runs)
    for run, one, other in zip(runs, found, expected, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=str(run))


def test_a_backbone_that_is_loaded_meanwhile_changes_no_fit():
    expected, stop = predicted("the whole network", 0), threading.Event()
    loaded = []

    def load():
        while not stop.is_set():
            seed = len(loaded)
            fitted = extractor(weights=None, random_state=seed).fit(X)
            loaded.append(fitted.transform(X[:2]))

    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    try:
        for _ in range(3):
            found = predicted("the whole network", 0)
            np.testing.assert_array_equal(found, expected)
    finally:
        stop.set()
        thread.join(60)
    alone = extractor(weights=None, random_state=0).fit(X).transform(X[:2])
    np.testing.assert_array_equal(loaded[0], alone)


BESIDE_EACH_OTHER = """
import os, signal, sys, threading
import numpy as np
import torch
from torchvision.transforms import v2
from sklearn_dl import ImageClassifier, ImageFeatureExtractor
from sklearn_dl.training import Head

torch.set_num_threads(1)
folder, backbone = sys.argv[1], ("mobilenet_v3_small",)
options = {"weights": "builtin", "image_size": 32}
rng, y = np.random.default_rng(0), np.arange(8) % 2

def turned(image):
    return [image, v2.RandomHorizontalFlip()(image)]

def fit(X, cache, **more):
    options_of_fit = {"head": Head(dropout=0.5), "random_state": 1, "max_epochs": 2}
    model = ImageClassifier(*backbone, **options, **options_of_fit, cache=cache, **more)
    return model.fit(X, y).predict_proba(X)

fixed, wrong = rng.integers(0, 255, (8, 32, 32, 3), "uint8"), []
expected = fit(fixed, None)
for cache in ("memory", folder):
    X = rng.integers(0, 255, (8, 32, 32, 3), "uint8")
    views = ImageFeatureExtractor(*backbone, **options, tta=turned, cache=cache).fit(X)
    jobs = [
        lambda: wrong.extend([1] * (not np.array_equal(fit(fixed, cache), expected))),
        lambda: fit(X, cache, tta=turned, early_stopping=True),
        lambda: fit(X, cache, trainable=1, augment=v2.RandomHorizontalFlip()),
        lambda: views.transform(X),
        lambda: views.transform(X),
    ]
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    for _ in range(3):
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            os._exit(not np.array_equal(fit(fixed, "memory"), expected))
        wrong += [2] * (os.waitpid(child, 0)[1] != 0)
    for thread in threads:
        thread.join()
print(wrong)
"""


@pytest.mark.skipif(not processes.HAS_FORK, reason="there is no fork here")
def test_fits_transforms_and_forks_do_not_wait_for_each_other_for_ever(tmp_path):
    assert processes.run(BESIDE_EACH_OTHER, tmp_path).stdout.strip() == "[]"
