"""Which transfer regime to begin with: the course's decision table."""

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils._param_validation import Interval, StrOptions, validate_params
from torch import nn

from sklearn_dl._classifier import ImageClassifier
from sklearn_dl._features import ImageFeatureExtractor, make_feature_classifier
from sklearn_dl._regressor import ImageRegressor
from sklearn_dl._runtime import seeded
from sklearn_dl.backbones import load_backbone

SMALL = 2_000
LARGE = 10_000
VERY_LARGE = 100_000


@dataclass(frozen=True)
class Recommendation:
    """A regime to try.

    Attributes
    ----------
    name : str
        In a few words.
    estimator : estimator
        Not fitted.
    reason : str
        Why it fits the data.

    Examples
    --------
    >>> from sklearn_dl.model_selection import recommend_regime
    >>> recommend_regime(200, "similar")[0].name
    'features + linear SVM'
    """

    name: str
    estimator: BaseEstimator
    reason: str


@validate_params(
    {
        "n_samples": [Interval(Integral, 1, None, closed="left")],
        "similarity": [StrOptions({"similar", "different"})],
        "task": [StrOptions({"classification", "regression"})],
    },
    prefer_skip_nested_validation=False,
)
def recommend_regime(
    n_samples,
    similarity,
    *,
    task="classification",
    backbone="mobilenet_v2",
    weights="DEFAULT",
    preprocessing=None,
    image_size=None,
    image_shape=None,
    normalize="weights",
    batch_size=32,
    device="auto",
    precision="float32",
    cache="memory",
    random_state=None,
    verbose=0,
) -> list[Recommendation]:
    """Return the transfer regimes that suit the data, best first.

    Two questions decide: how many images there are, and how much they look like those
    the backbone was trained on (ImageNet: photographs of everyday things).

    ============  =============================  ====================================
    images        similar                        different
    ============  =============================  ====================================
    small         features + linear SVM; then    features of an earlier layer + SVM;
                  a trained head                 then the last stages, after a
                                                 warm-up, with strong augmentation
    large         warm-up, then everything at    warm-up, then everything at a higher
                  a small rate; or the last      rate; from 100,000 images also
                  stages                         training from random weights
    ============  =============================  ====================================

    Small is below 2,000 images in all, large from 10,000. Between them both rows hold:
    the regimes of the large row come first, then those of the small one.

    Parameters
    ----------
    n_samples : int
        Training images.
    similarity : {"similar", "different"}
        Of the images to those of the weights. Photographs of things, animals and
        scenes are similar; X-rays, microscopy, satellite images, drawings and
        handwriting are different.
    task : {"classification", "regression"}, default="classification"
        In a regression a ridge regression (`RidgeCV`) stands for the SVM: it takes
        several targets, in any unit.
    backbone, weights, preprocessing, image_size, image_shape, normalize, batch_size, \
            device, precision, cache, random_state, verbose
        As in `ImageClassifier`; passed on to every estimator, except that training
        from random weights has ``weights=None``.

    Returns
    -------
    list of Recommendation
        With ``name``, ``estimator`` (not fitted) and ``reason``.

    Raises
    ------
    ValueError
        If the first three are not valid, or the backbone's name doesn't exist; the
        others are checked in `fit`.

    Notes
    -----
    The limits are not sharp. Linear models on frozen features win where there are few
    images per class, and fine-tuning overtakes them as the images grow to a few
    thousand [2]_. Training from random weights caught up with fine-tuning from some
    ten thousand richly labelled images on, given several times the epochs, and never
    at a thousand [3]_; with one label per image we wait for ten times as many. Only a
    comparison on your own images decides: cross-validate the first two.

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
    >>> from sklearn_dl.model_selection import recommend_regime
    >>> for option in recommend_regime(500, "different", backbone="resnet18"):
    ...     print(option.name)
    features of an earlier layer + linear SVM
    last stages, after a warm-up
    >>> option.estimator.trainable
    2
    """
    passed_on = {
        "backbone": backbone,
        "weights": weights,
        "preprocessing": preprocessing,
        "image_size": image_size,
        "image_shape": image_shape,
        "normalize": normalize,
        "batch_size": batch_size,
        "device": device,
        "precision": precision,
        "cache": cache,
        "random_state": random_state,
        "verbose": verbose,
    }
    table = _Table(passed_on, task == "classification")
    different = similarity == "different"
    small = table.small_different if different else table.small_similar
    large = table.large_different if different else table.large_similar
    chosen = [] if n_samples < SMALL else large(n_samples >= VERY_LARGE)
    return chosen if n_samples >= LARGE else [*chosen, *small()]


class _Table:
    """The cells of the table, for one task and one backbone."""

    def __init__(self, passed_on: dict[str, Any], classification: bool):
        self.passed_on = passed_on
        self.linear = "linear SVM" if classification else "ridge regression"
        self.classification = classification

    def small_similar(self) -> list[Recommendation]:
        return [
            Recommendation(
                f"features + {self.linear}",
                self._features("pre_logits"),
                "Few images: training the backbone would overfit. They are like those "
                "of the weights, so its last features separate them; a linear model "
                "takes seconds.",
            ),
            Recommendation(
                "trained head",
                self._neural(trainable="head"),
                "The same features under a head trained by gradient descent: "
                "probabilities, any loss, dropout; the backbone stays as it is.",
            ),
        ]

    def small_different(self) -> list[Recommendation]:
        layer = _earlier_layer(
            self.passed_on["backbone"],
            self.passed_on["preprocessing"],
            self.passed_on["image_size"],
        )
        return [
            Recommendation(
                f"features of an earlier layer + {self.linear}",
                self._features(layer),
                "Few images, unlike those of the weights: the last layers know only "
                f"what the weights were trained for; {layer!r} is more general. "
                "Compare other layers in a grid over features__layer.",
            ),
            Recommendation(
                "last stages, after a warm-up",
                self._neural(
                    trainable=2, warmup_epochs=2, max_epochs=12, augment="strong"
                ),
                "The last stages are adapted to the new images, the general ones kept. "
                "The head is trained first, so that its first, random gradients don't "
                "harm them; strong augmentation stands for missing images. Leave its "
                "flip out where a mirror image means something else.",
            ),
        ]

    def large_similar(self, very: bool) -> list[Recommendation]:
        rest: dict[str, Any] = {
            "warmup_epochs": 1,
            "max_epochs": 10,
            "augment": "standard",
            "schedule": "cosine",
        }
        return [
            Recommendation(
                "warm-up, then everything",
                self._neural(trainable="all", **rest),
                "Enough images to train everything without overfitting; weights that "
                "are nearly right need small steps, so the backbone has a hundredth of "
                "the head's rate.",
            ),
            Recommendation(
                "warm-up, then the last stages",
                self._neural(trainable=2, **rest),
                "Cheaper: the first stages, edges and textures, serve as they are.",
            ),
        ]

    def large_different(self, very: bool) -> list[Recommendation]:
        everything = Recommendation(
            "warm-up, then everything at a higher rate",
            self._neural(
                trainable="all",
                warmup_epochs=1,
                max_epochs=15,
                augment="standard",
                lr=1e-2,
                backbone_lr=1e-3,
                schedule="cosine",
                optimizer__max_grad_norm=1.0,
            ),
            "Enough images to move the weights far from what they were trained for: "
            "the backbone has a tenth of the head's rate, with the gradient clipped. "
            "They are still a better start than random ones.",
        )
        scratch = Recommendation(
            "everything, from random weights",
            self._neural(
                weights=None,
                trainable="all",
                max_epochs=60,
                augment="standard",
                schedule="one_cycle",
                lr=5e-2,
                optimizer__max_grad_norm=1.0,
            ),
            "With so many images random weights can end as well as pretrained ones, "
            "after several times the epochs; nothing of the old task is left in them.",
        )
        return [everything, scratch] if very else [everything]

    def _features(self, layer: str) -> Pipeline:
        if self.classification:
            return make_feature_classifier(layer=layer, **self.passed_on)
        steps = [
            ("features", ImageFeatureExtractor(layer=layer, **self.passed_on)),
            ("scaler", StandardScaler()),
            ("regressor", RidgeCV(alphas=tuple(np.geomspace(1e0, 1e5, 6).tolist()))),
        ]
        return Pipeline(steps)

    def _neural(self, **parameters) -> BaseEstimator:
        cls = ImageClassifier if self.classification else ImageRegressor
        return cls(**self.passed_on).set_params(**parameters)


def _earlier_layer(
    backbone: str | Callable[[], nn.Module],
    preprocessing: Any,
    image_size: int | tuple[int, int] | None,
) -> str:
    """Return the layer at the end of the last stage but one that gives a map."""
    size: Any = tuple(image_size) if isinstance(image_size, list) else image_size
    options: dict[str, Any] = {"preprocessing": preprocessing, "image_size": size}
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
        if not name or nested or isinstance(part, nn.Linear):
            continue
        if inside and not inside & last:
            found.append(name)
    return found[-1] if found else "pre_logits"
