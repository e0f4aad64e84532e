"""The numbers of a preprocessing, and what each may be."""

from collections.abc import Mapping
from math import isfinite
from numbers import Integral, Real
from typing import Any

from PIL import Image

LARGEST_SIDE = 2**14  # pixels
_NEEDED = ("resize_size", "crop_size", "mean", "std")
_POSSIBLE = ("interpolation", "antialias")
# Pillow's filters by torchvision's names.
FILTERS = {kind.name.lower(): kind for kind in Image.Resampling}
FILTERS["nearest-exact"] = Image.Resampling.NEAREST


def check_preprocessing(values: Any) -> None:
    """Raise where the numbers of a preprocessing can't be those of images.

    Parameters
    ----------
    values : mapping
        Those of `sklearn_dl.backbones.Preprocessing`, also as JSON has them.

    Raises
    ------
    ValueError
        It names the field, and says what would be right.
    """
    names = set(values) if isinstance(values, Mapping) else set()
    if not {*_NEEDED} <= names <= {*_NEEDED, *_POSSIBLE}:
        raise ValueError(
            f"a preprocessing needs the fields {', '.join(_NEEDED)} and may have "
            f"{', '.join(_POSSIBLE)}; got {values!r:.200}."
        )
    resize, crop = values["resize_size"], values["crop_size"]
    if not (resize is None or _is_side(resize) or _is_size(resize)):
        raise _wrong("resize_size", resize, f"a {_SIDE}, {_SIZE} or None")
    if not (crop is None or _is_size(crop)):
        raise _wrong("crop_size", crop, f"{_SIZE} or None")
    for name in ("mean", "std"):
        if not _are_three(values[name]):
            raise _wrong(name, values[name], "three numbers")
    if min(values["std"]) <= 0:
        raise _wrong("std", values["std"], "three numbers, each above zero")
    interpolation = values.get("interpolation", "bilinear")
    if not (isinstance(interpolation, str) and interpolation in FILTERS):
        raise _wrong("interpolation", interpolation, f"one of {', '.join(FILTERS)}")
    if type(values.get("antialias", True)) is not bool:
        raise _wrong("antialias", values["antialias"], "True or False")


_SIDE = f"side in pixels, from 1 to {LARGEST_SIDE}"
_SIZE = "a pair (height, width) of such sides"


def _is_side(value: Any) -> bool:
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    return whole and 0 < value <= LARGEST_SIDE


def _is_size(value: Any) -> bool:
    pair = isinstance(value, list | tuple) and len(value) == 2
    return pair and all(map(_is_side, value))


def _are_three(values: Any) -> bool:
    return (
        isinstance(values, list | tuple)
        and len(values) == 3
        and all(isinstance(v, Real) and not isinstance(v, bool) for v in values)
        and all(map(isfinite, values))
    )


def _wrong(name: str, value: Any, right: str) -> ValueError:
    return ValueError(f"{name} must be {right}; got {value!r:.60}.")
