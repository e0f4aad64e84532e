"""Plain data as fitted objects; nothing is made of what isn't known or trusted."""

import base64
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.lib import format as npy
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils import Bunch
from torchvision.models import get_weight

from sklearn_dl._base import ImageEstimatorMixin
from sklearn_dl.backbones import Preprocessing
from sklearn_dl.persistence._encode import LEFT_OUT
from sklearn_dl.persistence._errors import ModelFileError
from sklearn_dl.persistence._tensors import TensorReader
from sklearn_dl.persistence._trust import Trust, untrusted

_USES = {"object": "object", "call": "call", "estimator": "object", "value": "value"}
_LARGEST = 2**63
_MOST_NESTED = 10**6  # parts of a value that can be hashed, and of its parts
_GENERATORS = {
    kind.__name__: kind
    for kind in (
        *(np.random.MT19937, np.random.PCG64, np.random.PCG64DXSM),
        *(np.random.Philox, np.random.SFC64),
    )
}


class Decoder:
    """Reads the table of nodes that an `Encoder` wrote.

    Parameters
    ----------
    nodes : list of dict
    tensors : TensorReader
    trust : Trust
    special : dict of str to callable
        From nodes of a kind, and the decoder, to the object.
    """

    def __init__(
        self,
        nodes: list[dict[str, Any]],
        tensors: TensorReader,
        trust: Trust,
        special: dict[str, Callable[[dict, "Decoder"], Any]],
    ):
        self.nodes = nodes
        self.tensors = tensors
        self.trust = trust
        self._readers = {**_READERS, **special}
        self._made: list[Any] = []
        self._weights: dict[int, int] = {}

    def run(self, root: Any) -> Any:
        """Return the object that the root stands for.

        Raises
        ------
        ModelFileError
            If something isn't trusted: before anything is imported or made.
        """
        self._check_names()
        for node in self.nodes:
            kind = node["kind"]
            if kind not in self._readers:
                raise ModelFileError(f"{kind!r:.60} is no kind of value.")
            self.weigh(node)
            self._made.append(self._readers[kind](node, self))
        return self(root)

    def __call__(self, value: Any) -> Any:
        """Return what a value stands for."""
        if not isinstance(value, list):
            if isinstance(value, dict):
                raise ModelFileError("A value is not one.")
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
        return {name: self(value) for name, value in values.items()}

    def _check_names(self) -> None:
        names = {
            node["name"]
            for node in self.nodes
            if node["kind"] in _USES
            and not self.trust.allows(node["name"], _USES[node["kind"]])
        }
        if names:
            raise untrusted(names)

    def _object(self, node: dict[str, Any]) -> Any:
        kind: Any = self.trust.find(node["name"], "object")
        if not isinstance(kind, type):
            raise ModelFileError(f"{node['name']} is no class.")
        if issubclass(kind, ImageEstimatorMixin):  # they have a kind of their own
            raise ModelFileError(f"{node['name']} is not whole.")
        make: Any = kind.__new__
        return self._with_state(make(kind), node)

    def _call(self, node: dict[str, Any]) -> Any:
        kind = self.trust.find(node["name"], "call")
        if not isinstance(kind, type):
            raise ModelFileError(f"{node['name']} is no class.")
        return self._with_state(kind(*self.items(node["arguments"])), node)

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
            _check_width(made)
        return made

    def _array(self, node: dict[str, Any]) -> np.ndarray:
        dtype, shape = _dtype(node["dtype"]), _shape(node["shape"])
        if "data" not in node:
            if 0 not in shape:
                raise ModelFileError("An array has no data.")
            return np.empty(shape, dtype)
        data = self.tensors[node["data"]]
        count = int(np.prod([int(side) for side in shape], dtype=object))
        if data.dtype != torch.uint8 or data.numel() != count * dtype.itemsize:
            raise ModelFileError(
                f"An array of shape {shape} and {dtype} has {data.numel()} bytes."
            )
        order = node.get("order", "C")
        array = np.empty(count, dtype)
        array.view(np.uint8)[:] = data.numpy().reshape(-1)
        return array.reshape(shape, order="F" if order == "F" else "C")

    def _objects(self, node: dict[str, Any]) -> np.ndarray:
        array = np.empty(len(node["items"]), object)
        for i, item in enumerate(self.items(node["items"])):
            array[i] = item
        return array.reshape(_shape(node["shape"]))

    def _masked(self, node: dict[str, Any]) -> np.ma.MaskedArray:
        data, mask = self.items(node["parts"])
        return np.ma.MaskedArray(data, mask)

    def _sparse(self, node: dict[str, Any]) -> Any:
        kinds = {
            kind.__name__: kind
            for kind in (
                *(sparse.csr_matrix, sparse.csr_array),
                *(sparse.csc_matrix, sparse.csc_array),
            )
        }
        parts = tuple(self.items(node["parts"]))
        made = kinds[node["name"]](parts, shape=_shape(node["shape"]))
        made.check_format(full_check=True)  # indices are followed without looking
        return made

    def _frame(self, node: dict[str, Any]) -> pd.DataFrame:
        columns, n_rows = self.attributes(node["columns"]), node["n_rows"]
        if not all(
            isinstance(values, np.ndarray) and values.shape == (n_rows,)
            for values in columns.values()
        ):
            raise ModelFileError(f"A table has columns of other than {n_rows} rows.")
        return pd.DataFrame(columns, index=pd.RangeIndex(n_rows))

    def _partial(self, node: dict[str, Any]) -> functools.partial:
        function = self(node["function"])
        arguments, keywords = (
            self.items(node["arguments"]),
            self.attributes(node["keywords"]),
        )
        return functools.partial(function, *arguments, **keywords)

    def _random_state(self, node: dict[str, Any]) -> np.random.RandomState:
        state = self(node["state"])
        _check_position(state)
        made = np.random.RandomState(0)
        made.set_state(state)
        return made

    def _generator(self, node: dict[str, Any]) -> np.random.Generator:
        state = self(node["state"])
        _check_position(state)
        bits = _GENERATORS[state["bit_generator"]](0)
        bits.state = state
        return np.random.Generator(bits)

    def weigh(self, node: dict[str, Any]) -> None:
        """Raise where hashing what is nested in itself would never end."""
        if node["kind"] in ("tuple", "frozenset"):
            weight = 1 + sum(self._weight(value) for value in node["items"])
            if weight > _MOST_NESTED:
                raise ModelFileError("A value is nested too often in itself.")
            self._weights[len(self._made)] = weight

    def _weight(self, value: Any) -> int:
        return self._weights.get(value[0], 1) if isinstance(value, list) else 1


def _several(kind: Callable[[list], Any]) -> Callable[[dict, Decoder], Any]:
    return lambda node, decoder: kind(decoder.items(node["items"]))


def _mapping(node: dict, decoder: Decoder) -> dict:
    return {decoder(key): decoder(value) for key, value in node["items"]}


def _scalar(node: dict, decoder: Decoder) -> Any:
    return np.frombuffer(bytes.fromhex(node["value"]), _dtype(node["dtype"]), 1)[0]


_READERS: dict[str, Callable[[dict, Decoder], Any]] = {
    "float": lambda node, decoder: float(node["value"]),
    "bytes": lambda node, decoder: base64.b64decode(node["value"]),
    "slice": lambda node, decoder: slice(*decoder.items(node["items"])),
    "list": _several(list),
    "tuple": _several(tuple),
    "set": _several(set),
    "frozenset": _several(frozenset),
    "bunch": lambda node, decoder: Bunch(**_mapping(node, decoder)),
    "dict": _mapping,
    "scalar": _scalar,
    "dtype": lambda node, decoder: _dtype(node["dtype"]),
    "array": lambda node, decoder: decoder._array(node),
    "objects": lambda node, decoder: decoder._objects(node),
    "masked": lambda node, decoder: decoder._masked(node),
    "sparse": lambda node, decoder: decoder._sparse(node),
    "frame": lambda node, decoder: decoder._frame(node),
    "partial": lambda node, decoder: decoder._partial(node),
    "generator": lambda node, decoder: decoder._generator(node),
    "random state": lambda node, decoder: decoder._random_state(node),
    "weights": lambda node, decoder: get_weight(node["name"]),
    "device": lambda node, decoder: torch.device(node["name"]),
    "path": lambda node, decoder: Path(node["value"]),
    "preprocessing": lambda node, decoder: Preprocessing.from_dict(
        decoder(node["state"])
    ),
    "value": lambda node, decoder: decoder.trust.find(node["name"], "value"),
    "object": lambda node, decoder: decoder._object(node),
    "call": lambda node, decoder: decoder._call(node),
}


def _dtype(descr: Any) -> np.dtype:
    if isinstance(descr, list):
        descr = [tuple(field) for field in descr]
    dtype = npy.descr_to_dtype(descr)
    if dtype.hasobject:
        raise ModelFileError(f"The dtype {dtype} could hold objects.")
    return dtype


def _shape(shape: list[Any]) -> tuple[int, ...]:
    if not all(type(side) is int and 0 <= side < _LARGEST for side in shape):
        raise ModelFileError(f"{shape!r:.60} is no shape.")
    return tuple(shape)


def _check_position(state: dict[str, Any]) -> None:
    """Raise where a generator would read behind its own memory."""
    inner = state.get("state")
    places = [state.get("pos"), state.get("buffer_pos")]
    places += [inner.get("pos")] if isinstance(inner, dict) else []
    most = 624 if state.get("bit_generator") == "MT19937" else 4
    for place in places:
        if place is not None and not (type(place) is int and 0 <= place <= most):
            raise ModelFileError(f"A generator stands at {place!r:.40}.")


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
    left, right = nodes["left_child"], nodes["right_child"]
    inner = left != -1
    n_features = tree.n_features
    sound = n == len(nodes) == len(state["values"]) > 0
    order = np.arange(n)
    for child in (left, right):
        sound &= bool(((child > order) & (child < n))[inner].all())
    features = nodes["feature"][inner]
    sound &= bool(((features >= 0) & (features < n_features)).all())
    if not sound:
        raise ModelFileError("A decision tree leads nowhere.")
