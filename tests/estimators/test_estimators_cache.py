"""One backbone pass per image: the cache in the estimators and around them."""

import itertools
import os
import pickle
import sqlite3
import threading
import warnings
from contextlib import closing
from pathlib import Path

import joblib
import numpy as np
import processes
import pytest
import torch
from cache_cases import Counted, Threads, two_textures
from PIL import Image
from reachable import reachable_folder
from sklearn.base import clone
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    cross_validate,
    learning_curve,
    validation_curve,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from skorch.callbacks import Initializer
from torch.utils.data import Dataset

from sklearn_dl import (
    FeatureCache,
    ImageClassifier,
    ImageFeatureExtractor,
    ImageRegressor,
    _base,
    make_feature_classifier,
)
from sklearn_dl._extraction._directory import DirectoryStore
from sklearn_dl._images import ImageDecodeError
from sklearn_dl.backbones import Backbone
from sklearn_dl.datasets import load_torch_dataset

N = 40


@pytest.fixture(autouse=True)
def empty_memory():
    FeatureCache("memory").clear()
    yield
    FeatureCache("memory").clear()


@pytest.fixture(scope="module")
def images():
    return two_textures(N)


@pytest.fixture(scope="module")
def y(images):
    return images[1]


@pytest.fixture(scope="module")
def paths(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("textures")
    files = []
    for row, image in enumerate(images[0]):
        files.append(str(folder / f"{row}.png"))
        Image.fromarray(image).save(files[-1])
    return np.array(files, dtype=object)[:, None]


@pytest.fixture
def counted(tmp_path):
    return Counted(tmp_path / "batches.txt")


def _options(counted, **more):
    return {"backbone": counted, "image_size": 32, "random_state": 0, **more}


def _extractor(counted, **more):
    return ImageFeatureExtractor(**_options(counted, **more))


def _svm(counted, **more):
    return make_feature_classifier(**_options(counted, **more))


def _head(counted, **more):
    more = {"max_epochs": 2, "optimizer": "adam", **more}
    return ImageClassifier(**_options(counted, **more))


GRIDS = {
    "features + SVM": (_svm, {"classifier__C": np.geomspace(1e-4, 1, 8)}),
    "head": (
        _head,
        {"optimizer__weight_decay": [0, 1e-4], "lr": [1e-3, 3e-3, 1e-2, 3e-2]},
    ),
}

ENSEMBLES = {
    "hard voting": lambda c: VotingClassifier(
        [("a", _svm(c)), ("b", _head(c)), ("c", _head(c, random_state=1))]
    ),
    "soft voting": lambda c: VotingClassifier(
        [("a", _svm(c, probability=True)), ("b", _head(c)), ("c", _head(c, lr=0.1))],
        voting="soft",
    ),
    "bagging of nets": lambda c: BaggingClassifier(_head(c), 10, random_state=0),
    "bagging of SVMs": lambda c: BaggingClassifier(
        make_pipeline(_extractor(c), LinearSVC()), 10, random_state=0
    ),
    "AdaBoost on features": lambda c: make_pipeline(
        _extractor(c), AdaBoostClassifier(n_estimators=10, random_state=0)
    ),
    "AdaBoost of nets": lambda c: AdaBoostClassifier(
        _head(c, lr=1e-2, max_epochs=10), n_estimators=10, random_state=0
    ),
    "stacking": lambda c: StackingClassifier(
        [("a", _svm(c)), ("b", _head(c))], LogisticRegression(), cv=3
    ),
}


@pytest.mark.parametrize("name", GRIDS)
def test_a_grid_search_sees_each_image_once(name, counted, paths, y):
    make, grid = GRIDS[name]
    search = GridSearchCV(make(counted), grid, cv=5, error_score="raise")
    search.fit(paths, y).predict(paths)
    assert len(search.cv_results_["params"]) == 8
    assert counted.seen == N


@pytest.mark.parametrize("name", ENSEMBLES)
def test_an_ensemble_sees_each_image_once(name, counted, paths, y):
    model = ENSEMBLES[name](counted).fit(paths, y)
    model.predict(paths)
    assert counted.seen == N


def test_curves_see_each_image_once(counted, paths, y):
    learning_curve(
        _svm(counted), paths, y, cv=5, shuffle=True, random_state=0, error_score="raise"
    )
    validation_curve(
        _head(counted), paths, y, param_name="lr", param_range=[1e-3, 1e-2], cv=3
    )
    assert counted.seen == N


@pytest.mark.parametrize("name", GRIDS)
def test_processes_with_one_directory_see_each_image_once(
    name, counted, paths, y, tmp_path
):
    make, grid = GRIDS[name]
    directory = tmp_path / "cache"
    grid = {key: values[::2] for key, values in grid.items()}
    alone = GridSearchCV(make(counted, cache=None), grid, cv=3).fit(paths, y)
    before = counted.seen
    search = GridSearchCV(make(counted, cache=directory), grid, cv=3, n_jobs=2)
    search.fit(paths, y)
    assert counted.seen - before == N
    scores = "mean_test_score"
    np.testing.assert_allclose(search.cv_results_[scores], alone.cv_results_[scores])


def test_a_second_process_computes_nothing(counted, paths, tmp_path):
    directory = tmp_path / "cache"
    extractor = _extractor(counted, cache=str(directory))
    features = extractor.fit_transform(paths)
    assert counted.seen == N
    with open(tmp_path / "extractor.pkl", "wb") as file:
        pickle.dump((clone(extractor), paths), file)
    code = (
        "import pickle; import numpy as np\n"
        f"extractor, X = pickle.load(open({str(tmp_path / 'extractor.pkl')!r}, 'rb'))\n"
        f"np.save({str(tmp_path / 'again.npy')!r}, extractor.fit_transform(X))\n"
    )
    processes.run(code)
    assert counted.seen == N
    np.testing.assert_array_equal(np.load(tmp_path / "again.npy"), features)
    statistics = FeatureCache(directory).statistics()
    assert (statistics.hits, statistics.misses) == (N, N)
    assert statistics.entries == N


def test_threads_see_each_image_once(counted, paths, y):
    with joblib.parallel_config("threading", n_jobs=4):
        search = GridSearchCV(
            _svm(counted), {"classifier__C": [0.1, 1, 10]}, cv=4, error_score="raise"
        )
        search.fit(paths, y)
    assert counted.seen == N


@pytest.mark.parametrize("cache", ["memory", "directory"])
def test_stored_features_are_those_computed(cache, counted, images, tmp_path):
    cache = tmp_path / "cache" if cache == "directory" else cache
    X = images[0]
    fresh = _extractor(counted, cache=None, batch_size=7).fit_transform(X)
    first = _extractor(counted, cache=cache).fit_transform(X)
    again = _extractor(counted, cache=cache).fit_transform(X[::-1])[::-1]
    assert counted.seen == 2 * N
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(first, fresh, rtol=1e-5, atol=1e-6)


def test_duplicates_are_computed_once_and_come_back_in_order(counted, images):
    index = np.random.default_rng(0).integers(0, 5, 60)
    features = _extractor(counted).fit_transform(images[0][index])
    assert counted.seen == 5
    each = _extractor(counted, cache=None).fit_transform(images[0][:5])
    np.testing.assert_allclose(features, each[index], rtol=1e-5, atol=1e-6)


def test_one_image_in_all_its_forms_is_computed_once(counted, images, paths):
    image, path = images[0][0], paths[0, 0]
    extractor = _extractor(counted).fit([path])
    encoded = open(path, "rb").read()
    forms = [image[None], [Image.fromarray(image)], [image], image.reshape(1, -1)]
    rows = [extractor.transform(X) for X in forms]
    rows += [extractor.transform([path]), extractor.transform([encoded])]
    # The file as it is encoded, and the pixels.
    assert counted.seen == 2
    for row in rows[1:]:
        np.testing.assert_allclose(row, rows[0], rtol=1e-6)


def test_a_file_that_changes_is_computed_anew(counted, images, tmp_path):
    path = tmp_path / "image.bmp"
    Image.fromarray(images[0][0]).save(path)
    extractor = _extractor(counted).fit([path])
    first = extractor.transform([path])
    Image.fromarray(images[0][1]).save(path)  # of the same size
    second = extractor.transform([path])
    assert counted.seen == 2
    expected = _extractor(counted, cache=None).fit_transform(images[0][:2])
    np.testing.assert_allclose(np.r_[first, second], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"layer": "0"},
        {"layer": ("0", "max")},
        {"image_size": 40},
        {"preprocessing": ((0.5,) * 3, (0.5,) * 3)},
        {"preprocessing": "data"},
        {"precision": "bfloat16"},
        {"precision": "float64"},
        {"preprocessing": "callable"},
        {"tta": "flip"},
        {"tta": "five_crop"},
        {"tta": 3},
        {"backbone": "other weights"},
    ],
    ids=lambda change: "-".join(map(str, change.values())),
)
def test_whatever_features_depend_on_has_entries_of_its_own(
    change, counted, images, tmp_path
):
    X = images[0][:6]
    if "preprocessing" in change:
        change = {"preprocessing": _half_size, "image_size": None}
    if "backbone" in change:
        change = {"backbone": Counted(counted.path, seed=1)}
    _extractor(counted, cache=tmp_path).fit_transform(X)
    changed = {**_options(counted), **change}
    uncached = ImageFeatureExtractor(**changed, cache=None).fit_transform(X)
    before = counted.seen
    first = ImageFeatureExtractor(**changed, cache=tmp_path).fit_transform(X)
    assert counted.seen > before
    before = counted.seen
    again = ImageFeatureExtractor(**changed, cache=tmp_path).fit_transform(X)
    assert counted.seen == before
    np.testing.assert_array_equal(first, again)
    rtol = 2e-3 if change.get("precision") == "bfloat16" else 1e-5
    np.testing.assert_allclose(first, uncached, rtol=rtol, atol=1e-6 + rtol / 10)


def _half_size(image):
    return torch.from_numpy(np.array(image.resize((16, 16)))).permute(2, 0, 1) / 255


@pytest.mark.parametrize("tta", [None, "flip"])
@pytest.mark.parametrize("make", [ImageClassifier, ImageRegressor])
def test_a_head_on_stored_features_is_the_head_trained_the_long_way(
    make, tta, counted, images
):
    X, y = images[0], (images[1] == "plain").astype(float)
    options = _options(counted, max_epochs=3, early_stopping=True, tta=tta)
    long_way = make(**options, cache=None).fit(X, y)
    model = make(**options, cache="memory").fit(X, y)
    again = make(**options, cache="memory").fit(X, y)
    name = "predict" if make is ImageRegressor else "predict_proba"
    expected = getattr(long_way, name)(X)
    np.testing.assert_allclose(getattr(model, name)(X), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(getattr(model, name)(X), getattr(again, name)(X))


def test_a_fine_tuned_backbone_has_no_part_in_it(counted, images):
    X, y = images
    frozen = _extractor(counted).fit(X)
    plain = frozen.transform(X)
    before = frozen.backbone_.state_dict()
    before = {name: tensor.clone() for name, tensor in before.items()}
    model = _head(counted, trainable="all", lr=1e-2, backbone_lr=1e-2).fit(X, y)
    tuned = model.predict_proba(X)
    statistics = FeatureCache("memory").statistics()
    model.predict_proba(X)
    assert FeatureCache("memory").statistics() == statistics
    for name, tensor in frozen.backbone_.state_dict().items():
        assert torch.equal(tensor, before[name])  # what others share
    np.testing.assert_array_equal(_extractor(counted).fit(X).transform(X), plain)
    # Frozen again, it is a backbone of its own.
    model.set_params(trainable="head", warm_start=True, max_epochs=1, lr=1e-9)
    seen = counted.seen
    model.fit(X, y)
    assert counted.seen == seen + N
    np.testing.assert_allclose(model.predict_proba(X), tuned, atol=1e-3)
    assert counted.seen == seen + N


def test_weights_changed_by_hand_are_seen(counted, images):
    X = images[0]
    extractor = _extractor(counted).fit(X)
    before = extractor.transform(X)
    other = _extractor(counted).fit(X)
    with torch.no_grad():
        next(extractor.backbone_.parameters()).mul_(2)
    after = extractor.transform(X)
    assert counted.seen == 2 * N
    assert np.abs(after - before).max() > 1e-3
    for untouched in (other, _extractor(counted).fit(X)):
        np.testing.assert_array_equal(untouched.transform(X), before)
    assert counted.seen == 2 * N


def test_weights_that_a_callback_sets_stay_with_its_estimator(images):
    X, y = images
    options = {"weights": None, "image_size": 32, "random_state": 0, "cache": None}
    extractor = ImageFeatureExtractor("squeezenet1_1", **options).fit(X)
    before = extractor.transform(X)
    zeros = Initializer("backbone*weight", fn=torch.nn.init.zeros_)
    model = ImageClassifier(
        "squeezenet1_1", **options, max_epochs=1, callbacks=[zeros]
    ).fit(X, y)
    assert not any(p.any() for n, p in _weights(model) if n.endswith("weight"))
    np.testing.assert_array_equal(extractor.transform(X), before)


def _weights(model):
    return list(model.module_.backbone.named_parameters())


def test_random_weights_without_a_seed_never_hit_and_that_is_said_once(
    images, monkeypatch
):
    monkeypatch.setattr(_base, "_UNSEEDED", itertools.count())
    X = images[0][:4]
    extractor = ImageFeatureExtractor("squeezenet1_1", weights=None, image_size=32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = clone(extractor).fit_transform(X)
    with pytest.warns(UserWarning, match="no features are found again in the cache"):
        two = clone(extractor).fit_transform(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clone(extractor).fit_transform(X)
    assert not np.allclose(one, two)
    assert FeatureCache("memory").statistics().hits == 0
    extractor.set_params(random_state=0)
    one, two = (clone(extractor).fit_transform(X) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert FeatureCache("memory").statistics().hits == 4


@pytest.mark.parametrize("cache", ["memory", "directory"])
def test_an_image_that_cannot_be_decoded_loses_nothing(cache, counted, paths, tmp_path):
    cache = tmp_path / "cache" if cache == "directory" else cache
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    X = [*paths[:8, 0], str(bad), *paths[8:16, 0]]
    extractor = _extractor(counted, cache=cache, batch_size=4).fit(X)
    with pytest.raises(ImageDecodeError, match=r"row 8, '.*bad\.png'") as caught:
        extractor.transform(X)
    assert caught.value.failures[0][0] == 8
    before = counted.seen
    assert before >= 8  # the batches before it are stored
    del X[8]
    extractor.transform(X)
    assert counted.seen == 16


def test_all_missing_files_are_named_together(counted, paths):
    X = [*paths[:3, 0], "gone.png", *paths[3:6, 0], "lost.png"]
    extractor = _extractor(counted, batch_size=2).fit(X)
    with pytest.raises(ImageDecodeError, match="2 images could not") as caught:
        extractor.transform(X)
    assert [failure[0] for failure in caught.value.failures] == [3, 7]
    assert counted.seen == 0


def test_after_an_interruption_nobody_waits(counted, paths, tmp_path, monkeypatch):
    calls, forward = [], Backbone.forward

    def interrupted(backbone, x):
        output = forward(backbone, x)
        calls.append(len(output))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return output

    extractor = _extractor(counted, cache=tmp_path / "cache", batch_size=10).fit(paths)
    monkeypatch.setattr(Backbone, "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extractor.transform(paths)

    def wait(*arguments):
        raise AssertionError("waits, though what was interrupted is free")

    monkeypatch.setattr(DirectoryStore, "wait", wait)
    extractor.transform(paths)
    assert counted.seen == N + 10


class _Textures(Dataset):
    def __init__(self, images, y, change=None):
        self.images, self.y, self.change = images, y, change
        self.read = 0

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        self.read += 1
        image = self.images[i]
        return Image.fromarray(image if self.change is None else self.change(image)), 0


def test_items_of_a_dataset_are_read_once_a_call_and_computed_once(counted, images):
    dataset = _Textures(*images)
    X = load_torch_dataset(dataset).data
    dataset.read = 0
    extractor = _extractor(counted, batch_size=16).fit(X)
    features = extractor.transform(X)
    assert (dataset.read, counted.seen) == (N, N)
    np.testing.assert_array_equal(extractor.transform(X[::-1])[::-1], features)
    assert (dataset.read, counted.seen) == (2 * N, N)
    expected = _extractor(counted, cache=None).fit_transform(images[0])
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-6)


def test_items_that_change_at_each_reading_are_what_was_read(counted, images):
    rng = np.random.default_rng(0)
    given = []

    def change(image):
        given.append(np.roll(image, int(rng.integers(32)), 0))
        return given[-1]

    X = load_torch_dataset(_Textures(*images, change)).data
    given.clear()
    features = _extractor(counted).fit_transform(X)
    expected = _extractor(counted, cache=None).fit_transform(np.stack(given))
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-6)


def test_two_threads_share_the_work_of_one_list(counted, paths, tmp_path):
    results = {}
    extractors = [
        _extractor(counted, cache=tmp_path / "cache", batch_size=4).fit(paths)
        for _ in range(3)
    ]

    def run(k):
        results[k] = extractors[k].transform(paths)

    threads = [threading.Thread(target=run, args=(k,)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counted.seen == N
    for k in (1, 2):
        np.testing.assert_array_equal(results[k], results[0])


def test_estimators_share_the_memory_of_a_frozen_backbone(images):
    X, y = images
    options = {"weights": None, "image_size": 32, "random_state": 0}
    one = ImageFeatureExtractor("squeezenet1_1", **options).fit(X)
    two = ImageClassifier("squeezenet1_1", **options, max_epochs=1).fit(X, y)
    tuned = ImageClassifier(
        "squeezenet1_1", **options, max_epochs=1, trainable="all"
    ).fit(X, y)
    assert one._backbone.module is two._network.backbone.module
    # Who trains it, or asks for it, has one of his own.
    networks = [two._network.backbone, tuned._network.backbone, one.backbone_]
    pointers = [{p.data_ptr() for p in network.parameters()} for network in networks]
    assert len(set.union(*pointers)) == sum(map(len, pointers))


def test_a_clone_a_copy_and_a_pickle_keep_the_cache(counted, images, tmp_path):
    cache = FeatureCache(tmp_path / "cache", max_bytes=10**6)
    extractor = _extractor(counted, cache=cache).fit(images[0])
    for copy in (clone(extractor), pickle.loads(pickle.dumps(extractor))):
        assert copy.get_params()["cache"] == cache
    extractor.transform(images[0])
    clone(extractor).fit_transform(images[0])
    assert counted.seen == N
    assert cache.statistics().hits == N


@pytest.mark.parametrize("cache", [3, True, b"folder", ""])
def test_what_is_no_cache_is_refused(cache, counted, images):
    with pytest.raises((TypeError, ValueError), match=r"cache|location"):
        _extractor(counted, cache=cache).fit(images[0])


def test_an_svm_on_a_kernel_is_served_too(counted, paths, y):
    model = make_pipeline(_extractor(counted), StandardScaler(), SVC())
    GridSearchCV(model, {"svc__C": [1, 10]}, cv=3, error_score="raise").fit(paths, y)
    assert counted.seen == N


@pytest.fixture
def opened(monkeypatch):
    """Return the list of what Pillow decodes from now on."""
    opened, original = [], Image.open

    def open_and_note(file, *args, **kwargs):
        opened.append(file)
        return original(file, *args, **kwargs)

    monkeypatch.setattr(Image, "open", open_and_note)
    return opened


@pytest.mark.parametrize("cache", ["memory", "directory"])
def test_files_are_looked_up_before_they_are_decoded(
    cache, counted, paths, y, tmp_path, opened
):
    cache = tmp_path / "cache" if cache == "directory" else cache
    extractor = _extractor(counted, cache=cache)
    features = extractor.fit_transform(paths[:30])
    assert sorted(opened) == sorted(paths[:30, 0])
    opened.clear()
    np.testing.assert_array_equal(extractor.transform(paths[29::-1]), features[::-1])
    np.testing.assert_array_equal(clone(extractor).fit_transform(paths[:30]), features)
    assert opened == []
    extractor.transform(paths[[31, 2, 31, 30, 5]])
    assert sorted(opened) == sorted(paths[30:32, 0])
    opened.clear()
    _head(counted, cache=cache).fit(paths[:30], y[:30]).predict(paths[:32])
    GridSearchCV(_svm(counted, cache=cache), {"classifier__C": [1, 2]}, cv=3).fit(
        paths[:30], y[:30]
    )
    assert opened == []


def test_encoded_bytes_are_looked_up_before_they_are_decoded(counted, paths, opened):
    encoded = [Path(path).read_bytes() for path in paths[:8, 0]]
    extractor = _extractor(counted)
    extractor.fit_transform(encoded[:6])
    assert len(opened) == 6
    extractor.transform(encoded)
    assert len(opened) == 8
    extractor.transform(paths[:8])  # the same content
    assert len(opened) == 8


@pytest.fixture(scope="module")
def failing_disks(images):
    """Return what comes of caches that can't be written, with 6 of 12 images stored."""
    X, y = images[0][:12], images[1][:12]
    code = (
        "import pickle, sys; from cache_cases import use_failing_disks\n"
        "use_failing_disks(*pickle.load(sys.stdin.buffer))\n"
    )
    with reachable_folder() as folder:
        directories = [str(folder / name) for name in ("full", "read-only")]
        given = pickle.dumps((X, y, *directories))
        return pickle.loads(processes.run(code, given=given, text=False).stdout)


def test_a_read_only_directory_in_which_nothing_is_missing_is_not_warned_of(
    failing_disks,
):
    features, _, computed, said = failing_disks["nothing missing"]
    assert (computed, said) == (0, [])
    expected = failing_disks["uncached"][0][:6]
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("disk", ["full", "read-only"])
def test_a_disk_that_cannot_be_written_is_warned_of_and_changes_no_result(
    disk, failing_disks
):
    features, probabilities, seen, said = failing_disks["uncached"]
    assert (seen, said) == (12, [])
    found, predicted, computed, said = failing_disks[disk]
    assert len(said) == 1
    assert f"{disk} can't be written" in said[0]
    assert computed == 6  # the others are served, nothing is kept of these
    np.testing.assert_allclose(found, features, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(predicted, probabilities, rtol=1e-4, atol=1e-6)


def test_processes_do_not_take_more_threads_than_there_are_cores(
    paths, y, tmp_path, monkeypatch
):
    for name in ("OMP", "MKL", "OPENBLAS"):
        monkeypatch.delenv(f"{name}_NUM_THREADS", raising=False)
    backbone = Threads(tmp_path / "batches.txt")
    model = _svm(backbone, cache=None, batch_size=4)
    cross_validate(model, paths, y, cv=4, n_jobs=2, error_score="raise")
    lines = Path(f"{backbone.path}.threads").read_text().splitlines()
    pids, *counts = np.array([line.split() for line in lines], dtype=int).T
    assert len(lines) > 4 * N / 4
    assert os.getpid() not in pids
    assert len(set(pids)) <= 2
    most = max(joblib.cpu_count(), 2)
    # torch's threads, those that may decode, and those that did.
    for count in counts:
        assert 1 <= count.min()
        assert 2 * count.max() <= most


def test_rows_that_two_processes_store_at_once_stay_whole(tmp_path):
    code = (
        "import sys; import numpy as np\n"
        "from sklearn_dl._extraction._directory import DirectoryStore\n"
        f"store = DirectoryStore({str(tmp_path)!r}, 10**9)\n"
        "print('ready', flush=True)\n"
        "for line in sys.stdin:\n"
        "    for i in range(20):\n"
        "        value = np.full(1280, 1 + int(line), 'f4')\n"
        "        store.put({bytes([i]) * 32: value}, 'child')\n"
        "    print('done', flush=True)\n"
    )
    store = DirectoryStore(tmp_path, 10**9)
    keys = [bytes([i]) * 32 for i in range(20)]
    child = processes.start(code)
    assert child.stdout.readline() == b"ready\n"
    for turn in range(0, 20, 2):
        child.stdin.write(f"{turn}\n".encode())
        child.stdin.flush()
        for key in keys:
            store.put({key: np.full(1280, turn, "f4")}, "parent")
        assert child.stdout.readline() == b"done\n"
        found = store.lookup(keys, (1280,), "f4")
        assert set(found) == set(keys)
        for row in found.values():
            assert row.min() == row.max()
            assert row[0] in (turn, turn + 1)  # the child's, or ours
    child.stdin.close()
    assert child.wait() == 0
    statistics = store.statistics()
    assert (statistics.entries, statistics.bytes) == (20, 20 * 1280 * 4)
    with closing(sqlite3.connect(tmp_path / "features.sqlite3")) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT COUNT(*) FROM features").fetchone() == (20,)
