from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from panel_cases import (  # noqa: F401
    assert_legible,
    drawn_texts,
    no_windows,
    place,
    shown_ticks,
    without_matplotlib,
    words,
)
from robustness_cases import ByBrightness, halves, photographs

from sklearn_dl.inspection import (
    RobustnessDisplay,
    RobustnessOptions,
    RobustnessReport,
    list_corruptions,
    robustness_report,
)
from sklearn_dl.inspection._corruptions import CORRUPTIONS

ONCE = ("flip", "vertical_flip")


def report(names=None, classes=(), scoring="accuracy", clean=0.95):
    """Return a report in which the n-th corruption takes 0.02 n at severity 1."""
    rows = []
    names = list_corruptions()["corruption"].tolist() if names is None else names
    for n, name in enumerate(names):
        for severity in [1.0] if name in ONCE else [0.5, 1.0, 2.0]:
            kind = CORRUPTIONS[name]
            drop = 0.02 * n * severity
            rows.append(
                {
                    "corruption": name,
                    "severity": np.nan if name in ONCE else severity,
                    "amount": kind.text.format(kind.amount(severity)),
                    "score": clean - drop,
                    "drop": drop,
                    "low": drop - 0.025,
                    "high": drop + 0.015,
                    "augmentation": kind.augmentation,
                }
            )
    table = pd.DataFrame(rows)
    by_class = None
    if classes:
        by_class = pd.concat(
            [
                table[["corruption", "severity", "drop", "low", "high"]].assign(
                    **{"class": label, "n": 9, "drop": table["drop"] * k / 2},
                    score=0.9 - table["drop"] * k / 2,
                )
                for k, label in enumerate(classes)
            ],
            ignore_index=True,
        )
    interval = (clean - 0.03, clean + 0.02)
    return RobustnessReport(
        table, clean, interval, by_class, scoring=scoring, n_images=153
    )


def shown(found, corruptions=None, **options):
    return RobustnessDisplay(found).plot(corruptions, **options)


def solid(ax):
    return [line for line in ax.get_lines() if line.get_marker() == "o"]


def test_each_panel_holds_its_change():
    found = report()
    display = shown(found)
    assert list(display.axes_) == found.table["corruption"].drop_duplicates().tolist()
    rows = found.table[found.table["corruption"] == "darker"]
    (line,) = solid(display.axes_["darker"])
    np.testing.assert_array_equal(line.get_xdata(), [0, 0.5, 1, 2])
    np.testing.assert_allclose(line.get_ydata(), [0.95, *rows["score"]])
    band = display.axes_["darker"].collections[0].get_paths()[0].vertices
    at_2 = band[band[:, 0] == 2, 1]
    assert min(at_2) == pytest.approx(0.95 - rows["high"].iloc[-1])
    assert max(at_2) == pytest.approx(0.95 - rows["low"].iloc[-1])
    as_they_are, _ = display.axes_["darker"].get_lines()
    assert set(as_they_are.get_ydata()) == {0.95}
    (dot,) = solid(display.axes_["flip"])
    flip = found.table.query("corruption == 'flip'")
    assert dot.get_ydata() == flip["score"].tolist()
    (interval,) = display.axes_["flip"].collections[0].get_segments()
    ends = 0.95 - flip[["low", "high"]].to_numpy()[0]
    np.testing.assert_allclose(interval[:, 1], ends)


@pytest.mark.parametrize(
    ("scoring", "shift", "ends"),
    [
        ("accuracy", 0.0, (0.0, 1.0)),
        ("r2", 0.0, (-0.024, 1.0)),
        ("neg_mean_squared_error", -1.0, (-1.024, 0.0)),
        ("lift", 0.0, (-0.024, 1.015)),
        ("accuracy", 99.0, (98.976, 100.015)),  # percentages
    ],
)
def test_bands_and_axes_end_where_scores_do(scoring, shift, ends):
    """One corruption takes nothing, one nearly all, and one has no severity."""
    found = report(["blur", "noise", "flip"], scoring=scoring, clean=0.99 + shift)
    last = found.table.index[found.table["corruption"] == "noise"][-1]
    found.table.loc[last, ["score", "drop", "low", "high"]] = [
        *(0.001 + shift, 0.989, 0.964, 1.014)
    ]
    for display in (
        shown(found),
        shown(found, corruptions=["blur", "noise", "flip"]),
    ):
        axes = dict.fromkeys(display.axes_.values())
        paths = [p for a in axes for c in a.collections for p in c.get_paths()]
        heights = np.concatenate([path.vertices[:, 1] for path in paths])
        assert (heights.min(), heights.max()) == pytest.approx(ends, abs=1e-9)
        ticks = shown_ticks(display.ax_.yaxis)
        assert ends[0] - 1e-9 <= min(ticks) <= max(ticks) <= ends[1] + 1e-9
        low, high = display.ax_.get_ylim()
        assert low <= ends[0] <= ends[1] <= high


def test_a_perfect_score_has_no_tick_above_1():
    found = report(["smaller"], clean=1.0)
    found.table[["low", "high"]] = 0.0
    display = shown(found)
    assert max(shown_ticks(display.ax_.yaxis)) == 1.0


def test_captions_say_the_highest_severity_also_where_they_wrap(place):  # noqa: F811
    display = shown(report(["blur", "flip", "noise"]), ax=place)
    captions = [axis.get_xlabel() for axis in display.axes_.values()]
    assert " ".join(captions[0].split()) == "at 2: 1.50% of the shorter side"
    assert captions[1] == "left and right"


def test_weaknesses_are_named_and_marked():
    found = report(["smaller", "larger", "shear"])
    display = shown(found)
    titles = [axis.get_title(loc="left") for axis in display.axes_.values()]
    assert titles == ["smaller", "larger *", "shear **"]
    colours = [to_hex(solid(axis)[0].get_color()) for axis in display.axes_.values()]
    assert len(set(colours)) == 3
    texts = " ".join(text for text, _ in drawn_texts(display.figure_)).split()
    said = " ".join(texts)
    assert "Beyond 3 points (**): shear" in said
    assert "Beyond chance (*): larger." in said
    none = shown(report(["smaller"]))
    said = " ".join(text for text, _ in drawn_texts(none.figure_))
    assert "No drop is beyond chance." in " ".join(said.split())


def test_classes_are_drawn_with_their_recalls():
    found = report(["blur", "noise"], classes=["ants", "bees"])
    display = shown(found)
    ants, bees, _, whole = display.axes_["noise"].get_lines()
    np.testing.assert_allclose(ants.get_ydata(), [0.9] * 4)
    np.testing.assert_allclose(bees.get_ydata(), [0.9, 0.895, 0.89, 0.88])
    assert whole.get_linewidth() > ants.get_linewidth()
    many = report(["blur", "noise"], classes=[f"class {k}" for k in range(9)])
    display = shown(many)
    labels = [text for text, _ in drawn_texts(display.figure_)]
    drawn = [text for text in labels if text.startswith("recall of")]
    assert drawn == [f"recall of class {k}" for k in (5, 6, 7, 8)]
    assert any("5 of 9 classes are not drawn" in " ".join(t.split()) for t in labels)


@pytest.mark.parametrize("classes", [(), ("ants", "bees", "of a long name" * 4)])
def test_all_corruptions_are_legible(classes, place):  # noqa: F811
    found = report(classes=classes, scoring="balanced_accuracy")
    display = shown(found, ax=place)
    assert_legible(display.figure_)


@pytest.mark.parametrize("names", [["blur"], ["blur", "flip", "smaller", "noise"]])
def test_few_corruptions_are_legible(names, place):  # noqa: F811
    display = shown(report(names), ax=place)
    assert_legible(display.figure_)


def test_some_corruptions_can_be_drawn():
    names = ["noise", "flip", "blur"]
    display = shown(report(), names)
    assert list(display.axes_) == names
    noise = report().table.query("corruption == 'noise'")
    (line,) = solid(display.axes_["noise"])
    np.testing.assert_allclose(line.get_ydata(), [0.95, *noise["score"]])
    said = words(display.figure_)
    assert "jpeg" not in said
    assert list(shown(report(), "blur").axes_) == ["blur"]


def test_a_real_report_is_drawn():
    X, y = photographs(12), halves(12)
    options = {
        "corruptions": ["darker", "flip"],
        "severities": [1, 2],
        "options": RobustnessOptions(per_class=True, n_resamples=50),
    }
    found = robustness_report(ByBrightness().fit(), X, y, **options)
    display = shown(found)
    assert set(display.axes_) == {"flip", "darker"}
    assert_legible(display.figure_)


def test_names_of_classes_and_scores_are_no_mathematics(place):  # noqa: F811
    classes = ["$x^2", "$\\nothing$", "a class of a very long name " * 3]
    display = shown(report(["blur", "noise"], classes, scoring="a$b$"), ax=place)
    names = [text for text, _ in drawn_texts(display.figure_)]
    assert {r"a\$b\$", r"recall of \$x^2", r"recall of \$\nothing\$"} <= set(names)
    assert any("…" in name for name in names if name.startswith("recall of a class"))
    assert_legible(display.figure_)


def test_what_cannot_be_drawn_is_refused():
    display = RobustnessDisplay(report(["blur", "noise"]))
    with pytest.raises(ValueError, match=r"must be of blur, noise; got .'fog'"):
        display.plot(["fog"])
    with pytest.raises(ValueError, match=r"must be of blur, noise; got \[\]"):
        display.plot([])
    with pytest.raises(ValueError, match="ax must be a subplot"):
        display.plot(ax=Figure().add_axes((0, 0, 1, 1)))


def test_without_matplotlib_the_extra_is_named(without_matplotlib):  # noqa: F811
    with pytest.raises(ImportError, match=r"pip install 'sklearn_dl\[plots\]'"):
        RobustnessDisplay(report(["blur"])).plot()


def test_bold_headings_fit_in_a_narrow_place():
    found = report(["blur", "noise", "rotation"])
    table = found.table.copy()
    table["corruption"] = "a_name_of_many_letters_" + table["corruption"]
    found = RobustnessReport(table, 0.95, (0.93, 0.97), scoring="accuracy")
    display = shown(found, ax=Figure((9, 3)).subplots(1, 3)[1])
    assert_legible(display.figure_)
    boxes = dict(drawn_texts(display.figure_))
    headings = [boxes[ax.get_title(loc="left")] for ax in display.axes_.values()]
    assert all(a.x1 + 2 < b.x0 for a, b in pairwise(headings))


def test_no_power_stands_apart_from_the_numbers():
    found = report(["blur", "noise"], scoring="neg_mean_squared_error", clean=-3e6)
    columns = ["drop", "low", "high"]
    found.table[columns] *= 1e7
    found.table["score"] = found.clean_score - found.table["drop"]
    display = shown(found)
    assert_legible(display.figure_)
    assert not display.ax_.yaxis.get_offset_text().get_text()


def test_lines_take_short_names():
    display = shown(report(["blur"]), line_kw={"ms": 9, "lw": 5})
    (line,) = solid(display.ax_)
    assert (line.get_markersize(), line.get_linewidth()) == (9, 5)
