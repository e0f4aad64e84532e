"""The public names, room by room: the one table that the API reference is built from.

A test holds that each row equals the room's ``__all__``, and that no room is missing.
"""

ROOMS: dict[str, tuple[str, list[str]]] = {
    "sklearn_dl": (
        "Estimators, features and their cache.",
        [
            "ImageClassifier",
            "ImageRegressor",
            "ImageFeatureExtractor",
            "make_feature_classifier",
            "FeatureScaler",
            "FeatureSVC",
            "FeatureCache",
            "list_backbones",
        ],
    ),
    "sklearn_dl.datasets": (
        "Loaders of images, targets and features, and decoding.",
        [
            "load_image_folder",
            "load_image_frame",
            "load_image_csv",
            "load_torch_dataset",
            "load_features",
            "iter_features",
            "apply_corrections",
            "Channels",
            "verify_images",
            "decode_image",
            "ImageDecodeError",
        ],
    ),
    "sklearn_dl.backbones": (
        "Pretrained networks behind one contract.",
        [
            "list_backbones",
            "load_backbone",
            "find_layers",
            "Backbone",
            "Preprocessing",
            "CallablePreprocessing",
        ],
    ),
    "sklearn_dl.augmentation": (
        "Random changes of training images, mixtures of them, and views.",
        ["Augment", "AUGMENTATIONS", "PRESETS"],
    ),
    "sklearn_dl.training": (
        "Heads, losses, optimisers, schedules, stopping rules and callbacks.",
        [
            "Head",
            "Trainable",
            "LogLoss",
            "HingeLoss",
            "EpsilonInsensitiveLoss",
            "VirtualAdversarialLoss",
            "Optimizer",
            "SAM",
            "Schedule",
            "StoppingRules",
            "WeightAveraging",
            "Checkpoint",
            "GradientMonitor",
            "BatchLosses",
            "TensorBoard",
            "diagnose",
        ],
    ),
    "sklearn_dl.model_selection": (
        "Choice of regime and learning rate, and a log of experiments.",
        [
            "recommend_regime",
            "Recommendation",
            "regime_grid",
            "compare_regimes",
            "RegimeComparison",
            "lr_find",
            "LearningRateFinder",
            "Experiments",
            "ExperimentsDisplay",
        ],
    ),
    "sklearn_dl.ensemble": (
        "Gain of an ensemble, and the diversity of its members.",
        [
            "diversity",
            "Diversity",
            "DiversityDisplay",
            "majority_vote_error",
            "average_error",
        ],
    ),
    "sklearn_dl.inspection": (
        "Where a model fails, what answers it, and what a network is made of.",
        [
            "write_report",
            "ReportOptions",
            "top_losses",
            "label_errors",
            "most_confused",
            "slice_scores",
            "image_statistics",
            "robustness_report",
            "RobustnessReport",
            "RobustnessOptions",
            "list_corruptions",
            "corrupt_image",
            "saliency",
            "model_summary",
            "ModelSummary",
            "TrainingHistoryDisplay",
            "TopLossesDisplay",
            "MostConfusedDisplay",
            "RobustnessDisplay",
            "EmbeddingDisplay",
            "SaliencyDisplay",
            "AugmentationDisplay",
        ],
    ),
    "sklearn_dl.persistence": (
        "Saving, loading, and exporting fitted models.",
        [
            "save",
            "load",
            "export_onnx",
            "export_pt2",
            "export_state_dict",
            "load_exported",
            "ExportedClassifier",
            "ExportedRegressor",
            "ModelFileError",
        ],
    ),
}


def page_of(room: str, name: str) -> str:
    """Return the page of a name, relative to docs/, without its suffix.

    Two names that differ in case alone, such as `Diversity` and `diversity`, would be
    one file on some systems: the function gets another name.
    """
    twins = sum(other.lower() == name.lower() for other in ROOMS[room][1])
    suffix = "-function" if twins > 1 and name.islower() else ""
    return f"reference/{room}.{name}{suffix}"
