"""What a network is made of, told quickly.

The generic walks of `torch.nn.Module` take longer over a deep network than it takes to
train a head on features, and a search does both at each fit.
"""

import types
from collections import OrderedDict
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import torch
from torch import nn

# What a copy may have in common with the original.
_ATOMS = (
    *(bool, int, float, complex, str, bytes, type, type(None), range),
    *(types.FunctionType, types.BuiltinFunctionType),
    *(torch.dtype, torch.memory_format, torch.device),
)


def walk(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield each submodule under each of its names, the module itself first.

    The order is that of ``named_modules(remove_duplicate=False)``; names end with a
    dot, but for the empty one.
    """
    stack = [("", module)]
    while stack:
        prefix, part = stack.pop()
        yield prefix, part
        children = part._modules
        for name in reversed(children):
            child = children[name]
            if child is not None:
                stack.append((f"{prefix}{name}.", child))


def named_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return all parameters, then all buffers, tied ones under each of their names."""
    parameters: dict[str, torch.Tensor] = {}
    buffers: dict[str, torch.Tensor] = {}
    for prefix, part in walk(module):
        for name, parameter in part._parameters.items():
            if parameter is not None:
                parameters[prefix + name] = parameter
        for name, buffer in part._buffers.items():
            if buffer is not None:
                buffers[prefix + name] = buffer
    return parameters | buffers


def named_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters, tied ones under the first of their names."""
    found: dict[str, nn.Parameter] = {}
    seen: set[int] = set()
    for prefix, part in walk(module):
        for name, parameter in part._parameters.items():
            if parameter is not None and id(parameter) not in seen:
                seen.add(id(parameter))
                found[prefix + name] = parameter
    return found


class Mould:
    """What copies of a network are cast from, each with tensors given to it.

    They are as ``deepcopy`` makes them, in a fraction of the time.

    Parameters
    ----------
    module : torch.nn.Module
        The network. It must not change any more.
    shared : list of object
        What all the copies are to have in common, tensors aside.
    """

    def __init__(self, module: nn.Module, shared: list[Any]):
        self.module = module
        self.shared = {id(value): value for value in shared}
        self.plans: dict[int, _Plan] = {}
        for _, part in walk(module):
            if _is_plain(type(part)):
                self.plans[id(part)] = _Plan(part, self.shared)

    def cast(self, tensors: dict[int, torch.Tensor]) -> nn.Module:
        """Return a copy; `tensors` has what takes the place of each, by its id."""
        return self._copy(self.module, {**self.shared, **tensors})

    def _copy(self, part: nn.Module, memo: dict[int, Any]) -> nn.Module:
        done = memo.get(id(part))
        if done is not None:
            return done
        plan = self.plans.get(id(part))
        if plan is None:
            return deepcopy(part, memo)
        new = memo[id(part)] = object.__new__(type(part))
        state = vars(new)
        state.update(vars(part))
        for name, value in plan.empty:
            state[name] = memo.setdefault(id(value), type(value)())
        for name, value in plan.tensors:
            state[name] = type(value)(
                (n, None if tensor is None else memo[id(tensor)])
                for n, tensor in value.items()
            )
        state["_modules"] = type(part._modules)(
            (n, None if child is None else self._copy(child, memo))
            for n, child in part._modules.items()
        )
        for name, value in plan.others:
            state[name] = deepcopy(value, memo)
        return new


class _Plan:
    """Which attributes of a module a copy can't have in common with it."""

    def __init__(self, part: nn.Module, shared: dict[int, Any]):
        self.empty: list[tuple[str, Any]] = []
        self.tensors: list[tuple[str, dict]] = []
        self.others: list[tuple[str, Any]] = []
        for name, value in vars(part).items():
            kind = type(value)
            atoms = value if kind is tuple else (value,)
            if all(type(atom) in _ATOMS for atom in atoms) or id(value) in shared:
                continue
            if name == "_modules":
                continue  # copied one by one
            if name in ("_parameters", "_buffers"):
                self.tensors.append((name, value))
            elif kind in (OrderedDict, dict, set, list) and not value:
                self.empty.append((name, value))
            else:
                self.others.append((name, value))


def _is_plain(kind: Any) -> bool:
    """Tell whether the instances of a class are copied by way of their ``__dict__``."""
    # Those of torch's own layers only know what older releases didn't write.
    takes_state = kind.__setstate__.__module__.startswith("torch.nn.modules.")
    return (
        takes_state
        and not hasattr(kind, "__deepcopy__")
        and kind.__new__ is object.__new__
        and kind.__reduce__ is object.__reduce__
        and kind.__reduce_ex__ is object.__reduce_ex__
        and kind.__getstate__ is nn.Module.__getstate__
    )
