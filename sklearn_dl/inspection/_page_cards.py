"""What is known of each image of a report, and the orders in which they are shown."""

from typing import Any

import numpy as np

from sklearn_dl.datasets import target_text
from sklearn_dl.inspection._judged import Judged
from sklearn_dl.inspection._losses import label_errors, top_losses
from sklearn_dl.inspection._scores import flat, given

_CANDIDATES = 9  # classes of an image that have a key
_DOUBTED = 20  # labels to look at, where there are as many mistakes


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
        card |= {"row": row, "path": judged.path(row)}
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
