"""Parts of the report page as plain values, which its template lays out."""

import platform
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from sklearn_dl._base import ImageEstimatorMixin, estimators_within, network_of
from sklearn_dl.datasets import target_text
from sklearn_dl.inspection._charts import Curve, chart
from sklearn_dl.inspection._confusion import most_confused
from sklearn_dl.inspection._duplicates import near_duplicates
from sklearn_dl.inspection._judged import Judged
from sklearn_dl.inspection._losses import label_errors, top_losses
from sklearn_dl.inspection._report import RobustnessReport, code_of
from sklearn_dl.inspection._scores import (
    Scoring,
    bootstrap,
    interval,
    recalls_of_rows,
)
from sklearn_dl.inspection._slices import slice_scores

_CANDIDATES = 9  # classes of an image that have a key
_PACKAGES = ("sklearn_dl", "torch", "torchvision", "scikit-learn", "numpy", "pillow")
_CONFUSED, _EXAMPLES = 12, 4
_DOUBTED = 20  # labels to look at, where there are as many mistakes
_BINS = 10
_RESAMPLED = 5_000_000  # values that the bootstrap looks at


# ------------------------------------------------------------------- the whole


def facts(judged: Judged) -> list[tuple[str, str]]:
    """Return what was fitted, and who judged, as pairs of a name and a text."""
    model = judged.model
    found = [("Model", type(model).__name__)]
    if isinstance(model, Pipeline):
        names = " → ".join(type(step).__name__ for _, step in model.steps)
        found.append(("Steps", names))
    seen: set[str] = set()
    for estimator in estimators_within(model):
        network = _backbone_of(estimator)
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
    if judged.n_folds is None:
        found.append(("Judged by", "the model as it was fitted"))
    else:
        text = f"clones fitted without the image, {judged.n_folds} folds"
        found.append(("Judged by", text))
    versions = [f"Python {platform.python_version()}", *map(_versioned, _PACKAGES)]
    return [*found, ("Versions", ", ".join(versions)), ("Written", f"{date.today()}")]


def _backbone_of(estimator: Any) -> Any:
    network = None
    if isinstance(estimator, ImageEstimatorMixin):
        network = network_of(estimator)
    return getattr(network, "backbone", network)


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

    found = [
        _accuracy("Accuracy", right, f"always {usual}", float(shares.max())),
        {
            "name": "Mean recall of the classes",
            "score": float(balanced(np.arange(len(truth)))[0]),
            "baseline_name": f"always {usual}",
            "baseline": 1 / len(names),
        }
        | _bounds(balanced, len(truth)),
    ]
    if judged.has_probabilities:
        loss = _losses(judged)
        entropy = -float((shares * np.log(shares)).sum())
        found.append(
            {
                "name": "Log loss (lower is better)",
                "score": float(loss.mean()),
                "baseline_name": "the shares of the classes",
                "baseline": entropy,
            }
            | _bounds(lambda rows: loss[rows].mean(keepdims=True), len(truth))
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
        {
            "name": "Labels that are right",
            "score": float(each.mean()),
            "baseline_name": name,
            "baseline": baseline,
        }
        | _bounds(lambda rows: each[rows].mean(keepdims=True), len(each)),
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
        found.append(
            {
                "name": name,
                "score": sign * rule(judged.predicted),
                "baseline_name": "always the mean",
                "baseline": sign * rule(mean),
            }
            | _bounds(lambda rows, of=of_rows, s=sign: s * of(rows), len(truth))
        )
    return found


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


def _bounds(of_rows: Any, n: int) -> dict[str, float]:
    times = int(np.clip(_RESAMPLED // max(n, 1), 100, 1000))
    low, high = np.ravel(interval(bootstrap(of_rows, n, times, seed=0), 0.95))
    return {"low": float(low), "high": float(high)}


def classes(judged: Judged) -> list[dict[str, Any]]:
    """Return the classes or labels with their counts and recalls, worst first."""
    if judged.kind == "numbers":
        return []
    if judged.kind == "labels":
        found = []
        for column, name in enumerate(label_names(judged)):
            truth, predicted = judged.truth[:, column], judged.predicted[:, column]
            both = int((truth & predicted).sum())
            found.append(
                {
                    "name": name,
                    "n": int(truth.sum()),
                    "predicted": int(predicted.sum()),
                    "recall": both / truth.sum() if truth.any() else None,
                    "wrong": int((truth != predicted).sum()),
                }
            )
        return sorted(found, key=lambda row: -row["wrong"])
    names = label_names(judged)
    truth, predicted = columns(judged)
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


def columns(judged: Judged) -> tuple[np.ndarray, np.ndarray]:
    """Return the columns of the labels and of the predicted classes, (n,) each."""
    place = {label: c for c, label in enumerate(judged.answers.classes_.tolist())}
    truth = np.array([place[label] for label in judged.truth.tolist()])
    return truth, judged.values.argmax(axis=1)


def label_names(judged: Judged) -> list[str]:
    """Return the names of classes or labels, in the order of the columns."""
    if judged.kind == "numbers":
        return []
    return [target_text(label) for label in judged.answers.classes_.tolist()]


# ---------------------------------------------------------------------- images


def cards(judged: Judged) -> tuple[dict[int, dict[str, Any]], list[int], list[int]]:
    """Return what is known of each image, and two orders of them.

    The first is by falling loss; the second are the images whose label is likely wrong,
    the likeliest first, and where they are few other mistakes, by falling loss. Images
    are positions in what was judged.
    """
    rules = {"classes": _class_cards, "labels": _label_cards, "numbers": _number_cards}
    found, doubted = rules[judged.kind](judged)
    loss = np.array([found[position]["loss"] for position in judged.positions])
    worst = np.argsort(-loss, kind="stable").tolist()
    if judged.kind == "classes":
        others = [p for p in worst if found[p]["wrong"] and p not in {*doubted}]
        doubted = doubted + others[: max(0, _DOUBTED - len(doubted))]
    for position, card in found.items():
        row = int(judged.rows[position])
        card |= {"row": row, "path": judged.path(row)}
        card["old"] = target_text(judged.truth[position])
    return found, worst, doubted


def _class_cards(judged: Judged) -> tuple[dict[int, dict[str, Any]], list[int]]:
    known, at = judged.has_probabilities, judged.positions
    column = {label: c for c, label in enumerate(judged.answers.classes_.tolist())}
    worst = top_losses(judged.answers, at, judged.truth, k=None)
    errors = label_errors(judged.answers, at, judged.truth)
    best = np.argsort(-judged.values, axis=1, kind="stable")[:, :_CANDIDATES]
    found = {}
    for row in worst.itertuples():
        likely = best[row.row].tolist()
        found[row.row] = {
            "truth": column[row.truth],
            "prediction": column[row.prediction],
            "wrong": bool(row.truth != row.prediction),
            "loss": float(row.loss),
            "sure": float(row.probability) if known else -float(row.loss),
            "probability": float(row.probability) if known else None,
            "of_truth": float(row.probability_truth) if known else None,
            "likely": likely,
        }
    for row in errors.itertuples():
        found[row.row]["suggestion"] = column[row.suggestion]
    return found, errors["row"].tolist()


def _label_cards(judged: Judged) -> tuple[dict[int, dict[str, Any]], list[int]]:
    truth, p = judged.truth, judged.values
    own = np.where(truth == 1, p, 1 - p)
    loss = -np.log(np.maximum(own, np.finfo(np.float32).tiny)).mean(axis=1)
    found: dict[int, dict[str, Any]] = {}
    for position in judged.positions:
        wrong = np.flatnonzero(judged.predicted[position] != truth[position])
        found[position] = {
            "truth": np.flatnonzero(truth[position]).tolist(),
            "prediction": np.flatnonzero(judged.predicted[position]).tolist(),
            "wrong": bool(len(wrong)),
            "errors": [[int(c), float(p[position, c])] for c in wrong],
            "loss": float(loss[position]),
            "sure": float(np.maximum(p[position], 1 - p[position]).mean()),
        }
    margins: dict[int, float] = {}
    for column in range(truth.shape[1]):
        if len(np.unique(truth[:, column])) < 2:
            continue
        one = type(judged.answers)()
        one.values = np.stack([1 - p[:, column], p[:, column]], axis=1)
        one.classes_ = np.array([0, 1])
        for row in label_errors(one, judged.positions, truth[:, column]).itertuples():
            found[row.row].setdefault("suggestions", []).append(column)
            margins[row.row] = min(margins.get(row.row, 0.0), float(row.margin))
    return found, sorted(margins, key=margins.__getitem__)


def _number_cards(judged: Judged) -> tuple[dict[int, dict[str, Any]], list[int]]:
    worst = top_losses(judged.answers, judged.positions, judged.truth, k=None)
    n = len(judged.truth)
    truth, predicted = (
        np.reshape(v, (n, -1)) for v in (judged.truth, judged.predicted)
    )
    found = {}
    for row in worst.itertuples():
        error = predicted[row.row] - truth[row.row]
        found[row.row] = {
            "truth": truth[row.row].tolist(),
            "prediction": predicted[row.row].tolist(),
            "error": error.tolist(),
            "wrong": True,
            "loss": float(row.loss),
            "sure": float(np.abs(error).mean()),
        }
    return found, []


def _losses(judged: Judged) -> np.ndarray:
    """Return the log loss of each image."""
    own = judged.values[judged.positions, columns(judged)[0]]
    return -np.log(np.maximum(own, np.finfo(np.float32).tiny))


# ------------------------------------------------------------- kinds of mistake


def confusions(judged: Judged) -> list[dict[str, Any]]:
    """Return the pairs of classes that are confused most, with examples.

    Each has the surest mistakes, and the surest image of the class they are taken for.
    """
    if judged.kind != "classes":
        return []
    pairs = most_confused(
        judged.answers,
        judged.positions,
        judged.truth,
        k=_CONFUSED,
        n_examples=_EXAMPLES,
    )
    names = judged.answers.classes_.tolist()
    right = judged.predicted == judged.truth
    found = []
    for pair in pairs.itertuples():
        rows = np.flatnonzero(right & (judged.truth == pair.prediction))
        column = names.index(pair.prediction)
        typical = rows[judged.values[rows, column].argmax()] if len(rows) else None
        found.append(
            {
                "truth": target_text(pair.truth),
                "prediction": target_text(pair.prediction),
                "n": int(pair.n),
                "rate": float(pair.rate),
                "examples": judged.rows[list(pair.examples)].tolist(),
                "typical": None if typical is None else int(judged.rows[typical]),
            }
        )
    return found


def calibration(judged: Judged) -> dict[str, Any] | None:
    """Return how often predictions are right, by how sure they are."""
    if judged.kind == "numbers" or not judged.has_probabilities:
        return None
    from sklearn.calibration import calibration_curve

    p, truth = judged.values, judged.truth
    if judged.kind == "labels":
        sure, right = p.ravel(), truth.ravel()
        axes = "probability of a label", "share of images that have it"
    else:
        sure, right = p.max(axis=1), judged.predicted == truth
        axes = "probability of the prediction", "share that is right"
    right, sure = np.asarray(right).astype(int), np.clip(sure, 0, 1)
    if len(np.unique(right)) < 2:
        return None  # all are right, or all wrong
    share, mean = calibration_curve(right, sure, n_bins=_BINS)
    bins = np.minimum((sure * _BINS).astype(int), _BINS - 1)
    gaps = pd.DataFrame({"gap": right - sure}).groupby(bins)["gap"]
    error = float((gaps.mean().abs() * gaps.size()).sum() / len(sure))
    curve = Curve("this model", mean.tolist(), share.tolist())
    limits = (0.0, 1.0)
    drawn = chart(
        "Calibration curve", axes, [curve], limits=(limits, limits), diagonal=True
    )
    return {"chart": drawn, "error": error, "n_bins": _BINS}


def residuals(judged: Judged) -> list[dict[str, Any]]:
    """Return charts of residuals against targets, one for each output."""
    if judged.kind != "numbers":
        return []
    n = len(judged.truth)
    truth, predicted = (
        np.reshape(v, (n, -1)) for v in (judged.truth, judged.predicted)
    )
    some = np.linspace(0, n - 1, min(n, 1000)).astype(int)
    found = []
    for column in range(truth.shape[1]):
        x = truth[some, column]
        y = predicted[some, column] - x
        name = "" if truth.shape[1] == 1 else f" of output {column}"
        axes = "target", "prediction minus target"
        curve = Curve("images", x.tolist(), y.tolist(), dots=True)
        found.append(chart(f"Residuals{name}", axes, [curve]))
    return found


def slices_of(judged: Judged, slices: Any, n_given: int) -> list[dict[str, Any]]:
    """Return the scores of slices, the worst first."""
    if slices is None or judged.kind == "labels":
        return []
    if isinstance(slices, pd.Series):
        table = slices.to_frame("slice" if slices.name is None else slices.name)
    elif isinstance(slices, pd.DataFrame | dict):
        table = pd.DataFrame(slices)
    else:
        table = pd.DataFrame({"slice": np.asarray(slices)})
    if len(table) != n_given:
        message = f"slices has {len(table)} rows, but there are {n_given} images."
        raise ValueError(message)
    table = table.iloc[judged.rows]
    numbers = judged.kind == "numbers"
    pair = (judged.truth, judged.predicted) if numbers else columns(judged)
    found = slice_scores(*pair, slices=table)
    return found.to_dict("records")


def robustness(report: RobustnessReport | None) -> dict[str, Any] | None:
    """Return the curves of a robustness report, and the augmentations that answer."""
    if report is None:
        return None
    charts = []
    low, high = report.table["score"].min(), report.clean_score
    for name, rows in report.table.groupby("corruption", sort=False):
        severity = [0.0, *rows["severity"].fillna(1.0)]
        score = [report.clean_score, *rows["score"]]
        # The interval is of the drop.
        lows = [report.clean_score, *(report.clean_score - rows["high"])]
        highs = [report.clean_score, *(report.clean_score - rows["low"])]
        mark = np.select(
            [(rows["low"] > report.margin).any(), (rows["low"] > 0).any()],
            [" **", " *"],
            "",
        )
        curve = Curve(report.scoring, severity, score, low=lows, high=highs)
        axes = "severity", report.scoring
        limits = None, (float(low), float(high))
        charts.append(chart(f"{name}{mark}", axes, [curve], limits=limits))
    answers = [
        {"name": name, "code": code_of(answer)}
        for name, answer in (
            ("beyond chance", report.augment),
            (f"beyond {report.margin:g}", report.severe_augment),
        )
        if answer is not None
    ]
    head = f"{report.scoring} {report.clean_score:.3f} on images as they are"
    return {"charts": charts, "answers": answers, "head": head}


def history(network: Any) -> list[dict[str, Any]]:
    """Return charts of how a network was trained."""
    table = getattr(network, "history_", None)
    if table is None or not len(table):
        return []
    epochs = np.asarray(table.get("epoch", range(1, len(table) + 1)), float)
    panels = {
        "Loss": {"train_loss": "training", "valid_loss": "validation"},
        "Accuracy": {"train_top1": "training", "valid_top1": "validation"},
        "Validation score": {"valid_score": "validation"},
        "Learning rate": {"lr": "head", "backbone_lr": "backbone"},
    }
    found = []
    for title, columns in panels.items():
        curves = [
            Curve(name, epochs.tolist(), table[column].astype(float).tolist())
            for column, name in columns.items()
            if column in table
        ]
        if curves:
            found.append(chart(title, ("epoch", title.lower()), curves))
    return found


# ------------------------------------------------------------- odd and alike


def duplicates(judged: Judged, reference: Any) -> list[dict[str, Any]]:
    """Return pairs that look alike to the backbone, those of two classes first.

    `reference` is (source, features) of other images, or None.
    """
    if judged.features is None:
        return []
    found = []
    own: Any = near_duplicates(judged.features)
    for pair in own.itertuples():
        one, two = judged.truth[pair.row], judged.truth[pair.other]
        found.append(
            {
                "kind": "one target" if np.array_equal(one, two) else "two targets",
                "similarity": float(pair.similarity),
                "rows": judged.rows[[pair.row, pair.other]].tolist(),
                "targets": [target_text(one), target_text(two)],
            }
        )
    if reference is not None:
        source, features = reference
        named = source.kind in ("paths", "objects")
        across: Any = near_duplicates(judged.features, features)
        for pair in across.itertuples():
            found.append(
                {
                    "kind": "also in the reference",
                    "similarity": float(pair.similarity),
                    "rows": [int(judged.rows[pair.row])],
                    "targets": [target_text(judged.truth[pair.row])],
                    "other": int(pair.other),
                    "other_path": source.path(pair.other) if named else None,
                }
            )
    order = ["two targets", "also in the reference", "one target"]
    return sorted(found, key=lambda pair: order.index(pair["kind"]))
