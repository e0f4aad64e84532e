"""Features of a frozen backbone: kept, shared, and computed where they are missing."""

import copy
from typing import Any

import numpy as np
import torch

from sklearn_dl.backbones import Backbone
from sklearn_dl.extraction._cache import resolve_cache
from sklearn_dl.extraction._cached import CachedPass
from sklearn_dl.extraction._cluster import ClusterPass, active_client
from sklearn_dl.extraction._pass import Pass
from sklearn_dl.extraction._run import Combine, Forward, combined, progress, run_network
from sklearn_dl.images import ImageDecodeError, ImageSource
from sklearn_dl.runtime import release_memory, resolve_device

# Batches in one task for a worker of a cluster.
_TASK_BATCHES = 8


def run_frozen(
    backbone: Backbone,
    source: ImageSource,
    preprocessing,
    *,
    cache: Any,
    device: torch.device,
    rows: np.ndarray | None = None,
    precision: str = "float32",
    batch_size: int = 32,
    verbose: int = 0,
    description: str = "images",
    views=None,
    combine: Combine | None = None,
    worker_device: str | torch.device = "auto",
) -> np.ndarray:
    """Return what becomes of a frozen backbone's features, one row per image.

    Images whose features are in the cache are not decoded; of the others, each
    distinct one is taken through the backbone once, also when several threads or
    processes ask for it at the same time. Inside ``joblib.parallel_config("dask")``
    many images are spread over the workers of the cluster.

    Parameters
    ----------
    backbone : Backbone
    source : ImageSource of n images
    preprocessing : Preprocessing
    cache : "memory", str, path, FeatureCache or None
        Where features are kept; None computes all.
    device : torch.device
    rows : ndarray of int, default=None
        Positions of the images wanted; None for all n.
    precision : {"auto", "bfloat16", "float16", "float32", "float64"}, default="float32"
    batch_size : int, default=32
    verbose : int, default=0
        Above 0, a progress bar is shown.
    description : str, default="images"
        What the progress bar is called.
    views : Views, default=None
        Several views of each image are taken through the backbone.
    combine : callable, default=None
        Maps features, (b, n_features) or with views (b, n_views, n_features), to one
        row each. None takes the mean over the views.
    worker_device : str or torch.device, default="auto"
        Device of the workers of a cluster.

    Returns
    -------
    ndarray of shape (n or n_rows, n_outputs)
        float32, or float64 where that is the precision.

    Raises
    ------
    ImageDecodeError
        Naming the rows and paths of images that can't be read.
    """
    rows = np.arange(len(source)) if rows is None else np.asarray(rows)
    store, client = resolve_cache(cache), active_client()
    chunk = batch_size * _TASK_BATCHES
    if len(rows) <= chunk:
        client = None  # too little to be spread
    if store is None and client is None:
        return run_network(
            backbone,
            source,
            preprocessing,
            device=device,
            rows=rows,
            precision=precision,
            batch_size=batch_size,
            verbose=verbose,
            description=description,
            views=views,
            combine=combine,
        )
    forward = Forward(backbone, preprocessing, device, precision, views)
    combine = combined(views) if combine is None else combine
    if client is None:
        assert store is not None
        run: Pass = CachedPass(forward, source, store, batch_size)
        window = run.window
    else:
        options = {"cache": cache, "precision": precision, "batch_size": batch_size}
        model = _Model(forward, worker_device, options)
        work = {"client": client, "work": _chunk, "model": model, "chunk": chunk}
        run = ClusterPass(forward, source, store, batch_size, **work)
        window = len(rows)  # workers shall not wait for the last of each window
    output = None
    with progress(len(rows), description, verbose) as bar:
        for start in range(0, len(rows), window):
            features = run(rows[start : start + window], bar)
            for part in torch.from_numpy(features).split(run.window):
                values = combine(part)
                if output is None:
                    shape = (len(rows), *values.shape[1:])
                    output = np.empty(shape, dtype=values.numpy().dtype)
                output[start : start + len(part)] = values
                start += len(part)
    if run.computed:
        release_memory()
    assert output is not None  # a source is never empty
    return output


class _Model:
    """What a worker of a cluster needs to know."""

    def __init__(self, forward: Forward, device, options: dict[str, Any]):
        # On the CPU: a worker's device may be another.
        self.backbone: Any = copy.deepcopy(forward.network).cpu()
        self.device = device
        self.options = {
            **options,
            "preprocessing": forward.preprocessing,
            "views": forward.views,
            "combine": torch.Tensor.contiguous,
        }


def _chunk(model: _Model, source: ImageSource, rows: np.ndarray):
    """Return features of a chunk, and the kind of device they come from."""
    device = resolve_device(model.device, fall_back=True)
    try:
        features = run_frozen(model.backbone, source, device=device, **model.options)
    except ImageDecodeError as error:
        failures = [
            (int(rows[row or 0]), path, why) for row, path, why in error.failures
        ]
        raise ImageDecodeError(failures) from error
    return features, device.type
