"""Which classes and functions a file of a model may name."""

import functools
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from types import BuiltinFunctionType, FunctionType
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from sklearn_dl.persistence._errors import ModelFileError

# Ours, and those of scikit-learn that are no estimators but parts of fitted ones.
OBJECTS = frozenset(
    {
        "sklearn_dl._classifier:ImageClassifier",
        "sklearn_dl._features:ImageFeatureExtractor",
        "sklearn_dl._regressor:ImageRegressor",
        "sklearn_dl._targets:ClassTargets",
        "sklearn_dl._targets:ContinuousTargets",
        "sklearn_dl._targets:LabelTargets",
        "sklearn_dl.augmentation._presets:Augment",
        "sklearn_dl.backbones._preprocessing:CallablePreprocessing",
        "sklearn_dl._extraction._cache:FeatureCache",
        "sklearn_dl.training._head:Head",
        "sklearn_dl.training._losses:LogLoss",
        "sklearn_dl.training._optimizers:Optimizer",
        "sklearn_dl.training._schedule:Schedule",
        "sklearn_dl.training._trainable:Trainable",
        "sklearn.calibration:_CalibratedClassifier",
        "sklearn.ensemble._hist_gradient_boosting.predictor:TreePredictor",
        "sklearn.metrics._scorer:_CurveScorer",
        "sklearn.metrics._scorer:_MultimetricScorer",
        "sklearn.metrics._scorer:_PassthroughScorer",
        "sklearn.metrics._scorer:_Scorer",
        "sklearn.utils._metadata_requests:MetadataRequest",
        "sklearn.utils._metadata_requests:MethodMetadataRequest",
    }
)
# Modules of scikit-learn whose classes are all small values of that kind.
OBJECT_MODULES = frozenset(
    {
        "sklearn._loss.link",
        "sklearn._loss.loss",
        "sklearn.gaussian_process.kernels",
        "sklearn.model_selection._split",
    }
)
# Compiled classes, which are called with plain values.
CALLED_MODULES = frozenset({"sklearn._loss._loss", "sklearn.linear_model._sgd_fast"})
CALLED = frozenset({"sklearn.tree._tree:Tree"})
# Types and functions that may be values of parameters, never called on loading.
VALUES = frozenset(
    {
        *(f"builtins:{name}" for name in ("bool", "float", "int", "object", "str")),
        "sklearn_dl.training._sam:SAM",
    }
)
# Where scikit-learn's functions may be values: scores and kernels.
_FUNCTIONS = ("sklearn.feature_selection.", "sklearn.metrics.")
_NOT_LIBRARY = frozenset({"_build_utils", "conftest", "datasets", "externals", "tests"})


def name_of(thing: Any) -> str | None:
    """Return ``module:name`` of a class or function; None where it can't be imported.

    Examples
    --------
    >>> from sklearn_dl.persistence._trust import name_of
    >>> name_of(len), name_of(lambda: None)
    ('builtins:len', None)
    """
    name = getattr(thing, "__qualname__", getattr(thing, "__name__", None))
    if not isinstance(name, str) or "<" in name:
        return None
    modules = [getattr(thing, "__module__", None)]
    if isinstance(thing, np.ufunc):
        modules = ["numpy", "scipy.special"]
    for module in modules:
        found = sys.modules.get(module) if isinstance(module, str) else None
        try:
            if functools.reduce(getattr, name.split("."), found) is thing:
                return f"{module}:{name}"
        except AttributeError:
            continue
    return None


class Trust:
    """What may be named by a file: a short list, and what the user adds to it.

    Parameters
    ----------
    trusted : iterable of classes and functions
        The user's own.
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
        """Tell, by its name alone, whether something may be looked up.

        Parameters
        ----------
        name : str
            ``module:name``.
        use : {"object", "call", "value"}
            Whether instances are made without calling it, it is called, or it is a
            value.
        """
        return self._given(name) is not None or _listed(name, use)

    def find(self, name: str, use: str) -> Any:
        """Return what a name stands for.

        Raises
        ------
        ModelFileError
            If it isn't trusted, or isn't there.
        """
        given = self._given(name)
        if given is not None:
            return given
        if not _listed(name, use):
            raise untrusted([name])
        module, _, qualname = name.partition(":")
        try:
            found = functools.reduce(
                getattr, qualname.split("."), import_module(module)
            )
        except (ImportError, AttributeError) as error:
            raise ModelFileError(
                f"{name} is not in the versions installed here ({error})."
            ) from error
        if not _is_what_it_should_be(found, module, use):
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


def _listed(name: str, use: str) -> bool:
    module, _, qualname = name.partition(":")
    parts = module.split(".")
    if not all(part.isidentifier() for part in (*parts, *qualname.split("."))):
        return False
    if use == "call":
        return name in CALLED or module in CALLED_MODULES
    if name in OBJECTS or module in OBJECT_MODULES:
        return True
    if parts[0] == "sklearn" and len(parts) > 1 and not _NOT_LIBRARY & set(parts):
        return True  # `find` takes estimators only
    return use == "value" and (
        name in VALUES
        or module in ("numpy", "scipy.special")
        or parts[:2] == ["torch", "optim"]
    )


def _is_what_it_should_be(found: Any, module: str, use: str) -> bool:
    """Tell whether something imported is of the kind that the list is about."""
    if use == "call":
        compiled = isinstance(found, type | BuiltinFunctionType)
        return compiled and found.__module__ == module
    kind = isinstance(found, type)
    if kind and found.__module__ == module and module.startswith("sklearn"):
        name = f"{module}:{found.__qualname__}"
        listed = name in OBJECTS or name in VALUES or module in OBJECT_MODULES
        return listed or issubclass(found, BaseEstimator)
    if use != "value":
        return False
    if module.startswith(_FUNCTIONS):
        return isinstance(found, FunctionType) and found.__module__ == module
    if module in ("numpy", "scipy.special"):
        return isinstance(found, np.ufunc) or (kind and issubclass(found, np.generic))
    if module.startswith("torch.optim"):
        return kind and "Optimizer" in {base.__name__ for base in found.__mro__}
    return module == "builtins" and kind


def is_reference(value: Any) -> bool:
    """Tell whether a value is a class or a function, rather than an object."""
    functions: tuple[type | Callable, ...] = (type, FunctionType, BuiltinFunctionType)
    return isinstance(value, (*functions, np.ufunc))  # type: ignore[arg-type]
