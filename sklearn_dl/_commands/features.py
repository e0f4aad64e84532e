"""Write the features of images to a file, for other programs and for partial_fit.

DATA is a folder, or a table (.csv, .xlsx, .parquet) with a column of paths. All images
below a folder are taken, in order of their paths. What lies in class folders is
labelled by them; folders train, val and test of class folders are splits.

OUT.npy is a NumPy array with a JSON of paths, labels and settings beside it,
OUT.parquet has all in one file; either may be a URL, such as s3://bucket/f.npy. Run the
same command again after a kill: it goes on where it ended. Images that can't be read
are named, their features are NaN, and the exit code is 1.

--shards 16 writes OUT-01-of-16.npy to OUT-16-of-16.npy, as far as they aren't there;
with --scheduler the workers of a Dask cluster write them, each its own.

example:
    python -m sklearn_dl features photos --out photos.npy --dtype float16
    python -m sklearn_dl features all.csv --target kind --out all.parquet
    python -m sklearn_dl features all.csv --shard 3/16 --out all-3.npy
    python -m sklearn_dl features all.csv --shards 16 --out /shared/all.npy
"""

import argparse
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
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
    shards = "all n parts, in files of their own, but those that are there"
    add("--shards", type=int, metavar="N", help=shards)
    scheduler = "of a Dask cluster whose workers write the --shards"
    add("--scheduler", metavar="ADDRESS", help=scheduler)
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
    _check(args)
    from sklearn_dl._features import ImageFeatureExtractor
    from sklearn_dl.datasets import check_shard, shard_rows

    extractor = ImageFeatureExtractor()
    names = extractor.get_params()
    given = {k: v for k, v in vars(args).items() if k in names and v is not None}
    # Of random weights each shard must draw the same.
    defaults = {"cache": None, "random_state": 0}
    verbose = 0 if args.quiet else 1 if on_terminal(sys.stderr) else 2
    extractor.set_params(**{**defaults, "verbose": verbose, **given, **dict(args.set)})
    if args.scheduler is not None:  # workers are at home in other folders
        args.data = os.path.abspath(args.data)
    images = _images(args)
    extractor.fit(images.paths)
    options = {"split": images.split, "dtype": args.dtype}
    options |= {"shard": args.shard, "n_shards": args.shards}
    with _cluster(args.scheduler), warnings.catch_warnings():  # of what is said here
        warnings.filterwarnings("ignore", ".* could not be read", UserWarning)
        failed = extractor.transform_to(images.paths, args.out, images.y, **options)
    for row, path, reason in failed.itertuples(index=False):
        write_error(f"features: row {row}, {path!r}: {reason}")
    if len(failed):
        n_images = len(shard_rows(len(images.paths), check_shard(args.shard)))
        write_error(f"features: of {n_images} images {len(failed)} could not be read.")
    say(f"written to {_written(args)}")
    return 1 if len(failed) else 0


def _check(args: argparse.Namespace) -> None:
    """Raise for what is wrong, before there is much to lose."""
    from sklearn_dl._images import is_url
    from sklearn_dl.datasets import check_count, check_features_path, check_shard

    if not is_url(args.out):
        read = [path for path in (args.data, args.weights) if path is not None]
        checked_output(args.out, *read)
    check_features_path(args.out)
    check_shard(args.shard)
    if args.shards is not None:
        check_count("n_shards", args.shards)
        if args.shard is not None:
            raise ValueError("--shard is one of the parts, --shards all: give either.")
    elif args.scheduler is not None:
        raise ValueError("--scheduler needs --shards, which its workers write.")


@contextmanager
def _cluster(address: str | None) -> Iterator[None]:
    """Let the workers of a cluster take part, if there is an address."""
    if address is None:
        yield
        return
    import joblib

    try:
        from distributed import Client
    except ImportError as error:
        message = '--scheduler needs: pip install "sklearn_dl[dask]"'
        raise ImportError(f"{error}\n{message}") from error
    with Client(address), joblib.parallel_config("dask"):
        yield


def _written(args: argparse.Namespace) -> str:
    """Return the names of the files with their size, as far as they are here."""
    from sklearn_dl._images import is_url
    from sklearn_dl.datasets import shard_path

    names, out = [args.out], args.out
    if args.shards is not None:
        names = [shard_path(out, k, args.shards) for k in range(1, args.shards + 1)]
        out = f"{names[0]} and the others" if names[1:] else names[0]
    if is_url(args.out):
        return out
    return f"{out} ({size_of(*map(os.path.expanduser, names))})"


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
