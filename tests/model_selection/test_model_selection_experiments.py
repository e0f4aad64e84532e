import json
import re
import sys
import threading
import types

import numpy as np
import pandas as pd
import pytest
from panel_cases import (  # noqa: F401
    assert_legible,
    drawn_texts,
    no_windows,
    place,
    shown_ticks,
)
from sklearn.ensemble import AdaBoostClassifier, BaggingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_dl import ImageClassifier
from sklearn_dl.model_selection import Experiments, ExperimentsDisplay

rng = np.random.default_rng(0)
X = rng.normal(size=(90, 3))
y = np.where(X[:, 0] + 0.5 * rng.normal(size=90) > 0, "yes", "no")


def test_scores_and_seconds_are_those_of_cross_validation():
    found = cross_validate(LogisticRegression(), X, y, cv=4)
    kept = Experiments().record("a", found, LogisticRegression(), metric="accuracy")
    scores = found["test_score"]
    assert kept.scores == scores.tolist()
    assert kept.score == pytest.approx(scores.mean())
    assert kept.spread == pytest.approx(scores.std(ddof=1) / 2)
    assert kept.seconds == pytest.approx(
        found["fit_time"].sum() + found["score_time"].sum()
    )
    assert kept.metric == "accuracy"


def test_of_each_image_the_error_is_that_of_a_share():
    right = np.arange(40) < 30
    kept = Experiments().record("a", right)
    assert kept.score == 0.75
    assert kept.spread == pytest.approx((0.75 * 0.25 / 39) ** 0.5)


def test_one_score_has_no_error():
    kept = Experiments().record("a", cross_val_score(LogisticRegression(), X, y)[0])
    assert kept.spread is None
    assert kept.seconds is None


def test_what_changed_since_the_best_or_since_a_name():
    log = Experiments()
    log.record("first", 0.7, parameters=LogisticRegression(C=1.0))
    second = log.record("second", 0.6, parameters=LogisticRegression(C=2.0, tol=1e-3))
    assert second.changed == "C: 1.0 → 2.0, tol: 0.0001 → 0.001"
    third = log.record("third", 0.8, parameters=LogisticRegression(C=3.0))
    assert (third.since, third.changed) == ("first", "C: 1.0 → 3.0")
    fourth = log.record(
        "fourth", 0.5, parameters=LogisticRegression(C=2.0), since="second"
    )
    assert (fourth.since, fourth.changed) == ("second", "tol: 0.001 → 0.0001")
    piped = log.record(
        "piped", 0.9, parameters=make_pipeline(StandardScaler(), LogisticRegression())
    )
    assert piped.changed == ("class: LogisticRegression → Pipeline")
    assert piped.parameters["logisticregression__C"] == "1.0"
    np.testing.assert_allclose(log.table["gain"], [np.nan, -0.1, 0.1, -0.1, 0.1])
    assert log.table["changed"].tolist() == [e.changed for e in log.experiments]
    with pytest.raises(ValueError, match="since='fifth' is no experiment"):
        log.record("fifth", 0.5, since="fifth")


def test_what_is_around_an_estimator_is_told():
    log = Experiments()
    tree = LogisticRegression()
    first = log.record("a", 0.5, parameters=BaggingClassifier(tree))
    second = log.record("b", 0.6, parameters=AdaBoostClassifier(tree))
    assert first.parameters["estimator"] == "LogisticRegression"
    assert second.changed == "class: BaggingClassifier → AdaBoostClassifier"
    search = GridSearchCV(tree, {"C": [1.0]})
    assert log.record("c", 0.7, parameters=search).parameters["param_grid"]
    plain = log.record("d", 0.7, parameters=tree)
    assert plain.parameters["class"] == "LogisticRegression"


def test_a_step_that_is_another_is_told_once():
    log = Experiments()
    log.record("a", 0.5, make_pipeline(StandardScaler(), LogisticRegression(C=1.0)))
    log.record("b", 0.6, make_pipeline(StandardScaler(), LogisticRegression(C=2.0)))
    changed = log.table["changed"].iloc[-1]
    assert changed == "logisticregression__C: 1.0 → 2.0"


def test_long_values_that_differ_are_told_apart():
    log = Experiments()
    long = "x" * 500
    log.record("a", 0.5, parameters={"s": [(1, 2)], "t": long, "v": np.arange(20)})
    now = {"s": [(3, 4)], "t": f"{long}y", "v": np.arange(1, 21), "new": None}
    done = log.record("b", 0.5, parameters=now)
    assert done.changed.startswith("s: [(1, 2)] → [(3, 4)], t: ")
    assert ", v: [0, 1, 2, " in done.changed
    assert done.changed.endswith(", new: unset → None")
    assert not log.record("c", 0.5, parameters=now, since="b").changed


def test_a_first_line_that_a_crash_cut_off_is_left_behind(tmp_path):
    path = tmp_path / "log"
    Experiments(path).record("lost", 0.5)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.warns(UserWarning, match="left out 1 of 1 lines, cut off"):
        log = Experiments(path)
    with pytest.warns(UserWarning, match="left out 1 of"):
        log.record("kept", 0.6)
    with pytest.warns(UserWarning, match="left out 1 of 2"):
        assert [one.name for one in log.experiments] == ["kept"]


def test_names_of_any_kind_are_kept(tmp_path):
    log = Experiments(tmp_path / "log")
    log.record("odd \udcff", 0.5, metric=balanced_accuracy_score)
    (kept,) = log.experiments
    assert kept.metric == str(balanced_accuracy_score)


def test_it_is_compared_with_one_of_its_metric():
    log = Experiments()
    log.record("head", 0.5, metric="accuracy", parameters={"lr": 1})
    log.record("head", 0.3, metric="robustness", parameters={"lr": 2})
    log.record("svm", 0.6, metric="accuracy", parameters={"lr": 3}, since="head")
    done = log.record("forest", 0.4, metric="robustness", parameters={"lr": 4})
    assert (done.since, done.changed) == ("head", "lr: 2 → 4")
    np.testing.assert_allclose(log.table["gain"], [np.nan, np.nan, 0.1, 0.1])
    assert log.table["changed"].iloc[2] == "lr: 1 → 3"


def test_no_gain_between_metrics():
    log = Experiments()
    log.record("a", 0.5, metric="accuracy")
    log.record("b", 0.7, metric="recall")
    assert np.isnan(log.table["gain"].iloc[1])


def test_parameters_of_image_estimators_read_the_same_in_each_process():
    kept = Experiments().record(
        "a", 1.0, parameters=ImageClassifier("resnet18", loss=balanced_accuracy_score)
    )
    assert kept.parameters["backbone"] == "'resnet18'"
    assert kept.parameters["loss"] == "balanced_accuracy_score"
    assert not any(" at 0x" in text for text in kept.parameters.values())


NO_SCORES = [np.nan, [], [0.5, np.inf], "good", [[0.5], []]]


@pytest.mark.parametrize("scores", NO_SCORES)
def test_scores_are_numbers(scores):
    log = Experiments()
    with pytest.raises(ValueError, match=r"scores 'a'|float|sample|shape"):
        log.record("a", scores)
    assert log.table.empty


def test_a_fold_that_failed_leaves_no_experiment(tmp_path):
    log = Experiments(tmp_path / "log.jsonl")
    found = cross_validate(LogisticRegression(), X, y, cv=3)
    found["test_score"][1] = np.nan
    with pytest.raises(ValueError, match="scores 'a' contains NaN"):
        log.record("a", found)
    assert not log.path.exists()


def test_a_file_goes_on_where_it_was(tmp_path):
    path = tmp_path / "deeper" / "log.jsonl"
    Experiments(path).record("first", [0.5, 0.7], seconds=3, parameters={"a": "図"})
    log = Experiments(path)
    log.record("Größe", 0.8)
    table = Experiments(path).table
    assert table["name"].tolist() == ["first", "Größe"]
    assert table["score"].tolist() == [0.6, 0.8]
    assert table["changed"].tolist() == ["", "a: '図' → unset"]
    np.testing.assert_allclose(table["seconds"], [3, np.nan])
    np.testing.assert_allclose(table["spread"], [0.1, np.nan])
    assert table["gain"].iloc[1] == pytest.approx(0.2)
    assert [one.scores for one in log.experiments] == [[0.5, 0.7], [0.8]]
    assert [file.name for file in path.parent.iterdir()] == ["log.jsonl"]


def test_other_programs_read_the_lines(tmp_path):
    log = Experiments(tmp_path / "log.jsonl")
    log.record("a", 0.5)
    log.record("b", [0.5, 1.0])
    table = pd.read_json(log.path, lines=True)
    assert table["score"].tolist() == [0.5, 0.75]
    line = log.path.read_text().splitlines()[0]
    assert json.loads(line, parse_constant=pytest.fail)["gain"] is None


def test_a_line_that_a_crash_cut_off_costs_only_itself(tmp_path):
    path = tmp_path / "log.jsonl"
    log = Experiments(path)
    for name in ("first", "second"):
        log.record(name, 0.5)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.warns(UserWarning, match="left out 1 of 2 lines, cut off"):
        log = Experiments(path)
    with pytest.warns(UserWarning, match="left out 1 of"):
        log.record("third", 0.6)
    with pytest.warns(UserWarning, match="left out 1 of"):
        assert log.table["name"].tolist() == ["first", "third"]


@pytest.mark.parametrize(
    "content", [b"\x00\xff\x00", b"a,b\n1,2\n", b"[1, 2]", b'{"lr": 0.1}\n']
)
def test_a_file_of_something_else_is_left_alone(tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="holds no experiments"):
        Experiments(path)
    assert path.read_bytes() == content


def test_a_gain_is_free_of_rounding():
    log = Experiments()
    log.record("a", [0.9, 0.8])
    assert log.record("b", 0.85).gain == 0


def write_some(path, name):
    for number in range(20):
        Experiments(path).record(f"{name}{number}", number / 20)


def test_many_write_to_one_file(tmp_path):
    path = tmp_path / "log.jsonl"
    writers = [threading.Thread(target=write_some, args=(path, c)) for c in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    names = Experiments(path).table["name"].tolist()
    assert sorted(names) == sorted(f"{c}{k}" for c in "ab" for k in range(20))


class FakeMLflow(types.ModuleType):
    def __init__(self):
        super().__init__("mlflow")
        self.runs = []

    def start_run(self, run_name, nested):
        assert nested
        self.runs.append({"name": run_name, "params": {}})
        return self

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.runs[-1]["ended"] = error[0] is None

    def log_params(self, params):
        # The real one refuses other names and longer texts.
        assert all(re.fullmatch(r"[\w./: -]{1,250}", name) for name in params)
        assert max(map(len, params.values()), default=0) <= 6000
        self.runs[-1]["params"].update(params)

    def set_tags(self, tags):
        self.runs[-1]["tags"] = tags

    def log_metrics(self, metrics):
        self.runs[-1]["metrics"] = metrics


def test_mlflow_gets_the_same(monkeypatch):
    mlflow = FakeMLflow()
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    log = Experiments()
    parameters = {f"p{k}": k for k in range(119)}
    parameters["what?" + "!" * 300] = "x" * 7000
    log.record("a", [0.5, 0.7], parameters)
    log.record("b", 0.8, {"p0": 0}, seconds=3)
    log.to_mlflow()
    first, second = mlflow.runs
    assert first["params"].items() >= {"p118": "118"}.items()
    assert len(first["params"]) == 120
    assert first["tags"]["metric"] == "score"
    assert first["metrics"] == {"score": 0.6, "spread": pytest.approx(0.1)}
    assert second["metrics"] == {"score": 0.8, "gain": 0.2, "seconds": 3}
    assert "p1: 1 → unset" in second["tags"]["changed"]
    assert [run["name"] for run in mlflow.runs] == ["a", "b"]
    assert first["ended"]


def test_without_mlflow_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ImportError, match="pip install mlflow"):
        Experiments().to_mlflow()


def test_scores_of_several_metrics_and_odd_seconds(tmp_path):
    log = Experiments(tmp_path / "log")
    several = {"fit_time": [1, 1], "score_time": [0, 0], "test_f1": [0.5, 0.7]}
    assert log.record("a", several, metric="f1").score == pytest.approx(0.6)
    assert log.record("b", several, metric="f1", seconds=np.float32(0)).seconds == 0
    with pytest.raises(
        ValueError, match=r"no 'test_score' or 'test_r2', but .*test_f1"
    ):
        log.record("c", several, metric="r2")
    with pytest.raises(ValueError, match="JSON"):
        log.record("d", 0.5, seconds=np.nan)
    assert log.table["name"].tolist() == ["a", "b"]
    assert len(log._kept) == 2


def test_an_empty_log_has_the_columns():
    assert Experiments().table.empty
    assert list(Experiments().table)[:2] == ["name", "score"]


def drawn():
    log = Experiments()
    log.record("baseline", [0.7, 0.8], metric="accuracy", seconds=12)
    log.record("other metric", 3.0, metric="loss")
    log.record("better", [0.9, 0.9], metric="accuracy", since="baseline")
    log.record("worse", 0.8, metric="accuracy")
    return log


def test_the_picture_holds_the_scores():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    display = ExperimentsDisplay(drawn().table).plot()
    axis = display.ax_
    assert [t.get_text() for t in axis.get_yticklabels()] == [
        "baseline",
        "better",
        "worse",
    ]
    reaches, dots = axis.collections
    assert dots.get_offsets().tolist() == [[0.75, 0], [0.9, 1], [0.8, 2]]
    np.testing.assert_allclose(reaches.get_segments()[0], [[0.7, 0], [0.8, 0]])
    texts = [t.get_text() for t in axis.texts]
    assert texts == ["0.750  12 s", "0.900  +0.150", "0.800  -0.100"]
    assert (
        len({*map(tuple, dots.get_facecolors())}) == 3
    )  # as the others, the best, one that fell
    assert axis.get_ylim()[0] > axis.get_ylim()[1]  # the first on top
    display.figure_.canvas.draw()
    pyplot.close(display.figure_)
    with pytest.raises(ValueError, match="No experiment has metric='recall', only"):
        ExperimentsDisplay(drawn().table, "recall")


@pytest.mark.parametrize(
    ("metric", "unit", "ends"),
    [
        ("accuracy", 1, (0.0, 1.0)),
        ("R²", 1, (-0.02, 1.0)),
        ("score", 1, (-0.02, 1.04)),
        ("accuracy", 100, (-2.0, 104.0)),  # percentages
    ],
)
def test_reaches_and_their_axis_end_where_scores_do(metric, unit, ends):
    log = Experiments()
    for name, score, spread in [("a", 0.03, 0.05), ("b", 0.99, 0.05), ("c", 1, 0)]:
        scores = [unit * (score - spread), unit * (score + spread)]
        log.record(name, scores, metric=metric)
    ax = ExperimentsDisplay(log.table).plot().ax_
    reaches = np.array(ax.collections[0].get_segments())[:, :, 0]
    assert (reaches.min(), reaches.max()) == pytest.approx(ends)
    ticks = shown_ticks(ax.xaxis)
    assert ends[0] <= min(ticks) <= max(ticks) <= ends[1] + 1e-9


def test_the_picture_goes_where_it_should():
    figure = pytest.importorskip("matplotlib.figure").Figure()
    ax = figure.add_subplot()
    display = ExperimentsDisplay(drawn().table, "loss").plot(ax=ax)
    assert display.figure_ is figure
    assert not ax.axison


NAMES = ["a short one", "$x^2$ " * 20, "tiny"]


def described():
    log = Experiments()
    log.record(NAMES[0], 0.0004, metric="a$b$c", seconds=9)
    log.record(NAMES[1], 0.00045, metric="a$b$c", seconds=12345)
    log.record(NAMES[2], 0.00045 + 1e-19, metric="a$b$c")
    return log


def test_names_are_no_mathematics_and_small_numbers_are_seen(place):  # noqa: F811
    display = ExperimentsDisplay(described().table).plot(ax=place)
    texts = [t.get_text() for t in display.ax_.texts]
    assert [t.split()[0] for t in texts] == ["0.0004", "0.00045", "0.00045"]
    gains = [t.split()[1] for t in texts[1:] if " " in t]  # where they have room
    assert gains in (["+5e-05", "+0.000"], [])
    names = [t.get_text() for t in display.ax_.get_yticklabels()]
    assert names[1].startswith(r"\$x^2\$")
    assert "…" in names[1]
    assert display.ax_.get_xlabel().startswith(r"a\$b\$c")
    assert_legible(display.figure_)


@pytest.mark.parametrize("size", [(12, 4), (7, 3)])
def test_names_and_numbers_stay_in_a_subplot_in_the_middle(size):
    figure = pytest.importorskip("matplotlib.figure").Figure(size)
    left, ax, right = figure.subplots(1, 3)
    own = ax.get_window_extent().frozen()
    display = ExperimentsDisplay(described().table).plot(ax=ax)
    drawn_texts(figure)
    drawn_in = display.ax_
    boxes = [
        t.get_window_extent()
        for t in [*drawn_in.get_yticklabels(), *drawn_in.texts, drawn_in.xaxis.label]
    ]
    assert min(box.x0 for box in boxes) > left.get_window_extent().x1
    assert max(box.x1 for box in boxes) < right.get_tightbbox().x0
    assert display.ax_.get_window_extent().width > 0.1 * own.width


def test_names_need_not_be_unicode(tmp_path, place):  # noqa: F811
    log = Experiments(tmp_path / "log.jsonl")
    log.record("caf\udce9", [0.1, 0.2])
    log.record("b", 0.4)
    table = Experiments(log.path).table
    assert table["name"].tolist() == ["caf\udce9", "b"]
    display = ExperimentsDisplay(table).plot(ax=place)
    written = [text for text, _ in drawn_texts(display.figure_)]
    assert any(text.startswith("caf") for text in written)
    assert_legible(display.figure_)


def test_no_power_stands_apart_from_the_numbers(place):  # noqa: F811
    log = Experiments()
    for k in range(3):
        log.record(f"net {k}", [-3e6 - k * 1e5, -4e6], metric="neg_mean_squared_error")
    display = ExperimentsDisplay(log.table).plot(ax=place)
    assert_legible(display.figure_)
    assert not display.ax_.xaxis.get_offset_text().get_text()
