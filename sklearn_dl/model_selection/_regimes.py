"""Transfer regimes: which to try, and their models, built from one estimator."""

from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import Pipeline
from sklearn.utils._param_validation import Interval, StrOptions, validate_params
from torch import nn

from sklearn_dl._classifier import ImageClassifier
from sklearn_dl._features import ImageFeatureExtractor, make_feature_classifier
from sklearn_dl._linear import FeatureScaler
from sklearn_dl._regressor import ImageRegressor
from sklearn_dl._runtime import seeded
from sklearn_dl.backbones import load_backbone, resolve_backbone
from sklearn_dl.training import Optimizer

# What `validate_params` lets through as the estimator that regimes are built from.
NETWORKS = [ImageClassifier, ImageRegressor]
SMALL = 2_000
LARGE = 10_000
VERY_LARGE = 100_000
VERY_SMALL = 200


@dataclass(frozen=True)
class Recommendation:
    """Transfer regime to try.

    Attributes
    ----------
    name : str
        A few words that say what it is.
    estimator : estimator
        Unfitted model.
    reason : str
        Why it fits the data.

    Examples
    --------
    >>> from sklearn_dl import ImageClassifier
    >>> from sklearn_dl.model_selection import recommend_regime
    >>> recommend_regime(ImageClassifier(), 200, "similar")[0].name
    'features + linear SVM'
    """

    name: str
    estimator: BaseEstimator
    reason: str


@validate_params(
    {
        "estimator": NETWORKS,
        "n_samples": [Interval(Integral, 1, None, closed="left")],
        "similarity": [StrOptions({"similar", "different"})],
    },
    prefer_skip_nested_validation=True,
)
def recommend_regime(estimator, n_samples, similarity) -> list[Recommendation]:
    """Return the transfer regimes that suit the data, best first.

    Two questions decide: how many images there are, and how much they look like those
    of the weights. Layers of a network go from general to specific, so that the more
    the images differ, the earlier the layers that still serve them [1]_.

    ============  =============================  ====================================
    images        similar                        different
    ============  =============================  ====================================
    small         features + linear SVM; then    features of an earlier layer + SVM;
                  a trained head                 then the last stages, after a
                                                 warm-up, with strong augmentation;
                                                 below 200 images a trained head
    large         warm-up, then everything at    warm-up, then everything at a higher
                  a small rate; or the last      rate; from 100,000 images also
                  stages                         training from random weights
    ============  =============================  ====================================

    Small is below 2,000 images in all, large from 10,000. Between them both rows hold:
    the regimes of the large row come first, then those of the small one.

    Parameters
    ----------
    estimator : ImageClassifier or ImageRegressor
        What all regimes have in common: backbone, weights, device, cache and whatever
        a regime does not set. Its own `augment` goes before that of the table; rates
        that a regime sets follow its `optimizer`. For an ImageRegressor a ridge
        regression (`RidgeCV`) stands for the SVM.
    n_samples : int
        Number of training images.
    similarity : {"similar", "different"}
        How the images compare to those of the weights. Photographs of things, animals
        and scenes are similar; X-rays, microscopy, satellite images, drawings and
        handwriting are different.

    Returns
    -------
    list of Recommendation

    Raises
    ------
    ValueError
        If an argument is not valid, or the backbone is unknown whose earlier layer a
        regime takes.

    See Also
    --------
    compare_regimes : Cross-validate regimes on your own images.

    Notes
    -----
    The limits are not sharp: cross-validate the first two on your own images. Linear
    models on frozen features win where there are few images per class, and fine-tuning
    overtakes them at a few thousand [2]_. Training from random weights caught up from
    some ten thousand richly labelled images on, given several times the epochs, and
    never at a thousand [3]_; with one label per image we wait for ten times as many.
    With 10 and 40 X-rays the last stages were 6 points behind a trained head, with 240
    at one with it; the SVM on an earlier layer led on digits, and was as good on
    X-rays (``examples/benchmarks/heads.py --regimes``).

    References
    ----------
    .. [1] J. Yosinski, J. Clune, Y. Bengio and H. Lipson, "How transferable are
       features in deep neural networks?", NIPS, 2014.
    .. [2] S. Kornblith, J. Shlens and Q. V. Le, "Do better ImageNet models transfer
       better?", CVPR, 2019.
    .. [3] K. He, R. Girshick and P. Dollár, "Rethinking ImageNet pre-training", ICCV,
       2019.

    Examples
    --------
    >>> from sklearn_dl import ImageClassifier
    >>> from sklearn_dl.model_selection import recommend_regime
    >>> for option in recommend_regime(ImageClassifier("resnet18"), 500, "different"):
    ...     print(option.name)
    features of an earlier layer + linear SVM
    last stages, after a warm-up
    >>> option.estimator.trainable
    2
    """
    choices = _choices(estimator, n_samples, similarity == "different")
    return [Recommendation(*choice) for choice in choices]


def _choices(
    estimator, n_samples: int, different: bool
) -> Iterator[tuple[str, BaseEstimator, str]]:
    """Yield name, model and reason of each regime."""
    linear = "linear SVM" if is_classifier(estimator) else "ridge regression"
    rest: dict[str, Any] = {"augment": "standard", "warmup_epochs": 1}
    if n_samples >= SMALL and different:
        lr = Optimizer.of(estimator.optimizer).default_lr
        rest |= {"trainable": "all", "optimizer__max_grad_norm": 1.0}
        rates: Any = {"lr": lr, "backbone_lr": lr / 10, "schedule": "cosine"}
        yield (
            "warm-up, then everything at a higher rate",
            network(estimator, max_epochs=15, **rest, **rates),
            "Enough images to move the weights far from what they were trained for: "
            "the backbone has a tenth of the head's rate, with the gradient clipped. "
            "They are still a better start than random ones.",
        )
        if n_samples >= VERY_LARGE:
            rest |= {"weights": None, "warmup_epochs": 0, "schedule": "one_cycle"}
            rest |= {"lr": 5 * lr, "backbone_lr": None}  # the head's
            yield (
                "everything, from random weights",
                network(estimator, max_epochs=60, **rest),
                "With so many images random weights can end as well as pretrained "
                "ones, after several times the epochs; nothing of the old task is left "
                "in them.",
            )
    elif n_samples >= SMALL:
        rest |= {"max_epochs": 10, "schedule": "cosine"}
        yield (
            "warm-up, then everything",
            network(estimator, trainable="all", backbone_lr=None, **rest),
            "Enough images to train everything without overfitting; weights that are "
            "nearly right need small steps, so the backbone has a hundredth of the "
            "head's rate.",
        )
        yield (
            "warm-up, then the last stages",
            network(estimator, trainable=2, **rest),
            "Cheaper: the first stages, edges and textures, serve as they are.",
        )
    if n_samples < LARGE and different:
        layer = earlier_layer(estimator)
        rest = {"warmup_epochs": 2, "max_epochs": 12, "augment": "strong"}
        yield (
            f"features of an earlier layer + {linear}",
            linear_model(estimator, layer),
            "Few images, unlike those of the weights: the last layers know only what "
            f"the weights were trained for; {layer!r} is more general. Compare other "
            "layers in a grid over features__layer.",
        )
        if n_samples < VERY_SMALL:
            yield _head(estimator)
            return
        yield (
            "last stages, after a warm-up",
            network(estimator, trainable=2, **rest),
            "The last stages are adapted to the new images, the general ones kept. The "
            "head is trained first, so that its first, random gradients don't harm "
            "them; strong augmentation stands for missing images. Leave its flip out "
            "where a mirror image means something else.",
        )
    elif n_samples < LARGE:
        yield (
            f"features + {linear}",
            linear_model(estimator),
            "Few images: training the backbone would overfit. They are like those of "
            "the weights, so its last features separate them; a linear model takes "
            "seconds.",
        )
        yield _head(estimator)


def _head(estimator) -> tuple[str, BaseEstimator, str]:
    return (
        "trained head",
        network(estimator, trainable="head", warmup_epochs=0),
        "The last features under a head trained by gradient descent: probabilities, "
        "any loss, dropout; the backbone stays as it is.",
    )


def linear_model(estimator, layer: str | tuple[str, str] | None = None) -> Pipeline:
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
    scaler = ("scaler", FeatureScaler())
    return Pipeline([("features", extractor), scaler, ("regressor", ridge)])


def network(
    estimator, *, trainable, augment: str | None = None, **parameters
) -> BaseEstimator:
    """Return a copy with other parameters; its own augmentation goes before others."""
    if estimator.augment is None:
        parameters["augment"] = augment
    parameters["backbone"] = resolve_backbone(estimator.backbone, estimator.weights)
    settings = hasattr(estimator.trainable, "get_params")  # more than the stages
    parameters["trainable__stages" if settings else "trainable"] = trainable
    return clone(estimator).set_params(**parameters)


def earlier_layer(estimator) -> str | tuple[str, str]:
    """Return the layer at the end of the last stage but one, pooled as theirs is."""
    backbone = resolve_backbone(estimator.backbone, estimator.weights)
    given = estimator.preprocessing
    of_data = isinstance(given, tuple | list) or given == "data"
    options = {"layer": estimator.layer, "preprocessing": None if of_data else given}
    size = estimator.image_size
    options["image_size"] = tuple(size) if isinstance(size, list) else size
    with seeded(0):
        try:  # only names are wanted: where it can be, no weights are drawn
            with torch.device("meta" if isinstance(backbone, str) else "cpu"):
                loaded = load_backbone(backbone, None, **options)
        except NotImplementedError:  # RegNet's constructor computes its widths
            loaded = load_backbone(backbone, None, **options)
    last = set(list(loaded.stages.values())[-1])
    found: list[str] = []
    for name, part in loaded.module.named_modules():
        inside = {f"{name}.{p}" for p, _ in part.named_parameters()}
        nested = any(name.startswith(f"{outer}.") for outer in found)
        free = name and not nested and not isinstance(part, nn.Linear)
        if free and inside and not inside & last:
            found.append(name)
    if not found:
        return "pre_logits"
    given = estimator.layer  # a pair says how a map becomes a row
    return found[-1] if isinstance(given, str) else (found[-1], given[1])
