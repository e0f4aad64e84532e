"""Several transfer regimes as one grid, for scikit-learn's searches."""

from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import Any

import numpy as np
from sklearn import get_config
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import Pipeline
from sklearn.utils._param_validation import Interval, StrOptions, validate_params

from sklearn_dl.backbones import images_seen
from sklearn_dl.model_selection._regimes import _earlier_layer, _Table

REGIMES = ("svm", "earlier", "head", "last", "all")
_COSTS = [1e-4, 1e-3, 1e-2]
_RATES = [1e-3, 1e-2]


class RegimePipeline(Pipeline):
    """A pipeline of one step, ``"model"``, which knows what its regime is called.

    A `sample_weight` given to `fit` reaches the estimator, however deep it is.

    Parameters
    ----------
    steps : list of tuple
        ``[("model", estimator)]``.
    regime : str or None, default=None
        Name of the regime, for ``cv_results_``.
    transform_input, memory, verbose
        As in scikit-learn's ``Pipeline``.

    Attributes
    ----------
    n_images_ : int
        Images that went through backbones in `fit`, in its thread.
    """

    def __init__(
        self, steps, *, regime=None, transform_input=None, memory=None, verbose=False
    ):
        self.steps = steps
        self.regime = regime
        self.transform_input = transform_input
        self.memory = memory
        self.verbose = verbose

    def fit(self, X, y=None, **params):
        """Fit the estimator, and count the images.

        Parameters
        ----------
        X : images
            Any form that the estimator takes.
        y : array-like of shape (n,) or (n, n_outputs), default=None
            Targets.
        **params : dict
            ``sample_weight``, or what ``Pipeline`` takes.

        Returns
        -------
        self : object
            Fitted pipeline.
        """
        before = images_seen()
        if "sample_weight" in params and not get_config()["enable_metadata_routing"]:
            params[self._weight_name()] = params.pop("sample_weight")
        try:
            super().fit(X, y, **params)
        except Exception as error:
            error.add_note(f"The regime was {self.regime!r}.")
            raise
        self.n_images_ = images_seen() - before
        return self

    def _weight_name(self) -> str:
        """Return the name under which the innermost last step takes the weights."""
        names, last = [], self
        while isinstance(last, Pipeline):
            name, last = last.steps[-1]
            names.append(name)
        return "__".join([*names, "sample_weight"])


@validate_params(
    {
        "grids": [Mapping, None],
        "task": [StrOptions({"classification", "regression"})],
        "max_epochs": [Interval(Integral, 1, None, closed="left"), None],
    },
    prefer_skip_nested_validation=False,
)
def regime_grid(
    regimes=("svm", "head", "last", "all"),
    *,
    grids=None,
    task="classification",
    max_epochs=None,
    backbone="mobilenet_v2",
    weights="DEFAULT",
    preprocessing=None,
    image_size=None,
    image_shape=None,
    normalize="weights",
    batch_size=32,
    device="auto",
    precision="float32",
    cache="memory",
    random_state=None,
    verbose=0,
) -> tuple[RegimePipeline, list[dict[str, Any]]]:
    """Return an estimator and a grid over transfer regimes, for one search.

    ``GridSearchCV(*regime_grid(), cv=5)`` searches all of them, and
    `RandomizedSearchCV` and `HalvingGridSearchCV` alike; `compare_regimes` does it and
    makes a leaderboard.

    =============  =============================================  ======================
    regime         estimator                                      grid
    =============  =============================================  ======================
    ``"svm"``      features, scaler, linear SVM; in a regression  ``classifier__C``:
                   `RidgeCV`, which chooses its penalty itself    1e-4, 1e-3, 1e-2
    ``"earlier"``  the same on features of an earlier layer       the same
    ``"head"``     a head trained on the frozen backbone          ``lr``: 1e-3, 1e-2
    ``"last"``     2 epochs of the head, then the last 2 stages   ``lr``: 1e-3, 1e-2
                   too; 10 epochs in all, "standard"
                   augmentation, rates falling by a cosine
    ``"all"``      the same with the whole backbone               ``lr``: 1e-3, 1e-2
    =============  =============================================  ======================

    Parameters
    ----------
    regimes : str, list of str or dict, default=("svm", "head", "last", "all")
        Names from the table. Or a dict from names of your own to a name from the table,
        an estimator, or a pair (estimator, grid).
    grids : dict or None, default=None
        Of a regime's name, a dict from its estimator's parameters to their values (or,
        for randomized searches, their distributions), in place of the table's.
    task : {"classification", "regression"}, default="classification"
        Of the estimators in the table.
    max_epochs : int or None, default=None
        Of all networks in the table; None takes 20 for ``"head"``, 10 for others.
    backbone : str, callable or list of them, default="mobilenet_v2"
        With a list, each regime of the table comes once for each backbone.
    weights, preprocessing, image_size, image_shape, normalize, batch_size, device, \
            precision, cache, random_state, verbose
        As in `ImageClassifier`; passed on to every estimator of the table.

    Returns
    -------
    estimator : Pipeline
        Of one step, ``"model"``, with one more parameter, ``regime``: its name.
    grid : list of dict
        For each regime (and backbone) ``"regime"``, ``"model"`` and the parameters of
        the grid, which begin with ``"model__"``.

    Raises
    ------
    ValueError
        If a regime isn't known, or an estimator has no parameter of that name.
    TypeError
        If a regime is no estimator, or the values of a parameter are no list.

    See Also
    --------
    compare_regimes : Run the grid.
    recommend_regime : What to try first.

    Notes
    -----
    Random weights with ``random_state=None`` differ at each fit, so that candidates
    can't share features.

    Examples
    --------
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklearn_dl.model_selection import regime_grid
    >>> estimator, grid = regime_grid(
    ...     ("svm", "all"), backbone="resnet18", grids={"all": {"lr": [3e-3]}}
    ... )
    >>> grid[0]["regime"], grid[0]["model__classifier__C"]
    (['svm'], [0.0001, 0.001, 0.01])
    >>> grid[1]["model"][0].trainable, grid[1]["model__lr"]
    ('all', [0.003])
    >>> search = GridSearchCV(estimator, grid, cv=5)
    """
    options = {
        "weights": weights,
        "preprocessing": preprocessing,
        "image_size": image_size,
        "image_shape": image_shape,
        "normalize": normalize,
        "batch_size": batch_size,
        "device": device,
        "precision": precision,
        "cache": cache,
        "random_state": random_state,
        "verbose": verbose,
    }
    named = _named(regimes)
    grids = {} if grids is None else dict(grids)
    if strangers := [name for name in grids if name not in named]:
        raise ValueError(
            f"grids has {strangers[0]!r}, which is none of the regimes {list(named)}."
        )
    several = isinstance(backbone, (list, tuple))
    backbones = list(backbone) if several else [backbone]
    if not backbones:
        raise ValueError("backbone is an empty list: give at least one name.")
    candidates: list[dict[str, Any]] = []
    for name, regime in named.items():
        if not isinstance(regime, str):
            candidates.append(_candidates(name, *_given(name, regime), grids))
            continue
        for one in backbones:
            table = _Table({"backbone": one, **options}, task == "classification")
            estimator, grid = _built(regime, table, max_epochs)
            # So that results tell the backbones apart.
            inside = "features__" if isinstance(estimator, Pipeline) else ""
            varied = {f"{inside}backbone": [one]} if several else {}
            candidates.append(_candidates(name, estimator, grid, grids, varied))
    first = candidates[0]
    pipeline = RegimePipeline([("model", first["model"][0])], regime=first["regime"][0])
    return pipeline, candidates


def _named(regimes) -> dict[str, Any]:
    """Return what each name stands for: a regime of the table, or one's own."""
    if isinstance(regimes, str):
        regimes = (regimes,)
    if not isinstance(regimes, Mapping):
        regimes = list(regimes) if isinstance(regimes, Iterable) else [regimes]
        if not all(isinstance(name, str) for name in regimes):
            raise TypeError(
                f"regimes={regimes!r} must hold names; for estimators of your own give "
                "a dict {name: estimator} or {name: (estimator, grid)}."
            )
        regimes = {name: name for name in regimes}
    if not regimes:
        raise ValueError(f"regimes is empty: choose from {list(REGIMES)}.")
    for regime in regimes.values():
        if isinstance(regime, str) and regime not in REGIMES:
            raise ValueError(
                f"There is no regime {regime!r}: choose from {list(REGIMES)}, or give "
                "a dict {name: estimator} for your own."
            )
    return dict(regimes)


def _given(name: str, regime) -> tuple[Any, Mapping[str, Any]]:
    """Return the estimator and the grid of a regime of the user's own."""
    pair = isinstance(regime, (tuple, list)) and len(regime) == 2
    estimator, grid = regime if pair else (regime, {})
    is_estimator = hasattr(estimator, "fit") and hasattr(estimator, "get_params")
    if isinstance(estimator, type) or not is_estimator or not isinstance(grid, Mapping):
        raise TypeError(
            f"The regime {name!r} must be an estimator or a pair (estimator, grid), "
            f"where the grid is a dict, got {regime!r}."
        )
    return estimator, grid


def _built(
    name: str, table: _Table, max_epochs: int | None
) -> tuple[BaseEstimator, dict[str, Any]]:
    """Return the estimator and the grid of a regime of the table."""
    if name in {"svm", "earlier"}:
        layer = "pre_logits"
        if name == "earlier":
            options = table.passed_on
            layer = _earlier_layer(
                *(options[key] for key in ("backbone", "preprocessing", "image_size"))
            )
        grid = {"classifier__C": _COSTS} if table.classification else {}
        return table._features(layer), grid
    if name == "head":
        return table._neural(trainable="head", max_epochs=max_epochs or 20), {
            "lr": _RATES
        }
    epochs = max_epochs or 10
    estimator = table._neural(
        trainable=2 if name == "last" else "all",
        max_epochs=epochs,
        warmup_epochs=min(2, epochs - 1),
        augment="standard",
        schedule="cosine",
    )
    return estimator, {"lr": _RATES}


def _candidates(
    name: str,
    estimator,
    grid: Mapping[str, Any],
    grids: Mapping[str, Any],
    varied: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the part of the grid that one regime is, with its names checked."""
    grid = grids.get(name, grid)
    if not isinstance(grid, Mapping):
        raise TypeError(f"The grid of {name!r} must be a dict, got {grid!r}.")
    grid = {**(varied or {}), **grid}
    firsts = {}
    for parameter, values in grid.items():
        listed = isinstance(values, (list, tuple, np.ndarray)) and len(values)
        if not listed and not hasattr(values, "rvs"):
            raise TypeError(
                f"The grid of {name!r} has {parameter}={values!r}: give a list of "
                "values, or a distribution for a randomized search."
            )
        firsts[parameter] = values[0] if listed else values
    try:
        clone(estimator).set_params(**firsts)
    except ValueError as error:
        raise ValueError(f"The grid of {name!r}: {error}") from error
    found = {f"model__{parameter}": values for parameter, values in grid.items()}
    return {"regime": [name], "model": [estimator], **found}
