"""Virtual adversarial training."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from numbers import Real
from typing import ClassVar

import torch
from skorch.callbacks import Callback
from torch import nn
from torch.nn import functional as F

from sklearn_dl._runtime import own_generators
from sklearn_dl.training._callbacks import check_count


@dataclass(repr=False, eq=False)
class VirtualAdversarialLoss(Callback):
    """Loss term of how much small changes of the input can change the outputs.

    For each training image the change of length `epsilon` that moves the outputs
    most is found (by power iteration), and the distance that it moves them is added
    to the loss [1]_: for classes the divergence ``KL(p(x) || p(x + r))``, for labels
    its mean over labels, for numbers the mean squared distance. What is changed are
    the normalised pixels, or the features where the backbone is frozen. Each step
    takes ``2 + n_power`` more forward and ``1 + n_power`` more backward passes, in
    float32 also under half precision: the differences would drown in its rounding.

    Dropout is the same in all passes of a step; BatchNorm takes the batch's
    statistics as in training, and its running statistics don't move.

    Parameters
    ----------
    weight : float, default=1.0
        Weight of the term in the loss.
    epsilon : float or None, default=None
        Length (L2 norm over a row) of the change, in the units of normalised pixels
        or of features. None takes 0.05 times the length of the row itself.
    xi : float or None, default=None
        Length of the step by which the power iteration takes its differences; None
        takes a tenth of `epsilon`. Far smaller ones are lost to rounding.
    n_power : int, default=1
        Steps of the power iteration.

    References
    ----------
    .. [1] T. Miyato, S. Maeda, M. Koyama and S. Ishii, "Virtual adversarial training:
       a regularization method for supervised and semi-supervised learning", IEEE
       TPAMI 41(8), 2019; arXiv:1704.03976.

    Examples
    --------
    >>> from sklearn_dl import ImageClassifier
    >>> from sklearn_dl.training import VirtualAdversarialLoss
    >>> model = ImageClassifier(callbacks=[VirtualAdversarialLoss(0.5)])
    """

    weight: float = 1.0
    _: KW_ONLY
    epsilon: float | None = None
    xi: float | None = None
    n_power: int = 1

    needs_pixels: ClassVar[bool] = True

    def initialize(self) -> "VirtualAdversarialLoss":
        """Check the parameters."""
        if not isinstance(self.weight, Real) or not self.weight >= 0:
            raise ValueError(f"weight={self.weight!r} must be a number of at least 0.")
        for name in ("epsilon", "xi"):
            length = getattr(self, name)
            if length is not None and not (isinstance(length, Real) and length > 0):
                raise ValueError(f"{name}={length!r} must be above 0, or None.")
        check_count("n_power", self.n_power)
        return self

    def loss_term(
        self, net, inputs: Mapping[str, torch.Tensor], y_pred: torch.Tensor
    ) -> torch.Tensor:
        """Return the weighted term of a batch; `y_pred` had other dropout."""
        ((name, rows),) = net.prepared(inputs).items()
        epsilon = 0.05 * _length(rows) if self.epsilon is None else self.epsilon
        xi = epsilon / 10 if self.xi is None else self.xi
        distance = _DISTANCES[net.recipe.kind]
        direction = _unit(torch.randn_like(rows))
        full_precision = torch.autocast(rows.device.type, enabled=False)
        with _still_statistics(net.module_), full_precision:
            with own_generators(), torch.no_grad():
                outputs = net.module_(**{name: rows})
            for _ in range(self.n_power):
                direction.requires_grad_()
                with own_generators():  # so that the next pass draws the same
                    moved = net.module_(**{name: rows + xi * direction})
                total = distance(outputs, moved).sum()
                (gradient,) = torch.autograd.grad(total, direction)
                direction = _unit(gradient)
            moved = net.module_(**{name: rows + epsilon * direction})
            return self.weight * distance(outputs, moved).mean()


def _length(rows: torch.Tensor) -> torch.Tensor:
    """Return the L2 norms of rows, (b, 1, ...)."""
    return torch.linalg.vector_norm(rows, dim=tuple(range(1, rows.ndim)), keepdim=True)


def _unit(rows: torch.Tensor) -> torch.Tensor:
    """Return rows of length 1; what is zero stays."""
    # In two steps, or the squares of a tiny gradient would vanish.
    tiny = torch.finfo(rows.dtype).tiny
    largest = rows.abs().amax(dim=tuple(range(1, rows.ndim)), keepdim=True)
    rows = rows / largest.clamp_min(tiny)
    return rows / _length(rows).clamp_min(tiny)


def _divergence(outputs: torch.Tensor, moved: torch.Tensor) -> torch.Tensor:
    log_p = F.log_softmax(outputs, dim=1)
    log_q = F.log_softmax(moved, dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(1)


def _label_divergence(outputs: torch.Tensor, moved: torch.Tensor) -> torch.Tensor:
    present = F.logsigmoid(outputs) - F.logsigmoid(moved)
    absent = F.logsigmoid(-outputs) - F.logsigmoid(-moved)
    return (outputs.sigmoid() * present + (-outputs).sigmoid() * absent).mean(1)


def _squared(outputs: torch.Tensor, moved: torch.Tensor) -> torch.Tensor:
    return (outputs - moved).square().mean(1)


_DISTANCES = {
    "multiclass": _divergence,
    "multilabel-indicator": _label_divergence,
    "continuous": _squared,
}


@contextmanager
def _still_statistics(module: nn.Module) -> Iterator[None]:
    """Keep BatchNorm's running statistics, where it takes those of the batch."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    moving = [
        part
        for part in module.modules()
        if isinstance(part, kinds) and part.training and part.track_running_stats
    ]
    for norm in moving:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in moving:
            norm.track_running_stats = True
