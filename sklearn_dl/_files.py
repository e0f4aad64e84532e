"""Files: replaced as a whole, missing, damaged; what errors about them say."""

import errno
import glob
import os
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

# No write takes as long, so what is older was left behind by a killed process.
_STALE_SECONDS = 3600
# What a full disk is to the system, and a user's full share of it.
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_SQLITE_FULL = 13


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Open a new file that takes the place of `path` when the block has ended.

    It is written beside it, as ``.NAME.RANDOM.tmp``. Whatever ends the block before,
    what stood there stays; what a process left behind that was killed as it wrote is
    removed by a later one.

    Parameters
    ----------
    path : str or path-like

    Raises
    ------
    FileNotFoundError, FileExistsError, IsADirectoryError
        See `check_target`.
    OSError
        If it can't be written; that the disk is full is said with the path.

    Examples
    --------
    >>> import os, tempfile
    >>> from sklearn_dl._files import replacing
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(os.path.join(folder, "file")) as file:
    ...         _ = file.write(b"whole")
    ...     os.listdir(folder)
    ['file']
    """
    target = check_target(path)
    remove_stale(target.parent, glob.escape(target.name))
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        with writing(target):
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if target.exists():
                shutil.copymode(target, temporary)
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


@contextmanager
def writing(path: str | os.PathLike) -> Iterator[None]:
    """Let a block that writes say that the disk is full, or that it was interrupted.

    Either may come as another error: torch raises one of its own in their place.

    Parameters
    ----------
    path : str or path-like
        What the block writes.

    Raises
    ------
    OSError
        If the disk is full: with the number ENOSPC, and the path.
    KeyboardInterrupt
        If the block was interrupted.
    """
    handled = sys.exception()  # by the caller, which the block has no part in
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and cause is not handled:
            if isinstance(cause, KeyboardInterrupt):
                raise KeyboardInterrupt from error
            if _is_full(cause):
                full = errno.ENOSPC, "The disk is full", os.fspath(path)
                raise OSError(*full) from error
            cause = cause.__cause__ or cause.__context__
        raise


def _is_full(error: BaseException) -> bool:
    """Tell whether an error of the system, or of SQLite, is that of a full disk."""
    number = error.errno if isinstance(error, OSError) else None
    return number in _FULL or getattr(error, "sqlite_errorcode", 0) == _SQLITE_FULL


def check_target(path: str | os.PathLike) -> Path:
    """Return where `replacing` will write, with links followed.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    IsADirectoryError
        If it is a folder.
    FileExistsError
        If it is a device, a pipe or another thing that a file shouldn't replace.
    """
    target = Path(os.path.realpath(Path(path).expanduser()))  # a link stays one
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder; give the path of a file.")
    if target.exists() and not target.is_file():
        raise FileExistsError(f"{target} is a device or a pipe; give that of a file.")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {target.parent}; make it first.")
    return target


def remove_stale(folder: Path, name: str = "*") -> None:
    """Remove the temporaries of processes that were killed as they wrote.

    Parameters
    ----------
    folder : Path
    name : str, default="*"
        Name of the files they were to be, as a pattern of `glob`.
    """
    with suppress(OSError):
        for temporary in folder.glob(f".{name}.*.tmp"):
            if time.time() - temporary.stat().st_mtime > _STALE_SECONDS:
                temporary.unlink(missing_ok=True)


def first_line(error: Exception) -> str:
    """Return the first line of what an error says, or its name."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


class ModelFileError(ValueError):
    """A file of a model can't be written or read.

    It is damaged, of another kind or version, or names what isn't trusted; or the model
    holds what can't be written without code.

    Examples
    --------
    >>> from sklearn_dl.persistence import ModelFileError
    >>> issubclass(ModelFileError, ValueError)
    True
    """


def check_file(path: str | os.PathLike) -> str:
    """Return the path of a file, which is there."""
    path = os.path.expanduser(os.fspath(path))
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path} is a folder, not the file of a model.")
    if not os.path.isfile(path):
        raise FileNotFoundError(f"There is no file {path}.")
    return path
