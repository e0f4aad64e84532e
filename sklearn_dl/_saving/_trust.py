"""Classes and functions that a file of a model may name."""

import functools
import sys
from collections.abc import Iterable
from importlib import import_module
from types import BuiltinFunctionType, FunctionType
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from sklearn_dl._files import ModelFileError

# Ours, and those of scikit-learn that are no estimators but parts of fitted ones.
_CLASSES = {
    "sklearn_dl": "FeatureCache FeatureSVC FeatureScaler ImageClassifier "
    "ImageFeatureExtractor ImageRegressor",
    "sklearn_dl._targets": "ClassTargets ContinuousTargets LabelTargets",
    "sklearn_dl.augmentation": "Augment",
    "sklearn_dl.backbones": "CallablePreprocessing",
    "sklearn_dl.datasets": "Channels",
    "sklearn_dl.training": "Head LogLoss Optimizer Schedule Trainable",
    "sklearn.calibration": "_CalibratedClassifier",
    "sklearn.ensemble._hist_gradient_boosting.predictor": "TreePredictor",
    "sklearn.metrics._scorer": "_CurveScorer _MultimetricScorer _PassthroughScorer "
    "_Scorer",
    "sklearn.utils._metadata_requests": "MetadataRequest MethodMetadataRequest",
}
OBJECTS = frozenset(f"{m}:{name}" for m, c in _CLASSES.items() for name in c.split())
# Modules of scikit-learn whose classes are all small values of that kind.
OBJECT_MODULES = frozenset(
    {"sklearn._loss.link", "sklearn._loss.loss"}
    | {"sklearn.gaussian_process.kernels", "sklearn.model_selection._split"}
)
# Compiled classes, which are called with plain values.
CALLED_MODULES = frozenset({"sklearn._loss._loss", "sklearn.linear_model._sgd_fast"})
CALLED = frozenset({"sklearn.tree._tree:Tree"})
# Types that may be values of parameters, never called on loading.
VALUES = frozenset(
    {f"builtins:{name}" for name in ("bool", "float", "int", "object", "str")}
    | {"sklearn_dl.training:SAM"}
)
REFERENCES = (type, FunctionType, BuiltinFunctionType, np.ufunc)
_UFUNCS = ("numpy", "scipy.special")
# Where scikit-learn's functions may be values: scores and kernels.
_FUNCTIONS = ("sklearn.feature_selection.", "sklearn.metrics.")
# What compiled modules of scikit-learn 1.7 are called by their own classes.
_SHORT_NAMES = {"_loss": "sklearn._loss._loss"}
_NOT_LIBRARY = frozenset({"_build_utils", "conftest", "datasets", "externals", "tests"})


def name_of(thing: Any) -> str | None:
    """Return ``module:name`` of a class or function; None where it can't be imported.

    Our own are named by the package that exports them, so that files outlast moves.
    """
    name = getattr(thing, "__qualname__", getattr(thing, "__name__", None))
    if not isinstance(name, str) or "<" in name:
        return None
    module = _home_of(thing)
    modules = [*_UFUNCS] if isinstance(thing, np.ufunc) else [module]
    if isinstance(module, str) and module.startswith("sklearn_dl."):
        modules.insert(0, module.partition("._")[0])
    for module in modules:
        found = sys.modules.get(module) if isinstance(module, str) else None
        try:
            if functools.reduce(getattr, name.split("."), found) is thing:
                return f"{module}:{name}"
        except AttributeError:
            continue
    return None


def _home_of(thing: Any) -> Any:
    module = getattr(thing, "__module__", None)
    return _SHORT_NAMES.get(module, module) if isinstance(module, str) else module


class Trust:
    """What may be named by a file: a short list, and what the user adds to it.

    A name is used as an ``"object"`` (a class of which an instance is made without
    calling it), in a ``"call"``, or as a ``"value"``.
    """

    def __init__(self, trusted: Iterable[Any] = ()):
        if isinstance(trusted, str) or not isinstance(trusted, Iterable):
            raise TypeError(
                "trusted must be a list of classes and functions, such as "
                f"[my_module.MyTransformer]; got {trusted!r}."
            )
        self.given: dict[str, Any] = {}
        for thing in trusted:
            if isinstance(thing, str) or not callable(thing):
                raise TypeError(
                    f"trusted has {thing!r}: give the class or function itself, so "
                    "that nothing is imported because a file says so."
                )
            name = name_of(thing) or f"?:{getattr(thing, '__qualname__', thing)}"
            self.given[name] = thing

    def allows(self, name: str, use: str) -> bool:
        """Tell, by its name alone, whether something may be looked up."""
        return self._given(name) is not None or _is_listed(name, use)

    def find(self, name: str, use: str) -> Any:
        """Return what a name stands for, if it is trusted and there."""
        given = self._given(name)
        if given is not None:
            return given
        module, _, qualname = name.partition(":")
        try:
            found: Any = import_module(module)
            found = functools.reduce(getattr, qualname.split("."), found)
        except (ImportError, AttributeError) as error:
            raise ModelFileError(
                f"{name} is not in the versions installed here ({error})."
            ) from error
        if not _is_sound(name, found, use):
            raise untrusted([name])
        return found

    def knows(self, thing: Any, use: str) -> bool:
        """Tell whether something can be loaded with this trust."""
        name = name_of(thing)
        if name is None or not self.allows(name, use):
            return False
        try:
            return self.find(name, use) is thing
        except ModelFileError:
            return False

    def _given(self, name: str) -> Any:
        if name in self.given:
            return self.given[name]
        module, _, qualname = name.partition(":")
        if module != "__main__":
            return None
        # What a script had in itself is in a module of the user's by now.
        same = [v for k, v in self.given.items() if k.partition(":")[2] == qualname]
        return same[0] if len(same) == 1 else None


def untrusted(names: Iterable[str]) -> ModelFileError:
    """Return the error about what a file names and nobody trusts."""
    shown = ", ".join(name.replace(":", ".") for name in sorted(names))[:500]
    return ModelFileError(
        f"The model uses {shown}, which sklearn_dl doesn't know. If you know and trust "
        "them, and where the file is from, import them and give "
        f"load(path, trusted=[{shown}])."
    )


def _is_listed(name: str, use: str) -> bool:
    module, _, qualname = name.partition(":")
    parts = module.split(".")
    if not all(part.isidentifier() for part in (*parts, *qualname.split("."))):
        return False
    if use == "call":
        return name in CALLED or module in CALLED_MODULES
    if name in OBJECTS or module in OBJECT_MODULES:
        return True
    if parts[0] == "sklearn" and len(parts) > 1 and not _NOT_LIBRARY & set(parts):
        return True  # `_is_sound` lets estimators through only
    return use == "value" and (
        name in VALUES or module in _UFUNCS or parts[:2] == ["torch", "optim"]
    )


def _is_sound(name: str, found: Any, use: str) -> bool:
    """Tell whether what a listed name led to is of the kind that the list is about."""
    module, kind = name.partition(":")[0], isinstance(found, type)
    at_home = _home_of(found) == module
    if use == "call":
        return at_home and isinstance(found, type | BuiltinFunctionType)
    if name in OBJECTS or name in VALUES:
        return kind
    if kind and at_home and module.startswith("sklearn."):
        return module in OBJECT_MODULES or issubclass(found, BaseEstimator)
    if use != "value":
        return False
    if module in _UFUNCS:
        return isinstance(found, np.ufunc) or (kind and issubclass(found, np.generic))
    if module.startswith("torch.optim"):
        return kind and "Optimizer" in {base.__name__ for base in found.__mro__}
    return at_home and module.startswith(_FUNCTIONS) and isinstance(found, FunctionType)
