"""The rules of the code that ruff and mypy don't know."""

import ast
import json
import subprocess
import sys
import tomllib
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path

import processes
import pytest
import shape

from sklearn_dl import ImageClassifier, ImageFeatureExtractor, ImageRegressor

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "sklearn_dl"

# A room may import the rooms of the rows below its own, never those beside or above.
LAYERS = [
    ("__main__",),
    ("_commands",),
    ("persistence", "inspection", "model_selection", "ensemble"),
    ("_classifier", "_regressor", "_features"),
    ("_neural",),
    ("_base",),
    ("_saving",),
    ("_parameters", "_targets"),
    ("training",),
    ("_extraction",),
    ("augmentation",),
    ("backbones", "datasets"),
    ("_images",),
    ("_runtime",),
    ("_files", "_lazy", "_linear", "_plain", "_plots"),
    ("_doc_link", "_labels"),
]
MODULES = shape.modules(PACKAGE)


def test_each_room_has_quick_tests(pytestconfig):
    (conftest,) = (
        plugin
        for plugin in pytestconfig.pluginmanager.get_plugins()
        if hasattr(plugin, "QUICK_FILES")
    )
    tests = ROOT / "tests"
    files = {path.stem for path in tests.rglob("test_*.py")}
    assert files >= conftest.QUICK
    rooms = {path.parent.name for path in tests.rglob("test_*.py")} - {"gpu"}
    assert rooms == {
        path.parent.name
        for path in tests.rglob("test_*.py")
        if path.stem in conftest.QUICK
    }


def test_every_module_has_a_room():
    assert {shape.room_of(module) for module in MODULES} - {None} <= {
        room for row in LAYERS for room in row
    }


def test_imports_go_down():
    assert shape.upward(PACKAGE, LAYERS) == []


def test_rooms_are_entered_by_their_faces():
    assert shape.past_the_face(PACKAGE) == []


def test_no_files_import_one_another():
    assert shape.circles(PACKAGE) == []


def test_functions_take_few_arguments():
    assert shape.long_signatures(PACKAGE, 8) == []


@pytest.mark.parametrize(("room", "most"), [("training", 16), ("backbones", 6)])
def test_public_is_what_users_need(room, most):
    assert 0 < len(shape.public_names(PACKAGE, room)) <= most


def test_only_training_imports_skorch():
    users = {shape.room_of(m) for m, p in MODULES.items() if "skorch" in _roots(p)}
    assert users == {"training"}


def _roots(path):
    tree = ast.parse(path.read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


def loaded_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sorted(sys.modules))"
    output = subprocess.check_output([sys.executable, "-c", code], text=True)
    return set(output.split())


def test_importing_the_package_loads_nothing_heavy():
    loaded = loaded_after("import sklearn_dl; dir(sklearn_dl)")
    heavy = {"torch", "torchvision", "skorch", "sklearn", "pandas", "numpy", "PIL"}
    assert loaded & heavy == set()


def test_loading_data_needs_no_torch():
    loaded = loaded_after("from sklearn_dl.datasets import load_image_folder")
    assert "sklearn_dl._images" in loaded
    assert loaded & {"torch", "torchvision", "skorch", "matplotlib"} == set()


# In one process, so that torch is imported once.
FIRST_USE = """
import json, sys
opened = []
sys.addaudithook(lambda event, args: event == "open" and opened.append(str(args[0])))
import torch, torchvision, skorch
before = set(sys.modules)
import sklearn_dl
from sklearn_dl import ImageClassifier, ImageFeatureExtractor, ImageRegressor
loaded = sorted(set(sys.modules) - before)
sklearn_dl.list_backbones()
weights = [name for name in opened if name.endswith(".safetensors")]
torch.cuda._lazy_init = lambda: sys.exit("CUDA begins")
extractor = ImageFeatureExtractor(
    "squeezenet1_1", weights=None, image_size=32, device="cpu", random_state=0
)
features = extractor.fit_transform(__import__("numpy").zeros((2, 32, 32, 3), "uint8"))
print(json.dumps({"loaded": loaded, "weights": weights, "shape": features.shape}))
"""
BEYOND = {
    *("sklearn_dl", "skorch", "tqdm"),
    *("sklearn.callback", "sklearn.pipeline", "sklearn.utils"),
    *("concurrent.futures", "shlex"),  # with torch 2.4 and skorch 1.2
}
# Loaded by those who use them, with their files.
LATE = {
    "training": ["SAM", "TensorBoard", "VirtualAdversarialLoss", "diagnose"],
}


@pytest.fixture(scope="module")
def first_use():
    """Return what a fresh Python says of its first use of the package."""
    output = subprocess.check_output([sys.executable, "-c", FIRST_USE], text=True)
    return json.loads(output)


def test_first_use_loads_little_beyond_what_it_stands_on(first_use):
    new = set(first_use["loaded"])
    assert "sklearn_dl._features" in new
    parents = {
        name: {name.split(".")[0], ".".join(name.split(".")[:2])} for name in new
    }
    assert [name for name in sorted(new) if not parents[name] & BEYOND] == []
    assert "sqlite3" not in new
    for room, late in LATE.items():
        face = import_module(f"sklearn_dl.{room}")
        assert new & {getattr(face, name).__module__ for name in late} == set()


def test_names_that_are_loaded_late_are_listed():
    import sklearn_dl.training

    assert {"SAM", "TensorBoard", "diagnose"} <= set(dir(sklearn_dl.training))
    assert set(sklearn_dl.training.__all__) <= set(dir(sklearn_dl.training))
    with pytest.raises(AttributeError, match=r"sklearn_dl\.training.*'SAMM'"):
        _ = sklearn_dl.training.SAMM


def test_first_use_reads_no_weights(first_use):
    assert first_use["weights"] == []


def test_nothing_touches_cuda_before_it_is_needed(first_use):
    assert first_use["shape"] == [2, 512]


def test_public_names_are_there_and_a_wrong_one_is_an_attribute_error():
    import sklearn_dl

    for name in sklearn_dl.__all__:
        assert getattr(sklearn_dl, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'ImageClasifier'"):
        _ = sklearn_dl.ImageClasifier


def test_the_version_stands_in_one_form():
    import sklearn_dl

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert sklearn_dl.__version__ == project["version"]
    citation = (ROOT / "CITATION.cff").read_text().splitlines()
    assert f"version: {project['version']}" in citation
    assert f"  - name: {project['authors'][0]['name']}" in citation


def test_constructors_only_assign():
    """What a constructor does beyond assigning its parameters would escape `clone`."""
    for cls in (ImageClassifier, ImageFeatureExtractor, ImageRegressor):
        made = [c for c in cls.__mro__ if c.__module__.startswith("sklearn_dl")]
        assert not any(hasattr(c, "__post_init__") for c in made)
        own = [c for c in made if "__init__" in vars(c)]
        assert own[0] is cls
        assert all(is_dataclass(c) and _is_generated(c) for c in own)
        assert {f.name for f in fields(cls)} == set(cls().get_params())


def _is_generated(cls: type) -> bool:
    """Tell whether no `__init__` is written for a class."""
    module = ast.parse(Path(sys.modules[cls.__module__].__file__).read_text())
    (node,) = (n for n in module.body if getattr(n, "name", "") == cls.__name__)
    return all(getattr(part, "name", "") != "__init__" for part in node.body)


# In one process, so that torch is imported once.
_HELP = """
import contextlib, io, os, runpy, sys
for script in sys.argv[1:]:
    sys.argv, sys.path[0] = [script, "--help"], os.path.dirname(script)
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            runpy.run_path(script, run_name="__main__")
        code = "none"
    except SystemExit as error:
        code = error.code
    print(code, "usage:" in said.getvalue(), os.path.basename(script))
"""


def test_the_examples_the_benchmarks_and_the_tools_have_help():
    folders = ROOT / "examples", ROOT / "tools"
    scripts = sorted(script for folder in folders for script in folder.rglob("*.py"))
    scripts = [script for script in scripts if "__main__" in script.read_text()]
    assert len(scripts) >= 8
    expected = [f"0 True {script.name}" for script in scripts]
    assert processes.run(_HELP, *scripts).stdout.splitlines() == expected
