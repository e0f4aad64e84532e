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

from sklearn_dl._commands._terminal import CommandError, checked_output, say, size_of
from sklearn_dl.persistence import check_file

_GRAPHS = (".onnx", ".pt2")
_TENSORS = (".safetensors", ".pth", ".pt")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add = parser.add_argument
    add("model", metavar="MODEL", help="file of a model")
    add("out", metavar="OUT", help="file to write; replaced as a whole")
    head = "with tensors: also the head, as the network's last layer"
    add("--head", action="store_true", help=head)
    tta = "leave test-time augmentation out, which a graph can't have"
    add("--without-tta", action="store_true", help=tta)


def run(args: argparse.Namespace) -> int:
    """Export; return the exit code."""
    if not args.out.endswith((*_GRAPHS, *_TENSORS)):
        endings = ", ".join((*_GRAPHS, *_TENSORS))
        raise CommandError(f"export: {args.out!r} must end in one of {endings}.")
    if args.head and args.out.endswith(_GRAPHS):
        raise CommandError("export: a graph always has its head; leave --head out.")
    path = check_file(args.model)
    out = checked_output(args.out, path)
    from sklearn_dl._commands._answers import image_estimators
    from sklearn_dl.persistence import export_onnx, export_pt2, export_state_dict, load

    model = load(path)
    if args.without_tta:
        for estimator in image_estimators(model):
            estimator.set_params(tta=None)
    if args.out.endswith(".onnx"):
        export_onnx(model, out)
    elif args.out.endswith(".pt2"):
        export_pt2(model, out)
    else:
        export_state_dict(model, out, head=args.head)
    say(f"written to {out} ({size_of(out)})")
    return 0
