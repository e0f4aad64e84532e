"""Targets: classes, labels or numbers, as tensors for the loss and back."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.metrics import get_scorer
from sklearn.preprocessing import LabelEncoder, StandardScaler
from sklearn.utils import check_array, column_or_1d, compute_class_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets, type_of_target


class Targets(ABC):
    """The y of a fit: how it becomes tensors for the loss, and back."""

    kind: str  # "multiclass", "multilabel-indicator" or "continuous"
    n_outputs: int
    classes: np.ndarray  # labels, where there are any
    # Of absent and present labels in the loss, (n_outputs, 2).
    label_weight: np.ndarray | None = None

    @abstractmethod
    def encode(self, y, name: str = "y") -> torch.Tensor:
        """Return y for the loss; raise where it is not like the y of the fit."""

    @abstractmethod
    def decode(self, target: torch.Tensor) -> np.ndarray:
        """Return what `encode` returned as the user gave it."""

    def check_same(self, other: "Targets") -> None:
        """Raise where a warm start is given a y of another kind than the fit before."""
        if (self.kind, self.n_outputs) != (other.kind, other.n_outputs):
            raise ValueError(
                f"warm_start=True goes on with {self.n_outputs} outputs, but y has "
                f"{other.n_outputs}."
            )

    def activate(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return the network's outputs as probabilities or targets, in float64."""
        return outputs.double()

    @abstractmethod
    def predictions(self, scores: np.ndarray, margins: bool = False) -> np.ndarray:
        """Return what `predict` answers for scores: probabilities, or margins."""

    def margins(self, scores: np.ndarray) -> np.ndarray:
        """Return what `decision_function` answers for scores."""
        return scores

    def weigh(self, target: torch.Tensor, weight: np.ndarray, class_weight) -> None:
        """Take the weights of the classes from the training rows."""
        return

    def row_weight(self, target: torch.Tensor) -> np.ndarray:
        """Return the weights that the rows' classes give them."""
        return np.ones(len(target))

    def strata(self, target: torch.Tensor) -> np.ndarray | None:
        """Return the classes that a validation split is balanced over."""
        return None

    def accuracies(self, outputs: np.ndarray, target: torch.Tensor) -> dict[str, float]:
        """Return further scores of the validation rows."""
        return {}


class ClassTargets(Targets):
    """One class per image, of sorted labels."""

    kind = "multiclass"

    def __init__(self, classes: np.ndarray):
        self.classes = classes
        self.n_outputs = len(classes)
        self.class_weight = np.ones(len(classes))

    def check_same(self, other: Targets) -> None:
        """Raise where a warm start is given other classes than the fit before."""
        super().check_same(other)
        if not np.array_equal(self.classes, other.classes):
            raise ValueError(
                f"warm_start=True goes on with the classes {self.classes!r}, but y has "
                f"{other.classes!r}."
            )

    def encode(self, y, name: str = "y") -> torch.Tensor:
        """Return the positions of the labels among the classes."""
        y = column_or_1d(y, warn=True)
        unknown = np.setdiff1d(y, self.classes)
        if len(unknown):
            raise ValueError(
                f"{name} has classes that the fit doesn't know: "
                f"{unknown.tolist()[:10]!r}; it knows {self.classes.tolist()[:10]!r}."
            )
        return torch.from_numpy(np.searchsorted(self.classes, y)).long()

    def decode(self, target: torch.Tensor) -> np.ndarray:
        return self.classes[target.numpy()]

    def activate(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return probabilities; in float64, so that rows of float32 sum to 1."""
        return torch.softmax(outputs.double(), dim=-1)

    def predictions(self, scores: np.ndarray, margins: bool = False) -> np.ndarray:
        """Return the class of the highest score."""
        return self.classes[scores.argmax(axis=1)]

    def margins(self, scores: np.ndarray) -> np.ndarray:
        """Return the scores; of two classes the score of the second one."""
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores

    def weigh(self, target: torch.Tensor, weight: np.ndarray, class_weight) -> None:
        if isinstance(class_weight, str):
            totals = np.bincount(target, weights=weight, minlength=len(self.classes))
            per_class = weight.sum() / np.where(totals > 0, totals, np.inf)
        else:
            per_class = compute_class_weight(
                class_weight, classes=self.classes, y=self.classes
            )
        self.class_weight = _checked_weights(per_class, class_weight)

    def row_weight(self, target: torch.Tensor) -> np.ndarray:
        return self.class_weight[target.numpy()]

    def strata(self, target: torch.Tensor) -> np.ndarray:
        return target.numpy()

    def accuracies(self, outputs: np.ndarray, target: torch.Tensor) -> dict[str, float]:
        """Return top-1 and, above 5 classes, top-5 accuracy."""
        top = torch.from_numpy(outputs).topk(min(5, self.n_outputs)).indices
        hits = (top == target[:, None]).double()
        scores = {"valid_top1": hits[:, 0].mean().item()}
        if self.n_outputs > 5:
            scores["valid_top5"] = hits.sum(1).mean().item()
        return scores


class LabelTargets(Targets):
    """Any number of labels per image: an indicator matrix."""

    kind = "multilabel-indicator"

    def __init__(self, n_labels: int):
        self.n_outputs = n_labels
        self.classes = np.arange(n_labels)

    def encode(self, y, name: str = "y") -> torch.Tensor:
        """Return the indicators as floats."""
        y = y.toarray() if issparse(y) else np.asarray(y)
        if y.ndim != 2 or y.shape[1] != self.n_outputs:
            raise ValueError(
                f"{name} has shape {y.shape}, but the fit had {self.n_outputs} labels."
            )
        if not np.isin(y, (0, 1)).all():
            raise ValueError(f"{name} must hold 0 and 1 only: it marks labels.")
        return torch.from_numpy(y.astype(np.float64))

    def decode(self, target: torch.Tensor) -> np.ndarray:
        return target.numpy().astype(int)

    def activate(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return the probability of each label."""
        return torch.sigmoid(outputs.double())

    def predictions(self, scores: np.ndarray, margins: bool = False) -> np.ndarray:
        """Return 1 where a label is more probable than not."""
        return (scores > (0.0 if margins else 0.5)).astype(int)

    def weigh(self, target: torch.Tensor, weight: np.ndarray, class_weight) -> None:
        """Take the weights of absent and present labels."""
        self.label_weight = None
        if class_weight is None:
            return
        if isinstance(class_weight, str):
            present = weight @ target.numpy()
            counts = np.stack([weight.sum() - present, present], axis=1)
            per_class = weight.sum() / (2 * np.where(counts > 0, counts, np.inf))
        else:
            of_each: Sequence[Any] = class_weight
            if isinstance(class_weight, dict):
                of_each = [class_weight] * self.n_outputs
            if len(of_each) != self.n_outputs:
                raise ValueError(
                    f"class_weight has {len(of_each)} dicts, but y has "
                    f"{self.n_outputs} labels."
                )
            if not all(
                isinstance(weights, dict) and set(weights) <= {0, 1}
                for weights in of_each
            ):
                raise ValueError(
                    f"class_weight={class_weight!r} must be for 0 and 1, absent and "
                    "present: one dict for all labels, or a list with one for each."
                )
            per_class = np.array([[w.get(0, 1), w.get(1, 1)] for w in of_each], float)
        self.label_weight = _checked_weights(per_class, class_weight)


class ContinuousTargets(Targets):
    """Numbers, one or several per image; the network learns them standardised."""

    kind = "continuous"

    def __init__(self, y, weight: np.ndarray):
        y = _numbers(y)
        self.single = y.ndim == 1
        y = y.reshape(len(y), -1)
        self.n_outputs = y.shape[1]
        self.scaler = StandardScaler().fit(y, sample_weight=weight)

    def encode(self, y, name: str = "y") -> torch.Tensor:
        """Return y with mean 0 and deviation 1 over the training rows."""
        y = _numbers(y)
        y = y.reshape(len(y), -1)
        if y.shape[1] != self.n_outputs:
            raise ValueError(
                f"{name} has {y.shape[1]} targets, but the fit had {self.n_outputs}."
            )
        return torch.from_numpy(self.scaler.transform(y))

    def decode(self, target: torch.Tensor) -> np.ndarray:
        """Return the numbers in their own units."""
        return self.predictions(target.numpy())

    def predictions(self, scores: np.ndarray, margins: bool = False) -> np.ndarray:
        """Return outputs in the units of the targets."""
        if self.single:
            return self.scaler.inverse_transform(scores)[:, 0]
        return self.scaler.inverse_transform(scores.astype(np.float64))


def _numbers(y) -> np.ndarray:
    return check_array(y, ensure_2d=False, dtype=np.float64, input_name="y")


def _checked_weights(weights: np.ndarray, class_weight) -> np.ndarray:
    if not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError(
            f"class_weight={class_weight!r} must hold finite weights of at least 0."
        )
    return weights


def _warn_of_one_hot(y) -> None:
    """Warn where an indicator matrix looks like classes."""
    per_row = np.asarray((y if issparse(y) else np.asarray(y)).sum(axis=1))
    if (per_row == 1).all():
        warnings.warn(
            "Every row of y has exactly one 1, so that it looks one-hot, but each "
            "column is learned as a label by itself. Where each image has one class, "
            "fit on y.argmax(axis=1), or on the names of the classes.",
            UserWarning,
            stacklevel=2,
        )


def class_targets(y, classes=None) -> ClassTargets | LabelTargets:
    """Return the kind of classes that y holds; `classes` are all that there are."""
    check_classification_targets(y)
    if type_of_target(y) == "multilabel-indicator":
        n_labels = y.shape[1] if hasattr(y, "shape") else np.asarray(y).shape[1]
        _warn_of_one_hot(y)
        return LabelTargets(n_labels)
    y = column_or_1d(y)
    found = LabelEncoder().fit(y if classes is None else column_or_1d(classes))
    if len(found.classes_) < 2:
        raise ValueError(
            f"y has one class, {found.classes_.tolist()[0]!r}; a classifier needs at "
            "least 2 classes."
        )
    return ClassTargets(found.classes_)


class _Outputs(BaseEstimator):
    """Outputs of a network, in the form of the estimator that a scorer asks.

    Its X are the outputs.
    """

    def __init__(self, targets: Targets, gives_margins: bool = False):
        self.targets = targets
        self.gives_margins = gives_margins

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        continuous = self.targets.kind == "continuous"
        tags.estimator_type = "regressor" if continuous else "classifier"
        return tags

    @property
    def classes_(self) -> np.ndarray:
        return self.targets.classes

    def predict(self, X) -> np.ndarray:
        return self.targets.predictions(X, self.gives_margins)

    @available_if(lambda self: not self.gives_margins)
    def predict_proba(self, X) -> np.ndarray:
        return X

    @available_if(lambda self: self.gives_margins)
    def decision_function(self, X) -> np.ndarray:
        return self.targets.margins(X)


class ValidationScorer:
    """Scores of the validation rows, from a network's outputs for them.

    `target` is encoded; `scoring` is accuracy, or R2, where it is None. Margins are no
    logarithms of probabilities.
    """

    def __init__(self, targets: Targets, target: torch.Tensor, scoring, gives_margins):
        continuous = targets.kind == "continuous"
        self.targets = targets
        self.target = target
        self.y = targets.decode(target)
        self.scoring = scoring
        self.predictor = _Outputs(targets, gives_margins)
        default = "r2" if continuous else "accuracy"
        self.scorer = get_scorer(default if scoring is None else scoring)

    def __call__(self, outputs: np.ndarray) -> dict[str, float]:
        """Return the scores by name."""
        more = self.targets.accuracies(outputs, self.target)
        if not np.isfinite(outputs).all():
            return {"valid_score": np.nan, **more}  # training diverged
        X = outputs
        if not self.predictor.gives_margins:
            values = torch.from_numpy(outputs)
            X = self.targets.activate(values).to(values).numpy()
        try:
            score = float(self.scorer(self.predictor, X, self.y))
        except ValueError as error:
            raise ValueError(
                f"scoring={self.scoring!r} can't score the {len(self.y)} validation "
                f"rows: {str(error).rstrip('.')}. {self._cure(error)}"
            ) from error
        return {"valid_score": score, **more}

    def _cure(self, error: ValueError) -> str:
        """Say what would be right."""
        if "pos_label" not in str(error) or len(self.targets.classes) != 2:
            return "Choose them with X_val and y_val."
        scorer: Any = self.scorer
        metric = getattr(scorer, "_score_func", None)
        given: dict[str, Any] = {}
        if metric is not None:
            given |= scorer._kwargs
            if scorer._sign < 0:
                given["greater_is_better"] = False
            if scorer._response_method != "predict":
                given["response_method"] = scorer._response_method
        given["pos_label"] = self.targets.classes.tolist()[1]
        options = ", ".join(f"{name}={value!r}" for name, value in given.items())
        name = getattr(metric, "__name__", "metric")
        return (
            "Say which class is the positive one: "
            f"scoring=make_scorer({name}, {options})."
        )
