"""Loader of folders with one subfolder per class."""

import os
import re
import warnings
from collections import Counter
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

_NO_IMAGE = "not an image by its suffix"
_PARTS = frozenset(
    "train training trainset val valid validation valset dev devset test testing "
    "testset pred predict prediction predictions eval evaluation holdout".split()
)
_BESIDE = frozenset("data dataset folder image images img imgs set split".split())
# What Pillow opens that is no image, or shares its suffix with what isn't: documents,
# films, scientific containers, point clouds (.pcd), circuit boards (.gbr).
_NO_IMAGES = frozenset(
    "BUFR EPS FITS FLI GBR GRIB HDF5 IM IPTC MCIDAS MPEG PCD WMF".split()
)
_HEIF = frozenset(".heic .heics .heif .heifs .hif".split())
_RAW = frozenset(
    ".3fr .arw .cr2 .cr3 .dng .erf .iiq .kdc .mrw .nef .nrw .orf .pef .raf .raw .rw2 "
    ".sr2 .srw .x3f".split()
)
_AVIF, _JXL = frozenset([".avif", ".avifs"]), frozenset([".jxl"])
_PHOTOGRAPHS = _HEIF | _RAW | _AVIF | _JXL
_ADVICE = {
    _HEIF: "pip install pillow-heif, then pillow_heif.register_heif_opener()",
    _JXL: "pip install pillow-jxl-plugin, then import pillow_jxl",
    _AVIF: "newer versions of Pillow open it",
    _RAW: "develop it to TIFF or JPEG (rawpy does)",
    frozenset([".dcm"]): "read it with pydicom, scale it to [0, 1] and save it as .npy",
    frozenset([".npy"]): "extensions=['.npy'] takes arrays",
    frozenset([""]): "extensions=[''] takes files without a suffix",
}


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
        The subfolders to take; all by default. Folders named like parts of a data set,
        such as "train", are classes only where they are named here.
    extensions : list of str, default=None
        Suffixes of the files to take, in upper or lower case; "" is none. By default
        those of the image formats that Pillow reads, with the openers that other
        packages registered in it. ".npy" takes arrays, (H, W) or (H, W, C), that
        ``numpy.save`` wrote.
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
        If there are no subfolders, one without images, or parts of a data set.
    ImageDecodeError
        If ``verify="raise"`` and files cannot be decoded.

    Warns
    -----
    UserWarning
        If there are photographs that Pillow can't open, such as HEIC, among the files
        that are left out.

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
    wanted = image_suffixes(extensions)
    names, skipped = _class_folders(root, classes, wanted)
    if classes is None:
        refuse_splits(root, names)
    walked = [_walked(os.path.join(root, name), wanted) for name in names]
    files = [file for found, _ in walked for file in found]
    target = np.repeat(np.array(names), [len(found) for found, _ in walked])
    empty = [k for k, (found, _) in enumerate(walked) if not found]
    if empty:
        names_of_empty, others = [names[k] for k in empty], walked[empty[0]][1]
        raise ValueError(_no_image(root, names_of_empty, len(names), others))
    left_out = [path for _, others in walked for path in others]
    if extensions is None:
        warn_of_photographs(root, left_out)
    skipped += [(path, _NO_IMAGE) for path in left_out]
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


def _class_folders(
    root: str, classes: Iterable[str] | None, wanted: frozenset[str]
) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the sorted class folders, and the files that lie beside them."""
    if not os.path.exists(root):
        raise FileNotFoundError(f"No such folder: {root!r}.")
    if not os.path.isdir(root):
        raise NotADirectoryError(f"{root!r} is a file, not a folder of class folders.")
    entries = sorted(name for name in os.listdir(root) if not is_hidden(name))
    folders = [name for name in entries if os.path.isdir(os.path.join(root, name))]
    loose = [name for name in entries if name not in set(folders)]
    if not folders:
        images = [name for name in loose if suffix_of(name) in wanted]
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


def _no_image(root: str, empty: list[str], n: int, others: list[str]) -> str:
    """Say what a class folder holds where none of it is an image."""
    if not others:
        return (
            f"No image in the class folder {empty[0]!r} of {root!r} ({len(empty)} of "
            f"{n} are empty). Remove it, or name the classes to take in classes=[...]."
        )
    counts = count_suffixes(others)
    advice = advice_on(counts) or " extensions=[...] names the suffixes to take."
    return (
        f"No image in the class folder {empty[0]!r} of {root!r} ({len(empty)} of {n} "
        f"have none): its files are {in_words(counts)}.{advice}"
    )


def images_below(folder: str) -> list[str]:
    """Return the paths of all images below a folder, in order."""
    return _walked(folder, image_suffixes())[0]


def _walked(folder: str, wanted: frozenset[str]) -> tuple[list[str], list[str]]:
    """Return the paths of the images below a folder, and of other files, in order."""
    walked: list[tuple[str, list[str]]] = []
    seen: set[str] = set()  # through links, but no folder twice
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        walked.append((parent, sorted(name for name in names if name[0] != ".")))
    images: list[str] = []
    others: list[str] = []
    for parent, names in sorted(walked):
        start = os.path.join(parent, "")
        for name in names:
            (images if suffix_of(name) in wanted else others).append(start + name)
    return images, others


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
        likely = [name for name in names if _before(name) is not None]
        found = [n for n in likely if subfolders(os.path.join(folder, n))]
    if found or len(names) != 1:
        return [os.path.join(folder, name) for name in found]
    inner = os.path.join(folder, names[0])
    return _splits(inner, subfolders(inner))


def _before(name: str) -> tuple[str, ...] | None:
    """Return the words before that of a part, as seg in seg_train; None if none is."""
    # Case, digits and words such as "set" don't count: Training_set, val2017.
    spaced = re.sub("(?<=[a-z])(?=[A-Z])", " ", name)
    words = re.findall("[a-z]+", spaced.lower())
    while words and words[-1] in _BESIDE:
        words.pop()
    return tuple(words[:-1]) if words and words[-1] in _PARTS else None


def image_suffixes(extensions: Iterable[str] | None = None) -> frozenset[str]:
    """Return suffixes as they are compared; None is all that Pillow can open here."""
    if extensions is None:
        known = Image.registered_extensions().items()  # also loads all plugins
        opened = {*Image.OPEN} - _NO_IMAGES | {"MPO"}  # which the opener of JPEG reads
        return frozenset(suffix for suffix, name in known if name in opened)
    if isinstance(extensions, str):
        extensions = [extensions]
    bare = (suffix.lower().lstrip(".") for suffix in extensions)
    return frozenset(suffix and "." + suffix for suffix in bare)


def suffix_of(name: str) -> str:
    """Return the suffix of a file's name as it is compared."""
    return os.path.splitext(name)[1].lower()


def count_suffixes(paths: Iterable[str]) -> dict[str, int]:
    """Count files by suffix, the most frequent first."""
    return dict(Counter(map(suffix_of, paths)).most_common())


def in_words(counts: dict[str, int]) -> str:
    """Say how many files of which suffix there are."""
    shown = [f"{n} {suffix or 'without a suffix'}" for suffix, n in counts.items()]
    return ", ".join(shown[:5] + ["..."] * (len(shown) > 5))


def advice_on(counts: dict[str, int]) -> str:
    """Say what opens the files whose suffixes Pillow doesn't open, if it is known."""
    sentences = []
    for suffixes, advice in _ADVICE.items():
        if found := [suffix for suffix in counts if suffix in suffixes]:
            what = " and ".join(found[:3])
            sentences.append(f" For {what}: {advice}." if what else f" {advice}.")
    return "".join(sentences)


def warn_of_photographs(root: str, left_out: Iterable[str]) -> None:
    """Warn, if there are photographs among the files that are left out."""
    counts = count_suffixes(left_out)
    if not _PHOTOGRAPHS.isdisjoint(counts):
        warnings.warn(
            f"{sum(counts.values())} files below {root!r} are left out because of "
            f"their suffix: {in_words(counts)}.{advice_on(counts)}",
            UserWarning,
            stacklevel=3,
        )
