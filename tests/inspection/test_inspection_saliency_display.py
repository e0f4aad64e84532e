"""Maps of what predictions rest on, over the images."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from panel_cases import assert_legible, no_windows, place  # noqa: F401
from robustness_cases import photographs
from saliency_cases import PLAIN, averaged, bright_squares, small

from sklearn_dl import ImageClassifier, ImageRegressor
from sklearn_dl.inspection import SaliencyDisplay, saliency


def drawn(X, maps, titles=None, *, ax=None, **options):
    return SaliencyDisplay(X, maps, titles).plot(ax=ax, **options)


def heat(ax):
    """Return how far the pixels of a map are from grey."""
    picture = np.asarray(ax.images[0].get_array(), float)
    return picture.max(2) - picture.min(2)


def test_the_display_lays_the_map_over_the_image():
    X = np.full((3, 30, 40, 3), 100, "uint8")
    maps = np.zeros((3, 30, 40))
    maps[:, 5:15, 20:30] = 2.0
    display = drawn(X, maps, titles=["a", "b", "c"], n_columns=2)
    assert display.axes_.shape == (4, 2)
    np.testing.assert_array_equal(display.axes_[0, 0].images[0].get_array(), X[0])
    assert [display.axes_[r, c].get_title() for r, c in ((0, 0), (0, 1), (2, 0))] == [
        "a",
        "b",
        "c",
    ]
    for row, column in ((1, 0), (1, 1), (3, 0)):
        coloured = heat(display.axes_[row, column])
        assert coloured[6:14, 21:29].min() > 0.2
        assert coloured[18:, :15].max() < 0.02
    assert not display.axes_[2, 1].images
    negative = drawn(X, maps - 1)
    labels = [t.get_text() for t in negative.figure_.axes[-1].get_xticklabels()]
    assert labels == ["lowers it", "no influence", "raises it"]


def test_the_display_of_an_estimator_has_its_maps_and_predictions():
    X, y, _ = bright_squares(4)
    fitted = small().fit(X, y)
    display = SaliencyDisplay.from_estimator(fitted, X, y, target="square")
    np.testing.assert_array_equal(display.maps, saliency(fitted, X, target="square"))
    chance = fitted.predict_proba(X).max(1)
    for row, label in enumerate(fitted.predict(X)):
        assert display.axes_[0, row].get_title().split("\n") == [
            f"predicted {label} {100 * chance[row]:.0f}%",
            f"label {y[row]}",
            "map for square",
        ]


def test_the_display_of_a_regressor_and_of_a_function_as_preprocessing():
    X = photographs(4, size=(40, 40))
    y = np.linspace(0, 1, 4)
    model = ImageRegressor(
        averaged, preprocessing=PLAIN, max_epochs=1, random_state=0
    ).fit(X, y)
    display = SaliencyDisplay.from_estimator(model, X, y)
    assert display.axes_[0, 3].get_title().endswith("true 1")

    def function(image):
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255 - 0.5

    model = ImageClassifier(
        averaged, preprocessing=function, max_epochs=1, random_state=0
    ).fit(X, [0, 1, 0, 1])
    with pytest.raises(ValueError, match="use frame='input'"):
        saliency(model, X)
    assert SaliencyDisplay.from_estimator(model, X).axes_.shape == (2, 4)


@pytest.mark.parametrize("signed", [False, True])
def test_it_can_be_read(signed, place):  # noqa: F811
    X = photographs(4)
    maps = np.random.default_rng(0).normal(size=(4, 12, 10))
    titles = [
        f"predicted a very long name of a class {i} 87 %\nlabel b" for i in "abcd"
    ]
    display = drawn(X, maps if signed else abs(maps), titles=titles, ax=place)
    assert_legible(display.figure_)


def test_names_alone_are_shortened():
    X = photographs(2)
    name = "a very long name of a class that has no room"
    lines = [[("predicted ", name, " 87 %"), ("label ", name, "")]] * 2
    display = drawn(X, np.ones((2, 12, 10)), titles=lines)
    predicted, label = display.axes_[0, 0].get_title().split("\n")
    assert predicted.startswith("predicted a v")
    assert predicted.endswith(" 87 %")
    assert label.startswith("label a very")
    assert "…" in label


def test_maps_and_images_must_belong_together():
    X = photographs(2)
    with pytest.raises(ValueError, match="2 images, but 1 maps"):
        drawn(X, np.zeros((1, 3, 3)))
    with pytest.raises(ValueError, match="Map 0 has the shape"):
        drawn(X, np.zeros((2, 3, 3, 3)))
    with pytest.raises(ValueError, match="ax must be a subplot"):
        drawn(X, np.zeros((2, 3, 3)), ax=Figure().add_axes((0, 0, 1, 1)))
