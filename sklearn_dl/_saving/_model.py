"""A model as a manifest and members, and back: in a file, or as arrays."""

import hashlib
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from sklearn_dl._files import ModelFileError
from sklearn_dl._saving._archive import Archive, explained, members_of
from sklearn_dl._saving._decode import Decoder
from sklearn_dl._saving._encode import Encoder
from sklearn_dl._saving._estimators import EstimatorReader, describe_estimator
from sklearn_dl._saving._trust import Trust

# What arrays there are, by content: an ensemble's frozen backbone is one of them.
_ARRAYS: WeakValueDictionary[bytes, np.ndarray] = WeakValueDictionary()


def describe(
    model: Any, kind: type, *, way: str = "whole", trust: Trust | None = None
) -> Iterator[tuple[str, bytes]]:
    """Return the members of a model by name, the manifest last.

    Its parts of the class `kind` are estimators of images. With `trust`, what that
    doesn't know is refused by its name.
    """
    encoder = Encoder(kind, partial(describe_estimator, way=way), trust)
    try:
        root = encoder(model, type(model).__name__)
    except RecursionError as error:
        raise ModelFileError("The model is nested too deeply to be saved.") from error
    if encoder.left_out:
        places = [f"{k} ({v} instead)" for k, v in encoder.left_out.items()]
        more = f" and {len(places) - 6} more" if len(places) > 6 else ""
        warnings.warn(
            f"Left out, as it holds code or objects, and prediction doesn't need it: "
            f"{', '.join(places[:6])}{more}. Set it again before the next fit.",
            UserWarning,
            stacklevel=3,
        )
    return members_of({"root": root, "nodes": encoder.nodes}, encoder.tensors.members)


def build(archive: Archive, kind: type, trust: Trust, weights: Any = None) -> Any:
    """Return the model of members; nothing in them is executed."""
    return Decoder(archive, trust, EstimatorReader(kind, weights)).run()


def to_arrays(estimator: Any, kind: type) -> dict[str, np.ndarray]:
    """Return the bytes of an estimator's members, of which equal ones are one array."""
    arrays = {}
    for name, data in describe(estimator, kind, trust=Trust([type(estimator)])):
        array = np.frombuffer(data, np.uint8)
        arrays[name] = _ARRAYS.setdefault(hashlib.sha256(data).digest(), array)
    return arrays


def from_arrays(arrays: Mapping[str, np.ndarray], kind: type, cls: type) -> Any:
    """Return the estimator of a class that `to_arrays` took apart."""
    with explained(f"The state of an {cls.__name__}"):
        archive = Archive(arrays.keys(), lambda name: arrays[name].tobytes())
        estimator = build(archive, kind, Trust([cls]))
        if type(estimator) is not cls:
            raise ModelFileError(f"it is that of a {type(estimator).__name__:.60}.")
        return estimator
