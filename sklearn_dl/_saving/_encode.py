"""Fitted objects as plain data: a table of nodes, each made of those before it."""

import copyreg
import math
from collections.abc import Callable
from enum import Enum
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from sklearn.utils import Bunch

from sklearn_dl._files import ModelFileError
from sklearn_dl._saving._archive import TensorWriter
from sklearn_dl._saving._kinds import KINDS, LEFT_OUT, describe_dtype, find_kind
from sklearn_dl._saving._trust import REFERENCES, Trust, name_of

# Attributes of scikit-learn's objects that prediction does without. They are left out
# where they hold what can't be loaded without trusting more.
_SEARCH = frozenset(
    {"cv", "cv_results_", "param_distributions", "param_grid", "scorer_", "scoring"}
)
_PLAIN = (bool, int, str, type(None))


class Encoder:
    """Writes objects into a table of nodes, that JSON can hold, and of tensors.

    A value is a JSON scalar, or ``[i]`` for the node i. A node names those before it
    only, so that reading needs no recursion and finds no cycle. The same object is one
    node, however often it is met.
    """

    def __init__(
        self,
        kind: type,
        describe: Callable[..., dict[str, Any]],
        trust: Trust | None = None,
    ):
        self.kind, self.describe = kind, describe  # the estimators of images
        self.nodes: list[dict[str, Any]] = []
        self.tensors = TensorWriter()
        self.left_out: dict[str, str] = {}  # by its place, and what is there instead
        self._writers: dict[type, Callable[[Any, str], dict[str, Any]]] = {}
        self._writers |= {np.ndarray: self._array, pd.DataFrame: self._frame}
        self._writers |= {dict: self._mapping, Bunch: self._mapping}
        self._plain_only = 0 if trust is None else 1
        self._trust = trust or Trust()  # for what must be plain
        # Numbers by id, with the values, or ids would be given again.
        self._known: dict[int, tuple[int, Any]] = {}
        self._open: set[int] = set()

    def __call__(self, value: Any, where: str) -> Any:
        """Return a value as JSON has it; raise where it can't be without code."""
        plain = type(value) is float and math.isfinite(value)
        if plain or type(value) in _PLAIN:
            return value
        if id(value) in self._known:
            return [self._known[id(value)][0]]
        if id(value) in self._open:
            raise ModelFileError(f"{where} holds itself, which can't be saved.")
        self._open.add(id(value))
        try:
            node = self._node(value, where)
        finally:
            self._open.discard(id(value))
        self._known[id(value)] = len(self.nodes), value
        self.nodes.append(node)
        return [len(self.nodes) - 1]

    def plainly(self, value: Any, where: str) -> Any:
        """Return a value that needs no trust, or raise and leave nothing behind."""
        before, left_out = len(self.nodes), dict(self.left_out)
        self._plain_only += 1
        try:
            return self(value, where)
        except (ModelFileError, RecursionError):
            del self.nodes[before:]
            self._known = {i: n for i, n in self._known.items() if n[0] < before}
            self.left_out = left_out
            raise
        finally:
            self._plain_only -= 1

    def items(self, values: Any, where: str) -> list[Any]:
        """Return the values of a sequence."""
        return [self(value, f"{where}[{i}]") for i, value in enumerate(values)]

    def name(self, thing: Any, use: str, where: str) -> str:
        """Return the name that a class or a function is found by again."""
        name = name_of(thing)
        if name is None:
            raise ModelFileError(
                f"{where} is {thing!r:.100}, which no other program can import: a file "
                "holds names of functions and classes, not their code. Define it at "
                "the top level of a module."
            )
        if self._plain_only and not self._trust.knows(thing, use):
            raise ModelFileError(
                f"{where} is {name.replace(':', '.')}, which has to be trusted: only "
                "sklearn_dl.persistence.save keeps it, for load(path, trusted=[...])."
            )
        return name

    def _node(self, value: Any, where: str) -> dict[str, Any]:
        if isinstance(value, self.kind):
            return self.describe(value, self, where)
        write = self._writers.get(type(value))
        if write is not None:
            return write(value, where)
        name = find_kind(value)
        if name is not None:
            try:
                parts = KINDS[name].apart(value)
            except TypeError as error:
                raise _cannot(value, where) from error
            return {"kind": name, "items": self.items(parts, where)}
        if isinstance(value, REFERENCES):  # rather than objects
            return {"kind": "value", "name": self.name(value, "value", where)}
        return self._object(value, where)

    def _object(self, value: Any, where: str) -> dict[str, Any]:
        kind = type(value)
        try:
            reduced = value.__reduce_ex__(2)
        except Exception as error:  # whatever a class may raise that can't be copied
            raise _cannot(value, where) from error
        odd = isinstance(value, Enum) or sparse.issparse(value)
        if odd or not isinstance(reduced, tuple) or any(part for part in reduced[3:]):
            raise _cannot(value, where)
        make, arguments, state = (*reduced, None)[:3]
        if make is copyreg.__newobj__ and arguments == (kind,):  # type: ignore[attr-defined]
            node: dict[str, Any] = {"kind": "object"}
        else:
            compiled = make.__name__.startswith("__pyx_unpickle_")
            if compiled and arguments[2:] in ((None,), ((),)):
                make, arguments = kind, ()
            if make is not kind:
                raise _cannot(value, where)
            node = {"kind": "call", "arguments": self.items(arguments, where)}
        node["name"] = self.name(kind, node["kind"], where)
        if state is not None:
            node["state"] = self._state(value, state, where)
        return node

    def _state(self, value: Any, state: Any, where: str) -> dict[str, Any]:
        if not isinstance(state, dict) or not all(isinstance(k, str) for k in state):
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
                    self.left_out[place], encoded[name] = "None", None
            else:
                encoded[name] = self(part, place)
        return encoded

    def _array(self, value: np.ndarray, where: str) -> dict[str, Any]:
        shape = list(value.shape)
        if value.dtype == object:
            items = self.items(value.ravel().tolist(), where)
            return {"kind": "objects", "shape": shape, "items": items}
        try:
            dtype = describe_dtype(value.dtype)
        except TypeError as error:
            raise ModelFileError(f"{where} can't be saved: {error}.") from error
        node = {"kind": "array", "dtype": dtype, "shape": shape}
        if value.flags.f_contiguous and not value.flags.c_contiguous:
            node["order"] = "F"
        data = np.frombuffer(value.tobytes(node.get("order", "C")), np.uint8)
        if data.size:
            node["data"] = self.tensors.add("arrays", torch.tensor(data))
        return node

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


def _cannot(value: Any, where: str) -> ModelFileError:
    shown = f"{type(value).__module__}.{type(value).__qualname__}"
    return ModelFileError(
        f"{where} is of the type {shown}, which can't be written as plain data."
    )
