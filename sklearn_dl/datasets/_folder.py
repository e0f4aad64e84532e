"""Loader of folders with one subfolder per class."""

import os
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.utils import Bunch

from sklearn_dl.datasets._common import (
    Verify,
    check_verify,
    did_you_mean,
    object_column,
    readable,
    result,
)
from sklearn_dl.datasets._corrections import apply_corrections

# Of all that Pillow registers: no documents, films or scientific containers.
_FORMATS = frozenset(
    "AVIF BMP DIB GIF ICO JPEG JPEG2000 MPO PCX PNG PPM QOI SGI TGA TIFF WEBP".split()
)
_SPLITS = frozenset("train training val valid validation test testing".split())


def load_image_folder(
    path: str | os.PathLike,
    *,
    classes: Iterable[str] | None = None,
    extensions: Iterable[str] | None = None,
    verify: Verify = False,
    image_shape: Any = None,
    corrections: Any = None,
    return_X_y: bool = False,
) -> Any:
    """Load the paths of images from a folder with one subfolder per class.

    Images are found at any depth below the folder of their class. They are not
    opened here unless `verify` asks for it: decoding is left to the estimators.

    Parameters
    ----------
    path : str or Path
        The folder.
    classes : list of str, default=None
        The subfolders to take; all by default.
    extensions : list of str, default=None
        Suffixes of the files to take, in upper or lower case. By default those of the
        image formats that the installed Pillow reads.
    verify : {False, "raise", "skip"}, default=False
        Whether to decode every file once. "raise" (or True) raises an error that
        names all files that fail, "skip" leaves them out and lists them in `skipped`.
    image_shape : Channels or None, default=None
        As the estimators have it, for `verify`: ``Channels(13)`` decodes files of 13
        bands.
    corrections : path or DataFrame, default=None
        Labels that were corrected and images that were dropped in a report, see
        `apply_corrections`; ``corrections`` of the bunch says what was done.
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of the bunch.

    Returns
    -------
    bunch : :class:`~sklearn.utils.Bunch`
        ``data``, an (n, 1) object array of paths; ``target``, the (n,) names of their
        classes; ``target_names``, the sorted classes; ``filenames``, the (n,) paths;
        ``skipped``, a DataFrame (path, reason) of files that were left out. Hidden
        files and folders are passed over in silence.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If there is no such folder.
    ValueError
        If there are no subfolders, or one without images.
    ImageDecodeError
        If ``verify="raise"`` and files cannot be decoded.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from sklearn_dl.datasets import load_image_folder
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ["ants/1.png", "bees/1.png", "bees/2.JPG", "bees/notes.txt"]:
    ...         file = Path(folder, name)
    ...         file.parent.mkdir(exist_ok=True)
    ...         Image.new("RGB", (8, 8)).save(file, format="PNG")
    ...     bunch = load_image_folder(folder)
    >>> bunch.target
    array(['ants', 'bees', 'bees'], dtype='<U4')
    >>> bunch.data.shape, len(bunch.skipped)
    ((3, 1), 1)
    """
    check_verify(verify)
    root = os.path.expanduser(os.fspath(path))
    wanted = _suffixes(extensions)
    names, skipped = _class_folders(root, classes, wanted)
    below = [images_below(os.path.join(root, n), wanted, skipped) for n in names]
    files = [file for found in below for file in found]
    target = np.array([n for n, found in zip(names, below, strict=True) for _ in found])
    empty = [name for name, found in zip(names, below, strict=True) if not found]
    if empty:
        raise ValueError(
            f"No image in the class folder {empty[0]!r} of {root!r} "
            f"({len(empty)} of {len(names)} are empty). Remove it, or name the classes "
            "to take with classes=[...]."
        )
    _warn_about_splits(root, names)
    keep, bad = readable(files, verify, image_shape)
    skipped += list(bad[["path", "reason"]].itertuples(index=False, name=None))
    kept = np.array(files, dtype=object)[keep]
    bunch = Bunch(
        data=object_column(kept),
        target=target[keep],
        target_names=np.array(names),
        filenames=kept.astype(str),
        skipped=pd.DataFrame(skipped, columns=["path", "reason"], dtype=object),
    )
    if corrections is not None:
        bunch = apply_corrections(bunch, corrections)
    return result(bunch, return_X_y)


def _suffixes(extensions: Iterable[str] | None = None) -> frozenset[str]:
    """Return suffixes as they are compared; None is all that Pillow can open here."""
    if extensions is None:
        known = Image.registered_extensions().items()  # also loads all plugins
        opened = _FORMATS & set(Image.OPEN)
        return frozenset(suffix for suffix, name in known if name in opened)
    if isinstance(extensions, str):
        extensions = [extensions]
    return frozenset("." + suffix.lower().lstrip(".") for suffix in extensions)


def _is_image(name: str, wanted: frozenset[str]) -> bool:
    return os.path.splitext(name)[1].lower() in wanted


def _class_folders(
    root: str, classes: Iterable[str] | None, wanted: frozenset[str]
) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the sorted class folders, and the files that lie beside them."""
    if not os.path.exists(root):
        raise FileNotFoundError(f"No such folder: {root!r}.")
    if not os.path.isdir(root):
        raise NotADirectoryError(f"{root!r} is a file, not a folder of class folders.")
    entries = sorted(name for name in os.listdir(root) if name[0] != ".")
    folders = [name for name in entries if os.path.isdir(os.path.join(root, name))]
    loose = [name for name in entries if name not in set(folders)]
    if not folders:
        images = [name for name in loose if _is_image(name, wanted)]
        hint = "One subfolder per class is expected."
        if images:
            hint = (
                f"{len(images)} images lie in it directly: put each in a subfolder "
                "named after its class, or give their labels to load_image_frame."
            )
        raise ValueError(f"No class folders in {root!r}. {hint}")
    if classes is not None:
        chosen = sorted({classes} if isinstance(classes, str) else set(classes))
        for name in (name for name in chosen if name not in folders):
            hint = did_you_mean(name, folders)
            raise ValueError(f"No class folder {name!r} in {root!r}. {hint}")
        folders = chosen
    skipped = [(os.path.join(root, name), "not in a class folder") for name in loose]
    return folders, skipped


def images_below(
    folder: str,
    wanted: frozenset[str] | None = None,
    skipped: list[tuple[str, str]] | None = None,
) -> list[str]:
    """Return the paths of all images below a folder, in order; note what is skipped."""
    wanted = _suffixes() if wanted is None else wanted
    walked: list[tuple[str, str]] = []
    seen: set[str] = set()  # through links, but no folder twice
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if name[0] != ".")
        walked += [(parent, name) for name in names if name[0] != "."]
    found = []
    for parent, name in sorted(walked):
        path = os.path.join(parent, name)
        if _is_image(name, wanted):
            found.append(path)
        elif skipped is not None:
            skipped.append((path, "not an image by its suffix"))
    return found


def _warn_about_splits(root: str, names: list[str]) -> None:
    if len(names) > 1 and _SPLITS.issuperset(name.lower() for name in names):
        warnings.warn(
            f"The classes of {root!r} are {names}, which look like parts of a data "
            f"set: load each by itself, such as {os.path.join(root, names[0])!r}.",
            UserWarning,
            stacklevel=3,
        )
