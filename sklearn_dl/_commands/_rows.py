"""Answers as lines of CSV or JSON."""

import csv
import io
import json
import math
from typing import Any

import numpy as np

from sklearn_dl._commands._answers import Answer, Answers

_SEPARATOR = ";"  # between the labels of one image


class CsvRows:
    """Lines of CSV, with a header.

    Parameters
    ----------
    answers : Answers
        Whose rows they are to be.
    top : int or None
        How many classes a row names, most probable first; None for all, in order.
    """

    def __init__(self, answers: Answers, top: int | None):
        self.answers = answers
        self.top = None if top is None else min(top, len(answers.classes))
        self._targets = 1
        if answers.n_outputs is not None and not answers.classes:
            self._targets = answers.n_outputs

    def header(self) -> bytes:
        """Return the names of the columns."""
        predictions = ["prediction"]
        if self._targets > 1:
            predictions = [f"prediction_{k + 1}" for k in range(self._targets)]
        return _csv_line(["path", *predictions, *self._value_columns(), "error"])

    def _value_columns(self) -> list[str]:
        name = self.answers.value_name
        if self.top is None:
            return [f"{name}_{label}" for label in self.answers.classes]
        pairs = [(f"class_{k + 1}", f"{name}_{k + 1}") for k in range(self.top)]
        return [column for pair in pairs for column in pair]

    def row(self, answer: Answer) -> bytes:
        """Return the line of an image."""
        n_values = len(self._value_columns())
        if answer.error:
            empty = [""] * (self._targets + n_values)
            return _csv_line([answer.path, *empty, answer.error])
        found = answer.prediction
        if self.answers.n_outputs is None:
            cells = [_plain(found)]
        elif self.answers.classes:
            cells = [_SEPARATOR.join(map(str, _labels(self.answers, found)))]
        else:
            cells = [_plain(value) for value in found]
        if answer.values is not None and self.top is None:
            cells += [f"{value:.6g}" for value in answer.values]
        elif answer.values is not None and self.top is not None:
            for label, value in _largest(self.answers, answer.values, self.top):
                cells += [label, f"{value:.6g}"]
        return _csv_line([answer.path, *cells, ""])


class JsonRows:
    """One JSON object for each image, on a line of its own.

    Parameters
    ----------
    answers, top
        As in `CsvRows`.
    """

    def __init__(self, answers: Answers, top: int | None):
        self.answers = answers
        self.top = None if top is None else min(top, len(answers.classes))

    def header(self) -> bytes:
        """Return nothing: each line tells what it holds."""
        return b""

    def row(self, answer: Answer) -> bytes:
        """Return the line of an image."""
        if answer.error:
            return _json_line({"path": answer.path, "error": answer.error})
        name, found = self.answers.value_name, answer.prediction
        if self.answers.n_outputs is not None and self.answers.classes:
            found = _labels(self.answers, found)
        line: dict[str, Any] = {"path": answer.path, "prediction": _finite(found)}
        if answer.values is None:
            return _json_line(line)
        if self.top is None:
            pairs = zip(self.answers.classes, answer.values, strict=True)
            key = "probabilities" if name == "probability" else "scores"
            line[key] = {str(label): _rounded(value) for label, value in pairs}
        else:
            line["top"] = [
                {"class": label, name: _rounded(value)}
                for label, value in _largest(self.answers, answer.values, self.top)
            ]
        return _json_line(line)


def _labels(answers: Answers, indicators: list[int]) -> list[Any]:
    return [c for c, there in zip(answers.classes, indicators, strict=True) if there]


def _largest(answers: Answers, values: np.ndarray, top: int) -> list[tuple[Any, float]]:
    order = np.argsort(-values, kind="stable")[:top]
    return [(answers.classes[k], float(values[k])) for k in order]


def _csv_line(cells: list[Any]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode("utf-8", "surrogateescape")  # names as they are


def _json_line(content: dict[str, Any]) -> bytes:
    return f"{json.dumps(content, allow_nan=False)}\n".encode()


def _plain(value: Any) -> Any:
    return f"{value:.8g}" if isinstance(value, float) else value


def _finite(value: Any) -> Any:
    """Return a value that JSON has: NaN and infinity become null."""
    if isinstance(value, list):
        return [_finite(part) for part in value]
    if isinstance(value, float):
        return float(f"{value:.8g}") if math.isfinite(value) else None
    return value


def _rounded(value: Any) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
