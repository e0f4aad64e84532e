"""The part of a network that training changes."""

from numbers import Integral
from typing import Any

from sklearn.base import BaseEstimator


class Trainable(BaseEstimator):
    """The part of a network that is trained.

    A value of the estimators' `trainable` that a grid reaches into, as in
    ``trainable__stages``. A plain value stands for its `stages`.

    Parameters
    ----------
    stages : str, int or sequence of str, default="head"
        ``"head"``: the head alone. ``"all"``: everything. An int k: the head and the
        last k stages of the backbone. Names: the head and these stages (see
        `Backbone.stages`).
    freeze_batch_norm : bool or "auto", default="auto"
        Whether the BatchNorm statistics of the trained stages keep still. ``"auto"``:
        those of pretrained weights do, which small batches would spoil; those of
        random weights move. Statistics of other stages never move.

    Examples
    --------
    >>> from sklearn_dl import ImageClassifier
    >>> from sklearn_dl.training import Trainable
    >>> model = ImageClassifier(trainable=Trainable("all", freeze_batch_norm=True))
    >>> model.set_params(trainable__stages=2).trainable
    Trainable(freeze_batch_norm=True, stages=2)
    """

    def __init__(self, stages: Any = "head", *, freeze_batch_norm: bool | str = "auto"):
        self.stages = stages
        self.freeze_batch_norm = freeze_batch_norm

    @classmethod
    def of(cls, trainable: Any) -> "Trainable":
        """Return any value of the estimators' `trainable` as one of these.

        Raises
        ------
        ValueError
            Naming the setting that is not valid.
        """
        chosen = trainable if isinstance(trainable, cls) else cls(trainable)
        stages, still = chosen.stages, chosen.freeze_batch_norm
        number = isinstance(stages, Integral) and not isinstance(stages, bool)
        if not (number and stages >= 0) and not isinstance(stages, str | list | tuple):
            raise ValueError(
                f"trainable={stages!r} must be 'head', 'all', a number of stages, or "
                "names of stages."
            )
        if still not in (True, False, "auto"):
            raise ValueError(
                f"freeze_batch_norm={still!r} must be True, False or 'auto'."
            )
        return chosen
