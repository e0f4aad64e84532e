"""Say what a file of a model holds.

MODEL is a file that train (or sklearn_dl.persistence.save) wrote, or an .onnx file of
export.

example:
    python -m sklearn_dl info ants_bees.model
"""

import argparse
import json
from typing import Any

from sklearn_dl._commands._terminal import say, size_of
from sklearn_dl.persistence import check_file

# What is said of one estimator, and its attribute.
_OF_ONE = {
    **{"backbone": "backbone", "weights": "weights", "trained": "trainable"},
    **{"epochs": "n_iter_", "preprocessing": "preprocessing_"},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("model", metavar="MODEL", help="file of a model")
    parser.add_argument("--format", choices=["text", "json"], default="text")


def run(args: argparse.Namespace) -> int:
    """Describe the model; return the exit code."""
    path = check_file(args.model)
    describe = _describe_graph if path.lower().endswith(".onnx") else _describe_model
    facts = {name: v for name, v in describe(path).items() if v is not None}
    if args.format == "json":
        say(json.dumps({"path": path, **facts}, default=str))
        return 0
    say(f"{path} ({size_of(path)})")
    for name, value in facts.items():
        say(f"  {name:{max(map(len, facts))}}  {_text(value)}")
    return 0


def _describe_graph(path: str) -> dict[str, Any]:
    from sklearn_dl.persistence import open_graph

    _, found = open_graph(path, ("CPUExecutionProvider",))
    facts = {name: found.get(name) for name in ("output", "classes", "preprocessing")}
    facts |= {"input": found["input"]["shape"][1:3], "versions": found.get("versions")}
    return {"model": f"ONNX graph of {found['estimator']}", **facts}


def _describe_model(path: str) -> dict[str, Any]:
    import numpy as np

    from sklearn_dl._commands._answers import image_estimators
    from sklearn_dl.persistence import load, read_versions

    model = load(path)
    facts: dict[str, Any] = {"model": type(model).__name__}
    if hasattr(model, "classes_"):
        facts["classes"] = np.asarray(model.classes_).tolist()
    # Those without are templates, of which fitted copies follow.
    fitted = [e for e in image_estimators(model) if hasattr(e, "preprocessing_")]
    if len(fitted) == 1:
        facts |= {k: getattr(fitted[0], v, None) for k, v in _OF_ONE.items()}
        facts["input"] = getattr(fitted[0].preprocessing_, "output_size", None)
    elif fitted:
        facts["backbones"] = [str(estimator.backbone) for estimator in fitted]
    return {**facts, "versions": read_versions(path)}


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    if isinstance(value, list | tuple):
        shown = ", ".join(map(str, value[:20]))
        return f"{shown}, ... ({len(value)})" if len(value) > 20 else shown
    return str(value)
