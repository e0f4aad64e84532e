"""Matplotlib, where it is installed, and the colours of pictures."""

from typing import Any

# Okabe and Ito's palette, "Color universal design" (2008), which the colour-blind can
# tell apart.
BLACK, ORANGE, SKY_BLUE, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILLION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"


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
