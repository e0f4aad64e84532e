"""Estimators as objects: interruption, failure, copies, labels, callbacks, output."""

import copy
import inspect
import io
import pickle

import joblib
import numpy as np
import pandas as pd
import processes
import pytest
import torch
from estimator_cases import (
    EASY,
    SMALL,
    Raise,
    classifier,
    extractor,
    regressor,
    state_of,
)
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from torch import nn

from sklearn_dl import ImageClassifier, ImageFeatureExtractor, ImageRegressor

ESTIMATORS = [ImageClassifier, ImageRegressor, ImageFeatureExtractor]


def _fitted(make, data, **parameters):
    y = np.linspace(0, 1, len(data[0])) if make is regressor else data[1]
    return make(**parameters).fit(data[0], y)


def _outputs(model, X):
    for method in ("predict_proba", "predict", "transform"):
        if hasattr(model, method):
            return getattr(model, method)(X)
    raise AssertionError


# ------------------------------------------------------------------ interruption


@pytest.fixture
def interrupting_head(monkeypatch):
    """Return a function that lets the n-th forward pass of a head raise Ctrl-C."""
    forward = nn.Linear.forward

    def interrupt_at(n):
        calls = iter(range(1, 10**6))

        def wrapped(self, x):
            if next(calls) == n:
                raise KeyboardInterrupt
            return forward(self, x)

        monkeypatch.setattr(nn.Linear, "forward", wrapped)

    return interrupt_at


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("trainable", ["head", "all"])
@pytest.mark.parametrize("step", [1, 2, 4, 8])
def test_an_interrupted_fit_keeps_what_it_learned(
    step, trainable, early_stopping, data, interrupting_head
):
    X, y = data
    model = classifier(batch_size=8, trainable=trainable, early_stopping=early_stopping)
    interrupting_head(step)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y)
    P = model.predict_proba(X)
    assert P.shape == (24, 2)
    assert np.isfinite(P).all()
    assert model.classes_.tolist() == ["dark", "light"]
    assert 0 <= model.n_iter_ <= 3
    pickle.loads(pickle.dumps(model))
    if step > 3 and not early_stopping:
        start = classifier(batch_size=8, trainable=trainable, lr=1e-30)
        untrained = start.set_params(backbone_lr=1e-30).fit(X, y).predict_proba(X)
        assert np.abs(P - untrained).max() > 1e-5


@pytest.mark.parametrize("hook", ["on_epoch_begin", "on_batch_end", "on_epoch_end"])
@pytest.mark.parametrize("n", [1, 2])
def test_a_callback_may_end_training_at_any_hook(hook, n, data):
    model = classifier(callbacks=[Raise(hook, n)], batch_size=8)
    model.fit(*data)  # it is no interruption: nothing is raised
    assert model.predict(data[0]).shape == (24,)


def test_a_callback_may_end_training_before_it_begins(data):
    model = classifier(callbacks=[Raise("on_train_begin")]).fit(*data)
    assert model.predict(data[0]).shape == (24,)


def test_an_interruption_stops_a_search(data, interrupting_head):
    interrupting_head(3)
    search = GridSearchCV(classifier(), {"lr": [1e-2, 1e-3]}, cv=2)
    with pytest.raises(KeyboardInterrupt):
        search.fit(*data)


# --------------------------------------------------------------------- failures


def _boom(hook="on_epoch_end", n=2):
    return Raise(hook, n, RuntimeError("boom"))


@pytest.mark.parametrize("warm_start", [False, True])
@pytest.mark.parametrize("trainable", ["head", "all"])
def test_a_failed_refit_leaves_the_former_fit(warm_start, trainable, data):
    X, y = data
    model = classifier(warm_start=warm_start, trainable=trainable).fit(X, y)
    P, state, history = model.predict_proba(X), state_of(model), model.history_.copy()
    model.set_params(callbacks=[_boom()])
    with pytest.raises(RuntimeError, match="boom"):
        model.fit(X, np.where(y == "dark", y, y))
    np.testing.assert_array_equal(model.predict_proba(X), P)
    assert all(torch.equal(state[k], v) for k, v in state_of(model).items())
    pd.testing.assert_frame_equal(model.history_, history)
    model.set_params(callbacks=None).fit(X, y)
    assert model.n_iter_ == len(model.history_) == (6 if warm_start else 3)


@pytest.mark.parametrize("make", [classifier, regressor, extractor])
def test_a_fit_that_is_refused_leaves_the_former_fit(make, data, tmp_path):
    X = data[0]
    model = _fitted(make, data)
    before, attributes = _outputs(model, X), set(vars(model))
    y = np.arange(2.0) if make is regressor else ["a", "b"]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    bad = [str(broken)] * 2
    with pytest.raises(ValueError, match=r"could not be decoded.*"):
        model.set_params(preprocessing="data").fit(bad, y)
    model.set_params(preprocessing=None)
    with pytest.raises(ValueError, match=r"columns|values a row"):
        model.set_params(image_shape=(7, 7)).fit(X.reshape(24, -1), data[1])
    model.set_params(image_shape=None)
    np.testing.assert_array_equal(_outputs(model, X), before)
    assert set(vars(model)) == attributes


@pytest.mark.parametrize("make", [classifier, regressor, extractor])
def test_a_failed_first_fit_leaves_nothing(make, data):
    model = make(backbone="resnet18", layer="nowhere")
    before = set(vars(model))
    with pytest.raises(ValueError, match="nowhere"):
        _ = model.fit(data[0], np.arange(24) % 2)
    assert set(vars(model)) == before
    with pytest.raises(NotFittedError):
        _outputs(model, data[0])


# ----------------------------------------------------------------------- copies


@pytest.mark.parametrize("make", [classifier, regressor, extractor])
def test_copies_answer_alike(make, data, tmp_path):
    X = data[0]
    model = _fitted(make, data)
    expected = _outputs(model, X)
    stream = io.BytesIO()
    joblib.dump(model, stream)
    stream.seek(0)
    joblib.dump(model, tmp_path / "model.joblib", compress=1)
    copies = [
        pickle.loads(pickle.dumps(model)),
        joblib.load(stream),
        joblib.load(tmp_path / "model.joblib"),
        copy.deepcopy(model),
    ]
    for other in copies:
        np.testing.assert_array_equal(_outputs(other, X), expected)
        assert repr(other) == repr(model)
        y = np.linspace(0, 1, 24) if make is regressor else data[1]
        np.testing.assert_array_equal(_outputs(other.fit(X, y), X), expected)
    assert len(pickle.dumps(model)) < 3.5e6  # squeezenet without its head: 2.9 MB


def test_a_pickle_holds_no_images(data):
    X, y = np.repeat(data[0], 30, 0), np.repeat(data[1], 30)
    small = classifier(max_epochs=1).fit(*data)
    parameters = {"max_epochs": 1, "early_stopping": True}
    large = classifier(**parameters).fit(X, y, X_val=X, y_val=y)
    sizes = [len(pickle.dumps(model)) for model in (small, large)]
    assert abs(sizes[1] - sizes[0]) < 1e5 < X.nbytes


@pytest.mark.parametrize("warm_start", [False, True])
def test_a_copy_can_train_on(warm_start, data):
    model = classifier(warm_start=warm_start, trainable="all", optimizer="adam")
    other = pickle.loads(pickle.dumps(model.fit(*data)))
    np.testing.assert_array_equal(
        other.fit(*data).predict_proba(data[0]),
        model.fit(*data).predict_proba(data[0]),
    )


def test_a_pickle_opens_in_a_new_process(data, tmp_path):
    model = classifier().fit(*data)
    joblib.dump((model, data[0][:3], model.predict_proba(data[0][:3])), tmp_path / "m")
    code = (
        "import joblib, numpy, torch; torch.set_num_threads(1);"
        f"m, X, P = joblib.load({str(tmp_path / 'm')!r});"
        "numpy.testing.assert_allclose(m.predict_proba(X), P, atol=1e-6)"
    )
    processes.run(code)


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_parameters_as_scikit_learn_has_them(cls):
    signature = inspect.signature(cls.__init__).parameters
    names = [name for name in signature if name != "self"]
    model = cls()
    assert sorted(names) == sorted(model.get_params())
    assert set(names) == set(cls._parameter_constraints)
    kinds = {signature[name].kind for name in names[1:]}
    assert kinds == {inspect.Parameter.KEYWORD_ONLY}
    assert repr(model) == f"{cls.__name__}()"
    for name in names:
        assert getattr(model, name) is signature[name].default
    changed = clone(cls("resnet18", batch_size=3, preprocessing=([0.5] * 3, [0.5] * 3)))
    assert repr(changed).startswith(f"{cls.__name__}(backbone='resnet18'")
    assert changed.set_params(batch_size=4).batch_size == 4
    with pytest.raises(ValueError, match="Invalid parameter"):
        changed.set_params(batchsize=4)
    with pytest.raises(TypeError, match="batchsize"):
        cls(batchsize=4)


@pytest.mark.parametrize("make", [classifier, regressor, extractor])
def test_fit_never_rewrites_a_parameter(make, data):
    model = make(device="auto", preprocessing="data")
    before = model.get_params()
    y = np.linspace(0, 1, 24) if make is regressor else data[1]
    assert model.fit(data[0], y) is model
    assert all(model.get_params()[k] is v for k, v in before.items())


# --------------------------------------------------------------- columns, output


def test_output_as_a_frame_keeps_names_and_index(image_files):
    X = pd.DataFrame({"path": image_files}, index=np.arange(24) + 7)
    model = extractor().set_output(transform="pandas").fit(X)
    frame = model.transform(X)
    assert frame.index.tolist() == X.index.tolist()
    names = [f"imagefeatureextractor{i}" for i in range(512)]
    assert frame.columns.tolist() == names == model.get_feature_names_out().tolist()
    assert set(frame.dtypes) == {np.dtype("float32")}
    plain = extractor().fit_transform(image_files)
    np.testing.assert_array_equal(frame.to_numpy(), plain)
    with pytest.raises(NotFittedError):
        extractor().get_feature_names_out()


@pytest.mark.parametrize("make", [classifier, regressor, extractor])
def test_columns_are_remembered(make, data, image_files):
    rows = data[0].reshape(24, -1)
    y = np.linspace(0, 1, 24) if make is regressor else data[1]
    frame = pd.DataFrame(rows).add_prefix("pixel")
    model = make().fit(frame, y)
    assert model.n_features_in_ == 3072
    assert model.feature_names_in_.tolist() == frame.columns.tolist()
    with pytest.raises(ValueError, match="feature names"):
        _outputs(model, frame[frame.columns[::-1]])
    with pytest.raises(ValueError, match=r"48 features.*3072"):
        _outputs(model, rows[:, :48])
    model.fit(rows, y)
    assert model.n_features_in_ == 3072
    assert not hasattr(model, "feature_names_in_")
    model.fit(pd.DataFrame({"path": image_files}), y)
    assert model.n_features_in_ == 1
    assert model.feature_names_in_.tolist() == ["path"]
    model.fit(image_files, y)
    assert not hasattr(model, "n_features_in_")
    assert not hasattr(model, "feature_names_in_")


# ----------------------------------------------------------------------- labels


LABELS = {
    "str": ["a", "b"],
    "int": [3, -7],
    "uint8": np.array([1, 200], "uint8"),
    "bool": [True, False],
    "float": [0.0, 1.0],
}


@pytest.mark.parametrize("container", [np.asarray, list, pd.Series])
@pytest.mark.parametrize("kind", LABELS)
def test_labels_come_back_as_they_were(kind, container, data):
    y = np.array(LABELS[kind])[(data[1] == "light").astype(int)]
    model = classifier(**EASY).fit(data[0], container(y))
    assert model.classes_.tolist() == sorted(set(y.tolist()))
    found = model.predict(data[0])
    assert found.tolist() == y.tolist()
    if container is np.asarray:
        assert found.dtype == y.dtype


@pytest.mark.parametrize(
    "container",
    [
        pd.Categorical,
        lambda y: y.astype(object),
        lambda y: pd.Series(y, dtype="string"),
    ],
    ids=["category", "object", "string"],
)
def test_words_in_any_container(container, data):
    model = classifier(**EASY).fit(data[0], container(data[1]))
    assert model.classes_.tolist() == ["dark", "light"]
    assert model.predict(data[0]).tolist() == data[1].tolist()


def test_labels_as_a_column_are_taken_with_a_warning(data):
    with pytest.warns(UserWarning, match="column-vector"):
        model = classifier(**EASY).fit(data[0], pd.DataFrame({"y": data[1]}))
    assert model.score(*data) == 1.0


def test_the_order_of_classes_is_that_of_probabilities(data):
    y = np.where(data[1] == "dark", "z", "a")
    model = classifier(**EASY).fit(data[0], y)
    assert model.classes_.tolist() == ["a", "z"]
    P = model.predict_proba(data[0])
    assert (P[:12, 1] > 0.5).all()
    assert P.dtype == np.float32
    np.testing.assert_allclose(P.sum(1), 1, atol=1e-6)


def test_sample_weights_may_be_a_list(data):
    weights = list(np.linspace(1, 2, 24))
    P, Q = (
        classifier().fit(*data, sample_weight=w).predict_proba(data[0])
        for w in (weights, np.array(weights))
    )
    np.testing.assert_array_equal(P, Q)


# ------------------------------------------------------------------ small and large


def test_two_rows_are_enough(data):
    X, y = data[0][[0, -1]], data[1][[0, -1]]
    for trainable in ("head", "all"):
        model = classifier(backbone="resnet18", trainable=trainable, image_size=33)
        assert model.fit(X, y).predict_proba(X).shape == (2, 2)
    assert regressor().fit(X[:1], [3.0]).predict(X).shape == (2,)
    assert extractor().fit_transform(X[:1]).shape == (1, 512)


def test_a_huge_batch_size_is_all_rows(data):
    P, Q = (
        classifier(batch_size=size).fit(*data).predict_proba(data[0])
        for size in (24, 10**9)
    )
    np.testing.assert_array_equal(P, Q)


@pytest.mark.parametrize("batch_size", [1, 5, 24])
def test_batches_do_not_change_answers(batch_size, data):
    F = extractor(batch_size=batch_size).fit_transform(data[0])
    G = extractor(batch_size=10).fit_transform(data[0])
    np.testing.assert_allclose(F, G, atol=1e-5 * np.abs(G).max())


# -------------------------------------------------------------- output on screen


@pytest.mark.parametrize("make", [classifier, regressor, extractor])
def test_nothing_is_printed_unless_asked(make, data, capfd):
    _outputs(_fitted(make, data), data[0])
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
    _outputs(_fitted(make, data, verbose=1), data[0])
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "24/24" in captured.err
    if make is not extractor:
        assert "72/72" in captured.err  # three epochs in one bar
        assert "train_loss" in captured.err


# ------------------------------------------------------- callbacks of scikit-learn


callback = pytest.importorskip("sklearn.callback")


def test_a_progress_bar_of_scikit_learn(data, capsys):
    pytest.importorskip("rich")
    model = classifier().set_callbacks(callback.ProgressBar()).fit(*data)
    assert "ImageClassifier" in capsys.readouterr().out
    assert model.n_iter_ == 3
    extractor().set_callbacks(callback.ProgressBar()).fit(data[0])


def _logs(monitor):
    logs = monitor.get_logs()
    return logs[0] if isinstance(logs, list) else logs


def test_scores_are_monitored_every_epoch(data):
    monitor = callback.ScoringMonitor(scoring="neg_log_loss")
    model = classifier().set_callbacks(monitor).fit(*data)
    plain = classifier().fit(*data)
    np.testing.assert_array_equal(
        model.predict_proba(data[0]), plain.predict_proba(data[0])
    )
    text = str(_logs(monitor).data)
    assert "epoch" in text or "neg_log_loss" in text


@pytest.mark.parametrize("trainable", ["head", "all"])
def test_monitoring_does_not_disturb_training(trainable, data):
    parameters = {"backbone": "resnet18", "trainable": trainable, "batch_size": 8}
    monitor = callback.ScoringMonitor(scoring="accuracy")
    watched = classifier(**parameters).set_callbacks(monitor).fit(*data)
    plain = classifier(**parameters).fit(*data)
    np.testing.assert_array_equal(
        watched.predict_proba(data[0]), plain.predict_proba(data[0])
    )


def test_callbacks_reach_through_a_search(data, capsys, monkeypatch):
    pytest.importorskip("rich")
    monkeypatch.setenv("COLUMNS", "300")
    monitor = callback.ScoringMonitor(scoring="accuracy")
    inner = classifier().set_callbacks(monitor)
    search = GridSearchCV(make_pipeline(inner), {"imageclassifier__lr": [1e-2, 1e-3]},
                          cv=2, error_score="raise")  # fmt: skip
    search.set_callbacks(callback.ProgressBar(max_propagation_depth=None))
    search.fit(*data)
    assert "ImageClassifier" in capsys.readouterr().out
    assert "accuracy" in str(_logs(monitor).data)


def test_scikit_learns_callbacks_survive_failure_and_interruption(
    data, interrupting_head
):
    pytest.importorskip("rich")
    model = classifier(callbacks=[_boom()]).set_callbacks(callback.ProgressBar())
    with pytest.raises(RuntimeError, match="boom"):
        model.fit(*data)
    model.set_params(callbacks=None)
    interrupting_head(2)
    with pytest.raises(KeyboardInterrupt):
        model.fit(*data)
    assert model.fit(*data).n_iter_ == 3


# ------------------------------------------------------------------------ device


def test_a_device_that_is_not_there(data, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for make in (classifier, regressor, extractor):
        with pytest.raises(ValueError, match="device='cuda' is not available"):
            make(device="cuda").fit(data[0], np.arange(24) % 2)
    model = classifier().fit(*data)
    P = model.predict_proba(data[0])
    model.device = "cuda"
    with pytest.warns(UserWarning, match="the CPU is used"):
        np.testing.assert_array_equal(model.predict_proba(data[0]), P)
    with pytest.raises(ValueError, match="device='gpu'"):
        extractor(device="gpu").fit(data[0])


def test_parameters_as_objects(data):
    from torchvision.models import SqueezeNet1_1_Weights

    preset = SqueezeNet1_1_Weights.IMAGENET1K_V1.transforms()
    model = classifier(device=torch.device("cpu"), preprocessing=preset, image_size=32)
    P = clone(model).fit(*data).predict_proba(data[0])
    Q = classifier(preprocessing="IMAGENET1K_V1").fit(*data).predict_proba(data[0])
    np.testing.assert_array_equal(P, Q)
    assert clone(ImageClassifier(weights=SqueezeNet1_1_Weights.DEFAULT))


def small_network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())


def test_a_network_of_ones_own(data):
    for cls in ESTIMATORS:
        parameters = {**SMALL, "backbone": small_network}
        model = clone(cls(**parameters)).fit(data[0], np.arange(24) % 2)
        expected = _outputs(model, data[0])
        other = pickle.loads(pickle.dumps(model))
        np.testing.assert_array_equal(_outputs(other, data[0]), expected)
