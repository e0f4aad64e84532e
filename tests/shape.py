"""The shape of a package, read from its source: imports, circles, arguments, names.

Each check takes the folder of a package and returns sentences, one for each offence. A
room is a folder in it (with its ``__init__.py`` as its face) or a file beside those.
"""

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef


class Import(NamedTuple):
    """What the file of `module` imports: `target` is a module of the same package."""

    where: str
    module: str
    target: str
    names: tuple[str, ...]


def modules(root: Path) -> dict[str, Path]:
    """Return the files of a package by the names of their modules."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def room_of(module: str) -> str | None:
    """Return the room of a module, None for the package itself."""
    return module.split(".")[1] if "." in module else None


def imports(root: Path) -> Iterator[Import]:
    """Yield all imports between the modules of a package, at any depth of a file.

    A text in a face that is a module's name counts too: it is loaded on first use.
    """
    known = modules(root)
    for module, path in known.items():
        for node in ast.walk(ast.parse(path.read_text())):
            found: list[tuple[str, tuple[str, ...]]] = []
            if isinstance(node, ast.Import):
                found = [(alias.name, ()) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [alias.name for alias in node.names]
                files = [n for n in names if f"{node.module}.{n}" in known]
                found = [(f"{node.module}.{name}", ()) for name in files]
                if rest := tuple(name for name in names if name not in files):
                    found.append((node.module or "", rest))
            elif isinstance(node, ast.Constant) and path.name == "__init__.py":
                found = [(node.value, ())] if node.value in known else []
            for target, taken in found:
                if target.split(".")[0] == root.name:
                    where = f"{path.relative_to(root.parent)}:{node.lineno}"
                    yield Import(where, module, target, taken)


def upward(root: Path, layers: Sequence[Sequence[str]]) -> list[str]:
    """Find imports from a room that is not in a row below the importing one's."""
    rank = {room: rank for rank, row in enumerate(layers) for room in row}
    found = []
    for where, module, target, _ in imports(root):
        here, there = room_of(module), room_of(target)
        if here is None or here == there:
            continue
        if there is None:
            found.append(f"{where} imports the package's public names")
        elif rank[there] <= rank[here]:
            found.append(f"{where} imports {there}, which is no room below {here}")
    return found


def past_the_face(root: Path) -> list[str]:
    """Find imports of another room's files, of the own face, and of private names."""
    found = []
    for where, module, target, names in imports(root):
        inside = room_of(module) == room_of(target)
        face = ".".join(target.split(".")[:2])
        hidden = any(part.startswith("_") for part in target.split(".")[2:])
        if not inside and hidden:
            found.append(f"{where} imports {target}, not its face {face}")
        if inside and module != target == face:
            found.append(f"{where} imports the face of its own room, {face}")
        private = [n for n in names if n.startswith("_") and not n.endswith("__")]
        if private:
            found.append(f"{where} imports {', '.join(private)} of {target}")
    return found


def circles(root: Path) -> list[str]:
    """Find modules that import one another, however long the way round."""
    edges: dict[str, set[str]] = {module: set() for module in modules(root)}
    for _, module, target, _ in imports(root):
        edges[module].add(target)

    def reached(module: str) -> set[str]:
        seen: set[str] = set()
        left = [module]
        while left:
            new = edges.get(left.pop(), set()) - seen
            seen |= new
            left += new
        return seen

    below = {module: reached(module) for module in edges}
    rings = {
        tuple(
            sorted(other for other in below[module] if module in below.get(other, ()))
        )
        for module in edges
        if module in below[module]
    }
    return [f"a circle: {', '.join(ring)}" for ring in sorted(rings)]


def public_names(root: Path, room: str | None = None) -> list[str]:
    """Return ``__all__`` of a room's face, or of the package."""
    face = modules(root)[root.name if room is None else f"{root.name}.{room}"]
    for node in ast.parse(face.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return []


def long_signatures(root: Path, most: int) -> list[str]:
    """Find functions of more than `most` arguments, constructors for users aside.

    Those are ``__init__``, ``from_...``, ``make_...`` and loaders, ``load_...``, of
    public names.
    """
    rooms = {room_of(module) for module in modules(root)}
    public = {
        name
        for room in rooms
        if room is None or not room.startswith("_")
        for name in public_names(root, room)
    }
    found = []
    for path in modules(root).values():
        tree = ast.parse(path.read_text())
        methods = {
            function: cls
            for cls in ast.walk(tree)
            if isinstance(cls, ast.ClassDef)
            for function in cls.body
            if isinstance(function, FUNCTION)
        }
        for function in (n for n in ast.walk(tree) if isinstance(n, FUNCTION)):
            cls = methods.get(function)
            owner_is_public = (function if cls is None else cls).name in public
            constructs = function.name.startswith(
                ("__init__", "from_", "make_", "load_")
            )
            if owner_is_public and constructs:
                continue
            given = function.args
            names = [a.arg for a in given.posonlyargs + given.args + given.kwonlyargs]
            if cls is not None and names[:1] in (["self"], ["cls"]):
                names = names[1:]
            if len(names) > most:
                owner = "" if cls is None else f"{cls.name}."
                where = f"{path.relative_to(root.parent)}:{function.lineno}"
                found.append(f"{where} {owner}{function.name} takes {len(names)}")
    return found
