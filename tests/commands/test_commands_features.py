import json
import os

import numpy as np
import pandas as pd
import pytest
from commands_cases import NETWORK, command, write_broken, write_folder

from sklearn_dl import ImageFeatureExtractor
from sklearn_dl.datasets import load_features

SMALL = ("--backbone", NETWORK, "--set", "weights=None", "--set", "image_size=32")


def write(data, out, *more):
    return command("features", data, "--out", out, *SMALL, *more)


def test_features_of_class_folders(folder, tmp_path, capsys):
    out = tmp_path / "f.npy"
    assert write(folder, out) == 0
    printed, errors = capsys.readouterr()
    assert printed == f"written to {out} (0.0 MB)\n"
    assert errors == ""
    found = load_features(out)
    paths = [str(folder / name / f"{k}.png") for name, k in class_files()]
    assert found.filenames.tolist() == paths
    assert found.target.tolist() == ["dark"] * 6 + ["light"] * 6
    assert found.split is None
    extractor = ImageFeatureExtractor(
        NETWORK, weights=None, image_size=32, random_state=0
    )
    np.testing.assert_array_equal(found.data, extractor.fit_transform(paths))
    assert load_features(out, extractor=extractor).metadata["rows"] == 12


def class_files():
    return [(name, k) for name in ("dark", "light") for k in range(6)]


def test_a_layer_may_say_how_its_map_becomes_a_row(folder, tmp_path):
    assert write(folder, tmp_path / "f.npy", "--layer", "features,max") == 0
    layer = load_features(tmp_path / "f.npy").metadata["features"]["layer"]
    assert layer == ["features", "max"]


def test_train_and_val_are_splits(tmp_path):
    for part in ("train", "val"):
        write_folder(tmp_path / "data" / part, 2)
    assert write(tmp_path / "data", tmp_path / "f.parquet", "--dtype", "float16") == 0
    found = load_features(tmp_path / "f.parquet", split="val")
    assert found.target.tolist() == ["dark"] * 2 + ["light"] * 2
    assert all(os.sep + "val" + os.sep in name for name in found.filenames)
    assert found.data.dtype == np.float16


def test_images_of_no_class_have_no_label(folder, tmp_path):
    assert write(folder / "dark", tmp_path / "f.npy", "--quiet") == 0
    assert load_features(tmp_path / "f.npy").target is None


def test_features_of_a_table(folder, tmp_path):
    files = [f"{name}/{k}.png" for name, k in class_files()]
    table = pd.DataFrame({"file": files, "kind": ["a", "b"] * 6, "mass": range(12)})
    table["part"] = ["train"] * 8 + ["val"] * 4
    table.to_csv(tmp_path / "t.csv", index=False)
    options = ["--path", "file", "--root", folder, "--split", "part"]
    out = tmp_path / "f.npy"
    assert write(tmp_path / "t.csv", out, *options, "--target", "kind") == 0
    found = load_features(out)
    assert found.target.tolist() == ["a", "b"] * 6
    assert found.split.tolist() == table["part"].tolist()
    targets = ["--target", "mass", "--target", "mass"]
    assert write(tmp_path / "t.csv", out, *options, *targets) == 0
    assert load_features(out).target.tolist() == [[k, k] for k in range(12)]
    assert write(tmp_path / "t.csv", out, *options[:4]) == 0
    assert load_features(out).target is None


def test_unreadable_images_are_named_and_the_code_is_1(tmp_path, capsys):
    folder = write_folder(tmp_path / "data", 2)
    broken = write_broken(folder / "dark" / "9.png")
    assert write(folder, tmp_path / "f.npy") == 1
    printed, errors = capsys.readouterr()
    assert printed.startswith("written to ")
    line, count = errors.splitlines()
    assert count == "features: of 5 images 1 could not be read."
    assert line.startswith(f"features: row 2, {str(broken)!r}: ")
    found = load_features(tmp_path / "f.npy")
    assert found.readable.tolist() == [True, True, False, True, True]


def test_the_count_is_that_of_the_shard(folder, tmp_path, capsys):
    paths = [folder / "dark" / "0.png"] * 40  # shards begin at multiples of 32 rows
    paths[3] = paths[33] = paths[34] = "gone.png"
    pd.DataFrame({"path": paths}).to_csv(tmp_path / "t.csv", index=False)
    for shard, n_failed, n_rows in (("1/2", 1, 32), ("2/2", 2, 8)):
        assert write(tmp_path / "t.csv", tmp_path / "f.npy", "--shard", shard) == 1
        count = capsys.readouterr().err.splitlines()[-1]
        said = f"features: of {n_rows} images {n_failed} could not be read."
        assert count == said


def test_shards_of_the_command_join(folder, tmp_path):
    assert write(folder, tmp_path / "whole.npy") == 0
    for k in (1, 2):
        assert write(folder, tmp_path / f"{k}.npy", "--shard", f"{k}/2") == 0
    joined = load_features([tmp_path / "2.npy", tmp_path / "1.npy"])
    whole = load_features(tmp_path / "whole.npy")
    np.testing.assert_array_equal(joined.data, whole.data)
    assert joined.filenames.tolist() == whole.filenames.tolist()


def test_all_parts_of_the_command_are_one_run(folder, tmp_path, capsys):
    assert write(folder, tmp_path / "whole.npy") == 0
    for _ in range(2):
        assert write(folder, tmp_path / "f.npy", "--shards", 2) == 0
        printed = capsys.readouterr().out.splitlines()[-1]
        first = tmp_path / "f-1-of-2.npy"
        assert printed == f"written to {first} and the others (0.0 MB)"
    joined = load_features(tmp_path / "f-*-of-2.npy")
    whole = load_features(tmp_path / "whole.npy")
    np.testing.assert_array_equal(joined.data, whole.data)
    assert joined.filenames.tolist() == whole.filenames.tolist()


def test_the_command_puts_a_file_behind_a_url(folder, tmp_path, capsys):
    pytest.importorskip("fsspec")
    assert write(folder, f"file://{tmp_path}/f.npy") == 0
    assert capsys.readouterr().out == f"written to file://{tmp_path}/f.npy\n"
    assert len(load_features(tmp_path / "f.npy").data) == 12


@pytest.mark.slow
def test_workers_of_a_cluster_write_the_parts(folder, tmp_path, monkeypatch, capsys):
    distributed = pytest.importorskip("distributed")
    monkeypatch.chdir(folder.parent)  # where no worker is at home
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address=None
    ) as cluster:
        address = ("--scheduler", cluster.scheduler_address)
        out = tmp_path / "f.npy"
        assert write(folder.name, out, "--shards", 2, *address) == 0
        assert write(folder.name, out, *address) == 2
    assert "--scheduler needs --shards" in capsys.readouterr().err
    found = load_features(tmp_path / "f-*-of-2.npy")
    assert found.filenames[0] == str(folder / "dark" / "0.png")
    assert found.readable.all()


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--shard", "3/2"], "must be k/n with 1 <= k <= n"),
        (["--shards", "0"], "n_shards=0 must be an int, 1 or more"),
        (["--shards", "2", "--shard", "1/2"], "--shard is one of the parts"),
        (["--scheduler", "tcp://head:8786"], "--scheduler needs --shards"),
        (["--set", "cach=1"], "Invalid parameter 'cach'"),
        (["--backbone", "resnet81"], "resnet18"),
    ],
)
def test_wrong_options_are_exit_code_2(folder, tmp_path, capsys, more, text):
    assert write(folder, tmp_path / "f.npy", *more) == 2
    assert text in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_wrong_data_and_outputs_are_exit_code_2(folder, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert write(tmp_path / "empty", tmp_path / "f.npy") == 2
    assert "There is no image in the folder" in capsys.readouterr().err
    assert write(folder, tmp_path / "f.txt") == 2
    assert "must end in .npy or .parquet" in capsys.readouterr().err
    assert write(tmp_path / "no.csv", tmp_path / "f.npy") == 2
    assert "No such file" in capsys.readouterr().err


def test_the_command_goes_on_where_it_ended(folder, tmp_path, monkeypatch, capsys):
    from sklearn_dl.datasets import _features_file

    put = _features_file.FeaturesWriter.put

    def interrupt(self, rows, values):
        if self.done:
            raise KeyboardInterrupt
        put(self, rows, values)

    out = tmp_path / "f.npy"
    with monkeypatch.context() as patch:
        patch.setattr(_features_file.FeaturesWriter, "put", interrupt)
        assert write(folder, out, "--set", "batch_size=4") == 130
    assert json.loads((tmp_path / "f.npy.part.json").read_bytes())["done"] == 4
    other = ("--backbone", "resnet18")
    assert write(folder, out, *other) == 2
    assert "half-written file of other features" in capsys.readouterr().err
    assert write(folder, out, "--set", "batch_size=4") == 0
    assert np.isfinite(load_features(out).data).all()
