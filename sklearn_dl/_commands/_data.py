"""Images to train on and to score, and how far the training is."""

import argparse
import os
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import mean_absolute_error, r2_score
from sklearn.model_selection import train_test_split

from sklearn_dl._commands._terminal import say, write_error
from sklearn_dl.datasets import load_image_folder, load_image_frame
from sklearn_dl.training import EpochProgress

_TRAIN = ("train", "training")
_HELD_OUT = ("val", "valid", "validation", "test", "testing")
# Why a folder's loader leaves out what never was an image.
_NO_IMAGES = ("not in a class folder", "not an image by its suffix")


def load_parts(args: argparse.Namespace, random_state: Any) -> tuple[Any, ...]:
    """Return X, y, those held out (or None), and how many images can't be read."""
    train, regression = _inside(args.data, _TRAIN), args.task == "regression"
    other, share = train and _inside(args.data, _HELD_OUT), 0.2
    if args.validation is not None:
        share = float(pd.to_numeric(args.validation, errors="coerce"))
        other = args.validation if np.isnan(share) else None
    train = train or args.data
    X, y, n_failed = _readable(train, args)
    X_test: Any = None
    y_test, n_more, origin = None, 0, other
    if other is not None:
        X_test, y_test, n_more = _readable(other, args)
        for name in [] if regression else sorted({*y_test.tolist()} - {*y.tolist()}):
            message = f"{other} has the class {name!r}, of which {train} has no image."
            raise ValueError(message)
    elif share != 0:
        origin = f"a share of {share:g}"
        if not regression:  # one of each class
            share = max(share, len(np.unique(y)) / len(y))
        how: Any = {"random_state": random_state, "stratify": None if regression else y}
        try:
            X, X_test, y, y_test = train_test_split(X, y, test_size=share, **how)
        except ValueError as error:  # such as a class of one image
            raise ValueError(f"{error} --validation 0 trains on all.") from error
    classes = "" if regression else f" in {_counted(y)}"
    held_out = f"{len(X_test)} held out ({origin})" if origin else "none held out"
    say(f"{len(X)} images to learn from{classes}, {held_out}")
    return X, y, X_test, y_test, n_failed + n_more


def _counted(y: np.ndarray) -> str:
    """Return how many images the first classes have."""
    names, counts = np.unique(y, return_counts=True)
    first = [f"{name} {n}" for name, n in zip(names[:8], counts[:8], strict=True)]
    more = [f"and {len(names) - 8} more"] if len(names) > 8 else []
    return f"{len(names)} classes ({', '.join(first + more)})"


def score(model: Any, y: np.ndarray, X_test: Any, y_test: np.ndarray) -> str:
    """Return how good a model is on held-out images, in one line."""
    predicted, where = model.predict(X_test), f"on the {len(y_test)} held-out images"
    if y.dtype.kind == "f":
        error = mean_absolute_error(y_test, predicted)
        r2 = f"R2 {r2_score(y_test, predicted):.3f}, " if len(y_test) > 1 else ""
        return f"{where}: {r2}mean absolute error {error:.4g}"
    right, usual = predicted == y_test, pd.Series(y, dtype=object).mode()[0]
    said = f"accuracy {right.mean():.3f}, {np.sum(~right)} wrong"
    return f"{where}: {said} (always {str(usual)!r}: {np.mean(y_test == usual):.3f})"


def _inside(folder: str, names: tuple[str, ...]) -> str | None:
    """Return the first folder of these names, in any case, that has folders in it."""
    if not os.path.isdir(folder):
        return None
    found = {e.name.lower(): e.path for e in os.scandir(folder) if e.is_dir()}
    for path in (found[name] for name in names if name in found):
        # A class called "train" has images in it, not folders.
        if any(entry.is_dir() for entry in os.scandir(path)):
            return path
    return None


def _readable(data: str, args: argparse.Namespace) -> tuple[Any, np.ndarray, int]:
    """Return paths, targets, and the number of images that can't be read."""
    verify = "raise" if args.strict else "skip"
    bunch = load(data, args, verify=verify, **dict(args.table))
    failed = bunch.skipped[~bunch.skipped["reason"].isin(_NO_IMAGES)]
    for one in failed.to_dict("records"):
        place = f"row {one['row']}" if one["path"] is None else repr(one["path"])
        write_error(f"train: left out {place}: {one['reason']}")
    y, regression = bunch.target, args.task == "regression"
    if not regression and (y.ndim > 1 or y.dtype.kind == "f"):
        example = f"such as {y[0]}, which are no labels"
        raise ValueError(f"{data} has targets {example}: --task regression?")
    try:
        y = np.array(y.tolist(), dtype=float) if regression else y
    except (TypeError, ValueError) as error:
        raise ValueError(f"The targets in {data} are no numbers: {error}.") from error
    return bunch.data, y, len(failed)


def load(data: str, args: argparse.Namespace, **how: Any) -> Any:
    """Return what a loader gives for a folder or a table, corrected."""
    if os.path.isdir(data):
        bunch = load_image_folder(data, verify=how.get("verify", False))
    else:
        names: list[Any] = [args.path, *(args.target or ["target"])]
        if how.get("header", 0) is None:  # columns have positions
            names = [int(n) if n.removeprefix("-").isdecimal() else n for n in names]
        how["target"] = names[1:] if len(names) > 2 else names[1]
        how["root"] = args.root or os.path.dirname(os.path.abspath(data))
        bunch = load_image_frame(data, path=names[0], **how)
    return bunch if args.corrections is None else args.corrections(bunch)


class EpochLines(EpochProgress):
    """Writes a line after each epoch, where no bar can be drawn."""

    def on_epoch_end(self, net, **kwargs):
        row, done = net.history[-1], len(net.history)
        names = [n for n in ("train_loss", "valid_loss", "valid_score") if n in row]
        shown = ", ".join(f"{name} {row[name]:.4g}" for name in names)
        write_error(f"epoch {done} of {done + net.epochs_left_}: {shown}")

    def on_epoch_begin(self, net, **kwargs):
        """Draw nothing."""

    on_batch_end = on_epoch_begin
