"""What a fit or a call computes with: device, precision, threads."""

import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

PRECISIONS = ("auto", "bfloat16", "float16", "float32", "float64")


def resolve_device(device: Any, *, fall_back: bool = False) -> torch.device:
    """Return the torch device that a `device` parameter stands for, or the first.

    ``"auto"`` takes CUDA, then XPU, then Apple's MPS, then the CPU. A device that isn't
    on this machine is a ValueError, or with `fall_back` (for a model that was fitted
    elsewhere) the CPU, with a warning.
    """
    return resolve_devices(device, fall_back=fall_back)[0]


def resolve_devices(
    device: Any, *, fall_back: bool = False
) -> tuple[torch.device, ...]:
    """Return the torch devices that a `device` parameter stands for.

    ``"all"`` are those of the kind that ``"auto"`` takes. Devices of two kinds are a
    ValueError: they compute other last digits.
    """
    if isinstance(device, str) and device in ("auto", "all"):
        kind = next(d for d in _PREFERRED if _is_available(d))
        if device == "auto" or kind not in ("cuda", "xpu"):
            return (torch.device(kind),)
        n = getattr(torch, kind).device_count()
        return tuple(torch.device(kind, k) for k in range(n))
    if not isinstance(device, list | tuple):
        return (_resolved(device, fall_back),)
    found = [_resolved(one, fall_back) for one in device]
    kinds = [torch.device(one).type for one in device]
    if len(set(kinds)) != 1:
        raise ValueError(
            f"device={device!r} must name devices of one kind, such as "
            "['cuda:0', 'cuda:1']."
        )
    here = [d for d, kind in zip(found, kinds, strict=True) if d.type == kind]
    return tuple(here or found[:1])


def _resolved(device: str | torch.device, fall_back: bool) -> torch.device:
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise ValueError(
            f"device={device!r} is not a device of torch; "
            "use 'auto', 'all', 'cpu', 'cuda', 'cuda:1', 'mps' or 'xpu'."
        ) from error
    if _is_available(resolved.type, resolved.index or 0):
        return resolved
    if not fall_back:
        raise ValueError(
            f"device={device!r} is not available on this machine; "
            "device='auto' takes the best one there is."
        )
    warnings.warn(
        f"device={device!r} is not available on this machine; the CPU is used.",
        UserWarning,
        stacklevel=2,
    )
    return torch.device("cpu")


_PREFERRED = ("cuda", "xpu", "mps", "cpu")


def _is_available(kind: str, index: int = 0) -> bool:
    if kind in ("cuda", "xpu"):
        devices = getattr(torch, kind)
        return devices.is_available() and index < devices.device_count()
    if kind == "mps":
        return torch.backends.mps.is_available()
    return kind == "cpu"


def resolve_precision(precision: str, device: torch.device) -> torch.dtype:
    """Return the dtype of the arithmetic that a `precision` parameter stands for.

    ``"auto"`` is bfloat16 where the hardware computes it natively, else float32.
    """
    if precision == "auto":
        return torch.bfloat16 if _native_bfloat16(device) else torch.float32
    return getattr(torch, precision)


def _native_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        # bfloat16 came with Ampere (8.0); before it the hardware emulates.
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        capabilities: dict = getattr(torch.cpu, "get_capabilities", dict)()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return device.type == "xpu"


def decoding_threads() -> int:
    """Return the number of threads that decode images.

    It is torch's own, which follows ``OMP_NUM_THREADS``, joblib's share for each of its
    workers, and `torch.set_num_threads`.
    """
    return torch.get_num_threads()


@dataclass(frozen=True)
class Execution:
    """What a fit or a call computes with, made once for it."""

    device: torch.device
    dtype: torch.dtype  # of the arithmetic
    batch_size: int | str = "auto"
    verbose: int = 0  # above 0, progress bars are shown
    requested_device: Any = "auto"  # workers of a cluster resolve it
    others: tuple[torch.device, ...] = ()  # which predict too
    group: Any = None  # the processes that train together

    @classmethod
    def of(
        cls,
        device: Any,
        precision: str,
        batch_size: int | str,
        verbose: int = 0,
        *,
        fall_back: bool = False,
    ) -> "Execution":
        """Return what the parameters of an estimator stand for."""
        found, *others = resolve_devices(device, fall_back=fall_back)
        dtype = resolve_precision(precision, found)
        return cls(found, dtype, batch_size, verbose, device, tuple(others))

    @property
    def module_dtype(self) -> torch.dtype:
        """Dtype of parameters: half precisions keep float32, under autocast."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    @property
    def step_size(self) -> int:
        """Images of one step of training: "auto" is about memory alone."""
        return 32 if isinstance(self.batch_size, str) else self.batch_size

    def autocast(self) -> AbstractContextManager:
        """Return the context in which a module computes in the precision."""
        if self.dtype in (torch.float32, torch.float64):
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)
