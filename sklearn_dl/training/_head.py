"""Heads: the layers on a backbone's features."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from numbers import Integral, Real
from typing import Any, ClassVar

import torch
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval, StrOptions
from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "leaky_relu": nn.LeakyReLU,
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
    "swish": nn.SiLU,
    "tanh": nn.Tanh,
}


def _groups(width: int) -> int:
    # A group of few values normalises to almost nothing but signs.
    most = max(1, min(32, width // 16))
    return max(groups for groups in range(1, most + 1) if width % groups == 0)


_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm1d,
    "group": lambda width: nn.GroupNorm(_groups(width), width),
    "layer": nn.LayerNorm,
}

_INITS: dict[str, Callable[[torch.Tensor, float], Any]] = {
    "he_normal": lambda w, gain: nn.init.kaiming_normal_(w, nonlinearity="relu"),
    "he_uniform": lambda w, gain: nn.init.kaiming_uniform_(w, nonlinearity="relu"),
    "lsuv": lambda w, gain: nn.init.orthogonal_(w),
    "xavier_normal": nn.init.xavier_normal_,
    "xavier_uniform": nn.init.xavier_uniform_,
}


@dataclass(repr=False, eq=False)
class Head(BaseEstimator):
    """The layers between a backbone's features and the outputs.

    A value of the estimators' `head` that a grid reaches into, as in
    ``head__dropout``. Each hidden layer is Linear, normalisation, activation,
    dropout, in this order; a Linear layer to the outputs follows. With the defaults
    the head is that Linear layer alone.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int, default=()
        Widths of the hidden layers, from the features to the outputs.
    dropout : float, default=0.0
        Probability, from 0 to below 1, that a value is set to zero in training; the
        others are scaled by ``1 / (1 - dropout)``. It acts on the values of each hidden
        layer, or, without hidden layers, on the features; not in prediction.
    activation : str, default="relu"
        Activation of the hidden layers: "sigmoid", "tanh", "softplus", "relu",
        "leaky_relu", "elu", "swish" or "gelu".
    normalization : {"batch", "layer", "group"} or None, default=None
        Normalisation of the hidden layers. Groups have 16 values or more: their number
        is the largest that divides the width and is at most ``width / 16`` and 32, so 8
        for a width of 128, 5 for 100, and 1 (as "layer") below 32 or for a prime width.
    init : str, default="default"
        First weights of all Linear layers, the last included: "default",
        "xavier_uniform", "xavier_normal", "he_uniform", "he_normal" or "lsuv". The
        default is torch's own, weights and biases uniform within ``1 / sqrt(n_in)``.
        With the others biases are zero, and weights have a deviation of
        ``sqrt(2 / (n_in + n_out))`` (Xavier [1]_; 5/3 of that before a tanh) or
        ``sqrt(2 / n_in)`` (He [2]_). "lsuv" [3]_: orthonormal weights, scaled
        so that the outputs of each layer for a batch of images have variance 1.
    normalize_features : bool, default=False
        Whether the features pass a `FeatureNorm`, a BatchNorm without parameters,
        before all else; features of a random backbone, which differ by little from
        image to image, need it. Normalised features are long, and the squared error may
        diverge unless `lr` is well below ``1 / n_features``.

    References
    ----------
    .. [1] X. Glorot and Y. Bengio, "Understanding the difficulty of training deep
       feedforward neural networks", AISTATS, 2010.
    .. [2] K. He, X. Zhang, S. Ren and J. Sun, "Delving deep into rectifiers:
       surpassing human-level performance on ImageNet classification", ICCV, 2015.
    .. [3] D. Mishkin and J. Matas, "All you need is a good init", ICLR, 2016.

    Examples
    --------
    >>> from sklearn_dl.training import Head
    >>> Head().build(1280, 10)
    Linear(in_features=1280, out_features=10, bias=True)
    >>> Head(64, dropout=0.5, normalization="batch").build(1280, 10)
    Sequential(
      (linear1): Linear(in_features=1280, out_features=64, bias=True)
      (norm1): BatchNorm1d(64, eps=1e-05, ...)
      (activation1): ReLU()
      (dropout1): Dropout(p=0.5, inplace=False)
      (output): Linear(in_features=64, out_features=10, bias=True)
    )
    """

    _parameter_constraints: ClassVar[dict] = {
        "hidden_layer_sizes": "no_validation",  # see `build`
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "normalization": [StrOptions(set(_NORMS)), None],
        "init": [StrOptions({"default", *_INITS})],
        "normalize_features": ["boolean"],
    }

    hidden_layer_sizes: int | Sequence[int] = ()
    _: KW_ONLY
    dropout: float = 0.0
    activation: str = "relu"
    normalization: str | None = None
    init: str = "default"
    normalize_features: bool = False

    def build(self, n_features: int, n_outputs: int) -> nn.Module:
        """Return a new head; its weights are drawn from torch's global generator.

        It maps (b, n_features) to (b, n_outputs): a ``torch.nn.Sequential`` with named
        layers, or, where there is but one layer, that ``torch.nn.Linear``. ValueError
        for a parameter that is not valid.
        """
        self._validate_params()
        sizes = self.hidden_layer_sizes
        widths = list(sizes) if isinstance(sizes, Iterable) else [sizes]
        for width in widths:
            if not isinstance(width, Integral) or isinstance(width, bool) or width < 1:
                raise ValueError(
                    f"hidden_layer_sizes={sizes!r} must hold widths, ints of at "
                    f"least 1; got {width!r}."
                )
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if self.normalize_features:
            layers["feature_norm"] = FeatureNorm(n_features)
        if self.dropout and not widths:
            layers["dropout"] = nn.Dropout(self.dropout)
        gain = 5 / 3 if self.activation == "tanh" else 1.0
        n_in = n_features
        for number, width in enumerate(map(int, widths), 1):
            layers[f"linear{number}"] = self._linear(n_in, width, gain)
            if self.normalization is not None:
                layers[f"norm{number}"] = _NORMS[self.normalization](width)
            layers[f"activation{number}"] = ACTIVATIONS[self.activation]()
            if self.dropout:
                layers[f"dropout{number}"] = nn.Dropout(self.dropout)
            n_in = width
        layers["output"] = self._linear(n_in, n_outputs, 1.0)
        return nn.Sequential(layers) if len(layers) > 1 else layers["output"]

    @property
    def needs_data(self) -> bool:
        """Whether `fit_init` has something to do before training."""
        return self.init == "lsuv" or self.normalize_features

    @torch.no_grad()
    def fit_init(self, module: nn.Module, features: torch.Tensor) -> None:
        """Set what depends on data: layers scaled by LSUV, norms of features.

        `module` is what `build` returned, `features` are those of a batch of training
        images, the larger the better. Neither modes nor running statistics of hidden
        layers matter, or change.
        """
        values = features.to(next(module.parameters()))
        for layer in [module] if isinstance(module, nn.Linear) else module.children():
            if isinstance(layer, FeatureNorm):
                layer.fit(values)
                values = layer.normalized(values)
            elif isinstance(layer, nn.Linear):
                # The paper repeats this until the variance is 1 within a tolerance:
                # outputs are linear in weights with a bias of zero, and once is exact.
                deviation = layer(values).std(correction=0)
                if self.init == "lsuv" and deviation > 0 and deviation.isfinite():
                    layer.weight.div_(deviation)
                values = layer(values)
            elif isinstance(layer, nn.BatchNorm1d):
                mean, var = values.mean(0), values.var(0, correction=0)
                values = (values - mean) / (var + layer.eps).sqrt()
            elif not isinstance(layer, nn.Dropout):
                values = layer(values)

    def _linear(self, n_in: int, n_out: int, gain: float) -> nn.Linear:
        layer = nn.Linear(n_in, n_out)
        if self.init != "default":
            _INITS[self.init](layer.weight, gain)
            nn.init.zeros_(layer.bias)
        return layer


class FeatureNorm(nn.BatchNorm1d):
    """BatchNorm of features of any scale, without parameters.

    The features are divided by their mean deviation in a batch of training images
    first: so BatchNorm's ``eps`` is small against them also where their spread is tiny.
    """

    scale: torch.Tensor
    running_mean: torch.Tensor
    running_var: torch.Tensor

    def __init__(self, n_features: int):
        super().__init__(n_features, eps=1e-3, affine=False)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return the features (b, n_features), normalised."""
        return super().forward(input / self.scale)

    @torch.no_grad()
    def fit(self, features: torch.Tensor) -> None:
        """Start scale and running statistics from a batch; one row changes nothing."""
        scale = features.var(0, correction=0).mean().sqrt()
        if len(features) > 1 and scale > 0 and scale.isfinite():
            self.scale.copy_(scale)
            scaled = features / scale
            self.running_mean.copy_(scaled.mean(0))
            self.running_var.copy_(scaled.var(0))

    def normalized(self, features: torch.Tensor) -> torch.Tensor:
        """Return the features normalised by the running statistics."""
        scaled = features / self.scale
        return (scaled - self.running_mean) / (self.running_var + self.eps).sqrt()
