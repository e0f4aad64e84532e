"""Kinds of mistake, duplicates and training: further parts of a report, as values."""

from typing import Any

import numpy as np
import pandas as pd

from sklearn_dl.datasets import target_text
from sklearn_dl.inspection._charts import Curve, chart
from sklearn_dl.inspection._confusion import most_confused
from sklearn_dl.inspection._duplicates import near_duplicates
from sklearn_dl.inspection._history_display import CURVES, TrainingHistoryDisplay
from sklearn_dl.inspection._judged import Judged
from sklearn_dl.inspection._report import RobustnessReport, code_of
from sklearn_dl.inspection._robustness_display import RobustnessDisplay
from sklearn_dl.inspection._scores import flat
from sklearn_dl.inspection._slices import slice_scores, slices_table

_CONFUSED, _EXAMPLES = 12, 4
_BINS = 10
_PANELS = {"score": "validation score", "rates": "learning rate"}


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
        named = source.kind in ("paths", "objects")
        across: Any = near_duplicates(judged.features, features)
        for pair in across.itertuples():
            found.append(
                {
                    "kind": "also in the reference",
                    "similarity": float(pair.similarity),
                    "rows": [int(judged.rows[pair.row])],
                    "targets": [target_text(judged.truth[pair.row])],
                    "other": int(rows[pair.other]),
                    "other_path": source.path(int(rows[pair.other])) if named else None,
                }
            )
    order = ["two targets", "also in the reference", "one target"]
    return sorted(found, key=lambda pair: order.index(pair["kind"]))
