"""A backbone that keeps count, in whichever process it runs, and disks that fail."""

import os
import pickle
import signal
import sys
import threading
import warnings

import numpy as np
import torch
from torch import nn
from torchvision.models import squeezenet1_1

from sklearn_dl import ImageClassifier, ImageFeatureExtractor
from sklearn_dl._runtime import decoding_threads
from sklearn_dl.backbones import images_seen


class Counted:
    """Builds a small network that writes down the size of each batch it sees.

    Parameters
    ----------
    path : str or Path
        The file that all processes write to.
    seed : int, default=0
        Of the weights.
    """

    def __init__(self, path, seed=0):
        self.path = str(path)
        self.seed = seed

    def __call__(self) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            module = squeezenet1_1(weights=None).features[:5]
        # On the first layer: an estimator's `layer` may end the network at any.
        module[0].register_forward_hook(_Note(self.path))
        return module

    @property
    def seen(self) -> int:
        """Images that went through, in all processes."""
        if not os.path.exists(self.path):
            return 0
        with open(self.path) as file:
            return sum(int(line) for line in file)


class _Note:
    def __init__(self, path):
        self.path = path

    def __call__(self, module, inputs, output):
        if output.device.type == "meta":  # how the width of the features is found
            return
        # Appending is atomic: several processes write here.
        with open(self.path, "a") as file:
            file.write(f"{len(output)}\n")


def two_textures(n, seed=0, size=32):
    """Return n distinct images in two classes that take a few epochs to tell apart."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 200, (n, size, size, 3), "uint8")
    images[1::2, ::2] //= 2
    return images, np.where(np.arange(n) % 2, "striped", "plain")


class Threads(Counted):
    """Builds the same network; it writes down the process and its threads."""

    def __call__(self) -> nn.Module:
        module = super().__call__()
        module[0].register_forward_hook(_NoteThreads(self.path))
        return module


class _NoteThreads:
    def __init__(self, path):
        self.path = path

    def __call__(self, module, inputs, output):
        if output.device.type == "meta":
            return
        names = [thread.name for thread in threading.enumerate()]
        alive = sum(name.startswith("sklearn_dl-decode") for name in names)
        counts = torch.get_num_threads(), decoding_threads(), alive
        with open(f"{self.path}.threads", "a") as file:
            file.write(" ".join(map(str, (os.getpid(), *counts))) + "\n")


OPTIONS = {"weights": None, "image_size": 32, "random_state": 0, "batch_size": 4}


def use(X, y, cache):
    """Return features and probabilities, the images computed, and what was warned."""
    before = images_seen()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        features = ImageFeatureExtractor(
            "squeezenet1_1", layer="features.2", cache=cache, **OPTIONS
        ).fit_transform(X)
        seen = images_seen() - before
        model = ImageClassifier(
            "squeezenet1_1", layer="features.2", cache=cache, max_epochs=2, **OPTIONS
        )
        probabilities = model.fit(X, y).predict_proba(X)
    return features, probabilities, seen, [str(w.message) for w in caught]


def use_failing_disks(X, y, full, read_only):
    """Write to stdout, pickled, what comes of caches on a full and a locked disk.

    For a process of its own: it loses the right to write larger files, and that to
    everything.
    """
    import resource

    torch.set_num_threads(1)
    results = {"uncached": use(X, y, None)}
    for directory in (full, read_only):
        use(X[:6], y[:6], directory)
    sizes = [entry.stat().st_size for entry in os.scandir(full)]
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max(sizes), max(sizes)))
    results["full"] = use(X, y, full)
    for entry in os.scandir(read_only):
        os.chmod(entry.path, 0o444)
    os.chmod(read_only, 0o555)
    if os.geteuid() == 0:  # no mode stops root
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    results["nothing missing"] = use(X[:6], y[:6], read_only)
    results["read-only"] = use(X, y, read_only)
    sys.stdout.buffer.write(pickle.dumps(results))
