"""Errors about files of models."""

import os


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
