"""Write a page about where a model errs, in which labels can be corrected.

MODEL is a file that train (or sklearn_dl.persistence.save) wrote. DATA is a folder with
one subfolder per class, or a table with a column of paths and one of targets, as train
takes them. The page is one HTML file that asks nothing of any server: look through the
doubtful images, mark them, and download corrections.csv for train --corrections.

On the images that the model was trained on, give --folds: it hides their wrong labels.

example:
    python -m sklearn_dl report ants_bees.model photos/val --out report.html
    python -m sklearn_dl report ants_bees.model photos --folds 5 --out report.html
    python -m sklearn_dl train photos --corrections corrections.csv --out better.model
"""

import argparse
import os
from typing import Any

from sklearn_dl._commands._corrections import Corrections
from sklearn_dl._commands._terminal import checked_output, say, size_of
from sklearn_dl._files import check_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add = parser.add_argument
    add("model", metavar="MODEL", help="file of a model")
    add("data", metavar="DATA", help="folder of class folders, or a table")
    add("--out", metavar="FILE", default="report.html", help="(default: report.html)")
    folds = "judge each image by a model that was fitted without it"
    add("--folds", metavar="K", type=int, help=folds)
    other = "folder or table of the images it was trained on: lists copies of them"
    add("--reference", metavar="DATA", type=os.path.expanduser, help=other)
    columns = "of a table: scores by the values of this column; also several times"
    add("--slice", metavar="COLUMN", action="append", default=[], help=columns)
    shown = "pictures in the galleries at most (default: 300)"
    add("--images", metavar="N", type=int, default=300, help=shown)
    damaged = "also corrupt the images in many ways (takes far longer)"
    add("--robustness", action="store_true", help=damaged)
    add("--title", help="heading of the page")
    add("--path", metavar="COLUMN", default="path", help="of a table (default: path)")
    target = "of a table (default: target); for several numbers also several times"
    add("--target", metavar="COLUMN", action="append", help=target)
    root = "that the paths in a table start from (default: the table's folder)"
    add("--root", metavar="FOLDER", help=root)
    made = "corrections that were made before, see train"
    add("--corrections", metavar="FILE", type=Corrections, help=made)
    add("--device", help="auto, cpu, cuda, cuda:1, mps (default: as it was saved)")


def run(args: argparse.Namespace) -> int:
    """Write the report; return the exit code."""
    import pandas as pd

    from sklearn_dl._commands._answers import open_model
    from sklearn_dl._commands._data import load
    from sklearn_dl.inspection import (
        ReportOptions,
        RobustnessOptions,
        robustness_report,
        write_report,
    )

    model_file = check_file(args.model)
    if model_file.lower().endswith(".onnx"):
        raise ValueError(
            f"{args.model} is exported; the report needs what train saved."
        )
    args.data = os.path.expanduser(args.data)
    out = checked_output(args.out, model_file, args.data)
    model = open_model(model_file, args.device, 32)
    bunch = load(args.data, args)
    X, y = bunch.data, bunch.target
    frame = bunch.get("frame")
    if args.slice and frame is None:
        raise ValueError("--slice: DATA is a folder, which has no columns.")
    for name in args.slice:
        if name not in frame:
            raise ValueError(f"--slice: {args.data} has no column {name!r}.")
    damage: Any = None
    if args.robustness:
        damage = robustness_report(model, X, y, options=RobustnessOptions(verbose=1))
    options = ReportOptions(n_images=args.images, robustness=damage, title=args.title)
    reference = args.reference and load(args.reference, args).data
    if args.corrections is not None:
        args.corrections.describe()
    slices = frame[args.slice] if args.slice else None
    if y.ndim == 2:
        y = pd.DataFrame(y, columns=bunch.target_names)
    more = {"cv": args.folds, "reference": reference, "slices": slices}
    write_report(model, X, y, out, **more, options=options)
    say(f"written to {out} ({size_of(out)})")
    return 0
