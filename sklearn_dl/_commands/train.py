"""Train a classifier (or a regressor) on images, and save it.

DATA is a folder with a subfolder for each class; or one with the folders train and val
(or test) of that form; or a table (.csv, .txt, .jsonl, .xlsx, .parquet, .feather) with
a column of paths and one of labels. The score is of images that the model wasn't
trained on: those of val, or a share that is held out.

Any parameter of ImageClassifier (or ImageRegressor) is set by --set NAME=VALUE. Images
that can't be read are named and left out, and the exit code is 1. After Ctrl-C nothing
is saved.

example:
    python -m sklearn_dl train photos --out m.model --augment standard --set lr=0.01
    python -m sklearn_dl train ids.csv --out m.model --path id --table suffix=.jpg
    python -m sklearn_dl train weights.csv --out m.model --task regression --target mass
"""

import argparse
import os
import sys
import time
from typing import Any

from sklearn_dl._commands._corrections import Corrections
from sklearn_dl._commands._terminal import (
    assignment,
    checked_output,
    on_terminal,
    say,
    size_of,
    value,
)

_TABLE = ("header", "sep", "encoding", "decimal", "suffix")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add = parser.add_argument
    path = os.path.expanduser
    add("data", metavar="DATA", type=path, help="folder, or table of paths and labels")
    add("--out", metavar="MODEL", required=True, help="file of the model")
    held = "share to hold out (0: none), or data to score (default: as above, or 0.2)"
    add("--validation", metavar="SHARE|DATA", type=path, help=held)
    add("--task", choices=["classification", "regression"], default="classification")
    add("--path", metavar="COLUMN", default="path", help="of a table (default: path)")
    target = "of a table (default: target); for regression also several times"
    add("--target", metavar="COLUMN", action="append", help=target)
    add("--root", metavar="FOLDER", help="of a table's paths (default: the table's)")
    table = "sep, encoding, decimal, suffix (.jpg, of ids), header=None (then --path 0)"
    option: Any = {"action": "append", "type": _table_option, "default": []}
    add("--table", metavar="NAME=VALUE", **option, help=table)
    add("--corrections", metavar="FILE", type=Corrections, help="those of a report")
    add("--backbone", help="torchvision network (default: auto, mobilenet_v2)")
    add("--weights", help="torchvision's, a file, or builtin (of mobilenet_v3_small)")
    stages = "head (default), all, the number of the last stages, or names with commas"
    add("--trainable", type=value, help=stages)
    changes = "light, standard, strong, trivial, rand, or names such as flip,rotation"
    add("--augment", type=value, help=changes)
    add("--epochs", dest="max_epochs", type=int, help="(default: 20)")
    other = "any other parameter, such as device=cpu, tta=flip, head__dropout=0.5"
    add("--set", metavar="NAME=VALUE", **{**option, "type": assignment}, help=other)
    add("--strict", action="store_true", help="stop at images that can't be read")
    add("--quiet", action="store_true", help="no progress")


def run(args: argparse.Namespace) -> int:
    """Train, save and score; return the exit code."""
    # A share or a name is no file, which does no harm.
    out = checked_output(args.out, args.data, args.validation, args.weights)
    model = _model(args)
    from sklearn_dl._commands._data import EpochLines, load_parts, score
    from sklearn_dl.backbones import load_backbone
    from sklearn_dl.persistence import save

    # What is wrong with them is said before the images are read.
    load_backbone(model.backbone, model.weights, image_size=model.image_size)
    X, y, X_test, y_test, n_failed = load_parts(args, model.random_state)
    if args.corrections is not None:
        args.corrections.describe()
    began = time.perf_counter()
    if not args.quiet:
        bar = on_terminal(sys.stderr)
        model.set_params(verbose=int(bar), callbacks=None if bar else [EpochLines()])
    try:
        model.fit(X, y)
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt("nothing was saved") from error
    say(f"trained in {time.perf_counter() - began:.1f} s")
    save(model.set_params(verbose=0, callbacks=None), out)
    say(f"saved to {out} ({size_of(out)})")
    if X_test is not None:
        say(score(model, y, X_test, y_test))
    return 1 if n_failed else 0


def _model(args: argparse.Namespace) -> Any:
    """Return the estimator, whose parameters the arguments of its names are."""
    from sklearn_dl._classifier import ImageClassifier
    from sklearn_dl._regressor import ImageRegressor

    model = ImageClassifier() if args.task == "classification" else ImageRegressor()
    names = model.get_params()
    given = {k: v for k, v in vars(args).items() if k in names and v is not None}
    model.set_params(**{"random_state": 0, **given, **dict(args.set)})
    model._validate_params()
    return model


def _table_option(text: str) -> tuple[str, Any]:
    name, _, given = text.partition("=")
    if name not in _TABLE:
        raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(_TABLE)}")
    return name, value(given) if name == "header" else given
