"""Stable texts: equal in another process, different where the values are."""

import ctypes
import dataclasses
import enum
import functools
import json
import logging
import math
import os
import re
import struct
import sys
import threading
import tracemalloc
import weakref
from collections import namedtuple
from copy import deepcopy
from pathlib import Path
from types import MappingProxyType, ModuleType

import cloudpickle
import numpy as np
import processes
import pytest
import torch
from PIL import Image, ImageFilter
from sklearn.svm import SVC
from torch import nn
from torchvision.models import ResNet18_Weights, squeezenet1_1
from torchvision.transforms import Compose, InterpolationMode, v2

from sklearn_dl._runtime import fingerprint_text as text_of

SIZE = 3
MEAN = {"rgb": torch.tensor([0.5, 0.25, 0.125])}


def even(n):
    return n == 0 or odd(n - 1)


def odd(n):
    return n == SIZE or even(n - 1)


class Colour(enum.Enum):
    RED = 1
    GREEN = 2


@dataclasses.dataclass(frozen=True)
class Settings:
    size: int = 1
    names: tuple = ("a",)


Pair = namedtuple("Pair", "a b")


class Prepare:
    """An object with a lock, without a `repr`, which refers to itself."""

    def __init__(self, size):
        self.size = size
        self.lock = threading.Lock()
        self.me = [self]

    def __call__(self, image):
        return even(self.size), MEAN

    def other(self, image):
        return image


class Net(nn.Module):
    def __init__(self, slope=0.1):
        super().__init__()
        self.slope = slope
        self.layer = nn.Linear(2, 3)
        self.dropout = nn.Dropout(0.5)
        nn.init.constant_(self.layer.weight, 0.5)
        nn.init.zeros_(self.layer.bias)
        self.register_buffer("scale", torch.ones(1), persistent=False)

    def forward(self, x):
        return nn.functional.leaky_relu(self.layer(x), self.slope) * self.scale


def values():
    """Return values whose texts two processes must agree on."""
    torch.manual_seed(0)
    return {
        "set": {"a", "b", "c", "d", ("e", 1)},
        "functions": [even, odd, lambda x: SIZE],
        "constants": lambda x: x in {"a", "b", "c", "d"},
        "object": Prepare(2),
        "bound": Prepare(2).other,
        "sentinel": object(),
        "partial": functools.partial(even, n=2),
        "cached": functools.lru_cache(even),
        "builtins": [len, math.sqrt, np.add, torch.relu, ",".join, str.upper],
        "modules": [math, torch.nn.functional],
        "logger": logging.getLogger("a"),
        "pattern": re.compile("a+"),
        "random": [np.random.default_rng(0), torch.Generator().manual_seed(1)],
        "enum": [Colour.RED, Colour, InterpolationMode.BICUBIC],
        "settings": [Settings(), Settings, Pair(1, 2)],
        "transforms": v2.Compose([v2.Resize(8), v2.Lambda(lambda x: x * SIZE)]),
        "weights": [ResNet18_Weights.DEFAULT, ResNet18_Weights.DEFAULT.transforms()],
        "net": Net(),
        "torchvision": squeezenet1_1(),
        "traced": torch.fx.symbolic_trace(Net()),
        "estimator": SVC(C=0.5),
        "images": [Image.new("RGB", (2, 2)), ImageFilter.GaussianBlur(2)],
        "lock": threading.Lock(),
    }


def texts():
    return {name: text_of(value) for name, value in values().items()}


def test_texts_are_the_same_in_another_process():
    here = texts()
    code = "import json, test_runtime_fingerprint as t; print(json.dumps(t.texts()))"
    assert json.loads(processes.run(code).stdout) == here
    assert len(set(here.values())) == len(here)


def test_texts_are_the_same_at_each_call():
    assert texts() == texts()


def test_a_text_has_no_address_and_is_short():
    for text in texts().values():
        assert " at 0x" not in text
        assert len(text) < 1000


def sub(module, **changes):
    for name, value in changes.items():
        setattr(module, name, value)
    return module


def shared(times, layer=None):
    layer = layer or nn.ReLU()
    return nn.Sequential(*[layer] * times)


def adder(k):
    return lambda x: x + k


def with_default(k):
    def function(x, *, y=k, z=0):
        return x + y

    return function


CIRCLE: list = [1]
CIRCLE.append(CIRCLE)
OTHER_CIRCLE: list = [1]
OTHER_CIRCLE.append([OTHER_CIRCLE])

DIFFERENT = {
    "numbers": [1, 1.0, True, "1", b"1", 1j, None, ..., -1, 0.0, -0.0, math.nan],
    "arrays": [
        np.arange(4),
        np.arange(4)[::-1],
        np.arange(4).reshape(2, 2),
        np.arange(4).astype(float),
        np.arange(4).astype(object),
        list(range(4)),
        tuple(range(4)),
        np.ma.array(np.arange(4), mask=[0, 0, 0, 1]),
        np.ma.array(np.arange(4), mask=[0, 0, 1, 0]),
    ],
    "long": ["a" * 10**5, "a" * 10**5 + "b", b"a" * 10**5, b"a" * 10**5 + b"b"],
    "scalars": [np.float32(0.1), 0.1, np.longdouble(1), np.datetime64("2020-01-01")],
    "tensors": [
        torch.zeros(4),
        torch.zeros(2, 2),
        torch.zeros(4, dtype=torch.bfloat16),
        torch.zeros(4, dtype=torch.bool),
        torch.zeros(4, dtype=torch.complex64),
        torch.tensor(0.0),
        torch.zeros(0),
        torch.zeros(4, device="meta"),
        torch.eye(4),
        torch.eye(4).to_sparse(),
        torch.eye(3).to_sparse(),
    ],
    "containers": [
        [1, 2],
        (1, 2),
        {1, 2},
        {1: 2},
        {"1": 2},
        {2: 1},
        [[1], 2],
        [1, [2]],
        Pair(1, 2),
        ["1, 2"],
        ["1", "2"],
        [[1, 2]],
    ],
    "circles": [CIRCLE, OTHER_CIRCLE, [1, CIRCLE], [1]],
    "functions": [
        lambda x: x + 1,
        lambda x: x + 2,
        lambda x: x - 1,
        lambda x: x.real,
        lambda x: x.imag,
        lambda x, y: x + 1,
        lambda x: lambda y: x + 1,
        lambda x: lambda y: x + 2,
        adder(1),
        adder(2),
        with_default(1),
        with_default(2),
        len,
        max,
        even,
        odd,
        functools.partial(even, 1),
        functools.partial(even, 2),
        functools.partial(odd, 1),
        functools.partial(even, n=1),
        functools.lru_cache(even),
        Prepare(1).other,
        Prepare(2).other,
        Prepare(2).__call__,
        Prepare.other,
    ],
    "lists of functions": [[adder(1), adder(2)], [adder(2), adder(1)]],
    "names": [math, os, math.sqrt, math.sin, torch.relu, nn.functional.relu, nn.ReLU],
    "objects": [
        Prepare(1),
        Prepare(2),
        Settings(1),
        Settings(2),
        Colour.RED,
        Colour.GREEN,
        Path("a"),
        Path("b"),
        ImageFilter.GaussianBlur(1),
        ImageFilter.GaussianBlur(2),
        ImageFilter.BoxBlur(2),
        re.compile("a"),
        re.compile("a", re.I),
        re.compile("a" * 300 + "b"),
        re.compile("a" * 300 + "c"),
        np.random.default_rng(0),
        np.random.default_rng(1),
        SVC(C=0.1),
        SVC(C=0.2),
        SVC(C=0.2).fit([[0], [1]], [0, 1]),
        SVC(C=0.2).fit([[0], [2]], [0, 1]),
        range(3),
        slice(1, 2),
        torch.device("cpu"),
        torch.float32,
    ],
    "images": [
        Image.new("L", (2, 3)),
        Image.new("L", (3, 2)),
        Image.new("L", (3, 2), 1),
        Image.new("RGB", (3, 2)),
        Image.new("P", (3, 2)),
        sub(Image.new("P", (3, 2)), info={"transparency": 0}),
    ],
    "networks": [
        Net(),
        Net(0.2),
        sub(Net(), scale=torch.tensor([2.0])),
        sub(Net(), dropout=nn.Dropout(0.4)),
        sub(Net(), layer=nn.Linear(2, 3, bias=False)),
        sub(Net(), forward=lambda x: x),
        nn.Sequential(Net()),
        shared(1),
        shared(2),
        nn.Sequential(nn.Tanh(), nn.ReLU()),
        nn.Sequential(nn.ReLU(), nn.Tanh()),
        torch.fx.symbolic_trace(Net()),
        torch.fx.symbolic_trace(Net(0.2)),
    ],
    "transforms": [
        v2.Resize(3),
        v2.Resize(4),
        v2.Resize(3, InterpolationMode.BICUBIC),
        v2.CenterCrop(3),
        v2.RandomHorizontalFlip(0.1),
        v2.RandomHorizontalFlip(0.2),
        v2.Compose([v2.Resize(3), v2.CenterCrop(3)]),
        v2.Compose([v2.CenterCrop(3), v2.Resize(3)]),
        v2.ToDtype(torch.float32, scale=True),
        v2.ToDtype(torch.float64, scale=True),
        v2.ToDtype(torch.float32),
        v2.Lambda(lambda x: x),
        v2.Lambda(lambda x: -x),
        Compose([v2.Resize(3)]),
        Compose([v2.Resize(4)]),
        Compose([v2.Lambda(adder(1))]),
        Compose([v2.Lambda(adder(2))]),
    ],
}


@pytest.mark.parametrize("kind", DIFFERENT)
def test_other_values_have_other_texts(kind):
    found = [text_of(value) for value in DIFFERENT[kind]]
    for i, text in enumerate(found):
        assert found.index(text) == i, (DIFFERENT[kind][i], text)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": [2]}, {"b": [2], "a": 1}),
        ({1, "a", (2, 3)}, {(2, 3), "a", 1}),
        ({0, 8}, {8, 0}),  # of one place in the table: the order is that of insertion
        ({"x": {"a": 1, "b": 2}}, {"x": MappingProxyType({"b": 2, "a": 1})}),
        (np.arange(6).reshape(2, 3).T, np.array([[0, 3], [1, 4], [2, 5]])),
        (torch.arange(6).reshape(2, 3).T, torch.tensor([[0, 3], [1, 4], [2, 5]])),
        (np.float64(0.5), 0.5),
        (np.int64(3), 3),
        (np.str_("a"), "a"),
        (Prepare(3), Prepare(3)),
        (Net(), Net().eval()),
        (adder(1), adder(1)),
    ],
)
def test_equal_values_have_equal_texts(one, other):
    assert text_of(one) == text_of(other)


def test_what_is_the_same_twice_is_as_two_equal_ones():
    shared_list = [1, {"a": [2, 3]}]
    equal = [1, {"a": [2, 3]}]
    assert text_of([shared_list, shared_list]) == text_of([shared_list, equal])


def test_readable_where_it_is_short():
    assert text_of({"b": [1, "x"], "a": None}) == "{'a': None, 'b': [1, 'x']}"


def test_keys_to_skip_are_left_out_at_every_depth():
    def text(workers, size):
        inside = {"loader__num_workers": workers, "size": size}
        return text_of({"net": [inside], "num_workers": 1}, skip=("num_workers",))

    assert text(0, 1) == text(5, 1) != text(0, 2)
    assert text_of({"num_workers": 0}) != text_of({"num_workers": 5})


def test_hooks_and_the_mode_of_a_network_are_left_out():
    net = Net()
    before = text_of(net)
    net.register_forward_hook(lambda *args: None)
    assert text_of(net.eval()) == before
    net.layer.weight.data[0, 0] += 1e-3
    assert text_of(net) != before


# ------------------------------------------------------------ what functions refer to


def defined(source, name="users_code", **given):
    """Return the module that a source makes, as if it was written to a file."""
    module = ModuleType(name)
    vars(module).update(given)
    exec(source, vars(module))
    return module


SOURCE = """
SIZE = 3
TABLE = {"a": [1, 2]}

def inner(x):
    return x + TABLE["a"][0]

def middle(x):
    return [inner(v) for v in x]

def outer(x):
    return middle(x), SIZE

def unrelated(x):
    return x

class Base:
    shift = 1
    def step(self, x):
        return x * 2

class Prepare(Base):
    def __init__(self):
        super().__init__()
    def __call__(self, x):
        return self.step(x)
    @staticmethod
    def fixed(x):
        return inner(x)
    @property
    def size(self):
        return 5

def deferred(x):
    return lambda y: inner(y)
"""


@pytest.mark.parametrize(
    ("name", "old", "new", "differs"),
    [
        ("outer", "SIZE = 3", "SIZE = 4", True),
        ("outer", "[1, 2]", "[1, 3]", True),
        ("outer", "x + TABLE", "x - TABLE", True),
        ("outer", "inner(v) for", "-inner(v) for", True),
        ("outer", "return x * 2", "return x * 3", False),
        ("outer", "\ndef unrelated", "\n\n\n# moved\ndef unrelated", False),
        ("unrelated", "SIZE = 3", "SIZE = 4", False),
        ("deferred", "x + TABLE", "x - TABLE", True),
        ("Prepare", "x * 2", "x * 3", True),
        ("Prepare", "shift = 1", "shift = 2", True),
        ("Prepare", "return 5", "return 6", True),
        ("Prepare", "[1, 2]", "[1, 3]", True),
        ("Prepare", "SIZE = 3", "SIZE = 4", False),
    ],
)
def test_a_function_differs_with_what_it_refers_to(name, old, new, differs):
    assert old in SOURCE
    one, other = defined(SOURCE), defined(SOURCE.replace(old, new))
    for make in (lambda m: getattr(m, name), lambda m: [getattr(m, name)]):
        assert (text_of(make(one)) != text_of(make(other))) == differs
    if name == "Prepare":
        texts = [text_of(one.Prepare()), text_of(other.Prepare())]
        assert (texts[0] != texts[1]) == differs


def test_a_function_that_is_called_through_a_module_counts_if_it_is_the_users():
    source = "def prepare(x):\n    return helpers.inner.f(x)"

    def text(body, unused="0"):
        inner = defined(f"def f(x): return {body}\nunused = {unused}", "helpers.inner")
        helpers = defined("", "helpers", inner=inner)
        inner.helpers = helpers
        return text_of(defined(source, helpers=helpers).prepare)

    assert text("x") == text("x", unused="1") != text("-x")


def test_modules_are_told_by_their_names():
    source = "def prepare(x):\n    return helpers.exp(x)"
    texts = {
        text_of(defined(source, helpers=module).prepare) for module in (math, np, torch)
    }
    assert len(texts) == 3


@pytest.mark.parametrize("change", ["body", "global"])
def test_an_installed_package_is_told_by_the_code_that_is_used(monkeypatch, change):
    texts = []
    for value in (1, 2):
        body, seen = (value, 0) if change == "body" else (0, value)
        source = f"STATE = {seen}\ndef f(x):\n    return x + {body} + STATE"
        file = str(Path("lib", "site-packages", "some_package", "__init__.py"))
        module = defined(source, "some_package", __file__=file)
        monkeypatch.setitem(sys.modules, "some_package", module)
        texts.append(text_of(module.f))
    assert (texts[0] != texts[1]) == (change == "body")


def test_what_a_library_has_under_a_name_is_told_by_it():
    assert text_of(nn.functional.relu) == "torch.nn.functional.relu"
    assert text_of(nn.ReLU) == "torch.nn.modules.activation.ReLU"


def test_what_a_library_makes_in_a_call_differs_with_its_arguments():
    make = torch.optim.swa_utils.get_ema_avg_fn
    assert text_of(make(0.9)) == text_of(make(0.9)) != text_of(make(0.8))


def test_a_decorated_function_is_told_by_what_is_decorated():
    def decorated(k):
        source = f"@torch.no_grad()\ndef f(x):\n    return x + {k}"
        return defined(source, torch=torch).f

    assert text_of(decorated(1)) == text_of(decorated(1))
    assert text_of(decorated(1)) != text_of(decorated(2))


def test_a_function_that_travelled_by_value_has_the_same_text():
    module = defined(SOURCE, "__main__")
    for name in ("outer", "Prepare", "deferred"):
        value = getattr(module, name)
        travelled = cloudpickle.loads(cloudpickle.dumps(value))
        if isinstance(value, type):  # within one process the class itself comes back
            continue
        assert travelled is not value
        assert text_of(travelled) == text_of(value)


def test_the_script_has_the_same_name_in_a_child_process():
    child, parent = defined(SOURCE, "__mp_main__"), defined(SOURCE, "__main__")
    assert text_of(child.outer) == text_of(parent.outer)
    assert text_of(child.Prepare()) == text_of(parent.Prepare())


def test_a_call_of_a_cached_function_changes_nothing():
    cached = functools.lru_cache(even)
    before = text_of(cached)
    cached(0)
    assert text_of(cached) == before


# -------------------------------------------------------------------- hard structures


class Node:
    pass


def graph(n, value):
    rng = np.random.default_rng(0)
    nodes = [Node() for _ in range(n)]
    for k, node in enumerate(nodes):
        node.links = [nodes[i] for i in rng.integers(0, n, 6)] + [nodes[(k + 1) % n]]
        node.value = k
    nodes[-1].value = value
    return nodes[0]


@pytest.mark.parametrize("n", [20, 600])
def test_a_graph_with_cycles_is_walked_once(n):
    assert text_of(graph(n, 1)) == text_of(graph(n, 1))
    assert text_of(graph(n, 1)) != text_of(graph(n, 2))


def nested(depth, value):
    for _ in range(depth):
        value = [value]
    return value


def test_what_lies_deep_counts():
    assert text_of(nested(5000, 1)) == text_of(nested(5000, 1))
    assert text_of(nested(5000, 1)) != text_of(nested(5000, 2))
    assert text_of(nested(5000, 1)) != text_of(nested(5001, 1))


def test_much_sharing_is_walked_once():
    value: list = [1]
    for _ in range(200):
        value = [value, value]
    assert text_of(value) == text_of(value)


def test_functions_that_name_each_other_are_followed_once():
    names = [f"f{k}" for k in range(40)]
    called = " + ".join(f"{name}(x)" for name in names)

    def text(constant):
        lines = [f"def {n}(x): return {called} + {k}" for k, n in enumerate(names)]
        lines[-1] += constant
        return text_of(defined("\n".join(lines)).f0)

    assert text("") == text("") != text(" + 1")


def test_an_object_that_can_not_be_pickled_or_printed_has_a_text():
    class Stubborn:
        def __init__(self, value):
            self.value = value

        def __reduce_ex__(self, protocol):
            raise TypeError("on purpose")

        def __repr__(self):
            raise RuntimeError("on purpose")

    assert text_of(Stubborn(1)) == text_of(Stubborn(1))
    assert text_of(Stubborn(1)) != text_of(Stubborn(2))


def test_large_values_are_not_copied():
    value = [np.ones(10**7, np.uint8), b"x" * 10**7, Image.new("L", (10**4, 10**3))]
    tracemalloc.start()
    try:
        text_of(value[:2])
        assert tracemalloc.get_traced_memory()[1] < 10**5
        text_of(value)
        assert tracemalloc.get_traced_memory()[1] < 5 * 10**7
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "make",
    [
        lambda: (i for i in range(3)),
        lambda: struct.Struct("<i"),
        lambda: ctypes.pointer(ctypes.c_int(1)),
        lambda: weakref.ref(Prepare),
    ],
    ids=["generator", "struct", "pointer", "reference"],
)
def test_what_cannot_be_read_equals_nothing_but_itself(make):
    first, second = make(), make()
    if first is second:  # Python keeps one reference to a class
        second = weakref.ref(Net)
    assert text_of([first]) == text_of([first])
    assert text_of([first]) != text_of([second])


def test_a_token_is_not_given_to_another_object_at_the_same_address():
    tokens = {text_of(i for i in range(3)) for _ in range(50)}
    assert len(tokens) == 50


def test_tokens_differ_after_a_fork():
    code = (
        "import os; from sklearn_dl._runtime import fingerprint_text\n"
        "pid = os.fork()\n"
        "print(fingerprint_text(i for i in range(3)), flush=True)\n"
        "if pid: os.waitpid(pid, 0)"
    )
    output = processes.run(code).stdout
    assert len(set(output.splitlines())) == 2


def test_locks_are_all_the_same():
    assert text_of(threading.Lock()) == text_of(threading.Lock())
    assert text_of(threading.RLock()) == text_of(threading.RLock())


def test_a_partial_is_told_alike_before_and_after_somebody_looked_at_it():
    seen = functools.partial(round, ndigits=1)
    first = text_of(seen)
    assert text_of(deepcopy(seen)) == first == text_of(seen)
