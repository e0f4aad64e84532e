"""A real Dask cluster of two worker processes."""

import os
import shutil
import signal
import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path
from types import SimpleNamespace

import joblib
import numpy as np
import PIL
import pytest
from cluster_cases import Slow, outputs_of_a_fit, two_folders, two_workers
from PIL import Image
from sklearn.ensemble import BaggingClassifier
from sklearn.model_selection import GridSearchCV

from sklearn_dl import (
    FeatureCache,
    ImageClassifier,
    ImageFeatureExtractor,
    make_feature_classifier,
)
from sklearn_dl._extraction._cluster import task_rows
from sklearn_dl._images import ImageDecodeError

pytestmark = pytest.mark.slow  # each cluster takes seconds to start

N = 96


@pytest.fixture(scope="module")
def client():
    with two_workers() as client:
        yield client


@pytest.fixture(autouse=True)
def empty_memory():
    FeatureCache("memory").clear()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 200, (N, 32, 32, 3), "uint8")


@pytest.fixture(scope="module")
def paths(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    files = []
    for row, image in enumerate(images):
        files.append(str(folder / f"{row}.png"))
        Image.fromarray(image).save(files[-1])
    return np.array(files, dtype=object)[:, None]


@pytest.fixture
def options(tmp_path):
    return {
        "backbone": Slow(tmp_path / "batches.txt"),
        "image_size": 32,
        "batch_size": 2,
        "random_state": 0,
    }


@pytest.mark.parametrize("form", ["paths", "arrays"])
@pytest.mark.parametrize("cache", [None, "memory", "directory"])
def test_transform_is_spread_over_the_workers(
    form, cache, client, images, paths, options, tmp_path
):
    X = paths if form == "paths" else images
    cache = tmp_path / "cache" if cache == "directory" else cache
    alone = ImageFeatureExtractor(**options, cache=None).fit(X).transform(X)
    before = len(options["backbone"].batches())
    extractor = ImageFeatureExtractor(**options, cache=cache).fit(X)
    with joblib.parallel_config("dask"):
        together = extractor.transform(X)
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)
    batches = options["backbone"].batches()[before:]
    assert sum(n for _, n in batches) == N
    assert os.getpid() not in {pid for pid, _ in batches}
    assert len({pid for pid, _ in batches}) == 2
    if cache is not None:  # the results are kept where they were asked for, too
        np.testing.assert_array_equal(extractor.transform(X), together)
        with joblib.parallel_config("dask"):
            np.testing.assert_array_equal(extractor.transform(X[::-1])[::-1], together)
        assert len(options["backbone"].batches()) == before + len(batches)


def test_as_many_images_as_make_two_tasks_are_spread(client, images, options):
    slow = options["backbone"]
    extractor = ImageFeatureExtractor(**options, cache=None).fit(images)
    with joblib.parallel_config("dask"):
        extractor.transform(images[:2])
        assert slow.batches() == [(os.getpid(), 2)]
        extractor.transform(images[:3])
        assert os.getpid() not in {pid for pid, _ in slow.batches()[1:]}
        assert sorted(n for _, n in slow.batches()[1:]) == [1, 2]


@pytest.mark.parametrize(
    ("n", "threads", "size"),
    [(245, 2, 64), (245, 400, 32), (20, 2, 32), (100_000, 2, 256), (300, 0, 160)],
)
def test_a_task_has_one_to_eight_batches(n, threads, size):
    workers = {f"worker {k}": 1 for k in range(threads)}
    assert task_rows(SimpleNamespace(nthreads=lambda: workers), n, 32) == size


def test_views_and_repeated_images(client, images, options):
    X = np.concatenate([images, images[::-1]])
    extractor = ImageFeatureExtractor(**options, tta="flip", cache=None).fit(X)
    alone = extractor.transform(X)
    before = options["backbone"].images()
    extractor.set_params(cache="memory")
    with joblib.parallel_config("dask"):
        together = extractor.transform(X)
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)
    assert (
        options["backbone"].images() - before == 2 * N
    )  # two views of each distinct image


@pytest.mark.parametrize("cache", [None, "memory"])
def test_all_bad_images_are_named(cache, client, paths, options, tmp_path):
    # Two in batches of one task, others elsewhere with the same content, one missing.
    X, rows = paths.copy(), [48, 61, 70, 72, 95]
    for row in rows:
        X[row, 0] = str(tmp_path / f"bad {row}.png")
        if row != 70:
            Path(X[row, 0]).write_bytes(b"no image" * (row % 2 + 1))
    extractor = ImageFeatureExtractor(**options, cache=cache).fit(X)
    with (
        joblib.parallel_config("dask"),
        pytest.raises(ImageDecodeError, match=r"row 70, '.*bad 70\.png': no such") as e,
    ):
        extractor.transform(X)
    assert [(row, path) for row, path, _ in e.value.failures] == [
        (row, X[row, 0]) for row in rows
    ]


@pytest.fixture
def folders(paths, tmp_path, client, monkeypatch):
    """Return where the client, and where the workers find files of the same names."""
    here, there = two_folders(paths[:, 0], tmp_path)
    home = os.getcwd()
    monkeypatch.chdir(here)
    client.run(os.chdir, str(there))
    yield here, there
    client.run(os.chdir, home)


NAMES = np.array([f"{row}.png" for row in range(N)], dtype=object)[:, None]


@pytest.mark.parametrize("cache", ["memory", "directory"])
def test_what_a_worker_computed_of_another_file_is_not_stored(
    cache, folders, options, tmp_path
):
    _, there = folders
    (there / "1.png").rename(there / "one")  # two files of one task change places
    (there / "2.png").rename(there / "1.png")
    (there / "one").rename(there / "2.png")
    Image.new("RGB", (32, 32), "red").save(there / "50.png")
    options["cache"] = None
    alone = ImageFeatureExtractor(**options).fit(NAMES).transform(NAMES)
    options["cache"] = cache if cache == "memory" else FeatureCache(tmp_path / "cache")
    extractor = ImageFeatureExtractor(**options).fit(NAMES)
    with joblib.parallel_config("dask"):
        extractor.transform(NAMES)
    before = options["backbone"].images()
    again = extractor.transform(NAMES)
    np.testing.assert_allclose(again, alone, rtol=1e-5, atol=1e-6)
    new = options["backbone"].images() - before
    # The folder is that of the workers too: they know 1 and 2 by what they show.
    assert new == (3 if cache == "memory" else 1)


def test_what_a_worker_computed_of_a_file_that_changed_is_not_stored(
    client, folders, paths, options, tmp_path
):
    here, _ = folders
    X = np.array([[str(here / name)] for name in NAMES[:, 0]], dtype=object)
    alone = ImageFeatureExtractor(**options, cache=None).fit(X).transform(X)
    later = tmp_path / "later"
    later.mkdir()
    last = range(15, N, 16)  # of each task: read when its first batch is through
    for row in last:
        Image.new("RGB", (32, 32), "red").save(later / f"{row}.png")
    swap = Slow(tmp_path / "swap.txt", swap=(str(later), str(here)))
    options["backbone"] = swap
    extractor = ImageFeatureExtractor(**options, cache="memory").fit(X)
    with joblib.parallel_config("dask"):
        extractor.transform(X)
    assert not list(later.iterdir())
    for row in last:
        shutil.copy(paths[row, 0], here / f"{row}.png")
    before = swap.images()
    np.testing.assert_allclose(extractor.transform(X), alone, rtol=1e-5, atol=1e-6)
    assert swap.images() - before == len(last)


def test_what_another_pillow_decoded_is_not_stored(client, images, options):
    extractor = ImageFeatureExtractor(**options, cache="memory").fit(images)
    entries = []
    for version in ("0.1", PIL.__version__):
        client.run(setattr, PIL, "__version__", version)
        with joblib.parallel_config("dask"):
            extractor.transform(images)
        entries.append(FeatureCache("memory").statistics().entries)
    assert entries == [0, N]


def test_files_that_only_workers_read_leave_others_cached(client, folders, options):
    here, _ = folders
    alone = ImageFeatureExtractor(**options, cache=None).fit(NAMES).transform(NAMES)
    (here / "3.png").unlink()
    (here / "90.png").write_bytes(b"")
    extractor = ImageFeatureExtractor(**options, cache="memory").fit(NAMES)
    images = options["backbone"].images
    for expected in (N, 0):  # at the second time a worker may know the two, or not
        before = images()
        with joblib.parallel_config("dask"):
            together = extractor.transform(NAMES)
        np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)
        assert images() - before in range(expected, expected + 3)
        assert FeatureCache("memory").statistics().entries == N - 2


@pytest.mark.parametrize("cache", ["memory", "directory"])
def test_hits_and_misses_are_those_of_the_same_work_alone(
    cache, client, images, options, tmp_path
):
    cache = FeatureCache("memory" if cache == "memory" else tmp_path / "cache")
    X = np.concatenate([images, images[:10]])
    extractor = ImageFeatureExtractor(**options, cache=cache).fit(X)
    for hits in (10, 10 + len(X)):
        with joblib.parallel_config("dask"):
            extractor.transform(X)
        statistics = cache.statistics()
        assert (statistics.hits, statistics.misses) == (hits, N)


def test_the_progress_bar_counts_repeated_images(client, images, options, capsys):
    X = np.concatenate([images, images[::-1]])
    extractor = ImageFeatureExtractor(**options, cache="memory", verbose=1).fit(X)
    for _ in range(2):
        with joblib.parallel_config("dask"):
            extractor.transform(X)
        assert f"100%|██████████| {2 * N}/{2 * N} [" in capsys.readouterr().err


def test_a_worker_killed_in_mid_transform_loses_nothing(
    client, images, options, tmp_path
):
    alone = ImageFeatureExtractor(**options, cache=None).fit(images).transform(images)
    slow = Slow(tmp_path / "slow.txt", seconds=0.1)
    extractor = ImageFeatureExtractor(**{**options, "backbone": slow}, cache=None)
    extractor.fit(images)
    killed = []

    def kill():
        while len(slow.batches()) < 6:
            time.sleep(0.02)
        killed.append(slow.batches()[-1][0])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with joblib.parallel_config("dask"):
        together = extractor.transform(images)
    killer.join()
    assert killed[0] != os.getpid()
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)
    client.wait_for_workers(2)


def test_searches_and_ensembles_give_what_they_give_alone(
    client, paths, options, tmp_path
):
    y = np.arange(N) % 2
    search = GridSearchCV(
        make_feature_classifier(**options, cache=tmp_path / "cache"),
        {"classifier__C": [1e-3, 1e-1]},
        cv=3,
        error_score="raise",
    )
    head = ImageClassifier(**options, cache=tmp_path / "cache", max_epochs=2)
    bag = BaggingClassifier(head, 3, random_state=0)
    alone = search.fit(paths, y).cv_results_["mean_test_score"]
    votes = bag.fit(paths, y).predict_proba(paths)
    before = len(options["backbone"].batches())
    with joblib.parallel_config("dask"):
        together = search.fit(paths, y).cv_results_["mean_test_score"]
        bagged = bag.fit(paths, y).predict_proba(paths)
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_allclose(bagged, votes, rtol=1e-5, atol=1e-6)
    assert len(options["backbone"].batches()) == before  # the folder has them all


def test_searches_and_ensembles_show_progress(client, paths, options, capfd):
    y = np.arange(N) % 2
    search = GridSearchCV(
        make_feature_classifier(**options), {"classifier__C": [1, 2]}, cv=3, verbose=1
    )
    bag = BaggingClassifier(ImageClassifier(**options, max_epochs=1), 3, verbose=1)
    with joblib.parallel_config("dask", verbose=1):  # what GridSearchCV leaves to it
        search.fit(paths, y)
        shown = capfd.readouterr()
        assert "Fitting 3 folds for each of 2 candidates" in shown.out
        assert "Done   6 out of   6" in shown.out + shown.err
        bag.fit(paths, y)
        shown = capfd.readouterr()
        assert "[Parallel(n_jobs=2)]: Done   2 out of   2" in shown.out + shown.err


@pytest.mark.parametrize("cache", [None, "memory"])
def test_the_features_of_a_fit_come_from_the_workers(cache, client, images, options):
    y = np.arange(N) % 2
    model = ImageClassifier(**options, trainable="head", max_epochs=2, cache=cache)
    alone = model.fit(images, y).predict_proba(images)
    FeatureCache("memory").clear()
    before = len(options["backbone"].batches())
    with joblib.parallel_config("dask"):
        together = model.fit(images, y).predict_proba(images)
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)
    batches = options["backbone"].batches()[before:]
    assert len({pid for pid, _ in batches}) == 2
    assert os.getpid() not in {pid for pid, _ in batches}
    assert sum(n for _, n in batches) == (2 * N if cache is None else N)


def test_loader_workers_become_threads_where_a_process_may_have_no_children(
    client, paths, options
):
    workers = {
        "iterator_train__num_workers": 2,
        "iterator_train__prefetch_factor": 2,
        "iterator_train__pin_memory": False,
    }
    model = ImageClassifier(
        **options, trainable="all", max_epochs=1, net_params=workers, cache=None
    )
    X, y = paths[:8], np.arange(8) % 2
    alone = model.fit(X, y).predict_proba(X)
    there = client.submit(outputs_of_a_fit, model, X, y).result()
    np.testing.assert_allclose(there, alone, rtol=1e-4)


def test_a_search_that_loses_its_data_fails_and_goes_on_from_the_folder(
    client, images, options, tmp_path
):
    # joblib scatters X: what dies with the workers is lost for every fit.
    slow = Slow(tmp_path / "slow.txt", seconds=0.05)
    cache = FeatureCache(tmp_path / "cache")
    search = GridSearchCV(
        make_feature_classifier(**{**options, "backbone": slow}, cache=cache),
        {"classifier__C": [1e-3, 1e-1]},
        cv=3,
        error_score="raise",
    )
    y = np.arange(N) % 2

    def kill():
        while len(slow.batches()) < 6:
            time.sleep(0.02)
        for process in client.run(os.getpid).values():
            os.kill(process, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with (
        joblib.parallel_config("dask"),
        pytest.raises(CancelledError, match="cancelled for reason"),
    ):
        search.fit(images, y)
    killer.join()
    client.wait_for_workers(2)
    stored = cache.statistics().entries
    before = slow.images()
    assert 0 < stored < N
    with joblib.parallel_config("dask"):
        search.fit(images, y)
    assert slow.images() - before == N - stored
    assert search.best_score_ > 0
