"""What goes wrong with files of models."""


class ModelFileError(ValueError):
    """A file of a model can't be written or read.

    It is damaged, of another kind, of a newer version, or names classes and functions
    that aren't trusted; or the model holds what can't be written without code.

    Examples
    --------
    >>> from sklearn_dl.persistence import ModelFileError
    >>> issubclass(ModelFileError, ValueError)
    True
    """
