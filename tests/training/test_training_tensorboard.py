import io
import os
import pickle
import signal
import sys
import time
from pathlib import Path

import monitor_cases
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback
from torchvision.utils import make_grid

from sklearn_dl.training import GradientMonitor, TensorBoard
from sklearn_dl.training._tensorboard import _own_folder


@pytest.fixture(scope="module")
def data():
    return monitor_cases.two_brightnesses()


def classifier(**parameters):
    options = {"lr": 0.01, "backbone_lr": 0.001, "max_epochs": 3}
    return monitor_cases.classifier(**{**options, **parameters})


def events_of(folder):
    """Read a run back with TensorBoard's own reader; all of it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    kinds = ("scalars", "images", "histograms")
    reader = EventAccumulator(str(folder), size_guidance=dict.fromkeys(kinds, 0))
    return reader.Reload()


def series(reader, tag):
    return [(event.step, event.value) for event in reader.Scalars(tag)]


class Seen(Callback):
    """Keeps the first images and the last gradients of each epoch."""

    def initialize(self):
        self.first_, self.last_ = [], []
        return self

    def on_epoch_begin(self, net, **kwargs):
        self.first_.append(None)
        self.last_.append(None)

    def on_batch_begin(self, net, *, batch=None, training=False, **kwargs):
        if training and self.first_[-1] is None:
            self.first_[-1] = batch[0]["x"].clone()

    def on_grad_computed(self, net, **kwargs):
        self.last_[-1] = net.module_.head.output.weight.grad.clone()


@pytest.fixture(scope="module")
def run(tmp_path_factory, data):
    """Return a fitted estimator, what it saw, and the events that were written."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    board = TensorBoard(tmp_path_factory.mktemp("runs"), n_images=4)
    seen = Seen()
    model = classifier(callbacks=[seen, GradientMonitor(), board])
    model.fit(*data, X_val=data[0], y_val=data[1])
    torch.set_num_threads(threads)
    return model, seen, board, events_of(board.run_dir_)


def test_curves_are_those_of_the_history(run):
    model, _, _, reader = run
    for tag, column in (
        ("loss/train", "train_loss"),
        ("loss/valid", "valid_loss"),
        ("score/valid_score", "valid_score"),
        ("gradients/grad_norm", "grad_norm"),
        ("gradients/valid_grad_norm", "valid_grad_norm"),
        ("history/dur", "dur"),
    ):
        steps, values = zip(*series(reader, tag), strict=True)
        assert steps == (1, 2, 3)
        np.testing.assert_allclose(values, model.history_[column], rtol=1e-6)


def test_each_group_of_the_optimiser_has_its_rate(run):
    reader = run[3]
    tags = {tag for tag in reader.Tags()["scalars"] if tag.startswith("lr/")}
    assert tags == {"lr/head", "lr/backbone"}
    for tag, rate in (("lr/head", 0.01), ("lr/backbone", 0.001)):
        assert [s for s, _ in series(reader, tag)] == [1, 2, 3]
        np.testing.assert_allclose([v for _, v in series(reader, tag)], rate, rtol=1e-6)


def test_the_grid_shows_the_first_batch_before_normalisation(run):
    _, seen, _, reader = run
    images = reader.Images("images/train")
    assert [image.step for image in images] == [1, 2, 3]
    for image, batch in zip(images, seen.first_, strict=True):
        shown = np.asarray(Image.open(io.BytesIO(image.encoded_image_string)))
        grid = make_grid(batch[:4], nrow=2).permute(1, 2, 0).numpy()
        np.testing.assert_allclose(shown, grid, atol=1)  # through floats, and back
    assert not torch.equal(seen.first_[0], seen.first_[1])


def test_histograms_are_of_the_weights_at_the_end_and_the_last_gradients(run):
    model, seen, _, reader = run
    weights = reader.Histograms("weights/head.output.weight")
    gradients = reader.Histograms("grads/head.output.weight")
    assert [w.step for w in weights] == [g.step for g in gradients] == [1, 2, 3]
    last = model.module_.head.output.weight.detach()
    expected = [(weights[-1].histogram_value, last)]
    expected += [
        (written.histogram_value, gradient)
        for written, gradient in zip(gradients, seen.last_, strict=True)
    ]
    for written, values in expected:
        assert written.num == values.numel()
        assert (written.min, written.max) == (values.min(), values.max())
        np.testing.assert_allclose(written.sum, values.double().sum(), rtol=1e-4)
        np.testing.assert_allclose(
            written.sum_squares, values.double().square().sum(), rtol=1e-4
        )
    tags = reader.Tags()["histograms"]
    assert "weights/backbone.module.features.0.weight" in tags
    assert "grads/backbone.module.features.0.bias" in tags


def test_training_is_bit_equal_with_and_without(run, data):
    plain = classifier().fit(*data, X_val=data[0], y_val=data[1])
    ours, theirs = (m.module_.state_dict() for m in (run[0], plain))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_frozen_backbone_has_no_images_and_histograms_of_its_head(tmp_path, data):
    board = TensorBoard(tmp_path)
    classifier(trainable="head", callbacks=[board]).fit(*data)
    tags = events_of(board.run_dir_).Tags()
    assert tags["images"] == []
    names = {"head.output.weight", "head.output.bias"}
    expected = {f"{kind}/{name}" for kind in ("weights", "grads") for name in names}
    assert set(tags["histograms"]) == expected


def test_images_and_histograms_of_every_other_epoch(tmp_path, data):
    board = TensorBoard(str(tmp_path), every=2)
    classifier(callbacks=[board]).fit(*data)
    reader = events_of(board.run_dir_)
    assert [image.step for image in reader.Images("images/train")] == [1, 3]
    for tag in ("weights/head.output.bias", "grads/head.output.bias"):
        assert [h.step for h in reader.Histograms(tag)] == [1, 3]
    assert [step for step, _ in series(reader, "loss/train")] == [1, 2, 3]


def test_curves_alone(tmp_path, data):
    board = TensorBoard(tmp_path, n_images=0, histograms=False)
    classifier(callbacks=[board], max_epochs=1).fit(*data)
    tags = events_of(board.run_dir_).Tags()
    assert (tags["images"], tags["histograms"]) == ([], [])
    assert "loss/train" in tags["scalars"]


def test_float_images_are_shown_as_they_are(tmp_path, data):
    board = TensorBoard(tmp_path, n_images=1)
    images = np.full_like(data[0], 0.25, dtype="float32")
    classifier(callbacks=[board], max_epochs=1).fit(images, data[1])
    image = events_of(board.run_dir_).Images("images/train")[0]
    shown = np.asarray(Image.open(io.BytesIO(image.encoded_image_string)))
    np.testing.assert_allclose(shown[4:-4, 4:-4], 0.25 * 255, atol=1)


def test_each_fit_of_a_search_has_a_folder_of_its_own(tmp_path, data):
    model = classifier(callbacks=[TensorBoard(tmp_path)], max_epochs=1)
    search = GridSearchCV(model, {"lr": [0.1, 0.01]}, cv=2).fit(*data)
    folders = sorted(tmp_path.iterdir())
    assert len(folders) == 5
    assert all(len(list(folder.iterdir())) == 1 for folder in folders)
    rates = [series(events_of(folder), "lr/head")[0][1] for folder in folders]
    best = search.best_params_["lr"]
    expected = sorted([0.1, 0.1, 0.01, 0.01, best])
    np.testing.assert_allclose(sorted(rates), expected, rtol=1e-6)


def test_folders_of_the_same_second_differ(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda form: "20250102-030405")
    folders = [_own_folder(tmp_path / "new" / "runs") for _ in range(3)]
    assert len(set(folders)) == 3
    assert all(folder.is_dir() for folder in folders)
    assert all(f.name.startswith(f"20250102-030405-{os.getpid()}") for f in folders)


@pytest.fixture(autouse=True)
def ctrl_c():
    """Let Ctrl-C interrupt: shells have what runs in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Interrupt(Callback):
    """Raises in the second epoch, as a signal does in the midst of other code."""

    def __init__(self, error):
        self.error = error

    def on_batch_begin(self, net, **kwargs):
        if len(net.history) == 2:
            _interrupt(self.error)


def _interrupt(error):
    if error is KeyboardInterrupt:
        import _thread

        _thread.interrupt_main()
        for _ in range(10**6):
            pass
    raise error("stop")


def test_an_interruption_closes_the_writer_and_keeps_what_was_written(tmp_path, data):
    board = TensorBoard(tmp_path)
    model = classifier(callbacks=[board, Interrupt(KeyboardInterrupt)])
    with pytest.raises(KeyboardInterrupt):
        model.fit(*data)
    assert board.writer_ is None
    assert [s for s, _ in series(events_of(board.run_dir_), "loss/train")] == [1]


def test_after_an_error_the_finished_epochs_are_there_and_a_fit_starts_anew(
    tmp_path, data
):
    board = TensorBoard(tmp_path)
    model = classifier(callbacks=[board, Interrupt(RuntimeError)])
    with pytest.raises(RuntimeError, match="stop"):
        model.fit(*data)
    failed = board.run_dir_
    assert [s for s, _ in series(events_of(failed), "loss/train")] == [1]
    model.set_params(callbacks=[board]).fit(*data)
    assert board.run_dir_ != failed
    assert len(series(events_of(board.run_dir_), "loss/train")) == 3


class PickleBoard(Callback):
    """Pickles and clones a callback while it has a writer open."""

    def __init__(self, board):
        self.board = board

    def on_epoch_end(self, net, **kwargs):
        assert self.board.writer_ is not None
        self.copies_ = [pickle.loads(pickle.dumps(self.board)), clone(self.board)]


def test_no_writer_in_pickles_and_clones(tmp_path, data):
    board = TensorBoard(tmp_path, n_images=3)
    watcher = PickleBoard(board)
    classifier(callbacks=[board, watcher], max_epochs=1).fit(*data)
    for other in watcher.copies_:
        assert getattr(other, "writer_", None) is None
        assert other.get_params() == board.get_params()
    fitted = classifier(callbacks=[board], max_epochs=1).fit(*data)
    assert pickle.loads(pickle.dumps(fitted)).callbacks[0].n_images == 3


def test_weights_that_are_no_numbers_do_not_end_training(tmp_path, data):
    board = TensorBoard(tmp_path)
    with pytest.warns(Warning, match="diverged"):
        classifier(callbacks=[board], lr=1e30, backbone_lr=1e30).fit(*data)
    reader = events_of(board.run_dir_)
    assert np.isnan(series(reader, "loss/train")[-1][1])


def test_without_tensorboard_the_error_names_the_extra(tmp_path, data, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    model = classifier(callbacks=[TensorBoard(tmp_path)])
    with pytest.raises(ImportError, match=r"pip install 'sklearn_dl\[tensorboard\]'"):
        model.fit(*data)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_images": -1}, "n_images=-1 must be an int of at least 0"),
        ({"n_images": 1.5}, "n_images=1.5 must be an int"),
        ({"every": 0}, "every=0 must be an int of at least 1"),
        ({"histograms": "all"}, "histograms='all' must be True or False"),
        ({"log_dir": None}, "log_dir=None must be a str or a Path"),
    ],
)
def test_wrong_parameters_are_named(tmp_path, data, parameters, message):
    board = TensorBoard(**{"log_dir": tmp_path, **parameters})
    with pytest.raises(ValueError, match=message):
        classifier(callbacks=[board]).fit(*data)
    assert list(Path(tmp_path).iterdir()) == []
