"""The example scripts on a small folder: they run, and print what they promise."""

import ast
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sklearn_dl import FeatureCache, ImageClassifier
from sklearn_dl.datasets import load_image_folder
from sklearn_dl.training import Head

EXAMPLES = Path(__file__).parents[2] / "examples"
# As few as the nested folds of a stacking of calibrated classifiers allow.
N_TRAIN, N_VAL = 16, 8
BACKBONE = "squeezenet1_1"
SMALLER = "shufflenet_v2_x0_5"  # learns less, but is quickly fine-tuned


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Return a folder of dark and light images, split in two."""
    folder = tmp_path_factory.mktemp("examples") / "photos"
    rng = np.random.default_rng(0)
    for part, n in (("train", N_TRAIN), ("val", N_VAL)):
        for name, low in (("dark", 0), ("light", 120)):
            (folder / part / name).mkdir(parents=True)
            for i in range(n // 2):
                pixels = rng.integers(low, low + 130, (40, 48, 3), "uint8")
                Image.fromarray(pixels).save(folder / part / name / f"{i}.jpg")
    return folder


@pytest.fixture
def run(photos, monkeypatch, capsys):
    """Return a function that runs an example and returns what it prints."""

    def run(name, *arguments, backbone=BACKBONE):
        options = ["--data", photos, "--backbone", backbone, "--weights", "none"]
        command = [f"{name}.py", *options, *arguments]
        monkeypatch.setattr(sys, "argv", [str(argument) for argument in command])
        monkeypatch.syspath_prepend(EXAMPLES)
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        printed = capsys.readouterr().out
        assert "photos: 16 images to learn from, 8 held out" in printed
        return printed

    return run


def is_share(value, n=N_VAL):
    """Tell whether a printed number is a share of n images."""
    return 0 <= float(value) <= 1 and abs(float(value) * n % 1 - 0.5) > 0.49


@pytest.mark.filterwarnings("error::UserWarning")
def test_features_and_svm(run, tmp_path):
    printed = run("features_svm", "--cache", tmp_path)
    line = r"^(\S.*?) {2,}(\d\.\d{3}) +(\d\.\d{3}) +\d+\.\d +(\{.*\})$"
    rows = {
        name: (float(folds), float(held_out), ast.literal_eval(best))
        for name, folds, held_out, best in re.findall(line, printed, re.M)
    }
    assert list(rows) == [
        "linear SVM",
        "SVM, RBF kernel",
        "logistic regression",
        "nearest neighbours",
        "gradient boosting",  # has too few rows for any split
    ]
    for name in ("linear SVM", "logistic regression", "nearest neighbours"):
        folds, held_out, _ = rows[name]
        assert folds == held_out == 1
    assert all(is_share(held_out) for _, held_out, _ in rows.values())
    assert rows["nearest neighbours"][2]["n_neighbors"] in (1, 5)  # of 12 rows a fold
    # Each image once, for all classifiers, folds and candidates.
    assert FeatureCache(tmp_path).statistics().misses == N_TRAIN + N_VAL


def test_features_on_disk(run, tmp_path):
    printed = run("features_on_disk", "--out", tmp_path / "out", "--rows", 6)
    epochs = re.findall(r"^ +(\d+)  (\d\.\d{3})$", printed, re.M)
    assert [int(number) for number, _ in epochs] == [*range(1, len(epochs) + 1)]
    scores = [float(score) for _, score in epochs]
    assert len(scores) == scores.index(max(scores)) + 6  # five more without gain
    (held_out,) = re.findall(r"^on 8 held-out images: (\S+)$", printed, re.M)
    (direct,) = re.findall(r"^from the images themselves: (\S+)$", printed, re.M)
    assert held_out == direct == "1.000"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "features.npy",
        "features.npy.json",
    ]


def test_a_grid_search_across_regimes(run, tmp_path):
    options = ["--regimes", "svm", "head", "all", "--max-epochs", 1]
    printed = run("grid_search", *options, "--cache", tmp_path, backbone=SMALLER)
    line = r"^ *(svm|head|all) +(\w+)=(\S+) +(\S+) +(\S+) +(\d) +\S+ +\S+ +(\S+)$"
    rows = re.findall(line, printed, re.M)
    assert sorted(row[:2] for row in rows) == sorted(
        [("svm", "C")] * 3 + [("head", "lr")] * 2 + [("all", "lr")] * 2
    )
    means = [float(row[3]) for row in rows]
    assert means == sorted(means, reverse=True)
    assert means[0] == 1
    assert 0 <= means[-1] <= 1
    passes = {name: [float(r[-1]) for r in rows if r[0] == name] for name, *_ in rows}
    # The frozen backbone sees each image once; one that is trained, one epoch of each
    # fold's training part and its test part.
    assert sum(passes["svm"] + passes["head"]) == 1
    assert passes["all"] == [5, 5]
    assert "The best, on held-out images: 1.000\n" in printed
    assert FeatureCache(tmp_path).statistics().entries == N_TRAIN + N_VAL


def test_votes_and_bagging(run, tmp_path):
    mpl = pytest.importorskip("matplotlib")
    mpl.use("Agg")
    picture = tmp_path / "diversity.png"
    printed = run("voting_bagging", "--epochs", 3, "--picture", picture)
    mpl.pyplot.close("all")
    line = r"^(\S.*?) {2,}(\d\.\d{3}) +\d+\.\d$"
    found = {name: float(value) for name, value in re.findall(line, printed, re.M)}
    assert list(found) == [
        "features + SVM",
        "features of an earlier layer + SVM",
        "trained head",
        "fine-tuned",
        "hard vote",
        "soft vote",
        "stacking",
        "bagging of 10 SVMs",
        "bagging of 10 heads",
        "AdaBoost of 10 SVMs",
        "AdaBoost of 10 heads",
        "three seeds, averaged",
    ]
    assert all(map(is_share, found.values()))
    for name in ("features + SVM", "stacking", "bagging of 10 SVMs"):
        assert found[name] == 1
    # The ensembles' members are counted, and the voters are those of the table.
    line = r"^(\d+) classifiers on 8 rows: errors (\S+) to (\S+), mean (\S+)\.$"
    counts = re.findall(line, printed, re.M)
    assert [int(n) for n, *_ in counts] == [4, 10, 3]
    errors = 1 - np.array(list(found.values())[:4])
    expected = [errors.min(), errors.max(), errors.mean()]
    np.testing.assert_allclose([float(v) for v in counts[0][1:]], expected, atol=1e-3)
    for name in ("hard vote", "bagging of 10 SVMs", "three seeds, averaged"):
        assert re.search(rf"^{re.escape(name)}: The vote ", printed, re.M)
    with Image.open(picture) as drawn:
        assert min(drawn.size) > 300
        assert len(np.unique(np.asarray(drawn.convert("L")))) > 20


def test_an_error_report(run, tmp_path):
    printed = run("error_report", "--flips", 2, "--output", tmp_path / "page.html")
    found = re.search(
        r"^Of 2 wrong labels (\d) are among the first \d+\.$", printed, re.M
    )
    before, after, true = (
        float(value) for value in re.findall(r"^[a-z]+ labels +(\S+)$", printed, re.M)
    )
    assert int(found[1]) >= 1
    assert before < after <= true == 1
    rows = pd.read_csv(tmp_path / "page.csv")
    assert (rows["action"] == "relabel").sum() == int(found[1])
    assert "Photographs, some labels" in (tmp_path / "page.html").read_text()


def test_regimes_side_by_side(run, tmp_path):
    options = ["--seeds", 1, "--epochs", 2, "--warmup", 1, "--stages", 2]
    printed = run("regimes", *options, "--csv", tmp_path / "runs.csv", backbone=SMALLER)
    line = r"^\| (.*?) \| (.*?) \| (\d\.\d{3}) ± 0\.000 \| (\S+)-(\S+) \| \d+ \|$"
    rows = re.findall(line, printed, re.M)
    trained = [
        "head",
        "last 2 stages",
        "everything",
        "warm-up, then everything",
        "warm-up, then everything, cosine",
    ]
    views = [f"warm-up, then everything, tta={v!r}" for v in ("flip", "ten_crop")]
    random = [f"random weights: {name}" for name in ("features + SVM", trained[3])]
    assert [row[:2] for row in rows] == [
        ("features + SVM", "none"),
        *((name, "none") for name in trained),
        *((name, "standard") for name in [*trained[:4], *views, trained[4]]),
        (random[0], "none"),
        (random[1], "standard"),
    ]
    assert all(mean == low == high and is_share(mean) for *_, mean, low, high in rows)
    assert rows[0][2] == "1.000"
    # Without weights to load, the random ones are the same.
    assert rows[-2][2] == rows[0][2]
    assert "over 1 seed; one image of the 8 is 0.125" in printed
    runs = pd.read_csv(tmp_path / "runs.csv", keep_default_na=False)
    assert runs.regime.tolist() == [row[0] for row in rows]
    np.testing.assert_allclose(runs.accuracy, [float(row[2]) for row in rows])


def test_trials_of_optuna(run, photos):
    pytest.importorskip("optuna")
    printed = run("tune_optuna", "--trials", 3)
    best, chosen = re.search(
        r"^Best of 3 trials: (\S+) (\{.*\})$", printed, re.M
    ).groups()
    held_out = re.search(r"^On held-out images: (\S+)$", printed, re.M)[1]
    assert 0.5 < float(best) <= 1
    chosen = ast.literal_eval(chosen)
    # What the last line says is what those parameters give.
    train, val = (load_image_folder(photos / part) for part in ("train", "val"))
    hidden, dropout = chosen.pop("hidden"), chosen.pop("dropout")
    head = Head((128,) if hidden else (), dropout=dropout)
    model = ImageClassifier(BACKBONE, weights=None, head=head, random_state=0, **chosen)
    model.fit(train.data, train.target)
    assert f"{model.score(val.data, val.target):.3f}" == held_out


@pytest.mark.slow
def test_a_dask_cluster(run, tmp_path):
    printed = run("dask_cluster", "--workers", 2, "--out", tmp_path / "f.npy")
    line = r"best (\d\.\d{3}); bagging \d+\.\d s, (\d\.\d{3}) on its own images$"
    alone, together = (
        re.findall(rf"^{name}: .*{line}", printed, re.M)
        for name in ("this process", "the cluster")
    )
    assert alone == together
    assert len(alone) == 1
    assert alone[0][0] == "1.000"
    difference = re.search(r"relative to the largest: (\S+)$", printed, re.M)[1]
    assert float(difference) < 1e-5
    assert re.search(r"^\d+ rows in 4 files, 0 of them NaN$", printed, re.M)
    assert "equal to those in files: True" in printed
