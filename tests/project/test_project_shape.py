"""The checks of the package's shape find what they are there to find."""

from textwrap import dedent

import pytest
import shape

# A package in which nothing is wrong, of four rooms one above the other.
SOUND = {
    "__init__": "from made_up.top import Display\n__all__ = ['Display']",
    "main": "from made_up.top import Display",
    "top.__init__": """
        from made_up.top._a import Display
        __all__ = ['Display', 'late', 'load_it']
        HOMES = {'late': 'made_up.top._b', 'load_it': 'made_up.top._b'}
    """,
    "top._a": """
        from made_up.middle import helper
        class Display:
            def __init__(self, a, b, c, *, d): ...
            def plot(self, a, b, /, c, *rest, **options): ...
    """,
    "top._b": "from made_up.top._a import Display\nfrom made_up.low import __doc__\n"
    "def load_it(a, b, c, d): ...",
    "middle.__init__": "from made_up.middle._c import helper as helper",
    "middle._c": "from made_up import low\ndef helper(*, a, b, c): ...",
    "low": "import os.path\nfrom os import _exit",
}
LAYERS = [("main",), ("top",), ("middle",), ("low",)]

PAST = "made_up/top/_a.py:1 imports made_up.middle._c, not its face made_up.middle"


@pytest.fixture
def package(tmp_path):
    def write(**changed):
        for name, text in {**SOUND, **changed}.items():
            path = tmp_path.joinpath("made_up", *name.split(".")).with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(text))
        return tmp_path / "made_up"

    return write


def found(root):
    return [
        *(shape.upward(root, LAYERS) + shape.past_the_face(root)),
        *(shape.circles(root) + shape.long_signatures(root, 3)),
    ]


def test_a_sound_package_has_no_offence(package):
    assert found(package()) == []


@pytest.mark.parametrize(
    ("module", "text", "wanted"),
    [
        (
            *("low", "def f():\n    import made_up.middle"),
            [
                "made_up/low.py:2 imports middle, which is no room below low",
                "a circle: made_up.low, made_up.middle, made_up.middle._c",
            ],
        ),
        (
            "main",
            "import made_up",
            ["made_up/main.py:1 imports the package's public names"],
        ),
        (
            *("top._a", "from made_up.middle._c import helper\nDisplay = late = 1"),
            [PAST],
        ),
        ("top._a", "import made_up.middle._c", [PAST]),
        ("top._a", "from made_up.middle import _c", [PAST]),
        (
            *("middle._c", "from made_up.low import _exit"),
            ["made_up/middle/_c.py:1 imports _exit of made_up.low"],
        ),
        (
            *("top._b", "from made_up.top._a import _hidden"),
            ["made_up/top/_b.py:1 imports _hidden of made_up.top._a"],
        ),
        (
            *("top._a", "if TYPE_CHECKING:\n    from made_up.top._b import late"),
            ["a circle: made_up.top._a, made_up.top._b"],
        ),
        (
            *("top._b", "def f():\n    from made_up.top import Display"),
            [
                "made_up/top/_b.py:2 imports the face of its own room, made_up.top",
                "a circle: made_up.top, made_up.top._b",
            ],
        ),
        (
            *("middle._c", "class Own:\n    def __init__(self, a, b, c, d): ..."),
            ["made_up/middle/_c.py:2 Own.__init__ takes 4"],
        ),
        (
            *("low", "def load_other(a, b, c, d): ..."),
            ["made_up/low.py:1 load_other takes 4"],
        ),
        ("low", "async def f(a, /, b, *, c, d): ...", ["made_up/low.py:1 f takes 4"]),
    ],
)
def test_each_offence_is_found(module, text, wanted, package):
    assert found(package(**{module: text})) == wanted


def test_a_circle_through_a_third_file_is_found(package):
    root = package(**{"middle._c": "import made_up.low", "low": "import made_up.top"})
    assert shape.circles(root) == [
        "a circle: made_up.low, made_up.middle, made_up.middle._c, made_up.top, "
        "made_up.top._a, made_up.top._b"
    ]


def test_names_are_those_of_the_face(package):
    root = package()
    assert shape.public_names(root) == ["Display"]
    assert shape.public_names(root, "top") == ["Display", "late", "load_it"]
    assert shape.public_names(root, "low") == []
