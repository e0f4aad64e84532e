"""The numbers of a preprocessing, and what each may be."""

from collections.abc import Callable, Mapping
from math import isfinite
from numbers import Integral, Real
from typing import Any

from PIL import Image

LARGEST_SIDE = 2**14  # pixels
# Pillow's filters by torchvision's names.
FILTERS = {kind.name.lower(): kind for kind in Image.Resampling}
FILTERS["nearest-exact"] = Image.Resampling.NEAREST


def check_preprocessing(values: Any) -> None:
    """Refuse numbers of a Preprocessing, or of JSON, that can't be those of images."""
    names = set(values) if isinstance(values, Mapping) else set()
    if not {*_NEEDED} <= names <= _FIELDS.keys():
        others = [name for name in _FIELDS if name not in _NEEDED]
        raise ValueError(
            f"a preprocessing needs the fields {', '.join(_NEEDED)} and may have "
            f"{', '.join(others)}; got {values!r:.200}."
        )
    for name, value in values.items():
        fits, right = _FIELDS[name]
        if not fits(value):
            raise ValueError(f"{name} must be {right}; got {value!r:.60}.")
    n_means, n_deviations = len(values["mean"]), len(values["std"])
    if n_means != n_deviations:
        raise ValueError(
            f"mean and std must be as many numbers; got {n_means} and {n_deviations}."
        )


def _is_side(value: Any) -> bool:
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    return whole and 0 < value <= LARGEST_SIDE


def _is_size(value: Any) -> bool:
    pair = isinstance(value, list | tuple) and len(value) == 2
    return pair and all(map(_is_side, value))


def _are_numbers(values: Any) -> bool:
    return (
        isinstance(values, list | tuple)
        and len(values) > 0
        and all(isinstance(v, Real) and not isinstance(v, bool) for v in values)
        and all(map(isfinite, values))
    )


_SIDES = f"sides in pixels, from 1 to {LARGEST_SIDE}, or None"
_NEEDED = ("resize_size", "crop_size", "mean", "std")
# What each field may be, and that in words.
_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "resize_size": (
        lambda v: v is None or _is_side(v) or _is_size(v),
        f"one or a pair (height, width) of {_SIDES}",
    ),
    "crop_size": (
        lambda v: v is None or _is_size(v),
        f"a pair (height, width) of {_SIDES}",
    ),
    "mean": (_are_numbers, "a number for each channel"),
    "std": (
        lambda v: _are_numbers(v) and min(v) > 0,
        "a number for each channel, each above zero",
    ),
    "interpolation": (
        lambda v: isinstance(v, str) and v in FILTERS,
        f"one of {', '.join(FILTERS)}",
    ),
    "antialias": (lambda v: isinstance(v, bool), "True or False"),
    "rgb": (lambda v: isinstance(v, bool), "True or False"),
    "resize_side": (
        lambda v: isinstance(v, str) and v in ("shorter", "longer"),
        "'shorter' or 'longer'",
    ),
}
