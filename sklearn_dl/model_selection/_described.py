"""Parameters of estimators as text, and what differs between two of them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

_LONGEST = 200  # characters of a parameter's text


def parameters_as_text(estimator: BaseEstimator) -> dict[str, str]:
    """Return an estimator's class and parameters, those of its parts too, as text."""
    found = {"estimator": _structure(estimator)}
    for name, value in sorted(estimator.get_params(deep=True).items()):
        parts = isinstance(value, list) and any(isinstance(v, tuple) for v in value)
        if not parts:  # the steps of a pipeline have parameters of their own
            found[name] = as_text(value)
    return found


def _structure(estimator) -> str:
    """Return the class of an estimator, with the classes of its parts."""
    parts = getattr(estimator, "steps", None) or getattr(estimator, "estimators", None)
    name = type(estimator).__name__
    if not isinstance(parts, Sequence) or isinstance(parts, str):
        return name
    inner = [_structure(p[1]) if isinstance(p, tuple) else _structure(p) for p in parts]
    return f"{name}({', '.join(inner)})"


def as_text(value: Any) -> str:
    """Return a short text for a value, the same in another process."""
    if isinstance(value, BaseEstimator):
        return type(value).__name__
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray) and value.size > 16:
        return f"array of {value.dtype}, shape {value.shape}"
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def changes(before: dict[str, str], now: dict[str, str]) -> dict[str, Any]:
    """Return what differs; of another kind of estimator, only that."""
    if before.get("estimator") != now.get("estimator"):
        return {"estimator": (before.get("estimator"), now.get("estimator"))}
    names = [*now, *(name for name in before if name not in now)]
    return {
        name: (before.get(name), now.get(name))
        for name in names
        if before.get(name) != now.get(name)
    }


def in_words(changed: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}: {a} → {b}" for name, (a, b) in changed.items())
