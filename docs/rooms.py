"""Draws the rooms of the package and their imports, from its source.

::

    python docs/rooms.py

It reads every ``import`` between the rooms with `ast` and writes `pictures/rooms.svg`.
A room stands above all it imports. An arrow that other arrows already imply (A to C,
where A goes to B and B to C) is left out, so that the picture can be read.
"""

import argparse
import sys
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "pictures" / "rooms.svg"
sys.path.append(str(ROOT / "tests"))

import shape  # noqa: E402

# What the reader knows each room by; a room without a line here is drawn by its name.
PURPOSES = {
    "__main__": "the command line",
    "_commands": "train, predict, report, ...",
    "persistence": "save, load, export",
    "inspection": "where a model fails",
    "model_selection": "regimes, rates, experiments",
    "ensemble": "gain of a vote",
    "_classifier": "ImageClassifier",
    "_regressor": "ImageRegressor",
    "_features": "ImageFeatureExtractor",
    "_neural": "what the two that train share",
    "_base": "any X in, one backbone",
    "_saving": "estimators as plain data",
    "_parameters": "names and constraints",
    "_targets": "y, encoded once",
    "training": "the skorch net",
    "_extraction": "images to features, once",
    "augmentation": "random changes, views",
    "backbones": "networks and weights",
    "datasets": "loaders",
    "_images": "any X, decoded",
    "_runtime": "device, precision, seeds",
    "_linear": "scaler and SVM",
    "_plots": "matplotlib",
    "_doc_link": "links to the reference",
    "_files": "replacing files",
    "_lazy": "names on first use",
    "_plain": "numpy's parameters",
    "_labels": "labels that are missing",
}
WIDTH, HEIGHT, GAP, ROW, MARGIN = 172, 46, 16, 88, 12
MOST = 5  # boxes side by side


def edges(root: Path) -> dict[str, set[str]]:
    """Return the rooms that each room imports."""
    rooms = {shape.room_of(module) for module in shape.modules(root)} - {None}
    found: dict[str, set[str]] = {room: set() for room in rooms if room}
    for _, module, target, _ in shape.imports(root):
        here, there = shape.room_of(module), shape.room_of(target)
        if here and there and here != there:
            found[here].add(there)
    return found


def heights(below: dict[str, set[str]]) -> dict[str, int]:
    """Return how many rooms lie one below the other under each room."""
    found: dict[str, int] = {}

    def height(room: str) -> int:
        if room not in found:
            found[room] = max((height(other) + 1 for other in below[room]), default=0)
        return found[room]

    for room in below:
        height(room)
    return found


def reduced(below: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Return the imports that no chain of other imports implies."""
    reach: dict[str, set[str]] = {}
    for room in sorted(below, key=heights(below).get):
        reach[room] = below[room].union(*(reach[other] for other in below[room]))
    return sorted(
        (room, other)
        for room, others in below.items()
        for other in others
        if not any(other in reach[third] for third in others)
    )


def places(below: dict[str, set[str]]) -> tuple[dict[str, tuple[int, int]], int, int]:
    """Return the upper left corner of each room's box, and the picture's size."""
    level = heights(below)
    rows: list[list[str]] = []
    centre: dict[str, float] = {}

    def middle(room: str) -> tuple[float, str]:
        users = [centre[user] for user in centre if room in below[user]]
        return (sum(users) / len(users) if users else 0.0), room

    for n in range(max(level.values()), -1, -1):
        # Under the rooms that import them, from left to right; a long row in two, one
        # box in the gap of two others.
        row = sorted((room for room in below if level[room] == n), key=middle)
        for part in (row[::2], row[1::2]) if len(row) > MOST else (row,):
            rows.append(part)
            left = -(len(part) * WIDTH + (len(part) - 1) * GAP) / 2
            for i, room in enumerate(part):
                centre[room] = left + i * (WIDTH + GAP) + WIDTH / 2
    most = max(map(len, rows))
    width = most * WIDTH + (most - 1) * GAP
    corners = {
        room: (
            round(MARGIN + width / 2 + centre[room] - WIDTH / 2),
            MARGIN + n * ROW,
        )
        for n, row in enumerate(rows)
        for room in row
    }
    height = (len(rows) - 1) * ROW + HEIGHT
    return corners, width + 2 * MARGIN, height + 2 * MARGIN


def draw(root: Path = ROOT / "sklearn_dl") -> str:
    """Return the picture as the text of an SVG file."""
    below = edges(root)
    corners, width, height = places(below)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" font-family="sans-serif">',
        "<title>Rooms of sklearn_dl; an arrow goes to what is imported</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="#5b6b7b"/>'
        "</marker></defs>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for room, other in reduced(below):
        (x, y), (u, v) = corners[room], corners[other]
        start, end = (x + WIDTH // 2, y + HEIGHT), (u + WIDTH // 2, v)
        bend = min(60, (end[1] - start[1]) // 2)
        parts.append(
            f'<path class="{room} to {other}" d="M{start[0]} {start[1]}C{start[0]} '
            f'{start[1] + bend} {end[0]} {end[1] - bend} {end[0]} {end[1]}" '
            'fill="none" stroke="#5b6b7b" stroke-width="1.4" marker-end="url(#tip)"/>'
        )
    for room, (x, y) in sorted(corners.items()):
        public = not room.startswith("_")
        fill, line = ("#dcecf9", "#0072b2") if public else ("#f3f4f6", "#8a96a3")
        middle = x + WIDTH // 2
        parts.append(
            f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6" '
            f'fill="{fill}" stroke="{line}"/>'
            f'<text x="{middle}" y="{y + 19}" text-anchor="middle" font-size="14" '
            f'font-weight="bold" fill="#1b2733">{escape(room)}</text>'
            f'<text x="{middle}" y="{y + 36}" text-anchor="middle" font-size="11.5" '
            f'fill="#3a4754">{escape(PURPOSES.get(room, ""))}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    """Write the picture."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
