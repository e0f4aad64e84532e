"""The skorch net: its module, data, losses, optimisers and callbacks."""

from sklearn_dl.training._callbacks import (
    EarlyStopping,
    EpochProgress,
    TaskContexts,
    ValidationScore,
)
from sklearn_dl.training._data import TrainingRows
from sklearn_dl.training._module import BackboneWithHead, check_batch_norm
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
    "TaskContexts",
    "TrainingRows",
    "ValidationScore",
    "build_net",
    "check_batch_norm",
    "continue_training",
    "default_lr",
    "history_frame",
]
