"""Features of a frozen backbone: kept, shared, and computed where they are missing."""

import copy
from functools import partial
from typing import Any

import numpy as np
import torch

from sklearn_dl._extraction._cache import resolve_cache
from sklearn_dl._extraction._cached import CachedPass
from sklearn_dl._extraction._cluster import (
    ClusterPass,
    active_client,
    readable_keys,
    task_rows,
)
from sklearn_dl._extraction._pass import Pass
from sklearn_dl._extraction._run import (
    Combine,
    Forward,
    combined,
    progress,
    run_forward,
)
from sklearn_dl._images import ImageDecodeError, ImageSource, verify_images
from sklearn_dl._runtime import release_memory, resolve_device
from sklearn_dl.backbones import Backbone


def run_frozen(
    backbone: Backbone,
    source: ImageSource,
    preprocessing,
    *,
    cache: Any,
    device: torch.device,
    rows: np.ndarray | None = None,
    precision: str = "float32",
    batch_size: int | str = 32,
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
    batch_size : int or "auto", default=32
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
    forward = Forward(backbone, preprocessing, device, precision, views)
    if client is not None:
        images = forward.images_per_batch(batch_size, source)
        if len(rows) <= task_rows(client, len(rows), images):
            client = None  # too little to be spread
    if store is None and client is None:
        return run_forward(
            forward,
            source,
            rows=rows,
            batch_size=batch_size,
            verbose=verbose,
            description=description,
            combine=combine,
        )
    combine = combined(views) if combine is None else combine
    if client is None:
        assert store is not None
        run: Pass = CachedPass(forward, source, store, batch_size)
        window = run.window
    else:
        options = {"cache": cache, "precision": precision, "batch_size": batch_size}
        model = partial(_Model, forward, worker_device, options)
        work = {"client": client, "work": _chunk, "model": model}
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

    def run(self, source: ImageSource, device: torch.device) -> CachedPass:
        """Return what finds the keys of a source on that device."""
        precision, size = self.options["precision"], self.options["batch_size"]
        preprocessing, views = self.options["preprocessing"], self.options["views"]
        forward = Forward(self.backbone, preprocessing, device, precision, views)
        store = resolve_cache(self.options["cache"])
        assert store is not None  # or no keys are wanted
        return CachedPass(forward, source, store, size)


def _chunk(model: _Model, source: ImageSource, keyed: bool):
    """Return features of a chunk, the keys of its rows, and why some can't be read."""
    device = resolve_device(model.device, fall_back=True)
    every = np.arange(len(source))
    same: dict[int, bytes] = {}
    try:
        if keyed:
            run = model.run(source, device)
            same = readable_keys(run, every)
        features = run_frozen(model.backbone, source, device=device, **model.options)
        if keyed and source.kind == "paths":  # a file may have changed meanwhile
            same = dict(same.items() & readable_keys(run, every).items())
    except ImageDecodeError as error:
        # The first bad batch ended it: there may be others.
        bad = [*error.failures, *verify_images(source).itertuples(False, None)]
        return None, [], {row: reason for row, _, reason in bad}
    return features, same, {}
