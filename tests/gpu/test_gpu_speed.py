"""Extraction and training on a CUDA device: the same results, without waiting."""

import numpy as np
import pytest
import torch
from gpu_cases import NEEDS_CUDA
from skorch.callbacks import Callback

from sklearn_dl import ImageClassifier, ImageFeatureExtractor
from sklearn_dl._extraction._forward import Forward
from sklearn_dl._images import as_source
from sklearn_dl._runtime import Execution

pytestmark = NEEDS_CUDA
OPTIONS = {
    "backbone": "resnet18",
    "weights": None,
    "image_size": 64,
    "cache": None,
    "random_state": 0,
}


@pytest.fixture(autouse=True)
def float32_all_through():
    backends = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:  # which pytest 9.2's monkeypatch can't take back
        backend.allow_tf32 = False
    yield
    for backend, allowed in zip(backends, before, strict=True):
        backend.allow_tf32 = allowed


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (50, 80, 72, 3), "uint8")


@pytest.mark.parametrize("batch_size", [7, 50, "auto"])
def test_features_are_those_of_the_cpu_in_the_same_order(images, batch_size):
    # Arrays are resized by torch on a GPU, by Pillow on a CPU: here nothing is resized.
    images = images[:, :64, :64]
    options = {**OPTIONS, "image_size": (64, 64), "batch_size": batch_size}
    expected = ImageFeatureExtractor(device="cpu", **options).fit_transform(images)
    found = ImageFeatureExtractor(device="cuda", **options).fit_transform(images)
    difference = np.linalg.norm(found - expected, axis=1)
    assert (difference < 1e-4 * np.linalg.norm(expected, axis=1)).all()


def test_folding_changes_nothing_beyond_rounding_and_casts(images):
    extractor = ImageFeatureExtractor(device="cuda", **OPTIONS).fit(images)
    folded = extractor.transform(images)
    for part in extractor.backbone_.modules():  # a layer with a hook is run as it is
        part.register_forward_hook(lambda *_: None)
    plain = extractor.transform(images)
    assert not np.array_equal(folded, plain)
    difference = np.linalg.norm(folded - plain, axis=1)
    assert (difference < 1e-5 * np.linalg.norm(plain, axis=1)).all()


def test_a_pass_does_not_wait_for_the_device(images):
    extractor = ImageFeatureExtractor(device="cuda", **OPTIONS).fit(images)
    extractor.transform(images)
    execution = Execution.of("cuda", "float32", "auto")
    forward = Forward(extractor._backbone, extractor.preprocessing_, execution)
    with forward.reader(as_source(images)) as reader:
        list(forward.stream(reader.batches(10)))
        torch.cuda.set_sync_debug_mode("error")
        try:
            parts = list(forward.stream(reader.batches(10)))
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert [part.start for part, _ in parts] == [0, 10, 20, 30, 40]


class NeverWaits(Callback):
    """Makes each wait for the device in a training step an error, but in epoch 1."""

    n_steps = 0

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        if training and len(net.history) > 1:
            self.n_steps += 1
            torch.cuda.set_sync_debug_mode("error")

    def on_batch_end(self, net, batch=None, training=False, **kwargs):
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_training_step_does_not_wait_for_the_device(images, optimizer, precision):
    watch = NeverWaits()
    model = ImageClassifier(
        trainable="all",
        max_epochs=3,
        batch_size=10,
        device="cuda",
        precision=precision,
        optimizer=optimizer,
        callbacks=[watch],
        **OPTIONS,
    )
    try:
        model.fit(images, np.arange(50) % 2)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert watch.n_steps == 10


def test_losses_of_batches_are_floats_after_the_fit(images):
    model = ImageClassifier(
        trainable="all", max_epochs=2, batch_size=10, device="cuda", **OPTIONS
    )
    model.set_params(warm_start=True).fit(images, np.arange(50) % 2)  # keeps the net
    batches = [b for epoch in model._net.history for b in epoch["batches"]]
    assert len(batches) == 10
    assert all(type(batch["train_loss"]) is float for batch in batches)
    assert np.isfinite(model.history_["train_loss"]).all()


def test_more_than_the_memory_goes_in_halves(images):
    fraction = 1.5 * 2**30 / torch.cuda.mem_get_info()[1]
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, fraction))
    try:
        options = {**OPTIONS, "backbone": "vgg16", "image_size": 224}
        extractor = ImageFeatureExtractor(device="cuda", batch_size=512, **options)
        many = np.tile(images, (11, 1, 1, 1))[:512]
        with pytest.warns(RuntimeWarning, match="not enough memory"):
            features = extractor.fit_transform(many)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert np.isfinite(features).all()
    np.testing.assert_allclose(features[:50], features[50:100], rtol=1e-3, atol=1e-4)
