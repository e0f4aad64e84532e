"""The skorch net: its module, data, losses, optimisers and callbacks."""

from sklearn_dl.training._callbacks import (
    EarlyStopping,
    EpochProgress,
    TaskContexts,
    ValidationScore,
    check_callbacks,
)
from sklearn_dl.training._data import Rows, TrainingRows, hold_back, noted
from sklearn_dl.training._module import BackboneWithHead
from sklearn_dl.training._net import (
    EstimatorNet,
    build_net,
    continue_training,
    history_frame,
)
from sklearn_dl.training._optimizers import OPTIMIZERS, default_lr

__all__ = [
    "OPTIMIZERS",
    "BackboneWithHead",
    "EarlyStopping",
    "EpochProgress",
    "EstimatorNet",
    "Rows",
    "TaskContexts",
    "TrainingRows",
    "ValidationScore",
    "build_net",
    "check_callbacks",
    "continue_training",
    "default_lr",
    "history_frame",
    "hold_back",
    "noted",
]
