"""Training: heads, losses, optimisers, schedules, stopping rules and callbacks."""

from typing import TYPE_CHECKING

from sklearn_dl._lazy import lazy
from sklearn_dl.training._averaging import WeightAveraging
from sklearn_dl.training._build import (
    build_callbacks,
    build_net,
    check_net_params,
    continue_training,
)
from sklearn_dl.training._callbacks import (
    EarlyStopping,
    EpochProgress,
    TaskContexts,
    TrainingAccuracy,
    ValidationScore,
    check_callbacks,
    warn_of_divergence,
)
from sklearn_dl.training._checkpoint import Checkpoint
from sklearn_dl.training._data import (
    AugmentedView,
    Rows,
    TrainingRows,
    hold_back,
    noted,
)
from sklearn_dl.training._head import FeatureNorm, Head
from sklearn_dl.training._inputs import Inputs
from sklearn_dl.training._losses import (
    CLASSIFIER_LOSSES,
    REGRESSOR_LOSSES,
    EpsilonInsensitiveLoss,
    HingeLoss,
    LogLoss,
    chance_loss,
    gives_margins,
    resolve_loss,
)
from sklearn_dl.training._module import BackboneWithHead
from sklearn_dl.training._net import EstimatorNet, history_frame
from sklearn_dl.training._optimizers import OPTIMIZERS, Optimizer
from sklearn_dl.training._regime import Regime
from sklearn_dl.training._schedule import (
    SCHEDULES,
    LearningRates,
    Schedule,
    resolve_schedule,
)

if TYPE_CHECKING:
    from sklearn_dl.training._adversarial import VirtualAdversarialLoss
    from sklearn_dl.training._diagnose import diagnose
    from sklearn_dl.training._digest import digest_of_run
    from sklearn_dl.training._gradients import GradientMonitor
    from sklearn_dl.training._recording import BatchLosses
    from sklearn_dl.training._sam import SAM
    from sklearn_dl.training._stopping import StoppingRules
    from sklearn_dl.training._tensorboard import TensorBoard

__all__ = [
    "CLASSIFIER_LOSSES",
    "OPTIMIZERS",
    "REGRESSOR_LOSSES",
    "SAM",
    "SCHEDULES",
    "AugmentedView",
    "BackboneWithHead",
    "BatchLosses",
    "Checkpoint",
    "EarlyStopping",
    "EpochProgress",
    "EpsilonInsensitiveLoss",
    "EstimatorNet",
    "FeatureNorm",
    "GradientMonitor",
    "Head",
    "HingeLoss",
    "Inputs",
    "LearningRates",
    "LogLoss",
    "Optimizer",
    "Regime",
    "Rows",
    "Schedule",
    "StoppingRules",
    "TaskContexts",
    "TensorBoard",
    "TrainingAccuracy",
    "TrainingRows",
    "ValidationScore",
    "VirtualAdversarialLoss",
    "WeightAveraging",
    "build_callbacks",
    "build_net",
    "chance_loss",
    "check_callbacks",
    "check_net_params",
    "continue_training",
    "diagnose",
    "digest_of_run",
    "gives_margins",
    "history_frame",
    "hold_back",
    "noted",
    "resolve_loss",
    "resolve_schedule",
    "warn_of_divergence",
]

# What few fits need.
__getattr__, __dir__ = lazy(
    __name__,
    {
        "BatchLosses": "sklearn_dl.training._recording",
        "GradientMonitor": "sklearn_dl.training._gradients",
        "SAM": "sklearn_dl.training._sam",
        "StoppingRules": "sklearn_dl.training._stopping",
        "TensorBoard": "sklearn_dl.training._tensorboard",
        "VirtualAdversarialLoss": "sklearn_dl.training._adversarial",
        "diagnose": "sklearn_dl.training._diagnose",
        "digest_of_run": "sklearn_dl.training._digest",
    },
)
