"""The confusion matrix with images of the most confused pairs."""

import warnings

import numpy as np
import pytest
from matplotlib.figure import Figure
from panel_cases import (  # noqa: F401
    assert_legible,
    drawn_texts,
    no_windows,
    place,
    words,
)
from robustness_cases import photographs
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix

from sklearn_dl._plots import fitted, fitted_apart
from sklearn_dl.inspection import MostConfusedDisplay, most_confused


def votes(n_classes, n=300, form="class {}", seed=0):
    rng = np.random.default_rng(seed)
    names = np.array([form.format(i) for i in range(n_classes)])
    truth = rng.integers(0, n_classes, n)
    wrong = (truth + rng.integers(0, n_classes, n)) % n_classes
    predicted = np.where(rng.random(n) < 0.7, truth, wrong)
    return names[truth], names[predicted], photographs(n, size=(12, 10))


def drawn(*data, **options):
    return MostConfusedDisplay(*data).plot(**options)


def cells(display):
    found = {}
    for text in display.ax_.texts:
        column, row = (round(v) for v in text.get_position())
        found[row, column] = text.get_text()
    return found


def test_the_cells_hold_numbers_and_shares():
    y, predicted, X = votes(3)
    display = drawn(y, predicted, X)
    counts = confusion_matrix(y, predicted)
    shares = counts / counts.sum(1, keepdims=True)
    np.testing.assert_allclose(display.ax_.images[0].get_array(), shares)
    assert cells(display) == {
        cell: f"{n}\n{100 * shares[cell]:.0f}%" for cell, n in np.ndenumerate(counts)
    }
    assert [t.get_text() for t in display.ax_.get_yticklabels()] == [
        "class 0",
        "class 1",
        "class 2",
    ]


def test_pairs_are_those_most_confused_with_their_images():
    y, predicted, X = votes(4)
    display = drawn(y, predicted, X, n_pairs=3, n_examples=2)
    pairs = most_confused(y, predicted, k=3, n_examples=2)
    assert display.axes_.shape == (3, 2)
    for row, (_, pair) in enumerate(pairs.iterrows()):
        heading = display.headings_[row].get_text()
        assert heading.startswith(
            f"{pair['truth']} → {pair['prediction']}: {pair['n']}"
        )
        assert f"({100 * pair['rate']:.0f}%)" in heading
        assert f" of {(y == pair['truth']).sum()} " in heading
        for ax, example in zip(display.axes_[row], pair["examples"], strict=True):
            np.testing.assert_array_equal(ax.images[0].get_array(), X[example])


def test_an_estimator_shows_its_most_confident_mistakes_first():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 60)
    X = photographs(60, size=(8, 8)).reshape(60, -1)
    model = LogisticRegression(C=1e-9).fit(X, y)
    display = MostConfusedDisplay.from_estimator(model, X, y, n_pairs=1, n_examples=3)
    pair = most_confused(model, X, y, k=1, n_examples=3).iloc[0]
    assert len(pair["examples"]) == 3
    for ax, row in zip(display.axes_[0], pair["examples"], strict=True):
        np.testing.assert_array_equal(ax.images[0].get_array(), X[row].reshape(8, 8, 3))
    with pytest.raises(NotFittedError):
        MostConfusedDisplay.from_estimator(LogisticRegression(), X, y)


def test_of_many_classes_the_most_confused_are_shown():
    y, predicted, X = votes(100, 600)
    hundred = y == "class 3"
    predicted[hundred] = "class 7"
    display = drawn(y, predicted, X)
    names = [t.get_text() for t in display.ax_.get_yticklabels()]
    assert len(names) == 12
    assert {"class 3", "class 7"} <= set(names)
    row, column = names.index("class 3"), names.index("class 7")
    assert cells(display)[row, column] == str(hundred.sum())
    assert display.ax_.images[0].get_array()[row, column] == 1.0
    assert "12 of 100 classes" in words(display.figure_)
    shares = np.asarray(display.ax_.images[0].get_array())
    own = names.index("class 7")
    right = ((y == "class 7") & (predicted == "class 7")).sum()
    assert shares[own, own] == pytest.approx(right / (y == "class 7").sum())


def test_without_a_mistake_there_is_the_matrix_alone():
    y = np.array(["a", "b", "b"])
    display = drawn(y, y, photographs(3))
    assert display.axes_.size == 0
    assert cells(display) == {(0, 0): "1\n100%", (1, 1): "2\n100%"}
    assert_legible(display.figure_)


@pytest.mark.parametrize("n_classes", [2, 10, 100])
@pytest.mark.parametrize("form", ["{}", "a genus of ants with the number {} of them"])
def test_it_can_be_read(n_classes, form, place):  # noqa: F811
    y, predicted, X = votes(n_classes, form=form)
    display = drawn(y, predicted, X, n_pairs=3, ax=place)
    assert_legible(display.figure_)


def test_a_matrix_may_be_empty():
    display = drawn(list("abcd"), list("badc"), photographs(4), max_classes=1)
    assert not cells(display)
    assert_legible(display.figure_)


def test_one_class_is_no_reason_to_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        display = drawn(["a", "a"], ["a", "a"], photographs(2))
    assert cells(display) == {(0, 0): "2\n100%"}


def test_names_need_not_be_unicode(place):  # noqa: F811
    y, predicted = ["caf\udce9", "b", "b"], ["b", "caf\udce9", "b"]
    display = drawn(y, predicted, photographs(3), ax=place)
    assert r"caf\udce9 → b" in words(display.figure_)
    assert display.matrix.index.tolist() == ["b", "caf\udce9"]
    table = most_confused(y, predicted)
    assert table["truth"].tolist() == ["caf\udce9", "b"]
    assert table["n"].tolist() == [1, 1]


def test_numbers_take_short_names():
    data = votes(3)
    display = drawn(*data, text_kw={"size": 5, "c": "r"})
    looks = {(text.get_fontsize(), text.get_color()) for text in display.ax_.texts}
    assert looks == {(5, "r")}


def test_what_is_wrong_is_said():
    y, predicted, X = votes(3)
    with pytest.raises(ValueError, match="n_pairs must be an int"):
        drawn(y, predicted, X, n_pairs=0)
    with pytest.raises(ValueError, match="X has 5 images, but y has 300"):
        drawn(y, predicted, X[:5])


def test_numbers_are_checked():
    y, predicted, X = votes(3)
    for wrong in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match="max_classes must be an int"):
            drawn(y, predicted, X, max_classes=wrong)
    display = drawn(y, predicted, X, n_pairs=np.int64(2), n_examples=np.int64(1))
    assert display.axes_.shape == (2, 1)
    with pytest.raises(ValueError, match="max_classes must be an int"):
        display.plot(max_classes=0)


@pytest.mark.parametrize("n_classes", [14, 30])
def test_many_classes_have_room_in_a_new_figure(n_classes):
    y, predicted, X = votes(n_classes, form="a genus of ants, the {}th of them")
    display = drawn(y, predicted, X, n_pairs=1, max_classes=n_classes)
    height = display.figure_.bbox.height
    boxes = [box for _, box in drawn_texts(display.figure_)]
    assert min(box.y0 for box in boxes) > -0.5
    assert max(box.y1 for box in boxes) < height + 0.5


@pytest.mark.parametrize("n_classes", [3, 10])
def test_names_stay_in_a_subplot_in_the_middle(n_classes):
    y, predicted, X = votes(n_classes, form="a genus of ants with the number {}")
    figure = Figure((12, 4))
    left, ax, right = figure.subplots(1, 3)
    own = ax.get_window_extent().frozen()
    display = drawn(y, predicted, X, n_pairs=2, ax=ax)
    texts = [*display.ax_.get_yticklabels(), display.ax_.yaxis.label]
    drawn_texts(figure)
    assert min(t.get_window_extent().x0 for t in texts) > left.get_window_extent().x1
    boxes = [axis.get_window_extent() for axis in display.axes_.ravel()]
    assert max(box.x1 for box in boxes) < right.get_tightbbox().x0
    # It isn't tiny: it fills more than half of its place, and the pairs the rest.
    assert display.ax_.get_window_extent().width > 0.5 * own.width
    assert display.ax_.get_window_extent().height > 0.2 * figure.bbox.height
    assert_legible(figure)


def test_names_that_would_look_alike_show_what_differs():
    names = [f"breed number {i} terrier" for i in (1, 10, 2)] + ["cat"]
    assert fitted_apart(names, 1.0, 9) == ["…1…", "…10…", "…2…", "cat"]
    assert fitted_apart(names, 9.0, 9) == names
    names = ["a" * 40 + letter + "a" * 40 for letter in "bc"]
    assert fitted_apart(names, 0.6, 9) == ["…b…", "…c…"]
    same = fitted_apart(["a" * 90] * 2, 0.6, 9)
    assert same[0] == same[1] == fitted("a" * 90, 0.6, 9)
