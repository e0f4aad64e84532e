"""Say what a file of a model holds.

MODEL is a file that train (or sklearn_dl.persistence.save) wrote, or an .onnx file of
export. What is known of it comes as one JSON object.

example:
    python -m sklearn_dl info ants_bees.model
"""

import argparse
import json
from typing import Any

from sklearn_dl._commands._terminal import say, size_of
from sklearn_dl.persistence import check_file

_ATTRIBUTES = ("backbone", "weights", "trainable", "n_iter_", "preprocessing_")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("model", metavar="MODEL", help="file of a model")


def run(args: argparse.Namespace) -> int:
    """Describe the model; return the exit code."""
    path = check_file(args.model)
    describe = _of_graph if path.lower().endswith(".onnx") else _of_model
    facts = {"path": path, "size": size_of(path), **describe(path)}
    known = {name: value for name, value in facts.items() if value is not None}
    lines = [f'  "{k}": {json.dumps(v, default=str)}' for k, v in known.items()]
    say("{\n" + ",\n".join(lines) + "\n}")
    return 0


def _of_graph(path: str) -> dict[str, Any]:
    from sklearn_dl.persistence import open_graph

    _, found = open_graph(path, ("CPUExecutionProvider",))
    names = ("output", "classes", "preprocessing", "versions")
    facts = {name: found.get(name) for name in names}
    facts["input"] = found["input"]["shape"][1:3]
    return {"model": f"ONNX graph of {found['estimator']}", **facts}


def _of_model(path: str) -> dict[str, Any]:
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
        facts |= {name: getattr(fitted[0], name, None) for name in _ATTRIBUTES}
        facts["input"] = getattr(fitted[0].preprocessing_, "output_size", None)
    elif fitted:
        facts["backbones"] = [str(estimator.backbone) for estimator in fitted]
    return {**facts, "versions": read_versions(path)}
