"""Parts of an image that a prediction rests on, by Grad-CAM or by occlusion."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.pipeline import Pipeline
from sklearn.utils._param_validation import StrOptions, validate_params
from sklearn.utils.validation import check_is_fitted
from torch import nn
from torch.nn.functional import interpolate

from sklearn_dl._base import network_of
from sklearn_dl._extraction import PixelReader
from sklearn_dl._features import ImageFeatureExtractor
from sklearn_dl._images import ImageSource
from sklearn_dl._neural import NeuralImageEstimator
from sklearn_dl._runtime import resolve_device
from sklearn_dl.backbones import Backbone, Preprocessing
from sklearn_dl.inspection._scores import columns_of

_FINEST = 4  # cells a side that a map is to have
_MOST_EXTRA = 8  # tokens beside those of the image: of the class, registers
_COVERED = 0.25  # part of a side that the square of an occlusion covers
_IMAGES = 32  # looked at together, at most
_AT_ONCE = 1 << 22  # values of features that a pipeline is asked about together

Scores = Callable[[torch.Tensor], torch.Tensor]  # of features (n, d): (n, k), float64


@dataclass
class Explained:
    """A fitted estimator as a network, a copy of which nobody else has a part."""

    backbone: Backbone  # from normalised images to features, its parameters frozen
    scores: Scores  # a column for each class or output
    device: torch.device
    classes: np.ndarray | None  # those of the columns; None where they are numbers
    source_of: Callable[[Any], Any]  # from X to its checked source
    step_size: int  # images at a time


@validate_params(
    {
        "method": [StrOptions({"auto", "grad_cam", "occlusion"})],
        "layer": [str, None],
        "frame": [StrOptions({"image", "input"})],
    },
    prefer_skip_nested_validation=False,
)
def saliency(
    estimator, X, *, target=None, method="auto", layer=None, frame="image"
) -> Any:
    """Return maps of the parts of images that a prediction rests on.

    Parameters
    ----------
    estimator : ImageClassifier, ImageRegressor or Pipeline
        Fitted; it stays as it is. A pipeline begins with an `ImageFeatureExtractor`.
    X : images
        Any form that `estimator` takes.
    target : class, int, array-like of shape (n,) or None, default=None
        What is explained: a class for all images or one for each; for a regressor with
        several outputs, and a classifier of several labels, their position. None is
        the class of the highest score, or the only output.
    method : {"auto", "grad_cam", "occlusion"}, default="auto"
        ``"grad_cam"`` [1]_ weighs the channels of a layer's map by the mean of the
        output's gradient: one pass. ``"occlusion"`` [2]_ measures how far the output
        falls where a grey square, a quarter of the sides, covers the image: some 50
        passes, any network. ``"auto"`` is the first where the network has a map.
    layer : str or None, default=None
        The submodule of the backbone whose output Grad-CAM takes: a map, or tokens of a
        transformer, which are put back on their grid. None takes the last one that
        matters, but none of fewer than 4 cells a side: in a vision transformer what
        enters the last attention, after which only the token of the class counts.
    frame : {"image", "input"}, default="image"
        Maps of whole images at their own sizes, 0 outside of the centre crop, which the
        network doesn't see; or of the network's inputs.

    Returns
    -------
    ndarray of float32, shape (n, H, W), or list of n such arrays (H, W)
        A list where images differ in size. In units of the output that is explained: a
        class's score before softmax or sigmoid, a `decision_function`, the log-odds of
        a pipeline with probabilities alone, or a regressor's prediction. What speaks
        against a class is 0; what lowers a regressor's prediction is negative.

    Raises
    ------
    TypeError
        If there is no network to look into.
    ValueError
        If `target` is none of the classes or outputs, or the layer has no map.
    NotFittedError
        If the estimator isn't fitted.

    See Also
    --------
    SaliencyDisplay : The maps over the images.

    Notes
    -----
    With `tta` the plain view alone is explained. A map says what this network used, not
    what is true of the object; a method that doesn't agree with the other one on an
    image deserves little trust there.

    Through a pipeline's scikit-learn part gradients are taken by central differences,
    which are exact for linear models; trees have none, so give ``"occlusion"``.

    References
    ----------
    .. [1] R. R. Selvaraju et al., "Grad-CAM: visual explanations from deep networks via
       gradient-based localization", ICCV 2017.
    .. [2] M. D. Zeiler and R. Fergus, "Visualizing and understanding convolutional
       networks", ECCV 2014.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_dl import ImageClassifier
    >>> from sklearn_dl.inspection import saliency
    >>> X = np.random.default_rng(0).integers(0, 128, (8, 40, 40, 3), "uint8")
    >>> X[4:, 4:16, 24:36] += 120
    >>> model = ImageClassifier(
    ...     "mobilenet_v3_small", weights="builtin", image_size=64, random_state=0
    ... ).fit(X, ["no"] * 4 + ["square"] * 4)
    >>> saliency(model, X, target="square").shape
    (8, 40, 40)
    """
    model = explained(estimator)
    source = model.source_of(X)
    preprocessing: Any = model.backbone.preprocessing
    if frame == "image" and not isinstance(preprocessing, Preprocessing):
        raise ValueError(
            "Where the crop of a preprocessing that is a function lies in an image "
            "isn't known: use frame='input'."
        )
    if layer is not None and method == "occlusion":
        raise ValueError("layer is for method='grad_cam'; occlusion has none.")
    wanted = _columns(model, target, len(source))
    maps: list[np.ndarray] = []
    found: Any = None
    with (
        torch.inference_mode(False),  # turns gradients on, too
        PixelReader(source, preprocessing, model.device) as reader,
    ):
        for rows, pixels in reader.batches(model.step_size):
            x = preprocessing.normalize(pixels).to(dtype_of(model.backbone))
            size = (x.shape[-2], x.shape[-1])
            if found is None and method != "occlusion":
                found = _map_of(model.backbone, size, method, layer)
                method = "grad_cam" if found else "occlusion"
            if wanted is None:
                columns = _scores(model, x).argmax(1)
            else:
                columns = torch.from_numpy(wanted[rows])
            columns = columns.to(model.device)
            if method == "grad_cam":
                values = grad_cam(model, x, columns, *found)
            else:
                values = occlusion(model, x, columns)
            if model.classes is not None:
                values = values.clamp(min=0)
            values = interpolate(values.float()[:, None], size, mode="bilinear")
            maps.extend(values[:, 0].cpu().numpy())
    if frame == "image":
        maps = [
            placed(values, preprocessing, _size_of_row(source, row))
            for row, values in enumerate(maps)
        ]
    return np.stack(maps) if len({m.shape for m in maps}) == 1 else maps


def _scores(model: Explained, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.scores(model.backbone(x))


def _map_of(backbone: Backbone, size, method: str, layer: str | None):
    """Return the layer and layout for Grad-CAM; None where it can't be."""
    names = [name for name, _ in backbone.module.named_modules() if name]
    if layer is not None and layer not in names:
        raise ValueError(
            f"layer={layer!r} is no submodule of the backbone; its last ones are "
            f"{', '.join(names[-5:])}."
        )
    found = find_map(backbone, size, layer)
    if found is None and layer is not None:
        raise ValueError(
            f"layer={layer!r} gives no map or tokens that the features depend on: "
            "take an earlier one, or layer=None."
        )
    if found is None and method == "grad_cam":
        raise ValueError(
            "No layer of this backbone gives a map of the image: use "
            "method='occlusion'."
        )
    return found


def _columns(model: Explained, target: Any, n: int) -> np.ndarray | None:
    """Return the column of the scores for each image; None for the highest."""
    if model.classes is None:
        size = model.backbone.preprocessing.output_size or (224, 224)
        shape = (1, model.backbone.preprocessing.n_channels, *size)
        x = torch.zeros(shape).to(model.device, dtype_of(model.backbone))
        known: list[Any] = list(range(_scores(model, x).shape[1]))
        if target is None and len(known) > 1:
            raise ValueError(
                f"The regressor has {len(known)} outputs: give target, from 0 to "
                f"{known[-1]}."
            )
        target = 0 if target is None else target
    elif target is None:
        return None
    else:
        known = model.classes.tolist()
    wanted = np.asarray(target)
    if wanted.ndim > 1 or (wanted.ndim == 1 and len(wanted) != n):
        raise ValueError(
            f"target must be one for all images or one for each of {n}, got the shape "
            f"{wanted.shape}."
        )
    each = wanted.tolist() if wanted.ndim else [wanted.item()] * n
    for row, one in enumerate(each):
        if one not in known:
            raise ValueError(
                f"target is {one!r} in row {row}, but there are {known!r:.200}."
            )
    return np.array([known.index(one) for one in each], dtype=int)


def placed(
    values: np.ndarray, preprocessing: Preprocessing, size: tuple[int, int]
) -> np.ndarray:
    """Return a map of a network's input at its place in an image (height, width)."""
    resized = preprocessing.resized_size(*size)
    down, across = map(_placing, size, resized, values.shape)
    return down @ values.astype(np.float32) @ across.T


def _placing(side: int, resized: int, seen: int) -> np.ndarray:
    """Return how a crop's lines become an image's: (side, seen) weights, 0 beyond."""
    # Linear between the lines of the resized image, which of a strip would be large.
    # As torchvision crops: smaller images are padded first.
    room = resized - seen
    start = round(room / 2) if room >= 0 else -(-room // 2)
    lines = np.arange(side)
    at = np.clip((lines + 0.5) * resized / side - 0.5, 0, resized - 1)
    first = np.floor(at).astype(int)
    weights = np.zeros((side, seen), dtype=np.float32)
    for line, weight in ((first, 1 - at + first), (first + 1, at - first)):
        column = np.minimum(line, resized - 1) - start
        inside = (column >= 0) & (column < seen)
        weights[lines[inside], column[inside]] += weight[inside]
    return weights


def _size_of_row(source: ImageSource, row: int) -> tuple[int, int]:
    """Return height and width of an image."""
    if source.image_shape is not None:
        return source.image_shape[:2]
    image = source[row]
    return image.shape[:2] if isinstance(image, np.ndarray) else image.size[::-1]


def dtype_of(network: nn.Module) -> torch.dtype:
    """Return the dtype of the network's floating-point parameters."""
    kinds = (p.dtype for p in network.parameters() if p.is_floating_point())
    return next(kinds, torch.float32)


@torch.inference_mode(False)
def explained(estimator: Any) -> Explained:
    """Return a fitted estimator as what can be explained."""
    if isinstance(estimator, NeuralImageEstimator):
        check_is_fitted(estimator)
        looked_at, rest = estimator, None
    elif isinstance(estimator, Pipeline) and isinstance(
        estimator.steps[0][1], ImageFeatureExtractor
    ):
        check_is_fitted(estimator)
        looked_at, rest = estimator.steps[0][1], estimator[1:]
    else:
        raise TypeError(
            f"{type(estimator).__name__} has no network that can be looked into: give "
            "an ImageClassifier, an ImageRegressor, or a Pipeline that begins with an "
            "ImageFeatureExtractor; for an ensemble, one of its estimators_."
        )
    device = resolve_device(looked_at.device, fall_back=True)
    network: Any = copy.deepcopy(network_of(looked_at))
    network.to(device).eval().requires_grad_(False)
    classes = getattr(estimator, "classes_", None)
    if rest is None:
        backbone, scores = network.backbone, _scores_of_head(estimator, network.head)
    else:
        backbone, scores = network, _scores_of_rest(rest, classes)
    images = looked_at.batch_size
    size = _IMAGES if isinstance(images, str) else min(images, _IMAGES)
    return Explained(backbone, scores, device, classes, looked_at._new_source, size)


def _scores_of_head(estimator: Any, head: nn.Module) -> Scores:
    """Return the function from features to outputs, in the unit of the targets."""
    scaler = getattr(estimator._targets, "scaler", None)
    unit = torch.from_numpy(np.ones(1) if scaler is None else np.array(scaler.scale_))

    def scores(features: torch.Tensor) -> torch.Tensor:
        outputs = head(features)
        if outputs.device.type == "mps":  # which has no float64
            outputs = outputs.cpu()
        return outputs.double() * unit.to(outputs.device)

    return scores


def _scores_of_rest(rest: Pipeline, classes: np.ndarray | None) -> Scores:
    """Return the function from features to what the rest of a pipeline decides."""

    def decide(features: np.ndarray) -> np.ndarray:
        if classes is None:
            return np.asarray(rest.predict(features), float).reshape(len(features), -1)
        if hasattr(rest, "decision_function"):
            values = np.asarray(rest.decision_function(features), float)
            return columns_of(values, classes, "decision_function", rest.steps[-1][1])
        if not hasattr(rest, "predict_proba"):
            raise TypeError(
                f"{type(rest.steps[-1][1]).__name__} has neither decision_function nor "
                "predict_proba, so there is nothing to explain but its choice."
            )
        p = np.clip(np.asarray(rest.predict_proba(features), float), 1e-12, 1 - 1e-12)
        return np.log(p) - np.log1p(-p)

    return lambda features: _Measured.apply(features, decide)


class _Measured(torch.autograd.Function):
    """A function of NumPy arrays, whose gradient is measured where it is asked for."""

    @staticmethod
    def forward(ctx, features, decide):
        ctx.save_for_backward(features)
        ctx.decide = decide
        return torch.from_numpy(decide(features.detach().cpu().numpy()))

    @staticmethod
    def backward(ctx, weights):
        (features,) = ctx.saved_tensors
        rows = [
            _differences(lambda x, w=w: ctx.decide(x) @ w, row)
            for row, w in zip(
                features.cpu().double().numpy(), weights.cpu().numpy(), strict=True
            )
        ]
        return torch.from_numpy(np.stack(rows)).to(features), None


def _differences(function: Callable, x: np.ndarray) -> np.ndarray:
    """Return the gradient of a function at x by central differences."""
    d = len(x)
    step = 1e-2 * max(float(x.std()), 1e-6)
    found = np.empty(d)
    for part in np.array_split(np.arange(d), -(-2 * d * d // _AT_ONCE)):
        moves = np.zeros((len(part), d))
        moves[np.arange(len(part)), part] = step
        values = function(np.concatenate([x + moves, x - moves]))
        found[part] = (values[: len(part)] - values[len(part) :]) / (2 * step)
    return found


@dataclass(frozen=True)
class Layout:
    """How a layer's output covers the image: as a map, or as tokens."""

    kind: str  # "channels_first", "channels_last" or "tokens"
    height: int
    width: int
    extra: int = 0  # tokens that come before those of the image

    def as_map(self, values: torch.Tensor) -> torch.Tensor:
        """Return the output as (n, C, height, width)."""
        if self.kind == "channels_first":
            return values
        if self.kind == "channels_last":
            return values.permute(0, 3, 1, 2)
        cells = values[:, self.extra :]
        return cells.transpose(1, 2).unflatten(2, (self.height, self.width))


def _layout(shape: torch.Size, n: int, size: tuple[int, int]) -> Layout | None:
    """Return how the output of a layer covers an image; None if it doesn't."""
    if len(shape) not in (3, 4) or shape[0] != n:
        return None
    ratio = size[0] / size[1]
    if len(shape) == 4:  # the channels are where the other two are like the image
        last = abs(shape[1] / shape[2] - ratio) < abs(shape[2] / shape[3] - ratio)
        h, w = shape[1:3] if last else shape[2:]
        kind = "channels_last" if last else "channels_first"
        return Layout(kind, h, w) if _covers(h, w, size) else None
    for extra in range(min(_MOST_EXTRA + 1, shape[1])):
        cells = shape[1] - extra
        h = round((cells * ratio) ** 0.5)
        if h and cells % h == 0 and _covers(h, cells // h, size):
            return Layout("tokens", h, cells // h, extra)
    return None


def _covers(h: int, w: int, size: tuple[int, int]) -> bool:
    """Tell whether a grid has the sides of an image, but for borders left out."""
    inside = h <= size[0] and w <= size[1] and h * w > 1
    return inside and abs(h - w * size[0] / size[1]) <= 1.5


def find_map(
    backbone: Backbone, size: tuple[int, int], layer: str | None = None
) -> tuple[str, Layout] | None:
    """Return the layer whose output is the last map of the image, and its layout."""
    # The last that the features depend on in more than one cell: of tokens behind the
    # last attention only that of the class counts.
    outputs: dict[str, torch.Tensor] = {}

    def note(name: str, module, inputs, output) -> None:
        outputs.pop(name, None)  # the order is that of the last calls
        if isinstance(output, torch.Tensor):
            outputs[name] = output

    first = next(backbone.parameters(), torch.zeros(()))
    generator = torch.Generator().manual_seed(0)
    n_channels = backbone.preprocessing.n_channels
    x = torch.randn(2, n_channels, *size, generator=generator)
    x = x.to(first.device, dtype_of(backbone)).requires_grad_()
    hooks = [
        part.register_forward_hook(partial(note, name), prepend=True)
        for name, part in backbone.module.named_modules()
        if layer in (None, name)
    ]
    try:
        features = backbone(x)
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
    model: Explained, x: torch.Tensor, columns: torch.Tensor, layer: str, layout: Layout
) -> torch.Tensor:
    """Return maps (n, h, w) of what a layer's cells add to the scores in `columns`."""
    taken: list[torch.Tensor] = []

    def take(module, inputs, output):
        # A copy that begins a graph of its own: what comes before it needs none, and
        # layers that follow may write to it.
        taken[:] = [output.detach().requires_grad_().clone()]
        return taken[0]

    module = model.backbone.module.get_submodule(layer)
    hook = module.register_forward_hook(take, prepend=True)
    try:
        features = model.backbone(x)
    finally:
        hook.remove()
    gradient = torch.autograd.grad(_chosen(model, features, columns).sum(), taken[0])[0]
    weights = layout.as_map(gradient).mean((2, 3), keepdim=True)
    return (weights * layout.as_map(taken[0].detach())).sum(1)


def occlusion(model: Explained, x: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Return maps (n, H, W): how far scores fall in the mean where squares cover x."""
    n, _, height, width = x.shape
    square = [max(1, round(side * _COVERED)) for side in (height, width)]
    total = torch.zeros(n, height, width)
    times = torch.zeros(height, width)
    with torch.no_grad():
        before = _chosen(model, model.backbone(x), columns).float().cpu()
        for top in _starts(height, square[0]):
            for left in _starts(width, square[1]):
                place = slice(top, top + square[0]), slice(left, left + square[1])
                covered = x.clone()
                covered[:, :, *place] = 0  # the mean colour, as it is normalised
                after = _chosen(model, model.backbone(covered), columns).float().cpu()
                total[:, *place] += (before - after)[:, None, None]
                times[place] += 1
    return total / times


def _chosen(model: Explained, features: torch.Tensor, columns) -> torch.Tensor:
    """Return the score of each image in its column."""
    scores = model.scores(features)
    return scores.gather(1, columns[:, None].to(scores.device))[:, 0]


def _starts(side: int, square: int) -> list[int]:
    """Return where squares begin that overlap by half or more, border to border."""
    n = 1 + -(-(side - square) // max(1, square // 2))
    return np.unique(np.linspace(0, side - square, n).round().astype(int)).tolist()
