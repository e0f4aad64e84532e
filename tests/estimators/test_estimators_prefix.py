"""Training the last stages on the maps of the frozen ones."""

import os
import signal
import warnings

import numpy as np
import processes
import pytest
import torch
from cache_cases import Counted, two_textures
from estimator_cases import Recorder, classifier, regressor, state_of
from sklearn.model_selection import GridSearchCV, cross_val_predict

from sklearn_dl import FeatureCache, ImageClassifier, ImageFeatureExtractor
from sklearn_dl.augmentation import Augment
from sklearn_dl.backbones import Preprocessing, images_seen
from sklearn_dl.datasets import load_torch_dataset
from sklearn_dl.model_selection import compare_regimes
from sklearn_dl.training import Checkpoint, Trainable, TrainingRows, WeightAveraging


@pytest.fixture(scope="module")
def data():
    return two_textures(24)


@pytest.fixture
def cache():
    cache = FeatureCache(name="maps")
    cache.clear()
    return cache


def small(**parameters):
    """Return a classifier whose frozen stages are pretrained."""
    given = {"weights": "builtin", "image_size": 32, "random_state": 0, "max_epochs": 3}
    given |= {"batch_size": 8, "trainable": 1, "lr": 1e-2, **parameters}
    return ImageClassifier("mobilenet_v3_small", **given)


def the_long_way(model):
    """Give a model a callback that could look at pixels: the whole network runs."""
    own = model.callbacks or []
    return model.set_params(callbacks=[*own, Recorder()])


def seen_by(work):
    before = images_seen()
    work()
    return images_seen() - before


def largest_difference(one, other):
    states = state_of(one), state_of(other)
    return max((states[0][n] - t).abs().max().item() for n, t in states[1].items())


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"trainable": ["stage3", "stage4"], "warmup_epochs": 1},
        {"trainable": 2, "optimizer": "adam", "lr": 1e-3, "backbone_lr": (1e-5, 1e-4)},
        {"early_stopping": True, "max_epochs": 4},
        {"callbacks": [WeightAveraging()], "schedule": "cosine"},
        {"trainable": Trainable(1, freeze_batch_norm=True), "augment": None},
        {"net_params": {"iterator_train__num_workers": 1}},
    ],
    ids=lambda p: "-".join(p) or "plain",
)
def test_weights_are_those_of_the_long_way(parameters, data, cache):
    X, y = data
    short, long = (small(cache=cache, **parameters) for _ in range(2))
    passes = seen_by(lambda: short.fit(X, y))
    assert passes == len(X)
    assert seen_by(lambda: the_long_way(long).fit(X, y)) >= 2 * len(X)
    assert largest_difference(short, long) < 1e-4
    short, long = short.set_params(callbacks=None), long.set_params(callbacks=None)
    np.testing.assert_array_equal(short.predict(X), long.predict(X))
    np.testing.assert_allclose(short.predict_proba(X), long.predict_proba(X), atol=1e-4)


def test_statistics_that_are_trained_move_as_the_long_way_moves_them(data):
    X, y = data
    trainable = Trainable(1, freeze_batch_norm=False)
    short = small(trainable=trainable).fit(X, y)
    long = the_long_way(small(trainable=trainable)).fit(X, y)
    moved = [n for n in state_of(short) if n.endswith("running_var")]
    before = small(max_epochs=1, trainable="head").fit(X, y)
    states = [state_of(m) for m in (before, short, long)]
    last = moved[-1]
    assert not torch.equal(states[0][last], states[1][last])
    torch.testing.assert_close(states[1][last], states[2][last], rtol=1e-3, atol=1e-4)
    assert torch.equal(states[0][moved[0]], states[1][moved[0]])


def test_a_regression_too(data):
    X, _ = data
    y = X.mean((1, 2, 3))
    given = {"backbone": "mobilenet_v3_small", "weights": "builtin", "trainable": 1}
    short = regressor(**given).fit(X, y)
    long = the_long_way(regressor(**given)).fit(X, y)
    np.testing.assert_allclose(short.predict(X), long.predict(X), rtol=1e-3)


def test_runs_are_equal_to_the_bit(data, cache, tmp_path):
    X, y = data
    models = [small(cache=c).fit(X, y) for c in (cache, cache, str(tmp_path), None)]
    workers = {"iterator_train__num_workers": 2}
    models.append(small(cache=cache, net_params=workers).fit(X, y))
    for model in models[1:]:
        assert largest_difference(models[0], model) == 0


def test_a_killed_fit_goes_on_to_the_same_bits(data, tmp_path, monkeypatch):
    X, y = data
    given = {"cache": str(tmp_path / "maps"), "max_epochs": 4, "trainable": 2}
    whole = small(**given).fit(X, y)
    given["callbacks"] = [Checkpoint(tmp_path / "runs")]
    start_epoch = TrainingRows.start_epoch

    def fail(rows, epoch):
        if epoch == 3:
            raise MemoryError
        start_epoch(rows, epoch)

    monkeypatch.setattr(TrainingRows, "start_epoch", fail)
    with pytest.raises(MemoryError):
        small(**given).fit(X, y)
    monkeypatch.undo()
    again = small(**given).fit(X, y)
    assert again.callbacks[0].resumed_epoch_ == 2
    assert largest_difference(whole, again) == 0


class Killed(TrainingRows):
    """Rows that end the process at the third epoch."""

    def start_epoch(self, epoch):
        if epoch == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        super().start_epoch(epoch)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on Windows")
def test_a_killed_process_goes_on_with_the_maps_of_its_folder(data, tmp_path):
    X, y = data
    given = {"max_epochs": 4, "trainable": 2}
    whole = small(cache=None, **given).fit(X, y)
    given |= {"cache": str(tmp_path / "maps")}
    code = (
        "import sys; from cache_cases import two_textures\n"
        "from sklearn_dl import _neural\n"
        "from sklearn_dl.training import Checkpoint\n"
        "from test_estimators_prefix import Killed, small\n"
        "_neural.TrainingRows = Killed\n"
        "model = small(cache=sys.argv[1], max_epochs=4, trainable=2)\n"
        "model.set_params(callbacks=[Checkpoint(sys.argv[2])])\n"
        "model.fit(*two_textures(24))\n"
    )
    process = processes.start(code, given["cache"], tmp_path / "runs")
    assert process.wait() == -signal.SIGKILL
    again = small(**given, callbacks=[Checkpoint(tmp_path / "runs")])
    assert seen_by(lambda: again.fit(X, y)) == 0
    assert again.callbacks[0].resumed_epoch_ == 2
    assert largest_difference(whole, again) == 0


@pytest.mark.parametrize(
    "order", [("svm", "head", "last"), ("head", "last", "svm"), ("last", "svm", "head")]
)
def test_regimes_share_one_pass_in_any_order(order, tmp_path, data):
    X, y = data
    counted = Counted(tmp_path / "seen")
    given = {"weights": None, "image_size": 32, "batch_size": 8, "random_state": 0}
    model = ImageClassifier(
        counted, cache=str(tmp_path / "maps"), max_epochs=4, **given
    )
    # Without the augmentation that the table has for them.
    last = "last", {"augment": [None], "lr": [1e-2]}
    regimes = {name: last if name == "last" else name for name in order}
    found = compare_regimes(model, X, y, regimes=regimes, cv=2)
    assert counted.seen == len(X)
    assert found.passes_ == 1
    assert found.leaderboard_["passes"].sort_index().tolist()[0] == 1


def test_features_come_before_maps_that_have_no_room(tmp_path, data):
    X, y = data
    counted = Counted(tmp_path / "seen")
    tight = FeatureCache(tmp_path / "maps", max_bytes=10 * map_bytes(small().fit(X, y)))
    given = {"weights": None, "image_size": 32, "batch_size": 8, "random_state": 0}
    model = ImageClassifier(counted, cache=tight, max_epochs=4, **given)
    last = "last", {"augment": [None], "lr": [1e-2]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = compare_regimes(model, X, y, regimes={"svm": "svm", "last": last}, cv=2)
    assert found.leaderboard_["mean_score"].notna().all()
    assert counted.seen > len(X)
    assert tight.statistics().bytes <= tight.max_bytes


def test_a_search_takes_each_image_through_the_frozen_stages_once(
    tmp_path, data, cache
):
    X, y = data
    counted = Counted(tmp_path / "seen")
    model = classifier(backbone=counted, trainable=1, cache=cache, batch_size=8)
    search = GridSearchCV(model, {"lr": [1e-3, 1e-2]}, cv=3)
    search.fit(X, y)
    assert counted.seen == len(X)
    cross_val_predict(model, X, y, cv=2)
    assert counted.seen == len(X)


@pytest.mark.parametrize("views", [None, 2])
def test_sizes_of_images_have_maps_of_their_own(views, data, cache):
    """The networks of all sizes are one, which is shared."""
    X, y = data
    sizes = {"image_size": [32, 64, None, (64, 32)]}
    search = GridSearchCV(small(cache=cache), sizes, cv=2, error_score="raise")
    assert len(search.fit(X, y).predict(X)) == 24
    augment = None if views is None else Augment("light", views=views)
    head = small(cache=cache, trainable="head", image_size=64, augment=augment)
    wanted = small(trainable="head", image_size=64, augment=augment, cache=None)
    assert largest_difference(head.fit(X, y), wanted.fit(X, y)) < 1e-4


def as_it_is(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255


@pytest.mark.parametrize(
    "preprocessing", [as_it_is, Preprocessing(None, None, (0.5,) * 3, (0.2,) * 3)]
)
def test_where_images_keep_their_sizes_the_whole_network_runs(preprocessing, data):
    X, y = data
    model = small(preprocessing=preprocessing, image_size=None, cache="memory")
    assert seen_by(lambda: model.fit(X, y)) == 3 * 24
    assert model.predict(np.concatenate([X, X], axis=1)).shape == (24,)


def test_a_dataset_with_transforms_of_its_own_draws_in_each_epoch(data, cache):
    X, y = data
    read = []

    def item(k):
        read.append(k)
        return X[k]

    items = load_torch_dataset(Items(item)).data
    read.clear()
    small(cache=cache).fit(items[:16], y[:16], X_val=items[16:], y_val=y[16:])
    assert len(read) == 3 * 24


class Items:
    """A dataset that calls a function for its items."""

    def __init__(self, item):
        self.item = item

    def __len__(self):
        return 24

    def __getitem__(self, k):
        return self.item(k), k % 2


def test_features_come_from_maps_that_are_there(data, cache):
    X, y = data
    given = {"weights": "builtin", "image_size": 32, "cache": cache}
    extractor = ImageFeatureExtractor("mobilenet_v3_small", **given)
    wanted = extractor.set_params(cache=None).fit_transform(X)
    extractor.set_params(cache=cache)
    small(cache=cache).fit(X, y)
    found = []
    head = small(cache=cache, trainable="head")
    assert seen_by(lambda: found.append(extractor.fit_transform(X))) == 0
    assert seen_by(lambda: head.fit(X, y).predict(X)) == 0
    np.testing.assert_allclose(found[0], wanted, rtol=1e-3, atol=1e-4)


def test_what_changes_at_random_is_read_in_each_epoch_and_validation_rows_once(data):
    X, y = data
    model = small(augment="light", cache=None, max_epochs=3)
    assert seen_by(lambda: model.fit(X[:16], y[:16], X_val=X[16:], y_val=y[16:])) == 56


def test_one_epoch_and_a_stream_run_the_whole_network(data, cache):
    X, y = data
    model = small(cache=cache)
    assert seen_by(lambda: model.partial_fit(X, y)) == 24
    assert seen_by(lambda: model.partial_fit(X, y)) == 24
    assert cache.statistics().entries == 0


def test_a_warm_start_finds_the_maps_of_the_fit_before(data, cache):
    X, y = data
    model = small(cache=cache, warm_start=True).fit(X, y)
    before = state_of(model)
    assert seen_by(lambda: model.fit(X, y)) == 0
    assert len(model.history_) == 6
    assert any((before[n] != t).any() for n, t in state_of(model).items())


def test_new_images_are_kept_only_where_there_is_room(data, cache):
    X, y = data
    model = small(cache=cache).fit(X[:16], y[:16])
    kept = cache.statistics().bytes
    small_cache = FeatureCache(name="maps", max_bytes=kept * 10 // 9 + kept // 16)
    model.set_params(cache=small_cache)
    assert seen_by(lambda: model.predict(X[:16])) == 0
    assert seen_by(lambda: model.predict(X[16:])) == 8
    assert cache.statistics().bytes == kept
    model.set_params(cache=FeatureCache(name="maps", max_bytes=2**29))
    assert seen_by(lambda: model.predict(X[16:])) == 8
    assert seen_by(lambda: model.predict(X[16:])) == 0
    assert cache.statistics().entries == 24


def test_a_changed_network_predicts_as_it_is(data, cache):
    X, y = data
    model = small(cache=cache).fit(X, y)
    before = model.predict_proba(X)
    with torch.no_grad():
        next(model.module_.backbone.parameters()).mul_(3)
    assert np.abs(model.predict_proba(X) - before).max() > 1e-3


@pytest.mark.parametrize("folder", [False, True])
def test_what_the_bound_has_no_room_for_is_computed_again(folder, data, tmp_path):
    X, y = data
    room = {"location": str(tmp_path)} if folder else {"name": "tight"}
    whole = small().fit(X, y)
    FeatureCache(**room).clear()
    tight = FeatureCache(**room, max_bytes=10 * map_bytes(whole))
    model = small(cache=tight)
    with pytest.warns(UserWarning, match="has room for 9 of them") as caught:
        passes = seen_by(lambda: model.fit(X, y))
    assert len([w for w in caught if "frozen stages" in str(w.message)]) == 1
    assert passes == 9 + 3 * 15
    assert tight.statistics().bytes <= tight.max_bytes
    assert largest_difference(model, whole) < 1e-4


def map_bytes(model):
    halves = model._network.backbone.trained_on
    return halves.prefix.n_features * 4


def test_a_folder_has_what_the_memory_has_no_room_for(data, tmp_path, monkeypatch):
    from sklearn_dl._extraction import _maps

    X, y = data
    whole = small().fit(X, y)
    monkeypatch.setattr(_maps, "MEMORY_BYTES", 10 * map_bytes(whole))
    model = small(cache=str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert seen_by(lambda: model.fit(X, y)) == len(X)
    assert largest_difference(model, whole) == 0


def test_training_and_validation_rows_share_the_bounds(data, tmp_path, monkeypatch):
    from sklearn_dl._extraction import _maps

    X, y = data
    size = map_bytes(small().fit(X, y))
    monkeypatch.setattr(_maps, "MEMORY_BYTES", 5 * size)
    tight = FeatureCache(str(tmp_path), max_bytes=22 * size)  # 19 rows, of 16 + 8
    model = small(cache=tight)
    given = {"X_val": X[16:], "y_val": y[16:]}
    with pytest.warns(UserWarning, match="for 8 images .* room for 3 of them"):
        passes = seen_by(lambda: model.fit(X[:16], y[:16], **given))
    assert passes == 19 + 3 * 5


def test_the_cache_is_never_written_into(data, cache):
    X, y = data
    small(cache=cache, trainable=3).fit(X, y)
    again = small(cache=cache, trainable=3).fit(X, y)
    assert largest_difference(again, small(cache=None, trainable=3).fit(X, y)) == 0
