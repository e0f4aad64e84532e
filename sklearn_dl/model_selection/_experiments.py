"""Log of experiments: what was tried, with its score."""

import os
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, is_classifier, is_regressor
from sklearn.metrics import check_scoring
from sklearn.model_selection import cross_validate

from sklearn_dl.model_selection._compare import shuffled_folds
from sklearn_dl.model_selection._experiment import (
    Experiment,
    append,
    changes,
    parameters_as_text,
    read,
)

_COLUMNS = ["name", "score", "spread", "metric", "gain", "seconds", "changed", "time"]


class Experiments:
    """Log of experiments: parameters, score with its error, seconds, what changed.

    Each experiment is a line of a file, written when it is done; a crash loses none of
    them. A later session, or another process, goes on with the same file.

    Parameters
    ----------
    path : str, path-like or None, default=None
        The file, in JSON Lines; made with the first experiment. None keeps them in
        memory.
    mlflow : bool, default=False
        Whether each experiment is logged to MLflow too, as a run of its current
        experiment, by the library ``mlflow`` itself.

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
            read(self.path)  # a file that is not ours is refused before it grows

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
            Name of the experiment.
        estimator : estimator
            Unfitted; copies are fitted.
        X, y : array-like
            Data, in any form that the estimator takes.
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
        start = time.perf_counter()
        found = cross_validate(
            estimator,
            X,
            y,
            cv=shuffled_folds(cv, y, is_classifier(estimator), random_state=0),
            scoring=check_scoring(estimator, scoring),
            n_jobs=n_jobs,
            error_score="raise",
        )
        return self.record(
            name,
            found["test_score"],
            estimator,
            metric=_metric_name(scoring, estimator),
            seconds=time.perf_counter() - start,
        )

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
            Name of the experiment.
        scores : float or sequence of float
            One, or that of each fold or seed.
        parameters : estimator or mapping of str, default=None
            An estimator, whose class and parameters are logged, or whatever else stands
            beside the score.
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
        values = np.atleast_1d(np.asarray(scores, dtype=float))
        if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
            raise ValueError(
                f"scores of {name!r} must be a finite number or several: {scores!r}."
            )
        if spread is None:
            several = len(values) > 1
            spread = values.std(ddof=1) / len(values) ** 0.5 if several else np.nan
        elif not 0 <= spread < np.inf and not np.isnan(spread):
            raise ValueError(f"spread of {name!r} must be 0 or more: {spread!r}.")
        done = Experiment(str(name), float(values.mean()), float(spread))
        done.scores, done.metric = values.tolist(), str(metric)
        done.time = datetime.now().astimezone().isoformat(timespec="seconds")
        if seconds is not None:
            done.seconds = float(seconds)
        if parameters is not None:
            done.parameters = parameters_as_text(parameters)
        before = self._find(since, done.metric)
        if before is not None:
            done.since = before.name
            done.changed = changes(before.parameters, done.parameters)
            if before.metric == done.metric:
                done.gain = done.score - before.score
        if self.path is None:
            self._kept.append(done)
        else:
            append(self.path, done)
        if self.mlflow:
            _log_to_mlflow(done)
        return done

    @property
    def experiments(self) -> list[Experiment]:
        """All experiments, as they came, from the file as it is now."""
        return list(self._kept) if self.path is None else read(self.path)

    @property
    def table(self) -> pd.DataFrame:
        """A row per experiment, in the order in which they came.

        Columns: ``name``, ``score``, ``spread`` (standard error), ``metric``, ``gain``,
        ``seconds``, ``changed``, ``time``; see `Experiment`.
        """
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
