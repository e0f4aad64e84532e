"""Files that are replaced as a whole."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Open a new file that takes the place of `path` when the block has ended.

    It is written beside it. Whatever ends the block before, what stood there stays.

    Parameters
    ----------
    path : str or path-like

    Raises
    ------
    FileNotFoundError, IsADirectoryError
        If there is no such folder, or the path is one.

    Examples
    --------
    >>> import os, tempfile
    >>> from sklearn_dl.persistence._atomic import replacing
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(os.path.join(folder, "file")) as file:
    ...         _ = file.write(b"whole")
    ...     os.listdir(folder)
    ['file']
    """
    target = Path(os.path.realpath(Path(path).expanduser()))  # a link stays one
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder; give the path of a file.")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {target.parent}; make it first.")
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    if os.name == "posix":  # so that the new name survives a loss of power
        handle = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
