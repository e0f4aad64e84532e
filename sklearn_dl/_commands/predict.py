"""Predict images with a model, one row for each.

MODEL is a file that train (or sklearn_dl.persistence.save) wrote, or an .onnx file of
export, for which torch is not needed. IMAGES are files, folders (all images below, in
order of their paths), patterns such as 'new/*.jpg', or - for paths on stdin, one a
line.

A row has the path, the prediction, the probability of each class (or its score, where
the model has no probabilities), and the error of an image that can't be read: the
others go on, and the exit code is 1.

example:
    python -m sklearn_dl predict ants_bees.model new/ --top 1 --output new.csv
    find new -name '*.jpg' | python -m sklearn_dl predict m.model - --format json
"""

import argparse
import glob
import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import chain, islice

from sklearn_dl._commands._terminal import (
    CommandError,
    checked_output,
    on_terminal,
    positive,
    write_error,
)
from sklearn_dl._files import replacing
from sklearn_dl.persistence import check_file

_STDIN = "-"
# Batches that the model is given at once: it reads ahead among these.
_BATCHES = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add = parser.add_argument
    add("model", metavar="MODEL", help="file of a model")
    add("images", metavar="IMAGES", nargs="+", help="see above")
    form = "csv with a header (default), or one JSON object a line"
    add("--format", choices=["csv", "json"], default="csv", help=form)
    output = "where the rows go, instead of stdout; replaced when all are there"
    add("--output", metavar="FILE", help=output)
    top = "only the K most probable classes, most probable first"
    add("--top", metavar="K", type=positive, help=top)
    size = "images in one pass of the network (default: 32)"
    add("--batch-size", metavar="N", type=positive, default=32, help=size)
    add("--device", help="auto, cpu, cuda, cuda:1, mps (default: as it was saved)")
    strict = "stop at the first image that can't be read, with exit code 2"
    add("--strict", action="store_true", help=strict)
    add("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> int:
    """Predict; return the exit code."""
    from tqdm import tqdm

    from sklearn_dl._commands._answers import csv_rows, json_lines, open_model

    model_file = check_file(args.model)
    if args.images.count(_STDIN) > 1:
        raise CommandError("- (paths on stdin) can be given once.")
    parts = [None if image == _STDIN else _expanded(image) for image in args.images]
    known = [path for part in parts for path in part or ()]
    total = None if None in parts else len(known)
    every = (_lines_of_stdin() if part is None else part for part in parts)
    paths = chain.from_iterable(every)
    output = None
    if args.output is not None:
        output = checked_output(args.output, model_file, *known)
    elif sys.stdout is None:
        raise CommandError("stdout is closed; name a file with --output.")
    model = open_model(model_file, device=args.device, batch_size=args.batch_size)
    if args.top is not None and model.value_name != "probability":
        raise CommandError(f"--top: {args.model} gives no probabilities of classes.")
    model.top = args.top
    rows = csv_rows if args.format == "csv" else json_lines
    rows_are_seen = output is None and on_terminal(sys.stdout)
    no_bar = args.quiet or rows_are_seen or not on_terminal(sys.stderr)
    bar = tqdm(total=total, desc="predict", unit="img", disable=no_bar)
    target = nullcontext(sys.stdout.buffer) if output is None else replacing(output)
    n_images = n_failed = 0
    with target as file, bar:
        while chunk := list(islice(paths, _BATCHES * args.batch_size)):
            if output is not None and total is None:  # these come on stdin
                checked_output(output, *chunk)
            table = model(chunk)
            failed = table[table["error"].notna()]
            stop = args.strict and len(failed) > 0
            shown = table[: failed.index[0]] if stop else table
            file.write(rows(shown, header=n_images == 0))
            if stop:
                raise CommandError("{path!r}: {error}".format(**failed.iloc[0]))
            file.flush()
            n_images, n_failed = n_images + len(chunk), n_failed + len(failed)
            bar.update(len(chunk))
    if n_failed:
        of_all = f"{n_failed} of {n_images} images"
        write_error(f"predict: {of_all} could not be read; their rows say why.")
    return 1 if n_failed else 0


def _expanded(argument: str) -> list[str]:
    """Return the images that an argument stands for."""
    from sklearn_dl.datasets import images_below

    path = os.path.expanduser(argument)
    there = path  # what exists is no pattern, whatever brackets its name has
    while there and not os.path.exists(there):
        there = os.path.dirname(there)
    rest = path[len(there) :]
    matches = sorted(glob.glob(glob.escape(there) + rest, recursive=True))
    files = [f for m in matches for f in (images_below(m) if os.path.isdir(m) else [m])]
    if files:
        return list(dict.fromkeys(files))  # "**" matches folders and what is in them
    if not rest:
        raise CommandError(f"There is no image in the folder {argument!r}.")
    if "*" in rest or "?" in rest:
        raise CommandError(f"No image matches {argument!r}.")
    return [path]  # the row of a file that isn't there says so


def _lines_of_stdin() -> Iterator[str]:
    for line in sys.stdin.buffer:
        if path := os.fsdecode(line).rstrip("\r\n"):
            yield path
