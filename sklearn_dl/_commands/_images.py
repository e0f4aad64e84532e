"""Arguments that stand for images -> paths."""

import glob
import os
import sys
from collections.abc import Iterator, Sequence

from sklearn_dl._commands._terminal import CommandError

STDIN = "-"


class Paths:
    """The paths of images, in the order of the arguments.

    Parameters
    ----------
    arguments : list of str
        Files, folders, patterns of `glob`, or ``-`` for paths on stdin, one a line.

    Attributes
    ----------
    known : list of str
        All but those of stdin, which are read when their turn comes.
    total : int or None
        How many there are, where that is known.

    Raises
    ------
    CommandError
        If a folder has no images, or a pattern stands for nothing.
    """

    def __init__(self, arguments: Sequence[str]):
        if arguments.count(STDIN) > 1:
            raise CommandError("- (paths on stdin) can be given once.")
        self._parts = [
            [] if argument == STDIN else _expanded(argument) for argument in arguments
        ]
        self._stdin = arguments.index(STDIN) if STDIN in arguments else None
        self.known = [path for part in self._parts for path in part]
        self.total = len(self.known) if self._stdin is None else None

    def __iter__(self) -> Iterator[str]:
        for position, part in enumerate(self._parts):
            yield from _lines_of_stdin() if position == self._stdin else part

    def chunks(self, size: int) -> Iterator[list[str]]:
        """Yield them in lists of `size`."""
        chunk: list[str] = []
        for path in self:
            chunk.append(path)
            if len(chunk) == size:
                yield chunk
                chunk = []
        if chunk:
            yield chunk


def _expanded(argument: str) -> list[str]:
    path = os.path.expanduser(argument)
    if os.path.isdir(path):
        found = _below(path)
        if not found:
            raise CommandError(f"There is no image in the folder {argument!r}.")
        return found
    if os.path.exists(path) or not glob.has_magic(path):
        return [path]  # if it isn't there, its row says so
    matches = sorted(glob.glob(path, recursive=True))
    files = [f for m in matches for f in (_below(m) if os.path.isdir(m) else [m])]
    if not files:
        raise CommandError(f"No image matches {argument!r}.")
    return list(dict.fromkeys(files))  # "**" matches folders and what is in them


def _below(folder: str) -> list[str]:
    from sklearn_dl.datasets._folder import _images_below, image_suffixes

    return _images_below(folder, image_suffixes(), [])


def _lines_of_stdin() -> Iterator[str]:
    for line in sys.stdin.buffer:
        if path := os.fsdecode(line).rstrip("\r\n"):
            yield path
