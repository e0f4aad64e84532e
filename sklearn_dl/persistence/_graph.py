"""One network of all that a fitted estimator does: pixels in, predictions out."""

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from sklearn_dl._extraction import run_network
from sklearn_dl._features import ImageFeatureExtractor
from sklearn_dl._images import as_source
from sklearn_dl._neural import NeuralImageEstimator
from sklearn_dl._runtime import Execution
from sklearn_dl.backbones import Backbone, Preprocessing, walk
from sklearn_dl.backbones._surgery import pool, run
from sklearn_dl.persistence._archive import versions
from sklearn_dl.persistence._errors import ModelFileError
from sklearn_dl.persistence._exported_file import FORMAT, VERSION
from sklearn_dl.persistence._linear import Affine, linear_layers
from sklearn_dl.training import gives_margins

TOLERANCE = 1e-4
_ON_CPU = Execution.of("cpu", "float32", 32)


class Deployed(nn.Module):
    """Normalisation, backbone, head and what makes predictions of outputs.

    Parameters
    ----------
    backbone : Backbone
    rest : torch.nn.Module
        From features (n, d) to predictions (n, k).
    preprocessing : Preprocessing
        Its mean and std.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, backbone: Backbone, rest: nn.Module, preprocessing):
        super().__init__()
        self.network = _untapped(backbone.module, preprocessing.output_size)
        self.pooling = backbone.pooling
        self.channels_last = backbone._channels_last
        self.rest = rest
        for name in ("mean", "std"):
            values = torch.tensor(getattr(preprocessing, name)).view(1, 3, 1, 1)
            self.register_buffer(name, values)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return predictions (n, k) of images (n, height, width, 3), uint8."""
        pixels = images.permute(0, 3, 1, 2).float() / 255
        outputs = run(self.network, (pixels - self.mean) / self.std)
        return self.rest(pool(outputs, self.pooling, self.channels_last))


@dataclass
class Graph:
    """What an estimator is exported as.

    Attributes
    ----------
    module : Deployed
        On the CPU, in float32 and evaluation mode.
    metadata : dict
        What those who use it need to know, as JSON has it.
    size : (int, int)
        Height and width of the images.
    reference : callable
        From images to what the estimator makes of them, in float32.
    """

    module: Deployed
    metadata: dict[str, Any]
    size: tuple[int, int]
    reference: Callable[[np.ndarray], np.ndarray]

    def check(self, predict: Callable[[np.ndarray], np.ndarray], what: str) -> None:
        """Compare what was exported with the estimator, one image and several.

        Raises
        ------
        ModelFileError
            If they differ by more than 1e-4, of targets 1e-4 of their scale.
        """
        images = _pictures(5, self.size)
        for part in (images[:1], images[1:]):
            wanted, got = self.reference(part), predict(part)
            scale = max(1.0, float(np.abs(wanted).max()))
            worst = float(np.abs(wanted - got).max()) if got.size else np.inf
            if got.shape != wanted.shape or not worst <= TOLERANCE * scale:
                raise ModelFileError(
                    f"{what} gives other predictions than the estimator: they differ "
                    f"by {worst:.2g} for {len(part)} images. Nothing was written."
                )

    @property
    def text(self) -> str:
        """The metadata as JSON."""
        return json.dumps(self.metadata, allow_nan=False)


def graph_of(estimator: Any) -> Graph:
    """Return what an estimator is exported as.

    Raises
    ------
    ModelFileError
        If it has no such form.
    """
    if isinstance(estimator, NeuralImageEstimator):
        check_is_fitted(estimator)
        return _neural_graph(estimator)
    if isinstance(estimator, Pipeline) and isinstance(
        estimator.steps[0][1], ImageFeatureExtractor
    ):
        check_is_fitted(estimator)
        return _pipeline_graph(estimator)
    raise ModelFileError(
        f"{type(estimator).__name__} can't be exported: give an ImageClassifier, an "
        "ImageRegressor, or a pipeline of an ImageFeatureExtractor and a linear model "
        "as make_feature_classifier builds it. Or use `save`."
    )


def _neural_graph(estimator: Any) -> Graph:
    network = copy.deepcopy(estimator.net_.module_).to("cpu", torch.float32).eval()
    targets, head = estimator._targets, network.head
    margins = targets.kind != "continuous" and gives_margins(estimator.loss)
    finish: nn.Module
    if targets.kind == "continuous":
        scale = np.diag(targets.scaler.scale_)
        finish = Affine(weight=scale, shift=targets.scaler.mean_)
        output = "targets"
    elif margins:
        finish, output = nn.Identity(), "scores"
    elif targets.kind == "multilabel-indicator":
        finish, output = nn.Sigmoid(), "probabilities"
    else:
        finish, output = nn.Softmax(dim=-1), "probabilities"
    preprocessing, size = _checked(estimator)
    plain = _as_is(preprocessing)

    def activated(values: torch.Tensor) -> torch.Tensor:
        if output == "targets":
            numbers = targets.scaler.inverse_transform(values.double().numpy())
            return torch.from_numpy(numbers)
        return targets.activate(values.double()) if output != "scores" else values

    reference_network = copy.deepcopy(network)

    def reference(images: np.ndarray) -> np.ndarray:
        source = as_source(images)
        return run_network(reference_network, source, plain, _ON_CPU, combine=activated)

    metadata = {
        "kind": targets.kind,
        "output": output,
        "single": bool(getattr(targets, "single", False)),
        **_classes(getattr(estimator, "classes_", None)),
    }
    module = Deployed(
        network.backbone, nn.Sequential(head, finish), preprocessing
    ).eval()
    return Graph(
        module, _described(estimator, metadata, preprocessing), size, reference
    )


def _pipeline_graph(pipeline: Pipeline) -> Graph:
    extractor, *others = [step for _, step in pipeline.steps]
    preprocessing, size = _checked(extractor)
    layers, output = linear_layers(others)
    backbone = copy.deepcopy(extractor.backbone_).to("cpu", torch.float32).eval()
    plain, reference_backbone = _as_is(preprocessing), copy.deepcopy(backbone)
    rest = pipeline[1:]

    def reference(images: np.ndarray) -> np.ndarray:
        features = run_network(reference_backbone, as_source(images), plain, _ON_CPU)
        if output == "probabilities":
            return rest.predict_proba(features)
        if output == "targets":
            return rest.predict(features).reshape(len(images), -1)
        return rest.decision_function(features).reshape(len(images), -1)

    single = np.ndim(getattr(others[-1], "intercept_", 0.0)) == 0
    metadata = {
        "kind": "continuous" if output == "targets" else "multiclass",
        "output": output,
        "single": bool(output == "targets" and single),
        **_classes(
            getattr(pipeline, "classes_", None) if output != "targets" else None
        ),
    }
    module = Deployed(backbone, layers, preprocessing).eval()
    return Graph(module, _described(pipeline, metadata, preprocessing), size, reference)


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


def _as_is(preprocessing: Preprocessing) -> Preprocessing:
    return Preprocessing(None, None, preprocessing.mean, preprocessing.std)


def _classes(classes: np.ndarray | None) -> dict[str, Any]:
    if classes is None:
        return {}
    labels = classes.tolist()
    plain = classes
    if classes.dtype.kind == "O" and len({type(label) for label in labels}) == 1:
        plain = np.array(labels)  # such as text in a column of a table
    if plain.dtype.kind not in "biufU":
        raise ModelFileError(
            f"Classes of the dtype {classes.dtype} can't be exported: they must be "
            "strings or numbers."
        )
    return {"classes": labels, "classes_dtype": plain.dtype.str}


def _described(estimator, metadata, preprocessing: Preprocessing) -> dict[str, Any]:
    assert preprocessing.output_size is not None
    height, width = preprocessing.output_size
    return {
        "format": FORMAT,
        "version": VERSION,
        "estimator": type(estimator).__name__,
        **metadata,
        "input": {"shape": ["n", height, width, 3], "dtype": "uint8", "colours": "RGB"},
        "preprocessing": preprocessing.to_dict(),
        "versions": versions(),
    }


def _pictures(n: int, size: tuple[int, int]) -> np.ndarray:
    """Return images that differ in colours, in the large and in the small."""
    rng = np.random.default_rng(0)
    height, width = size
    coarse = rng.uniform(0, 255, (n, 4, 4, 3))
    rows, columns = np.arange(height) * 4 // height, np.arange(width) * 4 // width
    images = coarse[:, rows][:, :, columns]
    images += rng.normal(0, 30, images.shape) * rng.uniform(0, 2, (n, 1, 1, 1))
    return np.clip(images, 0, 255).astype(np.uint8)


def _untapped(network: nn.Module, size: tuple[int, int]) -> nn.Module:
    """Return a network whose forward comes to its end, as torch.export needs it.

    One that is cut at a layer leaves by an exception; of that the operations are kept.
    """
    if not any(part._forward_hooks for _, part in walk(network)):
        return network
    with torch.no_grad():
        record = make_fx(
            lambda x: run(network, x),
            tracing_mode="symbolic",
            pre_dispatch=True,
            _allow_non_fake_inputs=True,
        )
        return record(torch.zeros(2, 3, *size))


def exported_program(module: nn.Module, size: tuple[int, int]) -> Any:
    """Return torch's graph of a network, for any number of images."""
    example = torch.from_numpy(_pictures(2, size))
    batch = torch.export.Dim("batch", min=1)
    with torch.no_grad():
        return torch.export.export(
            module, (example,), dynamic_shapes={"images": {0: batch}}, strict=False
        )
