"""Heads: the layers on a backbone's features."""

import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval, StrOptions
from torch import nn

from sklearn_dl._plain import PlainParameters

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

# Least penalty of a row in ridge regression, on features of a mean squared norm of 1.
_RIDGE = 2.5e-4


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
class Head(PlainParameters, BaseEstimator):
    """The layers between a backbone's features and the outputs.

    A value of the estimators' `head` that a grid reaches into, as in
    ``head__dropout``. Each hidden layer is Linear, normalisation, activation,
    dropout, in this order; a Linear layer to the outputs follows. In front of all is a
    scaling, which the training images (4,096 of them at most) set where the backbone
    is frozen at first: so one `lr` suits the features of any backbone. With the
    defaults one Linear layer is all else.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int, default=()
        Widths of the hidden layers, from the features to the outputs.
    dropout : float, default=0.0
        Probability, from 0 to below 1, that a value is set to zero in training; the
        others are scaled by ``1 / (1 - dropout)``. It acts on the values of each hidden
        layer, or, without hidden layers, on the scaled features; not in prediction.
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
        default is torch's own, weights and biases uniform within ``1 / sqrt(n_in)``;
        but where the backbone is frozen at first, one layer starts from zeros, and in
        `fit` of a regressor, unless the loss is a module, where ridge regression ends.
        With the others biases are zero, and weights have a deviation of
        ``sqrt(2 / (n_in + n_out))`` (Xavier [1]_; 5/3 of that before a tanh) or
        ``sqrt(2 / n_in)`` (He [2]_). "lsuv" [3]_: orthonormal weights, scaled
        so that the outputs of each layer for a batch of images have variance 1.

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
    >>> Head(64, dropout=0.5, normalization="batch").build(1280, 10)
    Sequential(
      (scaling): FeatureScaling()
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
    }

    hidden_layer_sizes: int | Sequence[int] = ()
    _: KW_ONLY
    dropout: float = 0.0
    activation: str = "relu"
    normalization: str | None = None
    init: str = "default"

    def build(self, n_features: int, n_outputs: int) -> nn.Module:
        """Return a new head; its weights are drawn from torch's global generator.

        A ``torch.nn.Sequential`` with named layers, the last of them "output", that
        maps (b, n_features) to (b, n_outputs). ValueError for a parameter that is not
        valid.
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
        layers["scaling"] = FeatureScaling(n_features)
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
        return nn.Sequential(layers)

    @torch.no_grad()
    def fit_init(self, module: nn.Module, features: torch.Tensor) -> None:
        """Scale the first weights by LSUV.

        `module` is what `build` returned, its scaling fitted; `features` are those of
        training images, the more the better. Neither modes nor running statistics of
        hidden layers matter, or change.
        """
        values = features.to(next(module.parameters()))
        for layer in module.children():
            if isinstance(layer, nn.Linear):
                # The paper repeats this until the variance is 1 within a tolerance:
                # outputs are linear in weights with a bias of zero, and once is exact.
                deviation = layer(values).std(correction=0)
                if deviation > 0 and deviation.isfinite():
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


class FeatureScaling(nn.Module):
    """Features centred and scaled by what training images set; before, as they are.

    Backbones give features of any length around any mean. Momentum bounces along a
    mean that is far from 0, and long features make large steps.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, n_features: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(n_features))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return the features (b, n_features), scaled."""
        return (input - self.mean) / self.scale

    @torch.no_grad()
    def fit(self, features: torch.Tensor, weight, norm: float, way: str) -> None:
        """Set mean and scale, so that the mean squared norm is `norm`.

        For "numbers" that is all. For "classes" each feature is divided by the root of
        its deviation first, which lets small ones count, and their noise less [1]_; and
        the mean is not quite 0, which adds 6 to that norm: the intercept alone would
        learn slowly how often a class is. A "stream" begins with few rows, perhaps of
        one class, whose mean and deviations say little: one factor is all. Features
        that differ by rounding alone change nothing.

        .. [1] R. A. van den Berg et al., "Centering, scaling, and transformations:
           improving the biological information content of metabolomics data", BMC
           Genomics 7, 2006.
        """
        values = features.to(torch.float64, copy=True)  # the one copy that is made
        share = torch.from_numpy(weight / weight.sum())
        mean = share @ values * (way != "stream")
        var = share @ values.sub_(mean).square_()
        if not 1e-10 * (mean.square() + var).mean() < var.mean() < math.inf:
            return
        scale = torch.ones_like(var)
        if way == "classes":
            scale = (var + 0.01 * var.mean()) ** 0.25
        scale *= ((var / scale.square()).sum() / norm).sqrt()
        if way == "classes":
            mean -= scale * math.sqrt(6 / len(mean))
        self.mean.copy_(mean)
        self.scale.copy_(scale)


@torch.no_grad()
def as_linear(module: nn.Module | None) -> nn.Linear | None:
    """Return a head of one layer as that layer, without scaling; None for others."""
    layers = list(module) if isinstance(module, nn.Sequential) else [module]
    match [layer for layer in layers if not isinstance(layer, nn.Dropout)]:
        case [nn.Linear() as linear]:
            return linear
        case [FeatureScaling() as scaling, nn.Linear() as output]:
            linear = copy.deepcopy(output)
            linear.weight.div_(scaling.scale)
            linear.bias.sub_(linear.weight @ scaling.mean)
            return linear
    return None


@torch.no_grad()
def start_head(
    head: Head,
    module: nn.Sequential,
    features: np.ndarray,
    rows,
    recipe,
    *,
    loss: Any,
    n_rows: int,
    stream: bool = False,
) -> None:
    """Fit what of a new head depends on the features that it is to be trained on.

    `module` is what `head` built; `features`, (n, n_features), are of `rows`, some of
    the `n_rows` training images, or in a `stream` the first of more to come. Ridge
    regression is a start for a `loss` that has a name, a robust one but for the squared
    error, with the penalty of the recipe's optimiser where that is larger.
    """
    values, output = torch.from_numpy(features), module.get_submodule("output")
    assert isinstance(output, nn.Linear)
    target, weight, kind = rows.target, rows.weight, recipe.kind
    continuous = kind == "continuous"
    one_layer = sum(isinstance(layer, nn.Linear) for layer in module) == 1
    convex = one_layer and head.init == "default"
    # Measured in examples/benchmarks/heads.py: classes are learned from features whose
    # norm grows with what there is to learn; a squared error bounces on long ones.
    n_steps = math.ceil(n_rows / max(32, recipe.execution.step_size))
    norm = 40 * math.sqrt(output.out_features * n_steps)
    ridge = continuous and convex and isinstance(loss, str) and not stream
    if continuous:
        norm = 1.0 if ridge else 30.0
    scaling = module.to(values.dtype).get_submodule("scaling")
    assert isinstance(scaling, FeatureScaling)
    norm = min(norm, values.shape[1])
    way = "stream" if stream else "numbers" if continuous else "classes"
    if kind == "multiclass":  # whatever classes weigh, the features stay the same
        weight = weight / np.bincount(target, weights=weight)[target]
    scaling.fit(values, weight, norm, way)
    if head.init == "lsuv":
        head.fit_init(module, values)
    if not convex:
        return
    nn.init.zeros_(output.weight)
    nn.init.zeros_(output.bias)
    if ridge and values.isfinite().all():
        penalty = max(_RIDGE, recipe.optimizer.weight_decay / 2)
        scaled, robust = scaling(values).double().numpy(), loss != "squared_error"
        model = _ridge(scaled, target.double().numpy(), weight, penalty, robust)
        coef = torch.from_numpy(np.atleast_2d(model.coef_))
        output.weight.copy_(coef.reshape(output.weight.shape))
        output.bias.copy_(torch.from_numpy(np.atleast_1d(model.intercept_)))


def _ridge(features, target, weight, penalty: float, robust: bool):
    """Return a ridge regression; a robust one leaves out targets that are far off."""
    from sklearn.linear_model import Ridge  # classifiers import less

    if robust:  # six deviations from the median, by the median distance
        off = np.abs(target - np.median(target, axis=0)).reshape(len(target), -1)
        far = (off > 6 * 1.4826 * np.median(off, axis=0)).any(1)
        weight = weight if far.mean() > 0.5 else np.where(far, 0.0, weight)
    model = Ridge(alpha=penalty * weight.sum(), solver="cholesky")
    return model.fit(features, target, sample_weight=weight)
