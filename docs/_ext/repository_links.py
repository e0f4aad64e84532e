"""Sphinx extension: links that serve the repository's web page and the built pages.

Pages link to files of the repository by relative paths. A link to a Markdown file
outside docs/ goes to the page that includes it; where none does, it is a download.
"""

import os
import re
from pathlib import Path
from typing import Any

LINK = re.compile(r"\]\((?P<path>[^)\s#:]+\.md)(?P<anchor>#[^)\s]*)?\)")
INCLUDE = re.compile(r"^```\{include\} (\S+)", re.MULTILINE)


def setup(app: Any) -> dict[str, Any]:
    """Look at the text of each page, and of what it includes."""
    app.connect("source-read", _page)
    app.connect("include-read", _included)
    return {"parallel_read_safe": True}


def _page(app: Any, name: str, content: list[str]) -> None:
    root = Path(app.srcdir)
    content[0] = rewritten(content[0], (root / name).parent, root / name, root)


def _included(app: Any, path: Path, name: str, content: list[str]) -> None:
    root = Path(app.srcdir)
    content[0] = rewritten(
        content[0], (root / path).resolve().parent, root / name, root
    )


def rewritten(text: str, folder: Path, page: Path, root: Path) -> str:
    """Return a text that lies in a folder, with links as they are from a page."""
    pages = {
        (stub.parent / included).resolve(): stub
        for stub in root.glob("*.md")
        for included in INCLUDE.findall(stub.read_text(encoding="utf-8"))
    }

    def link(found: re.Match) -> str:
        target = (folder / found["path"]).resolve()
        scheme = ""
        if not target.is_relative_to(root):
            scheme = "" if target in pages else "path:"
            target = pages.get(target, target)
        path = Path(os.path.relpath(target, page.parent)).as_posix()
        anchor = found["anchor"] or ""
        return f"]({scheme}{path}{'' if scheme else anchor})"

    return LINK.sub(link, text)
