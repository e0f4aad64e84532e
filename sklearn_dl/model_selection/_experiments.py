"""Log of experiments: what was tried, with its score."""

import errno
import json
import os
import re
import time
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, is_classifier, is_regressor
from sklearn.metrics import check_scoring
from sklearn.model_selection import cross_validate

from sklearn_dl.model_selection._compare import shuffled_folds

_COLUMNS = ["name", "score", "spread", "metric", "gain", "seconds", "changed", "time"]
_VERSION = 2  # in 1 a spread was a standard deviation
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
        Standard error of the score, as that of the mean over folds; NaN if unknown.
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


class Experiments:
    """Log of experiments: parameters, score with its error, seconds, what changed.

    Each is a line of a file, written when it is done, so that a crash loses none. A
    later session, or another process, goes on with the same file.

    Parameters
    ----------
    path : str, path-like or None, default=None
        The file, in JSON Lines; made with the first experiment. None keeps them in
        memory.
    mlflow : bool, default=False
        Whether each is logged to MLflow too, as a run of its current experiment.

    Raises
    ------
    ValueError
        If the file holds something else, or was written by a newer version.
    ImportError
        If MLflow is wanted and missing.

    Warns
    -----
    UserWarning
        If a line of the file can't be read, such as one cut off by a crash.

    See Also
    --------
    ExperimentsDisplay : A picture of it.
    compare_regimes : Many candidates in one search.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.dummy import DummyClassifier
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_dl.model_selection import Experiments
    >>> X, y = np.arange(40.0)[:, None], np.repeat([0, 1], 20)
    >>> log = Experiments()
    >>> _ = log.evaluate("baseline", DummyClassifier(), X, y)
    >>> _ = log.evaluate("linear", LogisticRegression(C=1.0), X, y)
    >>> _ = log.evaluate("larger C", LogisticRegression(C=100.0), X, y)
    >>> log.table[["name", "score", "gain"]].round(3)
           name  score   gain
    0  baseline  0.500    NaN
    1    linear  0.975  0.475
    2  larger C  0.975  0.000
    >>> log.table["changed"].iloc[-1]
    'C: 1.0 → 100.0'
    >>> log.best.name
    'linear'
    """

    def __init__(self, path: str | os.PathLike | None = None, *, mlflow: bool = False):
        self.path = None if path is None else Path(path).expanduser()
        self.mlflow = mlflow
        if mlflow:
            _mlflow()
        self._kept: list[Experiment] = []
        if self.path is not None:
            _read(self.path)  # a file that is not ours is refused before it grows

    def evaluate(
        self,
        name: str,
        estimator: BaseEstimator,
        X,
        y,
        *,
        cv=5,
        scoring=None,
        n_jobs: int | None = None,
    ) -> Experiment:
        """Cross-validate an estimator, and log that.

        Parameters
        ----------
        name : str
        estimator : estimator
            Unfitted; copies are fitted.
        X, y : data, in any form that the estimator takes
        cv : int, splitter or iterable of (train, test), default=5
            A number of folds is shuffled, always in the same way, and stratified for
            classes. For groups or one held-out part give the splits.
        scoring : str, callable or None, default=None
            One metric; None takes the estimator's own `score`: accuracy or R².
        n_jobs : int or None, default=None
            Folds at a time.

        Returns
        -------
        Experiment
            Also the last row of `table`. Nothing is logged if a fit fails.
        """
        if not (scoring is None or isinstance(scoring, str) or callable(scoring)):
            raise ValueError(f"scoring must be one metric, got {scoring!r}.")
        options: dict[str, Any] = {"scoring": check_scoring(estimator, scoring)}
        options["cv"] = shuffled_folds(cv, y, is_classifier(estimator), random_state=0)
        start = time.perf_counter()
        found = cross_validate(
            estimator, X, y, n_jobs=n_jobs, error_score="raise", **options
        )
        spent, scores = time.perf_counter() - start, found["test_score"]
        metric = _metric_name(scoring, estimator)
        return self.record(name, scores, estimator, metric=metric, seconds=spent)

    def record(
        self,
        name: str,
        scores,
        parameters: BaseEstimator | Mapping[str, Any] | None = None,
        *,
        spread: float | None = None,
        metric: str = "score",
        seconds: float | None = None,
        since: str | None = None,
    ) -> Experiment:
        """Log a score that was found elsewhere.

        Parameters
        ----------
        name : str
        scores : float or sequence of float
            One, or that of each fold or seed.
        parameters : estimator or mapping of str, default=None
            An estimator with its parameters, or whatever else stands beside the score.
        spread : float, default=None
            Standard error of the score; None takes that of the mean of several scores.
        metric : str, default="score"
            What the scores are; more is better.
        seconds : float, default=None
            Time it took.
        since : str or None, default=None
            Name of the experiment to compare with, the last of that name, and of the
            metric if there is one; None takes the best so far of the same metric.

        Returns
        -------
        Experiment
        """
        try:
            values = np.atleast_1d(np.asarray(scores, dtype=float))
        except (TypeError, ValueError):
            values = np.array([np.nan])
        if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
            raise ValueError(
                f"scores of {name!r} must be a finite number or several: {scores!r}."
            )
        if spread is None:
            spread = _standard_error(values)
        elif not 0 <= spread < np.inf and not np.isnan(spread):
            raise ValueError(f"spread of {name!r} must be 0 or more: {spread!r}.")
        done = Experiment(str(name), float(values.mean()), float(spread))
        done.scores, done.metric = values.tolist(), str(metric)
        done.time = datetime.now().astimezone().isoformat(timespec="seconds")
        if seconds is not None:
            done.seconds = float(seconds)
        if parameters is not None:
            done.parameters = _as_text(parameters)
        before = self._find(since, done.metric)
        if before is not None:
            done.since = before.name
            done.changed = _changes(before.parameters, done.parameters)
            if before.metric == done.metric:
                done.gain = round(done.score - before.score, 12)  # no rounding
        if self.path is None:
            self._kept.append(done)
        else:
            _append(self.path, done)
        if self.mlflow:
            _log_to_mlflow(done)
        return done

    @property
    def experiments(self) -> list[Experiment]:
        """All experiments, as they came, from the file as it is now."""
        return list(self._kept) if self.path is None else _read(self.path)

    @property
    def table(self) -> pd.DataFrame:
        """A row per experiment, in the order in which they came; see `Experiment`."""
        return pd.DataFrame(map(vars, self.experiments), columns=_COLUMNS)

    @property
    def best(self) -> Experiment:
        """The experiment of the highest score, of the metric of the last one."""
        done = self.experiments
        if not done:
            raise ValueError("There is no experiment yet.")
        same = (one for one in done if one.metric == done[-1].metric)
        return max(same, key=lambda one: one.score)

    def __len__(self) -> int:
        return len(self.experiments)

    def __str__(self) -> str:
        table = self.table.drop(columns="time")
        return table.to_string(index=False, float_format="{:.3f}".format)

    def _find(self, since: str | None, metric: str) -> Experiment | None:
        """Return the experiment to compare with."""
        done = self.experiments
        same = [one for one in done if one.metric == metric]
        if since is None:
            return max(same, key=lambda one: one.score, default=None)
        for one in [*same[::-1], *done[::-1]]:
            if one.name == since:
                return one
        names = ", ".join(repr(one.name) for one in done) or "none yet"
        raise ValueError(f"since={since!r} is no experiment; there are: {names}.")


def _standard_error(scores) -> float:
    n = len(scores)
    return float(np.std(scores, ddof=1) / n**0.5) if n > 1 else np.nan


def _metric_name(scoring, estimator) -> str:
    if scoring is not None:
        named = getattr(scoring, "__name__", "score")
        return scoring if isinstance(scoring, str) else named
    if is_classifier(estimator):
        return "accuracy"
    return "R²" if is_regressor(estimator) else "score"


def _mlflow() -> Any:
    try:
        import mlflow
    except ImportError as error:
        raise ImportError("mlflow=True needs MLflow: pip install mlflow") from error
    return mlflow


def _log_to_mlflow(done: Experiment) -> None:
    """Write an experiment as a run of MLflow's current experiment."""
    mlflow, items = _mlflow(), list(done.parameters.items())
    numbers = {name: getattr(done, name) for name in ("score", "spread", "seconds")}
    with mlflow.start_run(run_name=done.name, nested=True):
        for k in range(0, len(items), 100):  # what MLflow takes at a time
            mlflow.log_params(dict(items[k : k + 100]))
        mlflow.log_metrics({k: v for k, v in numbers.items() if np.isfinite(v)})
        mlflow.set_tags({"metric": done.metric, "changed": done.changed})


def _as_text(source: BaseEstimator | Mapping[str, Any]) -> dict[str, str]:
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


def _changes(before: dict[str, str], now: dict[str, str]) -> str:
    """Return what differs; where the estimators are of different kinds, only that."""
    names = [*now, *(name for name in before if name not in now)]
    if before.get("estimator") != now.get("estimator"):
        names = ["estimator"]
    return ", ".join(
        f"{name}: {before.get(name, 'unset')} → {now.get(name, 'unset')}"
        for name in names
        if before.get(name) != now.get(name)
    )


def _append(path: Path, done: Experiment) -> None:
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


def _read(path: Path) -> list[Experiment]:
    """Return the experiments of a file, none if there is no file."""
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    known = {one.name for one in fields(Experiment)}
    found, bad = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            state = json.loads(line)
            version = int(state["version"])
            kept = {k: v for k, v in state.items() if k in known and v is not None}
            done = None if version > _VERSION else Experiment(**kept)
        except (ValueError, TypeError, KeyError):
            bad.append(number)
            continue
        if done is None:
            raise ValueError(f"{path} is of a newer version of sklearn_dl: update it.")
        if version < 2 and len(done.scores) > 1:
            done.spread = _standard_error(done.scores)
        found.append(done)
    if bad and not found and not lines[bad[0] - 1].startswith(_START):
        raise ValueError(f"{path} holds no experiments: choose another file.")
    if bad:
        warnings.warn(
            f"{path}: left out line {', '.join(map(str, bad))}, cut off or not an "
            "experiment.",
            stacklevel=3,
        )
    return found
