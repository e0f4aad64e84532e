import numpy as np
import pytest
from panel_cases import no_windows, without_matplotlib  # noqa: F401
from PIL import Image

from sklearn_dl.augmentation import Augment
from sklearn_dl.inspection import AugmentationDisplay


def images(n=3, channels=3):
    shape = (n, 40, 50, channels) if channels == 3 else (n, 40, 50)
    return np.random.default_rng(0).integers(0, 256, shape, "uint8")


def drawn(X, augment="standard", **options):
    return AugmentationDisplay(X, augment, **options).plot().figure_


def shown(figure):
    return [np.asarray(axis.images[0].get_array()) for axis in figure.axes]


def test_the_picture_shows_the_plain_view_and_what_is_drawn():
    X = images()
    figure = drawn(X, n_draws=2, image_size=(20, 25), random_state=0)
    assert len(figure.axes) == 3 * 3
    titles = [axis.get_title() for axis in figure.axes[:3]]
    assert titles == ["prediction", "draw 1", "draw 2"]
    plain = np.asarray(
        Image.fromarray(X[0]).resize((25, 20), Image.Resampling.BILINEAR)
    )
    np.testing.assert_allclose(shown(figure)[0], plain / 255, atol=1e-6)
    assert len({picture.tobytes() for picture in shown(figure)}) == 9


def test_the_draws_are_those_of_the_augmenter():
    X = images()
    figure = drawn(X, "flip", n_draws=8, image_size=(40, 50))
    for picture, row in zip(shown(figure), np.repeat(range(3), 9), strict=True):
        values = np.round(255 * picture).astype("uint8")
        assert (values == X[row]).all() or (values == X[row][:, ::-1]).all()


def test_views_come_back_in_the_picture():
    options = {"n_draws": 5, "image_size": 20}
    rows = np.array(shown(drawn(images(), Augment("standard", views=2), **options)))
    rows = rows.reshape(3, 6, 20, 20, 3)
    new = np.array(shown(drawn(images(), **options))).reshape(rows.shape)
    np.testing.assert_array_equal(rows[:, 1:], new[:, [1, 2, 1, 2, 1]])
    assert not np.array_equal(new[:, 1], new[:, 3])


@pytest.mark.parametrize("mix", ["mixup", "cutmix", "both"])
def test_mixed_images_bear_their_shares(mix):
    augment = Augment("standard", mix=mix)
    figure = drawn(images(), augment, n_draws=3, image_size=20)
    labels = [axis.get_xlabel() for axis in figure.axes]
    assert labels[0] == ""
    assert all("% of " in label for label in labels[1:4])
    plain = drawn(images(), n_draws=3, image_size=20)
    different = sum(
        not np.array_equal(a, b)
        for a, b in zip(shown(figure), shown(plain), strict=True)
    )
    assert different >= 3


def test_the_random_state_decides():
    def first(seed):
        figure = drawn(images(), n_draws=1, random_state=seed)
        return shown(figure)[1]

    assert np.array_equal(first(0), first(0))
    assert not np.array_equal(first(0), first(1))


@pytest.mark.parametrize(
    "X",
    [
        images(channels=1),
        images()[:1] / np.float32(255),
        [Image.fromarray(image) for image in images()],
        images().reshape(3, -1)[:, :784],
    ],
    ids=["grey", "floats", "PIL", "rows"],
)
@pytest.mark.parametrize("augment", [None, "strong", ["flip", "noise"]])
def test_any_x_and_any_augment_can_be_shown(X, augment):
    figure = drawn(X, augment, n_images=2, n_draws=1, image_size=16)
    assert len(figure.axes) == 2 * min(len(X), 2)


def test_nothing_overlaps():
    figure = drawn(images(), ["standard", "mixup"], n_draws=3, image_size=16)
    figure.canvas.draw()
    boxes = []
    for axis in figure.axes:
        boxes += [axis.get_window_extent(), axis.title.get_window_extent()]
        boxes += [axis.xaxis.label.get_window_extent()]
    boxes = [box for box in boxes if box.width > 1]
    for i, one in enumerate(boxes):
        for other in boxes[i + 1 :]:
            across = min(one.x1, other.x1) - max(one.x0, other.x0)
            down = min(one.y1, other.y1) - max(one.y0, other.y0)
            assert min(across, down) < 1


@pytest.mark.parametrize("wrong", [0, -1, 2.5, True])
def test_wrong_numbers_are_named(wrong):
    with pytest.raises(ValueError, match="n_draws must be an int"):
        drawn(images(), n_draws=wrong)
    with pytest.raises(ValueError, match="n_images must be an int"):
        drawn(images(), n_images=wrong)


def test_without_matplotlib_the_extra_is_named(without_matplotlib):  # noqa: F811
    with pytest.raises(ImportError, match=r"sklearn_dl\[plots\]"):
        drawn(images(), n_draws=1, image_size=8)


def test_the_batch_of_a_column_is_mixed_as_in_training():
    X = images()
    figure = drawn(X, Augment("mixup", mix_alpha=1.0), n_draws=1, image_size=(40, 50))
    share = float(figure.axes[1].get_xlabel().split("%")[0]) / 100
    other = int(figure.axes[1].get_xlabel().split()[-1]) - 1
    expected = (share * X[0] + (1 - share) * X[other].astype(float)) / 255
    np.testing.assert_allclose(shown(figure)[1], expected, atol=0.006)
