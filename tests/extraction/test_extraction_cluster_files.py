"""Files of features, written by the workers of a real Dask cluster."""

import _thread
import json
import os
import signal
import threading
import time

import joblib
import numpy as np
import pytest
from cluster_cases import Slow, two_workers, wake
from PIL import Image

from sklearn_dl import ImageFeatureExtractor
from sklearn_dl._extraction import _file
from sklearn_dl.datasets import load_features

pytestmark = pytest.mark.slow  # each cluster takes seconds to start

N, BAD = 300, [5, 130, 299]


@pytest.fixture(scope="module")
def client():
    with two_workers() as client:
        yield client


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 200, (N, 32, 32, 3), "uint8")


@pytest.fixture(scope="module")
def paths(images, tmp_path_factory):
    """Return paths, of which three lead to no image."""
    folder = tmp_path_factory.mktemp("images")
    files = [str(folder / f"{row}.png") for row in range(N)]
    for row in np.setdiff1d(range(N), BAD):
        Image.fromarray(images[row]).save(files[row])
    return files


@pytest.fixture
def slow(tmp_path):
    return Slow(tmp_path / "batches.txt", seconds=0.05)


def extractor(backbone, X):
    options = {"image_size": 32, "batch_size": 8, "random_state": 0, "cache": None}
    return ImageFeatureExtractor(backbone, **options).fit(X)


@pytest.fixture
def whole(paths, tmp_path):
    """Return the path of the file that one process writes."""
    path, y = tmp_path / "whole.npy", np.arange(N) % 3
    with pytest.warns(UserWarning, match="3 of 300 images could not be read"):
        extractor(Slow(tmp_path / "alone.txt"), paths).transform_to(paths, path, y)
    return path


def write(model, X, path, n_shards=6):
    with joblib.parallel_config("dask"):
        return model.transform_to(X, path, np.arange(N) % 3, n_shards=n_shards)


def assert_equal(pattern, whole):
    one, other = load_features(whole), load_features(pattern)
    for name in ("data", "target", "filenames", "readable"):
        np.testing.assert_array_equal(one[name], other[name])
    assert one.skipped.equals(other.skipped)


@pytest.mark.filterwarnings("ignore:.*could not be read")
def test_a_worker_killed_in_mid_shard_costs_some_batches(
    client, paths, slow, whole, tmp_path
):
    model, killed = extractor(slow, paths), []
    client.run(_commit_at_once)

    def kill():
        while len(slow.batches()) < 8:
            time.sleep(0.02)
        killed.append(slow.batches()[-1][0])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    failed = write(model, paths, tmp_path / "f.npy")
    killer.join()
    assert killed[0] != os.getpid()
    assert failed["row"].tolist() == BAD
    assert_equal(tmp_path / "f-*-of-6.npy", whole)
    batches = slow.batches()
    assert len({pid for pid, _ in batches}) in (2, 3)  # one may have been started anew
    assert os.getpid() not in {pid for pid, _ in batches}
    assert sum(n for _, n in batches) <= N - len(BAD) + 3 * 8
    left = [name for name in os.listdir(tmp_path) if ".part" in name]
    assert left == []
    assert write(model, paths, tmp_path / "f.npy").equals(failed)
    assert slow.batches() == batches  # what is there is kept
    client.wait_for_workers(2)


def _commit_at_once():
    from sklearn_dl.datasets import _features_file

    _features_file._COMMIT_SECONDS = 0.0


@pytest.mark.filterwarnings("ignore:.*could not be read")
@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_workers_put_their_shards_behind_a_url(
    suffix, client, paths, slow, whole, tmp_path
):
    pytest.importorskip("fsspec")
    wake(client)  # one may have been killed
    url = f"file://{tmp_path}/f{suffix}"
    failed = write(extractor(slow, paths), paths, url)
    assert failed["row"].tolist() == BAD
    assert_equal(tmp_path / f"f-*-of-6{suffix}", whole)
    assert len({pid for pid, _ in slow.batches()}) == 2
    for folder in client.run(lambda dask_worker: dask_worker.local_directory).values():
        left = [name for name in os.listdir(folder) if name.startswith("sklearn_dl")]
        assert left == []


@pytest.mark.filterwarnings("ignore:.*could not be read")
def test_files_that_a_worker_alone_sees_are_an_error(client, paths, slow):
    pytest.importorskip("fsspec")
    with pytest.raises(FileNotFoundError, match="to a place of its own host"):
        write(extractor(slow, paths), paths, "memory://theirs/f.npy", 2)


def test_arrays_go_to_the_workers_in_parts(client, images, slow, tmp_path):
    model = extractor(slow, images)
    write(model, images, tmp_path / "f.npy", 3)
    found = load_features(tmp_path / "f-*-of-3.npy")
    np.testing.assert_array_equal(found.data, model.transform(images))
    before = slow.images()
    model.transform_to(
        images, tmp_path / "f.npy", np.arange(N) % 3, n_shards=3
    )  # here, where they are known again
    assert slow.images() == before


@pytest.mark.filterwarnings("ignore:.*could not be read")
def test_an_interrupted_call_ends_on_the_workers_too(
    client, paths, slow, whole, tmp_path
):
    model = extractor(slow, paths)

    def interrupt():
        while len(slow.batches()) < 6:
            time.sleep(0.02)
        _thread.interrupt_main()

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        write(model, paths, tmp_path / "f.npy", 2)
    time.sleep(1.0)
    begun = slow.images()
    time.sleep(0.5)
    assert slow.images() == begun < N // 2
    states = list(tmp_path.glob("f-*.part.json"))
    done = [json.loads(state.read_bytes())["done"] for state in states]
    assert 0 < sum(done) <= begun + len(BAD)
    write(model, paths, tmp_path / "f.npy", 2)
    assert_equal(tmp_path / "f-*-of-2.npy", whole)


def test_a_worker_without_the_folder_is_named(client, paths, slow, tmp_path):
    model = extractor(slow, paths)
    away = tmp_path / "away"
    away.mkdir()

    def path(shard, k, n, plain=_file.shard_path):
        return plain(shard, k, n).replace(str(away), str(tmp_path / "no"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_file, "shard_path", path)
        with pytest.raises(
            FileNotFoundError, match=r"worker on tcp://.* has no folder"
        ):
            write(model, paths, away / "f.npy")
    assert slow.batches() == []


def test_shards_that_were_written_elsewhere_are_missed(
    client, paths, slow, tmp_path, monkeypatch
):
    def spread(client, function, shared, chunks):
        yield from ((number, {}) for number, _ in enumerate(chunks))

    monkeypatch.setattr(_file, "spread", spread)
    with pytest.raises(FileNotFoundError, match=r"f-1-of-6\.npy to a place .* own"):
        write(extractor(slow, paths), paths, tmp_path / "f.npy")


def test_workers_read_the_blocks_of_a_dask_array(client, images, slow, tmp_path):
    model = extractor(slow, images)
    model.transform_to(images, tmp_path / "f.npy", np.arange(N) % 3)
    found = load_features(tmp_path / "f.npy", chunks=64)
    together = found.data.map_blocks(_with_process, dtype=float).compute()
    np.testing.assert_array_equal(
        together[:, 1:], load_features(tmp_path / "f.npy").data
    )
    assert {*together[:, 0]} <= {*client.run(os.getpid).values()}


def _with_process(block):
    return np.hstack([np.full((len(block), 1), os.getpid()), block])
