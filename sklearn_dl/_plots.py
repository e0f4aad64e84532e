"""Matplotlib, where it is installed, and the colours and texts of pictures."""

from functools import lru_cache
from itertools import takewhile
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


def fitted(
    text: Any, width: float, size: float, *, before: str = "", after: str = ""
) -> str:
    """Return a line at most `width` inches wide, its middle left out if need be.

    Parameters
    ----------
    text : object
        Its `str` is written.
    width : float
        In inches.
    size : float
        Of the font, in points.
    before, after : str, default=""
        Words round the text, which stay as they are where they leave it room.
    """

    def line(shown: str) -> str:
        return plain(f"{before}{shown}{after}")

    text = " ".join(str(text).split())
    if width_of(line(text), size) <= width:
        return line(text)
    low, high = 0, max(len(text) - 1, 0)  # letters that are kept: as many as fit
    while low < high:
        kept = (low + high + 1) // 2
        if width_of(line(_shortened(text, kept)), size) <= width:
            low = kept
        else:
            high = kept - 1
    if low == 0 and (before or after):
        return fitted(f"{before}{text}{after}", width, size)
    return line(_shortened(text, low))


def fitted_apart(names: list[Any], width: float, size: float) -> list[str]:
    """Return names as `fitted` does; of those that would look alike, what differs."""
    shown = [fitted(name, width, size) for name in names]
    alike: dict[str, list[int]] = {}
    for i, text in enumerate(shown):
        alike.setdefault(text, []).append(i)
    for rows in alike.values():
        texts = {i: str(names[i]) for i in rows}
        if len({*texts.values()}) == 1:
            continue
        start = _alike([*texts.values()])
        end = _alike([text[:start:-1] for text in texts.values()])
        for i, text in texts.items():
            middle = text[start : len(text) - end]
            shown[i] = fitted(f"…{middle}{'…' * bool(end)}", width, size)
    return shown


def _alike(texts: list[str]) -> int:
    """Return with how many letters all begin alike."""
    together = zip(*texts, strict=False)
    return sum(1 for _ in takewhile(lambda letters: len({*letters}) == 1, together))


def _shortened(text: str, kept: int) -> str:
    return f"{text[: -(-kept // 2)].rstrip()}…{text[len(text) - kept // 2 :]}"


def plain(text: Any) -> str:
    """Return text that matplotlib writes as it is, on one line."""
    return " ".join(str(text).split()).replace("$", r"\$")


@lru_cache(maxsize=4096)
def width_of(text: str, size: float) -> float:
    """Return how wide a text is, in inches."""
    from matplotlib.textpath import TextPath

    if not text.strip():
        return 0.0
    return float(TextPath((0, 0), text, size=size).get_extents().x1) / 72
