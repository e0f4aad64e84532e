"""Answers as rows of CSV or lines of JSON."""

import csv
import io
import json
from math import isfinite
from typing import Any

from sklearn_dl._commands._answers import Answers

# Not by pandas: rows of 1,000 classes take twice as long with it, and its JSON refuses
# names that are no UTF-8 and cuts small numbers.


def csv_rows(model: Answers, answers: list[dict[str, Any]] | None) -> bytes:
    """Return the row of each answer; of None the names of the columns."""
    columns, text = _columns(model), io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for answer in answers or ():
        cells = [""] * (len(columns) - 2) if "error" in answer else _cells(answer)
        writer.writerow([answer["path"], *cells, answer.get("error", "")])
    if answers is None:
        writer.writerow(columns)
    return text.getvalue().encode("utf-8", "surrogateescape")  # names as they are


def _columns(model: Answers) -> list[str]:
    name, targets = model.value_name, ["prediction"]
    if model.n_targets is not None and model.n_targets > 1 and not model.classes:
        targets = [f"prediction_{k}" for k in range(1, model.n_targets + 1)]
    values = [f"{name}_{label}" for label in model.classes]
    if model.top is not None:
        places = range(1, min(model.top, len(model.classes)) + 1)
        values = [f"{kind}_{k}" for k in places for kind in ("class", name)]
    return ["path", *targets, *values, "error"]


def _cells(answer: dict[str, Any]) -> list[Any]:
    found, top = answer["prediction"], answer.get("top", ())
    values = answer.get("probabilities") or answer.get("scores") or {}
    if isinstance(found, list) and (values or top):  # the labels of one image
        found = ";".join(map(str, found))
    cells = [
        f"{value:.8g}" if isinstance(value, float) else value
        for value in (found if isinstance(found, list) else [found])
    ]
    cells += [f"{value:.6g}" for value in values.values()]
    for one in top:
        cells += [one["class"], f"{one['probability']:.6g}"]
    return cells


def json_lines(model: Answers, answers: list[dict[str, Any]] | None) -> bytes:
    """Return an object for each answer, on a line of its own; each has its names."""
    lines = [
        json.dumps({k: _finite(v, 8 if k == "prediction" else 6) for k, v in a.items()})
        for a in answers or ()
    ]
    return "".join(f"{line}\n" for line in lines).encode()


def _finite(value: Any, digits: int) -> Any:
    """Return what JSON has: floats of so many digits, null for NaN and infinity."""
    if isinstance(value, dict):
        return {k: v if k == "class" else _finite(v, digits) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(part, digits) for part in value]
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if isfinite(value) else None
    return value
