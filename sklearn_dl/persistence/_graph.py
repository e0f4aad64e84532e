"""One network of all that a fitted estimator does: pixels in, predictions out."""

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils.validation import check_is_fitted
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from sklearn_dl._base import image_shape_of, network_of
from sklearn_dl._features import ImageFeatureExtractor
from sklearn_dl._files import ModelFileError
from sklearn_dl._images import Asked
from sklearn_dl._neural import NeuralImageEstimator
from sklearn_dl._saving import HELD, set_network, versions
from sklearn_dl.backbones import Backbone, Preprocessing
from sklearn_dl.persistence._exported_file import FORMAT, VERSION
from sklearn_dl.training import gives_margins

TOLERANCE = 1e-4
# Scalers and linear models that can be layers of a graph.
_SCALERS = ("StandardScaler", "FeatureScaler")
_WITH_SCORES = ("LinearSVC", "FeatureSVC", "RidgeClassifier", "SGDClassifier")
_REGRESSORS = ("LinearRegression", "LinearSVR", "Ridge", "SGDRegressor")
_METHODS = {"probabilities": "predict_proba", "scores": "decision_function"}
_KINDS = {"multiclass": "classes", "multilabel-indicator": "labels"}


class Deployed(nn.Module):
    """Normalisation, a backbone, and what makes predictions (n, k) of features."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, backbone: Backbone, rest: nn.Module, preprocessing):
        super().__init__()
        self.backbone = _untapped(backbone, preprocessing.output_size)
        self.rest = rest
        for name in ("mean", "std"):
            values = torch.tensor(getattr(preprocessing, name)).view(1, -1, 1, 1)
            self.register_buffer(name, values)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return predictions (n, k) of images (n, height, width, C).

        They are of uint8 where C is 3, else floats in [0, 1].
        """
        pixels = images.permute(0, 3, 1, 2)
        if pixels.shape[1] == 3:
            pixels = pixels.float() / 255
        return self.rest(self.backbone((pixels - self.mean) / self.std))


@dataclass(frozen=True)
class Graph:
    """What an estimator is exported as, and its predictions to compare with."""

    module: Deployed  # on the CPU, in float32 and evaluation mode
    output: str  # its name
    text: str  # what those who use it need to know, as JSON
    shape: tuple[int, int, int]  # of an image: height, width, channels
    reference: Callable[[np.ndarray], np.ndarray]

    def check(self, predict: Callable[[np.ndarray], np.ndarray], what: str) -> None:
        """Compare what was exported with the estimator, for one image and several."""
        images = _pictures(5, self.shape)
        for part in (images[:1], images[1:]):
            wanted, got = self.reference(part), predict(part)
            if wanted.ndim == 1:  # one target, or a score for both of two classes
                got = got[:, -1] - (got[:, 0] if got.shape[1] == 2 else 0)
            scale = max(1.0, float(np.abs(wanted).max()))
            worst = float(np.abs(wanted - got).max()) if got.size else np.inf
            if got.shape != wanted.shape or not worst <= TOLERANCE * scale:
                raise ModelFileError(
                    f"{what} gives other predictions than the estimator: they differ "
                    f"by {worst:.2g} for {len(part)} images. Nothing was written."
                )

    def program(self) -> Any:
        """Return torch's graph, for any number of images."""
        example = torch.from_numpy(_pictures(2, self.shape))
        shapes = {"images": {0: torch.export.Dim("batch", min=1)}}
        with torch.no_grad():
            return torch.export.export(
                self.module, (example,), dynamic_shapes=shapes, strict=False
            )


def graph_of(estimator: Any) -> Graph:
    """Return what an estimator is exported as."""
    images: Any = estimator
    others: list[Any] = []
    if isinstance(estimator, Pipeline):
        images, *others = [step for _, step in estimator.steps]
    wanted = ImageFeatureExtractor if others else NeuralImageEstimator
    if not isinstance(images, wanted):
        raise ModelFileError(
            f"{type(estimator).__name__} can't be exported: give an ImageClassifier, "
            "an ImageRegressor, or a pipeline of an ImageFeatureExtractor and a linear "
            "model as make_feature_classifier builds it. Or use `save`."
        )
    check_is_fitted(estimator)
    preprocessing, size = _checked(images)
    network = _float32(network_of(images))
    if others:
        rest, output = _linear_layers(others)
        kind = "targets" if output == "targets" else "classes"
        single = kind == "targets" and np.ndim(others[-1].coef_) == 1
        backbone = network
    else:
        rest, kind, output = _finish(images)
        single = getattr(images._targets, "single", False)
        backbone, rest = network.backbone, nn.Sequential(network.head, rest)
    n = preprocessing.n_channels
    pixels = {"dtype": "float32"} if n != 3 else {"dtype": "uint8", "colours": "RGB"}
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "estimator": type(estimator).__name__,
        "kind": kind,
        "output": output,
        "single": bool(single),
        **({} if kind == "targets" else _classes(estimator.classes_)),
        "input": {"shape": ["n", *size, n], **pixels},
        "preprocessing": preprocessing.to_dict(),
        "channels": _channels(images),
        "versions": versions(),
    }
    twin = _on_ready_images(images, preprocessing)
    if others:
        twin = make_pipeline(twin, *others)
    module = Deployed(backbone, rest, preprocessing).eval().requires_grad_(False)
    text = json.dumps(metadata, allow_nan=False)
    predict = getattr(twin, _METHODS.get(output, "predict"))
    return Graph(module, output, text, (*size, n), predict)


def _channels(estimator: Any) -> dict[str, Any] | None:
    """Return the arguments of the `Channels` that images are read with, if any."""
    shape, asked = Asked.of(image_shape_of(estimator))
    if asked is None:
        return None
    return {"channels": asked.taken or asked.n, "rgb": asked.rgb, "shape": shape}


def _finish(estimator: Any) -> tuple[nn.Module, str, str]:
    """Return what follows the head, the kind of target, and the output's name."""
    targets = estimator._targets
    if targets.kind == "continuous":
        weight, shift = np.diag(targets.scaler.scale_), targets.scaler.mean_
        return _Affine(weight=weight, shift=shift), "targets", "targets"
    kind = _KINDS[targets.kind]
    if gives_margins(estimator.loss):
        return nn.Identity(), kind, "scores"
    layer = nn.Sigmoid() if kind == "labels" else nn.Softmax(dim=-1)
    return layer, kind, "probabilities"


def _float32(network: Any) -> Any:
    """Return a copy of a network, on the CPU and in evaluation mode."""
    return copy.deepcopy(network).to("cpu", torch.float32).eval()


def _on_ready_images(estimator: Any, preprocessing: Preprocessing) -> Any:
    """Return an estimator that predicts the same of images that are resized before.

    It computes on the CPU, in float32.
    """
    twin: Any = object.__new__(type(estimator))
    vars(twin).update({k: v for k, v in vars(estimator).items() if k not in HELD})
    plain = {"device": "cpu", "precision": "float32", "cache": None}
    ready = replace(preprocessing, resize_size=None, crop_size=None)
    channels = None if ready.n_channels == 3 else (ready.n_channels, ready.rgb)
    known = {"preprocessing_": ready, "_fitted_channels": channels}
    vars(twin).update(plain, image_shape=None, **known)
    network = _float32(network_of(estimator))
    backbone = network if isinstance(network, Backbone) else network.backbone
    backbone.preprocessing = ready
    set_network(twin, network)
    return twin


def _checked(estimator: Any) -> tuple[Preprocessing, tuple[int, int]]:
    """Return preprocessing and size, where they are such as a graph can have."""
    preprocessing = estimator.preprocessing_
    if not isinstance(preprocessing, Preprocessing):
        raise ModelFileError(
            "preprocessing is a function, which can't be exported: fit with a "
            "sklearn_dl.backbones.Preprocessing."
        )
    if preprocessing.output_size is None:
        raise ModelFileError(
            "Images keep their size in this preprocessing, but an exported graph takes "
            "one size: fit with image_size=."
        )
    if estimator.tta is not None:
        raise ModelFileError(
            f"tta={estimator.tta!r} can't be exported: a graph sees an image once. "
            "Export after set_params(tta=None)."
        )
    return preprocessing, preprocessing.output_size


def _classes(classes: np.ndarray) -> dict[str, Any]:
    labels, plain = classes.tolist(), classes
    if classes.dtype.kind == "O" and len({type(label) for label in labels}) == 1:
        plain = np.array(labels)  # such as text in a column of a table
    if plain.dtype.kind not in "biufU":
        raise ModelFileError(
            f"Classes of the dtype {classes.dtype} can't be exported, only strings and "
            "numbers."
        )
    return {"classes": labels, "classes_dtype": plain.dtype.str}


def _pictures(n: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Return images that differ in colours, in the large and in the small."""
    rng = np.random.default_rng(0)
    height, width, channels = shape
    coarse = rng.uniform(0, 255, (n, 4, 4, channels))
    rows, columns = np.arange(height) * 4 // height, np.arange(width) * 4 // width
    images = coarse[:, rows][:, :, columns]
    images += rng.normal(0, 30, images.shape) * rng.uniform(0, 2, (n, 1, 1, 1))
    pixels = np.clip(images, 0, 255).astype(np.uint8)
    return pixels if channels == 3 else pixels.astype(np.float32) / 255


def _untapped(backbone: Backbone, size: tuple[int, int]) -> nn.Module:
    """Return a backbone whose forward comes to its end, as torch.export needs it.

    One that is cut at a layer leaves by an exception; of that the operations are kept.
    """
    if not any(part._forward_hooks for part in backbone.module.modules()):
        return backbone
    backbone.unsettle()  # what is recorded is the plain network
    with torch.no_grad():
        options: Any = {"tracing_mode": "symbolic", "_allow_non_fake_inputs": True}
        record = make_fx(backbone, **options, pre_dispatch=True)
        return record(torch.zeros(2, backbone.preprocessing.n_channels, *size))


class _Fixed(nn.Module):
    """A layer of numbers in float64, in which scikit-learn computes."""

    def __init__(self, **values: Any):
        super().__init__()
        for name, value in values.items():
            self.register_buffer(name, torch.from_numpy(np.array(value, float)))


class _Affine(_Fixed):
    """``x @ weight + shift``, (n, k) of (n, d)."""

    weight: torch.Tensor
    shift: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (n, k) of (n, d)."""
        return x.double() @ self.weight + self.shift


class _Platt(_Fixed):
    """Platt's sigmoids of scores, normalised over the classes."""

    slope: torch.Tensor
    shift: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (n, k) of (n, k), or (n, 2) of (n, 1)."""
        each = torch.sigmoid(-(x * self.slope + self.shift))
        if each.shape[1] == 1:
            return torch.cat([1 - each, each], dim=1)
        return each / each.sum(1, keepdim=True)


def _linear_layers(steps: list[Any]) -> tuple[nn.Module, str]:
    """Return the steps of a pipeline after the features as layers, and their output.

    The steps are scalers, any number of them, and a linear model; the output is
    one of "probabilities", "scores" and "targets".
    """
    *scalers, last = [step for step in steps if step not in ("passthrough", None)]
    center: Any = 0.0
    scale: Any = 1.0  # of all scalers together: (x - center) / scale
    for scaler in scalers:
        if type(scaler).__name__ not in _SCALERS:
            raise _cannot(scaler, f"scalers can be {', '.join(_SCALERS)}")
        center = center + scale * (scaler.mean_ if scaler.with_mean else 0.0)
        scale = scale * (scaler.scale_ if scaler.with_std else 1.0)

    def affine(model: Any) -> _Affine:
        coef = np.atleast_2d(model.coef_) / scale
        shift = model.intercept_ - coef @ np.broadcast_to(center, coef.shape[1])
        return _Affine(weight=coef.T, shift=shift)

    name = type(last).__name__
    if name == "CalibratedClassifierCV":
        member, platt = _calibrated(last)
        return nn.Sequential(affine(member), platt), "probabilities"
    if name in _WITH_SCORES:
        return affine(last), "scores"
    if name in _REGRESSORS:
        return affine(last), "targets"
    if name != "LogisticRegression":
        known = f"{', '.join(_WITH_SCORES)}; regressors {', '.join(_REGRESSORS)}"
        raise _cannot(last, f"classifiers can be LogisticRegression, {known}")
    binary = len(last.classes_) == 2
    finish = _Platt(slope=[-1.0], shift=[0.0]) if binary else nn.Softmax(dim=1)
    return nn.Sequential(affine(last), finish), "probabilities"


def _calibrated(model: Any) -> tuple[Any, _Platt]:
    """Return the one model that was calibrated, and its sigmoids."""
    members = model.calibrated_classifiers_
    inner = members[0].estimator
    inner = getattr(inner, "estimator", inner)  # within a FrozenEstimator
    wanted = len(members) == 1 and members[0].method == "sigmoid"
    if not wanted or type(inner).__name__ not in _WITH_SCORES:
        form = "CalibratedClassifierCV(..., ensemble=False, method='sigmoid')"
        known = ", ".join(_WITH_SCORES)
        raise _cannot(model, f"calibrated ones can be {form} of {known}")
    found = members[0].calibrators
    return inner, _Platt(slope=[c.a_ for c in found], shift=[c.b_ for c in found])


def _cannot(step: Any, instead: str) -> ModelFileError:
    return ModelFileError(
        f"{type(step).__name__} can't be exported: {instead}. Or use `save`, which "
        "takes any of scikit-learn."
    )
