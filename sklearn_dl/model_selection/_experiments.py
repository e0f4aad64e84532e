"""A book of what was tried, with its score."""

import os
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, clone, is_classifier, is_regressor
from sklearn.metrics import accuracy_score, check_scoring, r2_score
from sklearn.model_selection import cross_validate
from sklearn.utils import check_random_state

from sklearn_dl.model_selection._compare import shuffled_folds
from sklearn_dl.model_selection._described import (
    as_text,
    changes,
    in_words,
    parameters_as_text,
)
from sklearn_dl.model_selection._experiment_file import Experiment, append, read
from sklearn_dl.model_selection._experiments_display import ExperimentsDisplay


class Experiments:
    """Keeps what was tried: parameters, score with its spread, seconds, what changed.

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
    compare_regimes : Many candidates in one search.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.dummy import DummyClassifier
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_dl.model_selection import Experiments
    >>> X, y = np.arange(40.0)[:, None], np.repeat([0, 1], 20)
    >>> book = Experiments()
    >>> _ = book.evaluate("baseline", DummyClassifier(), X, y)
    >>> _ = book.evaluate("linear", LogisticRegression(C=1.0), X, y)
    >>> _ = book.evaluate("larger C", LogisticRegression(C=100.0), X, y)
    >>> book.table[["name", "score", "gain"]].round(3)
           name  score   gain
    0  baseline  0.500    NaN
    1    linear  0.975  0.475
    2  larger C  0.975  0.000
    >>> book.table["changed"].iloc[-1]
    'C: 1.0 → 100.0'
    >>> book.best.name
    'linear'
    """

    def __init__(self, path: str | os.PathLike | None = None, *, mlflow: bool = False):
        self.path = None if path is None else Path(path).expanduser()
        self.mlflow = mlflow
        if mlflow:
            _import_mlflow()
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
        X_val=None,
        y_val=None,
        scoring=None,
        groups=None,
        n_jobs: int | None = None,
        since: str | None = None,
        notes: str = "",
        random_state=0,
    ) -> Experiment:
        """Cross-validate an estimator, or score it on held-out rows, and keep that.

        Parameters
        ----------
        name : str
            Of the experiment.
        estimator : estimator
            Unfitted; a copy is fitted.
        X, y : array-like
            Data, in any form that the estimator takes.
        cv : int, splitter or iterable, default=5
            A number of folds is shuffled by `random_state`, and stratified for classes.
            Not used where `X_val` is given.
        X_val, y_val : array-like, default=None
            Rows to score on; then the copy is fitted once, on all of X.
        scoring : str, callable or None, default=None
            One metric; None takes the estimator's own `score`: accuracy or R².
        groups : array-like of shape (n,), default=None
            Of the rows, for the folds.
        n_jobs : int or None, default=None
            Folds at a time.
        since : str or None, default=None
            Name of the experiment to compare with, the last of that name; None takes
            the last of all. Those of the same metric come first.
        notes : str, default=""
            Whatever should stand beside it.
        random_state : int, RandomState instance or None, default=0
            Of the folds, and of the bootstrap of held-out rows.

        Returns
        -------
        Experiment
            Also the last row of `table`. Nothing is kept if a fit fails.
        """
        metric = _metric_name(scoring, estimator)
        self._find(since, metric)
        if (X_val is None) != (y_val is None):
            raise ValueError("X_val and y_val go together: give both or none.")
        if not (scoring is None or isinstance(scoring, str) or callable(scoring)):
            raise ValueError(f"scoring must be one metric, got {scoring!r}.")
        start = time.perf_counter()
        scorer = check_scoring(estimator, scoring)
        spread = None
        if X_val is None:
            task = "classification" if is_classifier(estimator) else "regression"
            found = cross_validate(
                estimator,
                X,
                y,
                cv=shuffled_folds(cv, y, task, groups, random_state),
                scoring=scorer,
                groups=groups,
                n_jobs=n_jobs,
                error_score="raise",
            )
            scores = found["test_score"]
        else:
            fitted = clone(estimator).fit(X, y)
            if scoring is None and (is_classifier(fitted) or is_regressor(fitted)):
                measure = accuracy_score if is_classifier(fitted) else r2_score
                score, spread = _bootstrap(
                    measure, np.asarray(y_val), fitted.predict(X_val), random_state
                )
                scores = [score]
            else:
                scores = [scorer(fitted, X_val, y_val)]
        return self.record(
            name,
            scores,
            estimator=estimator,
            spread=spread,
            metric=metric,
            seconds=time.perf_counter() - start,
            since=since,
            notes=notes,
        )

    def record(
        self,
        name: str,
        scores,
        *,
        estimator: BaseEstimator | None = None,
        parameters: Mapping[str, Any] | None = None,
        spread: float | None = None,
        metric: str = "score",
        seconds: float | None = None,
        since: str | None = None,
        notes: str = "",
    ) -> Experiment:
        """Keep a score that was found elsewhere.

        Parameters
        ----------
        name : str
            Of the experiment.
        scores : float or sequence of float
            One, or that of each fold or seed.
        estimator : estimator, default=None
            Whose parameters are kept.
        parameters : mapping of str, default=None
            More parameters, or those of something that is no estimator.
        spread : float, default=None
            Of the score; None takes the standard deviation of several scores.
        metric : str, default="score"
            What the scores are; the gain is told for the same metric only.
        seconds : float, default=None
            What it took.
        since : str or None, default=None
            Name of the experiment to compare with, the last of that name; None takes
            the last of all. Those of the same metric come first.
        notes : str, default=""
            Whatever should stand beside it.

        Returns
        -------
        Experiment
        """
        try:
            values = np.atleast_1d(np.asarray(scores, dtype=float))
        except (TypeError, ValueError):
            values = np.empty(0)
        if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
            raise ValueError(
                f"scores of {name!r} must be a finite number or several: {scores!r}."
            )
        if spread is None:
            spread = float(values.std()) if len(values) > 1 else np.nan
        elif not 0 <= float(spread) < np.inf and not np.isnan(float(spread)):
            raise ValueError(f"spread of {name!r} must be 0 or more: {spread!r}.")
        texts = {} if estimator is None else parameters_as_text(estimator)
        texts |= {key: as_text(value) for key, value in (parameters or {}).items()}
        before = self._find(since, metric)
        done = Experiment(
            str(name),
            float(values.mean()),
            float(spread),
            values.tolist(),
            str(metric),
            np.nan if seconds is None else float(seconds),
            texts,
            {} if before is None else changes(before.parameters, texts),
            None if before is None else before.name,
            str(notes),
            datetime.now().astimezone().isoformat(timespec="seconds"),
        )
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
        """A row per experiment, in the order of their coming.

        Columns: ``name``, ``score``, ``spread``, ``n_scores``, ``metric``, ``gain``
        (the score less that of the experiment it is compared with; NaN for another
        metric), ``seconds``, ``changed`` (as text), ``notes``, ``time``.
        """
        done = self.experiments
        rows = []
        for k, one in enumerate(done):
            named = [e for e in done[:k] if e.name == one.since]
            before = _last(named, one.metric)
            same = before is not None and before.metric == one.metric
            rows.append(
                {
                    "name": one.name,
                    "score": one.score,
                    "spread": one.spread,
                    "n_scores": len(one.scores),
                    "metric": one.metric,
                    "gain": one.score - before.score if before and same else np.nan,
                    "seconds": one.seconds,
                    "changed": in_words(one.changes),
                    "notes": one.notes,
                    "time": one.time,
                }
            )
        columns = ["name", "score", "spread", "n_scores", "metric", "gain", "seconds"]
        return pd.DataFrame(rows, columns=[*columns, "changed", "notes", "time"])

    @property
    def best(self) -> Experiment:
        """The experiment of the highest score, of the metric of the last one."""
        done = self.experiments
        if not done:
            raise ValueError("There is no experiment yet.")
        return max(
            (e for e in done if e.metric == done[-1].metric), key=lambda e: e.score
        )

    def plot(self, *, metric: str | None = None, ax=None) -> ExperimentsDisplay:
        """Draw the scores, step by step.

        Parameters
        ----------
        metric : str or None, default=None
            Whose experiments are drawn; None takes that of the last one.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        ExperimentsDisplay
        """
        return ExperimentsDisplay.from_experiments(self, metric=metric, ax=ax)

    def __len__(self) -> int:
        return len(self.experiments)

    def __str__(self) -> str:
        table = self.table.drop(columns=["time", "n_scores"])
        return table.to_string(index=False, float_format="{:.3f}".format)

    def _find(self, name: str | None, metric: str) -> Experiment | None:
        """Return the last experiment, of a name if there is one, to compare with."""
        done = self.experiments
        if name is None:
            return _last(done, metric)
        named = [one for one in done if one.name == name]
        if named:
            return _last(named, metric)
        names = ", ".join(repr(one.name) for one in done) or "none yet"
        raise ValueError(f"since={name!r} is no experiment; there are: {names}.")


def _last(done: list[Experiment], metric: str) -> Experiment | None:
    """Return the last experiment of a metric, else the last."""
    same = [one for one in done if one.metric == metric]
    return next(iter((same or done)[::-1]), None)


def _metric_name(scoring, estimator) -> str:
    if scoring is None and not (is_classifier(estimator) or is_regressor(estimator)):
        return "score"
    if scoring is None:
        return "accuracy" if is_classifier(estimator) else "R²"
    return (
        scoring if isinstance(scoring, str) else getattr(scoring, "__name__", "score")
    )


def _bootstrap(metric, truth, predicted, random_state, n: int = 1000):
    """Return the metric, and its standard error by drawing rows again (Efron, 1979)."""
    rng = check_random_state(random_state)
    drawn = []
    for _ in range(n):
        rows = rng.randint(0, len(truth), len(truth))
        drawn.append(metric(truth[rows], predicted[rows]))
    return float(metric(truth, predicted)), float(np.nanstd(drawn))


def _import_mlflow() -> Any:
    try:
        import mlflow
    except ImportError as error:
        raise ImportError("mlflow=True needs MLflow: pip install mlflow") from error
    return mlflow


def _log_to_mlflow(done: Experiment) -> None:
    """Write an experiment as a run of MLflow's current experiment."""
    mlflow = _import_mlflow()
    numbers = {
        "score": done.score,
        "spread": done.spread,
        "seconds": done.seconds,
    }
    with mlflow.start_run(run_name=done.name, nested=True):
        items = list(done.parameters.items())
        for k in range(0, len(items), 100):  # what MLflow takes at a time
            mlflow.log_params(dict(items[k : k + 100]))
        mlflow.log_metrics({k: v for k, v in numbers.items() if np.isfinite(v)})
        tags = {"metric": done.metric, "changed": in_words(done.changes)}
        mlflow.set_tags(tags | ({"notes": done.notes} if done.notes else {}))
