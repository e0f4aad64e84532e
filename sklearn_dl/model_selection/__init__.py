"""Choice of regime and learning rate, and a log of experiments."""

from sklearn_dl.model_selection._compare import RegimeComparison, compare_regimes
from sklearn_dl.model_selection._experiments import Experiments, ExperimentsDisplay
from sklearn_dl.model_selection._grid import regime_grid
from sklearn_dl.model_selection._lr_find import LearningRateFinder, lr_find
from sklearn_dl.model_selection._regimes import Recommendation, recommend_regime

__all__ = [
    "Experiments",
    "ExperimentsDisplay",
    "LearningRateFinder",
    "Recommendation",
    "RegimeComparison",
    "compare_regimes",
    "lr_find",
    "recommend_regime",
    "regime_grid",
]
