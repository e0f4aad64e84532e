"""Plain data as fitted objects; nothing is made of what isn't known or trusted."""

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import Bunch

from sklearn_dl._files import ModelFileError
from sklearn_dl._saving._archive import Archive, raise_in
from sklearn_dl._saving._kinds import KINDS, LEFT_OUT, dtype_of
from sklearn_dl._saving._trust import Trust, untrusted

# Kinds of nodes that name a class or a function, and what is done with it.
_USES = {"object": "object", "call": "call", "estimator": "object", "value": "value"}
_HASHED = ("tuple", "frozenset", "slice")  # kinds whose values may be hashed
_MOST_NESTED = 10**6  # parts of such a value, and of its parts
_LARGEST = 2**63


class Decoder:
    """Reads the table of nodes of an `Encoder`; `estimator(node, self)` reads ours."""

    def __init__(self, archive: Archive, trust: Trust, estimator):
        self.archive, self.trust, self._estimator = archive, trust, estimator
        self._nodes, self._root = archive.manifest["nodes"], archive.manifest["root"]
        self._readers = {
            "array": self._array,
            "objects": self._objects,
            "frame": self._frame,
            "dict": self._mapping,
            "bunch": lambda node: Bunch(**self._mapping(node)),
            "value": lambda node: self.trust.find(node["name"], "value"),
            "object": self._object,
            "call": self._call,
            "estimator": lambda node: estimator(node, self),
        }
        self._made: list[Any] = []
        self._weights: dict[int, int] = {}

    def run(self) -> Any:
        """Return what the root stands for; nothing is imported that isn't trusted."""
        uses = set()
        for number, node in enumerate(self._nodes):
            try:
                if node["kind"] in _USES:
                    uses.add((_text(node["name"]), _USES[node["kind"]]))
            except Exception as error:
                raise_in(f"nodes[{number}]", error)
        if names := {name for name, use in uses if not self.trust.allows(name, use)}:
            raise untrusted(names)
        for number, node in enumerate(self._nodes):
            try:
                self._made.append(self._make(node))
            except Exception as error:
                about = node["name"] if node["kind"] in _USES else node["kind"]
                raise_in(f"nodes[{number}] ({about!s:.80})", error)
        try:
            return self(self._root)
        except Exception as error:
            raise_in("root", error)

    def _make(self, node: dict[str, Any]) -> Any:
        kind = node["kind"]
        if kind in self._readers:
            return self._readers[kind](node)
        if kind not in KINDS:
            raise ModelFileError(f"{kind!r:.60} is no kind of value.")
        if kind in _HASHED:
            self._weigh(node)
        return KINDS[kind].together(*self.items(node["items"]))

    def __call__(self, value: Any) -> Any:
        """Return what a value stands for."""
        if isinstance(value, dict):
            raise ModelFileError("A value is not one.")
        if not isinstance(value, list):
            return value
        (number,) = value
        if type(number) is not int or not 0 <= number < len(self._made):
            raise ModelFileError(f"The value {number!r:.60} comes before it is there.")
        return self._made[number]

    def items(self, values: list[Any]) -> list[Any]:
        """Return what the values of a list stand for."""
        return [self(value) for value in values]

    def attributes(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return what the values of a dict stand for."""
        found = {}
        for name, value in values.items():
            try:
                found[name] = self(value)
            except Exception as error:
                raise_in(name, error)
        return found

    def find_class(self, node: dict[str, Any]) -> Any:
        """Return the class that a node names."""
        kind = self.trust.find(node["name"], _USES[node["kind"]])
        if not isinstance(kind, type):
            raise ModelFileError(f"{node['name']} is no class.")
        return kind

    def _weigh(self, node: dict[str, Any]) -> None:
        """Raise where hashing what is nested in itself would never end."""
        parts = [value[0] for value in node["items"] if isinstance(value, list)]
        weight = 1 + len(node["items"])
        weight += sum(self._weights.get(number, 0) for number in parts)
        if weight > _MOST_NESTED:
            raise ModelFileError("A value is nested too often in itself.")
        self._weights[len(self._made)] = weight

    def _object(self, node: dict[str, Any]) -> Any:
        kind = self.find_class(node)
        if issubclass(kind, self._estimator.kind):  # they have a kind of their own
            raise ModelFileError(f"{node['name']} is not whole.")
        return self._with_state(kind.__new__(kind), node)

    def _call(self, node: dict[str, Any]) -> Any:
        kind, arguments = self.find_class(node), self.items(node["arguments"])
        return self._with_state(kind(*arguments), node)

    def _with_state(self, made: Any, node: dict[str, Any]) -> Any:
        if "state" not in node:
            return made
        state = self.attributes(node["state"])
        if type(made).__module__.startswith("sklearn."):
            state = {k: None if k in LEFT_OUT else v for k, v in state.items()}
        if node["name"] == "sklearn.tree._tree:Tree":
            _check_tree(made, state)
        if hasattr(made, "__setstate__"):
            made.__setstate__(state)
        else:
            made.__dict__.update(state)
        if isinstance(made, BaseEstimator):
            kind: Any = type(made)
            if not _parameters(kind) <= vars(made).keys():
                made.get_params(deep=False)  # raises where one is missing
            _check_width(made)
        return made

    def _array(self, node: dict[str, Any]) -> np.ndarray:
        dtype, shape = dtype_of(node["dtype"]), _shape(node["shape"])
        if "data" not in node:
            if 0 not in shape:
                raise ModelFileError("An array has no data.")
            return np.empty(shape, dtype)
        data = self.archive[node["data"]]
        count = int(np.prod([int(side) for side in shape], dtype=object))
        if data.dtype != torch.uint8 or data.numel() != count * dtype.itemsize:
            raise ModelFileError(
                f"An array of shape {shape} and {dtype} has {data.numel()} bytes."
            )
        array = np.empty(count, dtype)
        array.view(np.uint8)[:] = data.numpy().reshape(-1)
        return array.reshape(shape, order="F" if node.get("order") == "F" else "C")

    def _objects(self, node: dict[str, Any]) -> np.ndarray:
        array = np.empty(len(node["items"]), object)
        for i, item in enumerate(self.items(node["items"])):
            array[i] = item
        return array.reshape(_shape(node["shape"]))

    def _mapping(self, node: dict[str, Any]) -> dict:
        return {self(key): self(value) for key, value in node["items"]}

    def _frame(self, node: dict[str, Any]) -> pd.DataFrame:
        columns, n_rows = self.attributes(node["columns"]), node["n_rows"]
        for values in columns.values():
            if not isinstance(values, np.ndarray) or values.shape != (n_rows,):
                raise ModelFileError(f"A column of a table has not {n_rows} rows.")
        return pd.DataFrame(columns, index=pd.RangeIndex(n_rows))


@cache
def _parameters(kind: Any) -> frozenset[str]:
    return frozenset(kind._get_param_names())


def _text(name: Any) -> str:
    if not isinstance(name, str):
        raise ModelFileError(f"{name!r:.60} is no name.")
    return name


def _shape(shape: list[Any]) -> tuple[int, ...]:
    if not all(type(side) is int and 0 <= side < _LARGEST for side in shape):
        raise ModelFileError(f"{shape!r:.60} is no shape.")
    return tuple(shape)


def _check_width(model: Any) -> None:
    """Raise where trees look at features that rows needn't have.

    Other ensembles than gradient boosting let each tree look at the rows by itself.
    """
    owners = [model] if "tree_" in vars(model) else []
    if type(model).__module__ == "sklearn.ensemble._gb":
        owners = list(np.ravel(vars(model).get("estimators_", [])))
    width = vars(model).get("n_features_in_", 0)
    if any(owner.tree_.n_features > width for owner in owners):
        raise ModelFileError(f"A decision tree looks at more than {width} features.")


def _check_tree(tree: Any, state: dict[str, Any]) -> None:
    """Raise where a tree would lead out of its own memory."""
    nodes, n = state["nodes"], state["node_count"]
    inner = nodes["left_child"] != -1
    sound = n == len(nodes) == len(state["values"]) > 0
    order = np.arange(n)
    for child in (nodes["left_child"], nodes["right_child"]):
        sound &= bool(((child > order) & (child < n))[inner].all())
    features = nodes["feature"][inner]
    sound &= bool(((features >= 0) & (features < tree.n_features)).all())
    if not sound:
        raise ModelFileError("A decision tree leads nowhere.")
