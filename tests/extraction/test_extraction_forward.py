"""Batches through a network: memory that doesn't suffice, sizes, order."""

import numpy as np
import pytest
import torch

from sklearn_dl import ImageClassifier, ImageFeatureExtractor, _neural, _runtime
from sklearn_dl._extraction import (
    PixelReader,
    _forward,
    _pixels,
    _predict,
    run_network,
)
from sklearn_dl._extraction._forward import Forward
from sklearn_dl._images import as_source
from sklearn_dl._runtime import Execution
from sklearn_dl.backbones import Preprocessing

pytestmark = pytest.mark.threads(2)  # decoding takes as many as torch

CPU = torch.device("cpu")
PLAIN = Preprocessing(None, (8, 8), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


class Narrow(torch.nn.Module):
    """Has room for some images only, and notes how many it was given."""

    def __init__(self, room, error=None):
        super().__init__()
        self.room = room
        self.error = error or torch.cuda.OutOfMemoryError("CUDA out of memory.")
        self.given = []

    def forward(self, x):
        self.given.append(len(x))
        if len(x) > self.room:
            raise self.error
        return x.mean((2, 3))


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), "uint8")


def run(network, images, batch_size):
    return run_network(
        network, as_source(images), PLAIN, Execution.of(CPU, "float32", batch_size)
    )


@pytest.mark.parametrize(
    "error",
    [
        None,
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to ..."),
        RuntimeError("MPS backend out of memory (MPS allocated: ...)"),
        RuntimeError("Invalid buffer size: 12.00 GB"),
        RuntimeError(
            "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"
        ),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("could not create a primitive"),  # oneDNN
    ],
)
def test_a_batch_without_room_goes_in_halves_with_one_warning(images, error):
    expected = run(Narrow(20), images, 16)
    network = Narrow(3, error)
    with pytest.warns(RuntimeWarning, match="not enough memory for 16 images") as seen:
        values = run(network, images, 16)
    assert len(seen) == 1
    np.testing.assert_array_equal(values, expected)
    # 16 and its halves fail once; what follows has the size that went.
    assert network.given == [16, 8, 4] + [2] * 10


def test_memory_is_freed_before_another_try(images, monkeypatch):
    network, freed = Narrow(3), []
    monkeypatch.setattr(
        _pixels, "free_cached_blocks", lambda device: freed.append(len(network.given))
    )
    with pytest.warns(RuntimeWarning, match="not enough memory"):
        run(network, images, 16)
    assert freed == [1, 2, 3]


def test_resizing_without_room_goes_in_parts(monkeypatch):
    """Images that are resized together: floats on a CPU, all arrays on a GPU."""
    images = np.random.default_rng(0).random((12, 20, 24, 3), "float32")
    smaller = Preprocessing(10, (8, 8), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    geometry, given = Preprocessing.geometry, []

    def read():
        with PixelReader(as_source(images), smaller, CPU) as reader:
            return torch.cat([pixels for _, pixels in reader.batches(6)])

    def narrow(self, batch):
        given.append(len(batch))
        if len(batch) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return geometry(self, batch)

    expected = read()
    monkeypatch.setattr(Preprocessing, "geometry", narrow)
    with pytest.warns(RuntimeWarning, match="not enough memory to resize 6") as seen:
        pixels = read()
    assert len(seen) == 1
    assert given[:4] == [6, 3, 2, 2]
    torch.testing.assert_close(pixels, expected)
    monkeypatch.setattr(Preprocessing, "geometry", lambda self, batch: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        read()


def test_the_allocator_is_set_before_and_memory_given_back_after(images, monkeypatch):
    calls = []
    for module in (_forward, _predict, _neural):
        for name in ("keep_large_blocks", "release_memory"):
            if hasattr(module, name):
                short = module.__name__.split(".")[-1]
                monkeypatch.setattr(
                    module, name, lambda n=f"{short}.{name}": calls.append(n)
                )
    options = {"weights": None, "image_size": 32, "random_state": 0, "cache": None}
    extractor = ImageFeatureExtractor("squeezenet1_1", **options).fit(images)
    calls.clear()
    extractor.transform(images)
    assert calls[0] == "_forward.keep_large_blocks"
    assert calls[-1] == "_predict.release_memory"
    calls.clear()
    extractor.set_params(cache="memory").transform(images)
    assert calls[-1] == "_predict.release_memory"
    calls.clear()
    model = ImageClassifier(
        "squeezenet1_1", **options, trainable="all", max_epochs=1
    ).fit(images, np.arange(20) % 2)
    assert calls[0] == "_neural.keep_large_blocks"
    assert calls[-1] == "_neural.release_memory"
    calls.clear()
    model.predict(images)
    assert calls[0] == "_forward.keep_large_blocks"
    assert calls[-1] == "_predict.release_memory"


def test_one_image_without_room_is_an_error(images):
    with (
        pytest.warns(RuntimeWarning, match="not enough memory"),
        pytest.raises(torch.cuda.OutOfMemoryError),
    ):
        run(Narrow(0), images, 4)


def test_one_image_without_room_says_memory_where_the_library_does_not(images):
    network = Narrow(0, RuntimeError("could not create a primitive"))
    with (
        pytest.warns(RuntimeWarning, match="not enough memory"),
        pytest.raises(MemoryError, match="cpu has not enough memory for one image"),
    ):
        run(network, images, 4)


@pytest.mark.parametrize(
    "message",
    ["shapes don't match", "could not create a primitive descriptor for a shape"],
)
def test_other_errors_are_not_tried_again(images, message):
    network = Narrow(3, RuntimeError(message))
    with pytest.raises(RuntimeError, match=message):
        run(network, images, 16)
    assert network.given == [16]


def test_views_go_in_halves_too(images):
    class Views:
        n_views, thread_safe = 2, True

        def __call__(self, image):
            pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
            return torch.stack([pixels, pixels.flip(2)])

    execution = Execution.of(CPU, "float32", 32)

    def values(room):
        return run_network(
            Narrow(room), as_source(images), PLAIN, execution, views=Views()
        )

    with pytest.warns(RuntimeWarning, match="not enough memory for 32 images"):
        halves = values(5)
    np.testing.assert_array_equal(halves, values(99))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_outputs_come_in_order_with_their_rows(monkeypatch, device):
    forward = Forward(Narrow(9), PLAIN, Execution.of(CPU, "float32", 32))
    started = []

    def start(pixels):
        started.append(len(pixels))
        return lambda: pixels.flatten(1)[:, :1].float()

    monkeypatch.setattr(forward, "_start", start)
    forward.device = torch.device(device)
    batches = [(i, torch.full((2, 3, 1, 1), i)) for i in range(4)]
    got = []
    for rows, values in forward.stream(batches):
        got.append((rows, values.unique().item(), len(started)))
    # A GPU has the next batch before it is asked for the outputs of the last.
    ahead = 0 if device == "cpu" else 1
    assert got == [(i, i, min(4, i + 1 + ahead)) for i in range(4)]


def test_the_size_that_fits_is_less_for_larger_images_and_less_memory(monkeypatch):
    from sklearn_dl._runtime import _memory

    monkeypatch.setattr(_memory, "free_bytes", lambda device: 12 * 2**30)
    fitting = _runtime.fitting_batch_size
    assert fitting(CPU, (224, 224)) == fitting(CPU, None) == 32
    assert fitting(CPU, (1024, 1024)) == 4
    assert fitting(torch.device("cuda"), (224, 224)) == 64
    monkeypatch.setattr(_memory, "free_bytes", lambda device: 0)
    assert fitting(CPU, (224, 224)) == 1


def test_a_containers_limit_counts(monkeypatch, tmp_path):
    from sklearn_dl._runtime import _memory

    monkeypatch.setattr(_memory, "_CGROUP", tmp_path)
    _memory.machine_bytes.cache_clear()
    whole = _memory.machine_bytes()
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    _memory.machine_bytes.cache_clear()
    assert _memory.machine_bytes() == 1_000_000 < whole
    assert _memory.free_bytes(CPU) <= 600_000
    (tmp_path / "memory.stat").write_text("anon 9\ninactive_file 100000\n")
    assert _memory.free_bytes(CPU) == 700_000
    (tmp_path / "memory.max").write_text("max\n")
    _memory.machine_bytes.cache_clear()
    assert _memory.machine_bytes() == whole


def test_auto_gives_the_features_of_a_number(images):
    options = {
        "backbone": "squeezenet1_1",
        "weights": None,
        "image_size": 32,
        "cache": None,
        "random_state": 0,
    }
    auto = ImageFeatureExtractor(batch_size="auto", **options).fit_transform(images)
    one = ImageFeatureExtractor(batch_size=1, **options).fit_transform(images)
    np.testing.assert_allclose(auto, one, rtol=1e-4, atol=1e-5)
    model = ImageClassifier(batch_size="auto", max_epochs=2, **options)
    model.fit(images, [0, 1] * 10)
    same = ImageClassifier(batch_size=32, max_epochs=2, **options)
    same.fit(images, [0, 1] * 10)
    np.testing.assert_allclose(
        model.predict_proba(images), same.predict_proba(images), rtol=1e-4
    )


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, "large"])
def test_other_batch_sizes_are_refused(images, batch_size):
    extractor = ImageFeatureExtractor(weights=None, batch_size=batch_size)
    with pytest.raises(ValueError, match="'batch_size' parameter"):
        extractor.fit(images)
