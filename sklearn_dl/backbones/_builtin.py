"""The weights that the package itself holds, for one small network."""

from pathlib import Path
from typing import Any

BUILTIN = "builtin"
ARCHITECTURE = "mobilenet_v3_small"
_FOLDER = Path(__file__).parent / "weights"


def packaged(name: str, weights: Any) -> Any:
    """Return the packaged file for ``weights="builtin"``, other weights as they are.

    Raises
    ------
    ValueError
        If the package holds weights of another network than `name` only.
    FileNotFoundError
        If the installation is not whole.
    """
    if not isinstance(weights, str) or weights != BUILTIN:
        return weights
    if name != ARCHITECTURE:
        raise ValueError(
            f"weights={BUILTIN!r} are of {ARCHITECTURE!r}, not of {name!r}: set "
            f"backbone={ARCHITECTURE!r}, or weights='DEFAULT' for those that "
            "torchvision publishes."
        )
    path = _FOLDER / f"{ARCHITECTURE}.safetensors"
    if not path.exists():
        raise FileNotFoundError(
            f"weights={BUILTIN!r} should be in {path}, but are not: install "
            "sklearn_dl again."
        )
    return path
