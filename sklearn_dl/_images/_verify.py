"""A look at every image of X: which fail, and which are odd."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from joblib import cpu_count
from PIL import Image
from sklearn.utils import check_consistent_length

from sklearn_dl._images._coerce import as_source
from sklearn_dl._images._digests import call_each
from sklearn_dl._images._errors import Failure, ImageDecodeError
from sklearn_dl._images._remote import REMOTE_THREADS
from sklearn_dl._images._source import ImageSource, digest_image

Finding = tuple[int | None, str | None, str, str]  # row, path, reason, kind


def verify_images(X: Any, y: Any = None, *, image_shape: Any = None) -> pd.DataFrame:
    """Decode every image of X once and list those that fail or are odd.

    Parameters
    ----------
    X : any form of images
        Paths, a loader's ``data``, PIL images, encoded bytes, arrays.
    y : array-like of shape (n,), default=None
        Labels or targets. With them images are listed that stand in two classes.
    image_shape : tuple of int, Channels or None, default=None
        As the estimators have it: ``Channels(13)`` looks at files of 13 bands.

    Returns
    -------
    findings : DataFrame with columns "row", "path", "reason" and "kind"
        One row for each finding, in the order of X; empty if there is none. ``path`` is
        None for images that have none. Kinds are

        - ``"unreadable"``: an image that cannot be decoded;
        - ``"one colour"``: all its pixels are equal;
        - ``"scale"``: numbers that hardly mean what their type says, such as 12 bits
          kept in 16, or floats beyond [0, 1];
        - ``"pages"``: a TIFF with further pages, which are not read;
        - ``"transparency"``: a PIL image whose transparent colour isn't applied;
        - ``"two classes"``: the same pixels as another image, whose `y` differs.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_dl.datasets import verify_images
    >>> verify_images(["/no/such.jpg"])[["path", "reason", "kind"]]
                path        reason        kind
    0  /no/such.jpg  no such file  unreadable
    >>> verify_images(np.zeros((1, 8, 8, 3), "uint8"))["reason"][0]
    'is of one colour, (0, 0, 0)'
    """
    return look_at_images(as_source(X, image_shape=image_shape), y)


def look_at_images(
    source: ImageSource,
    y: Any = None,
    on_image: Callable[[int, Any], object] | None = None,
) -> pd.DataFrame:
    """Return what `verify_images` does; in threads `on_image` sees each image too."""
    source = copy.copy(source)
    if y is not None:
        labels = np.asarray(y).tolist()
        y = [None if pd.isna(label) is True else label for label in labels]
        check_consistent_length(range(len(source)), y)
    found: list[Finding] = []
    source.on_note = lambda row, path, kind, text: found.append((row, path, text, kind))
    digests: dict[int, bytes] = {}

    def look(row: int) -> None:
        image = source[row]
        if colour := _one_colour(image):
            reason = f"is of one colour, {colour}"
            found.append((row, source.path(row), reason, "one colour"))
        if text := source.odd_range(row):
            found.append((row, source.path(row), text, "scale"))
        if y is not None:
            digests[row] = digest_image(image)
        if on_image is not None:
            on_image(row, image)

    for error in _errors_of(look, source):
        found += [(*failure, "unreadable") for failure in error.failures]
    if y is not None:
        found += _in_two_classes(digests, y, source)
    found.sort(key=lambda finding: -1 if finding[0] is None else finding[0])
    # Names that are no UTF-8 can't be pandas' own text.
    columns = ["row", "path", "reason", "kind"]
    return pd.DataFrame(found, columns=columns, dtype=object).astype({"row": int})


def failed_images(X: Any, *, image_shape: Any = None) -> list[Failure]:
    """Decode every image of X once and return those that fail."""
    source = copy.copy(as_source(X, image_shape=image_shape))
    source.on_note = None

    def look(row: int) -> None:
        source[row]

    # Arrays are decoded.
    errors = [] if source.stackable else _errors_of(look, source)
    return ImageDecodeError.join(errors).failures


def _errors_of(look: Callable[[int], None], source: ImageSource) -> list:
    """Look at each row, and return the errors of images that can't be decoded."""
    # A dataset need not be thread-safe.
    threads = min(8, cpu_count()) if source.kind == "paths" else 1
    if source.remote:
        threads = REMOTE_THREADS
    errors = [e for e in call_each(look, range(len(source)), threads) if e is not None]
    for error in errors:
        if not isinstance(error, ImageDecodeError):
            raise error
    return errors


def _one_colour(image: Image.Image | np.ndarray) -> str | None:
    """Return the colour of an image that has only one."""
    if isinstance(image, Image.Image):
        spans: Any = image.getextrema()
        return str(image.getpixel((0, 0))) if all(a == b for a, b in spans) else None
    first = image[0, 0]
    return str(tuple(first.tolist())) if (image == first).all() else None


def _in_two_classes(
    digests: dict[int, bytes], y: list[Any], source: ImageSource
) -> list[Finding]:
    """List the images whose pixels stand elsewhere with another label."""
    alike: dict[bytes, list[int]] = {}
    for row in sorted(digests):
        alike.setdefault(digests[row], []).append(row)
    found: list[Finding] = []
    for rows in alike.values():
        for row in rows:
            other = next((r for r in rows if y[r] != y[row]), None)
            if other is not None:
                path = source.path(other)
                where = f"row {other}" if path is None else f"row {other}, {path!r}"
                reason = f"in {y[row]!r}, has the pixels of {where}, in {y[other]!r}"
                found.append((row, source.path(row), reason, "two classes"))
    return found
