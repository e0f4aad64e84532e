"""A batch of training: in parts where memory is short, and losses read late."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from skorch.callbacks import Callback

from sklearn_dl import ImageClassifier
from sklearn_dl._extraction import PixelReader
from sklearn_dl._images import as_source
from sklearn_dl._runtime import Execution
from sklearn_dl.backbones import Preprocessing
from sklearn_dl.datasets import load_torch_dataset
from sklearn_dl.training import SAM, EstimatorNet, Rows, Trainable, TrainingRows, _net
from sklearn_dl.training._dataset import RowLoader, sent, whole_batch

PLAIN = Preprocessing(None, None, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
OPTIONS = {
    "backbone": "resnet18",
    "weights": None,
    "image_size": 32,
    "trainable": Trainable("all", freeze_batch_norm=True),
    "max_epochs": 2,
    "batch_size": 8,
    "random_state": 0,
}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 128, (20, 32, 32, 3), "uint8")
    X[10:] += 100
    return X, np.repeat([0, 1], 10)


@pytest.fixture
def little_memory(monkeypatch):
    """Let networks run on three images at a time, and note how many they were."""
    given = []
    outputs = EstimatorNet._outputs

    def narrow(self, x):
        n = len(next(iter(x.values())))
        given.append(n)
        if n > 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return outputs(self, x)

    monkeypatch.setattr(EstimatorNet, "_outputs", narrow)
    return given


@pytest.mark.parametrize("optimizer", ["momentum", SAM])
def test_batches_in_parts_learn_the_same(data, request, optimizer):
    options = {**OPTIONS, "optimizer": optimizer, "augment": "mixup"}
    whole = ImageClassifier(**options).fit(*data)
    given = request.getfixturevalue("little_memory")
    with pytest.warns(RuntimeWarning, match="not enough memory to train on 8") as seen:
        parts = ImageClassifier(**options).fit(*data)
    assert len([w for w in seen if "memory" in str(w.message)]) == 1
    assert given[:2] == [8, 4]
    assert max(given[2:]) == 2
    for column in ("train_loss", "train_top1"):
        np.testing.assert_allclose(
            parts.history_[column], whole.history_[column], rtol=1e-3, atol=1e-4
        )
    np.testing.assert_allclose(
        parts.predict_proba(data[0]), whole.predict_proba(data[0]), atol=1e-3
    )


def test_validation_goes_in_parts_too(data, request):
    options = {**OPTIONS, "early_stopping": True, "validation_fraction": 0.4}
    options |= {"batch_size": 3, "net_params": {"iterator_valid__batch_size": 8}}
    whole = ImageClassifier(**options).fit(*data)
    given = request.getfixturevalue("little_memory")
    with pytest.warns(RuntimeWarning, match="not enough memory") as seen:
        parts = ImageClassifier(**options).fit(*data)
    assert len([w for w in seen if "memory" in str(w.message)]) == 1
    assert 8 in given
    columns = ["train_loss", "valid_loss", "valid_score"]
    np.testing.assert_allclose(
        parts.history_[columns], whole.history_[columns], rtol=1e-3, atol=1e-4
    )


def test_memory_is_freed_before_another_try(data, little_memory, monkeypatch):
    freed = []
    monkeypatch.setattr(
        _net, "free_cached_blocks", lambda device: freed.append(len(little_memory))
    )
    with pytest.warns(RuntimeWarning, match="not enough memory"):
        ImageClassifier(**OPTIONS).fit(*data)
    assert freed == [1, 2]  # after eight rows, after four, never again


def test_a_gpu_computes_ahead_and_a_cpu_does_not():
    ahead = EstimatorNet.computes_ahead_.fget
    found = []
    for name in ("cuda", "cuda:1", "cpu"):
        execution = Execution(torch.device(name), torch.float32)
        recipe = SimpleNamespace(execution=execution)
        found.append(ahead(SimpleNamespace(recipe=recipe)))
    assert found == [True, True, False]


def test_what_goes_to_a_gpu_is_not_waited_for():
    class Watched:
        def to(self, device, dtype, non_blocking):
            return device.type, dtype, non_blocking

    assert sent(Watched(), torch.device("cuda")) == ("cuda", None, True)
    on_cpu = sent(Watched(), torch.device("cpu"), torch.float64)
    assert on_cpu == ("cpu", torch.float64, False)


def test_all_that_a_step_sends_goes_by_one_way(data, monkeypatch):
    """A plain `to` would make the host wait for the GPU's queue."""
    moved, plain, within = [], [], []
    to, gradients = torch.Tensor.to, EstimatorNet._gradients

    def noted(values, *args):
        moved.append(values.shape)
        return sent(values, *args)

    def watched(self, *args, **kwargs):
        to_device = any(isinstance(arg, torch.device) for arg in args)
        if within and to_device and "non_blocking" not in kwargs:
            plain.append((self.shape, args))
        return to(self, *args, **kwargs)

    def within_step(self, *args):
        within.append(True)
        try:
            return gradients(self, *args)
        finally:
            within.clear()

    monkeypatch.setattr(_net, "sent", noted)
    monkeypatch.setattr(torch.Tensor, "to", watched)
    monkeypatch.setattr(EstimatorNet, "_gradients", within_step)
    ImageClassifier(**{**OPTIONS, "augment": "mixup", "max_epochs": 1}).fit(*data)
    # Pixels, targets, weights, shares, other targets, other weights, of three batches.
    assert len(moved) == 3 * 6
    assert plain == []


def test_training_reads_by_the_loader_that_reads_ahead(data):
    net = ImageClassifier(**OPTIONS, warm_start=True).fit(*data)._net
    assert net.iterator_train is RowLoader
    assert net.iterator_valid is RowLoader


def test_parts_are_of_two_rows_where_batch_norm_trains(data, monkeypatch):
    sizes = []
    gradients = EstimatorNet._gradients

    def short(self, inputs, target):
        sizes.append([len(target) * (k + 1) // self.parts_ for k in range(self.parts_)])
        if self.parts_ < 4:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return gradients(self, inputs, target)

    monkeypatch.setattr(EstimatorNet, "_gradients", short)
    options = {**OPTIONS, "trainable": Trainable("all", freeze_batch_norm=False)}
    options["batch_size"] = 10
    with pytest.warns(RuntimeWarning, match="not enough memory"):
        ImageClassifier(**options).fit(*data)
    assert sizes[2] == [2, 5, 7, 10]
    monkeypatch.setattr(
        EstimatorNet, "_gradients", lambda self, *args: short(self, *args)
    )
    with (
        pytest.warns(RuntimeWarning, match="not enough memory"),
        pytest.raises(torch.cuda.OutOfMemoryError),
    ):
        ImageClassifier(**{**options, "batch_size": 5}).fit(*data)


def test_one_image_without_room_is_an_error_and_the_estimator_stays(data, monkeypatch):
    model = ImageClassifier(**OPTIONS).fit(*data)
    expected = model.predict_proba(data[0])

    def none(self, x):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    with monkeypatch.context() as patch:
        patch.setattr(EstimatorNet, "_outputs", none)
        with (
            pytest.warns(RuntimeWarning, match="not enough memory"),
            pytest.raises(torch.cuda.OutOfMemoryError),
        ):
            model.fit(*data)
    np.testing.assert_array_equal(model.predict_proba(data[0]), expected)


def test_losses_that_are_read_late_are_the_same(data, monkeypatch):
    kinds = []

    class Watch(Callback):
        def on_batch_end(self, net, training=False, loss=None, **kwargs):
            recorded = net.history[-1, "batches", -1]
            kinds.append(type(recorded["train_loss" if training else "valid_loss"]))
            assert type(loss.item()) is float

    options = {**OPTIONS, "early_stopping": True, "validation_fraction": 0.4}
    plain = ImageClassifier(**options).fit(*data)
    monkeypatch.setattr(EstimatorNet, "computes_ahead_", True)
    late = ImageClassifier(**options, warm_start=True, callbacks=[Watch()])
    late.fit(*data)
    assert set(kinds) == {torch.Tensor}  # nothing was read while batches ran
    columns = ["train_loss", "valid_loss", "train_top1", "valid_score"]
    np.testing.assert_array_equal(late.history_[columns], plain.history_[columns])
    for epoch in late._net.history:
        for batch in epoch["batches"]:
            assert type(batch.get("train_loss", 0.0)) is float
            assert type(batch.get("valid_loss", 0.0)) is float


def test_losses_are_read_also_after_an_interruption(data, monkeypatch):
    monkeypatch.setattr(EstimatorNet, "computes_ahead_", True)

    class Stop(Callback):
        def on_batch_end(self, net, training=False, **kwargs):
            if training and len(net.history) == 2:
                net.stop_now("enough")

    model = ImageClassifier(**OPTIONS, callbacks=[Stop()]).fit(*data)
    assert len(model.history_) == 1
    assert type(model.history_["train_loss"].iloc[0].item()) is float


def rows(n=10):
    features = np.random.default_rng(0).normal(size=(n, 2)).astype("float32")
    return TrainingRows(Rows(None, torch.arange(n), np.ones(n)), features=features)


def order(loader):
    return [target.tolist() for _, target in loader]


def test_the_loader_reads_what_torchs_own_does():
    dataset = rows()
    options = {"batch_size": 3, "shuffle": True, "collate_fn": whole_batch}
    state = torch.random.get_rng_state()
    expected = order(torch.utils.data.DataLoader(dataset, **options))
    after = torch.random.get_rng_state()
    torch.random.set_rng_state(state)
    loader = RowLoader(dataset, **options)
    assert len(loader) == 4
    assert order(loader) == expected
    assert torch.equal(torch.random.get_rng_state(), after)


def test_the_loader_collates_and_leaves_out_the_last_batch():
    loader = RowLoader(
        rows(), batch_size=4, drop_last=True, collate_fn=lambda batch: batch[1].sum()
    )
    assert [total.item() for total in loader] == [6, 22]


def test_a_dataset_is_not_read_ahead_of_the_steps(data):
    """What it draws at random would mix with what the steps draw."""
    now, read = [0], []

    class Images(torch.utils.data.Dataset):
        def __len__(self):
            return 6

        def __getitem__(self, i):
            read.append(now[0])
            return Image.fromarray(data[0][i]), i

    X = load_torch_dataset(Images()).data
    read.clear()
    with PixelReader(as_source(X), PLAIN, torch.device("cpu")) as reader:
        dataset = TrainingRows(Rows(None, torch.arange(6), np.ones(6)), pixels=reader)
        for _ in RowLoader(dataset, batch_size=2, collate_fn=whole_batch):
            now[0] += 1
    assert read == [0, 0, 1, 1, 2, 2]


def test_images_are_read_ahead_of_the_steps(tmp_path):
    paths = []
    for i in range(12):
        paths.append(str(tmp_path / f"{i}.png"))
        Image.new("RGB", (8, 8), (i, i, i)).save(paths[-1])
    read = []
    with PixelReader(
        as_source(paths),
        PLAIN,
        torch.device("cpu"),
        on_read=lambda row, image: read.append(row),
    ) as reader:
        dataset = TrainingRows(Rows(None, torch.arange(12), np.ones(12)), pixels=reader)
        loader = RowLoader(dataset, batch_size=2, collate_fn=whole_batch)
        epoch = iter(loader)
        inputs, target = next(epoch)
        assert inputs["x"][:, 0, 0, 0].tolist() == target.tolist() == [0, 1]
        reader._executor.submit(lambda: None).result()
        for _ in range(100):
            if len(read) == 6:
                break
            reader._executor.submit(lambda: None).result()
        assert sorted(read) == list(range(6))  # two batches ahead
        del epoch
        assert [t.tolist() for _, t in loader][-1] == [10, 11]
