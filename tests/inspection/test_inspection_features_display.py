from itertools import combinations

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from panel_cases import (  # noqa: F401
    assert_legible,
    drawn_texts,
    no_windows,
    place,
    without_matplotlib,
)
from PIL import Image
from robustness_cases import halves, photographs
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.neighbors import KNeighborsClassifier

from sklearn_dl import (
    ImageClassifier,
    ImageFeatureExtractor,
    ImageRegressor,
    make_feature_classifier,
)
from sklearn_dl._images import ImageDecodeError
from sklearn_dl.inspection import EmbeddingDisplay
from sklearn_dl.inspection._embedding import features_of

SMALL = {
    "backbone": "squeezenet1_1",
    "weights": None,
    "image_size": 32,
    "random_state": 0,
}


def features(n=40, d=12, seed=0):
    values = np.random.default_rng(seed).normal(size=(n, d)).astype("float32")
    values[n // 2 :, 0] += 5
    return values


def drawn(*data, ax=None, **options):
    return EmbeddingDisplay(*data, **options).plot(ax=ax)


def frames(ax):
    return [patch for patch in ax.patches if isinstance(patch, Rectangle)]


@pytest.mark.parametrize("trainable", ["head", 1])
def test_features_of_a_classifier_are_what_its_head_sees(trainable):
    X, y = photographs(12), halves(12)
    model = ImageClassifier(
        **SMALL, trainable=trainable, max_epochs=2, backbone_lr=1e-3, tta="flip"
    ).fit(X, y)
    model.set_params(tta=None)
    found, name = features_of(model, X)
    head = model.module_.head.eval()
    with torch.inference_mode():
        outputs = head(torch.from_numpy(found)).softmax(1).numpy()
    np.testing.assert_allclose(outputs, model.predict_proba(X), atol=1e-6)
    assert name == "features of squeezenet1_1"


def test_features_come_from_extractors_regressors_and_pipelines():
    X, y = photographs(12), halves(12)
    extractor = ImageFeatureExtractor(**SMALL).fit(X)
    np.testing.assert_array_equal(features_of(extractor, X)[0], extractor.transform(X))
    regressor = ImageRegressor(**SMALL, max_epochs=1).fit(X, np.arange(12.0))
    np.testing.assert_allclose(
        features_of(regressor, X)[0], extractor.transform(X), atol=1e-6
    )
    pipeline = make_feature_classifier(**SMALL).fit(X, y)
    found, name = features_of(pipeline, X)
    np.testing.assert_array_equal(found, pipeline[:-1].transform(X))
    assert name == "features before FeatureSVC"
    with pytest.raises(TypeError, match="KNeighborsClassifier makes no features"):
        features_of(KNeighborsClassifier(), X)


def test_points_lie_where_the_components_say(place):  # noqa: F811
    values, X, y = features(), photographs(40), halves(40)
    display = drawn(values, X, y, ax=place)
    reference = PCA(2, random_state=0).fit(values)
    np.testing.assert_allclose(
        display.embedding, reference.transform(values), atol=1e-5
    )
    share = f"{reference.explained_variance_ratio_[0]:.0%}"
    assert display.ax_.get_xlabel() == f"component 1: {share} of the variance"
    assert_legible(display.figure_)
    rows = display.thumbnail_rows_
    assert 5 < len(rows) < 40
    middles = [
        (f.get_x() + f.get_width() / 2, f.get_y() + f.get_height() / 2)
        for f in frames(display.ax_)
    ]
    np.testing.assert_allclose(middles, display.embedding[rows])
    dots = np.concatenate([c.get_offsets() for c in display.ax_.collections])
    assert len(dots) == 40 - len(rows)
    written = " ".join(text for text, _ in drawn_texts(display.figure_))
    assert "dark (20)" in written
    assert "light (20)" in written


@pytest.mark.parametrize("spread", [(1, 1), (1, 30), (30, 1)])
def test_thumbnails_do_not_cover_one_another(spread, place):  # noqa: F811
    points = np.random.default_rng(0).normal(size=(80, 2)) * spread
    X = photographs(80)
    display = EmbeddingDisplay(points, X, halves(80)).plot(ax=place)
    figure = display.figure_
    drawn_texts(figure)
    boxes = [frame.get_window_extent() for frame in frames(display.ax_)]
    assert len(boxes) == len(display.thumbnail_rows_) > 5
    for a, b in combinations(boxes, 2):
        across = min(a.x1, b.x1) - max(a.x0, b.x0)
        down = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert min(across, down) <= 0
    outer = display.ax_.get_window_extent()
    for box in boxes:
        assert outer.x0 - 1 <= box.x0
        assert box.x1 <= outer.x1 + 1
        assert outer.y0 - 1 <= box.y0
        assert box.y1 <= outer.y1 + 1
        assert box.height / box.width == pytest.approx(48 / 40, rel=0.02)


def test_pictures_are_upright_small_and_of_their_own_rows(tmp_path):
    X = []
    for row in range(4):
        pixels = np.full((300, 200, 3), 60 * row, "uint8")
        pixels[:150] += 40  # lighter above
        Image.fromarray(pixels).save(tmp_path / f"{row}.png")
        X.append(tmp_path / f"{row}.png")
    points = np.array([[0, 0], [0, 9], [9, 0], [9, 9]])
    display = EmbeddingDisplay(points, X, [0, 0, 1, 1]).plot()
    for row, image in zip(
        display.thumbnail_rows_, display.ax_.get_images(), strict=True
    ):
        pixels = image.get_array()
        assert pixels.shape == (128, 85, 3)
        assert (pixels[0] == 60 * row + 40).all()
        left, right, bottom, top = image.get_extent()
        assert top > bottom
        assert image.origin == "upper"
        assert ((left + right) / 2, (bottom + top) / 2) == pytest.approx(points[row])
    colours = {
        int(row): to_hex(frame.get_edgecolor())
        for row, frame in zip(display.thumbnail_rows_, frames(display.ax_), strict=True)
    }
    assert colours[0] == colours[1] != colours[2] == colours[3]


def test_only_what_is_drawn_is_decoded(tmp_path):
    points = np.array([[0, 0], [5, 5], [10, 10], [5, 5.1]])
    path = tmp_path / "middle.png"
    Image.new("RGB", (9, 9)).save(path)
    X = ["missing_0.png", str(path), "missing_2.png", "missing_3.png"]
    display = EmbeddingDisplay(points, X).plot(n_thumbnails=1)
    assert display.thumbnail_rows_.tolist() == [1]
    assert EmbeddingDisplay(points, X).plot(n_thumbnails=0).thumbnail_rows_.size == 0
    with pytest.raises(ImageDecodeError, match=r"row [02], 'missing_[02]\.png'"):
        EmbeddingDisplay(points, X).plot()


def test_many_classes_differ_in_colour_or_form():
    names = [f"class number {k // 2:02d}" for k in range(60)]
    display = drawn(features(60), photographs(60), names)
    (legend,) = display.figure_.legends
    looks = {(h.get_color(), h.get_marker()) for h in legend.legend_handles}
    assert len(looks) == len(legend.get_texts()) == 26
    assert legend.get_texts()[-1].get_text() == "5 other classes (10)"
    assert_legible(display.figure_)


def test_numbers_have_a_scale(place):  # noqa: F811
    y = np.linspace(0.5, 8.2, 40)
    display = drawn(features(), photographs(40), y, ax=place)
    bar = display.figure_.axes[-1]
    assert bar.get_ylim() == (0.5, 8.2)
    assert_legible(display.figure_)
    plain = drawn(features())
    assert plain.thumbnail_rows_.size == 0
    assert len(plain.ax_.collections[0].get_offsets()) == 40


@pytest.mark.parametrize("n", [5, 80])
def test_tsne_keeps_groups_apart(n):
    values = features(n, 70)
    values[n // 2 :] += 9
    display = drawn(values, method="tsne")
    found = KMeans(2, n_init=5, random_state=0).fit_predict(display.embedding)
    if n == 80:
        assert len(set(found[:40])) == len(set(found[40:])) == 1
    again = drawn(values, method="tsne")
    np.testing.assert_array_equal(display.embedding, again.embedding)
    assert display.ax_.get_xlabel() == "dimension 1"


def test_a_transformer_may_be_given():
    values = features()
    svd = TruncatedSVD(2, random_state=0)
    display = drawn(values, method=svd)
    np.testing.assert_array_equal(display.embedding, svd.fit_transform(values))
    with pytest.raises(ValueError, match=r"shape \(40, 3\), not \(40, 2\)"):
        drawn(values, method=PCA(3))


def test_an_estimator_is_drawn_with_its_images():
    X = photographs(20)
    extractor = ImageFeatureExtractor(**SMALL, image_shape=(48, 40, 3)).fit(X)
    rows = X.reshape(20, -1)  # not square: the estimator knows their shape
    display = EmbeddingDisplay.from_estimator(extractor, rows, halves(20))
    assert display.ax_.get_images()[0].get_array().shape == (48, 40, 3)
    assert "features of squeezenet1_1: principal components" in [
        text for text, _ in drawn_texts(display.figure_)
    ]


def test_what_cannot_be_drawn_is_refused():
    values = features()
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        EmbeddingDisplay(values[:, :2], photographs(4))
    with pytest.raises(ValueError, match="1d array"):
        EmbeddingDisplay(values[:, :2], y=np.zeros((40, 2)))
    with pytest.raises(ValueError, match="method='lle' is none of"):
        drawn(values, method="lle")
    with pytest.raises(ValueError, match="at least 4 images, got 3"):
        drawn(values[:3], method="tsne")
    display = EmbeddingDisplay(values[:, :2])
    with pytest.raises(ValueError, match="thumbnail_size == 40, must be < 1"):
        display.plot(thumbnail_size=40)
    with pytest.raises(ValueError, match="n_thumbnails == -1, must be >= 0"):
        display.plot(n_thumbnails=-1)
    with pytest.raises(ValueError, match="ax must be a subplot"):
        display.plot(ax=Figure().add_axes((0, 0, 1, 1)))


def test_without_matplotlib_it_is_said_what_to_install(
    without_matplotlib,  # noqa: F811
):
    values = np.random.default_rng(0).normal(size=(8, 2))
    with pytest.raises(ImportError, match=r"pip install 'sklearn_dl\[plots\]'"):
        EmbeddingDisplay(values).plot()


@pytest.mark.parametrize("y", [np.repeat([0, 1], 20), np.linspace(0, 1.5, 40)])
@pytest.mark.parametrize("colour", ["c", "color"])
def test_dots_take_short_names(y, colour):
    given = {colour: "r", "lw": 3, "ec": "k"}
    display = EmbeddingDisplay(features(), None, y).plot(scatter_kw=given)
    for dots in display.ax_.collections:
        assert {to_hex(one) for one in dots.get_facecolor()} == {"#ff0000"}
        assert {to_hex(one) for one in dots.get_edgecolor()} == {"#000000"}
        assert dots.get_linewidth().tolist() == [3]
