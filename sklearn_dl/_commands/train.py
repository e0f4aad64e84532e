"""Train a classifier (or a regressor) on images, and save it.

DATA is a folder with a subfolder for each class; or one with the folders train and val
(or test) of that form; or a table (.csv, .xlsx, .parquet) with a column of paths and
one of labels. The score is of images that the model wasn't trained on: those of val, or
a share that is held out.

Images that can't be read are named and left out, and the exit code is 1. After Ctrl-C
nothing is saved.

example:
    python -m sklearn_dl train photos --out ants_bees.model
    python -m sklearn_dl train photos --trainable all --augment standard --epochs 5
    python -m sklearn_dl train weights.csv --task regression --path file --target grams
"""

import argparse
import ast
import os
import sys
import time
from pathlib import Path
from typing import Any

from sklearn_dl._commands._terminal import (
    CommandError,
    checked_output,
    on_terminal,
    positive,
    say,
    size_of,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add = parser.add_argument
    add("data", metavar="DATA", help="folder, or table of paths and labels")
    out = "file of the model (default: DATA.model in the working directory, if new)"
    add("--out", metavar="MODEL", help=out)
    add(
        "--validation",
        metavar="SHARE|DATA",
        help="share of the images that are held out for the score, 0 for none; or a "
        "folder or table of others (default: val or test inside DATA, else 0.2)",
    )
    add("--task", choices=["classification", "regression"], default="classification")
    add("--path", metavar="COLUMN", default="path", help="of a table (default: path)")
    target = "of a table (default: target); for regression also several times"
    add("--target", metavar="COLUMN", action="append", help=target)
    root = "that the paths in a table start from (default: the table's folder)"
    add("--root", metavar="FOLDER", help=root)
    add("--strict", action="store_true", help="stop at images that can't be read")
    add("--quiet", action="store_true", help="no progress")
    add = parser.add_argument_group("model").add_argument
    add("--backbone", default="mobilenet_v2", help="torchvision network (%(default)s)")
    weights = (
        "DEFAULT (torchvision's, downloaded), the name of others, a file, builtin (in "
        "this package, of mobilenet_v3_small), or none"
    )
    add("--weights", default="DEFAULT", help=weights)
    add("--image-size", metavar="PIXELS", type=positive, help="side of the input")
    stages = "head (default), all, the number of the last stages, or names with commas"
    add("--trainable", default="head", type=_names, help=stages)
    changes = (
        "random changes of the training images: light, standard, strong, trivial, "
        "rand, or names with commas such as flip,rotation"
    )
    add("--augment", type=_names, help=changes)
    epochs = "(default: %(default)s)"
    add("--epochs", dest="max_epochs", type=positive, default=20, help=epochs)
    add("--batch-size", metavar="N", type=positive, default=32, help="(%(default)s)")
    add("--lr", type=float, help="learning rate of the head")
    stop = "end when a tenth of the training images, kept for that, gets no better"
    add("--early-stopping", action="store_true", help=stop)
    other = "any other parameter of ImageClassifier: tta=flip, head__dropout=0.5"
    add("--set", metavar="NAME=VALUE", action="append", default=[], help=other)
    add("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    kept = "where features are kept for later runs"
    add("--cache", metavar="FOLDER", default="memory", help=kept)
    add("--seed", dest="random_state", type=int, default=0, help=epochs)


def run(args: argparse.Namespace) -> int:
    """Train, save and score; return the exit code."""
    data = os.path.expanduser(args.data)
    if not os.path.exists(data):
        raise CommandError(f"There is no folder or table {data!r}.")
    out = _output(args, data)
    model = _model(args)
    from sklearn_dl._commands._data import EpochLines, load_data
    from sklearn_dl.backbones import load_backbone
    from sklearn_dl.persistence import save

    # What is wrong with them is said before the images are read.
    load_backbone(model.backbone, model.weights, image_size=model.image_size)
    parts = load_data(data, args)
    say(parts.description)
    began = time.perf_counter()
    if not (args.quiet or on_terminal(sys.stderr)):
        model.set_params(callbacks=[*(model.callbacks or ()), EpochLines()])
    try:
        model.fit(parts.X, parts.y)
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt("nothing was saved") from error
    say(f"trained in {time.perf_counter() - began:.1f} s")
    save(model.set_params(verbose=0, callbacks=None), out)
    say(f"saved to {out} ({size_of(out)})")
    if parts.X_test is not None:
        say(parts.score(model))
    return 1 if parts.n_failed else 0


def _output(args: argparse.Namespace, data: str) -> Path:
    out = args.out
    if out is None:  # a model that is there was made by somebody who may want it
        source = Path(os.path.realpath(data))
        name = source.name if source.is_dir() else source.stem
        out = f"{name or 'images'}.model"
        if os.path.exists(out):
            raise CommandError(f"{out} exists: name the file of the model with --out.")
    # A share or a name is no file, which does no harm.
    return checked_output(out, data, *filter(None, (args.validation, args.weights)))


def _model(args: argparse.Namespace) -> Any:
    """Return the estimator, whose parameters the arguments of its names are."""
    from sklearn_dl._classifier import ImageClassifier
    from sklearn_dl._regressor import ImageRegressor

    model = ImageClassifier() if args.task == "classification" else ImageRegressor()
    given = {k: v for k, v in vars(args).items() if k in model.get_params()}
    if args.weights.lower() == "none":
        given["weights"] = None
    verbose = int(not args.quiet and on_terminal(sys.stderr))
    model.set_params(verbose=verbose, **given)
    model.set_params(**dict(map(_assignment, args.set)))
    model._validate_params()
    return model


def _names(text: str) -> str | int | list[str]:
    """Return names with commas as a list, digits as a number."""
    return int(text) if text.isdecimal() else text.split(",") if "," in text else text


def _assignment(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise CommandError(f"--set {text}: give NAME=VALUE.")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value  # a plain word
