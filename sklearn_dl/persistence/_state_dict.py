"""Export of a backbone's tensors in torchvision's layout."""

import json
import os
import warnings
from typing import Any

import torch
from safetensors.torch import save
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted
from torch import nn

from sklearn_dl._base import ImageEstimatorMixin, network_of
from sklearn_dl._files import ModelFileError, replacing
from sklearn_dl.backbones import (
    Backbone,
    Preprocessing,
    backbone_names,
    build,
    find_head,
    named_tensors,
)
from sklearn_dl.training import as_linear


def export_state_dict(
    estimator: Any, path: str | os.PathLike, *, head: bool = False
) -> None:
    """Write the tensors of a backbone under torchvision's names.

    The file can be given as ``weights=path`` of a new estimator with the same backbone
    and `layer`, whose features are the same, or to ``load_state_dict`` of a network.

    Parameters
    ----------
    estimator : ImageClassifier, ImageRegressor, ImageFeatureExtractor or Pipeline
        Fitted; a pipeline has one of these in it.
    path : str or path-like
        Ending in ``.safetensors``, or in ``.pth`` or ``.pt`` for ``torch.load``. It is
        replaced as a whole.
    head : bool, default=False
        Whether the head is written too, as the network's last layer, so that
        ``torchvision.models.resnet18(num_classes=k)`` loads the file whole. It must be
        one linear layer on ``layer="pre_logits"`` of a network that ends in one.

    Raises
    ------
    ModelFileError
        If there is no backbone, `path` has another ending, or the head is no such
        layer.

    Warns
    -----
    UserWarning
        If the preprocessing is a function, which can't be written.

    Notes
    -----
    The preprocessing goes with the tensors: in the metadata of a ``.safetensors`` file
    under ``preprocessing``, as JSON; in a ``.pth`` file, ``{"state_dict": ...,
    "preprocessing": ...}``. Layers behind `layer` are not there. Tensors in float64
    given as weights are read as float32.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from sklearn_dl import ImageFeatureExtractor
    >>> from sklearn_dl.persistence import export_state_dict
    >>> images = np.zeros((2, 32, 32, 3), "uint8")
    >>> small = {"backbone": "mobilenet_v3_small", "image_size": 32}
    >>> first = ImageFeatureExtractor(**small, weights="builtin").fit(images)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "weights.safetensors")
    ...     export_state_dict(first, path)
    ...     again = ImageFeatureExtractor(**small, weights=path).fit(images)
    >>> bool((again.transform(images) == first.transform(images)).all())
    True
    """
    path = os.fspath(path)
    if not path.endswith((".safetensors", ".pth", ".pt")):
        raise ModelFileError(f"{path!r} must end in '.safetensors', '.pth' or '.pt'.")
    steps = [estimator]
    if isinstance(estimator, Pipeline):
        steps = [step for _, step in estimator.steps]
    found = [step for step in steps if isinstance(step, ImageEstimatorMixin)]
    if len(found) != 1:
        raise ModelFileError(
            f"{type(estimator).__name__} has no single backbone: give an "
            "ImageClassifier, an ImageRegressor, an ImageFeatureExtractor or a "
            "pipeline with one of them; of an ensemble, one of its members."
        )
    check_is_fitted(found[0])
    network = network_of(found[0])
    backbone = network if isinstance(network, Backbone) else network.backbone
    state = named_tensors(backbone.module)
    if head:
        state |= _last_layer(backbone, getattr(network, "head", None))
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    content: dict[str, Any] = {"state_dict": state}
    if isinstance(backbone.preprocessing, Preprocessing):
        content["preprocessing"] = backbone.preprocessing.to_dict()
    else:
        warnings.warn(
            "The preprocessing is a function and is not in the file: give it with "
            "preprocessing= when the weights are used.",
            UserWarning,
            stacklevel=2,
        )
    with replacing(path) as file:
        if not path.endswith(".safetensors"):
            torch.save(content, file)
            return
        metadata = {"backbone": backbone.name}
        if "preprocessing" in content:
            metadata["preprocessing"] = json.dumps(content["preprocessing"])
        # Tied tensors are one in memory, which the format doesn't have.
        seen: set[int] = set()
        for name, tensor in state.items():
            state[name] = tensor.clone() if tensor.data_ptr() in seen else tensor
            seen.add(tensor.data_ptr())
        file.write(save(state, metadata))


def _last_layer(backbone: Backbone, head: nn.Module | None) -> dict[str, torch.Tensor]:
    """Return the head's tensors under the names of the network's last layer."""
    layer, known = backbone.layer, backbone.name in backbone_names()
    linear = as_linear(head)
    if known and layer == "pre_logits" and linear is not None:
        whole = build(backbone.name, shapes_only=True)
        last = find_head(whole)
        if isinstance(whole.get_submodule(last), nn.Linear):
            return {f"{last}.{n}": t for n, t in named_tensors(linear).items()}
    raise ModelFileError(
        "head=True needs a head of one linear layer on layer='pre_logits' of a "
        f"network that ends in a linear layer; here are {head!r:.200} and "
        f"layer={layer!r} of {backbone.name!r}. Use head=False, or `save`."
    )
