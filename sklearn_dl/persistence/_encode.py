"""Fitted objects as plain data: a table of nodes, each made of those before it."""

import base64
import copyreg
import functools
import math
import os
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from pathlib import PurePath
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.lib import format as npy
from scipy import sparse
from sklearn.utils import Bunch
from torchvision.models import WeightsEnum

from sklearn_dl.backbones import Preprocessing
from sklearn_dl.persistence._errors import ModelFileError
from sklearn_dl.persistence._tensors import TensorWriter
from sklearn_dl.persistence._trust import Trust, is_reference, name_of

# Attributes of scikit-learn's objects that prediction does without. They are left out
# where they hold what can't be loaded without trusting more.
_SEARCH = frozenset(
    {"cv", "cv_results_", "param_distributions", "param_grid", "scorer_", "scoring"}
)
# Left out always: a folder whose pickles a refit would read, and objects that watch.
LEFT_OUT = frozenset({"memory", "_skl_callbacks"})
_PLAIN = (bool, int, str, type(None))


class Encoder:
    """Writes objects into a table of nodes, that JSON can hold, and of tensors.

    A value is a JSON scalar, or ``[i]`` for the node i. A node names those before it
    only, so that reading needs no recursion and finds no cycle. The same object is one
    node, however often it is met.

    Parameters
    ----------
    special : dict of type to callable
        From objects of a type, the encoder and the place, to their node.

    Attributes
    ----------
    nodes : list of dict
    tensors : TensorWriter
    left_out : dict of str to str
        What was left out, by its place in the model, and what stands there instead.
    """

    def __init__(self, special: dict[type, Callable[[Any, "Encoder", str], dict]]):
        self.special = special
        self.nodes: list[dict[str, Any]] = []
        self.tensors = TensorWriter()
        self.left_out: dict[str, str] = {}
        self._plain_only = 0
        self._trust = Trust()
        self._known: dict[int, int] = {}
        self._alive: list[Any] = []  # or ids would be given again
        self._open: set[int] = set()

    def __call__(self, value: Any, where: str) -> Any:
        """Return a value as JSON has it, with nodes for what JSON has not.

        Raises
        ------
        ModelFileError
            Naming the place of what can't be written without code.
        """
        if type(value) in _PLAIN:
            return value
        if type(value) is float and math.isfinite(value):
            return value
        if id(value) in self._known:
            return [self._known[id(value)]]
        if id(value) in self._open:
            raise ModelFileError(f"{where} holds itself, which can't be saved.")
        self._open.add(id(value))
        try:
            node = self._node(value, where)
        finally:
            self._open.discard(id(value))
        self.nodes.append(node)
        self._alive.append(value)
        self._known[id(value)] = len(self.nodes) - 1
        return [len(self.nodes) - 1]

    def plainly(self, value: Any, where: str) -> Any:
        """Return a value as `__call__`, if it can be loaded without trusting more.

        Raises
        ------
        ModelFileError
            If it can't; nothing of it is left behind.
        """
        before, left_out = len(self.nodes), dict(self.left_out)
        self._plain_only += 1
        try:
            return self(value, where)
        except (ModelFileError, RecursionError):
            del self.nodes[before:]
            del self._alive[before:]
            self._known = {i: n for i, n in self._known.items() if n < before}
            self.left_out = left_out
            raise
        finally:
            self._plain_only -= 1

    def items(self, values: Any, where: str) -> list[Any]:
        """Return the values of a sequence."""
        return [self(value, f"{where}[{i}]") for i, value in enumerate(values)]

    def attributes(self, values: dict[str, Any], where: str) -> dict[str, Any]:
        """Return the values of a dict with names for keys."""
        return {name: self(value, f"{where}.{name}") for name, value in values.items()}

    def _node(self, value: Any, where: str) -> dict[str, Any]:
        for kind, describe in self.special.items():
            if isinstance(value, kind):
                return describe(value, self, where)
        for kind, write in _WRITERS.items():
            if type(value) is kind:
                return write(self, value, where)
        if isinstance(value, np.generic):
            return _scalar(value, where)
        if sparse.issparse(value):
            return self._sparse(value, where)
        if isinstance(value, WeightsEnum):
            return {"kind": "weights", "name": str(value)}
        if isinstance(value, np.dtype):
            return {"kind": "dtype", "dtype": _descr(value, where)}
        if isinstance(value, PurePath):
            return {"kind": "path", "value": os.fspath(value)}
        if is_reference(value):
            return {"kind": "value", "name": self._named(value, "value", where)}
        return self._object(value, where)

    def _named(self, thing: Any, use: str, where: str) -> str:
        name = name_of(thing)
        if name is None:
            raise ModelFileError(
                f"{where} is {thing!r:.100}, which no other program can import: a file "
                "holds names of functions and classes, not their code. Define it at "
                "the top level of a module."
            )
        if self._plain_only and not self._trust.knows(thing, use):
            raise ModelFileError(f"{where} is {name}, which is not trusted.")
        return name

    def _object(self, value: Any, where: str) -> dict[str, Any]:
        kind = type(value)
        try:
            reduced = value.__reduce_ex__(2)
        except Exception as error:  # whatever a class may raise that can't be copied
            raise _cannot(value, where) from error
        if not isinstance(reduced, tuple) or any(part for part in reduced[3:]):
            raise _cannot(value, where)
        make, arguments = reduced[:2]
        state = reduced[2] if len(reduced) > 2 else None
        if make is copyreg.__newobj__ and arguments == (kind,):  # type: ignore[attr-defined]
            name = self._named(kind, "object", where)
            return {"kind": "object", "name": name, **self._state(value, state, where)}
        if make.__name__.startswith("__pyx_unpickle_") and arguments[2:] in (
            (None,),
            ((),),
        ):
            make, arguments = kind, ()  # compiled, without arguments
        if make is not kind or isinstance(value, Enum):
            raise _cannot(value, where)
        return {
            "kind": "call",
            "name": self._named(kind, "call", where),
            "arguments": self.items(arguments, where),
            **self._state(value, state, where),
        }

    def _state(self, value: Any, state: Any, where: str) -> dict[str, Any]:
        if not isinstance(state, dict) or not all(isinstance(k, str) for k in state):
            if state is None:
                return {}
            raise _cannot(value, where)
        library = type(value).__module__.startswith("sklearn.")
        encoded: dict[str, Any] = {}
        for name, part in state.items():
            place = f"{where}.{name}"
            if library and name in LEFT_OUT:
                if part is not None:
                    self.left_out[place] = "None"
                if name == "memory":
                    encoded[name] = None
            elif library and name in _SEARCH:
                try:
                    encoded[name] = self.plainly(part, place)
                except ModelFileError:
                    self.left_out[place] = "None"
                    encoded[name] = None
            else:
                encoded[name] = self(part, place)
        return {"state": encoded}

    def _array(self, value: np.ndarray, where: str) -> dict[str, Any]:
        shape = list(value.shape)
        if value.dtype == object:
            items = self.items(value.ravel().tolist(), where)
            return {"kind": "objects", "shape": shape, "items": items}
        fortran = value.flags.f_contiguous and not value.flags.c_contiguous
        flat = value.ravel(order="F" if fortran else "C")
        dtype = _descr(value.dtype, where)
        data = np.frombuffer(flat.tobytes(), np.uint8)
        node = {"kind": "array", "dtype": dtype, "shape": shape}
        if data.size:
            node["data"] = self.tensors.add("arrays", torch.tensor(data))
        return {**node, "order": "F"} if fortran else node

    def _sparse(self, value: Any, where: str) -> dict[str, Any]:
        name = type(value).__name__
        if name not in ("csr_matrix", "csr_array", "csc_matrix", "csc_array"):
            raise _cannot(value, where)
        parts = [value.data, value.indices, value.indptr]
        shape = [int(side) for side in value.shape]
        encoded = self.items(parts, where)
        return {"kind": "sparse", "name": name, "shape": shape, "parts": encoded}

    def _mapping(self, value: dict, where: str) -> dict[str, Any]:
        items = []
        for key, part in value.items():
            place = f"{where}[{key!r:.40}]"
            items.append([self(key, place), self(part, place)])
        return {"kind": type(value).__name__.lower(), "items": items}

    def _frame(self, value: pd.DataFrame, where: str) -> dict[str, Any]:
        columns = {}
        for name in value.columns:
            place = f"{where}[{name!r:.40}]"
            try:
                columns[str(name)] = self.plainly(value[name].to_numpy(), place)
            except ModelFileError:
                self.left_out[place] = "nothing"
        return {"kind": "frame", "columns": columns, "n_rows": len(value)}

    def _partial(self, value: functools.partial, where: str) -> dict[str, Any]:
        return {
            "kind": "partial",
            "function": self(value.func, where),
            "arguments": self.items(value.args, where),
            "keywords": self.attributes(value.keywords, where),
        }

    def _random_state(self, value: np.random.RandomState, where: str) -> dict[str, Any]:
        state = value.get_state(legacy=False)
        if not isinstance(state, dict) or state["bit_generator"] != "MT19937":
            raise _cannot(value, where)
        return {"kind": "random state", "state": self(state, where)}

    def _generator(self, value: np.random.Generator, where: str) -> dict[str, Any]:
        state = value.bit_generator.state
        return {"kind": "generator", "state": self(dict(state), where)}


def _several(kind: str) -> Callable[[Encoder, Any, str], dict[str, Any]]:
    return lambda encoder, value, where: {
        "kind": kind,
        "items": encoder.items(value, where),
    }


def _preprocessing(encoder: Encoder, value: Preprocessing, where: str) -> dict:
    return {"kind": "preprocessing", "state": encoder(value.to_dict(), where)}


def _masked(encoder: Encoder, value: np.ma.MaskedArray, where: str) -> dict:
    parts = encoder.items([value.data, np.ma.getmaskarray(value)], where)
    return {"kind": "masked", "parts": parts}


_WRITERS: dict[type, Callable[[Encoder, Any, str], dict[str, Any]]] = {
    float: lambda encoder, value, where: {"kind": "float", "value": repr(value)},
    bytes: lambda encoder, value, where: {
        "kind": "bytes",
        "value": base64.b64encode(value).decode(),
    },
    slice: lambda encoder, value, where: {
        "kind": "slice",
        "items": encoder.items([value.start, value.stop, value.step], where),
    },
    list: _several("list"),
    tuple: _several("tuple"),
    set: _several("set"),
    frozenset: _several("frozenset"),
    Bunch: Encoder._mapping,
    dict: Encoder._mapping,
    np.ndarray: Encoder._array,
    np.ma.MaskedArray: _masked,
    np.random.Generator: Encoder._generator,
    np.random.RandomState: Encoder._random_state,
    pd.DataFrame: Encoder._frame,
    functools.partial: Encoder._partial,
    torch.device: lambda encoder, value, where: {"kind": "device", "name": str(value)},
    Preprocessing: _preprocessing,
}


def _scalar(value: np.generic, where: str) -> dict[str, Any]:
    dtype = _descr(value.dtype, where)
    return {"kind": "scalar", "dtype": dtype, "value": value.tobytes().hex()}


def _descr(dtype: np.dtype, where: str) -> Any:
    if dtype.hasobject:
        raise ModelFileError(f"{where} has the dtype {dtype}, which can't be saved.")
    return npy.dtype_to_descr(dtype)


def _cannot(value: Any, where: str) -> ModelFileError:
    shown = repr(type(value).__name__)
    with suppress(Exception):
        shown = f"{type(value).__module__}.{type(value).__qualname__}"
    return ModelFileError(
        f"{where} is of the type {shown}, which can't be written as plain data."
    )
