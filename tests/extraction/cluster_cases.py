"""A small backbone whose every batch takes a while, for clusters of real processes."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from distributed import Client, LocalCluster
from torch import nn
from torchvision.models import squeezenet1_1


@contextmanager
def two_workers() -> Iterator[Client]:
    """Start a cluster of two worker processes, which are ready to work."""
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        wake(client)
        yield client


def wake(client) -> None:
    """Let both workers import what they need: the first to have it takes all work."""
    client.wait_for_workers(2)
    client.run(_import)


def _import():
    import sklearn_dl._features  # noqa: F401


class Slow:
    """Builds a network that notes each batch with its process, and takes its time."""

    def __init__(self, path, seconds=0.0, swap=None):
        self.path = str(path)
        self.seconds = seconds
        self.swap = swap  # (folder, into): whose files the first batch moves there

    def __call__(self) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            module = squeezenet1_1(weights=None).features[:5]
        module.register_forward_hook(_Note(self.path, self.seconds, self.swap))
        return module

    def batches(self) -> list[tuple[int, int]]:
        """Return (process id, images) of each batch so far."""
        path = Path(self.path)
        lines = path.read_text().splitlines() if path.exists() else []
        return [(int(pid), int(n)) for pid, n in map(str.split, lines)]

    def images(self) -> int:
        """Return how many images there were so far."""
        return sum(n for _, n in self.batches())


class _Note:
    def __init__(self, path, seconds, swap):
        self.path, self.seconds, self.swap = path, seconds, swap

    def __call__(self, module, inputs, output):
        if output.device.type == "meta":  # how the width of the features is found
            return
        time.sleep(self.seconds)
        with open(self.path, "a") as file:
            file.write(f"{os.getpid()} {len(output)}\n")
        if self.swap is not None:
            folder, into = map(Path, self.swap)
            for file in folder.iterdir():
                with suppress(FileNotFoundError):  # another worker has moved it
                    file.replace(into / file.name)


def two_folders(paths, parent) -> tuple[Path, Path]:
    """Copy files to two folders, by the names 0.png, 1.png and so on."""
    folders = parent / "here", parent / "there"
    for folder in folders:
        folder.mkdir()
        for row, path in enumerate(paths):
            shutil.copy(path, folder / f"{row}.png")
    return folders


def outputs_of_a_fit(model, X, y):
    """Fit where a process may have no children, and return probabilities."""
    import multiprocessing

    assert multiprocessing.current_process().daemon
    return model.fit(X, y).predict_proba(X)
