"""The gallery of the worst and the best predictions."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from panel_cases import assert_legible, no_windows, place  # noqa: F401
from PIL import Image
from robustness_cases import photographs
from sklearn.linear_model import LinearRegression, LogisticRegression

from sklearn_dl._plots import fitted
from sklearn_dl.inspection import TopLossesDisplay, label_errors, top_losses

NAMES = ["ant", "bee", "wasp"]


def predictions(n=30, seed=0):
    rng = np.random.default_rng(seed)
    proba = rng.dirichlet(np.ones(3), n)
    y = np.array(NAMES)[rng.integers(0, 3, n)]
    return y, proba, photographs(n)


def table_of(table, X, **options):
    return TopLossesDisplay(table, X, **options).plot()


def pictures(display):
    return [ax for ax in display.axes_.ravel() if ax.images]


def shown(ax):
    return np.asarray(ax.images[0].get_array())


def test_the_worst_are_those_of_top_losses_each_with_its_image():
    y, proba, X = predictions()
    display = TopLossesDisplay.from_predictions(y, proba, X, k=5)
    loss = -np.log(proba[np.arange(30), [NAMES.index(label) for label in y]])
    rows = np.argsort(-loss)[:5]
    assert display.table["row"].tolist() == rows.tolist()
    for ax, row in zip(pictures(display), rows, strict=True):
        np.testing.assert_array_equal(shown(ax), X[row])
        guess = proba[row].argmax()
        assert ax.get_title().split("\n") == [
            f"predicted {NAMES[guess]} {100 * proba[row, guess]:.0f}%",
            f"label {y[row]}",
            f"loss {loss[row]:.2g}, row {row}",
        ]


def test_the_best_are_drawn_of_their_rows():
    y, proba, X = predictions()
    table = TopLossesDisplay.from_predictions(y, proba, X, k=30).table
    display = table_of(table.tail(4).iloc[::-1], X)
    truth = proba[np.arange(30), [NAMES.index(label) for label in y]]
    assert display.table["row"].tolist() == np.argsort(-truth)[:4].tolist()
    for ax, row in zip(pictures(display), display.table["row"], strict=True):
        np.testing.assert_array_equal(shown(ax), X[row])


def test_estimator_table_and_predictions_draw_the_same():
    X = photographs(40).reshape(40, -1)
    y = np.repeat(["dark", "light"], 20)
    y[3] = "light"
    model = LogisticRegression(C=1e-6).fit(X, y)
    options = {"image_shape": (48, 40, 3)}
    first = table_of(top_losses(model, X, y, k=6), X, **options)
    again = TopLossesDisplay.from_predictions(
        y, model.predict_proba(X), X.reshape(40, 48, 40, 3), k=6
    )
    titles = [[ax.get_title() for ax in d.axes_.ravel()] for d in (first, again)]
    assert titles[0] == titles[1]
    assert titles[0][0].startswith("predicted dark")
    assert first.axes_.shape == (2, 4)
    assert len(pictures(first)) == 6
    squares = photographs(40, size=(24, 24)).reshape(40, -1)
    model.fit(squares, y)
    own = TopLossesDisplay.from_estimator(model, squares, y, k=1)
    row = top_losses(model, squares, y, k=1)["row"][0]
    np.testing.assert_array_equal(
        shown(own.axes_[0, 0]), squares[row].reshape(24, 24, 3)
    )


def test_frames_tell_mistakes_right_ones_and_doubted_labels():
    X = np.repeat([[0.1], [0.2], [0.8], [0.9]], 10, axis=0)
    y = np.repeat(["dark", "light"], 20)
    y[3] = "light"
    model = LogisticRegression(C=100).fit(X, y)
    images = photographs(40)
    table = top_losses(model, X, y, k=3)
    display = table_of(table, images)
    colours = {patch.get_label() for patch in display.figure_.legends[0].get_patches()}
    assert colours == {"right", "label in doubt"}
    edge = [ax.patches[0].get_edgecolor() for ax in pictures(display)]
    assert edge[0] != edge[1] == edge[2]
    doubted = label_errors(model, X, y)
    display = table_of(doubted, images)
    assert pictures(display)[0].patches[0].get_edgecolor() == edge[0]
    y, proba, X = predictions()
    display = TopLossesDisplay.from_predictions(y, proba, X, k=30)
    wrong = [ax for ax in pictures(display) if len(ax.patches)]
    assert len(wrong) == 30


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_regressors_show_their_errors(n_outputs):
    rng = np.random.default_rng(0)
    y = rng.normal(size=(20, n_outputs)).squeeze()
    predicted = y + 0.01 * rng.normal(size=y.shape)
    predicted[7] += 5.0
    display = TopLossesDisplay.from_predictions(y, predicted, photographs(20), k=2)
    lines = display.axes_[0, 0].get_title().split("\n")
    assert lines[0].startswith("predicted ")
    assert lines[3] == "row 7"
    assert float(lines[2].split()[-1]) == pytest.approx(5.0, abs=0.1)
    assert not display.figure_.legends
    assert not display.axes_[0, 0].patches
    model = LinearRegression().fit(rng.normal(size=(20, 2)), y)
    X = rng.normal(size=(20, 2))
    table = top_losses(model, X, y, k=3)
    assert len(pictures(table_of(table, photographs(20)))) == 3


def test_whole_numbers_can_be_targets():
    display = TopLossesDisplay.from_predictions(
        [1, 5, 9], [1.0, 2.0, 9.5], photographs(3), k=1
    )
    assert display.axes_[0, 0].get_title() == "predicted 2\ntrue 5\nerror -3\nrow 1"


def test_paths_have_the_name_of_the_file_and_images_keep_their_shape(tmp_path):
    paths = []
    for number, size in enumerate([(600, 300), (30, 60), (50, 50)]):
        paths.append(tmp_path / f"picture{number}.png")
        Image.fromarray(photographs(1, number, size[::-1])[0]).save(paths[-1])
    display = TopLossesDisplay.from_predictions(
        ["a", "b", "a"], [[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]], paths
    )
    assert display.axes_[0, 0].get_title().endswith("row 1\npicture1.png")
    assert [image.shape[:2] for image in display.images] == [
        (60, 30),
        (50, 50),
        (128, 256),
    ]
    for ax in pictures(display):
        height, width = shown(ax).shape[:2]
        left, right, bottom, top = ax.images[0].get_extent()
        assert (bottom - top) / (right - left) == height / width


@pytest.mark.parametrize(
    "label", ["ant", "Lasius_(Acanthomyops)_claviger_" * 3, "$x^2"]
)
@pytest.mark.parametrize("k", [4, 9])
def test_it_can_be_read(k, label, place):  # noqa: F811
    y, proba, X = predictions(9)
    y = np.array([label, "bee", "wasp"], object)[[NAMES.index(one) for one in y]]
    classes = np.array([label, "bee", "wasp"], object)
    if place is not None:
        k = 4
    display = TopLossesDisplay.from_predictions(
        y, proba, X, classes=classes, k=k, n_columns=3, ax=place
    )
    assert_legible(display.figure_)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "The 'k' parameter"),
        ({"classes": ["ant", "bee"]}, "one column of probabilities for each of 2"),
    ],
)
def test_what_is_wrong_is_said(options, message):
    y, proba, X = predictions(4)
    with pytest.raises(ValueError, match=message):
        TopLossesDisplay.from_predictions(y, proba, X, **options)


def test_tables_and_images_must_belong_together():
    y, proba, X = predictions(9)
    table = TopLossesDisplay.from_predictions(y, proba, X).table
    with pytest.raises(ValueError, match="The table has row 8, but X has 2"):
        table_of(table, X[:2])
    with pytest.raises(ValueError, match="of top_losses or label_errors"):
        table_of(pd.DataFrame({"a": [1]}), X)
    with pytest.raises(ValueError, match="no row"):
        table_of(table.head(0), X)


def test_names_alone_are_shortened():
    y, proba, X = predictions(9)
    names = ["Lasius_(Acanthomyops)_claviger", "Formica_rufa_and_others", "wasp_" * 6]
    y = np.array(names)[[NAMES.index(one) for one in y]]
    display = TopLossesDisplay.from_predictions(y, proba, X, classes=names)
    for ax, (_, row) in zip(pictures(display), display.table.iterrows(), strict=True):
        predicted, label, *_ = ax.get_title().split("\n")
        assert predicted.startswith("predicted ")
        assert predicted.endswith(f" {100 * row['probability']:.0f}%")
        assert label.startswith("label ")
        assert "…" in predicted
        assert row["prediction"].startswith(predicted.split()[1].split("…")[0])


def test_rows_of_pixels_have_the_shape_that_was_given():
    y, proba, X = predictions(4)
    display = TopLossesDisplay.from_predictions(
        y, proba, X.reshape(4, -1), classes=NAMES, image_shape=(48, 40, 3)
    )
    row = display.table["row"][0]
    np.testing.assert_array_equal(shown(display.axes_[0, 0]), X[row])


@pytest.mark.parametrize("ax", [Figure(), Figure().add_axes((0, 0, 1, 1))])
def test_what_is_no_subplot_is_refused(ax):
    y, proba, X = predictions(4)
    with pytest.raises(ValueError, match="ax must be a subplot"):
        TopLossesDisplay.from_predictions(y, proba, X, classes=NAMES, ax=ax)


@pytest.mark.parametrize("text", ["$x^2$ of $y_1", "cost in $", "a$b" * 20, "a\\$b"])
def test_dollars_are_written_as_they_are(text):
    for width in (0.3, 0.8, 9.0):
        line = fitted(text, width, 9)
        written, is_math = Text()._preprocess_math(line)
        assert not is_math
        start, _, end = written.partition("…")
        assert text.startswith(start)
        assert text.endswith(end)


@pytest.mark.parametrize(
    ("y", "predicted", "classes"),
    [
        (["a", "b"], ["b", "b"], None),
        (["a", "b"], [0.2, 0.9], None),
        ([0, 1], [1, 1], None),
        ([0.0, 1.0], [0.2, 0.9], [0, 1]),
        ([True, False], [0.2, 0.9], None),
        ([0.5, 1.5], ["a", "b"], None),
        ([[1, 0], [0, 1]], [[1, 0], [1, 0]], None),
    ],
)
def test_predicted_labels_are_no_numbers(y, predicted, classes):
    with pytest.raises(ValueError, match=r"give probabilities .* \(n, n_classes\)"):
        TopLossesDisplay.from_predictions(y, predicted, photographs(2), classes=classes)


def test_names_need_not_be_unicode(place):  # noqa: F811
    y, _, X = predictions(4)
    y = np.where(y == "ant", "caf\udce9", y)
    y[0], proba = "caf\udce9", [[0.9, 0.1]] * 4
    y[1:] = "bee"
    table = TopLossesDisplay.from_predictions(y, proba, X, k=4, ax=place).table
    assert table["truth"].tolist() == ["caf\udce9", "bee", "bee", "bee"]
    path = pd.Series(["folder/\udcff.png"] * 4, dtype=object)
    display = table_of(table.assign(path=path), X)
    assert display.axes_[0, 0].get_title().endswith("\n\\udcff.png")
    assert_legible(display.figure_)
