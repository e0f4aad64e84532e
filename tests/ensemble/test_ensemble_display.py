import numpy as np
import pytest
from matplotlib.figure import Figure
from panel_cases import assert_legible, no_windows, without_matplotlib  # noqa: F401
from sklearn.datasets import load_wine
from sklearn.naive_bayes import GaussianNB
from sklearn.tree import DecisionTreeClassifier

from sklearn_dl.ensemble import DiversityDisplay, diversity


def predictions(n_members, name="net {}", seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, 80)
    hard = rng.random(80) < 0.1
    votes = {}
    for i in range(n_members):
        wrong = np.where(rng.random(80) < 0.5, hard, rng.random(80) < 0.15)
        votes[name.format(i)] = np.where(wrong, (truth + 1) % 3, truth)
    return votes, truth


def drawn(votes, truth, value="correlation", ax=None):
    return DiversityDisplay(diversity(votes, None, truth)).plot(value, ax=ax)


def cells(ax):
    return {
        (round(text.get_position()[1]), round(text.get_position()[0])): text.get_text()
        for text in ax.texts
    }


@pytest.mark.parametrize("value", ["correlation", "overlap", "disagreement"])
def test_the_cells_hold_the_pairs(value):
    votes, truth = predictions(4)
    display = drawn(votes, truth, value=value)
    table = diversity(votes, None, truth).matrix(value).to_numpy()
    shown = cells(display.ax_)
    assert len(shown) == 12
    assert all(text == f"{table[place]:.2f}" for place, text in shown.items())
    image = np.ma.filled(display.ax_.images[0].get_array().astype(float), np.nan)
    apart = ~np.eye(4, dtype=bool)
    np.testing.assert_array_equal(image[apart], table[apart])
    names = [label.get_text() for label in display.ax_.get_yticklabels()]
    assert names == [f"net {i}" for i in range(4)]


def test_the_bars_and_lines_hold_the_errors():
    X, y = load_wine(return_X_y=True)
    X, X_test, y, y_test = X[::2, :3], X[1::2, :3], y[::2], y[1::2]
    fitted = {
        "bayes": GaussianNB().fit(X, y),
        "tree": DecisionTreeClassifier(max_depth=2, random_state=0).fit(X, y),
        "stump": DecisionTreeClassifier(max_depth=1, random_state=0).fit(X, y),
    }
    display = DiversityDisplay(diversity(fitted, X_test, y_test)).plot()
    found = display.diversity
    widths = [bar.get_width() for bar in display.error_ax_.patches]
    assert widths == found.members["error"].tolist()
    spans = display.error_ax_.collections[0].get_segments()
    half = [(right[0] - left[0]) / 2 for left, right in spans]
    assert half == pytest.approx(found.members["standard_error"].tolist())
    lines = {
        line.get_label().rsplit(" ", 1)[0]: line.get_xdata()[0]
        for line in display.error_ax_.get_lines()
        if not line.get_label().startswith("_")
    }
    assert lines == {
        "vote": found.vote_error,
        "mean probabilities": found.soft_vote_error,
        "if independent": found.independent_error,
    }
    assert display.error_ax_.get_ylim() == display.ax_.get_ylim()
    assert isinstance(display.figure_, Figure)


def test_the_middle_of_a_long_name_is_left_out():
    votes, truth = predictions(2, "a_backbone_of_a_long_name_with_its_classifier_{}")
    display = drawn(votes, truth)
    names = [label.get_text() for label in display.ax_.get_yticklabels()]
    assert names[0].startswith("a_backbone")
    assert "…" in names[0]
    assert names[0].endswith("ssifier_0  1")
    assert len(names[0]) <= 35


def test_regressors_are_drawn_with_their_mean():
    rng = np.random.default_rng(0)
    y = rng.normal(size=50)
    values = {name: y + rng.normal(size=50) for name in "abc"}
    display = drawn(values, y)
    labels = [line.get_label() for line in display.error_ax_.get_lines()]
    assert any(label.startswith("mean ") for label in labels)
    assert display.error_ax_.get_title() == "RMSE"


@pytest.mark.parametrize(
    ("unit", "n", "numbered"),
    [(1, 3, True), (500, 3, True), (0.1, 3, True), (1e7, 9, False)],
)
def test_distances_are_written_where_they_have_room(unit, n, numbered):
    rng = np.random.default_rng(0)
    y = unit * rng.normal(size=50)
    values = {name: y + unit * rng.normal(size=50) for name in "abcdefghi"[:n]}
    display = drawn(values, y, value="disagreement")
    assert bool(cells(display.ax_)) is numbered
    assert len(display.figure_.axes) == (2 if numbered else 3)
    table = display.diversity.matrix("disagreement").to_numpy()
    assert display.ax_.images[0].get_clim() == (0, table.max())
    for place, text in cells(display.ax_).items():
        assert float(text) == pytest.approx(table[place], rel=0.01)


def test_a_pair_without_a_correlation_is_a_dash():
    votes = {"a": [0, 1, 1], "b": [0, 1, 0], "c": [0, 1, 0]}
    display = drawn(votes, [0, 1, 0])
    assert set(cells(display.ax_).values()) == {"-"}


def test_members_without_errors_can_be_drawn():
    votes = {"a": [0, 1, 1], "b": [0, 1, 1]}
    display = drawn(votes, [0, 1, 1], value="disagreement")
    display.figure_.canvas.draw()
    assert set(cells(display.ax_).values()) == {"0.00"}


@pytest.mark.parametrize("value", ["correlation", "both_wrong"])
@pytest.mark.parametrize(
    ("n_members", "name"),
    [
        (2, "m{}"),
        (3, "a backbone of a very long name, its layer and its classifier {}"),
        (10, "mobilenet_v2 features {}"),
        (30, "member {}"),
        (70, "member {}"),
    ],
)
def test_nothing_overlaps(n_members, name, value):
    votes, truth = predictions(n_members, name)
    display = drawn(votes, truth, value=value)
    assert_legible(display.figure_)
    cell = display.ax_.get_window_extent().width / n_members
    widths = [text.get_window_extent().width for text in display.ax_.texts]
    assert all(width < cell for width in widths)


def test_a_subplot_can_be_given():
    found = diversity(*(lambda votes, truth: (votes, None, truth))(*predictions(3)))
    one, other = Figure().subplots(1, 2)
    display = DiversityDisplay(found).plot(ax=one)
    assert not one.axison
    assert display.figure_ is one.figure
    one.figure.draw_without_rendering()
    right = display.error_ax_.get_window_extent().x1
    assert right < other.get_window_extent().x0
    with pytest.raises(ValueError, match="ax must be a subplot"):
        display.plot(ax=Figure().add_axes((0, 0, 1, 1)))


def test_a_display_can_be_drawn_again_with_other_values():
    votes, truth = predictions(3)
    display = drawn(votes, truth)
    first = display.figure_
    assert display.plot("overlap") is display
    assert display.figure_ is not first
    with pytest.raises(ValueError, match="value must be one of"):
        display.plot("kappa")


def test_without_matplotlib_the_extra_is_named(without_matplotlib):  # noqa: F811
    found = diversity({"a": [0, 1], "b": [1, 1]}, None, [0, 1])
    with pytest.raises(ImportError, match=r"pip install 'sklearn_dl\[plots\]'"):
        DiversityDisplay(found).plot()
