"""Sphinx extension: what the gallery shows, and what it runs of it.

The scripts in examples/ are copied with their first sentence as a title. Those in
`ARGUMENTS` are run, on patches of photographs that come with scikit-image, scikit-learn
and matplotlib, with the weights in the package; the others are shown.
"""

import ast
import runpy
import shutil
from pathlib import Path
from typing import Any

from PIL import Image

HERE = Path(__file__).resolve().parents[1]
EXAMPLES = HERE.parent / "examples"
SCRIPTS = HERE / "gallery_scripts"
PHOTOS = HERE / "_build" / "patches"
OUTPUT = HERE / "_build" / "outputs"
BUILTIN = ["--backbone", "mobilenet_v3_small", "--weights", "builtin"]
FOLDER = ["--data", str(PHOTOS), *BUILTIN]
# What is published beside the pages.
REPORT = HERE / "_build" / "report" / "error_report.html"
ARGUMENTS = {
    "error_report": [*FOLDER, "--flips", "4", "--output", str(REPORT)],
    "quickstart": ["--output", str(OUTPUT / "predictions.png")],
    "features_svm": FOLDER,
    "grid_search": [*FOLDER, "--regimes", "svm", "head"],
    "voting_bagging": [
        *(*FOLDER, "--epochs", "3", "--picture", str(OUTPUT / "diversity.png")),
    ],
}
HEADER = """Examples
========

The scripts of the folder ``examples``. Those with an output were run on the weights in
the package when these pages were built; the others take minutes, or data of yours.
"""
PER_CLASS = 8


def copy_scripts() -> None:
    """Copy the examples, each with a title, and write the images they run on."""
    SCRIPTS.mkdir(exist_ok=True)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    (SCRIPTS / "GALLERY_HEADER.rst").write_text(HEADER, encoding="utf-8")
    sources = {path.name: path for path in EXAMPLES.glob("*.py")}
    for old in SCRIPTS.glob("*.py"):
        if old.name not in sources:
            old.unlink()
    for name, path in sources.items():
        text = titled(path.read_text(encoding="utf-8"))
        there = SCRIPTS / name
        # What didn't change keeps its time, and isn't run again.
        if not there.exists() or there.read_text(encoding="utf-8") != text:
            there.write_text(text, encoding="utf-8")
    write_patches()


def titled(text: str) -> str:
    """Return a script with its docstring's first sentence as a title."""
    docstring = ast.get_docstring(ast.parse(text), clean=False)
    first = docstring.partition("\n")[0]
    title = first.rstrip(".")
    return text.replace(first, f"\n{title}\n{'=' * len(title)}", 1)


def write_patches() -> None:
    """Write a folder with the parts train and val, a subfolder for each photograph."""
    if PHOTOS.exists():
        return
    names = runpy.run_path(str(EXAMPLES / "quickstart.py"))
    parts = names["cut_patches"](names["photographs"]())
    unfinished = PHOTOS.with_name("patches.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    for part, X, y in (("train", parts[0], parts[2]), ("val", parts[1], parts[3])):
        for photograph in sorted(set(y)):
            folder = unfinished / part / photograph
            folder.mkdir(parents=True)
            images = [x for x, name in zip(X, y, strict=True) if name == photograph]
            for i, image in enumerate(images[:PER_CLASS]):
                Image.fromarray(image).save(folder / f"{i}.png")
    unfinished.rename(PHOTOS)


def arguments(gallery: dict[str, Any], script: dict[str, Any]) -> list[str]:
    """Return the arguments that a script is run with."""
    return ARGUMENTS[Path(script["src_file"]).stem]


def configuration() -> dict[str, Any]:
    """Return the settings of sphinx-gallery."""
    return {
        "examples_dirs": str(SCRIPTS),
        "gallery_dirs": "gallery",
        "filename_pattern": rf"/({'|'.join(ARGUMENTS)})\.py$",
        "ignore_pattern": r"folders\.py",
        "reset_argv": arguments,
        "download_all_examples": False,
        "show_signature": False,
        "show_memory": False,
        "min_reported_time": 0,
        "write_computation_times": False,
        "within_subsection_order": "FileNameSortKey",
    }
