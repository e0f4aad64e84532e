"""What a fit or a call computes with: device, precision, batch size, verbosity."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from sklearn_dl._runtime._device import (
    autocast,
    module_dtype,
    resolve_device,
    resolve_precision,
)

_STEP_SIZE = 32  # "auto" is about memory, not about optimisation


@dataclass(frozen=True)
class Execution:
    """What a fit or a call computes with, made once for it.

    Parameters
    ----------
    device : torch.device
    dtype : torch.dtype
        Precision of the arithmetic.
    batch_size : int or "auto", default="auto"
        Images in one pass of the network.
    verbose : int, default=0
        Above 0, progress bars are shown.
    requested_device : str or torch.device, default="auto"
        What the user asked for; the workers of a cluster resolve it anew.

    Examples
    --------
    >>> from sklearn_dl._runtime import Execution
    >>> execution = Execution.of("cpu", "bfloat16", "auto")
    >>> execution.dtype, execution.module_dtype, execution.step_size
    (torch.bfloat16, torch.float32, 32)
    """

    device: torch.device
    dtype: torch.dtype
    batch_size: int | str = "auto"
    verbose: int = 0
    requested_device: str | torch.device = "auto"

    @classmethod
    def of(
        cls,
        device: str | torch.device,
        precision: str,
        batch_size: int | str,
        verbose: int = 0,
        *,
        fall_back: bool = False,
    ) -> "Execution":
        """Return what the parameters of an estimator stand for.

        Parameters
        ----------
        device : str or torch.device
            ``"auto"`` takes CUDA, then XPU, then Apple's MPS, then the CPU.
        precision : {"auto", "bfloat16", "float16", "float32", "float64"}
            ``"auto"`` is bfloat16 where the hardware computes it natively, else
            float32.
        batch_size : int or "auto"
        verbose : int, default=0
        fall_back : bool, default=False
            Where the device isn't there, the CPU is taken, with a warning.

        Raises
        ------
        ValueError
            If the device isn't there, and nothing falls back.
        """
        found = resolve_device(device, fall_back=fall_back)
        dtype = resolve_precision(precision, found)
        return cls(found, dtype, batch_size, verbose, device)

    @property
    def module_dtype(self) -> torch.dtype:
        """Dtype of parameters: half precisions keep float32, under autocast."""
        return module_dtype(self.dtype)

    @property
    def step_size(self) -> int:
        """Images of one step of training."""
        return _STEP_SIZE if isinstance(self.batch_size, str) else self.batch_size

    def autocast(self) -> AbstractContextManager:
        """Return the context in which a module computes in the precision."""
        return autocast(self.device, self.dtype)
