"""Norms and noise of the gradients of a training."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from skorch.callbacks import Callback
from torch import nn

from sklearn_dl._runtime import own_generators
from sklearn_dl.training._callbacks import check_count


@dataclass(kw_only=True, repr=False, eq=False)
class GradientMonitor(Callback):
    """Monitor of the norms and the noise of the gradients, epoch by epoch.

    `diagnose` reads from ``history_`` whether gradients vanish, explode or are noise.
    This callback adds there

    ``grad_norm``
        Euclidean norm of the gradient of all trained parameters together, in the
        mean over the batches of the epoch.
    ``grad_norm_first``, ``grad_norm_last``
        The same for the first and the last trained layer that has weights.
    ``grad_noise``
        Variance of the gradients of the batches, summed over the parameters:
        ``mean(|g_b|^2) - |mean(g_b)|^2`` over the batches b [1]_. NaN for one batch.
    ``grad_noise_ratio``
        That variance over ``|mean(g_b)|^2``.
    ``grad_steps``
        Batches in these means.
    ``valid_grad_norm``
        Norm of the gradient of the loss of a fixed batch of validation rows, in
        evaluation mode, with the weights at the end of the epoch. Only where there
        are validation rows.

    Gradients are those of the loss itself, before clipping, L1 and weight decay. Where
    an optimiser asks for several in one step, the first one counts. In half precision,
    batches whose gradients overflowed are left out, as the optimiser leaves them out.

    Parameters
    ----------
    n_validation_rows : int, default=32
        Rows of the validation batch, spread evenly over the validation rows. 0 for
        no ``valid_grad_norm``.
    per_layer : bool, default=True
        Whether to fill ``layers_``.

    Attributes
    ----------
    layers_ : pandas.DataFrame
        One row per epoch of the last `fit` and layer with weights: ``epoch``,
        ``layer`` (the name in the network), ``weight_norm`` (at the end of the
        epoch), ``grad_norm`` (in the mean over the batches) and their ``ratio``,
        ``grad_norm / weight_norm``.

    Notes
    -----
    Training gives the same weights, bit for bit, with and without the monitor. It needs
    the memory of one more copy of the trained parameters, on their device. Weights move
    between the batches of an epoch, so gradients differ a little for that reason too.

    References
    ----------
    .. [1] S. McCandlish, J. Kaplan, D. Amodei and the OpenAI Dota Team, "An Empirical
       Model of Large-Batch Training", arXiv:1812.06162, 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_dl import ImageClassifier
    >>> from sklearn_dl.training import GradientMonitor
    >>> images = np.random.default_rng(0).integers(0, 255, (8, 32, 32, 3), "uint8")
    >>> model = ImageClassifier(
    ...     "mobilenet_v3_small", weights="builtin", image_size=32, batch_size=4,
    ...     max_epochs=2, random_state=0, callbacks=[GradientMonitor()],
    ... ).fit(images, [0, 1] * 4)
    >>> model.history_[["epoch", "grad_steps"]].to_numpy().tolist()
    [[1, 2], [2, 2]]
    """

    n_validation_rows: int = 32
    per_layer: bool = True

    def initialize(self):
        """Check the parameters, and start from nothing."""
        check_count("n_validation_rows", self.n_validation_rows, least=0)
        # Not in on_train_begin: a state loaded there by another callback stays.
        self.rows_: list[tuple] = []
        self.sums_: _GradientSums | None = None
        self.batch_: Any = None
        self.trained_: list[str] = []
        self.awaited_ = False
        return self

    @property
    def layers_(self) -> pd.DataFrame:
        """Norms of weights and gradients of each layer in each epoch."""
        columns = ["epoch", "layer", "weight_norm", "grad_norm", "ratio"]
        return pd.DataFrame(self.rows_, columns=columns)

    def state_dict(self) -> dict[str, Any]:
        """Return what was measured so far, as plain values."""
        return {"layers": [list(row) for row in self.rows_]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.rows_ = [tuple(row) for row in state["layers"]]

    def on_epoch_begin(self, net, **kwargs):
        """Start the sums of an epoch."""
        # Which parameters train may change between epochs.
        self.sums_ = _GradientSums(net.module_, skip=net.scaler_.is_enabled())
        if self.sums_.names != self.trained_:
            # Then validation rows may be pixels where they were features.
            self.trained_, self.batch_ = self.sums_.names, None

    def on_batch_begin(self, net, *, training=False, **kwargs):
        """Wait for the first gradient of a training batch."""
        self.awaited_ = training

    def on_grad_computed(self, net, **kwargs):
        """Add the gradient of a batch to the sums."""
        if self.awaited_:
            self.sums_.add()
        self.awaited_ = False

    def on_epoch_end(self, net, *, dataset_valid=None, **kwargs):
        """Record the epoch."""
        measured, layers = self.sums_.measured()
        self.sums_ = None
        for name, value in measured.items():
            net.history.record(name, value)
        if self.per_layer:
            epoch = net.history[-1, "epoch"]
            self.rows_ += [(epoch, *layer) for layer in layers]
        if dataset_valid is not None and self.n_validation_rows:
            if self.batch_ is None:
                self.batch_ = _spread_rows(dataset_valid, self.n_validation_rows)
            norm = _gradient_norm(net, self.batch_)
            net.history.record("valid_grad_norm", norm)

    def on_train_end(self, net, **kwargs):
        """Let go of the sums and of the validation batch."""
        self.sums_ = self.batch_ = None


class _GradientSums:
    """Sums over the batches of an epoch; with `skip`, of finite gradients alone."""

    def __init__(self, module: nn.Module, *, skip: bool):
        self.skip = skip
        every = list(module.named_parameters())
        self.names = [name for name, p in every if p.requires_grad]
        self.parameters = [p for _, p in every if p.requires_grad]
        self.gradients: list[torch.Tensor | None] = [None] * len(self.names)
        self.scalars: torch.Tensor | None = None

    def add(self) -> None:
        """Add the gradients that the parameters have now."""
        norms = _norms([p.grad for p in self.parameters])
        square = norms.square().sum()
        one = torch.ones_like(square)
        # The batches, their norm and its square, and the norm of each parameter.
        scalars = torch.cat([torch.stack([one, square.sqrt(), square]), norms])
        counts = square.isfinite()
        if self.skip:
            scalars = torch.where(counts, scalars, 0)
        self.scalars = scalars if self.scalars is None else self.scalars + scalars
        for i, parameter in enumerate(self.parameters):
            gradient, total = parameter.grad, self.gradients[i]
            if gradient is None:
                continue
            if self.skip:
                gradient = torch.where(counts, gradient, 0)
            if total is None:
                self.gradients[i] = gradient.detach().clone()
            else:
                total.add_(gradient)

    def measured(self) -> tuple[dict[str, float], list[tuple]]:
        """Return the columns of the history, and (layer, norms, ratio) of layers."""
        if self.scalars is None:
            return {}, []
        scalars = self.scalars.cpu().double().numpy()
        count = int(scalars[0]) if np.isfinite(scalars[0]) else 0
        with np.errstate(invalid="ignore", divide="ignore"):
            norm, mean_square, *norms = (scalars[1:] / count).tolist()
            square_of_mean = float(
                _norms(self.gradients).square().sum().cpu().double() / np.square(count)
            )
            # Rounding may leave less than nothing where all gradients are the same.
            noise = np.maximum(mean_square - square_of_mean, 0.0)
            ratio = np.float64(noise) / square_of_mean
        if count < 2:
            noise = ratio = np.float64("nan")
        measured = {"grad_norm": norm, "grad_noise": float(noise)}
        measured |= {"grad_noise_ratio": float(ratio), "grad_steps": count}
        layers = self._layers(norms)
        if layers:
            measured["grad_norm_first"] = layers[0][2]
            measured["grad_norm_last"] = layers[-1][2]
        return measured, layers

    def _layers(self, norms: list[float]) -> list[tuple]:
        weights = _norms([p.detach() for p in self.parameters]).tolist()
        every = zip(self.names, self.parameters, weights, norms, strict=True)
        return [
            (name.removesuffix(".weight"), weight, norm, norm / (weight or np.nan))
            for name, parameter, weight, norm in every
            if name.endswith("weight") and parameter.ndim > 1
        ]


def _norms(tensors: list[torch.Tensor | None]) -> torch.Tensor:
    """Return the norm of each tensor, 0 for None, in float64 where there is one."""
    like = next((t for t in tensors if t is not None), torch.zeros(()))
    exact = torch.float32 if like.device.type == "mps" else torch.float64
    norms = [torch.zeros((), dtype=exact, device=like.device)] * len(tensors)
    for i, tensor in enumerate(tensors):
        if tensor is not None:
            dtype = torch.promote_types(tensor.dtype, torch.float32)
            norms[i] = torch.linalg.vector_norm(tensor, dtype=dtype).to(exact)
    return torch.stack(norms)


def _spread_rows(dataset, n_rows: int):
    """Return a batch of rows from the first to the last of a dataset."""
    # Without a loader, which would draw from torch's generator.
    rows = np.linspace(0, len(dataset) - 1, min(n_rows, len(dataset)))
    return dataset.__getitems__(rows.round().astype(int).tolist())


def _gradient_norm(net, batch) -> float:
    """Return the norm of the gradient of a batch's loss; change nothing."""
    inputs, target = batch
    parameters = [p for p in net.module_.parameters() if p.requires_grad]
    # A small loss has no gradient in half precision unless it is scaled up.
    scale = net.scaler_.get_scale()
    with _evaluating(net.module_), torch.enable_grad():
        loss = net.get_loss(net.infer(inputs), target, X=inputs, training=False)
        gradients = torch.autograd.grad(loss * scale, parameters, allow_unused=True)
    return float(_norms(list(gradients)).square().sum().sqrt()) / scale


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode; then each part back, and the generators."""
    modes = [(part, part.training) for part in module.modules()]
    with own_generators():
        module.eval()
        try:
            yield
        finally:
            for part, mode in modes:
                part.training = mode
