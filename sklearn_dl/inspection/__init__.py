"""Where a model fails, what answers it, and what a network is made of."""

from sklearn_dl.inspection._changes import change_image, list_changes
from sklearn_dl.inspection._confusion import most_confused
from sklearn_dl.inspection._losses import label_errors, top_losses
from sklearn_dl.inspection._report import RobustnessReport
from sklearn_dl.inspection._robustness import robustness_report
from sklearn_dl.inspection._slices import slice_scores
from sklearn_dl.inspection._statistics import image_statistics
from sklearn_dl.inspection._summary import ModelSummary, model_summary

__all__ = [
    "ModelSummary",
    "RobustnessReport",
    "change_image",
    "image_statistics",
    "label_errors",
    "list_changes",
    "model_summary",
    "most_confused",
    "robustness_report",
    "slice_scores",
    "top_losses",
]
