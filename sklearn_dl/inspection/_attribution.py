"""Where in an image a network's output comes from: Grad-CAM and occlusion."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted
from torch import nn
from torch.nn import functional as F

from sklearn_dl._features import ImageFeatureExtractor
from sklearn_dl._neural import NeuralImageEstimator
from sklearn_dl._runtime import resolve_device
from sklearn_dl.backbones import (
    Backbone,
    looks_channels_last,
    named_tensors,
    pool,
    run,
)

_FINEST = 4  # cells a side that a map shall have
_MOST_EXTRA = 8  # tokens beside those of the image: of the class, registers
_COVERED = 0.25  # of a side, by the square of an occlusion
_AT_ONCE = 1 << 22  # values of features that a pipeline is asked about together


@dataclass
class Explained:
    """A fitted estimator as a network, of which nothing is the estimator's own.

    Attributes
    ----------
    features : torch.nn.Module
        From normalised images to features (n, d), without gradients of parameters.
    scores : callable
        From features (n, d) to scores (n, k), one for each class or output, float64.
    gradient : callable
        From features (n, d) and columns (n,) to the gradient (n, d) of the scores in
        these columns.
    preprocessing : Preprocessing or CallablePreprocessing
    device : torch.device
    classes : ndarray or None
        Of the columns; None where they are numbers.
    source_of : callable
        From X to its checked source.
    step_size : int
        Images at a time.
    """

    features: nn.Module
    scores: Callable[[torch.Tensor], torch.Tensor]
    gradient: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    preprocessing: Any
    device: torch.device
    classes: np.ndarray | None
    source_of: Callable[[Any], Any]
    step_size: int

    @property
    def dtype(self) -> torch.dtype:
        """Of the parameters."""
        tensors = named_tensors(self.features).values()
        kinds = (t.dtype for t in tensors if t.is_floating_point())
        return next(kinds, torch.float32)


class _Copy(nn.Module):
    """A backbone's network, with modules of its own on the same tensors."""

    def __init__(self, backbone: Backbone, device: torch.device):
        super().__init__()
        self.network = deepcopy(backbone.module).to(device).eval()
        self.network.requires_grad_(False)
        self.pooling = backbone._pooling
        self.channels_last = backbone._channels_last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return pool(run(self.network, x), self.pooling, self.channels_last)


def explained(estimator: Any) -> Explained:
    """Return a fitted estimator as what can be explained."""
    if isinstance(estimator, NeuralImageEstimator):
        check_is_fitted(estimator)
        return _neural(estimator)
    if isinstance(estimator, Pipeline) and isinstance(
        estimator.steps[0][1], ImageFeatureExtractor
    ):
        check_is_fitted(estimator)
        return _pipeline(estimator)
    raise TypeError(
        f"{type(estimator).__name__} has no network that can be looked into: give an "
        "ImageClassifier, an ImageRegressor, or a Pipeline that begins with an "
        "ImageFeatureExtractor. Of an ensemble give one of its estimators_."
    )


def _neural(estimator: Any) -> Explained:
    device = resolve_device(estimator.device, fall_back=True)
    network, targets = estimator.net_.module_, estimator._targets
    copy = _Copy(network.backbone, device)
    head = deepcopy(network.head).to(device).eval().requires_grad_(False)
    unit: Any = 1.0
    if targets.kind == "targets":
        unit = torch.from_numpy(np.array(targets.scaler.scale_)).to(device)

    def scores(features: torch.Tensor) -> torch.Tensor:
        outputs = head(features)
        if device.type == "mps":  # which has no float64
            outputs = outputs.cpu()
            return outputs.double() * torch.as_tensor(unit).cpu()
        return outputs.double() * unit

    def gradient(features: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        features = features.detach().requires_grad_()
        chosen = scores(features).gather(1, columns[:, None])
        return torch.autograd.grad(chosen.sum(), features)[0]

    return Explained(
        copy,
        scores,
        gradient,
        estimator.preprocessing_,
        device,
        None if targets.kind == "targets" else targets.classes,
        estimator._new_source,
        min(estimator._step_size, 32),
    )


def _pipeline(pipeline: Pipeline) -> Explained:
    extractor, rest = pipeline.steps[0][1], pipeline[1:]
    device = resolve_device(extractor.device, fall_back=True)
    classes = getattr(pipeline, "classes_", None)

    def decide(features: np.ndarray) -> np.ndarray:
        """Return scores (n, k) of features (n, d), of each class where there are."""
        if classes is None:
            return np.asarray(rest.predict(features), float).reshape(len(features), -1)
        if hasattr(rest, "decision_function"):
            values = np.asarray(rest.decision_function(features), float)
            return np.stack([-values, values], 1) if values.ndim == 1 else values
        if not hasattr(rest, "predict_proba"):
            raise TypeError(
                f"{type(pipeline.steps[-1][1]).__name__} has neither decision_function "
                "nor predict_proba, so there is nothing to explain but its choice."
            )
        return _logit(np.asarray(rest.predict_proba(features), float))

    def scores(features: torch.Tensor) -> torch.Tensor:
        found = decide(features.detach().cpu().numpy())
        if classes is not None and found.shape[1] != len(classes):
            raise ValueError(
                f"decision_function gives {found.shape[1]} columns for {len(classes)} "
                "classes: fit an SVC with decision_function_shape='ovr'."
            )
        return torch.from_numpy(found)

    def gradient(features: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        values = features.detach().cpu().double().numpy()
        rows = [
            _differences(lambda x, c=c: decide(x)[:, c], row)
            for row, c in zip(values, columns.tolist(), strict=True)
        ]
        return torch.from_numpy(np.stack(rows)).to(features)

    return Explained(
        _Copy(extractor.backbone_, device),
        scores,
        gradient,
        extractor.preprocessing_,
        device,
        classes,
        extractor._new_source,
        min(extractor._step_size, 32),
    )


def _logit(probabilities: np.ndarray) -> np.ndarray:
    p = np.clip(probabilities, 1e-12, 1 - 1e-12)
    return np.log(p) - np.log1p(-p)


def _differences(function: Callable, x: np.ndarray) -> np.ndarray:
    """Return the gradient of a function at x by central differences.

    Exact but for rounding where the function is linear.
    """
    d = len(x)
    step = 1e-2 * max(float(x.std()), 1e-6)
    found = np.empty(d)
    width = max(1, _AT_ONCE // (2 * d))
    for start in range(0, d, width):
        part = np.arange(start, min(start + width, d))
        moves = np.zeros((len(part), d))
        moves[np.arange(len(part)), part] = step
        values = function(np.concatenate([x + moves, x - moves]))
        found[part] = (values[: len(part)] - values[len(part) :]) / (2 * step)
    return found


# A layer's output as a map (n, C, h, w): how many tokens come before those of the
# image, and how many rows of cells there are; or where the channels are.
@dataclass(frozen=True)
class _Layout:
    kind: str  # "channels_first", "channels_last" or "tokens"
    height: int
    width: int
    extra: int = 0

    def as_map(self, values: torch.Tensor) -> torch.Tensor:
        if self.kind == "channels_first":
            return values
        if self.kind == "channels_last":
            return values.permute(0, 3, 1, 2)
        cells = values[:, self.extra :]
        return cells.transpose(1, 2).unflatten(2, (self.height, self.width))


def _layout(shape: torch.Size, n: int, size: tuple[int, int]) -> _Layout | None:
    """Return how the output of a layer covers an image; None if it doesn't."""
    if len(shape) not in (3, 4) or shape[0] != n:
        return None
    if len(shape) == 4:
        last = looks_channels_last(shape, size)
        h, w = (shape[1], shape[2]) if last else (shape[2], shape[3])
        if not _covers(h, w, size):
            return None
        return _Layout("channels_last" if last else "channels_first", h, w)
    for extra in range(min(_MOST_EXTRA + 1, shape[1])):
        cells = shape[1] - extra
        h = round((cells * size[0] / size[1]) ** 0.5)
        if h and cells % h == 0 and _covers(h, cells // h, size):
            return _Layout("tokens", h, cells // h, extra)
    return None


def _covers(h: int, w: int, size: tuple[int, int]) -> bool:
    """Tell whether a grid has the sides of an image, but for borders left out."""
    inside = h <= size[0] and w <= size[1] and h * w > 1
    return inside and abs(h - w * size[0] / size[1]) <= 1.5


def find_map(
    network: nn.Module, size: tuple[int, int], layer: str | None = None
) -> tuple[str, _Layout] | None:
    """Return the layer whose output is the last map of the image, and its layout.

    The last that the features depend on in more than one cell: of tokens behind the
    last attention only that of the class counts. Maps of fewer than 4 cells a side are
    too coarse, if there are finer ones.

    Parameters
    ----------
    network : _Copy
        In evaluation mode, of parameters without gradients.
    size : (int, int)
        Height and width of its inputs.
    layer : str, default=None
        The layer that is to be taken.
    """
    outputs: dict[str, torch.Tensor] = {}

    def note(name: str):
        def hook(module, inputs, output):
            outputs.pop(name, None)  # the order is that of the last calls
            if isinstance(output, torch.Tensor):
                outputs[name] = output

        return hook

    inner: nn.Module = network.network  # type: ignore[assignment]
    tensor = next(iter(named_tensors(inner).values()), torch.zeros(()))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, *size, generator=generator).to(tensor.device)
    x = x.to(tensor.dtype if tensor.is_floating_point() else x.dtype)
    hooks = [
        part.register_forward_hook(note(name), prepend=True)
        for name, part in inner.named_modules()
        if layer in (None, name)
    ]
    try:
        features = network(x.requires_grad_())
    finally:
        for hook in hooks:
            hook.remove()
    some = torch.randn(features.shape, generator=generator).to(features)
    found = []
    for name, output in reversed(outputs.items()):
        layout = _layout(output.shape, len(x), size)
        if layout is None or not output.requires_grad:
            continue
        gradient = torch.autograd.grad(
            features, output, some, retain_graph=True, allow_unused=True
        )[0]
        if gradient is None or not layout.as_map(gradient).any():
            continue
        found.append((min(layout.height, layout.width), name, layout))
        if found[-1][0] >= _FINEST:
            break
    if not found:
        return None
    _, name, layout = max(found, key=lambda one: min(one[0], _FINEST))
    return name, layout


def grad_cam(
    model: Explained, x: torch.Tensor, columns: torch.Tensor, layer: str, layout: Any
) -> torch.Tensor:
    """Return maps (n, h, w) of what a layer's cells add to the scores in `columns`.

    Parameters
    ----------
    model : Explained
    x : torch.Tensor of shape (n, 3, H, W)
        Normalised.
    columns : torch.Tensor of int64, shape (n,)
    layer, layout : str, _Layout
        From `find_map`.
    """
    taken: list[torch.Tensor] = []

    def take(module, inputs, output):
        # A copy that begins a graph of its own: what comes before it needs none, and
        # layers that follow may write to it.
        taken[:] = [output.detach().requires_grad_().clone()]
        return taken[0]

    inner: nn.Module = model.features.network  # type: ignore[assignment]
    hook = inner.get_submodule(layer).register_forward_hook(take, prepend=True)
    try:
        features = model.features(x)
    finally:
        hook.remove()
    towards = model.gradient(features, columns)
    gradient = torch.autograd.grad(features, taken[0], towards)[0]
    weights = layout.as_map(gradient).mean((2, 3), keepdim=True)
    return (weights * layout.as_map(taken[0].detach())).sum(1)


def occlusion(model: Explained, x: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Return maps (n, H, W) of how far scores fall where a grey square covers x.

    Each pixel has the mean over the squares that cover it.
    """
    n, _, height, width = x.shape
    square = [max(1, round(side * _COVERED)) for side in (height, width)]
    total = torch.zeros(n, height, width)
    times = torch.zeros(height, width)
    with torch.no_grad():
        before = _chosen(model, x, columns)
        for top in _starts(height, square[0]):
            for left in _starts(width, square[1]):
                place = slice(top, top + square[0]), slice(left, left + square[1])
                covered = x.clone()
                covered[:, :, *place] = 0  # the mean colour, as it is normalised
                fall = before - _chosen(model, covered, columns)
                total[:, *place] += fall[:, None, None]
                times[place] += 1
    return total / times


def _chosen(model: Explained, x, columns) -> torch.Tensor:
    scores = model.scores(model.features(x)).cpu()
    return scores.gather(1, columns.cpu()[:, None])[:, 0].float()


def _starts(side: int, square: int) -> list[int]:
    """Return where squares begin that overlap by half or more, border to border."""
    n = 1 + -(-(side - square) // max(1, square // 2))
    return np.unique(np.linspace(0, side - square, n).round().astype(int)).tolist()


def enlarged(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Return maps (n, h, w) at the size of the network's inputs."""
    maps = maps.float()[:, None]
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)[:, 0]
