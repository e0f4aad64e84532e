"""Fits in threads beside the same fits one after another: results, and seconds.

    python examples/benchmarks/threads.py

Heads, last stages and whole networks, with dropout and random weights, on small images
in memory; four threads of joblib, and of a Dask worker where Dask is installed. Seconds
of wall and of CPU, each from an empty cache, after a warm-up.
"""

import time

import harness
import numpy as np
import torch
from joblib import Parallel, delayed

from sklearn_dl import FeatureCache, ImageClassifier
from sklearn_dl.training import Head

KINDS = [
    {"head": Head(dropout=0.5)},
    {"trainable": 1, "head": Head(dropout=0.3)},
    {"weights": None, "head": Head(dropout=0.2)},
    {"backbone": "efficientnet_b0", "weights": None, "trainable": "all"},
]


def main() -> None:
    """Fit in each way, and print a table."""
    parser = harness.parser(__doc__)
    parser.add_argument("--fits", type=int, default=16)
    args = parser.parse_args()
    torch.set_num_threads(1)
    ways = {"one after another": one_by_one, "joblib": joblib_threads, "Dask": dask}
    for k in range(len(KINDS)):
        fit(k)
    wanted, rows = None, []
    for name, way in ways.items():
        FeatureCache().clear()
        try:
            start = time.perf_counter(), time.process_time()
            found = way(args.fits)
            end = time.perf_counter(), time.process_time()
        except ImportError:
            continue
        wanted = found if wanted is None else wanted
        equal = sum(map(np.array_equal, found, wanted))
        took = [f"{b - a:.1f}" for a, b in zip(start, end, strict=True)]
        rows.append([name, f"{equal} of {args.fits}", *took])
    header = ["fits", "equal predictions", "wall, s", "CPU, s"]
    harness.table("Fits in four threads", header, rows, args.output)


def fit(k: int) -> np.ndarray:
    """Return the predictions of a fit."""
    X = harness.random_arrays(48, 32)
    given = {"backbone": "mobilenet_v3_small", "weights": "builtin", "image_size": 32}
    given |= {"max_epochs": 2, "batch_size": 8, "random_state": k}
    given |= KINDS[k % len(KINDS)]
    return ImageClassifier(**given).fit(X, np.arange(48) % 2).predict_proba(X)


def one_by_one(n: int) -> list:
    """Fit in this thread."""
    return [fit(k) for k in range(n)]


def joblib_threads(n: int) -> list:
    """Fit in joblib's threads."""
    return list(Parallel(4, backend="threading")(delayed(fit)(k) for k in range(n)))


def dask(n: int) -> list:
    """Fit in a Dask worker of four threads."""
    from distributed import Client

    with Client(
        n_workers=1, threads_per_worker=4, processes=False, dashboard_address=None
    ) as client:
        return client.gather(client.map(fit, range(n), pure=False))


if __name__ == "__main__":
    main()
