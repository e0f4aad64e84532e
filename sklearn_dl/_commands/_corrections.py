"""Corrections of labels, as the commands take them."""

import warnings
from typing import Any

from sklearn_dl._commands._terminal import say, write_error

_ABSENT = "not in the data"


class Corrections:
    """A file of corrections, for images that are loaded in several parts."""

    def __init__(self, path: str):
        self.path = path
        self._tables: list[Any] = []

    def __call__(self, bunch: Any) -> Any:
        """Return what a loader gave, corrected."""
        from sklearn_dl.datasets import apply_corrections

        with warnings.catch_warnings():  # of images in another part
            warnings.simplefilter("ignore", UserWarning)
            found, table = apply_corrections(bunch, self.path, return_table=True)
        self._tables.append(table)
        return found

    def describe(self) -> None:
        """Say what was done, and name what no longer fits."""
        outcomes = self._tables[0]["outcome"].copy()
        for table in self._tables[1:]:
            outcomes = outcomes.where(outcomes != _ABSENT, table["outcome"])
        counts = outcomes.str.split(n=1).str[0].value_counts()
        done = [f"{counts.get(w, 0)} {w}" for w in ("relabelled", "dropped", "kept")]
        say(f"{self.path}: {', '.join(done)}")
        odd = (outcomes == _ABSENT) | outcomes.str.startswith("not done")
        odd |= outcomes.str.startswith("relabelled to")  # a class that is new
        paths = self._tables[0]["path"]
        for path, outcome in zip(paths[odd], outcomes[odd], strict=True):
            write_error(f"{self.path}: {path!r}: {outcome}")
