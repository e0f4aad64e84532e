"""Export a model for other programs.

MODEL is a file that train (or sklearn_dl.persistence.save) wrote. The ending of OUT
says what becomes of it:

    .onnx                      graph from pixels to predictions, which predict takes too
    .pt2                       the same for programs with torch; loading it can run code
    .safetensors, .pth, .pt    the backbone's tensors, for weights= of a new model

A graph is compared with the model before it is written.

example:
    python -m sklearn_dl export ants_bees.model ants_bees.onnx
"""

import argparse

from sklearn_dl._commands._terminal import checked_output, say, size_of
from sklearn_dl.persistence import check_file

_ENDINGS = (".onnx", ".pt2", ".safetensors", ".pth", ".pt")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("model", metavar="MODEL", help="file of a model")
    parser.add_argument("out", metavar="OUT", help="file to write; replaced as a whole")


def run(args: argparse.Namespace) -> int:
    """Export; return the exit code."""
    if not args.out.endswith(_ENDINGS):
        raise ValueError(f"{args.out!r} must end in one of {', '.join(_ENDINGS)}.")
    path = check_file(args.model)
    out = checked_output(args.out, path)
    from sklearn_dl.persistence import export_onnx, export_pt2, export_state_dict, load

    writers = {".onnx": export_onnx, ".pt2": export_pt2}
    writers.get(out.suffix, export_state_dict)(load(path), out)
    say(f"written to {out} ({size_of(out)})")
    return 0
