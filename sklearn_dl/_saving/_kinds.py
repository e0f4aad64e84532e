"""Types of values that a file holds: how each comes apart, and together again."""

import base64
import functools
import os
from collections.abc import Callable, Iterable
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.lib import format as npy
from scipy import sparse
from sklearn.utils._metadata_requests import SIMPLE_METHODS, MetadataRequest
from torchvision.models import WeightsEnum, get_weight

from sklearn_dl._files import ModelFileError
from sklearn_dl.backbones import Preprocessing

# Attributes of scikit-learn's objects that are neither written nor read: a folder whose
# pickles a refit would read, and objects that watch.
LEFT_OUT = frozenset({"memory", "_skl_callbacks"})


class Kind(NamedTuple):
    """A type whose values are made of others, which a file can hold."""

    cls: type
    apart: Callable[[Any], Iterable[Any]]
    together: Callable[..., Any]
    exact: bool = True  # not for instances of its subclasses


def find_kind(value: Any) -> str | None:
    """Return the name of the kind of a value, None if it is of none."""
    for name, kind in KINDS.items():
        if type(value) is kind.cls or (not kind.exact and isinstance(value, kind.cls)):
            return name
    return None


def dtype_of(descr: Any) -> np.dtype:
    """Return the dtype that `numpy.lib.format` describes so, if it holds no objects."""
    if isinstance(descr, list):
        descr = [tuple(field) for field in descr]
    dtype = npy.descr_to_dtype(descr)
    if dtype.hasobject:
        raise ModelFileError(f"The dtype {dtype} could hold objects.")
    if not dtype.itemsize:  # as many of them as one likes take no bytes
        raise ModelFileError(f"The dtype {descr!r:.40} holds nothing.")
    return dtype


def describe_dtype(dtype: np.dtype) -> Any:
    """Return what `dtype_of` reads."""
    if dtype.hasobject:
        raise TypeError(f"the dtype {dtype} holds objects")
    return npy.dtype_to_descr(dtype)


def _scalar(descr: Any, data: str) -> Any:
    return np.frombuffer(bytes.fromhex(data), dtype_of(descr), 1)[0]


def _random_state(state: dict[str, Any]) -> np.random.RandomState:
    _check_position(state)
    made = np.random.RandomState(0)
    made.set_state(state)
    return made


def _requests(of: MetadataRequest) -> dict[str, Any]:
    methods = {name: getattr(of, name).requests for name in SIMPLE_METHODS}
    return {name: {**asked} for name, asked in methods.items() if asked}


def _metadata_request(owner: str, methods: dict[str, Any]) -> MetadataRequest:
    made = MetadataRequest(owner=owner)
    for name, asked in methods.items():
        if name not in SIMPLE_METHODS:
            raise ModelFileError(f"{name!r:.40} takes no metadata.")
        for parameter, alias in asked.items():
            getattr(made, name).add_request(param=parameter, alias=alias)
    return made


_GENERATORS = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")


def _generator(state: dict[str, Any]) -> np.random.Generator:
    _check_position(state)
    name = state["bit_generator"]
    if name not in _GENERATORS:
        raise ModelFileError(f"{name!r:.40} is no generator of numpy.")
    bits: Any = getattr(np.random, name)(0)
    bits.state = state
    return np.random.Generator(bits)


def _check_position(state: dict[str, Any]) -> None:
    """Raise where a generator would read behind its own memory."""
    inner = state.get("state")
    places = [state.get("pos"), state.get("buffer_pos")]
    places += [inner.get("pos")] if isinstance(inner, dict) else []
    most = 624 if state.get("bit_generator") == "MT19937" else 4
    for place in places:
        if place is not None and not (type(place) is int and 0 <= place <= most):
            raise ModelFileError(f"A generator stands at {place!r:.40}.")


def _sparse(kind: Any, data: Any, indices: Any, pointers: Any, shape: Any) -> Any:
    made = kind((data, indices, pointers), shape=shape)
    made.check_format(full_check=True)  # indices are followed without looking
    return made


_SPARSE = (sparse.csr_matrix, sparse.csr_array, sparse.csc_matrix, sparse.csc_array)

KINDS: dict[str, Kind] = {
    "float": Kind(float, lambda v: [repr(v)], float),  # infinite, or no number
    "bytes": Kind(bytes, lambda v: [base64.b64encode(v).decode()], base64.b64decode),
    "list": Kind(list, iter, lambda *items: [*items]),
    "tuple": Kind(tuple, iter, lambda *items: items),
    "set": Kind(set, iter, lambda *items: {*items}),
    "frozenset": Kind(frozenset, iter, lambda *items: frozenset(items)),
    "slice": Kind(slice, lambda v: [v.start, v.stop, v.step], slice),
    "partial": Kind(
        functools.partial,
        lambda v: [v.func, v.args, v.keywords],
        lambda function, args, keywords: functools.partial(function, *args, **keywords),
    ),
    "path": Kind(PurePath, lambda v: [os.fspath(v)], Path, exact=False),
    "device": Kind(torch.device, lambda v: [str(v)], torch.device),
    "weights": Kind(WeightsEnum, lambda v: [str(v)], get_weight, exact=False),
    "preprocessing": Kind(
        Preprocessing, lambda v: [v.to_dict()], Preprocessing.from_dict
    ),
    "scalar": Kind(
        np.generic,
        lambda v: [describe_dtype(v.dtype), v.tobytes().hex()],
        _scalar,
        exact=False,
    ),
    "dtype": Kind(np.dtype, lambda v: [describe_dtype(v)], dtype_of, exact=False),
    "masked": Kind(
        np.ma.MaskedArray,
        lambda v: [v.data, np.ma.getmaskarray(v)],
        lambda data, mask: np.ma.MaskedArray(data, mask),
    ),
    # Its owner is the estimator that holds it; a name does as well.
    "metadata request": Kind(
        MetadataRequest,
        lambda v: [
            v.owner if type(v.owner) is str else type(v.owner).__name__,
            _requests(v),
        ],
        _metadata_request,
    ),
    "generator": Kind(
        np.random.Generator, lambda v: [{**v.bit_generator.state}], _generator
    ),
    "random state": Kind(
        np.random.RandomState, lambda v: [v.get_state(legacy=False)], _random_state
    ),
    **{
        kind.__name__: Kind(
            kind,
            lambda v: [v.data, v.indices, v.indptr, tuple(map(int, v.shape))],
            functools.partial(_sparse, kind),
        )
        for kind in _SPARSE
    },
}
