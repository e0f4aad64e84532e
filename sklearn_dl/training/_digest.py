"""What a training is, as a digest: the same parameters on the same data."""

import functools
import hashlib
import re
from collections.abc import Mapping
from enum import Enum
from types import CodeType
from typing import Any

import numpy as np
import torch

from sklearn_dl.training._data import Rows

# What a resumed run may do otherwise.
_FREE = ("callbacks", "device", "verbose")
_FREE_NET_PARAMS = ("num_workers", "pin_memory", "prefetch_factor")


def digest_of_run(
    estimator, training: Rows, validation: Rows | None, previous: Any
) -> str:
    """Return a digest of an estimator's parameters and of the rows it is trained on.

    Files are taken by their paths, other images by their pixels. A warm start has the
    number of epochs before it.
    """
    digest = hashlib.sha256()
    params = estimator.get_params(deep=True)
    for name in sorted(params):
        if name.split("__")[0] not in _FREE:
            digest.update(f"{name}={_text(params[name])};".encode())
    before = 0 if previous is None else len(previous.history)
    digest.update(f"{type(estimator).__name__} after {before};".encode())
    for rows in (training, validation):
        if rows is not None:
            _add_rows(digest, rows)
    return digest.hexdigest()


def _text(value: Any) -> str:
    """Return a text that is the same in another process, and differs with the value."""
    if value is None or isinstance(value, str | bytes | bool | int | float | Enum):
        return repr(value)
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray) and value.dtype != object:
        return f"{value.dtype} {value.shape} {value.tobytes().hex()}"
    if isinstance(value, Mapping):
        kept = {k: v for k, v in value.items() if not str(k).endswith(_FREE_NET_PARAMS)}
        return str({str(key): _text(kept[key]) for key in sorted(kept, key=str)})
    if isinstance(value, list | tuple | set | frozenset | np.ndarray):
        items = [_text(item) for item in value]
        return str(sorted(items) if isinstance(value, set | frozenset) else items)
    if isinstance(value, CodeType):
        return f"{value.co_code.hex()} {value.co_names} {_text(value.co_consts)}"
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, functools.partial):
        return f"{name} {_text([value.func, value.args, value.keywords])}"
    if isinstance(value, torch.nn.Module):
        modules = [
            (n, type(m).__qualname__, _plain(m)) for n, m in value.named_modules()
        ]
        return f"{name} {_text([modules, dict(value.state_dict())])}"
    if hasattr(value, "get_params") and not isinstance(value, type):
        return f"{name} {_text(value.get_params(deep=False))}"
    if hasattr(value, "__qualname__"):  # a class or a function
        parts = [getattr(value, "__defaults__", None), _closure(value)]
        parts += [getattr(value, "__kwdefaults__", None)]
        parts += [getattr(value, "__code__", None)]
        return f"{value.__module__}.{value.__qualname__} {_text(parts)}"
    if getattr(value, "__dict__", None):
        return f"{name} {_text(vars(value))}"
    return f"{name} {re.sub(r' at 0x[0-9a-f]+', '', repr(value))}"


def _plain(module: torch.nn.Module) -> dict[str, Any]:
    """Return the settings of a module, such as a dropout's share."""
    kinds = (str, bool, int, float, tuple, type(None))
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, kinds) and name != "training"
    }


def _closure(function) -> list:
    """Return what a function took along from where it was made."""
    values = []
    for cell in getattr(function, "__closure__", None) or ():
        try:
            values.append(cell.cell_contents)
        except ValueError:  # not filled yet
            values.append(None)
    return [value for value in values if value is not function]


def _add_rows(digest, rows: Rows) -> None:
    source = rows.source
    positions = np.arange(len(rows)) if rows.rows is None else rows.rows
    digest.update(f"{source.kind} {len(source)} {source.image_shape};".encode())
    digest.update(np.ascontiguousarray(positions, dtype=np.int64).tobytes())
    digest.update(np.ascontiguousarray(rows.weight).tobytes())
    digest.update(np.ascontiguousarray(rows.target.numpy()).tobytes())
    for row in map(int, positions):
        path = source.path(row)
        digest.update(repr(path).encode())
        if path is None:
            digest.update(np.asarray(source[row]).tobytes())
