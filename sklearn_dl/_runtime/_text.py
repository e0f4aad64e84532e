"""A text for any value: the same in another process, another for another value."""

import copyreg
import dis
import functools
import hashlib
import re
import sys
from collections import deque
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import (
    CodeType,
    EllipsisType,
    FunctionType,
    MappingProxyType,
    MethodType,
    ModuleType,
    NoneType,
)
from typing import Any

import numpy as np
import torch
from PIL import Image

from sklearn_dl._runtime._tokens import is_idle, own_token

_LEAVES = (NoneType, bool, int, float, complex, str, EllipsisType)
_MEMBERS = (FunctionType, staticmethod, classmethod, property)
# Names tell what these hold, whatever version of them is installed.
_KNOWN = "PIL numpy pandas scipy sklearn sklearn_dl skorch timm torch torchvision"
_NAMED = frozenset(_KNOWN.split()) | sys.stdlib_module_names
_LONG = 200  # characters; what is longer is digested
_DEPTH = 100  # levels; what lies deeper is written apart
_OF_MODULES = frozenset(vars(torch.nn.Module()))


def stable_text(value: Any, *, skip: tuple[str, ...] = ()) -> str:
    """Return a text that is the same in another process, and differs with the value.

    Parameters
    ----------
    value : object
        Anything: settings, arrays, tensors, transforms, networks, functions.
    skip : tuple of str, default=()
        Keys of dicts that end in one of these are left out.

    Returns
    -------
    str
        Short: what is long is replaced by its SHA-256 digest. It is meant to be
        compared, or digested in its turn.

    Notes
    -----
    - Dicts and sets are the same in any order.
    - Functions are told by their code, defaults and closure, and by the globals that
      the code names, with those that they name; classes by their methods and
      attributes. Modules, and all of torch, torchvision, timm, NumPy, Pillow,
      scikit-learn and the standard library, by their names; other installed packages
      by the code of what is used, without its globals.
    - Objects are told by their class and by what pickle would keep of them; networks by
      their settings, parameters and buffers, without hooks. What can't be pickled and
      has no attributes (a generator, a pointer) equals nothing but itself, in this
      process; locks are all the same.
    - Modules that a function imports in its body are not followed.

    Examples
    --------
    >>> from functools import partial
    >>> from sklearn_dl._runtime import stable_text
    >>> stable_text({"size": 64, "mean": (0.5, 0.25)})
    "{'mean': (0.5, 0.25), 'size': 64}"
    >>> stable_text(partial(round, ndigits=1)) == stable_text(partial(round, ndigits=2))
    False
    """
    return _Writer(skip).run(value)


class _Writer:
    """One call's state: what is being written, was written, and is still to write."""

    def __init__(self, skip: tuple[str, ...]):
        self.skip = skip
        self.open: dict[int, int] = {}  # id -> level, of what is being written
        self.reach = 0  # the outermost level that what is being written refers to
        self.done: dict[int, tuple[Any, str]] = {}  # with the value: ids are used again
        self.marks = 0
        self.apart: dict[str, str] = {}  # globals, and what lies too deep
        self.queue: deque[tuple[str, Any]] = deque()

    def run(self, value: Any) -> str:
        text = self.text(value)
        while self.queue:  # not in depth, so that functions may name each other
            name, found = self.queue.popleft()
            if name.startswith("<deep "):
                del self.done[id(found)]
            self.apart[name] = self.text(found)
        if not self.apart:
            return text
        apart = ", ".join(f"{n}={t}" for n, t in sorted(self.apart.items()))
        return f"{text} where {_shorten(apart)}"

    def text(self, value: Any) -> str:
        if type(value) in _LEAVES:
            return _shorten(repr(value))
        if isinstance(value, bytes | bytearray | memoryview):
            return f"{type(value).__name__} {_digest(value)}"
        key, level = id(value), len(self.open)
        if key in self.done:
            return self.done[key][1]
        if key in self.open:
            self.reach = min(self.reach, self.open[key])
            return f"<up {level - self.open[key]}>"
        if level >= _DEPTH:
            mark = self.mark("deep", value)
            self.queue.append((mark, value))
            return mark
        self.open[key] = level
        outer, self.reach = self.reach, level
        try:
            text = _shorten(self.write(value))
        finally:
            del self.open[key]
        if self.reach < level:  # part of a cycle: the text is true at this place only
            self.mark("cycle", value)
        else:
            self.done[key] = value, text
        self.reach = min(self.reach, outer)
        return text

    def mark(self, why: str, value: Any) -> str:
        """Return what stands for a value from now on."""
        self.marks += 1
        self.done[id(value)] = value, f"<{why} {self.marks}>"
        return self.done[id(value)][1]

    def items(self, values: Any) -> str:
        return ", ".join([self.text(value) for value in values])

    def write(self, value: Any) -> str:
        kind = type(value)
        if kind is list:
            return f"[{self.items(value)}]"
        if kind is tuple:
            return f"({self.items(value)})"
        if kind in (set, frozenset):
            return f"{kind.__name__} {sorted(self.text(item) for item in value)}"
        if kind in (dict, MappingProxyType):
            return self.mapping(value)
        if isinstance(value, torch.Tensor):
            return _tensor_text(value)
        if kind in (np.ndarray, np.memmap):
            return self.array(value)
        if isinstance(value, np.generic):
            return self.number(value)
        if isinstance(value, Enum):
            return f"{_name(kind)}.{value.name} {self.text(value.value)}"
        if isinstance(value, ModuleType):
            return f"module {value.__name__}"
        if isinstance(value, type):
            return self.class_(value)
        if isinstance(value, Image.Image):
            return self.image(value)
        if isinstance(value, torch.nn.Module):
            return self.network(value)
        if isinstance(value, torch.fx.Graph):
            return _plain_repr(value)
        return self.callable_(value) or self.object_(value)

    def mapping(self, value: Any) -> str:
        kept = [
            (self.text(key), item)
            for key, item in value.items()
            if not str(key).endswith(self.skip)
        ]
        kept.sort(key=lambda pair: pair[0])
        return "{" + ", ".join([f"{key}: {self.text(v)}" for key, v in kept]) + "}"

    def array(self, value: np.ndarray) -> str:
        form = f"array {value.dtype} {value.shape}"
        if value.dtype.hasobject:
            return f"{form} {self.items(value.ravel().tolist())}"
        return f"{form} {_digest(np.ascontiguousarray(value))}"

    def number(self, value: np.generic) -> str:
        plain = value.item() if value.dtype.kind in "biufcSU" else value
        known = not isinstance(plain, np.generic)  # long doubles have no plain form
        return self.text(plain) if known else f"{value.dtype} {value!r}"

    def image(self, value: Image.Image) -> str:
        facts = [value.mode, value.size, value.info.get("transparency")]
        colours = value.getpalette() if value.mode in ("P", "PA") else None
        return f"image {self.items([*facts, colours, value.tobytes()])}"

    def network(self, value: torch.nn.Module) -> str:
        own = {k: v for k, v in vars(value).items() if k not in _OF_MODULES}
        tensors = [
            dict(value.named_parameters(recurse=False)),
            dict(value.named_buffers(recurse=False)),
        ]
        parts = [type(value), own, _source(value), *tensors]
        return f"network {self.items([*parts, *value._modules.items()])}"

    def class_(self, value: type) -> str:
        name = _name(value)
        if _depth(value.__module__) == "name":
            return name
        own: dict[str, Any] = {
            key: member
            for key, member in vars(value).items()
            if isinstance(member, _MEMBERS)
            or not (key.startswith("_abc_") or key[:2] == key[-2:] == "__")
        }
        if issubclass(value, Enum):
            own = {k: m for k, m in own.items() if isinstance(m, _MEMBERS)}
            own["__members__"] = [(m.name, m.value) for m in value]
        return f"class {name} {self.items([own, *value.__bases__])}"

    def callable_(self, value: Any) -> str | None:
        """Write what is called and made of code; None for everything else."""
        if isinstance(value, CodeType):
            return self.code(value)
        if isinstance(value, FunctionType):
            return self.function(value)
        if isinstance(value, MethodType):
            return f"method {self.items([value.__func__, value.__self__])}"
        if isinstance(value, staticmethod | classmethod):
            return f"{type(value).__name__} {self.text(value.__func__)}"
        if isinstance(value, property):
            return f"property {self.items([value.fget, value.fset, value.fdel])}"
        if isinstance(value, functools._lru_cache_wrapper):
            return f"cached {self.text(value.__wrapped__)}"
        return None

    def function(self, value: FunctionType) -> str:
        name, space = _name(value), _main(value.__globals__.get("__name__"))
        if _depth(value.__module__) == "name" and "<" not in name:
            return name  # neither a lambda nor made in a call
        if _depth(space) == "all":
            for code in _nested(value.__code__):
                for read in _globals_read(code):
                    if read in value.__globals__:
                        self.follow(space, read, value.__globals__[read], code.co_names)
        given = [value.__defaults__, value.__kwdefaults__, _closure(value)]
        return f"function {name} {self.items([*given, vars(value), value.__code__])}"

    def follow(self, space: str, name: str, value: Any, names: tuple[str, ...]) -> None:
        """Note a global that a code reads; of the user's modules, what it names."""
        pending, seen = [(f"{space}.{name}", value)], set()
        while pending:
            key, found = pending.pop()
            if not isinstance(found, ModuleType):
                if key not in self.apart:
                    self.apart[key] = ""
                    self.queue.append((key, found))
                continue
            self.apart[key] = f"module {found.__name__}"
            if _depth(found.__name__) == "all" and id(found) not in seen:
                seen.add(id(found))
                inside = vars(found)
                pending += [
                    (f"{found.__name__}.{n}", inside[n]) for n in names if n in inside
                ]

    def code(self, value: CodeType) -> str:
        parts: list[Any] = [value.co_code, value.co_exceptiontable, value.co_consts]
        parts += [value.co_names, value.co_varnames, value.co_freevars]
        parts += [value.co_flags, value.co_argcount]
        parts += [value.co_posonlyargcount, value.co_kwonlyargcount]
        return f"code {self.items(parts)}"

    def object_(self, value: Any) -> str:
        """Write an object by its class and by what makes it up."""
        kind = self.text(type(value))
        if isinstance(value, torch.Generator):
            return f"{kind} {value.device} {self.text(value.get_state())}"
        if hasattr(value, "get_params"):
            learned = {k: v for k, v in vars(value).items() if _is_learned(k)}
            return f"{kind} {self.items([value.get_params(deep=False), learned])}"
        reduce = copyreg.dispatch_table.get(type(value))
        try:
            made = reduce(value) if reduce else value.__reduce_ex__(4)
        except Exception:  # whatever a class raises that can't be pickled
            made = None
        if isinstance(made, str):  # it stands in its module under this name
            return f"{kind} {getattr(value, '__module__', None)}.{made}"
        if isinstance(made, tuple):
            make, arguments, state, values, pairs = (*made, None, None, None)[:5]
            parts = [make, arguments, state]
            parts += [list(values or ()), dict(pairs or ())]
            return f"{kind} {self.items(parts)}"
        state = getattr(value, "__dict__", None)
        if not state and not is_idle(value):
            return f"{kind} {own_token(value)}"
        return f"{kind} {self.items([state, _source(value)])} {_plain_repr(value)}"


# ------------------------------------------------------------------ names and code


def _name(value: Any) -> str:
    return f"{_main(value.__module__)}.{value.__qualname__}"


def _main(module: str | None) -> str:
    """Return a module's name; a child process has the script under another."""
    return "__main__" if module == "__mp_main__" else str(module)


def _depth(module: str | None) -> str:
    """Say what tells the things of a module apart.

    "name" is their name, "code" their code too, "all" also the globals it reads.
    """
    if str(module).partition(".")[0] in _NAMED:
        return "name"
    if _main(module) == "__main__":  # its file may be an installed program's
        return "all"
    file = getattr(sys.modules.get(str(module)), "__file__", None) or ""
    installed = {"site-packages", "dist-packages"} & set(Path(file).parts)
    return "code" if installed else "all"


def _closure(function: FunctionType) -> list[Any]:
    """Return what a function took along from where it was made."""
    values = []
    for cell in function.__closure__ or ():
        try:
            values.append(cell.cell_contents)
        except ValueError:  # not filled yet
            values.append(None)
    return values


def _nested(code: CodeType) -> Iterator[CodeType]:
    """Yield a code and those of the functions in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def _globals_read(code: CodeType) -> list[str]:
    return sorted(
        {
            instruction.argval
            for instruction in dis.get_instructions(code)
            if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME")
        }
    )


def _source(value: Any) -> str | None:
    """Return the code of what torch has scripted or traced."""
    try:
        code = value.code
    except Exception:  # a scripted module raises errors of its own
        return None
    return code if isinstance(code, str) else None


def _is_learned(name: str) -> bool:
    return name.endswith("_") and not name.startswith("_")


# --------------------------------------------------------------------- plain texts


def _tensor_text(value: torch.Tensor) -> str:
    form = f"tensor {value.dtype} {tuple(value.shape)}"
    if value.is_meta:
        return f"{form} meta"
    plain = value.detach().cpu()
    if plain.is_quantized or plain.layout is not torch.strided:
        form += f" {plain.layout}"
        plain = plain.dequantize() if plain.is_quantized else plain.to_dense()
    plain = plain.resolve_conj().resolve_neg().contiguous().reshape(-1)
    return f"{form} {_digest(plain.view(torch.uint8).numpy())}"


def _plain_repr(value: Any) -> str:
    """Return the `repr` without addresses; nothing where it fails."""
    try:
        return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))
    except Exception:  # whatever the class of the value raises
        return ""


def _digest(data: Any) -> str:
    return hashlib.sha256(data).hexdigest()


def _shorten(text: str) -> str:
    return text if len(text) <= _LONG else f"sha256 {_digest(text.encode())}"
