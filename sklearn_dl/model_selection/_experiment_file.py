"""Experiments in a file, a line each."""

import json
import os
import warnings
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

_VERSION = 1
_START = b'{"version": '


@dataclass(eq=False)
class Experiment:
    """One line of the book.

    Attributes
    ----------
    name : str
    score : float
        Mean of `scores`.
    spread : float
        Standard deviation of the scores over the folds; of one held-out set, the
        standard error of its score; NaN where neither is known.
    scores : list of float
    metric : str
        What the score is.
    seconds : float
        Of fitting and scoring; NaN if unknown.
    parameters : dict of str to str
        The estimator's class, as ``"estimator"``, and its parameters, as text.
    changes : dict of str to (str or None, str or None)
        Parameters that differ from those of the experiment before: what they were, and
        what they are; None where there was or is none.
    since : str or None
        That experiment's name.
    notes : str
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
    changes: dict[str, Any] = field(default_factory=dict)
    since: str | None = None
    notes: str = ""
    time: str = ""


def append(path: Path, done: Experiment) -> None:
    """Write an experiment at the end of a file, to the disk."""
    line = json.dumps({"version": _VERSION, **asdict(done)}, ensure_ascii=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"), open(path, "ab+") as file:
        if file.seek(0, os.SEEK_END):  # what a crash cut off stays a line of its own
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else f"\n{line}"
        file.write(f"{line}\n".encode("utf-8", "backslashreplace"))
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> list[Experiment]:
    """Return the experiments of a file, none if there is no file.

    Raises
    ------
    ValueError
        If it holds something else, or was written by a newer version.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    found, bad = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            state = json.loads(line)
            version = state.pop("version")
            experiment = _experiment(state)
        except (ValueError, TypeError, KeyError, AttributeError):
            bad.append(number)
            continue
        if version > _VERSION:
            raise ValueError(
                f"{path} was written by a newer version of sklearn_dl: update it."
            )
        found.append(experiment)
    cut_off = bad == [len(lines)] and lines[-1].startswith(_START)
    if bad and not found and not cut_off:
        raise ValueError(f"{path} holds no experiments: choose another file.")
    if bad:
        warnings.warn(
            f"{path}: left out line {', '.join(map(str, bad))}, cut off or not an "
            "experiment.",
            stacklevel=3,
        )
    return found


def _experiment(state: dict[str, Any]) -> Experiment:
    known = {one.name for one in fields(Experiment)}
    return Experiment(**{key: value for key, value in state.items() if key in known})
