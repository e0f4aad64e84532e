"""The curves of a robustness report, one by one."""

from typing import Any

import numpy as np
import pandas as pd

from sklearn_dl._plots import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SKY_BLUE,
    VERMILLION,
    fitted,
    width_of,
)
from sklearn_dl.inspection._panels import few_ticks

BY_SEVERITY = (BLUE, ORANGE, VERMILLION)  # within chance, beyond it, severe
COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY_BLUE)
_DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 2)))
_MARKERS = "osD^vP"
# Of classes, which leave the colours of the whole to it.
_CLASS_COLOURS = (GREEN, PURPLE, SKY_BLUE, BLACK)
_LONGEST_NAME = 1.6  # inches
_CLEAN: dict[str, Any] = {"color": "0.35", "linestyle": "--", "linewidth": 1}


def draw_start(ax, start: float) -> None:
    """Draw the value of the images as they are."""
    ax.axhline(start, **_CLEAN)
    ax.grid(axis="y", color="0.92")
    ax.set_axisbelow(True)


def draw_curve(ax, curve, colour, start, *, thick=0, style=0, place=0.0) -> None:
    """Draw a curve with its band; a corruption without severity as a dot at 1."""
    if curve["x"].isna().all():
        row = curve.iloc[0]
        low, high = sorted((row["low"], row["high"]))
        # The interval of a bootstrap need not hold the value itself.
        reach = [
            [max(row["value"] - low, 0.0)],
            [max(high - row["value"], 0.0)],
        ]
        ax.errorbar(
            [1.0 + place],
            [row["value"]],
            yerr=reach,
            fmt=_MARKERS[style],
            color=colour,
            markersize=5,
            elinewidth=3,
            ecolor=(*_rgb(colour), 0.45),
        )
        return
    x, value, low, high = _from_zero(curve, start)
    ax.fill_between(x, low, high, color=colour, alpha=0.25, linewidth=0)
    width = 1.5 + 0.4 * thick
    ax.plot(
        x,
        value,
        color=colour,
        linestyle=_DASHES[style],
        linewidth=width,
        marker=_MARKERS[style],
        markersize=3.5,
    )


def draw_class(ax, curve, style) -> None:
    colour, dashes = style
    if curve["x"].isna().all():
        ax.plot([1.0], curve["value"], "_", color=colour, markersize=12)
        return
    x, value, _, _ = _from_zero(curve, curve.attrs["start"])
    ax.plot(x, value, color=colour, linestyle=dashes, linewidth=1.2)


def _from_zero(curve: pd.DataFrame, start: float) -> list[np.ndarray]:
    x = np.r_[0.0, curve["x"]]
    return [x, *(np.r_[start, curve[name]] for name in ("value", "low", "high"))]


def _rgb(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))


def say_amount(ax, curve: pd.DataFrame, width: float, fontsize: float) -> None:
    """Say in words what the highest severity is, under the panel."""
    last = curve.iloc[-1]
    text = last["amount"]
    if not np.isnan(last["x"]):
        text = f"at {last['x']:g}: {text}"
    if width_of(text, fontsize - 1) > width:
        text = fitted(last["amount"], width, fontsize - 1)
    ax.set_xlabel(text, fontsize=fontsize - 1, color="0.3", labelpad=2)


def set_ticks(ax, curves: dict[str, pd.DataFrame], room: tuple, fontsize) -> None:
    """Write those severities that have room under the axis, and few scores."""
    width, height = room
    found = {x for curve in curves.values() for x in curve["x"].dropna()} or {1.0}
    top = max(found | {1.0})
    ticks: list[float] = []
    least = 0.022 * fontsize * top * 1.1 / width
    for x in [0.0, *sorted(found, reverse=True)]:
        if all(abs(x - other) > 1.4 * least for other in ticks):
            ticks.append(x)
    ax.set_xlim(-0.05 * top, 1.08 * top)
    ax.set_xticks(sorted(ticks), [f"{x:g}" for x in sorted(ticks)])
    ax.locator_params(axis="y", nbins=few_ticks(height, fontsize), min_n_ticks=1)


def starred(name: str, severity: int) -> str:
    """Return the name of a corruption with the stars of its severity."""
    return f"{name} {'*' * severity}" if severity else name


def class_styles(falls: pd.Series) -> dict[Any, tuple]:
    """Return colour and dashes of the classes that fall most, in their order."""
    most = falls.sort_values(ascending=False, kind="stable").index
    drawn = [c for c in falls.index if c in set(most[: len(_CLASS_COLOURS)])]
    styles = zip(_CLASS_COLOURS, _DASHES[1:], strict=False)
    return dict(zip(drawn, styles, strict=False))


def legend_of_panels(
    severities: set[int], beyond: str, classes: dict[Any, tuple], level: float
) -> list:
    """Return handles that explain the panels, the severest first."""
    from matplotlib.lines import Line2D

    names = ("within chance", "beyond chance *", f"{beyond} **")
    look: dict[str, Any] = {"marker": "o", "markersize": 3}
    handles: list[Any] = [
        Line2D([], [], color=BY_SEVERITY[k], label=names[k], **look)
        for k in sorted(severities, reverse=True)
    ]
    handles += _shared(level)
    for label, (colour, dashes) in classes.items():
        name = f"recall of {fitted(label, _LONGEST_NAME, 9)}"
        look = {"color": colour, "linestyle": dashes, "linewidth": 1.2, "label": name}
        handles.append(Line2D([], [], **look))
    return handles


def legend_of_corruptions(
    curves: dict[str, pd.DataFrame], severities: dict[str, int], level: float
) -> list:
    """Return handles that name the curves of several corruptions in one panel."""
    from matplotlib.lines import Line2D

    handles: list[Any] = []
    for n, (name, curve) in enumerate(curves.items()):
        last = curve.iloc[-1]
        at = "" if np.isnan(last["x"]) else f" at {last['x']:g}"
        label = f"{starred(name, severities[name])} ({last['amount']}{at})"
        style = {"linestyle": _DASHES[n], "marker": _MARKERS[n], "markersize": 4}
        handles.append(Line2D([], [], color=COLOURS[n], label=label, **style))
    return handles + _shared(level)


def _shared(level: float) -> list:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    band = f"{level:.0%} interval of the drop"
    return [
        Patch(color="0.5", alpha=0.3, linewidth=0, label=band),
        Line2D([], [], label="images as they are", **_CLEAN),
    ]
