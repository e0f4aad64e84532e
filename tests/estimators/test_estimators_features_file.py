"""Features written to a file: what stands in it, kills, shards, refusals."""

import errno
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import namedtuple

import numpy as np
import pandas as pd
import processes
import pytest

from sklearn_dl import FeatureCache, ImageFeatureExtractor
from sklearn_dl.datasets import (
    _features_file,
    load_features,
    load_torch_dataset,
)

SMALL = {"weights": None, "image_size": 32, "random_state": 0, "cache": None}


def extractor(X, name="squeezenet1_1", **parameters):
    return ImageFeatureExtractor(name, **{**SMALL, **parameters}).fit(X)


@pytest.fixture(scope="module")
def model(image_files):
    return extractor(image_files, batch_size=4)


@pytest.fixture(scope="module")
def features(model, image_files):
    return model.transform(image_files)


@pytest.fixture
def damaged(image_files, tmp_path):
    """Return paths of which rows 2, 3 and the last can't be read."""
    paths = list(image_files)
    for row in (2, 3, len(paths) - 1):
        paths[row] = str(tmp_path / f"{row}.png")
    (tmp_path / "3.png").write_bytes(b"no image")
    (tmp_path / f"{len(paths) - 1}.png").write_bytes(
        open(image_files[0], "rb").read()[:60]
    )
    return paths


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_file_holds_what_transform_returns(
    model, features, image_files, tmp_path, suffix, dtype
):
    path = tmp_path / f"features{suffix}"
    y = [f"class {k % 3}" for k in range(len(image_files))]
    split = np.where(np.arange(len(image_files)) < 4, "val", "train")
    failed = model.transform_to(image_files, path, y, split=split, dtype=dtype)
    assert failed.empty
    assert list(failed.columns) == ["row", "path", "reason"]
    found = load_features(path)
    assert found.data.dtype == dtype
    np.testing.assert_array_equal(found.data, features.astype(dtype))
    assert found.target.tolist() == y
    assert found.target_names.tolist() == ["class 0", "class 1", "class 2"]
    assert found.filenames.tolist() == image_files
    assert found.split.tolist() == split.tolist()
    assert found.readable.all()
    names = {path.name, f"{path.name}.json"} if suffix == ".npy" else {path.name}
    assert set(os.listdir(tmp_path)) == names


def test_other_tools_read_the_files(model, features, image_files, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    y = np.arange(len(image_files)) / 4
    for name in ("f.npy", "f.parquet"):
        model.transform_to(image_files, tmp_path / name, y)
    np.testing.assert_array_equal(np.load(tmp_path / "f.npy"), features)
    known = json.loads((tmp_path / "f.npy.json").read_text())
    assert known["path"] == image_files
    assert known["label"] == y.tolist()
    table = parquet.read_table(tmp_path / "f.parquet")
    assert table.column_names == ["path", "label", "split", "error", "features"]
    assert table.schema.field("features").type.list_size == features.shape[1]
    frame = table.to_pandas()
    np.testing.assert_array_equal(np.stack(frame["features"]), features)
    assert frame["label"].tolist() == y.tolist()


def test_several_targets_arrays_and_views(data, tmp_path):
    X, targets = data[0], np.arange(48).reshape(24, 2) / 3
    model = extractor(X, tta="flip")
    for name in ("f.npy", "f.parquet"):
        model.transform_to(X, tmp_path / name, targets)
        found = load_features(tmp_path / name, extractor=model)
        np.testing.assert_array_equal(found.data, model.transform(X))
        np.testing.assert_array_equal(found.target, targets)
        assert found.filenames is None
        assert found.target_names is None


@pytest.mark.parametrize("cache", [None, "memory"])
@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_unreadable_images_are_rows_with_an_error(
    model, features, damaged, tmp_path, cache, suffix
):
    path = tmp_path / f"f{suffix}"
    if cache is not None:
        cache = FeatureCache(name="unreadable")
        cache.clear()
    model = extractor(damaged, batch_size=4, cache=cache)
    with pytest.warns(UserWarning, match="3 of 24 images could not be read"):
        failed = model.transform_to(damaged, path)
    assert sorted(failed["row"]) == [2, 3, 23]
    assert set(failed["path"]) == {damaged[2], damaged[3], damaged[23]}
    assert dict(zip(failed["row"], failed["reason"], strict=True))[2] == "no such file"
    found = load_features(path)
    bad = ~found.readable
    assert np.flatnonzero(bad).tolist() == [2, 3, 23]
    assert np.isnan(found.data[bad]).all()
    np.testing.assert_allclose(found.data[~bad], features[~bad], atol=1e-5)
    assert found.skipped["row"].tolist() == [2, 3, 23]
    assert found.skipped["path"].tolist() == [damaged[k] for k in (2, 3, 23)]
    assert found.skipped["reason"][0] == "no such file"


def test_a_file_of_unreadable_images_alone(damaged, model, tmp_path):
    with pytest.warns(UserWarning, match="2 of 2 images"):
        model.transform_to([damaged[2], damaged[3]], tmp_path / "f.npy")
    assert not load_features(tmp_path / "f.npy").readable.any()


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_shards_joined_are_one_run(image_files, tmp_path, suffix):
    paths = image_files * 6  # 144 rows, 5 units of 32
    y = np.arange(len(paths))
    model = extractor(image_files, batch_size=8)
    model.transform_to(paths, tmp_path / f"whole{suffix}", y)
    shards = [tmp_path / f"{k}{suffix}" for k in range(1, 8)]
    for k, shard in enumerate(shards, 1):
        model.transform_to(paths, shard, y, shard=f"{k}/7")
    whole, joined = load_features(tmp_path / f"whole{suffix}"), load_features(shards)
    sizes = [len(load_features(shard).data) for shard in shards]
    assert sizes == [0, 32, 32, 0, 32, 32, 16]
    for name in ("data", "target", "filenames", "readable"):
        np.testing.assert_array_equal(joined[name], whole[name])
    shuffled = load_features(shards[::-1])
    np.testing.assert_array_equal(shuffled.target, whole.target)


@pytest.mark.parametrize("shard", ["0/4", "5/4", "4", (1, 2, 3), 3, "a/b"])
def test_a_wrong_shard_is_refused(model, image_files, tmp_path, shard):
    with pytest.raises(ValueError, match="must be k/n with 1 <= k <= n"):
        model.transform_to(image_files, tmp_path / "f.npy", shard=shard)
    assert os.listdir(tmp_path) == []


KILLED = """
import sys, time, json
import numpy as np
import torch
from torch import nn
torch.set_num_threads(1)
from sklearn_dl import ImageFeatureExtractor
from sklearn_dl.datasets import _features_file
_features_file._COMMIT_SECONDS = 0.0
out, seconds = sys.argv[1], float(sys.argv[2])
paths = sys.argv[3:]
class Mean(nn.Module):
    def forward(self, x):
        if x.device.type != "meta":
            time.sleep(seconds)
        return x.mean((2, 3))
def mean():
    return Mean()
model = ImageFeatureExtractor(mean, image_size=32, cache=None, batch_size=2)
print("begins", flush=True)
model.fit(paths).transform_to(paths, out, np.arange(len(paths)) % 3)
"""


@pytest.mark.skipif(not processes.HAS_FORK, reason="has no SIGKILL")
@pytest.mark.filterwarnings("ignore:.*could not be read")
@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_a_killed_run_goes_on_and_equals_an_unbroken_one(damaged, tmp_path, suffix):
    whole, killed = tmp_path / f"whole{suffix}", tmp_path / f"killed{suffix}"
    state = tmp_path / f"killed{suffix}.part.json"
    processes.run(KILLED, whole, 0, *damaged)
    before = 0
    for _ in range(3):
        process = processes.start(KILLED, killed, 0.1, *damaged)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:  # until it has written more
            assert process.poll() is None
            if state.exists() and json.loads(state.read_bytes())["done"] > before:
                break
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        done = json.loads(state.read_bytes())["done"]
        assert before < done < len(damaged)
        assert not killed.exists()
        with pytest.raises(FileNotFoundError, match="half of it"):
            load_features(killed)
        before = done
    processes.run(KILLED, killed, 0, *damaged)
    one, other = load_features(whole), load_features(killed)
    for name in ("data", "target", "filenames", "readable"):
        np.testing.assert_array_equal(one[name], other[name])
    assert one.skipped.equals(other.skipped)
    left = [name for name in os.listdir(tmp_path) if "part" in name.split(".")]
    assert left == []


class Stopped(Exception):
    pass


@pytest.fixture
def half_written(model, image_files, tmp_path, monkeypatch):
    """Return the path of a file whose writing was ended after 8 rows."""
    path, put = tmp_path / "f.npy", _features_file.FeaturesWriter.put

    def stop(self, rows, values):
        if rows[0] >= 8:
            raise Stopped
        put(self, rows, values)

    with monkeypatch.context() as patch:
        patch.setattr(_features_file.FeaturesWriter, "put", stop)
        with pytest.raises(Stopped):
            model.transform_to(image_files, path)
    assert json.loads((tmp_path / "f.npy.part.json").read_bytes())["done"] == 8
    return path


def test_what_was_written_is_not_computed_again(
    model, features, image_files, half_written
):
    seen = []
    hook = model.backbone_.register_forward_hook(lambda m, x, y: seen.append(len(y)))
    try:
        model.transform_to(image_files, half_written)
    finally:
        hook.remove()
    assert sum(seen) == len(image_files) - 8
    np.testing.assert_array_equal(np.load(half_written), features)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"name": "squeezenet1_0"}, "backbone is 'squeezenet1_1', not 'squeezenet1_0'"),
        ({"random_state": 1}, "weights is"),
        ({"image_size": 40}, "preprocessing is"),
        ({"tta": "flip"}, "tta is None"),
        ({"dtype": "float16"}, "dtype is 'float32', not 'float16'"),
        ({"shard": "1/2"}, r"shard is None, not \[1, 2\]"),
        ({"rows": 20}, "rows is 24, not 20"),
    ],
)
def test_a_half_written_file_of_other_features_is_kept(
    image_files, half_written, change, text
):
    paths = image_files[: change.pop("rows", None)]
    options = {k: change.pop(k) for k in ("dtype", "shard") if k in change}
    model = extractor(paths, **change)
    before = (half_written.parent / "f.npy.part").read_bytes()
    with pytest.raises(ValueError, match=f"half-written.*{text}.*delete it and f.npy"):
        model.transform_to(paths, half_written, **options)
    assert (half_written.parent / "f.npy.part").read_bytes() == before


def test_other_images_are_not_gone_on_with(model, image_files, half_written):
    with pytest.raises(ValueError, match="images_digest is"):
        model.transform_to(image_files[::-1], half_written)


def test_other_arrays_are_not_gone_on_with(data, tmp_path, monkeypatch):
    X, put = data[0], _features_file.FeaturesWriter.put

    def stop(self, rows, values):
        put(self, rows, values)
        raise Stopped

    model = extractor(X, batch_size=4)
    with monkeypatch.context() as patch:
        patch.setattr(_features_file.FeaturesWriter, "put", stop)
        with pytest.raises(Stopped):
            model.transform_to(X, tmp_path / "f.npy")
    with pytest.raises(ValueError, match="images_digest is"):
        model.transform_to(255 - X, tmp_path / "f.npy")
    model.transform_to(X, tmp_path / "f.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "f.npy"), model.transform(X))


def test_a_damaged_state_is_named(model, image_files, half_written):
    (half_written.parent / "f.npy.part.json").write_text("{")
    with pytest.raises(ValueError, match=r"f\.npy\.part\.json is damaged or foreign"):
        model.transform_to(image_files, half_written)


def test_a_kill_before_the_json_has_its_name_costs_nothing(
    model, features, image_files, tmp_path, monkeypatch
):
    path = tmp_path / "f.npy"
    model.transform_to(image_files, path, ["old"] * 24)

    def stop(*args):
        raise Stopped

    replace = os.replace

    def replace_array(source, target):
        replace(source, target)
        if os.fspath(target) == os.fspath(path):
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace_array)
        with pytest.raises(Stopped):
            model.transform_to(image_files, path, ["new"] * 24)
    with pytest.raises(FileNotFoundError, match=r"There is no .*f\.npy\.json"):
        load_features(path)
    monkeypatch.setattr(_features_file.FeaturesWriter, "put", stop)  # nothing is left
    model.transform_to(image_files, path, ["new"] * 24)
    assert set(load_features(path).target) == {"new"}
    assert sorted(os.listdir(tmp_path)) == ["f.npy", "f.npy.json"]


def test_a_kill_after_a_parquet_has_its_name_does_no_harm(
    model, features, image_files, tmp_path, monkeypatch
):
    pytest.importorskip("pyarrow")
    path, finish = tmp_path / "f.parquet", _features_file.FeaturesWriter.finish

    def stop(self):
        self._commit()
        state = self._state.read_bytes()
        finish(self)
        self._state.write_bytes(state)  # as if it had not come to its removal
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(_features_file.FeaturesWriter, "finish", stop)
        with pytest.raises(Stopped):
            model.transform_to(image_files, path)
    np.testing.assert_array_equal(load_features(path).data, features)
    model.transform_to(image_files, path)
    np.testing.assert_array_equal(load_features(path).data, features)
    assert os.listdir(tmp_path) == ["f.parquet"]


def test_an_image_that_was_mended_between_two_runs_is_readable(
    model, image_files, tmp_path, monkeypatch
):
    paths = [*image_files[:9], str(tmp_path / "9.png")]
    expected = model.transform(image_files[:10])

    def stop(self, rows, values):
        raise Stopped  # before anything is written

    with monkeypatch.context() as patch:
        patch.setattr(_features_file.FeaturesWriter, "put", stop)
        with pytest.raises(Stopped):
            extractor(image_files, batch_size=10).transform_to(
                paths, tmp_path / "f.npy"
            )
    assert json.loads((tmp_path / "f.npy.part.json").read_bytes())["errors"]
    shutil.copy(image_files[9], paths[9])
    assert model.transform_to(paths, tmp_path / "f.npy").empty
    found = load_features(tmp_path / "f.npy")
    assert found.readable.all()
    np.testing.assert_allclose(found.data, expected, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.dtype("float16"), "f2", "half"])
def test_the_dtype_may_be_one_of_numpy(model, image_files, tmp_path, dtype):
    model.transform_to(image_files, tmp_path / "f.npy", dtype=dtype)
    assert load_features(tmp_path / "f.npy").data.dtype == np.float16


def test_images_of_which_some_have_paths(model, image_files, tmp_path):
    from PIL import Image

    images = [Image.open(image_files[0]), Image.new("RGB", (40, 40))]
    for some in (images, images[::-1]):
        model.transform_to(some, tmp_path / "f.npy")
        found = load_features(tmp_path / "f.npy")
        np.testing.assert_array_equal(found.data, model.transform(some))
        assert found.filenames is None


def test_other_channels_of_the_same_images_are_told_apart(tmp_path):
    from sklearn_dl.datasets import Channels

    X = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 5), "uint8")
    models = [extractor(X, image_shape=Channels(c)) for c in ([0, 1, 2], [2, 1, 0])]
    models[0].transform_to(X, tmp_path / "f.npy")
    load_features(tmp_path / "f.npy", extractor=models[0])
    with pytest.raises(
        ValueError, match=r"its channels is \[0, 1, 2\], not \[2, 1, 0\]"
    ):
        load_features(tmp_path / "f.npy", extractor=models[1])


def test_what_stood_there_stays_until_all_is_written(
    model, features, image_files, half_written
):
    shutil.copy(half_written.parent / "f.npy.part", half_written)  # what stood there
    before = half_written.read_bytes()
    (half_written.parent / "f.npy.part").unlink()
    model.transform_to(image_files, half_written)
    assert half_written.read_bytes() != before
    np.testing.assert_array_equal(np.load(half_written), features)


def test_values_beyond_float16_are_an_error_with_the_way_out(data, tmp_path):
    import torch

    class Times(torch.nn.Module):
        def forward(self, x):
            return x.mean((2, 3)) * 1e7 * (x.mean() > -9)

    model = ImageFeatureExtractor(Times, image_size=32, cache=None).fit(data[0])
    with pytest.raises(
        ValueError, match=r"Row \d+ has the feature .*65504.*dtype='float32' holds it"
    ):
        model.transform_to(data[0], tmp_path / "f.npy", dtype="float16")
    assert not (tmp_path / "f.npy").exists()
    model.transform_to(data[0], tmp_path / "g.npy")
    assert np.isfinite(load_features(tmp_path / "g.npy").data).all()


def test_the_error_of_float16_names_the_path(image_files, tmp_path):
    writer_of = _features_file.FeaturesWriter
    from sklearn_dl._images import as_source

    table = _features_file.FeaturesTable(as_source(image_files))
    about = {"features": {}, "dtype": "float16", "n_features": 2}
    about |= {"shard": None, "of_rows": 24, "versions": {}}
    values = np.array([[1, 2], [70000, 1]], "float32")
    with writer_of(tmp_path / "f.npy", table, range(24), about) as writer:
        with pytest.raises(
            ValueError, match=r"Row 1, '.*01\.png', has the feature 70000"
        ):
            writer.put(np.array([0, 1]), values)
        writer.put(np.array([0, 1]), np.array([[1, 2], [np.inf, 1]], "float32"))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"y": ["a"] * 3}, r"y has the shape \(3,\), X has 24 rows"),
        ({"y": [{}] * 24}, "y of dtype object has no labels"),
        ({"y": [1.0, np.nan] * 12}, "y has no value in row 1"),
        ({"y": ["a", None] * 12}, "y has no value in row 1"),
        ({"y": ["a", np.nan] * 12}, "y has no value in row 1"),
        (
            {"y": pd.Series([1] * 23 + [None], dtype="Int64")},
            "y has no value in row 23",
        ),
        ({"split": ["train", None] * 12}, "split has no value in row 1"),
        ({"split": [1] * 24}, "split of dtype int64 has no text"),
        ({"dtype": "float64"}, "dtype='float64' must be float32 or float16"),
    ],
)
def test_bad_columns_are_refused(model, image_files, tmp_path, options, text):
    with pytest.raises(ValueError, match=text):
        model.transform_to(image_files, tmp_path / "f.npy", **options)
    assert os.listdir(tmp_path) == []


def test_where_memory_is_short_the_way_out_is_named(image_files, monkeypatch):
    from sklearn_dl import _features, make_feature_classifier

    y = ["a", "b"] * 12
    small = {"backbone": "squeezenet1_1", "image_size": 32, "weights": None}
    model = make_feature_classifier(**small, cache=None)
    monkeypatch.setattr(_features, "free_bytes", lambda device: 24 * 512 * 4)
    with warnings.catch_warnings():  # it isn't asked for so few
        warnings.simplefilter("error")
        model.fit(image_files, y)
    monkeypatch.setattr(_features, "_LARGE_BYTES", 24 * 512 * 4 - 1)
    with pytest.warns(UserWarning, match="24 images take 0.0 GB.*transform_to writes"):
        model.fit(image_files, y)


def test_bad_paths_are_refused(model, image_files, tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.npy or \.parquet"):
        model.transform_to(image_files, tmp_path / "f.csv")
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        model.transform_to(image_files, tmp_path / "no" / "f.npy")
    with pytest.raises(IsADirectoryError):
        model.transform_to(image_files, tmp_path)


def test_too_little_room_is_said_before_the_work(
    model, image_files, tmp_path, monkeypatch
):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 9, 1))
    with pytest.raises(OSError, match=r"The disk is full: .* are needed") as caught:
        model.transform_to(image_files, tmp_path / "f.npy")
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path) == []


def test_a_disk_that_becomes_full_is_named_and_what_is_done_stays(
    model, features, image_files, tmp_path, monkeypatch
):
    path, opened = tmp_path / "f.npy", _features_file.FeaturesWriter.__enter__

    class Full:
        def __init__(self, file):
            self.file, self.left = file, 3

        def write(self, block):
            self.left -= 1
            if self.left < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(block)

        def __getattr__(self, name):
            return getattr(self.file, name)

    def enter(self):
        writer = opened(self)
        writer._file = Full(writer._file)
        return writer

    with monkeypatch.context() as patch:
        patch.setattr(_features_file.FeaturesWriter, "__enter__", enter)
        with pytest.raises(OSError, match="The disk is full") as caught:
            model.transform_to(image_files, path)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(path)
    assert json.loads((tmp_path / "f.npy.part.json").read_bytes())["done"] == 12
    model.transform_to(image_files, path)
    np.testing.assert_array_equal(np.load(path), features)


def test_names_that_are_no_unicode_are_kept(model, image_files, tmp_path):
    name = os.fsencode(tmp_path) + b"/\xff.png"
    try:
        shutil.copy(image_files[0], name)
    except OSError:
        pytest.skip("names of files are Unicode here")
    paths = [os.fsdecode(name), image_files[1]]
    for file in ("f.npy", "f.parquet"):
        model.transform_to(paths, tmp_path / file, [os.fsdecode(b"\xfe"), "b"])
    found = load_features(tmp_path / "f.npy")
    assert found.filenames.tolist() == paths
    assert found.target.tolist() == [os.fsdecode(b"\xfe"), "b"]
    assert load_features(tmp_path / "f.parquet").target.tolist() == [r"\xfe", "b"]


def test_an_extractor_is_to_be_fitted(image_files, tmp_path):
    from sklearn.exceptions import NotFittedError

    with pytest.raises(NotFittedError):
        ImageFeatureExtractor("squeezenet1_1").transform_to(image_files, "f.npy")


def test_a_log_has_lines_with_rate_and_time_left(
    model, image_files, half_written, monkeypatch, capsys
):
    from sklearn_dl._extraction import _predict

    monkeypatch.setattr(_predict, "_LINE_SECONDS", 0.0)
    extractor(image_files, batch_size=4, verbose=2).transform_to(
        image_files, half_written
    )
    printed, errors = capsys.readouterr()
    assert printed == ""
    lines = errors.splitlines()
    pattern = r"features: (\d+) of 24, +(\S+img|s/img|\?img)\S*, \S+ left"
    assert [bool(re.fullmatch(pattern, line)) for line in lines] == [True] * len(lines)
    numbers = [int(re.search(r"\d+", line)[0]) for line in lines]
    assert numbers == sorted(numbers)
    assert numbers[-1] == 24
    assert numbers[0] >= 8  # what was done before


# --------------------------------------------------------------------- parts and URLs


@pytest.fixture
def many(image_files):
    """Return 144 paths, 5 units of 32 rows."""
    return image_files * 6


def parts(folder, n=3, suffix=".npy"):
    return [folder / f"f-{k}-of-{n}{suffix}" for k in range(1, n + 1)]


@pytest.fixture
def computed(model):
    """Return a list that grows by the size of each batch that goes through."""
    seen = []
    hook = model.backbone_.register_forward_hook(lambda m, x, y: seen.append(len(y)))
    yield seen
    hook.remove()


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_all_parts_are_one_run_and_are_kept(model, many, tmp_path, suffix, computed):
    y, path = np.arange(len(many)), tmp_path / f"f{suffix}"
    model.transform_to(many, tmp_path / f"whole{suffix}", y)
    whole = load_features(tmp_path / f"whole{suffix}")
    computed.clear()
    for images in (len(many), 0):
        assert model.transform_to(many, path, y, n_shards=3).empty
        assert sum(computed) == images
        computed.clear()
    joined = load_features(tmp_path / f"f-*-of-3{suffix}")
    assert {f.name for f in parts(tmp_path, 3, suffix)} <= set(os.listdir(tmp_path))
    for name in ("data", "target", "filenames", "readable"):
        np.testing.assert_array_equal(joined[name], whole[name])
    shard = tmp_path / f"f-2-of-3{suffix}"  # as a job of an array writes it
    before = load_features(shard)
    shard.unlink()
    model.transform_to(many, shard, y, shard=(2, 3))
    np.testing.assert_array_equal(load_features(shard).data, before.data)
    computed.clear()
    model.transform_to(many, path, y, n_shards=3)
    assert computed == []


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_parts_of_something_else_are_written_again(
    model, many, tmp_path, suffix, computed
):
    y, path = np.arange(len(many)), tmp_path / f"f{suffix}"

    def write(X=many, y=y, **options):
        computed.clear()
        model.transform_to(X, path, y, n_shards=3, **options)
        return sum(computed)

    sizes = [32, 64, 48]
    assert write() == sum(sizes)
    parts(tmp_path, 3, suffix)[1].unlink()
    assert write() == sizes[1]
    labels = y.copy()
    labels[-1] = -1
    assert write(y=labels) == sizes[2]
    assert load_features(tmp_path / f"f-*-of-3{suffix}").target[-1] == -1
    assert write(y=labels, dtype="float16") == sum(sizes)
    assert write([*many[:33], many[0], *many[34:]], labels, dtype="float16") == 64
    parts(tmp_path, 3, suffix)[0].write_bytes(b"damaged")
    assert write(many, labels, dtype="float16") == 32 + 64
    other = extractor(many[:2], random_state=1, batch_size=4)
    other.transform_to(many, path, labels, dtype="float16", n_shards=3)
    found = load_features(tmp_path / f"f-*-of-3{suffix}", extractor=other)
    np.testing.assert_array_equal(found.data, other.transform(many).astype("float16"))


def test_parts_have_errors_by_rows_of_the_whole(model, many, tmp_path):
    paths, bad = list(many), [0, 33, 95, 143]
    for row in bad:
        paths[row] = str(tmp_path / f"no {row}.png")
    for _ in range(2):  # the second time of the parts that are there
        with pytest.warns(UserWarning, match="4 of 144 images could not be read"):
            failed = model.transform_to(paths, tmp_path / "f.npy", n_shards=3)
        assert failed["row"].tolist() == bad
        assert failed["path"].tolist() == [paths[row] for row in bad]
        assert set(failed["reason"]) == {"no such file"}
    assert load_features(parts(tmp_path)).skipped.equals(failed)


def test_parts_go_on_where_they_were_ended(
    model, many, tmp_path, monkeypatch, computed
):
    path, put = tmp_path / "f.npy", _features_file.FeaturesWriter.put

    def stop(self, rows, values):
        if rows[0] >= 60:  # in the second
            raise Stopped
        put(self, rows, values)

    with monkeypatch.context() as patch:
        patch.setattr(_features_file.FeaturesWriter, "put", stop)
        with pytest.raises(Stopped):
            model.transform_to(many, path, n_shards=3)
    computed.clear()
    model.transform_to(many, path, n_shards=3)
    assert sum(computed) == len(many) - 60
    np.testing.assert_array_equal(
        load_features(parts(tmp_path)).data, model.transform(many)
    )


def test_a_dataset_without_paths_is_written_again(data, tmp_path):
    torch_data = pytest.importorskip("torch.utils.data")
    import torch

    pixels = torch.from_numpy(data[0].transpose(0, 3, 1, 2) / np.float32(255))
    model = extractor(data[0], batch_size=4)
    for images in (pixels, 1 - pixels):
        X = load_torch_dataset(torch_data.TensorDataset(images, torch.zeros(24)))
        model.transform_to(X.data, tmp_path / "f.npy", n_shards=1)
        found = load_features(tmp_path / "f-1-of-1.npy")
        np.testing.assert_array_equal(found.data, model.transform(X.data))


@pytest.mark.parametrize("n", [0, -1, 2.0, True, "16"])
def test_a_wrong_number_of_parts_is_refused(model, image_files, tmp_path, n):
    with pytest.raises(ValueError, match=r"n_shards=.* must be an int, 1 or more"):
        model.transform_to(image_files, tmp_path / "f.npy", n_shards=n)
    with pytest.raises(ValueError, match="shard is one of several parts, n_shards all"):
        model.transform_to(image_files, tmp_path / "f.npy", shard=(1, 2), n_shards=2)
    assert os.listdir(tmp_path) == []


@pytest.fixture
def memory():
    """Return the files behind memory:// URLs."""
    system = pytest.importorskip("fsspec").filesystem("memory")
    yield system
    system.rm("/put", recursive=True)


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_files_are_put_behind_urls(
    model, many, tmp_path, memory, suffix, computed, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    url, n = f"memory://put/f{suffix}", len(many)
    model.transform_to(many, url, range(n))
    expected, more = model.transform(many), [".json"] * (suffix == ".npy")
    computed.clear()
    for images in (n, 0):
        model.transform_to(many, url, range(n), n_shards=2)
        assert sum(computed) == images
        computed.clear()
    assert os.listdir(tmp_path) == []
    names = [f"f{part}{suffix}" for part in ("", "-1-of-2", "-2-of-2")]
    found = {name.rpartition("/")[2] for name in memory.ls("/put", detail=False)}
    assert found == {name + end for name in names for end in ("", *more)}
    memory.get("/put/", str(tmp_path / "copied") + "/", recursive=True)
    for path in (f"f{suffix}", f"f-*-of-2{suffix}"):
        here = load_features(tmp_path / "copied" / path)
        np.testing.assert_array_equal(here.data, expected)
        assert here.target.tolist() == [*range(n)]
    memory.pipe(f"/put/f-1-of-2{suffix}", b"damaged")
    if suffix == ".npy":
        memory.rm_file("/put/f-1-of-2.npy.json")
    model.transform_to(many, url, range(n), n_shards=2)
    assert sum(computed) == 64


def test_what_a_server_refuses_for_a_while_is_put_again(
    model, image_files, memory, monkeypatch
):
    from sklearn_dl._images import _remote

    put, tries = type(memory).put_file, []

    def moody(self, *arguments, **options):
        tries.append(arguments)
        if len(tries) % 3:
            raise ConnectionError("try later")
        return put(self, *arguments, **options)

    monkeypatch.setattr(_remote, "_PAUSE", 0.0)
    monkeypatch.setattr(type(memory), "put_file", moody)
    model.transform_to(image_files, "memory://put/f.npy")
    assert len(tries) == 6
    monkeypatch.setattr(_remote, "_ATTEMPTS", 2)
    with pytest.raises(ValueError, match="couldn't be written 2 times: try later"):
        model.transform_to(image_files, "memory://put/f.npy")


def test_a_url_without_a_driver_is_refused_at_once(model, image_files, computed):
    pytest.importorskip("fsspec")
    with pytest.raises(ValueError, match="Protocol not known: nosuch"):
        model.transform_to(image_files, "nosuch://bucket/f.npy")
    with pytest.raises(ValueError, match=r"must end in \.npy or \.parquet"):
        model.transform_to(image_files, "memory://put/f.h5")
    assert computed == []


def test_parts_need_no_dask(model, many, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    model.transform_to(many, tmp_path / "f.npy", n_shards=2)
    found = load_features(tmp_path / "f-*-of-2.npy")
    np.testing.assert_array_equal(found.data, model.transform(many))


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_parts_of_other_labels_or_images_do_not_join(model, many, tmp_path, suffix):
    path, n = tmp_path / f"f{suffix}", len(many)
    parts = [tmp_path / f"f-{k}-of-2{suffix}" for k in (1, 2)]
    model.transform_to(many, path, ["old"] * n, n_shards=2)
    model.transform_to(many, parts[0], ["new"] * n, shard=(1, 2))
    with pytest.raises(ValueError, match="parts of different images, labels"):
        load_features(tmp_path / f"f-*-of-2{suffix}")
    model.transform_to(many, path, ["new"] * n, n_shards=2)
    assert set(load_features(parts).target) == {"new"}


def test_labels_beyond_64_bits_are_refused_before_the_work(
    model, many, tmp_path, computed
):
    y = np.full(len(many), 2**63, "uint64")
    computed.clear()
    with pytest.raises(ValueError, match="y has the label 9223372036854775808"):
        model.transform_to(many, tmp_path / "f.npy", y)
    assert sum(computed) == 0
