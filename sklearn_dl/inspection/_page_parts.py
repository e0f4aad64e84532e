"""What a report shows of images, mistakes, duplicates and training, as values."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sklearn_dl.datasets import target_text
from sklearn_dl.inspection._confusion import most_confused
from sklearn_dl.inspection._embedding import near_duplicates
from sklearn_dl.inspection._history_display import CURVES, TrainingHistoryDisplay
from sklearn_dl.inspection._judged import Judged
from sklearn_dl.inspection._losses import label_errors, top_losses
from sklearn_dl.inspection._report import RobustnessReport, code_of
from sklearn_dl.inspection._robustness_display import RobustnessDisplay
from sklearn_dl.inspection._scores import flat, given
from sklearn_dl.inspection._slices import slice_scores, slices_table

_CONFUSED, _EXAMPLES = 12, 4
_BINS = 10
_PANELS = {"score": "validation score", "rates": "learning rate"}
_CANDIDATES = 9  # classes of an image that have a key
_DOUBTED = 20  # labels to look at, where there are as many mistakes
_WIDTH, _HEIGHT = 320, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 10, 40
_TICKS = 5


def confusions(judged: Judged) -> list[dict[str, Any]]:
    """Return the pairs of classes confused most: surest mistakes, a typical image."""
    if judged.kind != "classes":
        return []
    asked = judged.answers, judged.positions, judged.truth
    pairs = most_confused(*asked, k=_CONFUSED, n_examples=_EXAMPLES)
    names = judged.answers.classes_.tolist()
    right = judged.predicted == judged.truth
    found = []
    for pair in pairs.itertuples():
        rows = np.flatnonzero(right & (judged.truth == pair.prediction))
        column = names.index(pair.prediction)
        typical = rows[judged.values[rows, column].argmax()] if len(rows) else None
        found.append(
            {
                "truth": target_text(pair.truth),
                "prediction": target_text(pair.prediction),
                "n": int(pair.n),
                "rate": float(pair.rate),
                "examples": judged.rows[list(pair.examples)].tolist(),
                "typical": None if typical is None else int(judged.rows[typical]),
            }
        )
    return found


def calibration(judged: Judged) -> dict[str, Any] | None:
    """Return how often predictions are right, by how sure they are."""
    if judged.kind == "numbers" or not judged.has_probabilities:
        return None
    from sklearn.calibration import calibration_curve

    p, truth = judged.values, judged.truth
    if judged.kind == "labels":
        sure, right = p.ravel(), truth.ravel()
        axes = "probability of a label", "share of images that have it"
    else:
        sure, right = p.max(axis=1), judged.predicted == truth
        axes = "probability of the prediction", "share that is right"
    right, sure = np.asarray(right).astype(int), np.clip(sure, 0, 1)
    if len(np.unique(right)) < 2:
        return None  # all are right, or all wrong
    share, mean = calibration_curve(right, sure, n_bins=_BINS)
    bins = np.minimum((sure * _BINS).astype(int), _BINS - 1)
    gaps = pd.DataFrame({"gap": right - sure}).groupby(bins)["gap"]
    error = float((gaps.mean().abs() * gaps.size()).sum() / len(sure))
    curve = Curve("this model", mean.tolist(), share.tolist())
    limits = (0.0, 1.0)
    drawn = chart(
        "Calibration curve", axes, [curve], limits=(limits, limits), diagonal=True
    )
    return {"chart": drawn, "error": error, "n_bins": _BINS}


def residuals(judged: Judged) -> list[dict[str, Any]]:
    """Return charts of residuals against targets, one for each output."""
    if judged.kind != "numbers":
        return []
    n = len(judged.truth)
    some = np.linspace(0, n - 1, min(n, 1000)).astype(int)
    truth, predicted = flat(judged.truth)[some], flat(judged.predicted)[some]
    found = []
    for column in range(truth.shape[1]):
        x = truth[:, column]
        y = predicted[:, column] - x
        name = "" if truth.shape[1] == 1 else f" of output {column}"
        axes = "target", "prediction minus target"
        curve = Curve("images", x.tolist(), y.tolist(), dots=True)
        found.append(chart(f"Residuals{name}", axes, [curve]))
    return found


def slices_of(judged: Judged, slices: Any, n_given: int) -> list[dict[str, Any]]:
    """Return the scores of slices, the worst first."""
    if slices is None:
        return []
    table = slices_table(slices, n_given).iloc[judged.rows]
    if judged.kind == "classes":
        pair = judged.columns
    elif judged.kind == "numbers":
        pair = judged.truth, judged.predicted
    else:  # whether all labels of an image are right
        right = (judged.truth == judged.predicted).all(axis=1).astype(int)
        pair = np.ones_like(right), right
    found = slice_scores(*pair, slices=table)
    return found.to_dict("records")


def robustness(report: RobustnessReport | None) -> dict[str, Any] | None:
    """Return the curves of a robustness report, and the augmentations that answer."""
    if report is None:
        return None
    charts, display = [], RobustnessDisplay(report)
    limits = None, (float(report.table["score"].min()), float(report.clean_score))
    for name in report.table["corruption"].unique():
        points = np.stack(display._curve(report.table, name, report.clean_score))
        if points.shape[1] == 1:  # a band has two ends
            points = np.c_[[0.0, *[report.clean_score] * 3], points]
        x, y, high, low = points
        curve = Curve(report.scoring, x, y, low=low, high=high)
        title = f"{name} {'*' * display._weakness(name)}".rstrip()
        axes = "severity", report.scoring
        charts.append(chart(title, axes, [curve], limits=limits))
    answers = [
        {"name": name, "code": code_of(answer)}
        for name, answer in (
            ("beyond chance", report.augment),
            (f"beyond {report.margin:g}", report.severe_augment),
        )
        if answer is not None
    ]
    head = f"{report.scoring} {report.clean_score:.3f} on images as they are"
    return {"charts": charts, "answers": answers, "head": head}


def history(network: Any) -> list[dict[str, Any]]:
    """Return charts of how a network was trained."""
    table = getattr(network, "history_", None)
    if table is None or not len(table):
        return []
    display, found = TrainingHistoryDisplay(table), []
    for panel, columns in display._panels().items():
        curves = [
            Curve(CURVES[column][1], display._epochs, table[column].astype(float))
            for column in columns
        ]
        title = _PANELS.get(panel, panel)
        found.append(chart(title.capitalize(), ("epoch", title), curves))
    return found


def duplicates(judged: Judged, reference: Any) -> list[dict[str, Any]]:
    """Return pairs that look alike to the backbone, those of two classes first."""
    if judged.features is None:
        return []
    found = []
    own: Any = near_duplicates(judged.features)
    for pair in own.itertuples():
        one, two = judged.truth[pair.row], judged.truth[pair.other]
        found.append(
            {
                "kind": "one target" if np.array_equal(one, two) else "two targets",
                "similarity": float(pair.similarity),
                "rows": judged.rows[[pair.row, pair.other]].tolist(),
                "targets": [target_text(one), target_text(two)],
            }
        )
    if reference is not None:
        source, rows, features = reference  # other images
        across: Any = near_duplicates(judged.features, features)
        for pair in across.itertuples():
            found.append(
                {
                    "kind": "also in the reference",
                    "similarity": float(pair.similarity),
                    "rows": [int(judged.rows[pair.row])],
                    "targets": [target_text(judged.truth[pair.row])],
                    "other": int(rows[pair.other]),
                    "other_path": source.path(int(rows[pair.other])),
                }
            )
    order = ["two targets", "also in the reference", "one target"]
    return sorted(found, key=lambda pair: order.index(pair["kind"]))


def cards(judged: Judged) -> tuple[dict[int, dict[str, Any]], list[int], list[int]]:
    """Return what is known of each position, the order by loss, and those to doubt."""
    rules = {"classes": _class_cards, "labels": _label_cards, "numbers": _number_cards}
    found, doubted = rules[judged.kind](judged)
    loss = np.array([found[position]["loss"] for position in judged.positions])
    worst = np.argsort(-loss, kind="stable").tolist()
    if judged.kind == "classes":  # with other mistakes, where few are likely wrong
        likely = {*doubted}
        others = [p for p in worst if found[p]["wrong"] and p not in likely]
        doubted = doubted + others[: max(0, _DOUBTED - len(doubted))]
    for position, card in found.items():
        row = int(judged.rows[position])
        card |= {"row": row, "path": judged.source.path(row)}
        card["old"] = target_text(judged.truth[position])
    return found, worst, doubted


def _class_cards(judged: Judged) -> tuple[dict[int, dict[str, Any]], list[int]]:
    known, at = judged.has_probabilities, judged.positions
    column = {label: c for c, label in enumerate(judged.answers.classes_.tolist())}
    worst = top_losses(judged.answers, at, judged.truth, k=None)
    errors = label_errors(judged.answers, at, judged.truth)
    best = np.argsort(-judged.values, axis=1, kind="stable")[:, :_CANDIDATES]
    found = {}
    for row in worst.itertuples():
        found[row.row] = {
            "truth": column[row.truth],
            "prediction": column[row.prediction],
            "wrong": bool(row.truth != row.prediction),
            "loss": float(row.loss),
            "sure": float(row.probability) if known else -float(row.loss),
            "probability": float(row.probability) if known else None,
            "of_truth": float(row.probability_truth) if known else None,
            "likely": best[row.row].tolist(),
        }
    for row in errors.itertuples():
        found[row.row]["suggestion"] = column[row.suggestion]
    return found, errors["row"].tolist()


def _label_cards(judged: Judged) -> tuple[dict[int, dict[str, Any]], list[int]]:
    truth, p = judged.truth, judged.values
    own = np.where(truth == 1, p, 1 - p)
    loss = -np.log(np.maximum(own, np.finfo(np.float32).tiny)).mean(axis=1)
    found: dict[int, dict[str, Any]] = {}
    for position in judged.positions:
        wrong = np.flatnonzero(judged.predicted[position] != truth[position])
        found[position] = {
            "truth": np.flatnonzero(truth[position]).tolist(),
            "prediction": np.flatnonzero(judged.predicted[position]).tolist(),
            "wrong": bool(len(wrong)),
            "errors": [[int(c), float(p[position, c])] for c in wrong],
            "loss": float(loss[position]),
            "sure": float(np.maximum(p[position], 1 - p[position]).mean()),
        }
    margins: dict[int, float] = {}
    for column in range(truth.shape[1]):
        if len(np.unique(truth[:, column])) < 2:
            continue
        each = np.stack([1 - p[:, column], p[:, column]], axis=1)
        one = given(each, np.array([0, 1]))
        for row in label_errors(one, judged.positions, truth[:, column]).itertuples():
            found[row.row].setdefault("suggestions", []).append(column)
            margins[row.row] = min(margins.get(row.row, 0.0), float(row.margin))
    return found, sorted(margins, key=margins.__getitem__)


def _number_cards(judged: Judged) -> tuple[dict[int, dict[str, Any]], list[int]]:
    worst = top_losses(judged.answers, judged.positions, judged.truth, k=None)
    truth, predicted = flat(judged.truth), flat(judged.predicted)
    found = {}
    for row in worst.itertuples():
        error = predicted[row.row] - truth[row.row]
        found[row.row] = {
            "truth": truth[row.row].tolist(),
            "prediction": predicted[row.row].tolist(),
            "error": error.tolist(),
            "wrong": True,
            "loss": float(row.loss),
            "sure": float(np.abs(error).mean()),
        }
    return found, []


@dataclass(frozen=True)
class Curve:
    """A line through points, or the points alone."""

    name: str
    x: Any  # n numbers each
    y: Any
    dots: bool = False  # points alone
    low: Any = None  # a band
    high: Any = None


def chart(
    title: str,
    axes: tuple[str, str],
    curves: Sequence[Curve],
    *,
    limits: tuple[Any, Any] = (None, None),  # of x and y; None: those of the curves
    diagonal: bool = False,  # a line of equal x and y
) -> dict[str, Any]:
    """Return a chart as the template draws it: ticks, polylines, bands and a table."""
    x_ticks, across = _scale([c.x for c in curves], limits[0], (_LEFT, _WIDTH - _RIGHT))
    parts = [part for c in curves for part in (c.y, c.low, c.high)]
    heights = [part for part in parts if part is not None]
    y_ticks, down = _scale(heights, limits[1], (_HEIGHT - _BOTTOM, _TOP))
    drawn = []
    for curve in curves:
        x, y = np.asarray(curve.x, float), np.asarray(curve.y, float)
        known = np.isfinite(x) & np.isfinite(y)
        points = [*zip(across(x[known]), down(y[known]), strict=True)]
        band = ""
        if curve.low is not None and curve.high is not None:
            low, high = np.asarray(curve.low, float), np.asarray(curve.high, float)
            edge = [*zip(across(x[known]), down(low[known]), strict=True)]
            back = [*zip(across(x[known]), down(high[known]), strict=True)]
            band = _text(edge + back[::-1])
        line = "" if curve.dots else _text(points)
        dots = points if curve.dots or len(points) <= 12 else []
        drawn.append({"name": curve.name, "line": line, "dots": dots, "band": band})
    ends = None
    if diagonal:
        low = max(x_ticks[0], y_ticks[0])
        high = min(x_ticks[-1], y_ticks[-1])
        ends = [*across(np.array([low, high])), *down(np.array([low, high]))]
    return {
        "title": title,
        "x_name": axes[0],
        "y_name": axes[1],
        "x_ticks": [*zip(across(x_ticks), map(_number, x_ticks), strict=True)],
        "y_ticks": [*zip(down(y_ticks), map(_number, y_ticks), strict=True)],
        "curves": drawn,
        "diagonal": ends,
        "size": (_WIDTH, _HEIGHT),
        "frame": (_LEFT, _TOP, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM),
        "numbers": _numbers(axes[0], curves),
    }


def _scale(values: Sequence[Any], limits: Any, ends: tuple[int, int]):
    """Return ticks, and the function from values to places between two ends."""
    known = np.concatenate([np.asarray(part, float).ravel() for part in values])
    known = known[np.isfinite(known)]
    low, high = limits or (0.0, 1.0)
    if limits is None and len(known):
        low, high = float(known.min()), float(known.max())
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-3):
        low, high = low - 0.5, high + 0.5
    step = 10.0 ** np.floor(np.log10((high - low) / _TICKS))
    step *= next(s for s in (1, 2, 5, 10) if (high - low) / (s * step) <= _TICKS)
    first, last = np.floor(low / step + 1e-9), np.ceil(high / step - 1e-9)
    ticks = np.arange(first, last + 1) * step
    span = ticks[-1] - ticks[0]

    def place(x: np.ndarray) -> list[float]:
        at = ends[0] + (np.asarray(x) - ticks[0]) / span * (ends[1] - ends[0])
        return at.round(1).tolist()

    return ticks, place


def _text(points: list) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)


def _number(value: float) -> str:
    return f"{round(value, 10):g}"


def _numbers(name: str, curves: Sequence[Curve]) -> dict[str, Any]:
    """Return the curves as a table: a row for each x."""
    places = dict.fromkeys(float(x) for curve in curves for x in curve.x)
    rows = []
    for at in places:
        values = (dict(zip(c.x, c.y, strict=True)).get(at, np.nan) for c in curves)
        cells = (_known(value) for value in values)
        rows.append([_known(at), *cells])
    return {"head": [name, *(curve.name for curve in curves)], "rows": rows}


def _known(value: float) -> str:
    return f"{value:.4g}" if np.isfinite(value) else ""
