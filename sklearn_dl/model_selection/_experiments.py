"""Log of experiments: what was tried, with its score."""

import json
import os
import re
import warnings
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.utils import Bunch, check_array

from sklearn_dl._files import writing

_COLUMNS = ["name", "score", "spread", "metric", "gain", "seconds", "changed", "time"]


class Experiments:
    """Log of experiments: parameters, score with its error, seconds, what changed.

    Each is a line of a file, on the disk when `record` returns; a later session, or
    another process, goes on with the same file.

    Parameters
    ----------
    path : str, path-like or None, default=None
        The file, in JSON Lines; made with the first experiment. None keeps them in
        memory. A file of something else raises a ValueError; lines that can't be read,
        such as one cut off by a crash, are warned of.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import cross_validate
    >>> from sklearn_dl.model_selection import Experiments
    >>> X, y = np.arange(40.0)[:, None], np.repeat([0, 1], 20)
    >>> log, model = Experiments(), LogisticRegression(C=1.0)
    >>> _ = log.record("baseline", 0.5)
    >>> _ = log.record("linear", cross_validate(model, X, y), model)
    >>> log.table[["name", "score", "gain"]].round(3)
           name  score  gain
    0  baseline    0.5   NaN
    1    linear    0.9   0.4
    """

    def __init__(self, path: str | os.PathLike | None = None):
        self.path = None if path is None else Path(path).expanduser()
        self._kept: list[Bunch] = []
        _ = self.experiments  # a file that is not ours is refused before it grows

    def record(
        self,
        name: str,
        scores,
        parameters: BaseEstimator | Mapping[str, Any] | None = None,
        *,
        metric: str = "score",
        seconds: float | None = None,
        since: str | None = None,
    ) -> Bunch:
        """Log a score, of which more is better, and return its experiment.

        Parameters
        ----------
        name, metric : str
            What was tried, and what the score is.
        scores : float, sequence of float, or dict
            That of each fold, seed or image, or what `cross_validate` returned; of
            several the mean is the score, and has a standard error, its spread.
        parameters : estimator or mapping of str, default=None
            An estimator with its parameters, or whatever else stands beside the score.
        seconds : float, default=None
            Time it took; None takes that of `cross_validate`.
        since : str or None, default=None
            Name of the experiment to compare with, the last of that name, and of the
            metric if there is one; None takes the best so far of the same metric.
        """
        if isinstance(scores, Mapping):
            spent = np.sum(scores["fit_time"]) + np.sum(scores["score_time"])
            seconds, scores = seconds or float(spent), scores["test_score"]
        options: Any = {"ensure_2d": False, "dtype": float}
        values = check_array(np.ravel(scores), **options, input_name=f"scores {name!r}")
        n, before = len(values), self._before(since, str(metric))
        text, score, gain = _as_text(parameters), float(values.mean()), None
        if before and before.metric == str(metric):
            gain = round(score - before.score, 12)  # no rounding
        done = Bunch(
            name=str(name),
            score=score,
            spread=float(np.std(values, ddof=1) / n**0.5) if n > 1 else None,
            metric=str(metric),
            gain=gain,
            seconds=seconds,
            changed=_changes(before.parameters, text) if before else "",
            time=datetime.now().astimezone().isoformat(timespec="seconds"),
            since=before and before.name,
            scores=values.tolist(),
            parameters=text,
        )
        self._kept.append(done)
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with writing(self.path), open(self.path, "ab") as file:
                # What a crash cut off stays a line of its own.
                last = self.path.read_bytes()[-1:] or b"\n"
                start = b"" if last == b"\n" else b"\n"
                file.write(start + json.dumps(done).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        return done

    @property
    def experiments(self) -> list[Bunch]:
        """All experiments, as they came, from the file as it is now."""
        if self.path is None or not self.path.exists():
            return [*self._kept]
        lines = list(filter(None, self.path.read_bytes().split(b"\n")))
        if lines and not any(line.startswith(b'{"name": ') for line in lines):
            raise ValueError(f"{self.path} holds no experiments: choose another file.")
        found = []
        for line in lines:
            with suppress(ValueError, TypeError):
                found.append(Bunch(**json.loads(line)))
        if lost := len(lines) - len(found):
            text = f"{self.path}: left out {lost} of {len(lines)} lines, cut off."
            warnings.warn(text, stacklevel=2)
        return found

    @property
    def table(self) -> pd.DataFrame:
        """A row per experiment: its score, the gain, and what changed."""
        # Not all names can be in pandas' own type of text.
        table = pd.DataFrame(self.experiments, columns=_COLUMNS, dtype=object)
        numbers = ("score", "spread", "gain", "seconds")
        return table.astype(dict.fromkeys(numbers, float))

    def to_mlflow(self) -> None:
        """Log each experiment as a run of MLflow's current experiment."""
        try:
            import mlflow
        except ImportError as error:
            raise ImportError("to_mlflow needs MLflow: pip install mlflow") from error
        for done in self.experiments:
            texts = {**done.parameters, "metric": done.metric, "changed": done.changed}
            numbers = {k: done[k] for k in ("score", "spread", "seconds")}
            with mlflow.start_run(run_name=done.name, nested=True):
                mlflow.log_metrics({k: v for k, v in numbers.items() if v is not None})
                for k in range(0, len(texts), 100):  # what MLflow takes at a time
                    mlflow.log_params(dict([*texts.items()][k : k + 100]))

    def _before(self, since: str | None, metric: str) -> Bunch | None:
        """Return the experiment to compare with."""
        named = [one for one in self.experiments if since in (None, one.name)]
        same = [one for one in named if one.metric == metric]
        if since is None:
            return max(same, key=lambda one: one.score, default=None)
        if not named:
            raise ValueError(f"since={since!r} is no experiment of this log.")
        return (same or named)[-1]


def _as_text(source: BaseEstimator | Mapping[str, Any] | None) -> dict[str, str]:
    """Return a mapping, or an estimator's class and parameters, as text."""
    if isinstance(source, BaseEstimator):
        found = {"class": source, **source.get_params()}
        # Steps and members are there by their own names too.
        source = {k: found[k] for k in found if k not in ("steps", "estimators")}
    return {str(name): _text(value) for name, value in (source or {}).items()}


def _text(value: Any) -> str:
    """Return a text for a value, the same in another process."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    value = type(value) if isinstance(value, BaseEstimator) else value
    name = getattr(value, "__qualname__", None)
    return name or re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def _changes(before: dict[str, str], now: dict[str, str]) -> str:
    """Return what differs; where the estimators are of different classes, only that."""
    names = [*now, *(name for name in before if name not in now)]
    if before.get("class") != now.get("class"):
        names = ["class"]
    values = {k: (before.get(k, "unset"), now.get(k, "unset")) for k in names}
    return ", ".join(f"{k}: {a} → {b}" for k, (a, b) in values.items() if a != b)
