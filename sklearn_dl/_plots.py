"""Matplotlib, where it is installed."""

from typing import Any


def import_pyplot(what: str) -> Any:
    """Return ``matplotlib.pyplot``, or say what to install.

    Parameters
    ----------
    what : str
        What needs it, for the message.

    Raises
    ------
    ImportError
        If matplotlib is missing.
    """
    try:
        import matplotlib.pyplot as pyplot
    except ImportError as error:
        raise ImportError(
            f"{what} needs matplotlib: pip install 'sklearn_dl[plots]'."
        ) from error
    return pyplot
