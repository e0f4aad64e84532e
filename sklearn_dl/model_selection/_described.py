"""Parameters of estimators as text, and what differs between two of them."""

import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

_LONGEST = 200  # characters of a parameter's text


def parameters_as_text(estimator: BaseEstimator) -> dict[str, str]:
    """Return an estimator's class and parameters, those of its parts too, as text."""
    found = {"estimator": _structure(estimator)}
    for name, value in sorted(estimator.get_params(deep=True).items()):
        # Parts have parameters of their own, and are told by the structure.
        if name != "estimator" and not _holds_parts(value):
            found[name] = as_text(value)
    return found


def _holds_parts(value: Any) -> bool:
    if not isinstance(value, list):
        return False
    pairs = [part for part in value if isinstance(part, tuple)]
    return any(isinstance(v, BaseEstimator) for pair in pairs for v in pair)


def _structure(estimator) -> str:
    """Return the class of an estimator, with the classes of its parts."""
    parts = getattr(estimator, "steps", None) or getattr(estimator, "estimators", None)
    name = type(estimator).__name__
    if isinstance(getattr(estimator, "estimator", None), BaseEstimator):
        parts = [estimator.estimator]
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
        digest = _digest(repr(value.tolist()))
        return f"array of {value.dtype}, shape {value.shape}, {digest}"
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))
    if len(text) <= _LONGEST:
        return text
    return f"{text[: _LONGEST - 12]}... {_digest(text)}"


def _digest(text: str) -> str:
    return f"{zlib.crc32(text.encode('utf-8', 'backslashreplace')):08x}"


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
    """Return changes as text; what wasn't there is unset."""
    return ", ".join(
        f"{name}: {'unset' if a is None else a} → {'unset' if b is None else b}"
        for name, (a, b) in changed.items()
    )
