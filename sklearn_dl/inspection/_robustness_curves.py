"""What a robustness display draws: curves, their captions and their legend."""

from typing import Any

import numpy as np
import pandas as pd

_CLEAN: dict[str, Any] = {"color": "0.35", "linestyle": "--", "linewidth": 1}


def draw_start(ax, curve: pd.DataFrame) -> None:
    """Draw the value of the images as they are, over a grid."""
    ax.axhline(curve.attrs["start"], **_CLEAN)
    ax.grid(axis="y", color="0.92")


def draw_curve(ax, curve: pd.DataFrame, look: dict, x: float = 1.0) -> None:
    """Draw a curve with its band; without severities a dot at x with its interval."""
    start, colour = curve.attrs["start"], look["color"]
    if curve["x"].isna().all():
        row = curve.iloc[0]
        ax.plot([x], [row["value"]], look["marker"], color=colour, markersize=5)
        ax.vlines(x, row["low"], row["high"], color=colour, alpha=0.45, linewidth=3)
        return
    band = [np.r_[start, curve[name]] for name in ("low", "high")]
    ax.fill_between(
        np.r_[0.0, curve["x"]], *band, color=colour, alpha=0.25, linewidth=0
    )
    ax.plot(
        np.r_[0.0, curve["x"]],
        np.r_[start, curve["value"]],
        **{"markersize": 3.5, **look},
    )


def draw_class(ax, curve: pd.DataFrame, look: dict) -> None:
    """Draw the recall of a class; without severities as a dash."""
    if curve["x"].isna().all():
        ax.plot([1.0], curve["value"], "_", color=look["color"], markersize=12)
    else:
        start = curve.attrs["start"]
        ax.plot(np.r_[0.0, curve["x"]], np.r_[start, curve["value"]], **look)


def caption_of(curve: pd.DataFrame) -> str:
    """Say in words what the highest severity is."""
    last = curve.iloc[-1]
    return (
        last["amount"] if np.isnan(last["x"]) else f"at {last['x']:g}: {last['amount']}"
    )


def set_severities(ax, curves: dict[str, pd.DataFrame], width: float) -> None:
    """Write as many severities under an axis as have room in a width in inches."""
    from matplotlib.ticker import FixedLocator, FormatStrFormatter

    found = {x for curve in curves.values() for x in curve["x"].dropna()} | {0.0, 1.0}
    ax.set_xlim(-0.05 * max(found), 1.08 * max(found))
    locator = FixedLocator(sorted(found), nbins=max(int(width / 0.3), 2))
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(FormatStrFormatter("%g"))


def handle(label: str, **look: Any) -> Any:
    """Return a line for a legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **look)


def shared_handles(level: float) -> list[Any]:
    """Return what the legend of any curves explains."""
    from matplotlib.patches import Patch

    band = f"{level:.0%} interval of the drop"
    return [
        Patch(color="0.5", alpha=0.3, linewidth=0, label=band),
        handle("images as they are", **_CLEAN),
    ]
