"""Sharpness-aware minimisation."""

from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import Any

import torch

from sklearn_dl.training._optimizers import OPTIMIZERS


class SAM(torch.optim.Optimizer):
    """Sharpness-aware minimisation: descends where the neighbourhood is low too.

    Each step goes up to the worst point nearby, ``w + rho * g / ||g||`` (the norm is
    over all parameters together), takes the gradient there, and hands it to the base
    optimiser, at the weights as they were [1]_. So a step costs two gradients, of the
    same batch; dropout is drawn for each, and BatchNorm statistics that move, move
    twice. The estimators take it as ``optimizer=SAM`` or
    ``optimizer=Optimizer(SAM, options={"rho": 0.1})``.

    Parameters
    ----------
    params : iterable of torch.Tensor or of dict
        Parameters, or groups of them; a group may have a `rho` of its own. Groups are
        shared with the base optimiser, so torch's schedulers act on both.
    lr : float, default=1e-2
        Rate of the base optimiser; choose it for that.
    base : str or callable, default="momentum"
        The optimiser that makes the step: by name, as the estimators' `optimizer`, or
        a class of torch.
    rho : float, default=0.05
        Distance of the worst point, in the units of the weights.
    adaptive : bool, default=False
        Whether distances are relative to each weight's size [2]_:
        ``w + rho * w**2 * g / ||w * g||``; `rho` is then about ten times larger.
    weight_decay : float, default=0.0
        Weight decay of the base optimiser.
    base_options : dict or None, default=None
        Further arguments of the base optimiser, such as ``{"momentum": 0.95}``.

    References
    ----------
    .. [1] P. Foret, A. Kleiner, H. Mobahi and B. Neyshabur, "Sharpness-aware
       minimization for efficiently improving generalization", ICLR, 2021.
    .. [2] J. Kwon, J. Kim, H. Park and I. K. Choi, "ASAM: Adaptive sharpness-aware
       minimization for scale-invariant learning of deep neural networks", ICML, 2021.

    Examples
    --------
    The gradient of ``w ** 2`` at ``1 + 0.5`` is 3:

    >>> import torch
    >>> from sklearn_dl.training import SAM
    >>> w = torch.ones(1, requires_grad=True)
    >>> optimizer = SAM([w], lr=0.1, rho=0.5)
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss = (w**2).sum()
    ...     loss.backward()
    ...     return loss
    >>> optimizer.step(closure).item()
    1.0
    >>> round(w.item(), 3)
    0.7
    """

    base: torch.optim.Optimizer
    takes_base = True  # the rate that suits it is the base's

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-2,
        *,
        base: str | Callable[..., torch.optim.Optimizer] = "momentum",
        rho: float = 0.05,
        adaptive: bool = False,
        weight_decay: float = 0.0,
        base_options: Mapping[str, Any] | None = None,
    ):
        if isinstance(rho, bool) or not isinstance(rho, Real) or not rho >= 0:
            raise ValueError(f"rho={rho!r} must be a number of at least 0.")
        arguments: dict[str, Any] = {}
        if isinstance(base, str):
            if base not in OPTIMIZERS:
                known = ", ".join(OPTIMIZERS)
                raise ValueError(f"base={base!r} is not a class, nor one of: {known}.")
            base, arguments, _ = OPTIMIZERS[base]
        if weight_decay:
            arguments = {**arguments, "weight_decay": weight_decay}
        arguments = {**arguments, **(base_options or {})}
        super().__init__(params, {"rho": rho, "adaptive": adaptive, "lr": lr})
        self.base = base(self.param_groups, lr=lr, **arguments)
        # Schedulers ask the defaults whether there is a momentum.
        self.defaults = {**self.base.defaults, **self.defaults}
        self._share()

    def _share(self) -> None:
        """Let groups and state be those of the base optimiser."""
        self.param_groups = self.base.param_groups
        self.state = self.base.state

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Make one step, and return the loss at the weights before it.

        `closure` clears the gradients, computes them anew and returns the loss, twice.
        """
        if closure is None:
            raise ValueError(
                "SAM computes two gradients a step, so it needs a closure: "
                "step(closure). A gradient scaler (precision='float16') has none; use "
                "precision='bfloat16'."
            )
        with torch.enable_grad():
            loss = closure()
        before = self._climb()
        try:
            with torch.enable_grad():
                closure()
        finally:  # also when training is interrupted
            with torch.no_grad():
                for parameter, value in before:
                    parameter.copy_(value)
        self.base.step()
        return loss

    @torch.no_grad()
    def _climb(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Go to the worst point nearby; return the parameters and their values."""
        moves = []
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    size = parameter.abs() if group["adaptive"] else 1.0
                    moves.append((parameter, size, size * parameter.grad, group["rho"]))
        if not moves:
            return []
        device = moves[0][0].device
        norms = [scaled.norm().to(device) for _, _, scaled, _ in moves]
        norm = torch.stack(norms).norm().clamp_min(1e-12)
        before = []
        for parameter, size, scaled, rho in moves:
            before.append((parameter, parameter.clone()))
            parameter.add_(size * scaled * (rho / norm).to(parameter))
        return before

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters, here and in the base optimiser."""
        if "base" not in self.__dict__:  # the constructor's own groups
            super().add_param_group(param_group)
            return
        for name in ("rho", "adaptive"):
            param_group.setdefault(name, self.defaults[name])
        self.base.add_param_group(param_group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what ``state_dict()`` returned; the base's state is part of it."""
        self.base.load_state_dict(state_dict)
        self._share()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "base": self.base}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._share()
