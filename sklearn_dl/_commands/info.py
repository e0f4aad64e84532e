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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("model", metavar="MODEL", help="file of a model")
    parser.add_argument("--format", choices=["text", "json"], default="text")


def run(args: argparse.Namespace) -> int:
    """Describe the model; return the exit code."""
    from sklearn_dl._commands._answers import check_model_file, is_graph

    path = check_model_file(args.model)
    facts = _of_graph(path) if is_graph(path) else _of_model(path)
    facts = {k: v for k, v in facts.items() if v is not None}
    if args.format == "json":
        say(json.dumps({"path": path, **facts}, default=str))
        return 0
    say(f"{path} ({size_of(path)})")
    width = max(map(len, facts))
    for name, value in facts.items():
        say(f"  {name:{width}}  {_text(value)}")
    return 0


def _of_graph(path: str) -> dict[str, Any]:
    from sklearn_dl.persistence import load_exported

    metadata = load_exported(path).metadata_
    return {
        "model": f"ONNX graph of {metadata['estimator']}",
        "output": metadata["output"],
        "classes": metadata.get("classes"),
        "input": [*metadata["input"]["shape"][1:3]],
        "preprocessing": metadata["preprocessing"],
        "versions": metadata.get("versions"),
    }


def _of_model(path: str) -> dict[str, Any]:
    import numpy as np

    from sklearn_dl._commands._answers import image_estimators, open_saved
    from sklearn_dl.persistence import read_versions

    model = open_saved(path)
    facts: dict[str, Any] = {"model": type(model).__name__}
    if hasattr(model, "classes_"):
        facts["classes"] = np.asarray(model.classes_).tolist()
    backbones = []
    for estimator in image_estimators(model):
        if not hasattr(estimator, "preprocessing_"):
            continue  # a template, of which fitted copies follow
        described = {"backbone": estimator.backbone, "weights": estimator.weights}
        if hasattr(estimator, "trainable"):
            described["trained"] = estimator.trainable
            described["epochs"] = estimator.n_iter_
        size = getattr(estimator.preprocessing_, "output_size", None)
        described["input"] = None if size is None else [*size]
        described["preprocessing"] = estimator.preprocessing_
        backbones.append({k: v for k, v in described.items() if v is not None})
    if len(backbones) == 1:
        facts |= backbones[0]
    elif backbones:
        facts["backbones"] = [str(one["backbone"]) for one in backbones]
    return {**facts, "versions": read_versions(path)}


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    if isinstance(value, list):
        shown = ", ".join(map(str, value[:20]))
        return f"{shown}, ... ({len(value)})" if len(value) > 20 else shown
    return str(value)
