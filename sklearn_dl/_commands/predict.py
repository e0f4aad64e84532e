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
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sklearn_dl._commands._images import Paths
from sklearn_dl._commands._terminal import (
    CommandError,
    checked_output,
    on_terminal,
    positive,
    write_error,
)

# Batches that the model is given at once: it reads ahead among these.
_BATCHES = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("model", metavar="MODEL", help="file of a model")
    parser.add_argument("images", metavar="IMAGES", nargs="+", help="see above")
    parser.add_argument(
        "--format",
        choices=["csv", "json"],
        default="csv",
        help="csv with a header (default), or one JSON object a line",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="where the rows go, instead of stdout; replaced when all are there",
    )
    parser.add_argument(
        "--top",
        metavar="K",
        type=positive,
        help="only the K most probable classes, most probable first",
    )
    parser.add_argument(
        "--batch-size",
        metavar="N",
        type=positive,
        default=32,
        help="images in one pass of the network (default: 32)",
    )
    parser.add_argument(
        "--device", help="auto, cpu, cuda, cuda:1, mps (default: as it was saved)"
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="stop at the first image that can't be read, with exit code 2",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> int:
    """Predict; return the exit code."""
    from sklearn_dl._commands._answers import check_model_file, open_model
    from sklearn_dl._commands._rows import CsvRows, JsonRows

    model = check_model_file(args.model)
    paths = Paths(args.images)
    output = None
    if args.output is not None:
        output = checked_output(args.output, model, *paths.known)
    answers = open_model(model, device=args.device, batch_size=args.batch_size)
    if args.top is not None and answers.value_name != "probability":
        raise CommandError(f"--top: {args.model} gives no probabilities of classes.")
    rows = (CsvRows if args.format == "csv" else JsonRows)(answers, args.top)
    n_images, n_failed = 0, 0
    with _opened(output) as file, _bar(paths.total, args, output) as advance:
        file.write(rows.header())
        for chunk in paths.chunks(_BATCHES * args.batch_size):
            if output is not None and paths.total is None:  # these come on stdin
                checked_output(output, *chunk)
            for answer in answers(chunk):
                if answer.error and args.strict:
                    raise CommandError(f"{answer.path!r}: {answer.error}")
                n_failed += bool(answer.error)
                file.write(rows.row(answer))
            file.flush()
            n_images += len(chunk)
            advance(len(chunk))
    if n_failed:
        write_error(
            f"predict: {n_failed} of {n_images} images could not be read; their rows "
            "say why."
        )
    return 1 if n_failed else 0


@contextmanager
def _opened(output: Path | None) -> Iterator[Any]:
    if output is None:
        if sys.stdout is None:
            raise CommandError("stdout is closed; name a file with --output.")
        yield sys.stdout.buffer
        return
    from sklearn_dl._files import replacing

    with replacing(output) as file:
        yield file


@contextmanager
def _bar(total: int | None, args, output: Path | None) -> Iterator[Any]:
    """Show a bar on a terminal, unless the rows go there."""
    rows_are_seen = output is None and on_terminal(sys.stdout)
    if args.quiet or rows_are_seen or not on_terminal(sys.stderr):
        yield lambda n: None
        return
    from tqdm import tqdm

    with tqdm(total=total, desc="predict", unit="img") as bar:
        yield bar.update
