"""The error of an image that cannot be decoded."""

import os
from collections.abc import Iterable

from PIL import Image, UnidentifiedImageError

Failure = tuple[int | None, str | None, str]

_PRINTED = 10
BOMB_ADVICE = "If you trust it, raise PIL.Image.MAX_IMAGE_PIXELS (None: no limit)"


class ImageDecodeError(ValueError):
    """One or more images could not be decoded.

    Parameters
    ----------
    failures : list of (row, path, reason) or str
        Every image that failed: its row in X (None outside of X), its path (None if
        it has none) and what went wrong. A string is taken as the whole message,
        which is how ``torch``'s loader workers rebuild an exception.

    Attributes
    ----------
    failures : list of (row, path, reason)
        All of them; the message prints the first ten.

    Examples
    --------
    >>> from sklearn_dl._images import ImageDecodeError
    >>> error = ImageDecodeError([(3, "a.jpg", "no such file")])
    >>> print(error)
    1 image could not be decoded: row 3, 'a.jpg': no such file
    """

    def __init__(self, failures: Iterable[Failure] | str):
        self.failures: list[Failure] = []
        if not isinstance(failures, str):
            failures = self.failures = list(failures)
        super().__init__(failures)  # `args` is what pickle calls the class with

    def __str__(self) -> str:
        if not self.failures:
            return str(self.args[0])
        lines = [_line(*failure) for failure in self.failures[:_PRINTED]]
        if len(self.failures) == 1:
            return f"1 image could not be decoded: {lines[0]}"
        if len(self.failures) > _PRINTED:
            lines.append(f"and {len(self.failures) - _PRINTED} more")
        return "\n  ".join(
            [f"{len(self.failures)} images could not be decoded:", *lines]
        )

    @classmethod
    def join(cls, errors: "Iterable[ImageDecodeError]") -> "ImageDecodeError":
        """One error for all of several, in the order of their rows."""
        failures = [failure for error in errors for failure in error.failures]
        return cls(sorted(failures, key=lambda f: -1 if f[0] is None else f[0]))


def _line(row: int | None, path: str | None, reason: str) -> str:
    where = [] if row is None else [f"row {row}"]
    if path is not None:
        where.append(repr(path))
    return f"{', '.join(where)}: {reason}" if where else reason


def reason_of(error: Exception, path: str | None = None) -> str:
    """Say in a few words why an image could not be decoded."""
    if isinstance(error, ImageDecodeError) and len(error.failures) == 1:
        return error.failures[0][2]
    if isinstance(error, FileNotFoundError):
        url = path is not None and "://" in path
        return "no such file" + (" (a URL: download it first)" if url else "")
    if isinstance(error, IsADirectoryError):
        return "a directory, not an image file"
    if isinstance(error, PermissionError):
        # Windows answers a directory with this one
        directory = path is not None and os.path.isdir(os.path.expanduser(path))
        return "a directory, not an image file" if directory else "permission denied"
    if isinstance(error, UnidentifiedImageError):
        return "not an image that Pillow can read"
    text = str(error) or type(error).__name__
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        text += f" {BOMB_ADVICE}"
    return text
