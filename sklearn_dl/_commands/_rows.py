"""Answers as rows of CSV or lines of JSON."""

import json
from typing import Any

import pandas as pd

from sklearn_dl._commands._answers import Answers


def write_csv(file: Any, model: Answers, answers: list[dict], header: bool) -> None:
    """Write rows to a binary file, the columns' names before them if asked for."""
    columns = _columns(model)
    empty = [""] * (len(columns) - 2)
    rows = [
        [a["path"], *(empty if "error" in a else _cells(model, a)), a.get("error", "")]
        for a in answers
    ]
    pd.DataFrame(rows, columns=columns, dtype=object).to_csv(
        file,
        mode="wb",
        header=header,
        index=False,
        lineterminator="\n",
        errors="surrogateescape",  # names of files stay as they are
    )


def _columns(model: Answers) -> list[str]:
    name, targets = model.value_name, ["prediction"]
    if model.n_targets is not None and model.n_targets > 1 and not model.classes:
        targets = [f"prediction_{k}" for k in range(1, model.n_targets + 1)]
    values = [f"{name}_{label}" for label in model.classes]
    if model.top is not None:
        places = range(1, min(model.top, len(model.classes)) + 1)
        values = [f"{kind}_{k}" for k in places for kind in ("class", name)]
    return ["path", *targets, *values, "error"]


def _cells(model: Answers, answer: dict[str, Any]) -> list[Any]:
    found = answer["prediction"]
    if model.classes and isinstance(found, list):
        found = ";".join(map(str, found))
    cells = found if isinstance(found, list) else [found]
    cells = [*cells, *answer.get("probabilities", answer.get("scores", {})).values()]
    for one in answer.get("top", ()):
        cells += one.values()
    return [
        "nan" if c is None else f"{c:.8g}" if isinstance(c, float) else c for c in cells
    ]


def write_json(file: Any, model: Answers, answers: list[dict], header: bool) -> None:
    """Write one object a line to a binary file; each tells what it holds."""
    # Not by pandas: it refuses names that are no UTF-8, and cuts small numbers.
    for answer in answers:
        file.write(f"{json.dumps(answer, allow_nan=False)}\n".encode())
