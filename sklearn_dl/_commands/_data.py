"""Images to train on and to score, and how far the training is."""

import argparse
import os
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from sklearn_dl._commands._terminal import write_error
from sklearn_dl.datasets import load_image_folder, load_image_frame
from sklearn_dl.training import EpochProgress

_TRAIN = ("train", "training")
_HELD_OUT = ("val", "valid", "validation", "test", "testing")
# Why a folder's loader leaves out what never was an image.
_NO_IMAGES = ("not in a class folder", "not an image by its suffix")


class Parts(NamedTuple):
    """Training and held-out images, with what is said of them."""

    X: np.ndarray  # (n, 1) paths
    y: np.ndarray  # (n,) or (n, n_targets)
    X_test: Any  # None where nothing is held out
    y_test: Any
    origin: str  # where the held-out images come from
    n_failed: int  # images that can't be read, and were left out
    regression: bool

    @property
    def description(self) -> str:
        """How many images there are, in one line."""
        text = f"{len(self.X)} images to learn from"
        if not self.regression:
            counts = pd.Series(self.y, dtype=object).value_counts().sort_index()
            shown = [f"{name} {count}" for name, count in counts[:8].items()]
            shown += [f"and {len(counts) - 8} more"] if len(counts) > 8 else []
            text += f" in {len(counts)} classes ({', '.join(shown)})"
        if self.X_test is None:
            return f"{text}, none held out"
        return f"{text}, {len(self.X_test)} held out ({self.origin})"

    def score(self, model: Any) -> str:
        """Return how good a model is on the held-out images, in one line."""
        from sklearn.metrics import mean_absolute_error, r2_score

        predicted, truth = model.predict(self.X_test), self.y_test
        where = f"on the {len(truth)} held-out images"
        if self.regression:
            error = mean_absolute_error(truth, predicted)
            r2 = f"R2 {r2_score(truth, predicted):.3f}, " if len(truth) > 1 else ""
            return f"{where}: {r2}mean absolute error {error:.4g}"
        usual, right = pd.Series(self.y, dtype=object).mode()[0], predicted == truth
        return (
            f"{where}: accuracy {right.mean():.3f}, {np.sum(~right)} wrong "
            f"(always {str(usual)!r}: {np.mean(truth == usual):.3f})"
        )


def load_data(args: argparse.Namespace, random_state: Any) -> Parts:
    """Load what the arguments of ``train`` name."""
    from sklearn.model_selection import train_test_split

    train, regression = _inside(args.data, _TRAIN), args.task == "regression"
    other, share = train and _inside(args.data, _HELD_OUT), 0.2
    if args.validation is not None:
        share = float(pd.to_numeric(args.validation, errors="coerce"))
        other = args.validation if np.isnan(share) else None
    train = train or args.data
    X, y, n_failed = _loaded(train, args)
    X_test, y_test, origin = None, None, other or f"a share of {share:g}"
    if other is not None:
        X_test, y_test, n_more = _loaded(other, args)
        n_failed += n_more
        for name in [] if regression else sorted({*y_test.tolist()} - {*y.tolist()}):
            message = f"{other} has the class {name!r}, of which {train} has no image."
            raise ValueError(message)
    elif share != 0:
        options: dict[str, Any] = {"test_size": share, "random_state": random_state}
        if not regression:  # one of each class
            options["test_size"] = max(share, len(np.unique(y)) / len(y))
            options["stratify"] = y
        try:
            X, X_test, y, y_test = train_test_split(X, y, **options)
        except ValueError as error:  # such as a class of one image
            raise ValueError(f"{error} --validation 0 trains on all.") from error
    return Parts(X, y, X_test, y_test, origin, n_failed, regression)


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


def _loaded(data: str, args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray, int]:
    """Return paths, targets, and the number of images that can't be read."""
    verify: Any = "raise" if args.strict else "skip"
    if os.path.isdir(data):
        bunch = load_image_folder(data, verify=verify)
    else:
        how = dict(args.table)
        path, names = args.path, args.target or ["target"]
        if how.get("header", 0) is None:  # columns have positions, not names
            path, names = _position(path), [_position(name) for name in names]
        target = names[0] if len(names) == 1 else names
        root = args.root or os.path.dirname(os.path.abspath(data))
        columns = {"path": path, "target": target}
        bunch = load_image_frame(data, **columns, root=root, verify=verify, **how)
    if args.corrections is not None:
        bunch = args.corrections(bunch)
    failed = bunch.skipped[~bunch.skipped["reason"].isin(_NO_IMAGES)]
    for place, reason in zip(_places(failed), failed["reason"], strict=True):
        write_error(f"train: left out {place}: {reason}")
    return bunch.data, _targets(bunch.target, data, args.task), len(failed)


def _places(failed: pd.DataFrame) -> list[str]:
    """Return the paths of images, or the rows of those that have none."""
    rows = failed.get("row", failed["path"])
    paths = zip(failed["path"], rows, strict=True)
    return [f"row {row}" if path is None else repr(path) for path, row in paths]


def _position(text: str) -> Any:
    return int(text) if text.removeprefix("-").isdecimal() else text


def _targets(y: np.ndarray, data: str, task: str) -> np.ndarray:
    """Return the targets, which are numbers or labels as the task has it."""
    if task == "regression":
        try:
            return np.array(y.tolist(), dtype=float)
        except (TypeError, ValueError) as error:
            message = f"The targets in {data} are no numbers: {error}."
            raise ValueError(message) from error
    if y.ndim > 1 or y.dtype.kind == "f":
        example = f"such as {y[0]}, which are no labels"
        raise ValueError(f"{data} has targets {example}: --task regression?")
    return y


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
