"""Comparison of transfer regimes in one search, with a leaderboard."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
from sklearn import config_context
from sklearn.base import clone, is_classifier
from sklearn.exceptions import FitFailedWarning
from sklearn.metrics import check_scoring, get_scorer_names
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    ParameterGrid,
    StratifiedKFold,
)
from sklearn.utils._param_validation import StrOptions, validate_params
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import _num_samples

from sklearn_dl._extraction import maps_first
from sklearn_dl.backbones import images_seen
from sklearn_dl.model_selection._grid import regime_grid
from sklearn_dl.model_selection._regimes import NETWORKS


@dataclass(eq=False, repr=False)
class RegimeComparison:
    """Result of `compare_regimes`, best candidate first; prints as a table.

    Attributes
    ----------
    leaderboard_ : pandas.DataFrame
        One row for each candidate, best first; the index is its place in
        ``search_.cv_results_``.

        - ``regime``: its name;
        - ``parameters``: dict of what the grid sets;
        - ``mean_score``, ``std_score``: over the folds; NaN if one of them failed;
        - ``rank``: 1 is best; equals share the smaller;
        - ``mean_seconds``, ``total_seconds``: of fitting and scoring, per fold and
          over all folds;
        - ``passes``: images taken through backbones in fitting and scoring over all
          folds, divided by the number of rows of X; NaN if a fold failed.
    best_estimator_ : estimator
        The best candidate, fitted on all of X.
    passes_ : float
        Passes of all candidates and of the last fit, without failed folds.
    search_ : GridSearchCV
        With every fold's score in ``cv_results_``; its ``best_estimator_`` is a
        pipeline around the one here.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn_dl.model_selection import RegimeComparison
    >>> columns = ["regime", "parameters", "mean_score", "std_score", "rank"]
    >>> board = pd.DataFrame([["svm", {"C": 0.01}, 0.95, 0.01, 1]], columns=columns)
    >>> print(RegimeComparison(board, best_estimator_=None, passes_=1.0, search_=None))
    regime parameters  mean_score  std_score  rank
       svm     C=0.01        0.95       0.01     1
    """

    leaderboard_: pd.DataFrame
    best_estimator_: Any
    passes_: float
    search_: Any

    @property
    def best_regime_(self) -> str:
        """Name of the best candidate's regime."""
        return self.leaderboard_["regime"].iloc[0]

    @property
    def best_score_(self) -> float:
        """Mean score of the best candidate."""
        return float(self.leaderboard_["mean_score"].iloc[0])

    def __str__(self) -> str:
        """Return the leaderboard as text."""
        words = self.leaderboard_["parameters"].map(_in_words)
        board = self.leaderboard_.assign(parameters=words)
        return board.to_string(index=False, float_format="{:.4g}".format)

    __repr__ = __str__


@validate_params(
    {
        "estimator": NETWORKS,
        "scoring": [StrOptions(set(get_scorer_names())), callable, None],
        "cv": ["cv_object"],
        "n_jobs": [Integral, None],
    },
    prefer_skip_nested_validation=False,
)
def compare_regimes(
    estimator,
    X,
    y,
    *,
    regimes=("svm", "head", "last", "all"),
    cv=5,
    scoring=None,
    sample_weight=None,
    n_jobs=None,
) -> RegimeComparison:
    """Cross-validate transfer regimes on the same folds, and rank them.

    The grid of `regime_grid` runs in scikit-learn's `GridSearchCV`, and the best
    candidate is fitted on all of X. One that fails in a fold gets no score.

    Parameters
    ----------
    estimator : ImageClassifier or ImageRegressor
        What all regimes have in common, as in `regime_grid`.
    X : images, in any form that `fit` takes
    y : array-like of shape (n,) or (n, n_outputs)
    regimes : str, list of str or dict, default=("svm", "head", "last", "all")
        As in `regime_grid`; lists of values only.
    cv : int, splitter, iterable of (train, test) or None, default=5
        An int is a number of folds (None: 5), shuffled by the estimator's
        `random_state` (folders come class by class) and stratified where each image
        has one class. For groups that stay whole give the splits, such as
        ``GroupKFold(5).split(X, y, groups)``.
    scoring : str, callable or None, default=None
        One metric; None takes accuracy, or R2 in a regression.
    sample_weight : array-like of shape (n,), default=None
        Weights of the rows in fitting; and in scoring where `GridSearchCV` weights
        scores (scikit-learn 1.9) and the metric takes them.
    n_jobs : int or None, default=None
        Folds and candidates fitted at a time. Processes share features where the
        estimator's `cache` is a directory.

    Returns
    -------
    RegimeComparison

    Raises
    ------
    ValueError
        If a parameter is not valid, y is continuous for a classifier, or every fit
        failed.
    TypeError
        If a regime is none of those that `regime_grid` takes.

    Warns
    -----
    FitFailedWarning
        If candidates failed: it names them.

    See Also
    --------
    regime_grid : The same candidates for another search.

    Notes
    -----
    Candidates share the cache, so that the first pays in seconds and passes for the
    features of all. Last stages that train without augmentation share their frozen
    prefix with these, whatever the order (with `n_jobs`, where they come first).
    Images are counted in the thread of each fit: an estimator of your own that fits
    its parts in other processes hides them.

    The best of many candidates scores a little too well: score ``best_estimator_`` on
    images that took no part, or cross-validate a search of `regime_grid`.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_dl import ImageClassifier
    >>> from sklearn_dl.model_selection import compare_regimes
    >>> rng = np.random.default_rng(0)
    >>> images = rng.integers(0, 128, (8, 32, 32, 3), "uint8")
    >>> images[4:] += 100
    >>> model = ImageClassifier(
    ...     "mobilenet_v3_small", weights="builtin", image_size=32, max_epochs=2,
    ...     cache=None, random_state=0,
    ... )
    >>> result = compare_regimes(
    ...     model,
    ...     images,
    ...     ["dark"] * 4 + ["light"] * 4,
    ...     regimes={"svm": {"classifier__C": [0.2, 2.0]}, "head": {"lr": [1e-2]}},
    ...     cv=2,
    ... )
    >>> result.leaderboard_.sort_index()[["regime", "parameters", "passes"]]
      regime              parameters  passes
    0    svm  {'classifier__C': 0.2}     2.0
    1    svm  {'classifier__C': 2.0}     2.0
    2   head            {'lr': 0.01}     2.0
    >>> result.best_estimator_.predict(images[[0, 7]])
    array(['dark', 'light'], dtype='<U5')
    """
    classification = is_classifier(estimator)
    if classification and "continuous" in type_of_target(y):
        raise ValueError("y is continuous: for a regression give an ImageRegressor.")
    pipeline, grid = regime_grid(estimator, regimes)
    scorer = _CountingScorer(check_scoring(pipeline, scoring))
    folds = shuffled_folds(cv, y, classification, estimator.random_state)
    search = GridSearchCV(
        pipeline, grid, scoring=scorer, refit="score", cv=folds, n_jobs=n_jobs
    )
    weighted = {} if sample_weight is None else {"sample_weight": sample_weight}
    # `RegimePipeline` brings the weights to where each regime takes them.
    with warnings.catch_warnings(), config_context(enable_metadata_routing=False):
        # The warning below names the candidates.
        warnings.filterwarnings("ignore", "One or more of the test scores", UserWarning)
        with maps_first(_trained_on_maps(pipeline, grid)):
            search.fit(X, y, **weighted)
    board, best = _leaderboard(search, _num_samples(X)), search.best_estimator_
    failed = board[board["mean_score"].isna()]
    if len(failed):
        pairs = zip(failed.regime, failed.parameters, strict=True)
        names = "; ".join(f"{r} ({_in_words(p)})" if p else r for r, p in pairs)
        count = f"{len(failed)} of {len(board)} candidates"
        message = f"{count} failed in a fold and have no score: {names}."
        warnings.warn(message, FitFailedWarning, stacklevel=3)
    passes = float(board["passes"].sum() + best.n_images_ / _num_samples(X))
    return RegimeComparison(board, best["model"], passes, search)


def _trained_on_maps(pipeline, grid) -> list[tuple[Any, Any]]:
    """Return layer and trained stages of the candidates whose images stay the same."""
    found = []
    for parameters in ParameterGrid(grid):
        model = clone(pipeline).set_params(**parameters)["model"]
        is_network = isinstance(model, tuple(NETWORKS))
        if is_network and model.augment is None:
            layer = tuple(model.layer) if isinstance(model.layer, list) else model.layer
            stages = getattr(model.trainable, "stages", model.trainable)
            found.append((layer, stages))
    return found


class _CountingScorer:
    """Scorer that also counts the images of the fit and of the scoring."""

    def __init__(self, scorer):
        self.scorer = scorer

    def __repr__(self) -> str:
        return repr(self.scorer)

    def _accept_sample_weight(self) -> bool:
        """Answer scikit-learn 1.9, which passes weights to scorers that take them."""
        if hasattr(self.scorer, "_accept_sample_weight"):
            return self.scorer._accept_sample_weight()
        return "sample_weight" in signature(self.scorer).parameters

    def __call__(self, estimator, X, y, **weighted) -> dict[str, float]:
        before = images_seen()
        try:
            score = float(self.scorer(estimator, X, y, **weighted))
        except Exception as error:
            # scikit-learn would lose the other candidates: it expects a dict.
            what = f"Scoring the regime {estimator.regime!r} failed"
            message = f"{what}: {type(error).__name__}: {error}"
            warnings.warn(message, FitFailedWarning, stacklevel=2)
            return {"score": np.nan, "images": np.nan}
        return {"score": score, "images": estimator.n_images_ + images_seen() - before}


def shuffled_folds(cv, y, classification: bool, random_state):
    """Return a splitter; a number of folds becomes one that shuffles."""
    cv = 5 if cv is None else cv
    if not isinstance(cv, Integral):
        return cv
    stratified = classification and type_of_target(y) in {"binary", "multiclass"}
    kind: Any = StratifiedKFold if stratified else KFold
    return kind(cv, shuffle=True, random_state=random_state)


def _leaderboard(search: GridSearchCV, n_rows: int) -> pd.DataFrame:
    """Return the candidates of a search, best first."""
    results = search.cv_results_
    seconds = results["mean_fit_time"] + results["mean_score_time"]
    images = sum(results[f"split{i}_test_images"] for i in range(search.n_splits_))
    board = pd.DataFrame(
        {
            "regime": [params["regime"] for params in results["params"]],
            "parameters": [
                {k.removeprefix("model__"): v for k, v in params.items() if "__" in k}
                for params in results["params"]
            ],
            "mean_score": results["mean_test_score"],
            "std_score": results["std_test_score"],
            "rank": results["rank_test_score"],
            "mean_seconds": seconds,
            "total_seconds": seconds * search.n_splits_,
            "passes": images / n_rows,
        }
    )
    return board.sort_values("rank", kind="stable")


def _in_words(parameters: Mapping[str, Any]) -> str:
    words = []
    for name, value in parameters.items():
        text = f"{value:.4g}" if isinstance(value, float) else value
        words.append(f"{name.rpartition('__')[2]}={text}")
    return ", ".join(words)
