"""Files of features are read back, whole and in chunks."""

import json
import os
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sklearn_dl._images import as_source
from sklearn_dl.datasets import (
    FeaturesTable,
    FeaturesWriter,
    TakenOver,
    _features_file,
    iter_features,
    load_features,
    send_features,
    shard_path,
    shard_rows,
)

RNG = np.random.default_rng(0)
X = RNG.standard_normal((1000, 8), dtype=np.float32)
Y = np.repeat(["a", "b", "c", "d"], 250)
SPLIT = np.where(np.arange(1000) % 5 == 0, "val", "train")
DESCRIPTION = {"backbone": "made_up", "weights": "0123", "layer": "pre_logits"}


class Extractor:
    """Stands for an extractor, of which only what its features depend on is asked."""

    def __init__(self, **changed):
        self.changed = changed

    def describe_features(self):
        return {**DESCRIPTION, **self.changed}


def write(path, *, bad=(), shard=None, dtype="float16", y=Y, split=SPLIT, **changed):
    source = as_source([f"{k}.jpg" for k in range(len(X))])
    rows = shard_rows(len(X), shard)
    about = {"features": {**DESCRIPTION, **changed}, "dtype": dtype}
    about |= {"n_features": 8, "shard": shard, "of_rows": len(X), "versions": {}}
    table = FeaturesTable(source, y, split)
    with FeaturesWriter(path, table, rows, about) as writer:
        keep = np.setdiff1d(rows, bad)
        if len(keep):
            writer.put(keep, X[keep])
        writer.errors.update({row: "damaged" for row in bad if row in rows})
        writer.finish()
    return path


@pytest.fixture(params=[".npy", ".parquet"])
def file(request, tmp_path):
    return write(tmp_path / f"f{request.param}", bad=[3, 999])


def test_all_comes_back(file):
    found = load_features(file)
    keep = np.setdiff1d(np.arange(1000), [3, 999])
    np.testing.assert_array_equal(found.data[keep], X[keep].astype("float16"))
    assert np.isnan(found.data[[3, 999]]).all()
    assert found.target.tolist() == Y.tolist()
    assert found.target_names.tolist() == ["a", "b", "c", "d"]
    assert found.filenames[7] == "7.jpg"
    assert found.split.tolist() == SPLIT.tolist()
    assert found.metadata["features"] == DESCRIPTION
    expected = {
        "row": [3, 999],
        "path": ["3.jpg", "999.jpg"],
        "reason": ["damaged"] * 2,
    }
    pd.testing.assert_frame_equal(
        found.skipped, pd.DataFrame(expected), check_dtype=False
    )
    data, target = load_features(file, return_X_y=True)
    assert data.shape == (1000, 8)
    assert len(target) == 1000


def test_npy_is_mapped_and_read_only(tmp_path):
    data = load_features(write(tmp_path / "f.npy")).data
    assert isinstance(data, np.memmap)
    assert not data.flags.writeable


def test_a_split(file):
    found = load_features(file, split="val")
    of_val = np.flatnonzero(SPLIT == "val")
    assert found.filenames.tolist() == [f"{k}.jpg" for k in of_val]
    np.testing.assert_array_equal(found.data, X[of_val].astype("float16"))
    assert found.skipped.empty
    train = load_features(file, split="train")
    assert train.skipped["path"].tolist() == ["3.jpg", "999.jpg"]
    assert train.filenames[train.skipped["row"]].tolist() == ["3.jpg", "999.jpg"]
    with pytest.raises(ValueError, match=r"no split 'vall'\. Did you mean 'val'"):
        load_features(file, split="vall")


@pytest.mark.parametrize(
    ("kind", "y"), [("i", range(1000)), ("f", X[:, 0]), ("b", Y == "a")]
)
def test_labels_keep_their_kind(tmp_path, kind, y):
    for name in ("f.npy", "f.parquet"):
        found = load_features(write(tmp_path / name, y=np.asarray(y), split=None))
        assert found.target.dtype.kind == kind
        assert found.target.tolist() == np.asarray(y).tolist()
        assert (found.target_names is None) == (kind == "f")
        assert found.split is None


def test_chunks_are_float32_without_what_could_not_be_read(file):
    chunks = list(iter_features(file, rows=300))
    assert [len(part) for part, _ in chunks] == [299, 300, 300, 99]
    keep = np.setdiff1d(np.arange(1000), [3, 999])
    features = np.concatenate([part for part, _ in chunks])
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, X[keep].astype("float16").astype("float32"))
    assert np.concatenate([y for _, y in chunks]).tolist() == Y[keep].tolist()


def test_chunks_of_a_split_without_labels(tmp_path):
    path = write(tmp_path / "f.npy", y=None)
    chunks = list(iter_features(path, rows=400, split="val"))
    assert [len(part) for part, _ in chunks] == [80, 80, 40]
    assert all(y is None for _, y in chunks)


@pytest.mark.parametrize("rows", [1, 50, 200, 5000])
def test_shuffled_chunks_hold_each_row_once(tmp_path, rows):
    path = write(tmp_path / "f.npy", bad=[3, 999], dtype="float32", y=np.arange(1000))
    chunks = list(iter_features(path, rows, shuffle=True, random_state=0))
    assert max(len(part) for part, _ in chunks) <= rows
    order = np.concatenate([y for _, y in chunks])
    assert sorted(order) == sorted({*range(1000)} - {3, 999})
    np.testing.assert_array_equal(
        np.concatenate([part for part, _ in chunks]), X[order]
    )
    again = np.concatenate(
        [y for _, y in iter_features(path, rows, shuffle=True, random_state=0)]
    )
    assert again.tolist() == order.tolist()
    other = [y for _, y in iter_features(path, rows, shuffle=True, random_state=1)]
    assert np.concatenate(other).tolist() != order.tolist()


def test_a_shuffled_chunk_has_rows_from_all_over_the_file(tmp_path):
    path = write(tmp_path / "f.npy")
    part, labels = next(iter_features(path, 512, shuffle=True, random_state=0))
    assert len(part) == len(labels) == 512
    assert set(labels) == {"a", "b", "c", "d"}
    changes = np.count_nonzero(labels[1:] != labels[:-1])
    assert changes > 200  # of 512 by chance 384, of whole runs 8


def test_parquet_is_not_shuffled(tmp_path):
    path = write(tmp_path / "f.parquet")
    with pytest.raises(ValueError, match=r"shuffle=True needs \.npy"):
        iter_features(path, shuffle=True)


@pytest.mark.parametrize("rows", [0, -1, 2.5, True])
def test_chunks_have_rows(file, rows):
    with pytest.raises(ValueError, match="must be an int, 1 or more"):
        iter_features(file, rows)


def shards(folder, n=3, **options):
    return [
        write(folder / f"{k}-of-{n}.npy", shard=(k, n), **options)
        for k in range(1, n + 1)
    ]


def test_shards_in_any_order_are_the_whole(tmp_path):
    files = shards(tmp_path, bad=[3, 999])
    whole = load_features(write(tmp_path / "whole.npy", bad=[3, 999]))
    joined = load_features(files[::-1])
    np.testing.assert_array_equal(joined.data, whole.data)
    for name in ("target", "filenames", "split", "readable"):
        assert joined[name].tolist() == whole[name].tolist()
    assert joined.skipped.equals(whole.skipped)
    chunks = iter_features(files[::-1], 128)
    assert np.concatenate([y for _, y in chunks]).tolist() == [
        y for k, y in enumerate(Y) if k not in (3, 999)
    ]
    mixed = iter_features(files, 128, shuffle=True, random_state=0)
    assert sum(len(part) for part, _ in mixed) == 998


def test_other_files_are_joined_as_they_come(tmp_path):
    files = [write(tmp_path / "one.npy"), write(tmp_path / "two.parquet", bad=[0])]
    found = load_features(files)
    assert len(found.data) == 2000
    assert found.skipped["row"].tolist() == [1000]


def test_what_is_no_whole_is_refused(tmp_path):
    files = shards(tmp_path)
    for some, text in (
        (files[:2], "2 shards of 3 are no whole: 3 not there"),
        ([files[0], files[0], files[1], files[2]], "is there twice"),
        ([*files, write(tmp_path / "w.npy")], "that is none"),
        ([], "empty list"),
    ):
        with pytest.raises(ValueError, match=text):
            load_features(some)


def test_files_of_other_features_are_not_joined(tmp_path):
    one, two = write(tmp_path / "1.npy"), write(tmp_path / "2.npy", weights="4567")
    with pytest.raises(
        ValueError, match=r"2\.npy doesn't belong to .*1\.npy: its weig"
    ):
        load_features([one, two])
    three = write(tmp_path / "3.npy", dtype="float32")
    with pytest.raises(ValueError, match="dtype is 'float32', not 'float16'"):
        list(iter_features([one, three]))
    four = write(tmp_path / "4.npy", split=None)
    with pytest.raises(ValueError, match="have a column 'split', others have none"):
        load_features([one, four])


def test_a_link_leads_to_the_file_and_its_json(tmp_path):
    (tmp_path / "there").mkdir()
    write(tmp_path / "there" / "real.npy")
    link = tmp_path / "link.npy"
    try:
        link.symlink_to(tmp_path / "there" / "real.npy")
    except OSError:
        pytest.skip("no links here")
    np.testing.assert_array_equal(load_features(link).data, X.astype("float16"))


def test_another_extractor_is_an_error(file):
    load_features(file, extractor=Extractor())
    for read in (load_features, iter_features):
        with pytest.raises(
            ValueError, match="other features than this Extractor gives"
        ):
            read(file, extractor=Extractor(backbone="another"))
        with pytest.raises(ValueError, match="its weights is '0123', not '4567'"):
            read(file, extractor=Extractor(weights="4567"))
        with pytest.raises(ValueError, match="its tta is None, not 'flip'"):
            read(file, extractor=Extractor(tta="flip"))


def test_damaged_files_are_named(file):
    content = file.read_bytes()
    for part in (content[:-100], content[:50], b""):
        file.write_bytes(part)
        with pytest.raises(
            ValueError, match=f"{file.name} is no whole file of features"
        ):
            load_features(file)


@pytest.mark.parametrize(
    "change",
    [
        lambda known: {**known, "rows": 999},
        lambda known: {**known, "dtype": "float32"},
        lambda known: {**known, "label": known["label"][:-1]},
        lambda known: {**known, "format": "another"},
        lambda known: {**known, "version": 2},
        lambda known: {k: v for k, v in known.items() if k != "errors"},
        lambda known: [],
        lambda known: {"a": 1},
    ],
)
def test_a_json_that_does_not_fit_is_refused(tmp_path, change):
    file = write(tmp_path / "f.npy")
    beside = tmp_path / "f.npy.json"
    beside.write_text(json.dumps(change(json.loads(beside.read_text()))))
    with pytest.raises(ValueError, match=r"f\.npy is no whole file of features"):
        load_features(file)


def test_foreign_files_are_refused(tmp_path):
    write(tmp_path / "f.npy")
    for content in ("[]", '{"a": 1}'):
        (tmp_path / "f.npy.json").write_text(content)
        with pytest.raises(ValueError, match="its metadata are of something else"):
            load_features(tmp_path / "f.npy")
    np.save(tmp_path / "plain.npy", X)
    with pytest.raises(FileNotFoundError, match=r"plain array is read by numpy\.load"):
        load_features(tmp_path / "plain.npy")
    pd.DataFrame({"path": ["a"]}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(ValueError, match="its metadata are of something else"):
        load_features(tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"must end in \.npy or \.parquet"):
        load_features(tmp_path / "f.csv")
    with pytest.raises(FileNotFoundError, match="No such file"):
        load_features(tmp_path / "no.npy")
    with pytest.raises(IsADirectoryError):
        load_features(tmp_path)


def test_reading_needs_no_torch(tmp_path):
    path = write(tmp_path / "f.npy")
    code = (
        "import sys\nfrom sklearn_dl.datasets import iter_features, load_features\n"
        f"load_features({str(path)!r}), list(iter_features({str(path)!r}))\n"
        "print({'torch', 'skorch'} & {*sys.modules})"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    assert subprocess.check_output(command, env=environment) == b"set()\n"


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    path = write(tmp_path / "f.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r'pip install "sklearn_dl\[tables\]"'):
        load_features(path)


def test_sgd_learns_from_chunks_as_from_the_whole(tmp_path):
    from sklearn.linear_model import SGDClassifier

    features = X + (Y[:, None] == ["a", "b", "c", "d", "", "", "", ""]) * 6
    path = tmp_path / "f.npy"
    source = as_source([f"{k}.jpg" for k in range(len(X))])
    about = {"features": {}, "dtype": "float16", "n_features": 8}
    about |= {"shard": None, "of_rows": len(X), "versions": {}}
    table = FeaturesTable(source, Y)
    with FeaturesWriter(path, table, range(1000), about) as writer:
        writer.put(np.arange(1000), features)
        writer.finish()
    model = SGDClassifier(random_state=0)
    classes = load_features(path).target_names
    for epoch in range(3):
        for part, y in iter_features(path, 256, shuffle=True, random_state=epoch):
            model.partial_fit(part, y, classes=classes)
    whole = SGDClassifier(random_state=0).fit(features, Y)
    assert model.score(features, Y) > 0.95
    assert abs(model.score(features, Y) - whole.score(features, Y)) < 0.05


# ------------------------------------------------------------ parts, URLs and Dask


def write_parts(folder, n=3, suffix=".npy", **options):
    path = str(folder / f"f{suffix}")
    for k in range(1, n + 1):
        write(Path(shard_path(path, k, n)), shard=(k, n), **options)
    return str(folder / f"f-*-of-{n}{suffix}")


def test_names_of_parts():
    assert shard_path("a.b/f.npy", 3, 16) == "a.b/f-03-of-16.npy"
    assert shard_path("s3://b/f.parquet", 1, 4) == "s3://b/f-1-of-4.parquet"


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_a_pattern_stands_for_all_parts(tmp_path, suffix):
    pattern = write_parts(tmp_path, 12, suffix, bad=[3, 999])
    whole = load_features(write(tmp_path / f"whole{suffix}", bad=[3, 999]))
    for path in (pattern, Path(pattern)):
        joined = load_features(path)
        np.testing.assert_array_equal(joined.data, whole.data)
        assert joined.filenames.tolist() == whole.filenames.tolist()
        assert joined.skipped.equals(whole.skipped)
    parts = [part for part, _ in iter_features(pattern, 400)]
    np.testing.assert_array_equal(np.concatenate(parts), whole.data[whole.readable])
    with pytest.raises(FileNotFoundError, match=r"Its shards are: .*f-\*-of-12\."):
        load_features(tmp_path / f"f{suffix}")
    with pytest.raises(FileNotFoundError, match="No file of features matches"):
        load_features(tmp_path / "g-*.npy")


def test_a_name_that_looks_like_a_pattern_is_a_name(tmp_path):
    path = write(tmp_path / "f[1].npy")
    assert len(load_features(path).data) == 1000


def test_a_part_of_a_table_is_told_from_others_as_the_whole_is():
    rows, pixels = range(320, 640), RNG.integers(0, 256, (1000, 4, 4, 3), "uint8")
    for source in (as_source([f"{k}.jpg" for k in range(1000)]), as_source(pixels)):
        table = FeaturesTable(source, Y, SPLIT)
        part = table.part(rows)
        assert len(part.source) == len(rows)
        for name in ("path", "label", "split"):
            assert part.column(name, rows[5:9]) == table.column(name, rows[5:9])
        assert part.digest(rows) == table.digest(rows)
        assert part.digest(rows) != table.digest(range(320))
        assert part.columns_digest(rows) == table.columns_digest(rows)
    assert table.part(range(0)).digest(range(0)) == table.digest(range(0))
    other = FeaturesTable(source, Y[::-1], SPLIT)
    assert other.columns_digest(rows) != table.columns_digest(rows)


def a_writer(path):
    table = FeaturesTable(as_source([f"{k}.jpg" for k in range(len(X))]), Y, SPLIT)
    about = {"features": DESCRIPTION, "dtype": "float32", "n_features": 8}
    about |= {"shard": None, "of_rows": len(X), "versions": {}}
    return FeaturesWriter(path, table, range(len(X)), about)


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
@pytest.mark.parametrize("seconds", [0.0, 1000.0])
@pytest.mark.parametrize("first_ends", [False, True])
def test_a_writer_that_was_given_up_does_no_harm(
    tmp_path, monkeypatch, suffix, seconds, first_ends
):
    # A worker is thought dead; another goes on with its half, and that one lives.
    path, rows = tmp_path / f"f{suffix}", np.arange(len(X))
    with a_writer(path) as first:
        monkeypatch.setattr(_features_file, "_COMMIT_SECONDS", 0.0)
        first.put(rows[:300], X[:300])
        monkeypatch.setattr(_features_file, "_COMMIT_SECONDS", seconds)
        with a_writer(path) as second:
            assert second.done == 300
            second.put(rows[300:700], X[300:700])
            if not first_ends:
                second.put(rows[700:], X[700:])
                second.finish()
            if seconds:
                first.put(rows[300:], X[300:])
            act = first.finish if seconds else partial(first.put, rows[300:], X[300:])
            with pytest.raises(TakenOver, match="another process has begun to write"):
                act()
            if first_ends:
                second.put(rows[700:], X[700:])
                second.finish()
    np.testing.assert_array_equal(load_features(path).data, X)
    names = {path.name, f"{path.name}.json"} if suffix == ".npy" else {path.name}
    assert set(os.listdir(tmp_path)) == names


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
@pytest.mark.parametrize("second_ends", [False, True])
def test_a_writer_that_was_given_up_as_it_finishes_does_no_harm(
    tmp_path, monkeypatch, suffix, second_ends
):
    path, rows, others = tmp_path / f"f{suffix}", np.arange(len(X)), []
    column = FeaturesTable.column

    def begin_another(self, name, some):  # while the first writes what it knows
        if not others:
            others.append(None)
            others[0] = a_writer(path).__enter__()
            assert others[0].done == len(X)
            if second_ends:
                others[0].finish()
        return column(self, name, some)

    with a_writer(path) as first:
        first.put(rows, X)
        monkeypatch.setattr(FeaturesTable, "column", begin_another)
        with pytest.raises(TakenOver, match="another process has begun to write"):
            first.finish()
    if not second_ends:
        others[0].finish()
    found = load_features(path)
    np.testing.assert_array_equal(found.data, X)
    np.testing.assert_array_equal(found.target, Y)
    names = {path.name, f"{path.name}.json"} if suffix == ".npy" else {path.name}
    assert set(os.listdir(tmp_path)) == names


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_files_behind_urls(tmp_path, suffix):
    pytest.importorskip("fsspec")
    pattern = write_parts(tmp_path, 3, suffix, bad=[999])
    for path in map(str, tmp_path.glob(f"*{suffix}")):
        send_features(path, f"memory://features/{os.path.basename(path)}")
    remote = f"memory://features/f-*-of-3{suffix}"
    if suffix == ".npy":
        for path in (remote, "memory://features/f-1-of-3.npy"):
            with pytest.raises(ValueError, match=r"can't be mapped: copy it, with its"):
                load_features(path)
        return
    here = load_features(pattern)
    for chunks in (None, 100):
        there = load_features(remote, chunks=chunks)
        np.testing.assert_array_equal(np.asarray(there.data), here.data)
        np.testing.assert_array_equal(np.asarray(there.target), here.target)
        assert there.skipped.equals(here.skipped)
    with pytest.raises(FileNotFoundError):
        load_features("memory://features/no.parquet")
    with pytest.raises(FileNotFoundError, match="No file of features matches"):
        load_features("memory://features/g-*.parquet")


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
@pytest.mark.parametrize("split", [None, "val"])
@pytest.mark.parametrize("chunks", [7, 300, 8192])
def test_dask_arrays(tmp_path, suffix, split, chunks):
    pytest.importorskip("dask.array")
    pattern = write_parts(tmp_path, 3, suffix, bad=[3, 999])
    here = load_features(pattern, split=split)
    found = load_features(pattern, split=split, chunks=chunks)
    assert found.data.dtype == np.float32
    assert found.data.shape == here.data.shape
    assert max(found.data.chunks[0]) <= chunks
    np.testing.assert_array_equal(found.data.compute(), here.data.astype("float32"))
    np.testing.assert_array_equal(found.target.compute(), here.target)
    readable, targets = found.data[found.readable], found.target[found.readable]
    assert readable.chunks[0] == targets.chunks[0]
    np.testing.assert_array_equal(readable.compute(), here.data[here.readable])
    assert found.target_names.tolist() == here.target_names.tolist()


def test_a_dask_array_holds_paths_and_reads_them_when_it_is_needed(
    tmp_path, monkeypatch
):
    pytest.importorskip("dask.array")
    write(tmp_path / "f.npy", dtype="float32")
    monkeypatch.chdir(tmp_path)
    data = load_features("f.npy", chunks=100).data
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # as workers are
    graph = pickle.dumps(dict(data.__dask_graph__()))
    assert X[50].tobytes() not in graph
    np.testing.assert_array_equal(data[250:260].compute(), X[250:260])
    (tmp_path / "f.npy").unlink()
    with pytest.raises(FileNotFoundError):
        data.compute()


def test_targets_of_several_columns_and_none_as_dask_arrays(tmp_path):
    pytest.importorskip("dask.array")
    y = np.arange(2000.0).reshape(1000, 2)
    found = load_features(write(tmp_path / "f.npy", y=y), chunks=300)
    assert found.target.chunks == ((300, 300, 300, 100), (2,))
    np.testing.assert_array_equal(found.target.compute(), y)
    assert load_features(write(tmp_path / "g.npy", y=None), chunks=300).target is None


def test_blocks_of_a_dask_array_train_as_chunks_do(tmp_path):
    pytest.importorskip("dask.array")
    from sklearn.linear_model import SGDClassifier

    path = write(tmp_path / "f.npy")
    one, other = SGDClassifier(random_state=0), SGDClassifier(random_state=0)
    found = load_features(path, chunks=256)
    for k in range(found.data.numblocks[0]):
        block = found.data.blocks[k].compute(), found.target.blocks[k].compute()
        one.partial_fit(*block, classes=found.target_names)
    for part, y in iter_features(path, 256):
        other.partial_fit(part, y, classes=found.target_names)
    np.testing.assert_array_equal(one.coef_, other.coef_)


@pytest.mark.parametrize("chunks", [0, 2.5, True, "auto"])
def test_wrong_chunks_are_refused(tmp_path, chunks):
    with pytest.raises(ValueError, match=r"chunks=.* must be an int, 1 or more"):
        load_features(write(tmp_path / "f.npy"), chunks=chunks)


def test_without_dask_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "dask.array", None)
    with pytest.raises(ImportError, match=r'pip install "sklearn_dl\[dask\]"'):
        load_features(write(tmp_path / "f.npy"), chunks=100)
