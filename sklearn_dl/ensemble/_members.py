"""What the members of an ensemble predict, in the labels of y."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.base import is_classifier, is_regressor
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

_NAMED = (VotingClassifier, VotingRegressor, StackingClassifier, StackingRegressor)
_BAGGING = (BaggingClassifier, BaggingRegressor)
_BOOSTED = (AdaBoostClassifier, AdaBoostRegressor)
_FORESTS = (
    RandomForestClassifier,
    RandomForestRegressor,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
)


@dataclass
class Outputs:
    """Predictions of the members, by their names.

    Attributes
    ----------
    predictions : dict of str to ndarray
        As the members gave them, in the labels of y.
    probabilities : list of (classes, ndarray of shape (n, n_classes)) or None
        Of each member, where all have them.
    weights : ndarray or None
        Those of a fitted ensemble.
    tasks : dict of str to str
        "classification" or "regression", of the members that say so.
    """

    predictions: dict[str, np.ndarray]
    probabilities: list[tuple[np.ndarray, np.ndarray]] | None = None
    weights: np.ndarray | None = None
    tasks: dict[str, str] = field(default_factory=dict)


@dataclass
class _Ensemble:
    """Estimators, what each is given of X, and the labels that they don't know."""

    members: dict[str, Any]
    prepare: Callable | None = None
    columns: list[np.ndarray] | None = None
    classes: np.ndarray | None = None
    weights: Any = None

    def decode(self, member, labels) -> np.ndarray:
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
    if isinstance(members, Pipeline) and X is not None:
        if len(members) > 1:
            X = members[:-1].transform(X)
        members = members[-1]
    if X is None:
        return Outputs(_given(members))
    ensemble = _ensemble(members)
    outputs = Outputs({}, [], ensemble.weights, _tasks(ensemble))
    X = X if ensemble.prepare is None else ensemble.prepare(X)
    for number, (name, member) in enumerate(ensemble.members.items()):
        rows = X if ensemble.columns is None else X[:, ensemble.columns[number]]
        outputs.predictions[name] = ensemble.decode(member, member.predict(rows))
        if not (soft and hasattr(member, "predict_proba")):
            outputs.probabilities = None
        if outputs.probabilities is not None:
            classes = ensemble.decode(member, member.classes_)
            outputs.probabilities.append((classes, member.predict_proba(rows)))
    return outputs


def _tasks(ensemble: _Ensemble) -> dict[str, str]:
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
    return tasks


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


def _ensemble(members) -> _Ensemble:
    if hasattr(members, "fit"):
        return _fitted_ensemble(members)
    if isinstance(members, Mapping):
        pairs = list(members.items())
    elif isinstance(members, list | tuple):
        pairs = [m if isinstance(m, tuple) else (None, m) for m in members]
    else:
        pairs = []
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
    names = _names(pairs)
    if len(set(names)) < len(names):
        raise ValueError(f"Names of members must differ, got {names}.")
    return _Ensemble(dict(zip(names, (m for _, m in pairs), strict=True)))


def _names(pairs) -> list[str]:
    """Return names; nameless members have their class's, with a number if it recurs."""
    kinds = [type(member).__name__ for name, member in pairs if name is None]
    seen: dict[str, int] = {}
    names = []
    for name, member in pairs:
        if name is None:
            name = type(member).__name__
            seen[name] = seen.get(name, 0) + 1
            if kinds.count(name) > 1:
                name = f"{name} {seen[name]}"
        names.append(str(name))
    return names


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
    if isinstance(ensemble, _NAMED):
        kept = [not isinstance(member, str) for _, member in ensemble.estimators]
        names = [
            n for (n, _), keep in zip(ensemble.estimators, kept, strict=True) if keep
        ]
        weights = getattr(ensemble, "weights", None)
        if weights is not None:
            weights = np.asarray(weights, dtype=float)[kept]
        if getattr(ensemble, "cv", None) == "prefit":
            classes = None
        members = dict(zip(names, ensemble.estimators_, strict=True))
        return _Ensemble(members, classes=classes, weights=weights)
    result = _Ensemble(
        {f"member {i}": m for i, m in enumerate(ensemble.estimators_, 1)},
        prepare=_as_array,
        classes=None if isinstance(ensemble, _BOOSTED) else classes,
    )
    if isinstance(ensemble, _BAGGING):
        result.columns = ensemble.estimators_features_
    elif isinstance(ensemble, _BOOSTED):
        result.weights = ensemble.estimator_weights_[: len(ensemble.estimators_)]
    return result


def _as_array(X):
    return check_array(
        X,
        accept_sparse=["csr", "csc"],
        dtype=None,
        ensure_all_finite=False,
        allow_nd=True,
    )
