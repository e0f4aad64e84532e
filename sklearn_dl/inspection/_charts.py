"""Curves as coordinates, which a template draws as SVG."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

WIDTH, HEIGHT = 320, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 10, 40
_TICKS = 5


@dataclass(frozen=True)
class Curve:
    """A line through points, or the points alone."""

    name: str
    x: Any  # n numbers each
    y: Any
    dots: bool = False  # points alone
    low: Any = None  # a band
    high: Any = None


def chart(
    title: str,
    axes: tuple[str, str],
    curves: Sequence[Curve],
    *,
    limits: tuple[Any, Any] = (None, None),  # of x and y; None: those of the curves
    diagonal: bool = False,  # a line of equal x and y
) -> dict[str, Any]:
    """Return a chart as the template draws it: ticks, polylines, bands and a table."""
    x_ticks, across = _scale([c.x for c in curves], limits[0], (_LEFT, WIDTH - _RIGHT))
    parts = [part for c in curves for part in (c.y, c.low, c.high)]
    heights = [part for part in parts if part is not None]
    y_ticks, down = _scale(heights, limits[1], (HEIGHT - _BOTTOM, _TOP))
    drawn = []
    for curve in curves:
        x, y = np.asarray(curve.x, float), np.asarray(curve.y, float)
        known = np.isfinite(x) & np.isfinite(y)
        points = [*zip(across(x[known]), down(y[known]), strict=True)]
        band = ""
        if curve.low is not None and curve.high is not None:
            low, high = np.asarray(curve.low, float), np.asarray(curve.high, float)
            edge = [*zip(across(x[known]), down(low[known]), strict=True)]
            back = [*zip(across(x[known]), down(high[known]), strict=True)]
            band = _text(edge + back[::-1])
        line = "" if curve.dots else _text(points)
        dots = points if curve.dots or len(points) <= 12 else []
        drawn.append({"name": curve.name, "line": line, "dots": dots, "band": band})
    ends = None
    if diagonal:
        low = max(x_ticks[0], y_ticks[0])
        high = min(x_ticks[-1], y_ticks[-1])
        ends = [*across(np.array([low, high])), *down(np.array([low, high]))]
    return {
        "title": title,
        "x_name": axes[0],
        "y_name": axes[1],
        "x_ticks": [*zip(across(x_ticks), map(_number, x_ticks), strict=True)],
        "y_ticks": [*zip(down(y_ticks), map(_number, y_ticks), strict=True)],
        "curves": drawn,
        "diagonal": ends,
        "size": (WIDTH, HEIGHT),
        "frame": (_LEFT, _TOP, WIDTH - _RIGHT, HEIGHT - _BOTTOM),
        "numbers": _numbers(axes[0], curves),
    }


def _scale(values: Sequence[Any], limits: Any, ends: tuple[int, int]):
    """Return ticks, and the function from values to places between two ends."""
    known = np.concatenate([np.asarray(part, float).ravel() for part in values])
    known = known[np.isfinite(known)]
    low, high = limits or (0.0, 1.0)
    if limits is None and len(known):
        low, high = float(known.min()), float(known.max())
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-3):
        low, high = low - 0.5, high + 0.5
    step = 10.0 ** np.floor(np.log10((high - low) / _TICKS))
    step *= next(s for s in (1, 2, 5, 10) if (high - low) / (s * step) <= _TICKS)
    first, last = np.floor(low / step + 1e-9), np.ceil(high / step - 1e-9)
    ticks = np.arange(first, last + 1) * step
    span = ticks[-1] - ticks[0]

    def place(x: np.ndarray) -> list[float]:
        at = ends[0] + (np.asarray(x) - ticks[0]) / span * (ends[1] - ends[0])
        return at.round(1).tolist()

    return ticks, place


def _text(points: list) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)


def _number(value: float) -> str:
    return f"{round(value, 10):g}"


def _numbers(name: str, curves: Sequence[Curve]) -> dict[str, Any]:
    """Return the curves as a table: a row for each x."""
    places = dict.fromkeys(float(x) for curve in curves for x in curve.x)
    rows = []
    for at in places:
        values = (dict(zip(c.x, c.y, strict=True)).get(at, np.nan) for c in curves)
        cells = (_known(value) for value in values)
        rows.append([_known(at), *cells])
    return {"head": [name, *(curve.name for curve in curves)], "rows": rows}


def _known(value: float) -> str:
    return f"{value:.4g}" if np.isfinite(value) else ""
