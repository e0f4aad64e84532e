"""Answers as rows of CSV or lines of JSON."""

import json
import math
from typing import Any

import pandas as pd

from sklearn_dl._commands._answers import Answer, Answers

_SEPARATOR = ";"  # between the labels of one image


def write_csv(file: Any, model: Answers, answers: list[Answer], header: bool) -> None:
    """Write rows to a binary file, the columns' names before them if asked for."""
    columns = _columns(model)
    rows = []
    for answer in answers:
        cells: list[Any] = [""] * (len(columns) - 2)
        if not answer.error:
            found = answer.prediction
            if model.classes and isinstance(found, list):
                found = _SEPARATOR.join(map(str, found))
            cells = [
                f"{value:.8g}" if isinstance(value, float) else value
                for value in (found if isinstance(found, list) else [found])
            ]
            for label, value in answer.values.items():
                cells += [] if model.top is None else [label]
                cells.append(f"{value:.6g}")
        rows.append([answer.path, *cells, answer.error])
    table = pd.DataFrame(rows, columns=columns, dtype=object)
    table.to_csv(
        file,
        mode="wb",
        header=header,
        index=False,
        lineterminator="\n",
        errors="surrogateescape",  # names of files stay as they are
    )


def _columns(model: Answers) -> list[str]:
    name, n_targets = model.value_name, model.n_targets or 1
    targets = [f"prediction_{k}" for k in range(1, n_targets + 1)]
    values = [f"{name}_{label}" for label in model.classes]
    if model.top is not None:
        places = range(1, min(model.top, len(model.classes)) + 1)
        values = [f"{kind}_{k}" for k in places for kind in ("class", name)]
    return ["path", *(targets if n_targets > 1 else ["prediction"]), *values, "error"]


def write_json(file: Any, model: Answers, answers: list[Answer], header: bool) -> None:
    """Write one object a line; each tells what it holds."""
    # Not by pandas: it gives up names that are no UTF-8, and digits of small numbers.
    for answer in answers:
        line: dict[str, Any] = {"path": answer.path}
        values = {label: _rounded(value, 6) for label, value in answer.values.items()}
        if answer.error:
            line["error"] = answer.error
        else:
            line["prediction"] = _rounded(answer.prediction, 8)
        if values and model.top is None:
            key = "probabilities" if model.value_name == "probability" else "scores"
            line[key] = {str(label): value for label, value in values.items()}
        elif values:
            line["top"] = [{"class": c, model.value_name: v} for c, v in values.items()]
        file.write(f"{json.dumps(line, allow_nan=False)}\n".encode())


def _rounded(value: Any, digits: int) -> Any:
    """Return what JSON has: floats of so many digits, null for NaN and infinity."""
    if isinstance(value, list):
        return [_rounded(part, digits) for part in value]
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else None
    return value
