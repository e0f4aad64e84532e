"""Write the features of images to a file, for other programs and for partial_fit.

DATA is a folder, or a table (.csv, .xlsx, .parquet) with a column of paths. All images
below a folder are taken, in order of their paths. What lies in class folders is
labelled by them; folders train, val and test of class folders are splits.

OUT.npy is a NumPy array with a JSON of paths, labels and settings beside it,
OUT.parquet has all in one file. Run the same command again after a kill: it goes on
where it ended. Images that can't be read are named, their features are NaN, and the
exit code is 1.

example:
    python -m sklearn_dl features photos --out photos.npy --dtype float16
    python -m sklearn_dl features all.csv --target kind --out all.parquet
    python -m sklearn_dl features all.csv --shard 3/16 --out all-3.npy
"""

import argparse
import os
import sys
import warnings
from typing import Any, NamedTuple

from sklearn_dl._commands._terminal import (
    assignment,
    checked_output,
    on_terminal,
    say,
    size_of,
    value,
    write_error,
)

_SPLITS = frozenset("train training val valid validation test testing".split())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add = parser.add_argument
    data = "folder, or table of paths"
    add("data", metavar="DATA", type=os.path.expanduser, help=data)
    add("--out", metavar="OUT", required=True, help="file to write: .npy or .parquet")
    dtype = "float32 (default), or float16: half the space, three digits, to 65,504"
    add("--dtype", choices=["float32", "float16"], default="float32", help=dtype)
    shard = "only the k-th of n parts, such as 3/16, for the jobs of an array"
    add("--shard", metavar="K/N", help=shard)
    add("--path", metavar="COLUMN", default="path", help="of a table (default: path)")
    target = "of a table, of labels or targets; several times for several targets"
    add("--target", metavar="COLUMN", action="append", help=target)
    split = "of a table, such as train and val"
    add("--split", metavar="COLUMN", help=split)
    root = "that the paths in a table start from (default: the table's folder)"
    add("--root", metavar="FOLDER", help=root)
    add("--backbone", help="torchvision network (default: mobilenet_v2)")
    weights = "names of torchvision's, a file, or builtin (of mobilenet_v3_small)"
    add("--weights", help=weights)
    layer = (
        "where features are taken, such as layer4 or layer4,max (default: pre_logits)"
    )
    add("--layer", type=value, help=layer)
    other = "any other parameter of ImageFeatureExtractor, such as batch_size=64"
    assigned: Any = {"action": "append", "type": assignment, "default": []}
    add("--set", metavar="NAME=VALUE", **assigned, help=other)
    add("--quiet", action="store_true", help="no progress")


def run(args: argparse.Namespace) -> int:
    """Write the features; return the exit code."""
    read = [path for path in (args.data, args.weights) if path is not None]
    checked_output(args.out, *read)
    from sklearn_dl._features import ImageFeatureExtractor
    from sklearn_dl.datasets import check_features_path, check_shard, shard_rows

    check_features_path(args.out)
    shard = check_shard(args.shard)
    extractor = ImageFeatureExtractor()
    names = extractor.get_params()
    given = {k: v for k, v in vars(args).items() if k in names and v is not None}
    # Of random weights each shard must draw the same.
    defaults = {"cache": None, "random_state": 0}
    verbose = 0 if args.quiet else 1 if on_terminal(sys.stderr) else 2
    extractor.set_params(**{**defaults, "verbose": verbose, **given, **dict(args.set)})
    images = _images(args)
    extractor.fit(images.paths)
    options = {"split": images.split, "dtype": args.dtype, "shard": args.shard}
    with warnings.catch_warnings():  # of what is said here
        warnings.filterwarnings("ignore", ".* could not be read", UserWarning)
        failed = extractor.transform_to(images.paths, args.out, images.y, **options)
    for row, path, reason in failed.itertuples(index=False):
        write_error(f"features: row {row}, {path!r}: {reason}")
    if len(failed):
        n_images = len(shard_rows(len(images.paths), shard))
        write_error(f"features: of {n_images} images {len(failed)} could not be read.")
    say(f"written to {args.out} ({size_of(args.out)})")
    return 1 if len(failed) else 0


class _Images(NamedTuple):
    """Paths, with what is known of them."""

    paths: list[str]
    y: Any = None
    split: Any = None


def _images(args: argparse.Namespace) -> _Images:
    if os.path.isdir(args.data):
        return _below(args.data)
    from sklearn_dl.datasets import load_image_frame

    target = args.target and (args.target if args.target[1:] else args.target[0])
    root = args.root or os.path.dirname(os.path.abspath(args.data))
    columns = {"path": args.path, "target": target, "root": root}
    bunch = load_image_frame(args.data, **columns)
    split = None
    if args.split is not None:
        columns["target"] = args.split
        split = load_image_frame(bunch.frame, **columns).target.astype(str)
    return _Images(bunch.data[:, 0].tolist(), bunch.target, split)


def _below(folder: str) -> _Images:
    """Return all images of a folder, with the names of the folders that they lie in."""
    from sklearn_dl.datasets import images_below

    paths = images_below(folder)
    if not paths:
        raise ValueError(f"There is no image in the folder {folder!r}.")
    parts = [os.path.relpath(path, folder).split(os.sep)[:-1] for path in paths]
    if not all(parts):
        return _Images(paths)  # some lie in the folder itself
    first = [names[0] for names in parts]
    if _SPLITS.issuperset(map(str.lower, first)) and all(n[1:] for n in parts):
        return _Images(paths, [names[1] for names in parts], first)
    return _Images(paths, first)
