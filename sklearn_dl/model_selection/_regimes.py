"""Recommendation of transfer regimes, by a decision table."""

from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from sklearn.base import BaseEstimator, is_classifier
from sklearn.utils._param_validation import Interval, StrOptions, validate_params

from sklearn_dl.model_selection._models import (
    NETWORKS,
    earlier_layer,
    linear_model,
    network,
)

SMALL = 2_000
LARGE = 10_000
VERY_LARGE = 100_000


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
                                                 warm-up, with strong augmentation
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
        a regime does not set. Its own `augment` goes before that of the table. For an
        ImageRegressor a ridge regression (`RidgeCV`) stands for the SVM.
    n_samples : int
        Number of training images.
    similarity : {"similar", "different"}
        How the images compare to those of the weights. Photographs of things, animals
        and scenes are similar; X-rays, microscopy, satellite images, drawings and
        handwriting are different.

    Returns
    -------
    list of Recommendation
        With ``name``, ``estimator`` (not fitted) and ``reason``.

    Raises
    ------
    ValueError
        If an argument is not valid, or there is no backbone of that name.

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
        rest |= {"trainable": "all", "optimizer__max_grad_norm": 1.0}
        rates = {"lr": 1e-2, "backbone_lr": 1e-3, "schedule": "cosine"}
        yield (
            "warm-up, then everything at a higher rate",
            network(estimator, max_epochs=15, **rest, **rates),
            "Enough images to move the weights far from what they were trained for: "
            "the backbone has a tenth of the head's rate, with the gradient clipped. "
            "They are still a better start than random ones.",
        )
        if n_samples >= VERY_LARGE:
            rest |= {"weights": None, "warmup_epochs": 0, "schedule": "one_cycle"}
            yield (
                "everything, from random weights",
                network(estimator, max_epochs=60, lr=5e-2, **rest),
                "With so many images random weights can end as well as pretrained "
                "ones, after several times the epochs; nothing of the old task is left "
                "in them.",
            )
    elif n_samples >= SMALL:
        rest |= {"max_epochs": 10, "schedule": "cosine"}
        yield (
            "warm-up, then everything",
            network(estimator, trainable="all", **rest),
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
        yield (
            "trained head",
            network(estimator, trainable="head", warmup_epochs=0),
            "The same features under a head trained by gradient descent: "
            "probabilities, any loss, dropout; the backbone stays as it is.",
        )
