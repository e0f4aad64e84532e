"""Statistics of images, and how two sets of images differ in them."""

from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from sklearn_dl._extraction import progress
from sklearn_dl._images import ImageSource, as_source
from sklearn_dl._runtime import keyed_generator
from sklearn_dl.augmentation import to_bytes, to_image

# The size at which images are looked at, so that their resolution matters little.
_SIDE = 224
# Images to compare with; more hardly narrow the test.
_MOST = 2000

#: Statistics, with what lower and higher values are and the augmentations for either.
_MEANING = {
    "brightness": ("darker", "brighter", "brightness", "brightness"),
    "contrast": ("less contrast", "more contrast", "contrast", "contrast"),
    "sharpness": ("blurred", "sharper or noisier", "blur", "noise"),
    "red_green": ("greener", "redder", "channel_shift", "channel_shift"),
    "yellow_blue": ("bluer", "yellower", "channel_shift", "channel_shift"),
    "saturation": ("paler", "more colourful", "color", "color"),
}
STATISTICS = tuple(_MEANING)


def statistics_of(image: Any) -> tuple[float, ...]:
    """Return the `STATISTICS` of a decoded image; NaN for the colours of a grey one."""
    if isinstance(image, np.ndarray):
        if image.shape[2] not in (1, 3):
            image = image.mean(2, keepdims=True).astype(image.dtype)
        image = to_image(to_bytes(np.ascontiguousarray(image.transpose(2, 0, 1))))
    scale = _SIDE / min(image.size)
    if scale < 1:
        size = (max(round(side * scale), 1) for side in image.size)
        image = image.resize(tuple(size), Image.Resampling.BILINEAR)
    values = np.asarray(image, dtype=np.float32) / 255
    grey = values.ndim == 2
    luma = values if grey else values @ np.array([0.299, 0.587, 0.114], np.float32)
    mean = max(float(luma.mean()), 1 / 255)
    deviation = max(float(luma.std()), 1 / 255)
    sharpness = 0.0
    if min(luma.shape) > 2:
        inner = luma[1:-1, 1:-1]
        around = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:]
        sharpness = float(np.sqrt(np.mean((around - 4 * inner) ** 2))) / deviation
    colour = (np.nan,) * 3
    if not grey:
        red, green, blue = (float(values[..., c].mean()) for c in range(3))
        span = float((values.max(2) - values.min(2)).mean())
        colour = ((red - green) / mean, ((red + green) / 2 - blue) / mean, span / mean)
    return (float(luma.mean()), deviation / mean, sharpness, *colour)


def image_statistics(X, *, image_shape=None, verbose: int = 0) -> pd.DataFrame:
    """Return what images look like, in a few numbers each.

    Images are looked at at most 224 pixels on the shorter side. What makes images
    darker or brighter by a factor changes only the brightness.

    Parameters
    ----------
    X : images
        Any form that the estimators take.
    image_shape : tuple of int, default=None
        (height, width[, channels]) of rows of pixels; None infers square ones.
    verbose : int, default=0
        1 shows a progress bar.

    Returns
    -------
    DataFrame
        One row per image, in the order of X:

        - ``brightness``: mean of the luma, 0 to 1;
        - ``contrast``: standard deviation of the luma by its mean;
        - ``sharpness``: root mean square of the Laplacian by the standard deviation of
          the luma; noise raises it too;
        - ``red_green``, ``yellow_blue``: means of R - G and (R + G) / 2 - B by the mean
          luma; NaN for grey arrays, as is
        - ``saturation``: mean difference of the largest and the smallest channel by the
          mean luma;
        - ``width``, ``height``, in pixels.

    Raises
    ------
    ImageDecodeError
        Naming an image that can't be decoded.

    See Also
    --------
    slice_scores : Scores by such columns.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_dl.inspection import image_statistics
    >>> X = np.full((1, 8, 8, 3), 51, "uint8")
    >>> image_statistics(X)[["brightness", "contrast", "width"]].round(3)
       brightness  contrast  width
    0         0.2      0.02      8
    """
    source = as_source(X, image_shape=image_shape)

    def measure(image: Any) -> tuple[float, ...]:
        if isinstance(image, np.ndarray):
            return (*statistics_of(image), image.shape[1], image.shape[0])
        return (*statistics_of(image), image.width, image.height)

    found = _of_each(source, range(len(source)), measure, "image statistics", verbose)
    return pd.DataFrame(found, columns=[*STATISTICS, "width", "height"])


def _of_each(source: ImageSource, rows, measure, description: str, verbose) -> list:
    found = []
    with progress(len(rows), description, verbose) as bar:
        for row in rows:
            found.append(measure(source[int(row)]))
            bar(1)
    return found


def reference_statistics(source: ImageSource, seed: int, verbose: int) -> np.ndarray:
    """Return the statistics of some images, drawn where there are many."""
    rows = np.arange(len(source))  # an error names them as they are in `source`
    if len(rows) > _MOST:
        rng = keyed_generator(seed, len(rows))
        rows = np.sort(rng.choice(rows, _MOST, replace=False))
    return np.array(_of_each(source, rows, statistics_of, "reference images", verbose))


def compare_statistics(
    reference: np.ndarray,
    values: np.ndarray,
    alpha: float = 0.05,
    smallest_effect: float = 0.2,
) -> pd.DataFrame:
    """Return how images differ, by Mann and Whitney's tests with Holm's correction."""
    from scipy.stats import mannwhitneyu

    rows = []
    for k, name in enumerate(STATISTICS):
        before, after = (v[np.isfinite(v[:, k]), k] for v in (reference, values))
        if len(before) == 0 or len(after) == 0:
            continue
        result = mannwhitneyu(after, before)
        effect = 2 * float(result.statistic) / (len(before) * len(after)) - 1
        lower, higher, *answers = _MEANING[name]
        direction, answer = (higher if effect > 0 else lower), answers[effect > 0]
        medians = float(np.median(before)), float(np.median(after))
        p_value = float(result.pvalue)
        rows.append((name, *medians, effect, p_value, direction, answer))
    columns = ["statistic", "reference", "value", "effect", "p_value"]
    table = pd.DataFrame(rows, columns=[*columns, "direction", "augmentation"])
    table["p_value"] = _holm(table["p_value"].to_numpy())
    table["shifted"] = (table["p_value"] <= alpha) & (
        table["effect"].abs() >= smallest_effect
    )
    return table


def _holm(p: np.ndarray) -> np.ndarray:
    """Return p-values that hold for all tests together."""
    order = np.argsort(p)
    adjusted = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return np.minimum(adjusted, 1)[np.argsort(order)]
