"""What was fitted, and how well it does: facts, scores and baselines of a report."""

import platform
from collections.abc import Callable
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV
from sklearn.pipeline import Pipeline

from sklearn_dl._base import ImageEstimatorMixin, estimators_within, network_of
from sklearn_dl.datasets import target_text
from sklearn_dl.inspection._judged import Judged
from sklearn_dl.inspection._scores import Scoring, bootstrap, interval, recalls_of_rows
from sklearn_dl.inspection._slices import slice_scores

_PACKAGES = ("sklearn_dl", "torch", "torchvision", "scikit-learn", "numpy", "pillow")
_RESAMPLED = 5_000_000  # values that the bootstrap looks at


def facts(judged: Judged) -> list[tuple[str, str]]:
    """Return what was fitted, and who judged, as pairs of a name and a text."""
    model = judged.model
    found = [("Model", type(model).__name__)]
    if isinstance(model, Pipeline):
        names = " → ".join(type(step).__name__ for _, step in model.steps)
        found.append(("Steps", names))
    seen: set[str] = set()
    for estimator in estimators_within(model):
        ours = isinstance(estimator, ImageEstimatorMixin)
        network = network_of(estimator) if ours else None
        network = getattr(network, "backbone", network)
        if network is None or network.identity() in seen:
            continue
        seen.add(network.identity())
        name = estimator.backbone
        found += [
            ("Backbone", name if isinstance(name, str) else repr(name)),
            ("Weights", f"{estimator.weights}, digest {network.identity()[:16]}"),
            ("Preprocessing", str(estimator.preprocessing_)),
        ]
        trainable = getattr(estimator, "trainable", None)
        regime = "frozen: features" if trainable is None else f"trains {trainable}"
        found.append(("Regime", regime))
    by = "the model as it was fitted"
    if judged.n_folds is not None:
        by = f"clones fitted without the image, {judged.n_folds} folds"
    found.append(("Judged by", by))
    if isinstance(model, FixedThresholdClassifier | TunedThresholdClassifierCV):
        text = "the class of the highest probability, not by the model's threshold"
        found.append(("Predictions", text))
    versions = [f"Python {platform.python_version()}", *map(_versioned, _PACKAGES)]
    return [*found, ("Versions", ", ".join(versions)), ("Written", f"{date.today()}")]


def _versioned(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return name


def scores(judged: Judged) -> list[dict[str, Any]]:
    """Return scores with intervals, each with that of a baseline beside it."""
    rules = {"classes": _of_classes, "labels": _of_labels, "numbers": _of_numbers}
    return rules[judged.kind](judged)


def _of_classes(judged: Judged) -> list[dict[str, Any]]:
    truth, right = judged.truth, judged.predicted == judged.truth
    codes, names = pd.factorize(truth, sort=True)
    shares = np.bincount(codes) / len(truth)
    usual = target_text(names[shares.argmax()])
    recalls = recalls_of_rows(right[:, None].astype(float), codes)

    def balanced(rows: np.ndarray) -> np.ndarray:
        return np.nanmean(recalls(rows), axis=1)

    n, baseline = len(truth), (f"always {usual}", 1 / len(names))
    found = [
        _accuracy("Accuracy", right, f"always {usual}", float(shares.max())),
        _resampled("Mean recall of the classes", balanced, n, *baseline),
    ]
    if judged.has_probabilities:
        own = judged.values[judged.positions, judged.columns[0]]
        loss = -np.log(np.maximum(own, np.finfo(np.float32).tiny))
        entropy = -float((shares * np.log(shares)).sum())
        baseline = "the shares of the classes", entropy
        found.append(
            _resampled("Log loss (lower is better)", _mean(loss), n, *baseline)
        )
    return found


def _of_labels(judged: Judged) -> list[dict[str, Any]]:
    right = judged.predicted == judged.truth
    each = right.mean(axis=1)
    share = judged.truth.mean(axis=0)
    usual = (share > 0.5).astype(int)
    baseline = float((judged.truth == usual).mean())
    all_right = float((judged.truth == usual).all(axis=1).mean())
    name = "the more frequent state of each label"
    return [
        _resampled("Labels that are right", _mean(each), len(each), name, baseline),
        _accuracy("Images with all labels right", right.all(axis=1), name, all_right),
    ]


def _of_numbers(judged: Judged) -> list[dict[str, Any]]:
    truth, found = judged.truth, []
    mean = np.broadcast_to(truth.mean(axis=0), truth.shape)
    for name, scoring in (
        ("Mean absolute error (lower is better)", "neg_mean_absolute_error"),
        ("R²", "r2"),
    ):
        rule = Scoring(scoring, "regression", truth)
        sign = -1 if scoring.startswith("neg") else 1
        of_rows = rule.of_rows([judged.predicted])
        baseline = "always the mean", sign * rule(mean)

        def score(rows, of_rows=of_rows, sign=sign):
            return sign * of_rows(rows)

        found.append(_resampled(name, score, len(truth), *baseline))
    return found


def _mean(values: np.ndarray) -> Callable:
    return lambda rows: values[rows].mean(keepdims=True)


def _accuracy(name: str, right: np.ndarray, baseline_name: str, baseline: float):
    """Return a share of images with Wilson's interval."""
    whole = slice_scores(
        np.ones(len(right), int), right.astype(int), slices=np.zeros(len(right), int)
    ).iloc[0]
    return {
        "name": name,
        "score": float(whole["score"]),
        "low": float(whole["low"]),
        "high": float(whole["high"]),
        "baseline_name": baseline_name,
        "baseline": baseline,
    }


def _resampled(name: str, of_rows, n: int, baseline_name: str, baseline: float):
    """Return a score of n rows, such as a mean, with the interval of the bootstrap."""
    times = int(np.clip(_RESAMPLED // max(n, 1), 100, 1000))
    low, high = np.ravel(interval(bootstrap(of_rows, n, times, seed=0), 0.95))
    return {
        "name": name,
        "score": float(of_rows(np.arange(n))[0]),
        "low": float(low),
        "high": float(high),
        "baseline_name": baseline_name,
        "baseline": baseline,
    }


def classes(judged: Judged) -> list[dict[str, Any]]:
    """Return the classes or labels with their counts and recalls, worst first."""
    if judged.kind == "numbers":
        return []
    if judged.kind == "labels":
        found = [
            {
                "name": name,
                "n": int(truth.sum()),
                "predicted": int(predicted.sum()),
                "recall": predicted[truth == 1].mean() if truth.any() else None,
                "wrong": int((truth != predicted).sum()),
            }
            for name, truth, predicted in zip(
                judged.names, judged.truth.T, judged.predicted.T, strict=True
            )
        ]
        return sorted(found, key=lambda row: -row["wrong"])
    names = judged.names
    truth, predicted = judged.columns
    counts = np.bincount(predicted, minlength=len(names))
    # Columns as text are slices as they are.
    own = slice_scores(truth, predicted, slices=truth.astype(str))
    return [
        {
            "name": names[int(row.value)],
            "n": int(row.n),
            "predicted": int(counts[int(row.value)]),
            "recall": float(row.score),
            "low": float(row.low),
            "high": float(row.high),
        }
        for row in own.itertuples()
    ]
