"""Transfer regimes as one grid, for scikit-learn's searches."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sklearn import get_config
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.model_selection import ParameterSampler
from sklearn.pipeline import Pipeline
from sklearn.utils._param_validation import validate_params

from sklearn_dl.backbones import images_seen
from sklearn_dl.model_selection._regimes import (
    NETWORKS,
    earlier_layer,
    linear_model,
    network,
)

REGIMES = ("svm", "earlier", "head", "last", "all")
_COSTS = [0.2, 2.0, 20.0]
_RATES = [1e-3, 1e-2]


class RegimePipeline(Pipeline):
    """Pipeline of one step, ``"model"``, with the name of its regime as a parameter."""

    def __init__(
        self, steps, *, regime=None, transform_input=None, memory=None, verbose=False
    ):
        self.steps = steps
        self.regime = regime
        self.transform_input = transform_input
        self.memory = memory
        self.verbose = verbose

    def fit(self, X, y=None, **params):
        """Fit with weights for the last step, however deep, and count the images."""
        before = images_seen()
        if "sample_weight" in params and not get_config()["enable_metadata_routing"]:
            names, last = [], self
            while isinstance(last, Pipeline):
                name, last = last.steps[-1]
                names.append(name)
            params["__".join([*names, "sample_weight"])] = params.pop("sample_weight")
        try:
            super().fit(X, y, **params)
        except Exception as error:
            error.add_note(f"The regime was {self.regime!r}.")
            raise
        self.n_images_ = images_seen() - before
        return self


@validate_params({"estimator": NETWORKS}, prefer_skip_nested_validation=True)
def regime_grid(
    estimator, regimes=("svm", "head", "last", "all")
) -> tuple[RegimePipeline, list[dict[str, Any]]]:
    """Return a pipeline and a grid over transfer regimes, for one search.

    ``GridSearchCV(*regime_grid(estimator))`` searches all of them, and
    `RandomizedSearchCV` and `HalvingGridSearchCV` alike.

    =============  ==============================================  =====================
    regime         model                                           grid
    =============  ==============================================  =====================
    ``"svm"``      features, scaler, linear SVM; of a regressor    ``classifier__C``:
                   `RidgeCV`, which chooses its penalty itself     0.2, 2, 20
    ``"earlier"``  the same on features of an earlier layer        the same
    ``"head"``     a head trained on the frozen backbone           ``lr``: 1e-3, 1e-2
    ``"last"``     2 epochs of the head, then the last 2 stages    ``lr``: 1e-3, 1e-2
                   too; "standard" augmentation, rates falling by
                   a cosine
    ``"all"``      the same with the whole backbone                ``lr``: 1e-3, 1e-2
    =============  ==============================================  =====================

    Parameters
    ----------
    estimator : ImageClassifier or ImageRegressor
        What all models have in common: backbone, weights, `max_epochs`, cache, seed and
        whatever else the table does not set; its own `augment` goes before the table's.
    regimes : str, list of str or dict, default=("svm", "head", "last", "all")
        Names from the table. Or a dict whose keys are names of regimes; a value is

        - a name from the table;
        - a grid, a dict from parameters to lists of values (or, for randomized
          searches, distributions), in place of the table's for that name;
        - an estimator of your own;
        - a pair (name from the table or estimator, grid).

    Returns
    -------
    pipeline : Pipeline
        One step, ``"model"``, and one more parameter, ``regime``: its name.
    grid : list of dict
        For each regime ``"regime"``, ``"model"`` and the parameters of its grid, which
        begin with ``"model__"``.

    Raises
    ------
    ValueError
        If a regime isn't known, or a model has no parameter of a grid's name.
    TypeError
        If a regime is none of these, or the values of a parameter are no list.

    See Also
    --------
    compare_regimes : Run the grid, and make a leaderboard.
    recommend_regime : What to try first.

    Notes
    -----
    With ``random_state=None`` random weights differ at each fit, and share no features.

    Examples
    --------
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklearn_dl import ImageClassifier
    >>> from sklearn_dl.model_selection import regime_grid
    >>> pipeline, grid = regime_grid(
    ...     ImageClassifier("resnet18"), {"svm": "svm", "all": {"lr": [3e-3]}}
    ... )
    >>> grid[0]["regime"], grid[0]["model__classifier__C"]
    (['svm'], [0.2, 2.0, 20.0])
    >>> grid[1]["model"][0].trainable, grid[1]["model__lr"]
    ('all', [0.003])
    >>> search = GridSearchCV(pipeline, grid, cv=5)
    """
    candidates = []
    for name, model, grid in _named(regimes):
        if isinstance(model, str):
            model, of_table = _from_table(estimator, model)
            grid = of_table if grid is None else grid
        grid = grid or {}
        try:  # before anything is fitted
            (one,) = ParameterSampler(grid, 1, random_state=0)
            clone(model).set_params(**one)
        except (ValueError, TypeError) as error:
            error.add_note(f"It was in the grid of {name!r}.")
            raise
        inside = {f"model__{parameter}": values for parameter, values in grid.items()}
        candidates.append({"regime": [name], "model": [model], **inside})
    first = candidates[0]
    pipeline = RegimePipeline([("model", first["model"][0])], regime=first["regime"][0])
    return pipeline, candidates


def _named(regimes) -> Iterator[tuple[str, Any, Mapping[str, Any] | None]]:
    """Yield names, with a regime of the table or an estimator, and with a grid."""
    if isinstance(regimes, str):
        regimes = [regimes]
    if not isinstance(regimes, Iterable):
        raise TypeError(f"regimes must hold names, or be a dict; got {regimes!r}.")
    if not isinstance(regimes, Mapping):
        regimes = {name: name for name in regimes}
    if not regimes:
        raise ValueError(f"regimes is empty: choose from {list(REGIMES)}.")
    for name, regime in regimes.items():
        source, grid = (name, regime) if isinstance(regime, Mapping) else (regime, None)
        if isinstance(regime, tuple | list) and len(regime) == 2:
            source, grid = regime
        known = isinstance(source, str)
        if known and source not in REGIMES:
            raise ValueError(
                f"There is no regime {source!r}: choose from {list(REGIMES)}, or give "
                "a dict {name: estimator} for your own."
            )
        fits = hasattr(source, "fit") and not isinstance(source, type)
        a_grid = grid is None or isinstance(grid, Mapping)
        if not (isinstance(name, str) and (known or fits) and a_grid):
            raise TypeError(
                "regimes must hold names, or be a dict from names to estimators, grids "
                f"(dicts) or pairs (estimator, grid); got {name!r}: {regime!r}."
            )
        yield name, source, grid


def _from_table(estimator, regime: str) -> tuple[BaseEstimator, dict[str, Any]]:
    """Return the model and the grid of a regime of the table."""
    if regime in {"svm", "earlier"}:
        layer = earlier_layer(estimator) if regime == "earlier" else None
        grid = {"classifier__C": _COSTS} if is_classifier(estimator) else {}
        return linear_model(estimator, layer), grid
    settings: dict[str, Any] = {"trainable": "head", "warmup_epochs": 0}
    if regime != "head":
        settings = {"trainable": 2 if regime == "last" else "all"}
        settings |= {"warmup_epochs": min(2, estimator.max_epochs - 1)}
        settings |= {"augment": "standard", "schedule": "cosine"}
    return network(estimator, **settings), {"lr": _RATES}
