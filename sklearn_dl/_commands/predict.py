"""Predict images with a model, one row for each.

MODEL is a file that train (or sklearn_dl.persistence.save) wrote, or an .onnx file of
export, which needs no torch. IMAGES are files, folders (all images below, in order of
their paths), patterns such as 'new/*.jpg', or - for paths on stdin, one a line.

A row has the path, the prediction, the probability of each class (or its score, where
the model has no probabilities), and the error of an image that can't be read: the
others go on, and the exit code is 1.

example:
    python -m sklearn_dl predict ants_bees.model new/ --top 1 --output new.csv
    find new -name '*.jpg' | python -m sklearn_dl predict m.model - --format json
"""

import argparse
import glob
import io
import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import chain, islice
from typing import Any

from sklearn_dl._commands._terminal import checked_output, on_terminal, write_error
from sklearn_dl._files import replacing
from sklearn_dl.persistence import check_file

# Batches that the model is given at once: it reads ahead among these.
_BATCHES = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add = parser.add_argument
    add("model", metavar="MODEL", help="file of a model")
    add("images", metavar="IMAGES", nargs="+", help="see above")
    add("--format", choices=["csv", "json"], default="csv", help="json: lines of JSON")
    add("--output", metavar="FILE", help="of the rows; replaced when all are there")
    add("--top", metavar="K", type=_positive, help="only the K most probable classes")
    add("--batch-size", metavar="N", type=_positive, default=32, help="(default: 32)")
    add("--device", help="auto, cpu, cuda, cuda:1, mps (default: as it was saved)")
    add("--strict", action="store_true", help="stop at images that can't be read")
    add("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> int:
    """Predict; return the exit code."""
    from tqdm import tqdm

    from sklearn_dl._commands._answers import Answers, as_text, open_model

    model_file = check_file(args.model)
    parts = [_of_stdin() if i == "-" else _expanded(i) for i in args.images]
    known = [path for part in parts if isinstance(part, list) for path in part]
    output = None
    if args.output is not None:
        output = checked_output(args.output, model_file, *known)
    elif sys.stdout is None:
        raise ValueError("stdout is closed; name a file with --output.")
    answers = Answers(open_model(model_file, args.device, args.batch_size), args.top)
    rows_are_seen = output is None and on_terminal(sys.stdout)
    no_bar = args.quiet or rows_are_seen or not on_terminal(sys.stderr)
    total = None if "-" in args.images else len(known)
    bar = tqdm(total=total, desc="predict", unit="img", disable=no_bar)
    # A notebook's stdout has no bytes.
    stdout = getattr(sys.stdout, "buffer", sys.stdout)
    target = nullcontext(stdout) if output is None else replacing(output)
    paths, n_images, n_failed = chain.from_iterable(parts), 0, 0
    header = as_text(answers([]), args.format, header=True)
    with target as file, bar:
        while chunk := list(islice(paths, _BATCHES * args.batch_size)):
            if output is not None:  # what comes on stdin is known now
                checked_output(output, *chunk)
            table = answers(chunk)
            failed = table[table["error"].notna()]
            if args.strict and len(failed) > 0:
                raise ValueError("{path!r}: {error}".format(**failed.iloc[0]))
            _write(file, header + as_text(table, args.format, header=False))
            header = ""
            n_images, n_failed = n_images + len(chunk), n_failed + len(failed)
            bar.update(len(chunk))
        _write(file, header)  # of a table of no rows
    if n_failed:
        of_all = f"{n_failed} of {n_images} images"
        write_error(f"predict: {of_all} could not be read; their rows say why.")
    return 1 if n_failed else 0


def _write(file: Any, rows: str) -> None:
    """Write rows with the names of files as they are, where a file takes bytes."""
    data = rows.encode("utf-8", "surrogateescape")
    text = isinstance(file, io.TextIOBase)
    file.write(data.decode("utf-8", "backslashreplace") if text else data)
    file.flush()


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of 1 or more")
    return int(text)


def _expanded(argument: str) -> list[str]:
    """Return the images that an argument stands for."""
    from sklearn_dl.datasets import images_below

    path = there = os.path.expanduser(argument)
    while there and not os.path.exists(there):  # what exists is no pattern
        there = os.path.dirname(there)
    rest = path[len(there) :]
    matches = sorted(glob.glob(glob.escape(there) + rest, recursive=True))
    files = [f for m in matches for f in (images_below(m) if os.path.isdir(m) else [m])]
    if files:
        return list(dict.fromkeys(files))  # "**" matches folders and what is in them
    if not rest:
        raise ValueError(f"There is no image in the folder {argument!r}.")
    if "*" in rest or "?" in rest:
        raise ValueError(f"No image matches {argument!r}.")
    return [path]  # the row of a file that isn't there says so


def _of_stdin() -> Iterator[str]:
    for line in sys.stdin.buffer:
        if path := os.fsdecode(line).rstrip("\r\n"):
            yield path
