"""Which releases of packages are at work."""

import sys
from collections.abc import Iterable


def package_versions(kinds: Iterable[type]) -> dict[str, str]:
    """Return the versions of the packages that classes come from, by name.

    Parameters
    ----------
    kinds : iterable of type

    Returns
    -------
    dict of str to str
        The version is empty where a package doesn't tell.

    Examples
    --------
    >>> import torch
    >>> from sklearn_dl._runtime import package_versions
    >>> list(package_versions([torch.nn.Linear, dict]))
    ['builtins', 'torch']
    """
    names = sorted({kind.__module__.partition(".")[0] for kind in kinds})
    return {n: str(getattr(sys.modules.get(n), "__version__", "")) for n in names}
