"""Fits, as torchrun starts them in two processes, and as one process does them.

Arguments: the case, and a folder for what each process found.
"""

import os
import pickle
import signal
import sys
import warnings
from pathlib import Path

import joblib
import numpy as np
import torch
from PIL import Image
from skorch.callbacks import Callback
from torch import distributed

from sklearn_dl import ImageClassifier
from sklearn_dl.training import (
    Checkpoint,
    GradientMonitor,
    Head,
    Trainable,
    VirtualAdversarialLoss,
)

rank, alone = int(os.environ.get("RANK", "0")), "RANK" not in os.environ
rng = np.random.default_rng(0)
# Neither the rows nor the last batch can be halved; the last batch of early stopping
# is of one row, so that a process has none.
X, y = rng.integers(0, 256, (33, 32, 32, 3), "uint8"), np.arange(33) % 3
X[y == 1] //= 2
SMALL = {
    "backbone": "mobilenet_v3_small",
    "weights": "builtin",
    "image_size": 32,
    "random_state": 0,
    "batch_size": 8,
    "max_epochs": 2,
    "precision": "float64",  # in which rounding can't hide another result
}
EVERYTHING = Trainable("all", freeze_batch_norm=True)
CASES = {
    "head": {"head": Head(dropout=0.3)},
    "augmented head": {"augment": "light", "head": Head((8,), dropout=0.3)},
    "warm-up": {"trainable": EVERYTHING, "warmup_epochs": 1, "head": Head(dropout=0.3)},
    "mixed": {"trainable": EVERYTHING, "augment": "mixup"},
    "early stopping": {"trainable": 2, "early_stopping": True, "max_epochs": 4},
    "monitored": {
        "trainable": 2,
        "early_stopping": True,
        "callbacks": [GradientMonitor()],
    },
    "adversarial": {
        "trainable": EVERYTHING,
        "head": Head(dropout=0.3),
        "callbacks": [VirtualAdversarialLoss()],
    },
    "stochastic depth": {
        "backbone": "convnext_tiny",
        "weights": None,
        "trainable": 1,
        "max_epochs": 1,
    },
}


class AtStep(Callback):
    """Does something in one process, at a step."""

    def __init__(self, action, step=3, rank=1, at_end=False):
        self.action, self.step, self.rank, self.steps = action, step, rank, 0
        self.at_end = at_end

    def on_batch_begin(self, net, training=False, **kwargs):
        """Count the steps."""
        self.steps += training
        if self.steps == self.step and rank == self.rank and not self.at_end:
            self.action(net)

    def on_epoch_begin(self, net, **kwargs):
        """Draw before the epoch's order is drawn."""
        if rank == self.rank and self.step == 0:
            self.action(net)

    def on_epoch_end(self, net, **kwargs):
        """Come behind the last step of an epoch."""
        if rank == self.rank and self.at_end:
            self.action(net)


def fitted(y=y, **parameters):
    """Return weights and history of a fit."""
    model = ImageClassifier(**{**SMALL, **parameters})
    try:
        model.fit(X, y)
        end = model.stop_reason_
    except KeyboardInterrupt:
        end = "KeyboardInterrupt"
    state = {k: v.double().numpy() for k, v in model.module_.state_dict().items()}
    return state, model.history_.drop(columns="dur"), end


def kill(net):
    """End this process as the system does."""
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt(net):
    """Press Ctrl-C in this process."""
    signal.raise_signal(signal.SIGINT)


def error_of(X=X, y=y, **parameters):
    """Return what is wrong with a fit."""
    try:
        ImageClassifier(**{**SMALL, **parameters}).fit(X, y)
    except (ValueError, ArithmeticError) as error:
        return str(error)
    return ""


def break_down(net):
    """Fail in this process alone."""
    raise ArithmeticError(f"rank {rank} broke")


def in_threads():
    """Return what is wrong with fits side by side."""
    with joblib.parallel_config("threading", n_jobs=2):
        models = [ImageClassifier(**SMALL) for _ in range(2)]
        try:
            joblib.Parallel()(joblib.delayed(m.fit)(X, y) for m in models)
        except ValueError as error:
            return str(error)
    return ""


def failures(folder):
    """Return the errors of fits that can't go on in one process, and a fit after."""
    paths = [folder / f"{row:02}.png" for row in range(len(X))]
    for path, image in zip(paths, X, strict=True):
        if rank == 0:
            Image.fromarray(image).save(path)
    if rank == 0:
        paths[5].write_bytes(b"no image")
        paths[30].write_bytes(b"no image")
    distributed.barrier()
    paths = list(map(str, paths))
    whole = {"trainable": EVERYTHING}

    def at(action, **options):
        return {**whole, "callbacks": [AtStep(action, **options)]}

    found = {
        "images": error_of(X=paths),
        "images in training": error_of(X=paths[6:], y=y[6:], **whole, augment="light"),
        "step": error_of(**at(break_down)),
        "epoch": error_of(**at(break_down, at_end=True)),
        "draws": error_of(**at(lambda net: torch.rand(1), step=0)),
        "lr": error_of(lr=0.01 * (1 + rank)),
        "rows": error_of(X=X[: 33 - rank], y=y[: 33 - rank]),
        "other images": error_of(X=np.roll(X, 3 * rank, axis=0)),
        "names": error_of(X=np.roll(paths, 3 * rank)),
        "no y": error_of(y=None if rank else y),
        "threads": in_threads(),
    }
    return found, fitted()


def main(case, folder):
    """Fit what the case is about; write what was found."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if not alone:
        distributed.init_process_group("gloo")
        assert distributed.get_world_size() == 2
    everything = {"trainable": EVERYTHING, "max_epochs": 3}
    if case == "results":
        found = {name: fitted(**parameters) for name, parameters in CASES.items()}
    elif case == "ends":
        stop = AtStep(lambda net: net.stop_now("enough"))
        found = {
            "interrupted": fitted(**everything, callbacks=[AtStep(interrupt)]),
            "stopped": fitted(**everything, callbacks=[stop]),
        }
    elif case == "checkpoint":
        checkpoint = Checkpoint(folder / "kept", keep=True)
        found = [fitted(callbacks=[checkpoint])[:2] for _ in range(2)]
    elif case == "failures":
        found = failures(folder)
    elif case == "errors":
        moving = Trainable("all", freeze_batch_norm=False)
        found = [error_of(trainable=moving), error_of(y=np.roll(y, rank))]
    else:
        assert case == "killed"
        found = fitted(**everything, callbacks=[AtStep(kill)])
    name = "alone" if alone else str(rank)
    (folder / f"{name}.pickle").write_bytes(pickle.dumps(found))
    if not alone:
        distributed.destroy_process_group()  # its threads would end at any time


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
