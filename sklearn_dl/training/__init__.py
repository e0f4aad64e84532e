"""Training: heads, losses, optimisers, schedules, stopping rules and callbacks."""

from typing import TYPE_CHECKING

from sklearn_dl._lazy import lazy
from sklearn_dl.training._averaging import WeightAveraging
from sklearn_dl.training._callbacks import EarlyStopping as EarlyStopping
from sklearn_dl.training._callbacks import EpochProgress as EpochProgress
from sklearn_dl.training._callbacks import TaskContexts as TaskContexts
from sklearn_dl.training._callbacks import TrainingAccuracy as TrainingAccuracy
from sklearn_dl.training._callbacks import ValidationScore as ValidationScore
from sklearn_dl.training._callbacks import fitted_attributes as fitted_attributes
from sklearn_dl.training._callbacks import warn_of_divergence as warn_of_divergence
from sklearn_dl.training._checkpoint import Checkpoint
from sklearn_dl.training._checkpoint import run_fingerprint as run_fingerprint
from sklearn_dl.training._dataset import AugmentedView as AugmentedView
from sklearn_dl.training._dataset import Rows as Rows
from sklearn_dl.training._dataset import TrainingRows as TrainingRows
from sklearn_dl.training._dataset import noted as noted
from sklearn_dl.training._group import joined_group as joined_group
from sklearn_dl.training._group import plain_parameters as plain_parameters
from sklearn_dl.training._group import rows_digests as rows_digests
from sklearn_dl.training._head import Head
from sklearn_dl.training._head import as_linear as as_linear
from sklearn_dl.training._head import start_head as start_head
from sklearn_dl.training._losses import EpsilonInsensitiveLoss, HingeLoss, LogLoss
from sklearn_dl.training._losses import chance_loss as chance_loss
from sklearn_dl.training._losses import gives_margins as gives_margins
from sklearn_dl.training._losses import resolve_loss as resolve_loss
from sklearn_dl.training._net import EstimatorNet as EstimatorNet
from sklearn_dl.training._net import Recipe as Recipe
from sklearn_dl.training._net import build_net as build_net
from sklearn_dl.training._net import check_net_params as check_net_params
from sklearn_dl.training._net import is_checkpoint as is_checkpoint
from sklearn_dl.training._net import is_ours as is_ours
from sklearn_dl.training._net import leaves_alone as leaves_alone
from sklearn_dl.training._net import ordered_callbacks as ordered_callbacks
from sklearn_dl.training._net import takes_maps as takes_maps
from sklearn_dl.training._optimizers import OPTIMIZERS as OPTIMIZERS
from sklearn_dl.training._optimizers import Optimizer
from sklearn_dl.training._regime import BackboneWithHead as BackboneWithHead
from sklearn_dl.training._regime import Regime as Regime
from sklearn_dl.training._regime import Trainable
from sklearn_dl.training._schedule import SCHEDULES as SCHEDULES
from sklearn_dl.training._schedule import LearningRates as LearningRates
from sklearn_dl.training._schedule import Schedule
from sklearn_dl.training._schedule import resolve_schedule as resolve_schedule

if TYPE_CHECKING:
    from sklearn_dl.training._adversarial import VirtualAdversarialLoss
    from sklearn_dl.training._diagnose import diagnose
    from sklearn_dl.training._gradients import GradientMonitor
    from sklearn_dl.training._recording import BatchLosses
    from sklearn_dl.training._sam import SAM
    from sklearn_dl.training._stopping import StoppingRules
    from sklearn_dl.training._tensorboard import TensorBoard

# For users; the other names are for other rooms.
__all__ = [
    "SAM",
    "BatchLosses",
    "Checkpoint",
    "EpsilonInsensitiveLoss",
    "GradientMonitor",
    "Head",
    "HingeLoss",
    "LogLoss",
    "Optimizer",
    "Schedule",
    "StoppingRules",
    "TensorBoard",
    "Trainable",
    "VirtualAdversarialLoss",
    "WeightAveraging",
    "diagnose",
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
    },
)
