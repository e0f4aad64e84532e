import pickle
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image

from sklearn_dl._extraction import PixelReader, channel_statistics, run_network
from sklearn_dl._images import ImageDecodeError, as_source
from sklearn_dl._runtime import Execution
from sklearn_dl.backbones import Preprocessing
from sklearn_dl.datasets import load_torch_dataset

pytestmark = pytest.mark.threads(2)  # decoding takes as many as torch

CPU = torch.device("cpu")
PLAINLY = Execution.of(CPU, "float32", 32)
SMALL = Preprocessing((8, 8), None, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.5))


@pytest.fixture
def paths(tmp_path):
    """Return 40 files, each of one grey that is its row."""
    files = []
    for i in range(40):
        files.append(str(tmp_path / f"{i}.png"))
        Image.new("RGB", (10 + i % 3, 9), (i, i, i)).save(files[-1])
    return files


def decoders():
    return [t for t in threading.enumerate() if "sklearn_dl-decode" in t.name]


class MeanOfChannels(torch.nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


@pytest.mark.parametrize("batch_size", [1, 7, 40, 64])
def test_batches_come_in_order_whatever_their_size(paths, batch_size):
    with PixelReader(as_source(paths), SMALL, CPU) as reader:
        parts = list(reader.batches(batch_size))
    assert [rows.start for rows, _ in parts] == list(range(0, 40, batch_size))
    pixels = torch.cat([batch for _, batch in parts])
    assert pixels.dtype == torch.uint8
    assert pixels.shape == (40, 3, 8, 8)
    assert pixels[:, 0, 4, 4].tolist() == list(range(40))


def test_no_thread_stays_behind(paths):
    with PixelReader(as_source(paths), SMALL, CPU) as reader:
        reader.read([0, 1])
        assert decoders()
    assert not decoders()


def test_no_thread_stays_behind_after_an_error(paths):
    with pytest.raises(ImageDecodeError):
        run_network(
            MeanOfChannels(), as_source([*paths, "missing.png"]), SMALL, PLAINLY
        )
    assert not decoders()


def test_an_error_names_every_bad_file_of_the_batch(paths, tmp_path):
    paths[3] = str(tmp_path / "gone.png")
    (tmp_path / "empty.png").touch()
    paths[5] = str(tmp_path / "empty.png")
    with (
        PixelReader(as_source(paths), SMALL, CPU) as reader,
        pytest.raises(ImageDecodeError) as caught,
    ):
        list(reader.batches(16))
    assert [failure[:2] for failure in caught.value.failures] == [
        (3, paths[3]),
        (5, paths[5]),
    ]
    assert "row 3" in str(caught.value)
    assert "empty.png" in str(caught.value)


def test_only_a_few_batches_are_decoded_ahead(paths):
    read = []

    class Counting:
        stackable = remote = False
        thread_safe = True

        def __len__(self):
            return 40

        def __getitem__(self, row):
            read.append(row)
            return Image.new("RGB", (8, 8))

    with PixelReader(Counting(), SMALL, CPU) as reader:
        next(reader.batches(4))
    assert len(read) <= 3 * 4


def test_arrays_of_one_size_are_resized_as_one_by_one():
    images = np.random.default_rng(0).integers(0, 256, (5, 20, 30, 3), "uint8")
    with PixelReader(as_source(images), SMALL, CPU) as reader:
        together = reader.read(range(5))
        singly = torch.cat([reader.read([i]) for i in range(5)])
    assert torch.equal(together, singly)
    assert together.shape == (5, 3, 8, 8)


def test_images_of_different_dtype_and_depth_share_a_batch():
    grey = np.full((9, 9), 0.5, "float32")
    colour = np.full((12, 9, 3), 255, "uint8")
    with PixelReader(as_source([grey, colour]), SMALL, CPU) as reader:
        pixels = reader.read([0, 1])
    assert pixels.shape == (2, 3, 8, 8)
    expected = torch.tensor([0.5, 1.0]).view(2, 1, 1, 1).expand_as(pixels)
    torch.testing.assert_close(pixels, expected)


def test_a_reader_can_be_pickled_and_reads_on(paths):
    with PixelReader(as_source(paths), SMALL, CPU) as reader:
        expected = reader.read([1, 2])
        with pickle.loads(pickle.dumps(reader)) as copy:
            assert torch.equal(copy.read([1, 2]), expected)


def test_statistics_are_those_of_all_pixels():
    images = np.random.default_rng(1).integers(0, 256, (10, 8, 8, 3), "uint8")
    with PixelReader(as_source(images), SMALL, CPU) as reader:
        mean, std = channel_statistics(reader, batch_size=3)
    np.testing.assert_allclose(mean, (images / 255).mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, (images / 255).std((0, 1, 2)), rtol=1e-12)


def test_a_channel_without_variation_gets_deviation_one():
    images = np.zeros((2, 8, 8, 3), "uint8")
    images[..., 0] = [[[10]], [[20]]]
    with PixelReader(as_source(images), SMALL, CPU) as reader:
        _, std = channel_statistics(reader, batch_size=2)
    assert std == (pytest.approx(5 / 255), 1.0, 1.0)


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("float32", "float32"), ("bfloat16", "float32"), ("float64", "float64")],
)
def test_outputs_are_those_of_the_network_on_normalised_pixels(paths, precision, dtype):
    outputs = run_network(
        MeanOfChannels(),
        as_source(paths),
        SMALL,
        Execution.of(CPU, precision, 16),
    )
    grey = np.arange(40)[:, None] / 255
    expected = (grey - np.array(SMALL.mean)) / np.array(SMALL.std)
    assert outputs.dtype == dtype
    np.testing.assert_allclose(outputs, expected, atol=1e-6, rtol=1e-6)


def test_the_network_is_left_in_evaluation_mode(paths):
    network = torch.nn.Sequential(MeanOfChannels(), torch.nn.Dropout(0.9)).train()
    first = run_network(network, as_source(paths), SMALL, PLAINLY)
    second = run_network(network, as_source(paths), SMALL, PLAINLY)
    assert not network.training
    np.testing.assert_array_equal(first, second)


class OneAtATime(torch.utils.data.Dataset):
    """A dataset that can't be read from two threads, with a random transform."""

    def __init__(self):
        self.busy = False

    def __len__(self):
        return 30

    def __getitem__(self, i):
        assert not self.busy
        self.busy = True
        value = int(torch.randint(256, ()))
        time.sleep(0.001)
        self.busy = False
        return Image.new("RGB", (8, 8), (value, i, 0)), 0


def test_a_dataset_is_read_by_one_thread_at_a_time_so_its_seed_holds():
    dataset = OneAtATime()
    source = as_source(load_torch_dataset(dataset).data)
    eights = Execution.of(CPU, "float32", 8)
    runs = []
    for _ in range(2):
        torch.manual_seed(0)
        outputs = run_network(MeanOfChannels(), source, SMALL, eights)
        runs.append(outputs)
    np.testing.assert_array_equal(*runs)
    assert len(np.unique(runs[0][:, 0])) > 10
