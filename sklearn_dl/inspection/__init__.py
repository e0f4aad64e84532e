"""Where a model fails, what answers it, and what a network is made of."""

from sklearn_dl.inspection._augmentation_display import AugmentationDisplay
from sklearn_dl.inspection._confusion import MostConfusedDisplay, most_confused
from sklearn_dl.inspection._corruptions import corrupt_image, list_corruptions
from sklearn_dl.inspection._features_display import EmbeddingDisplay
from sklearn_dl.inspection._gallery import TopLossesDisplay
from sklearn_dl.inspection._history_display import TrainingHistoryDisplay
from sklearn_dl.inspection._losses import label_errors, top_losses
from sklearn_dl.inspection._page import ReportOptions, write_report
from sklearn_dl.inspection._report import RobustnessReport
from sklearn_dl.inspection._robustness import RobustnessOptions, robustness_report
from sklearn_dl.inspection._robustness_display import RobustnessDisplay
from sklearn_dl.inspection._saliency import saliency
from sklearn_dl.inspection._saliency_display import SaliencyDisplay
from sklearn_dl.inspection._slices import slice_scores
from sklearn_dl.inspection._statistics import image_statistics
from sklearn_dl.inspection._summary import ModelSummary, model_summary

__all__ = [
    "AugmentationDisplay",
    "EmbeddingDisplay",
    "ModelSummary",
    "MostConfusedDisplay",
    "ReportOptions",
    "RobustnessDisplay",
    "RobustnessOptions",
    "RobustnessReport",
    "SaliencyDisplay",
    "TopLossesDisplay",
    "TrainingHistoryDisplay",
    "corrupt_image",
    "image_statistics",
    "label_errors",
    "list_corruptions",
    "model_summary",
    "most_confused",
    "robustness_report",
    "saliency",
    "slice_scores",
    "top_losses",
    "write_report",
]
