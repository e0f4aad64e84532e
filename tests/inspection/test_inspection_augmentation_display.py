"""The picture of augmentations."""

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure
from panel_cases import assert_legible, no_windows, place  # noqa: F401
from PIL import ImageOps
from robustness_cases import photographs

from sklearn_dl import ImageClassifier, ImageFeatureExtractor
from sklearn_dl.augmentation import Augment
from sklearn_dl.inspection import AugmentationDisplay

SMALL = {"backbone": "squeezenet1_1", "weights": None, "image_size": 32}


def drawn(*data, ax=None, **options):
    return AugmentationDisplay(*data, **options).plot(ax=ax)


def shown(display):
    return [
        [np.asarray(ax.images[0].get_array()) for ax in row] for row in display.axes_
    ]


@pytest.mark.parametrize(
    "augment", ["light", ["flip"], ImageOps.invert, Augment("flip"), None]
)
def test_whatever_the_estimators_take_can_be_shown(augment):
    X = photographs(2, size=(32, 32))
    display = drawn(X, augment, n_draws=4, image_size=(32, 32))
    for row, image in zip(shown(display), X, strict=True):
        np.testing.assert_allclose(row[0], image / 255, atol=1e-6)
        if augment is ImageOps.invert:
            for draw in row[1:]:
                np.testing.assert_allclose(draw, 1 - image / 255, atol=1e-6)


@pytest.mark.parametrize("fitted", [False, True])
def test_an_estimator_shows_its_own(fitted):
    X = photographs(6)
    model = ImageClassifier(
        **SMALL, augment=["flip", "cutmix"], max_epochs=1, random_state=0
    )
    if fitted:
        model.fit(X, [0, 1] * 3)
    display = AugmentationDisplay.from_estimator(model, X, n_images=2, n_draws=3)
    same = drawn(X, ["flip", "cutmix"], n_images=2, n_draws=3, image_size=32)
    size = (32, 32, 3)
    for row, other in zip(shown(display), shown(same), strict=True):
        assert all(picture.shape == size for picture in row)
        if not fitted:
            assert all(np.array_equal(a, b) for a, b in zip(row, other, strict=True))
    assert all("% of " in ax.get_xlabel() for ax in display.axes_[:, 1:].ravel())
    with pytest.raises(TypeError, match="no parameter augment"):
        AugmentationDisplay.from_estimator(ImageFeatureExtractor(), X)


def test_rows_of_pixels_have_the_shape_of_the_estimator():
    X = photographs(2, size=(20, 30)).reshape(2, -1)
    model = ImageClassifier(**SMALL, image_shape=(20, 30, 3), augment="light")
    assert AugmentationDisplay.from_estimator(model, X).axes_.shape == (2, 7)


@pytest.mark.parametrize("mix", [None, "mixup"])
def test_it_can_be_read(mix, place):  # noqa: F811
    X = photographs(3)
    augment = Augment("standard", mix=mix)
    display = drawn(X, augment, n_draws=3, ax=place)
    if isinstance(place, type(None)) or mix is None:
        assert_legible(display.figure_)


@pytest.mark.parametrize("n_draws", [6, 12])
def test_headings_do_not_touch_in_a_narrow_place(n_draws):
    ax = Figure((9, 3)).subplots(1, 3)[1]
    display = drawn(photographs(2), n_draws=n_draws, ax=ax)
    assert_legible(display.figure_)
    boxes = [axis.title.get_window_extent() for axis in display.axes_[0]]
    assert all(a.x1 + 1 < b.x0 for a, b in pairwise(boxes))
    assert display.axes_[0, -1].get_title().endswith(str(n_draws))
