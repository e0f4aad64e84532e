"""Choice of the device and of the arithmetic."""

import warnings
from contextlib import AbstractContextManager, nullcontext

import torch

PRECISIONS = ("auto", "bfloat16", "float16", "float32", "float64")


def resolve_device(device: str | torch.device, *, fall_back: bool = False):
    """Return the torch device that a `device` parameter stands for.

    Parameters
    ----------
    device : str or torch.device
        ``"auto"`` takes CUDA, then XPU, then Apple's MPS, then the CPU.
    fall_back : bool, default=False
        Where the device named isn't there: with True the CPU is taken with a
        warning (for a model fitted on another machine), with False it is an error.

    Returns
    -------
    torch.device

    Raises
    ------
    ValueError
        If the name isn't a device of torch, or the device isn't on this machine.

    Examples
    --------
    >>> from sklearn_dl._runtime import resolve_device
    >>> resolve_device("cpu")
    device(type='cpu')
    """
    if isinstance(device, str) and device == "auto":
        return torch.device(next(d for d in _PREFERRED if _is_available(d)))
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise ValueError(
            f"device={device!r} is not a device of torch; "
            "use 'auto', 'cpu', 'cuda', 'cuda:1', 'mps' or 'xpu'."
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
    if kind == "cuda":
        return torch.cuda.is_available() and index < torch.cuda.device_count()
    if kind == "xpu":
        return torch.xpu.is_available() and index < torch.xpu.device_count()
    if kind == "mps":
        return torch.backends.mps.is_available()
    return kind == "cpu"


def resolve_precision(precision: str, device: torch.device) -> torch.dtype:
    """Return the dtype of the arithmetic that a `precision` parameter stands for.

    ``"auto"`` is bfloat16 where the hardware computes it natively, else float32.

    Examples
    --------
    >>> import torch
    >>> from sklearn_dl._runtime import resolve_precision
    >>> resolve_precision("float32", torch.device("cpu"))
    torch.float32
    """
    if precision == "auto":
        native = _native_bfloat16(device)
        return torch.bfloat16 if native else torch.float32
    return getattr(torch, precision)


def _native_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        # bfloat16 came with Ampere (8.0); before it the hardware emulates.
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        capabilities: dict = getattr(torch.cpu, "get_capabilities", dict)()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return device.type == "xpu"


def module_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of the parameters for arithmetic in `dtype`.

    Half precisions keep float32 parameters and compute under autocast.
    """
    return torch.float64 if dtype == torch.float64 else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager:
    """Return the context in which a module computes in `dtype`."""
    if dtype in (torch.float32, torch.float64):
        return nullcontext()
    return torch.autocast(device.type, dtype=dtype)
