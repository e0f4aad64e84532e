"""Texts of objects that nothing tells apart but that they are themselves."""

import os
import threading
import types
import uuid
import weakref
from itertools import count
from typing import Any

# What they hold changes nothing of what the object that holds them does, or they are
# told by their names.
_IDLE = (
    *(type(threading.Lock()), type(threading.RLock()), threading.local),
    *(types.GetSetDescriptorType, types.MemberDescriptorType),
)
_BOUND = "pybind11_builtins"  # what its functions are bound to

_PROCESS = uuid.uuid4().hex
_NUMBERS = count()
_LOCK = threading.Lock()
_KNOWN: dict[int, tuple[Any, str]] = {}
if hasattr(os, "register_at_fork"):

    def _unlock() -> None:
        global _LOCK
        _LOCK = threading.Lock()

    os.register_at_fork(after_in_child=_unlock)


def is_idle(value: Any) -> bool:
    """Tell whether objects of a kind may pass for equal."""
    return isinstance(value, _IDLE) or type(value).__module__ == _BOUND


def own_token(value: Any) -> str:
    """Return a text that no other object has, in this process or another.

    The same object has the same one in this process; what can't be referred to weakly
    is kept for that.
    """
    key = id(value)
    with _LOCK:
        known = _KNOWN.get(key)
        if known is None:
            token = f"{_PROCESS}-{os.getpid()}-{next(_NUMBERS)}"
            try:
                holder: Any = weakref.ref(value, lambda _: _KNOWN.pop(key, None))
            except TypeError:
                holder = value
            known = _KNOWN[key] = holder, token
    return known[1]
