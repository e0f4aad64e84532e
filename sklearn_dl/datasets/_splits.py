"""Folders that are parts of a data set, such as train and test, by their names."""

import os
import re

_PARTS = frozenset(
    "train training trainset val valid validation valset dev devset test testing "
    "testset pred predict prediction predictions eval evaluation holdout".split()
)
_BESIDE = frozenset("data dataset folder image images img imgs set split".split())


def refuse_splits(root: str, names: list[str]) -> None:
    """Refuse folders that are parts of a data set, not classes; say how they load."""
    found = _splits(root, names)
    if not found:
        return
    shown = ", ".join(repr(os.path.relpath(path, root)) for path in found[:8])
    first = next((p for p in found if "train" in os.path.basename(p).lower()), found[0])
    while len(inner := subfolders(first)) == 1 and _before(inner[0]) is not None:
        first = os.path.join(first, inner[0])  # seg_train/seg_train
    raise ValueError(
        f"{root!r} holds parts of a data set, {shown}, not classes: load each by "
        f"itself, such as load_image_folder({first!r}). If they are classes, name them "
        "in classes=[...]."
    )


def subfolders(folder: str) -> list[str]:
    """Return the names of the folders in a folder, sorted, without hidden ones."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not is_hidden(e.name))


def is_hidden(name: str) -> bool:
    """Tell what people don't see of their folders, and what systems add to them."""
    return name[0] == "." or name in ("__MACOSX", "@eaDir")


def _splits(folder: str, names: list[str]) -> list[str]:
    """Return the paths of the parts: in the folder, or in its only subfolder."""
    before = [_before(name) for name in names]
    found = names if len(set(before)) == 1 and before[0] is not None else []
    if not found:  # a class called "train" has images in it, not folders
        likely = (
            n for n, words in zip(names, before, strict=True) if words is not None
        )
        found = [n for n in likely if subfolders(os.path.join(folder, n))]
    if found or len(names) != 1:
        return [os.path.join(folder, name) for name in found]
    inner = os.path.join(folder, names[0])
    return _splits(inner, subfolders(inner))


def _before(name: str) -> tuple[str, ...] | None:
    """Return the words before that of a part: seg in seg_train; None if there is none.

    Case, digits and words such as "set" don't count: Training_set, TestImages, val2017.
    """
    spaced = re.sub("(?<=[a-z])(?=[A-Z])", " ", name)
    words = re.findall("[a-z]+", spaced.lower())
    while words and words[-1] in _BESIDE:
        words.pop()
    return tuple(words[:-1]) if words and words[-1] in _PARTS else None
