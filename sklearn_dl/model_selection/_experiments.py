"""Log of experiments: what was tried, with its score, and a picture of it."""

import json
import os
import re
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.utils import Bunch, check_array

from sklearn_dl import _plots
from sklearn_dl._files import writing

_NUMBERS = ("score", "spread", "gain", "seconds")
_ODD = re.compile(r"[^\w./: -]")  # what MLflow refuses in names
_COLUMNS = ["name", "score", "spread", "metric", "gain", "seconds", "changed", "time"]


class Experiments:
    """Log of experiments: parameters, score with its error, seconds, what changed.

    Parameters
    ----------
    path : str, path-like or None, default=None
        A file in JSON Lines, on the disk when `record` returns, to which sessions and
        processes add. None keeps them in memory. A file of something else raises a
        ValueError; lines that can't be read, as a crash cuts them off, are warned of.

    Examples
    --------
    >>> from sklearn_dl.model_selection import Experiments
    >>> log = Experiments()
    >>> _ = log.record("baseline", 0.5)
    >>> _ = log.record("linear", [0.8, 0.9, 1.0], {"C": 1.0})
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
            Of each fold, seed or image, or what `cross_validate` returned; the mean of
            several is the score, and has a standard error, its spread.
        parameters : estimator or mapping of str, default=None
            An estimator with its parameters, or whatever else stands beside the score.
        seconds : float, default=None
            Time it took; None takes that of `cross_validate`.
        since : str or None, default=None
            Name of the experiment to compare with, the last of that name, and of the
            metric if there is one; None takes the best so far of the same metric.
        """
        if isinstance(scores, Mapping):
            found = scores.get("test_score", scores.get(f"test_{metric}"))
            if found is None:
                wanted = f"'test_score' or 'test_{metric}'"
                raise ValueError(f"scores has no {wanted}, but {[*scores]!r:.200}.")
            if seconds is None:
                seconds = sum(np.sum(scores[f"{k}_time"]) for k in ("fit", "score"))
            scores = found
        options: Any = {"ensure_2d": False, "dtype": float}
        values = check_array(np.ravel(scores), **options, input_name=f"scores {name!r}")
        n, before = len(values), self._before(since, str(metric))
        text, score = _as_text(parameters), float(values.mean())
        comparable = before and before.metric == str(metric)
        done = Bunch(
            name=str(name),
            score=score,
            spread=float(np.std(values, ddof=1) / n**0.5) if n > 1 else None,
            metric=str(metric),
            gain=round(score - before.score, 12) if comparable else None,
            seconds=None if seconds is None else float(seconds),
            changed=_changes(before.parameters, text) if before else "",
            time=pd.Timestamp.now("UTC").isoformat(timespec="seconds"),
            since=before and before.name,
            scores=values.tolist(),
            parameters=text,
        )
        line = json.dumps(done, allow_nan=False).encode() + b"\n"
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with writing(self.path), open(self.path, "ab") as file:
                # What a crash cut off stays a line of its own.
                cut_off = self.path.read_bytes()[-1:] not in (b"", b"\n")
                file.write(b"\n" * cut_off + line)
                file.flush()
                os.fsync(file.fileno())
        self._kept.append(done)
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
        found = pd.DataFrame(self.experiments, columns=_COLUMNS, dtype=object)
        return found.astype(dict.fromkeys(_NUMBERS, float))

    def to_mlflow(self) -> None:
        """Log each experiment as a run of MLflow's current experiment, each time."""
        try:
            import mlflow
        except ImportError as error:
            raise ImportError("to_mlflow needs MLflow: pip install mlflow") from error
        for one in self.experiments:
            said = {_ODD.sub("_", k)[:250]: v[:6000] for k, v in one.parameters.items()}
            with mlflow.start_run(run_name=one.name, nested=True):
                mlflow.log_metrics({k: one[k] for k in _NUMBERS if one[k] is not None})
                mlflow.log_params(said)
                mlflow.set_tags({"metric": one.metric, "changed": one.changed[:5000]})

    def _before(self, since: str | None, metric: str) -> Any:
        """Return the experiment to compare with, or None."""
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
    value = value.tolist() if isinstance(value, np.generic | np.ndarray) else value
    value = type(value) if isinstance(value, BaseEstimator) else value
    name = getattr(value, "__qualname__", None)
    return name or re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def _changes(before: dict[str, str], now: dict[str, str]) -> str:
    """Return what differs; where the estimators are of different classes, only that."""
    same = before.get("class") == now.get("class")
    names = {**now, **before} if same else ["class"]
    values = [(k, before.get(k, "unset"), now.get(k, "unset")) for k in names]
    return ", ".join(f"{k}: {a} → {b}" for k, a, b in values if a != b)


class ExperimentsDisplay:
    """Picture of what was tried: a row per experiment, from the first to the last.

    A dot is a score with one spread to each side; beside it stand score, gain and
    seconds. The best is green; what scored less than its comparison is orange.

    Parameters
    ----------
    table : DataFrame
        ``name``, ``metric``, ``score``, ``spread``, ``gain`` and ``seconds``.
    metric : str, default=None
        Whose experiments are drawn; None: the last one's. ValueError if there are none.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
    """

    def __init__(self, table: pd.DataFrame, metric: str | None = None):
        known = table["metric"].unique().tolist()
        self.metric: Any = table["metric"].iloc[-1] if known and not metric else metric
        if self.metric not in known:
            raise ValueError(f"No experiment has metric={metric!r}, only {known}.")
        self.table = table[table["metric"] == self.metric]

    def plot(self, *, ax: Any = None) -> "ExperimentsDisplay":
        """Draw into matplotlib's Axes, None for a new figure; return the display."""
        table, n = self.table, len(self.table)
        figure = _plots.figure_of("ExperimentsDisplay", ax, (7.5, 1.1 + 0.32 * n))
        width, height = _plots.size_of(figure)
        self.figure_, ax = figure.figure, figure.subplots()
        high = (height - 0.6) / n  # of a row; of many not all have room for letters
        size = float(np.clip(58 * high, 5.0, 9.0 if width > 5.5 else 7.0))
        step = int(np.ceil(size / 58 / high))
        score, spread = table[["score", "spread"]].fillna(0.0).to_numpy(dtype=float).T
        colours = np.where(table["gain"] < 0, _plots.VERMILLION, _plots.BLUE)
        colours[score.argmax()] = _plots.GREEN
        rows, limits = np.arange(n), _plots.limits_of(self.metric, score)
        ax.hlines(rows, *np.clip([score - spread, score + spread], *limits), colours)
        ax.scatter(score, rows, c=colours, zorder=3)
        ax.axvline(score.max(), color=_plots.GREEN, linestyle=":", linewidth=1)
        names = _plots.fitted_apart([*table["name"]], 0.27 * width, size)
        ax.set_yticks(rows[::step], names[::step])
        _plots.end_at(ax, "x", limits)
        beside = {"transform": ax.get_yaxis_transform(), "va": "center"}
        for row, one in list(enumerate(table.itertuples()))[::step]:
            texts = [_digits(one.score), _digits(one.gain, "+"), f"{one.seconds:.0f} s"]
            texts = [t for t in texts if "nan" not in t][: 3 if width > 3.9 else 1]
            ax.text(1.02, row, "  ".join(texts), fontsize=size, **beside)
        label = _plots.wrapped(f"{self.metric} ± spread", 0.5 * width, size)
        ax.set(xlabel=label, ylim=(n - 0.5, -0.5))  # the first on top
        ax.grid(axis="x", color="0.9")
        ax.locator_params(axis="x", nbins=max(1, int(0.6 * width)))
        _plots.spell_out(ax)
        _plots.tidy(ax, size + 1)
        self.ax_ = ax
        return self


def _digits(value: Any, sign: str = "") -> str:
    return f"{value:{sign}.2g}" if 0 < abs(value) < 0.001 else f"{value:{sign}.3f}"
