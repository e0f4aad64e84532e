"""Fingerprint of any object: the same in another process, another for another value."""

import contextlib
import copyreg
import dis
import functools
import hashlib
import os
import re
import sys
import threading
import types
import uuid
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from itertools import count
from pathlib import Path
from types import CodeType, FunctionType, MappingProxyType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image

_LEAVES = (types.NoneType, bool, int, float, complex, str, types.EllipsisType)
_MEMBERS = (FunctionType, staticmethod, classmethod, property)
# Names tell what these hold, whatever version of them is installed.
_KNOWN = "PIL numpy pandas scipy sklearn sklearn_dl skorch timm torch torchvision"
_NAMED = frozenset(_KNOWN.split()) | sys.stdlib_module_names
_LONG = 200  # characters; what is longer is digested
_LOADS = ("LOAD_GLOBAL", "LOAD_NAME")
_OF_MODULES = frozenset(vars(torch.nn.Module()))
# What these hold changes nothing of what the object that holds them does, or they are
# told by their names.
_IDLE = (
    *(type(threading.Lock()), type(threading.RLock()), threading.local),
    *(types.GetSetDescriptorType, types.MemberDescriptorType),
)
# What is called, and the attributes that tell one from another.
_MADE_OF: dict[type, str] = {
    CodeType: "co_code co_exceptiontable co_consts co_names co_varnames co_freevars "
    "co_flags co_argcount co_posonlyargcount co_kwonlyargcount",
    MethodType: "__func__ __self__",
    staticmethod: "__func__",
    classmethod: "__func__",
    property: "fget fset fdel",
    functools._lru_cache_wrapper: "__wrapped__",
}

Finish = Callable[[list[str]], str]


def fingerprint_text(value: Any, *, skip: tuple[str, ...] = ()) -> str:
    """Return a text that is the same in another process, and differs with the value.

    It is short: what is long is replaced by its SHA-256 digest. Keys of dicts that end
    in one of `skip` are left out.

    - Dicts and sets are the same in any order.
    - Functions are told by their code, defaults and closure, and by the globals that
      the code names, with those that they name; classes by their methods and
      attributes; modules, and what `_NAMED` lists, by their names; other installed
      packages by the code of what is used, without its globals.
    - Objects are told by their class and by what pickle would keep of them; networks by
      their settings, parameters and buffers, without hooks. What can't be pickled and
      has no attributes (a generator, a pointer) equals nothing but itself, in this
      process; locks are all the same.
    - Modules that a function imports in its body are not followed.
    """
    return _Writer(skip).run(value)


class _Open:
    """A value that is being written: its parts, and the texts of the first of them."""

    def __init__(self, value: Any, parts: Sequence[Any], finish: Finish, level: int):
        self.value, self.parts, self.finish = value, parts, finish
        self.texts: list[str] = []
        self.reach = level  # the outermost level that it refers to


class _Writer:
    """One call's state: what was written, and what is still to write."""

    def __init__(self, skip: tuple[str, ...]):
        self.skip = skip
        self.levels: dict[int, int] = {}  # id -> level, of what is being written
        self.done: dict[int, tuple[Any, str]] = {}  # with the value: ids are used again
        self.n_cycles = 0
        self.globals: dict[str, str] = {}  # by name, those that functions read
        self.queue: deque[tuple[str, Any]] = deque()
        self.followed: set[tuple[str, tuple[str, ...]]] = set()  # modules, names read

    def run(self, value: Any) -> str:
        text = self.text(value)
        while self.queue:  # not in depth, so that functions may name each other
            name, found = self.queue.popleft()
            self.globals[name] = self.text(found)
        if not self.globals:
            return text
        read = ", ".join(f"{n}={t}" for n, t in sorted(self.globals.items()))
        return f"{text} where {_shorten(read)}"

    def text(self, value: Any) -> str:
        """Write a value with its parts, depth first, on a stack of its own."""
        stack: list[_Open] = []
        text = self.begin(value, stack)
        while stack:
            top = stack[-1]
            if text is not None:
                top.texts.append(text)
            if len(top.texts) < len(top.parts):
                text = self.begin(top.parts[len(top.texts)], stack)
            else:
                text = self.end(stack)
        assert text is not None
        return text

    def begin(self, value: Any, stack: list[_Open]) -> str | None:
        """Return the text of what is plain or known; open everything else."""
        if type(value) in _LEAVES:
            return _shorten(repr(value))
        if isinstance(value, bytes | bytearray | memoryview):
            return f"{type(value).__name__} {_digest(value)}"
        key, level = id(value), len(stack)
        if key in self.done:
            return self.done[key][1]
        if key in self.levels:
            stack[-1].reach = min(stack[-1].reach, self.levels[key])
            return f"<up {level - self.levels[key]}>"
        found = self.parts(value)
        if isinstance(found, str):
            self.done[key] = value, _shorten(found)
            return self.done[key][1]
        self.levels[key] = level
        stack.append(_Open(value, *found, level))
        return None

    def end(self, stack: list[_Open]) -> str:
        """Return the text of what all parts are written of."""
        top, level = stack.pop(), len(stack)
        del self.levels[id(top.value)]
        text = again = _shorten(top.finish(top.texts))
        if top.reach < level:  # part of a cycle: the text is true at this place only
            self.n_cycles += 1
            again = f"<cycle {self.n_cycles}>"
            stack[-1].reach = min(stack[-1].reach, top.reach)
        self.done[id(top.value)] = top.value, again
        return text

    def parts(self, value: Any) -> str | tuple[Sequence[Any], Finish]:
        """Return the parts of a value, and what makes a text of theirs."""
        kind = type(value)
        if kind in (list, tuple):
            form = "[{}]" if kind is list else "({})"
            return value, lambda texts: form.format(", ".join(texts))
        if kind in (set, frozenset):
            return [*value], lambda texts: f"{kind.__name__} {sorted(texts)}"
        if kind in (dict, MappingProxyType):
            return self.mapping(value)
        if kind in (np.ndarray, np.memmap):
            form = f"array {value.dtype} {value.shape}"
            if value.dtype.hasobject:
                return value.ravel().tolist(), _after(form)
            return f"{form} {_digest(np.ascontiguousarray(value))}"
        if isinstance(value, np.generic):
            plain = value.item() if value.dtype.kind in "biufcSU" else value
            if isinstance(plain, np.generic):  # long doubles have no plain form
                return f"{value.dtype} {value!r}"
            return [plain], lambda texts: texts[0]
        if isinstance(value, torch.Tensor):
            return _tensor_text(value)
        if isinstance(value, Enum):
            return [value.value], _after(f"{_name(kind)}.{value.name}")
        if isinstance(value, ModuleType):
            return f"module {value.__name__}"
        if isinstance(value, type | FunctionType):
            return self.defined(value)
        if isinstance(value, Image.Image):
            facts = [value.mode, value.size, value.info.get("transparency")]
            colours = value.getpalette() if value.mode in ("P", "PA") else None
            return [*facts, colours, value.tobytes()], _after("image")
        if isinstance(value, torch.fx.Graph):
            return _plain_repr(value)
        if isinstance(value, torch.nn.Module):
            own = {k: v for k, v in vars(value).items() if k not in _OF_MODULES}
            both = value.named_parameters, value.named_buffers
            tensors = [dict(named(recurse=False)) for named in both]
            facts = [kind, own, _source(value), *tensors]
            return [*facts, *value._modules.items()], _after("network")
        for made_of, attributes in _MADE_OF.items():
            if isinstance(value, made_of):
                found = [getattr(value, name) for name in attributes.split()]
                return found, _after(made_of.__name__)
        return _object_parts(value)

    def mapping(self, value: Any) -> tuple[list[Any], Finish]:
        kept = [(k, v) for k, v in value.items() if not str(k).endswith(self.skip)]
        kept.sort(key=lambda pair: repr(pair[0]) if type(pair[0]) in _LEAVES else "")

        def finish(texts: list[str]) -> str:
            both = zip(texts[::2], texts[1::2], strict=True)
            pairs = sorted(both, key=lambda pair: pair[0])
            return "{" + ", ".join([f"{key}: {text}" for key, text in pairs]) + "}"

        return [part for pair in kept for part in pair], finish

    def defined(self, value: Any) -> str | tuple[list[Any], Finish]:
        """Return the name, or the parts, of a class or function."""
        name = _name(value)
        if _told_by(value.__module__) == "name":
            if isinstance(value, type) or "<" not in name:
                return name  # neither a lambda nor made in a call
        if isinstance(value, type):
            return [_members(value), *value.__bases__], _after(f"class {name}")
        space = _main(value.__globals__.get("__name__"))
        if _told_by(space) == "all":
            for read, names in _globals_read(value.__code__):
                if read in value.__globals__:
                    self.follow(f"{space}.{read}", value.__globals__[read], names)
        closure = list(map(_content, value.__closure__ or ()))
        given = [value.__defaults__, value.__kwdefaults__, closure]
        return [*given, vars(value), value.__code__], _after(f"function {name}")

    def follow(self, key: str, value: Any, names: tuple[str, ...]) -> None:
        """Note a global that a code reads; of the user's modules, what it names."""
        if not isinstance(value, ModuleType):
            if key not in self.globals:
                self.globals[key] = ""
                self.queue.append((key, value))
            return
        module = value.__name__
        self.globals[key] = f"module {module}"
        if _told_by(module) == "all" and (module, names) not in self.followed:
            self.followed.add((module, names))
            for name in reversed([n for n in names if n in vars(value)]):
                self.follow(f"{module}.{name}", vars(value)[name], names)


def _after(form: str, end: str = "") -> Finish:
    return lambda texts: f"{form} {', '.join(texts)}{end}"


def _members(value: type) -> dict[str, Any]:
    """Return what tells a class from others, its bases aside."""
    own = vars(value)
    methods = {n: m for n, m in own.items() if isinstance(m, _MEMBERS)}
    if issubclass(value, Enum):
        return {**methods, "__members__": [(m.name, m.value) for m in value]}
    idle = {n for n in own if n.startswith("_abc_") or n[:2] == n[-2:] == "__"}
    return {n: m for n, m in own.items() if n in methods or n not in idle}


def _object_parts(value: Any) -> tuple[list[Any], Finish]:
    """Return the class of an object, and what makes it up."""
    parts: list[Any] = [type(value)]
    end = ""
    if isinstance(value, torch.Generator):
        return [*parts, str(value.device), value.get_state()], _after("object")
    if hasattr(value, "get_params"):
        own = vars(value).items()
        learned = {k: v for k, v in own if k[-1] == "_" and k[0] != "_"}
        return [*parts, value.get_params(deep=False), learned], _after("object")
    # Asked for first: some make their dict when it is looked at, and pickle it then.
    state = getattr(value, "__dict__", None)
    reduce = copyreg.dispatch_table.get(type(value))
    try:
        made = reduce(value) if reduce else value.__reduce_ex__(4)
    except Exception:  # whatever a class raises that can't be pickled
        made = None
    if isinstance(made, str):  # it stands in its module under this name
        end = f" {getattr(value, '__module__', None)}.{made}"
    elif isinstance(made, tuple):
        make, arguments, state, values, pairs = (*made, None, None, None)[:5]
        parts += [make, arguments, state, list(values or ()), dict(pairs or ())]
    elif state or isinstance(value, _IDLE) or type(value).__module__ == _BOUND:
        parts += [state, _source(value)]
        end = f" {_plain_repr(value)}"
    else:
        end = f" {_token(value)}"
    return parts, _after("object", end)


def _name(value: Any) -> str:
    return f"{_main(value.__module__)}.{value.__qualname__}"


def _main(module: str | None) -> str:
    """Return a module's name; a child process has the script under another."""
    return "__main__" if module == "__mp_main__" else str(module)


def _told_by(module: str | None) -> str:
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


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _globals_read(code: CodeType) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield what a code and those in it read, with all that the one names."""
    loads = [i for i in dis.get_instructions(code) if i.opname in _LOADS]
    for name in sorted({load.argval for load in loads}):
        yield name, code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _globals_read(constant)


def _source(value: Any) -> str | None:
    """Return the code of what torch has scripted or traced."""
    with contextlib.suppress(Exception):  # a scripted module raises errors of its own
        if isinstance(code := value.code, str):
            return code
    return None


def package_versions(kinds: Iterable[type]) -> dict[str, str]:
    """Return the versions of the packages of classes, empty where one doesn't tell."""
    names = sorted({kind.__module__.partition(".")[0] for kind in kinds})
    return {n: str(getattr(sys.modules.get(n), "__version__", "")) for n in names}


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


_BOUND = "pybind11_builtins"  # what its functions are bound to
_PROCESS = uuid.uuid4().hex
_NUMBERS = count()
_TOKENS: dict[int, tuple[Any, str]] = {}


def _token(value: Any) -> str:
    """Return a text that no other object has, in this process or another.

    The same object has the same one in this process; what can't be referred to weakly
    is kept for that.
    """
    key = id(value)
    if key not in _TOKENS:
        token = f"{_PROCESS}-{os.getpid()}-{next(_NUMBERS)}"
        try:
            holder: Any = weakref.ref(value, lambda _: _TOKENS.pop(key, None))
        except TypeError:
            holder = value
        _TOKENS.setdefault(key, (holder, token))
    return _TOKENS[key][1]
