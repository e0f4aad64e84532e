"""Files behind URLs: read or put whole by fsspec, tried again where that may help."""

import re
import time
from collections.abc import Callable
from typing import Any

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(::|://)")
# Threads that wait for images at once.
REMOTE_THREADS = 16
_ATTEMPTS = 4
_PAUSE = 0.2  # seconds before the second attempt, twice as many before each other
# What no other attempt changes.
_FINAL = (
    *(FileNotFoundError, IsADirectoryError, PermissionError),
    *(ImportError, NotImplementedError, MemoryError),
)
# Of HTTP's 4xx, which are the caller's fault, those that pass.
_PASSING = (408, 425, 429)


def is_url(path: Any) -> bool:
    """Tell whether a path is a URL such as s3://bucket/1.jpg; it stays text."""
    return isinstance(path, str) and "://" in path and bool(_URL.match(path))


def fetch(url: str) -> bytes:
    """Return what is behind a URL, by one read of the whole.

    Raises
    ------
    ImportError
        If fsspec, or its driver for URLs of this kind, isn't installed.
    FileNotFoundError, PermissionError
        If there is no such thing, or it may not be read.
    ValueError
        If it couldn't be read several times, with the last reason.
    """
    system, name = file_system(url)
    return _tried(lambda: system.cat_file(name), "read")


def send(file: Any, url: str) -> None:
    """Put a file of this machine behind a URL, whole.

    Raises
    ------
    ImportError, FileNotFoundError, PermissionError, ValueError
        As of `fetch`.
    """
    system, name = file_system(url)
    _tried(lambda: system.put_file(str(file), name), "written")


def file_system(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, which fsspec keeps, and its name there."""
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        message = f'{error}: pip install "sklearn_dl[remote]" reads URLs'
        raise ImportError(message) from error
    return url_to_fs(url)


def _tried(action: Callable, what: str) -> Any:
    """Return what an action returns, tried again where it fails for a while."""
    attempt = 0
    while True:
        attempt += 1
        try:
            return action()
        except _FINAL:
            raise
        except Exception as error:  # drivers raise errors of their own kinds
            status = getattr(error, "status", None)
            final = status in range(400, 500) and status not in _PASSING
            if final or attempt == _ATTEMPTS:
                times = "" if final else f" {attempt} times"
                reason = str(error) or type(error).__name__
                raise ValueError(f"couldn't be {what}{times}: {reason}") from error
        time.sleep(_PAUSE * 2 ** (attempt - 1))
