"""Models of the transfer regimes, built from the parameters of one estimator."""

import numpy as np
import torch
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sklearn_dl._classifier import ImageClassifier
from sklearn_dl._features import ImageFeatureExtractor, make_feature_classifier
from sklearn_dl._regressor import ImageRegressor
from sklearn_dl._runtime import seeded
from sklearn_dl.backbones import load_backbone

# What `validate_params` lets through as the estimator that regimes are built from.
NETWORKS = [ImageClassifier, ImageRegressor]


def linear_model(estimator, layer: str | None = None) -> Pipeline:
    """Return a linear model on features of the estimator's frozen backbone."""
    extractor = ImageFeatureExtractor()
    given = clone(estimator).get_params(deep=False)
    shared = extractor.get_params(deep=False).keys() & given.keys()
    extractor.set_params(**{name: given[name] for name in shared})
    if layer is not None:
        extractor.set_params(layer=layer)
    if is_classifier(estimator):
        model = make_feature_classifier(random_state=estimator.random_state)
        return model.set_params(features=extractor)
    ridge = RidgeCV(alphas=tuple(np.geomspace(1e0, 1e5, 6).tolist()))
    scaler = ("scaler", StandardScaler())
    return Pipeline([("features", extractor), scaler, ("regressor", ridge)])


def network(
    estimator, *, trainable, augment: str | None = None, **parameters
) -> BaseEstimator:
    """Return a copy with other parameters; its own augmentation goes before others."""
    if estimator.augment is None:
        parameters["augment"] = augment
    settings = hasattr(estimator.trainable, "get_params")  # more than the stages
    parameters["trainable__stages" if settings else "trainable"] = trainable
    return clone(estimator).set_params(**parameters)


def earlier_layer(estimator) -> str:
    """Return the layer at the end of the last stage but one."""
    backbone, given = estimator.backbone, estimator.preprocessing
    of_data = isinstance(given, tuple | list) or given == "data"
    options = {"layer": estimator.layer, "preprocessing": None if of_data else given}
    size = estimator.image_size
    options["image_size"] = tuple(size) if isinstance(size, list) else size
    try:
        # Only names are wanted: where it can be, no weights are drawn.
        with torch.device("meta" if isinstance(backbone, str) else "cpu"), seeded(0):
            loaded = load_backbone(backbone, None, **options)
    except NotImplementedError:  # RegNet's constructor computes its widths
        with seeded(0):
            loaded = load_backbone(backbone, None, **options)
    last = set(list(loaded.stages.values())[-1])
    found: list[str] = []
    for name, part in loaded.module.named_modules():
        inside = {f"{name}.{p}" for p, _ in part.named_parameters()}
        nested = any(name.startswith(f"{outer}.") for outer in found)
        free = name and not nested and not isinstance(part, nn.Linear)
        if free and inside and not inside & last:
            found.append(name)
    return found[-1] if found else "pre_logits"
