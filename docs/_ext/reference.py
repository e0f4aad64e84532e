"""Sphinx extension: the pages of the API reference, written from one table."""

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

from public_names import ROOMS, page_of


def setup(app: Any) -> dict[str, Any]:
    """Write the pages before Sphinx looks for them."""
    app.connect("config-inited", write_pages, priority=100)
    return {"parallel_read_safe": True}


def write_pages(app: Any, config: Any) -> None:
    """Write a page for each name and one that lists them; remove all others."""
    root = Path(app.srcdir)
    pages = {"reference/index": index()}
    for room, (_, names) in ROOMS.items():
        pages[f"reference/{room}"] = contents(room)
        for name in names:
            pages[page_of(room, name)] = page(room, name)
    paths = {root / f"{name}.rst": text for name, text in pages.items()}
    for old in (root / "reference").glob("*.rst"):
        if old not in paths:
            old.unlink()
    for path, text in paths.items():
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def index() -> str:
    """Return the page that lists all names, a table for each room."""
    parts = [
        _title("API reference"),
        "All public names, by the module they are imported from. What is not listed "
        "here is private and may change without notice.\n",
    ]
    for room in ROOMS:
        parts += [_title(room, "-"), _table(room)]
    parts.append(".. toctree::\n   :hidden:\n")
    short = {room: room.removeprefix("sklearn_dl.") for room in ROOMS}
    parts.append("".join(f"   {short[room]} <{room}>\n" for room in ROOMS))
    return "\n".join(parts)


def contents(room: str) -> str:
    """Return the page of a room: its table, and the way to the pages of its names."""
    entries = (f"   {name} </{page_of(room, name)}>\n" for name in ROOMS[room][1])
    toctree = ".. toctree::\n   :hidden:\n\n" + "".join(entries)
    return "\n".join([_title(room), _table(room), toctree])


def _table(room: str) -> str:
    sentence, names = ROOMS[room]
    return (
        f"{sentence}\n\n.. currentmodule:: {room}\n\n"
        ".. autosummary::\n   :nosignatures:\n\n"
        + "".join(f"   {name}\n" for name in names)
    )


def page(room: str, name: str) -> str:
    """Return the page of one name."""
    thing = getattr(import_module(room), name)
    head = f"{_title(name)}\n.. currentmodule:: {room}\n\n"
    if inspect.isclass(thing):
        lines = [f".. autoclass:: {name}", ""]
        for member in own_members(thing):
            value = inspect.getattr_static(thing, member)
            kind = "autoproperty" if isinstance(value, property) else "automethod"
            lines += [f"   .. {kind}:: {name}.{member}", ""]
        return head + "\n".join(lines)
    kind = "autofunction" if callable(thing) else "autodata"
    return f"{head}.. {kind}:: {name}\n"


def own_members(cls: type) -> list[str]:
    """Return the public methods and properties that a class has from this package."""
    found = []
    for name in dir(cls):
        owner = next((c for c in cls.__mro__ if name in vars(c)), None)
        if name.startswith("_") or owner is None:
            continue
        if not owner.__module__.startswith("sklearn_dl"):
            continue
        value = getattr(cls, name)
        if not getattr(value, "__module__", "sklearn_dl").startswith("sklearn_dl"):
            continue  # set_fit_request and its kin, which scikit-learn writes
        if (callable(value) or isinstance(value, property)) and inspect.getdoc(value):
            found.append(name)
    return found


def _title(text: str, mark: str = "=") -> str:
    return f"{text}\n{mark * len(text)}\n"
