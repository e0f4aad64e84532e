"""Features of a frozen backbone: kept, shared, and computed where they are missing."""

import copy
from dataclasses import replace
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
from sklearn_dl._runtime import Execution, release_memory, resolve_device
from sklearn_dl.backbones import Backbone


def run_frozen(
    backbone: Backbone,
    source: ImageSource,
    execution: Execution,
    *,
    cache: Any,
    rows: np.ndarray | None = None,
    views=None,
    combine: Combine | None = None,
    description: str = "images",
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
    execution : Execution
        The workers of a cluster take its `requested_device`, as they have it.
    cache : "memory", str, path, FeatureCache or None
        Where features are kept; None computes all.
    rows : ndarray of int, default=None
        Positions of the images wanted; None for all n.
    views : Views, default=None
        Several views of each image are taken through the backbone.
    combine : callable, default=None
        Maps features, (b, n_features) or with views (b, n_views, n_features), to one
        row each. None takes the mean over the views.
    description : str, default="images"
        What the progress bar is called.

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
    forward = Forward(backbone, backbone.preprocessing, execution, views)
    if client is not None:
        images = forward.images_per_batch(source)
        if len(rows) <= task_rows(client, len(rows), images):
            client = None  # too little to be spread
    if store is None and client is None:
        return run_forward(forward, source, rows, combine, description)
    combine = combined(views) if combine is None else combine
    if client is None:
        assert store is not None
        run: Pass = CachedPass(forward, source, store)
        window = run.window
    else:
        model = partial(_Model, forward, cache)
        work = {"client": client, "work": _chunk, "model": model}
        run = ClusterPass(forward, source, store, **work)
        window = len(rows)  # workers shall not wait for the last of each window
    output = None
    with progress(len(rows), description, execution.verbose) as bar:
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

    def __init__(self, forward: Forward, cache: Any):
        # On the CPU: a worker's device may be another.
        self.backbone: Any = copy.deepcopy(forward.network).cpu()
        self.execution = replace(forward.execution, device=torch.device("cpu"))
        self.options = {"cache": cache, "views": forward.views}

    def here(self) -> Execution:
        """Return what this worker computes with."""
        device = resolve_device(self.execution.requested_device, fall_back=True)
        return replace(self.execution, device=device, verbose=0)

    def run(self, source: ImageSource, execution: Execution) -> CachedPass:
        """Return what finds the keys of a source."""
        preprocessing, views = self.backbone.preprocessing, self.options["views"]
        store = resolve_cache(self.options["cache"])
        assert store is not None  # or no keys are wanted
        forward = Forward(self.backbone, preprocessing, execution, views)
        return CachedPass(forward, source, store)


def _chunk(model: _Model, source: ImageSource, keyed: bool):
    """Return features of a chunk, the keys of its rows, and why some can't be read."""
    execution = model.here()
    every = np.arange(len(source))
    same: dict[int, bytes] = {}
    options = {"combine": torch.Tensor.contiguous, **model.options}
    try:
        if keyed:
            run = model.run(source, execution)
            same = readable_keys(run, every)
        features = run_frozen(model.backbone, source, execution, **options)
        if keyed and source.kind == "paths":  # a file may have changed meanwhile
            same = dict(same.items() & readable_keys(run, every).items())
    except ImageDecodeError as error:
        # The first bad batch ended it: there may be others.
        bad = [*error.failures, *verify_images(source).itertuples(False, None)]
        return None, [], {row: reason for row, _, reason in bad}
    return features, same, {}
