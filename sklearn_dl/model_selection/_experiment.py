"""Entry of the log of experiments: its text, and its line in a file."""

import errno
import json
import os
import re
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

_VERSION = 1
_START = b'{"version": '
_LONGEST = 200  # characters of a parameter's text


@dataclass(eq=False)
class Experiment:
    """Entry of the log of experiments.

    Attributes
    ----------
    name : str
    score : float
        Mean of `scores`.
    spread : float
        Standard error of the score: over folds, the standard deviation of their scores
        divided by the square root of their number. NaN where it is not known.
    scores : list of float
    metric : str
        What the score is.
    seconds : float
        Time of fitting and scoring; NaN if unknown.
    parameters : dict of str to str
        The estimator's class, as ``"estimator"``, and its parameters, as text.
    since : str or None
        Name of the experiment that this one is compared with.
    gain : float
        The score less that of the other one; NaN without one of the same metric.
    changed : str
        Parameters that differ from the other's, such as ``"C: 1.0 → 100.0"``.
    time : str
        When it was written down, ISO 8601.
    """

    name: str
    score: float
    spread: float = np.nan
    scores: list[float] = field(default_factory=list)
    metric: str = "score"
    seconds: float = np.nan
    parameters: dict[str, str] = field(default_factory=dict)
    since: str | None = None
    gain: float = np.nan
    changed: str = ""
    time: str = ""


def parameters_as_text(source: BaseEstimator | Mapping[str, Any]) -> dict[str, str]:
    """Return a mapping, or an estimator with its class and its parts', as text."""
    if isinstance(source, Mapping):
        return {str(key): _text(value) for key, value in source.items()}
    deep = source.get_params(deep=True)
    parts = [type(value).__name__ for value in deep.values() if hasattr(value, "fit")]
    inside = f"({', '.join(parts)})" if parts else ""
    found = {"estimator": f"{type(source).__name__}{inside}"}
    for name, value in sorted(deep.items()):
        pairs = value if isinstance(value, list) else []
        steps = any(hasattr(p[1], "fit") for p in pairs if isinstance(p, tuple))
        if name != "estimator" and not steps:  # their own parameters tell of them
            found[name] = _text(value)
    return found


def _text(value: Any) -> str:
    """Return a short text for a value, the same in another process."""
    if isinstance(value, BaseEstimator):
        return type(value).__name__
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))
    if len(text) <= _LONGEST:
        return text
    digest = zlib.crc32(text.encode("utf-8", "backslashreplace"))
    return f"{text[: _LONGEST - 12]}... {digest:08x}"


def changes(before: dict[str, str], now: dict[str, str]) -> str:
    """Return what differs; where the estimators are of different kinds, only that."""
    names = [*now, *(name for name in before if name not in now)]
    if before.get("estimator") != now.get("estimator"):
        names = ["estimator"]
    return ", ".join(
        f"{name}: {before.get(name, 'unset')} → {now.get(name, 'unset')}"
        for name in names
        if before.get(name) != now.get(name)
    )


def append(path: Path, done: Experiment) -> None:
    """Write an experiment at the end of a file, to the disk, in one piece."""
    state = {k: None if v != v else v for k, v in asdict(done).items()}  # JSON: no NaN
    text = json.dumps({"version": _VERSION, **state}, ensure_ascii=False)
    line = f"{text}\n".encode("utf-8", "backslashreplace")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Lines that several writers append don't mix, where each is one write.
    with open(path, "ab+", buffering=0) as file:
        if file.seek(0, os.SEEK_END):  # what a crash cut off stays a line of its own
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else b"\n" + line
        if file.write(line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(file.fileno())


def read(path: Path) -> list[Experiment]:
    """Return the experiments of a file, none if there is no file."""
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    known = {one.name for one in fields(Experiment)}
    found, bad = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            state = json.loads(line)
            newer = state["version"] > _VERSION
            kept = {k: v for k, v in state.items() if k in known and v is not None}
            found.append(Experiment(**kept))
        except (ValueError, TypeError, KeyError):
            bad.append(number)
            continue
        if newer:
            raise ValueError(
                f"{path} was written by a newer version of sklearn_dl: update it."
            )
    if bad and not found and not lines[bad[0] - 1].startswith(_START):
        raise ValueError(f"{path} holds no experiments: choose another file.")
    if bad:
        warnings.warn(
            f"{path}: left out line {', '.join(map(str, bad))}, cut off or not an "
            "experiment.",
            stacklevel=3,
        )
    return found
