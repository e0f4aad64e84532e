"""Predictions of the members of an ensemble, in the labels of y."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import sklearn.ensemble as sk
from sklearn.base import is_classifier, is_regressor
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

_NAMED = (
    *(sk.VotingClassifier, sk.VotingRegressor),
    *(sk.StackingClassifier, sk.StackingRegressor),
)
_BAGGING = (sk.BaggingClassifier, sk.BaggingRegressor)
_BOOSTED = (sk.AdaBoostClassifier, sk.AdaBoostRegressor)
_FORESTS = (
    *(sk.RandomForestClassifier, sk.RandomForestRegressor),
    *(sk.ExtraTreesClassifier, sk.ExtraTreesRegressor),
)


@dataclass
class Outputs:
    """Predictions of the members by their names, in the labels of y."""

    predictions: dict[str, np.ndarray]
    # Classes and probabilities (n, n_classes) of each member, where all have them.
    probabilities: list[tuple[np.ndarray, np.ndarray]] | None = None
    weights: Any = None  # those of a fitted ensemble
    task: str | None = None  # what the estimators say they are made for


@dataclass
class _Ensemble:
    """Estimators, what each is given of X, and the labels that they don't know."""

    members: dict[str, Any]
    classes: np.ndarray | None = None  # where members know their positions alone
    weights: Any = None
    columns: list[np.ndarray] | None = None
    takes_array: bool = False

    def decode(self, member, labels) -> np.ndarray:
        """Return labels of y for what a member gives."""
        labels = np.asarray(labels)
        if self.classes is None or not _knows_positions(member, len(self.classes)):
            return labels
        return self.classes[labels.astype(np.intp)]  # a forest's trees return floats


def _knows_positions(member, n_classes: int) -> bool:
    """Tell whether a member was fitted to positions of classes, as ensembles do it."""
    while isinstance(member, Pipeline):
        member = member[-1]
    if isinstance(member, FrozenEstimator):
        return False  # it was fitted before, to the labels
    known = getattr(member, "classes_", None)  # the trees of a forest say floats
    return known is None or bool(np.isin(known, np.arange(n_classes)).all())


def member_outputs(members, X, *, soft: bool) -> Outputs:
    """Return what the members predict of X, or the predictions given in their place."""
    if X is None:
        return Outputs(_given(members))
    if isinstance(members, Pipeline):
        X = members[:-1].transform(X) if len(members) > 1 else X
        members = members[-1]
    if hasattr(members, "fit"):
        ensemble = _fitted_ensemble(members)
    else:
        ensemble = _Ensemble(_named(members))
    outputs = Outputs({}, [] if soft else None, ensemble.weights, _task(ensemble))
    if ensemble.takes_array:
        how: Any = {"accept_sparse": ["csr", "csc"], "ensure_all_finite": False}
        X = check_array(X, dtype=None, allow_nd=True, **how)
    for number, (name, member) in enumerate(ensemble.members.items()):
        rows = X if ensemble.columns is None else X[:, ensemble.columns[number]]
        outputs.predictions[name] = ensemble.decode(member, member.predict(rows))
        if not hasattr(member, "predict_proba"):
            outputs.probabilities = None
        if outputs.probabilities is not None:
            classes = ensemble.decode(member, member.classes_)
            outputs.probabilities.append((classes, member.predict_proba(rows)))
    return outputs


def _task(ensemble: _Ensemble) -> str | None:
    """Return what the members are made for, where they say it."""
    tasks = {}
    for name, member in ensemble.members.items():
        if hasattr(member, "__sklearn_tags__"):
            if is_classifier(member):
                tasks[name] = "classification"
            elif is_regressor(member):
                tasks[name] = "regression"
    found = set(tasks.values())
    if len(found) > 1 or (ensemble.classes is not None and "regression" in found):
        name = next(name for name, task in tasks.items() if task == "regression")
        raise ValueError(f"Member {name!r} is a regressor among classifiers.")
    return found.pop() if found else None


def _given(predictions) -> dict[str, np.ndarray]:
    if not isinstance(predictions, Mapping):
        raise TypeError(
            "Without X, members must be a dict of names and predictions, got "
            f"{type(predictions).__name__}."
        )
    for name, values in predictions.items():
        if hasattr(values, "predict"):
            raise TypeError(f"Member {name!r} is an estimator: give X too.")
    return {str(name): np.asarray(values) for name, values in predictions.items()}


def _named(members) -> dict[str, Any]:
    """Return estimators by their names; nameless ones have that of their class."""
    pairs = []
    if isinstance(members, Mapping):
        pairs = list(members.items())
    elif isinstance(members, list | tuple):
        pairs = [m if isinstance(m, tuple) else (None, m) for m in members]
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise TypeError(
            "members must be a dict of names and fitted estimators, a list of them or "
            f"of (name, estimator) pairs, or a fitted ensemble, got {members!r:.100}."
        )
    for name, member in pairs:
        if not hasattr(member, "predict"):
            raise TypeError(
                f"Member {name!r} has no predict, but is a {type(member).__name__}; "
                "predictions in place of estimators need X=None."
            )
    kinds = [type(member).__name__ for name, member in pairs if name is None]
    numbers = {kind: count(1) for kind in kinds if kinds.count(kind) > 1}
    names = []
    for name, member in pairs:
        if name is None:
            name = type(member).__name__
            name = f"{name} {next(numbers[name])}" if name in numbers else name
        names.append(str(name))
    if len(set(names)) < len(names):
        raise ValueError(f"Names of members must differ, got {names}.")
    return dict(zip(names, (member for _, member in pairs), strict=True))


def _fitted_ensemble(ensemble) -> _Ensemble:
    """Take a fitted ensemble of scikit-learn's apart.

    Bagging, boosting and forests make an array of X before their members see it, and
    all but AdaBoost and a stack of prefitted members fit them on encoded labels.
    """
    if not isinstance(ensemble, _NAMED + _BAGGING + _BOOSTED + _FORESTS):
        raise TypeError(
            f"{type(ensemble).__name__} has no members that vote: give a dict or a "
            "list of fitted estimators, or a voting, stacking, bagging, AdaBoost or "
            "forest ensemble."
        )
    check_is_fitted(ensemble)
    classes = getattr(ensemble, "classes_", None)
    members = ensemble.estimators_
    if isinstance(ensemble, _NAMED):
        kept = [not isinstance(member, str) for _, member in ensemble.estimators]
        names = [name for name, member in ensemble.estimators if member != "drop"]
        weights = getattr(ensemble, "weights", None)
        if weights is not None:
            weights = np.asarray(weights, dtype=float)[kept]
        if getattr(ensemble, "cv", None) == "prefit":
            classes = None
        return _Ensemble(dict(zip(names, members, strict=True)), classes, weights)
    result = _Ensemble(
        {f"member {i}": m for i, m in enumerate(members, 1)}, classes, takes_array=True
    )
    if isinstance(ensemble, _BAGGING):
        result.columns = ensemble.estimators_features_
    elif isinstance(ensemble, _BOOSTED):
        result.classes = None
        result.weights = ensemble.estimator_weights_[: len(members)]
    return result
