"""A real Dask cluster of two worker processes."""

import os
import signal
import threading
import time
from concurrent.futures import CancelledError

import joblib
import numpy as np
import pytest
from cluster_cases import Slow, outputs_of_a_fit
from distributed import Client, LocalCluster
from PIL import Image
from sklearn.ensemble import BaggingClassifier
from sklearn.model_selection import GridSearchCV

from sklearn_dl import (
    FeatureCache,
    ImageClassifier,
    ImageFeatureExtractor,
    make_feature_classifier,
)
from sklearn_dl.images import ImageDecodeError

N = 96


@pytest.fixture(scope="module")
def client():
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        client.run(_import)  # or the first to have done it takes all the work
        yield client


def _import():
    import sklearn_dl._features  # noqa: F401


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


def test_few_images_stay_here(client, images, options):
    extractor = ImageFeatureExtractor(**options).fit(images)
    with joblib.parallel_config("dask"):
        extractor.transform(images[:10])
    assert {pid for pid, _ in options["backbone"].batches()} == {os.getpid()}


def test_views_and_repeated_images(client, images, options):
    X = np.concatenate([images, images[::-1]])
    extractor = ImageFeatureExtractor(**options, tta="flip", cache=None).fit(X)
    alone = extractor.transform(X)
    before = len(options["backbone"].batches())
    extractor.set_params(cache="memory")
    with joblib.parallel_config("dask"):
        together = extractor.transform(X)
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)
    seen = sum(n for _, n in options["backbone"].batches()[before:])
    assert seen == 2 * N  # two views of each distinct image


def test_a_bad_image_is_named_by_its_row(client, paths, options, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    X = paths.copy()
    X[70, 0] = str(bad)
    for cache in (None, "memory"):
        extractor = ImageFeatureExtractor(**options, cache=cache).fit(X)
        with (
            joblib.parallel_config("dask"),
            pytest.raises(ImageDecodeError, match=r"row 70, '.*bad\.png'"),
        ):
            extractor.transform(X)


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
    before = sum(n for _, n in slow.batches())
    assert 0 < stored < N
    with joblib.parallel_config("dask"):
        search.fit(images, y)
    assert sum(n for _, n in slow.batches()) - before == N - stored
    assert search.best_score_ > 0
