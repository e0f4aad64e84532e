"""Fall of a score on corrupted images."""

import warnings
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from sklearn.utils._param_validation import Interval, validate_parameter_constraints
from sklearn.utils.validation import check_is_fitted

from sklearn_dl._extraction import progress
from sklearn_dl._images import as_source
from sklearn_dl._runtime import draw_seed
from sklearn_dl.inspection._corruptions import CORRUPTIONS, check_corruption
from sklearn_dl.inspection._report import RobustnessReport
from sklearn_dl.inspection._scores import (
    Scoring,
    bootstrap,
    check_targets,
    interval,
    recalls_of_rows,
    task_of,
)
from sklearn_dl.inspection._statistics import (
    compare_statistics,
    reference_statistics,
    statistics_of,
)
from sklearn_dl.inspection._stream import (
    Job,
    corrupted_batches,
    image_shape_of,
    quiet_copy,
)

# Where a mirror image upside down is another thing more often than not.
_NOT_ASKED = {"vertical_flip"}
_DROPS = ["score", "drop", "low", "high"]


@dataclass(frozen=True)
class RobustnessOptions:
    """How `robustness_report` measures.

    Parameters
    ----------
    per_class : bool, default=False
        Whether to add the drops of each class's recall; classifiers of one label.
    margin : float, default=0.03
        Drops whose interval lies above it are severe; in units of the score.
    n_resamples : int, default=1000
        Bootstrap samples. Accuracy, R^2, absolute and squared errors take no time; any
        other score is computed for each sample of each corruption.
    confidence_level : float, default=0.95
        Probability that an interval covers the drop.
    image_shape : tuple of int, default=None
        (height, width[, channels]) of rows of pixels. None takes the estimator's, else
        infers square ones.
    batch_size : int, default=32
        Images in memory at a time; fewer where they are large.
    random_state : int, RandomState instance or None, default=0
        Draws signs, places and noise of the corruptions, and the bootstrap.
    verbose : int, default=0
        1 shows a progress bar.

    Raises
    ------
    ValueError
        If a value isn't possible.

    Examples
    --------
    >>> from sklearn_dl.inspection import RobustnessOptions
    >>> RobustnessOptions(per_class=True).margin
    0.03
    """

    per_class: bool = False
    margin: float = 0.03
    n_resamples: int = 1000
    confidence_level: float = 0.95
    image_shape: tuple[int, ...] | None = None
    batch_size: int = 32
    random_state: Any = 0
    verbose: int = 0

    _constraints: ClassVar[dict] = {
        "per_class": ["boolean"],
        "margin": [Interval(Real, 0, None, closed="left")],
        "n_resamples": [Interval(Integral, 1, None, closed="left")],
        "confidence_level": [Interval(Real, 0, 1, closed="neither")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __post_init__(self):
        validate_parameter_constraints(
            self._constraints, vars(self), caller_name=type(self).__name__
        )


def robustness_report(
    estimator,
    X,
    y,
    reference=None,
    *,
    corruptions=None,
    severities=(0.5, 1.0, 2.0),
    scoring=None,
    options=None,
) -> RobustnessReport:
    """Return how far a score falls under each corruption of the images.

    Images are corrupted as they were decoded, at their own size, before anything that
    the estimator does to them. Take images that it was not fitted on.

    Parameters
    ----------
    estimator : classifier or regressor
        Fitted; `ImageClassifier`, `ImageRegressor`, a pipeline, an ensemble, or any
        other that takes images in the form of X.
    X : images
        Any form that the estimators take. What the estimator is given has the same
        form: rows of pixels stay rows of pixels; paths and encoded bytes become PIL
        images, in a list, a column or a data frame as they came.
    y : array-like of shape (n,) or (n, n_outputs)
        The truth.
    reference : images, default=None
        Training images, to name what X differs in: brightness, contrast, sharpness and
        colour. At most 2,000 of them, drawn at random, are looked at.
    corruptions : str or list of str, default=None
        Names out of `list_corruptions`. None takes all but ``"vertical_flip"``, and on
        grey arrays but those of colour. Leave ``"flip"`` out where a mirror image means
        something else, as for digits.
    severities : sequence of float, default=(0.5, 1.0, 2.0)
        How far each corruption goes: at 1 as far as the augmentation that answers it
        goes with ``strength=1`` (see `list_corruptions`). Severities at which a
        corruption is the same count once.
    scoring : str or callable, default=None
        A score that needs no more than `predict`: a name of scikit-learn's, or a
        callable ``scoring(estimator, X, y)``, of which higher is better. None is
        accuracy for classifiers and R^2 for regressors.
    options : RobustnessOptions, default=None
        Recalls of classes, margin, intervals, seed and progress bar.

    Returns
    -------
    RobustnessReport
        With ``table``, ``clean_score``, ``weaknesses``, ``augment`` and ``shifts``;
        prints as text.

    Raises
    ------
    TypeError
        If the estimator is neither a classifier nor a regressor.
    ValueError
        If y doesn't belong to X, a corruption or a score isn't known, or the score
        needs probabilities.
    ImageDecodeError
        Naming the images that can't be decoded.
    NotFittedError
        If the estimator isn't fitted.

    See Also
    --------
    corrupt_image : One image with one corruption.
    list_corruptions : The corruptions, with the augmentations that answer them.

    Notes
    -----
    The kinds follow Hendrycks and Dietterich [1]_; each is the most that one of our
    augmentations does, so that its name answers the corruption. What a row meets
    depends on the seed, the kind, the severity and the row alone, and its signs and
    places are the same at all severities.

    Intervals are percentiles of the bootstrap [2]_ over images. Each sample scores
    clean and corrupted images together, so that the interval is of the paired
    difference. It holds for one corruption: among 40 that do nothing to the score, one
    would lie above zero by chance.

    Shifts are tested with Mann and Whitney's test; Holm's correction [3]_ keeps the
    probability of any false name at 5 %. So that large sets don't name what is
    negligible, the effect (Cliff's delta [4]_: how much more often an image of X has
    the higher value than the lower one) must be 0.2 at least.

    The estimator's own cache of features is neither used nor filled.

    References
    ----------
    .. [1] D. Hendrycks and T. Dietterich, "Benchmarking neural network robustness to
       common corruptions and perturbations", ICLR, 2019.
    .. [2] B. Efron, "Bootstrap methods: another look at the jackknife", The Annals of
       Statistics 7 (1979), 1-26.
    .. [3] S. Holm, "A simple sequentially rejective multiple test procedure",
       Scandinavian Journal of Statistics 6 (1979), 65-70.
    .. [4] N. Cliff, "Dominance statistics: ordinal analyses to answer ordinal
       questions", Psychological Bulletin 114 (1993), 494-509.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> from sklearn_dl.inspection import robustness_report
    >>> rng = np.random.default_rng(0)
    >>> X = rng.integers(0, 100, (40, 64), "uint8")  # rows of 8 x 8 pixels
    >>> X[20:] += 100
    >>> y = np.repeat(["dark", "light"], 20)
    >>> model = KNeighborsClassifier().fit(X, y)
    >>> report = robustness_report(
    ...     model, X, y, corruptions=["darker", "flip"], severities=[2]
    ... )
    >>> report
    accuracy 1.000 (1.000 to 1.000) on 40 images as they are; drops with their 95%
    intervals:
    corruption         amount score  drop   low  high
    darker     times 0.20 0.500 0.500 0.350 0.650 **
      flip left and right 1.000 0.000 0.000 0.000
    * Beyond chance: darker. augment=Augment(['brightness'], strength=3)
    ** Beyond 0.03: darker. augment=Augment(['brightness'], strength=3)
    """
    options = RobustnessOptions() if options is None else options
    task = task_of(estimator)
    check_is_fitted(estimator)
    shape = options.image_shape
    shape = image_shape_of(estimator) if shape is None else shape
    source = as_source(X, image_shape=shape)
    asked = source.channels
    if asked is not None and asked.taken is not None:
        raise ValueError(
            f"The estimator picks the channels {list(asked.taken)}, which would be "
            "picked again of corrupted images: give one that was fitted on arrays of "
            "these channels alone, and such arrays."
        )
    if asked is not None and asked.n not in (1, 3):
        raise ValueError(
            f"X has images of {asked.n} channels: corruptions are those of grey and "
            "RGB images."
        )
    n = len(source)
    truth = check_targets(y, task, n)
    if options.per_class and (task == "regression" or truth.ndim == 2):
        raise ValueError("per_class=True needs a classifier of one label per image.")
    grey = (source.image_shape or (0, 0, asked and asked.n))[2] == 1
    jobs = _jobs(corruptions, severities, grey)
    scoring = Scoring(scoring, task, truth, getattr(estimator, "classes_", None))
    seed = draw_seed(options.random_state)
    known = None
    if reference is not None:
        others = as_source(reference, image_shape=shape)
        known = reference_statistics(others, seed, options.verbose)
    batches = corrupted_batches(
        X,
        source,
        [None, *jobs],
        seed=seed,
        batch_size=options.batch_size,
        on_image=(lambda image: None) if reference is None else statistics_of,
    )
    with progress(n * (1 + len(jobs)), "corrupted images", options.verbose) as bar:
        predictions, found = _predicted(quiet_copy(estimator), batches, bar)

    def sampled(score) -> np.ndarray:
        return bootstrap(score, n, options.n_resamples, seed)

    level = options.confidence_level
    scores = np.array([scoring(p) for p in predictions])
    spread = sampled(scoring.of_rows(predictions))
    described = [_described(*job) for job in jobs]
    table = pd.DataFrame(described, columns=["corruption", "severity", "amount"])
    table[_DROPS] = _drops(scores, spread, level)
    table["augmentation"] = [CORRUPTIONS[name].augmentation for name, _ in jobs]
    by_class = None
    if options.per_class:
        by_class = _by_class(table, predictions, truth, sampled, level)
        for label, rows in by_class.groupby("class", sort=False):
            table[f"drop[{label}]"] = rows["drop"].to_numpy()
    clean_low, clean_high = interval(spread[:, 0], level)
    return RobustnessReport(
        table,
        float(scores[0]),
        (float(clean_low), float(clean_high)),
        classes=by_class,
        shifts=None if known is None else compare_statistics(known, np.array(found)),
        scoring=scoring.name,
        n_images=n,
        margin=float(options.margin),
        confidence_level=float(level),
    )


def _jobs(corruptions: Any, severities: Sequence[float], grey: bool) -> list[Job]:
    """Return the corruptions asked for, with the severities at which they differ."""
    if corruptions is None:
        names = [name for name in CORRUPTIONS if name not in _NOT_ASKED]
        names = [name for name in names if not (grey and CORRUPTIONS[name].colour)]
    elif not isinstance(corruptions, Iterable):
        raise TypeError(f"corruptions must be a name or several, got {corruptions!r}.")
    else:
        names = [corruptions] if isinstance(corruptions, str) else list(corruptions)
    steps = np.atleast_1d(np.asarray(severities, dtype=float))
    positive = np.isfinite(steps) & (steps > 0)
    if steps.ndim != 1 or not len(steps) or not positive.all():
        raise ValueError(f"severities must be positive numbers, got {severities!r}.")
    jobs: list[Job] = []
    for name in names:
        check_corruption(name)
        amounts: dict[float, float] = {}
        for severity in sorted(steps.tolist()):
            amounts.setdefault(CORRUPTIONS[name].amount(severity), severity)
        jobs += [(name, severity) for severity in amounts.values()]
    if not jobs:
        raise ValueError("corruptions is empty: there is nothing to report.")
    return jobs


def _described(name: str, severity: float) -> tuple[str, float, str]:
    """Return what is done, the severity if there are several, and that in words."""
    kind = CORRUPTIONS[name]
    once = kind.amount(1.0) == kind.amount(2.0) == kind.amount(0.5)
    return name, np.nan if once else severity, kind.text.format(kind.amount(severity))


def _drops(scores: np.ndarray, spread: np.ndarray, level: float) -> np.ndarray:
    """Return the columns `_DROPS` of scores, of which the first is the clean one."""
    low, high = interval(spread[:, :1] - spread[:, 1:], level)
    return np.column_stack([scores[1:], scores[0] - scores[1:], low, high])


def _by_class(table, predictions, truth, sampled, level: float) -> pd.DataFrame:
    """Return the drop of each class's recall, for the classes that the truth has."""
    labels, codes = np.unique(truth, return_inverse=True)
    right = np.stack([p == truth for p in predictions], axis=1)
    recalls = recalls_of_rows(right, codes)
    scores, spread = recalls(np.arange(len(truth))), sampled(recalls)
    parts = []
    for c, label in enumerate(labels.tolist()):
        part = table[["corruption", "severity"]].assign(**{"class": label})
        part["n"] = np.count_nonzero(codes == c)
        part[_DROPS] = _drops(scores[:, c], spread[..., c], level)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _predicted(estimator, batches, bar) -> tuple[list[np.ndarray], list]:
    """Return predictions of each job for all rows, and what was found of images."""
    parts: dict[int, list[np.ndarray]] = {}
    found: list[Any] = []
    with closing(batches):  # at an error its threads end
        for number, X, results in batches:
            with warnings.catch_warnings():
                if number > 0:  # what is odd was said of the images as they are
                    warnings.filterwarnings("ignore", category=UserWarning)
                predicted = np.asarray(estimator.predict(X))
            if len(predicted) != len(results):
                raise ValueError(
                    f"{type(estimator).__name__}.predict returned {len(predicted)} "
                    f"rows for {len(results)} images."
                )
            if predicted.ndim == 2 and predicted.shape[1] == 1:
                predicted = predicted[:, 0]
            parts.setdefault(number, []).append(predicted)
            found += results if number == 0 else []
            bar(len(results))
    return [np.concatenate(part) for part in parts.values()], found
