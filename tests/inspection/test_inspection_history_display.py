import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from panel_cases import (  # noqa: F401
    assert_legible,
    no_windows,
    place,
    shown_ticks,
    words,
)
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression

from sklearn_dl import ImageClassifier, ImageRegressor
from sklearn_dl.inspection import TrainingHistoryDisplay

SMALL = {
    "backbone": "squeezenet1_1",
    "weights": None,
    "image_size": 32,
    "random_state": 0,
    "batch_size": 8,
}
LONG = (
    "valid_loss improved on its lowest, 0.01234, by less than "
    "min_relative_improvement=0.0001 in 5 epochs in a row"
)


def images(n=16, seed=0):
    X = np.random.default_rng(seed).integers(0, 128, (n, 32, 32, 3), "uint8")
    X[n // 2 :] += 100
    return X, np.repeat([0, 1], n // 2)


def history(n, warmup=0):
    epochs = np.arange(1, n + 1)
    train = 0.02 + np.exp(-epochs / 3)
    table = {
        "epoch": epochs,
        "lr": 0.01 * np.cos(epochs / (n + 1)),
        "dur": 1.0,
        "train_loss": train,
        "valid_loss": train + 0.1,
        "valid_score": 1 - train,
        "valid_top1": 1 - train,
        "train_top1": 1 - train / 2,
        "train_top5": 1 - train / 9,
        "valid_top5": 1 - train / 8,
    }
    if warmup:
        table["backbone_lr"] = np.where(epochs <= warmup, 0.0, 1e-4)
    return pd.DataFrame(table)


def drawn(table, ax=None, **options):
    return TrainingHistoryDisplay(table, **options).plot(ax=ax)


def curves(ax):
    lines = [line for line in ax.get_lines() if not line.get_label().startswith("_")]
    return {line.get_label(): line.get_ydata() for line in lines}


def test_the_curves_are_the_history_of_the_estimator():
    X, y = images()
    model = ImageClassifier(
        **SMALL,
        trainable=1,
        warmup_epochs=2,
        max_epochs=6,
        early_stopping=True,
        n_iter_no_change=2,
        tol=10.0,
        backbone_lr=1e-5,
    ).fit(X, y)
    display = TrainingHistoryDisplay.from_estimator(model)
    found = model.history_
    assert list(display.axes_) == ["loss", "accuracy", "rates"]
    loss, rates = curves(display.axes_["loss"]), curves(display.axes_["rates"])
    np.testing.assert_array_equal(loss["training"], found["train_loss"])
    np.testing.assert_array_equal(loss["validation"], found["valid_loss"])
    accuracy = curves(display.axes_["accuracy"])
    np.testing.assert_array_equal(accuracy["training"], found["train_top1"])
    np.testing.assert_array_equal(rates["rate of the head"], found["lr"])
    assert np.isnan(
        rates["rate of the backbone"][:2]
    ).all()  # while the head is trained alone
    np.testing.assert_array_equal(
        rates["rate of the backbone"][2:], found["backbone_lr"][2:]
    )
    assert display.axes_["rates"].get_yscale() == "log"
    written = words(display.figure_)
    assert f"weights kept: epoch {model.best_epoch_}" in written
    assert "unfrozen after epoch 2" in written
    assert model.n_iter_ < 6
    assert f"Trained for {model.n_iter_} of at most 6 epochs" in written
    assert model.stop_reason_ in " ".join(written.split())


def test_a_regressor_has_its_r2_and_no_accuracy():
    X, y = images()
    model = ImageRegressor(**SMALL, max_epochs=2).fit(X, y, X_val=X, y_val=y)
    display = TrainingHistoryDisplay.from_estimator(model)
    assert list(display.axes_) == ["loss", "score", "rates"]
    axis = display.axes_["score"]
    np.testing.assert_array_equal(
        curves(axis)["validation"], model.history_["valid_score"]
    )
    assert axis.get_title(loc="left") == "R²"
    assert "kept" not in words(display.figure_)


def test_a_score_that_is_the_accuracy_is_drawn_once():
    both = drawn(history(4))
    assert "score" not in both.axes_
    other = drawn(history(4), score_name="f1_macro")
    assert other.axes_["score"].get_title(loc="left") == "f1_macro"


def reach(span):
    """Return the ends of a span: a Polygon before matplotlib 3.9, now a Rectangle."""
    path = span.get_patch_transform().transform_path(span.get_path())
    return path.get_extents().intervalx.tolist()


def test_the_marks_are_where_they_belong():
    display = drawn(history(9, warmup=2), best_epoch=5, max_epochs=20)
    for axis in display.axes_.values():
        upright = [
            line.get_xdata()[0]
            for line in axis.get_lines()
            if len(line.get_xdata()) == 2
        ]
        assert upright == [5, 9]
        grey = axis.patches[0]
        assert reach(grey) == [0.5, 2.5]
    whole = drawn(history(9), max_epochs=9)
    assert "stopped" not in words(whole.figure_)


@pytest.mark.parametrize("n", [1, 3, 300])
def test_it_is_legible(n, place):  # noqa: F811
    display = drawn(
        history(n, warmup=min(n // 2, 2)),
        best_epoch=n,
        stop_reason=LONG,
        max_epochs=1000,
        score_name="balanced_accuracy",
        ax=place,
    )
    assert len(display.axes_) == 4
    assert_legible(display.figure_)
    heights = [axis.get_window_extent().height for axis in display.axes_.values()]
    assert min(heights) > 0.09 * display.figure_.bbox.height / len(heights)
    marked = display.ax_.get_lines()[0].get_marker()
    assert (marked == "o") is (n < 300)


def test_a_rate_that_stays_and_a_loss_that_explodes_have_numbers():
    table = history(5)[["train_loss", "lr"]].assign(lr=0.01)
    table.loc[4, "train_loss"] = np.inf
    table.loc[3, "train_loss"] = 1e6
    display = drawn(table)
    assert display.ax_.get_yscale() == "log"
    for axis in display.axes_.values():
        low, high = axis.get_ylim()
        assert sum(low <= tick <= high for tick in axis.get_yticks()) >= 2
    assert_legible(display.figure_)


@pytest.mark.parametrize("first", [1, 3, 5])
def test_a_training_that_diverged_says_so(first, place):  # noqa: F811
    table = history(5)
    table.loc[table["epoch"] >= first, ["train_loss", "valid_loss"]] = np.nan
    display = drawn(table, ax=place)
    written = words(display.figure_)
    assert f"Diverged: no finite loss in epoch {first}" in written
    assert "no finite loss" in written.replace("Diverged: no finite loss", "")
    for axis in display.axes_.values():
        (span,) = axis.patches
        assert reach(span) == [first - 0.5, 5.5]
        assert span.get_hatch()
    assert_legible(display.figure_)


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="no column 'train_loss'"):
        TrainingHistoryDisplay(pd.DataFrame({"loss": [1.0]}))
    with pytest.raises(ValueError, match="has no epoch"):
        TrainingHistoryDisplay(history(1)[:0])
    with pytest.raises(NotFittedError, match="is not fitted"):
        TrainingHistoryDisplay.from_estimator(ImageClassifier())
    with pytest.raises(TypeError, match="got LogisticRegression"):
        TrainingHistoryDisplay.from_estimator(LogisticRegression())
    with pytest.raises(ValueError, match="ax must be a subplot"):
        drawn(history(2), ax=Figure().add_axes((0, 0, 1, 1)))


def test_axes_of_a_figure_need_no_pyplot(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    figure = Figure()
    left, right = figure.subplots(1, 2)
    display = drawn(history(3), ax=left)
    assert display.figure_ is figure
    assert not left.axison
    figure.draw_without_rendering()
    assert all(
        axis.get_window_extent().x1 < right.get_window_extent().x0
        for axis in display.axes_.values()
    )
    with pytest.raises(ImportError, match=r"pip install 'sklearn_dl\[plots\]'"):
        display.plot()


@pytest.mark.parametrize("start", [0.5, 1.0])
def test_the_axis_of_an_accuracy_has_no_tick_above_1(start):
    table = history(4)[["train_loss", "valid_top1", "valid_score"]]
    table["valid_top1"] = np.linspace(start, 1, 4)
    table["valid_score"] = np.linspace(start - 2, 1, 4)
    display = drawn(table, score_name="R²")
    for part in ("accuracy", "score"):
        axis = display.axes_[part]
        assert max(shown_ticks(axis.yaxis)) == 1.0
        assert axis.get_ylim()[1] > 1  # the dots at 1 are seen whole
    assert min(shown_ticks(display.axes_["score"].yaxis)) < 0
    other = drawn(table, score_name="lift")
    assert other.axes_["score"].get_ylim()[1] > 1.05


def test_no_power_stands_apart_from_the_numbers(place):  # noqa: F811
    table = history(4)[["train_loss", "valid_score"]].assign(train_loss=3e6)
    table["valid_score"] = -3e6 + 1e5 * np.arange(4)
    display = drawn(table, score_name="neg_mean_squared_error", ax=place)
    assert_legible(display.figure_)
    for axis in display.axes_.values():
        assert not axis.yaxis.get_offset_text().get_text()
    low, high = display.axes_["score"].get_ylim()
    labels = display.axes_["score"].get_yticklabels()
    values = [float(text.get_text().replace("\N{MINUS SIGN}", "-")) for text in labels]
    ticks = display.axes_["score"].get_yticks()
    np.testing.assert_allclose(values, ticks)
    assert any(low <= value <= high for value in values)


@pytest.mark.parametrize("score", [True, False])
def test_a_validation_loss_that_is_no_number_is_said(score):
    table = history(5)[["train_loss", "valid_loss", "valid_top1"]]
    table.loc[2:, "valid_loss"] = np.nan
    display = drawn(table if score else table.drop(columns="valid_top1"))
    assert "Diverged: no finite loss in epoch 3" in words(display.figure_)
    (span,) = display.ax_.patches
    assert reach(span) == [2.5, 5.5]


@pytest.mark.parametrize("without", [slice(None, 1), slice(3, None)])
def test_epochs_that_were_not_validated_have_not_diverged(without):
    table = history(5)[["train_loss", "valid_loss", "valid_top1"]]
    table.loc[without, ["valid_loss", "valid_top1"]] = np.nan
    display = drawn(table)
    assert "finite" not in words(display.figure_)
    assert not display.ax_.patches


def test_lines_take_short_names():
    display = TrainingHistoryDisplay(history(3)).plot(line_kw={"lw": 3, "c": "r"})
    for axis in display.axes_.values():
        looks = {(line.get_linewidth(), line.get_color()) for line in axis.get_lines()}
        assert looks == {(3, "r")}


def test_a_figure_whose_layout_is_fixed_is_refused():
    figure = Figure(layout="tight")
    left, right = figure.subplots(1, 2)
    figure.colorbar(left.imshow(np.eye(3)), ax=left)
    with pytest.raises(ValueError, match="layout='constrained'"):
        drawn(history(2), ax=right)
