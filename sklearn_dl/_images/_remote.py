"""Images behind URLs: read whole by fsspec, and tried again where that may help."""

import re
import time
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
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        message = f'{error}: pip install "sklearn_dl[remote]" reads URLs'
        raise ImportError(message) from error
    system, name = url_to_fs(url)  # kept by fsspec, for each process
    attempt = 0
    while True:
        attempt += 1
        try:
            return system.cat_file(name)
        except _FINAL:
            raise
        except Exception as error:  # drivers raise errors of their own kinds
            status = getattr(error, "status", None)
            final = status in range(400, 500) and status not in _PASSING
            if final or attempt == _ATTEMPTS:
                times = "" if final else f" {attempt} times"
                reason = str(error) or type(error).__name__
                raise ValueError(f"couldn't be read{times}: {reason}") from error
        time.sleep(_PAUSE * 2 ** (attempt - 1))
