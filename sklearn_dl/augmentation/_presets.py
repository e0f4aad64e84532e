"""Augmentations by name, and the augmenter and the mixing that they stand for."""

import difflib
import numbers
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from sklearn.base import BaseEstimator

from sklearn_dl._plain import PlainParameters
from sklearn_dl.augmentation._augmenter import NAMES, Augmenter, Named
from sklearn_dl.augmentation._foreign import Foreign
from sklearn_dl.augmentation._mix import MIXES, Mixing

#: Names of the transforms, in the order in which neighbours in a list act.
AUGMENTATIONS: tuple[str, ...] = NAMES

_PLACE = ("crop", "flip", "rotation", "shear", "perspective")
_LOOK = ("color", "channel_shift", "grayscale", "blur", "erase")

#: What the presets contain; each is the same as its names in a list.
PRESETS: dict[str, tuple[str, ...]] = {
    "light": ("scale", "rotation", "translation"),
    "standard": ("crop", "flip", "color"),
    "strong": (*_PLACE, *_LOOK),
}

# torchvision's own recipes, by two spellings each.
_RECIPES = {name: name for name in ("trivial", "rand")}
_RECIPES |= {f"{name}augment": name for name in _RECIPES}


@dataclass(repr=False, eq=False)
class Augment(PlainParameters, BaseEstimator):
    """Random changes and mixtures of training images, with their strength.

    A value of the estimators' `augment` that a grid reaches into, as in
    ``augment__strength``. A plain value stands for its `transforms`.

    Parameters
    ----------
    transforms : str, callable, sequence of them or None, default="standard"
        A preset, ``"trivial"`` (TrivialAugment [4]_), ``"rand"`` (RandAugment [5]_),
        names out of `AUGMENTATIONS`, ``"mixup"``, ``"cutmix"``, or transforms of other
        libraries; see Notes.
    strength : float or dict of str to float, default=1.0
        Factor of how far the named transforms go, and of the magnitude of RandAugment
        (9 at 1), from 0 to 10. At 0 images stay as in prediction. A dict has it by
        name; names that it leaves out have 1. TrivialAugment, the transforms of other
        libraries and mixing keep their own strength.
    mix : {"mixup", "cutmix", "both"} or None, default=None
        How images are mixed, where `transforms` don't name it.
    mix_alpha : float or None, default=None
        Both parameters of the beta distribution that the two weights of a mixture
        are drawn from, above 0: 1 is uniform; below, most mixtures are nearly one
        image. None takes 0.2 for mixup and 1 for CutMix. No effect without mixing.
    views : int or None, default=None
        How many random views there are of each image, 1 or more: epoch e has view e
        mod `views` of each. A frozen backbone then sees each image `views` times at
        most, not once per epoch; see Notes. None draws anew in each epoch.

    Notes
    -----
    Presets:

    - ``"light"``: scale, rotation, translation; for digits, letters and signs.
    - ``"standard"``: crop, flip, color; for photographs.
    - ``"strong"``: these, rotation, shear, perspective, channel_shift, grayscale, blur,
      erase; for long training on photographs.

    Names, at strength 1, each drawn anew for each image:

    ================  ==============================================================
    crop              of the original, 35-100 % of the area and 3/4 to 4/3 of the ratio
                      of the sides [1]_. An image of at most 64 x 64 pixels is resized,
                      padded by an eighth and cropped instead, as CIFAR's are.
    flip              mirrors left and right, half of the time
    vertical_flip     mirrors top and bottom, half of the time
    scale             makes things up to 1.25 times smaller or larger
    rotation          up to 15 degrees
    shear             up to 10 degrees, each way
    perspective       corners moved inwards by up to an eighth of the side
    translation       up to a tenth of the side
    elastic           smooth displacements, 3 % of the side in the mean [2]_
    brightness        times 0.6 to 1.4
    contrast          times 0.6 to 1.4
    color             brightness and contrast times 0.8 to 1.2, saturation times 0.7
                      to 1.3, hue 7 degrees
    channel_shift     a colour cast: up to 0.1 of the scale, each channel its own
    grayscale         no colour, a fifth of the time
    blur              by a Gaussian of up to 0.6 pixels and 0.75 % of the side, half of
                      the time
    noise             Gaussian, of a deviation up to 0.06 of the scale
    jpeg              written with a quality of 30 to 95, log-uniform, and read again
    erase             noise in a rectangle of 2-33 % of the area, half of the time [3]_
    ================  ==============================================================

    Neighbouring names act in this order, whatever their order in the list: all changes
    of place but ``crop`` in one interpolation, then all changes of colour in one
    matrix. What a change of place brings in from outside is more of the ground where
    most of the border has one colour, else the image's reflection. Where a mirror image
    means something else, leave ``flip`` out.

    Mixing: ``"mixup"`` [6]_ adds each image of a batch to another one of it, and
    ``"cutmix"`` [7]_ pastes a rectangle of the other into it; the loss has the targets
    of both, weighted as the images are. It acts last, wherever the names stand in the
    list. With both names a coin is tossed for each batch.

    Images of other numbers of channels (`sklearn_dl.datasets.Channels`): changes of
    place, light and damage act on all channels; saturation, hue and ``grayscale`` on
    the first three where these are red, green and blue, else on none, which a warning
    says.

    Other libraries: any callable from image to image. Transforms of
    ``torchvision.transforms.v2`` get an ``Image`` tensor, Albumentations an array, any
    other callable a PIL image (a tensor where X holds floats, or other numbers of
    channels than 1 and 3). They act in their place
    in the list, at the network's size; a first one that crops or resizes by itself
    gets the original. They must return floats in [0, 1] or uint8: normalisation is the
    network's. ``["crop", "flip", "trivial"]`` is torchvision's own recipe for training.

    Views that come back: while the backbone is frozen (``trainable="head"``, and a
    warm-up), its features of a view are computed when an epoch first asks for it, and
    kept for the fit: `views` arrays of (n_rows, n_features), float32. With an int as
    `random_state` they also go into the `cache` of the estimator, by image, row, seed,
    transforms and view, so that candidates of a search share those of a fold; but not
    those of other libraries' transforms, ``"trivial"`` or ``"rand"``. A trained
    backbone sees pixels in each epoch, and `views` only limits the draws. Mixtures are
    new in each epoch: with a frozen backbone they and `views` exclude each other.

    References
    ----------
    .. [1] Szegedy et al., "Going deeper with convolutions", CVPR 2015.
    .. [2] Simard, Steinkraus and Platt, "Best practices for convolutional neural
       networks applied to visual document analysis", ICDAR 2003.
    .. [3] Zhong et al., "Random erasing data augmentation", AAAI 2020.
    .. [4] Müller and Hutter, "TrivialAugment", ICCV 2021.
    .. [5] Cubuk et al., "RandAugment", NeurIPS 2020.
    .. [6] Zhang et al., "mixup: Beyond empirical risk minimization", ICLR 2018.
    .. [7] Yun et al., "CutMix: Regularization strategy to train strong classifiers
       with localizable features", ICCV 2019.

    Examples
    --------
    >>> from sklearn_dl.augmentation import Augment
    >>> Augment(["rotation", "noise"]).set_params(strength=0.5)
    Augment(strength=0.5, transforms=['rotation', 'noise'])
    >>> Augment(["standard", "mixup"], strength={"color": 2.0}, mix_alpha=0.4)
    Augment(mix_alpha=0.4, strength={'color': 2.0}, transforms=['standard', 'mixup'])

    In 20 epochs a frozen backbone sees each of 8 images four times:

    >>> import numpy as np
    >>> from sklearn_dl import FeatureCache, ImageClassifier
    >>> X = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), "uint8")
    >>> cache = FeatureCache("memory", name="views")
    >>> model = ImageClassifier(
    ...     "mobilenet_v3_small", weights="builtin", image_size=32, max_epochs=20,
    ...     augment=Augment("light", views=4), random_state=0, cache=cache,
    ... ).fit(X, [0, 1] * 4)
    >>> cache.statistics()
    CacheStatistics(hits=0, misses=32, entries=32, bytes=131072)
    """

    transforms: str | Callable | Sequence[str | Callable] | None = "standard"
    _: KW_ONLY
    strength: float | Mapping[str, float] = 1.0
    mix: str | None = None
    mix_alpha: float | None = None
    views: int | None = None

    @classmethod
    def of(cls, augment: Any) -> "Augment":
        """Return any value of the estimators' `augment` as one of these."""
        return augment if isinstance(augment, cls) else cls(augment)


def resolve_augment(
    augment: Any, preprocessing
) -> tuple[Augmenter | None, Mixing | None]:
    """Return the augmenter and the mixing that `augment` stands for; None for none."""
    chosen = Augment.of(augment)
    transforms, views = chosen.transforms, chosen.views
    whole = isinstance(views, numbers.Integral) and not isinstance(views, bool)
    if views is not None and not (whole and views >= 1):
        raise ValueError(
            f"views must be an int, 1 or more, or None for new draws in each epoch; "
            f"got {views!r}."
        )
    items = [] if transforms is None else [transforms]
    if isinstance(transforms, list | tuple):
        items = list(transforms)
    mixes = {item for item in items if isinstance(item, str) and item in MIXES}
    if mixes and chosen.mix is not None:
        raise ValueError(
            f"mix={chosen.mix!r} says again what transforms={transforms!r} say: name "
            "the mixing in one of them."
        )
    kind = chosen.mix
    if mixes:
        kind = "both" if len(mixes) == 2 else mixes.pop()
    mixing = None
    if kind is not None or chosen.mix_alpha is not None:  # which is checked, too
        mixing = Mixing("both" if kind is None else kind, chosen.mix_alpha)

    parts = [part for item in items for part in _parts(item)]
    _check_colours(parts, preprocessing)
    strength = _strength(chosen.strength, parts, transforms)
    if "crop" in parts:  # it needs the original
        parts = ["crop", *(part for part in parts if part != "crop")]
    steps: list[Named | Foreign] = []
    for part in parts:
        if part not in NAMES:
            steps.append(_foreign(part, strength))
        elif steps and isinstance(steps[-1], Named):  # neighbouring names are one step
            known = {**steps[-1].strengths, part: strength[part]}
            steps[-1] = Named(known, preprocessing.rgb)
        else:
            steps.append(Named({part: strength[part]}, preprocessing.rgb))
    augmenter = Augmenter(steps, preprocessing) if steps else None
    return augmenter, None if kind is None else mixing


def _check_colours(parts: list, preprocessing) -> None:
    """Say what becomes of changes of colour where images aren't RGB."""
    n = preprocessing.n_channels
    if n == 1 or (n == 3 and preprocessing.rgb):
        return
    for part in parts:
        if isinstance(part, str) and part in _RECIPES:
            raise ValueError(
                f"augment={part!r} changes the colours of RGB images, and these have "
                f"{n} channels: name transforms, such as ['flip', 'rotation']."
            )
    coloured = [part for part in ("color", "grayscale") if part in parts]
    if coloured:
        acts = "change saturation and hue of the first three channels alone"
        if not preprocessing.rgb:
            acts = (
                "leave saturation and hue alone, for the first three channels aren't "
                "known to be red, green and blue (Channels(..., rgb=True) says so)"
            )
        warnings.warn(
            f"Images have {n} channels: {' and '.join(coloured)} {acts}; brightness "
            "and contrast are those of all channels.",
            UserWarning,
            stacklevel=2,
        )


def _parts(item: Any) -> Sequence[Any]:
    """Return the names, of transforms and recipes, or the callable of one item."""
    if isinstance(item, str):
        if item in MIXES:
            return ()
        if item in PRESETS:
            return PRESETS[item]
        if item not in NAMES and item not in _RECIPES:
            raise ValueError(_unknown(item))
        return (_RECIPES.get(item, item),)
    if isinstance(item, type) or not callable(item):
        hint = f"; write {item.__name__}(...)" if isinstance(item, type) else ""
        raise TypeError(
            "augment must be None, a name, a callable, a list of names and callables, "
            f"or an Augment; got {item!r}{hint}."
        )
    return (item,)


def _strength(given: Any, parts: list, transforms: Any) -> dict[str, float]:
    """Return how far each named part goes; refuse a strength that changes nothing."""
    by_name = isinstance(given, Mapping)
    for name, value in given.items() if by_name else [(None, given)]:
        real = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if not (real and 0 <= value <= 10):
            what = f"strength[{name!r}]" if by_name else "strength"
            raise ValueError(f"{what} must be a number from 0 to 10, got {value!r}.")
    names = {part for part in parts if isinstance(part, str)} - {"trivial"}
    if by_name and (idle := [name for name in given if name not in names]):
        raise ValueError(
            f"strength has {', '.join(map(repr, idle))}, which transforms="
            f"{transforms!r} don't contain; they contain "
            f"{', '.join(sorted(names)) or 'no name'}."
        )
    if not by_name and given != 1 and not names and transforms is not None:
        raise ValueError(
            f"strength={given!r} has no effect on {transforms!r}: it is for "
            "named transforms and 'rand'."
        )
    return {name: float(given.get(name, 1.0) if by_name else given) for name in names}


def _foreign(part: Any, strength: Mapping[str, float]) -> Foreign:
    if not isinstance(part, str):
        return Foreign(part)
    from torchvision.transforms import v2

    if part == "trivial":
        return Foreign(v2.TrivialAugmentWide(), part)
    # 31 bins: torchvision's default is the tenth.
    magnitude = min(round(9 * strength[part]), 30)
    return Foreign(v2.RandAugment(magnitude=magnitude), part)


def _unknown(name: str) -> str:
    known = [*PRESETS, "trivial", "rand", *NAMES, *MIXES]
    near = difflib.get_close_matches(name.lower(), [*known, *_RECIPES], 1)
    guess = f" Did you mean {near[0]!r}?" if near else ""
    return f"Unknown augment {name!r}.{guess} The names are {', '.join(known)}."
