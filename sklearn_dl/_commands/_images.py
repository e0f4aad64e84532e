"""Arguments that stand for images -> paths."""

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from itertools import chain, islice

from sklearn_dl._commands._terminal import CommandError

STDIN = "-"


class Paths:
    """The paths of images, in the order of the arguments.

    These are files, folders, patterns of `glob`, or ``-`` for paths on stdin, one a
    line. `known` has all but those of stdin, which are read when their turn comes, and
    `total` says how many there are, where that is known.
    """

    def __init__(self, arguments: Sequence[str]):
        if arguments.count(STDIN) > 1:
            raise CommandError("- (paths on stdin) can be given once.")
        self._parts = [None if a == STDIN else _expanded(a) for a in arguments]
        self.known = [path for part in self._parts for path in part or ()]
        self.total = None if None in self._parts else len(self.known)

    def chunks(self, size: int) -> Iterator[list[str]]:
        """Yield them in lists of `size`."""
        parts = (_lines_of_stdin() if part is None else part for part in self._parts)
        paths = chain.from_iterable(parts)
        while chunk := list(islice(paths, size)):
            yield chunk


def _expanded(argument: str) -> list[str]:
    """Return the images that an argument stands for."""
    from sklearn_dl.datasets import images_below

    path = os.path.expanduser(argument)
    there = path  # what exists is no pattern, whatever brackets its name has
    while there and not os.path.exists(there):
        there = os.path.dirname(there)
    rest = path[len(there) :]
    matches = sorted(glob.glob(glob.escape(there) + rest, recursive=True))
    files = [f for m in matches for f in (images_below(m) if os.path.isdir(m) else [m])]
    if files:
        return list(dict.fromkeys(files))  # "**" matches folders and what is in them
    if not rest:
        raise CommandError(f"There is no image in the folder {argument!r}.")
    if "*" in rest or "?" in rest:
        raise CommandError(f"No image matches {argument!r}.")
    return [path]  # the row of a file that isn't there says so


def _lines_of_stdin() -> Iterator[str]:
    for line in sys.stdin.buffer:
        if path := os.fsdecode(line).rstrip("\r\n"):
            yield path
