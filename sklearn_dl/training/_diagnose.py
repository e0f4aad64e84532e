"""Diagnosis of a training from its history."""

import pandas as pd

from sklearn_dl.training._symptoms import TrainingRun, findings


def diagnose(estimator) -> pd.DataFrame:
    """Say what went wrong in a training, and which parameters answer it.

    Reads ``history_`` and the parameters, trains nothing. These are rules of thumb,
    on a few dozen numbers: they point to what to try, they prove nothing.

    Parameters
    ----------
    estimator : ImageClassifier or ImageRegressor
        Fitted; best with validation rows (`early_stopping`, or `X_val` in `fit`), and
        with a `GradientMonitor` among its callbacks, without which nothing is said of
        gradients.

    Returns
    -------
    pandas.DataFrame
        One row per finding, the gravest first; a single row "nothing found" where
        there is none. Strings:

        ``finding``
            "no epoch", "learning rate too high", "exploding gradients", "vanishing
            gradients", "learning rate too low", "overfitting", "underfitting", "noisy
            gradients" or "no validation rows".
        ``evidence``
            The numbers it rests on.
        ``parameters``
            Values of the estimator's parameters that answer it, as in Python, the
            first to try first; they need not all be set.

    Raises
    ------
    NotFittedError
        If `fit` was not called.
    TypeError
        If it is another kind of estimator.

    Notes
    -----
    Losses are compared with the chance loss, that of a prediction that doesn't look at
    the image: ``log(n_classes)`` of a classifier, 1 of a regressor, whose targets have
    variance 1. Where the head was warmed up, the epochs after it are looked at. The
    rules:

    - rate too high: the training loss is no number, is ten times the chance loss in
      some epoch, ends above it without falling evenly, or rises a lot on its way;
    - rate too low: it stands near the chance loss, or falls by the same small step
      each epoch;
    - underfitting: it ends near the chance loss, or still falls;
    - overfitting: the validation loss rises from its best while the training loss
      falls, or the training accuracy is far above the validation accuracy, in the epoch
      whose weights were kept;
    - vanishing: the gradient of the first layer is less than 1e-4 of the last layer's;
    - exploding: the gradient's norm is above 1e3, or has grown a hundredfold;
    - noise: the gradients of batches vary by more than ten times the square of their
      mean, with a training loss that no longer falls.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_dl import ImageClassifier
    >>> from sklearn_dl.training import diagnose
    >>> images = np.random.default_rng(0).integers(0, 255, (8, 32, 32, 3), "uint8")
    >>> model = ImageClassifier(
    ...     "mobilenet_v3_small", weights="builtin", image_size=32, max_epochs=1,
    ...     random_state=0,
    ... ).fit(images, [0, 1] * 4)
    >>> diagnose(model)["finding"].tolist()
    ['underfitting', 'no validation rows']
    >>> diagnose(model)["parameters"].tolist()
    ["max_epochs=3, trainable='all', lr=0.03", 'early_stopping=True']
    """
    run = TrainingRun.of(estimator)
    rows = findings(run)
    if not rows:
        rows = [("nothing found", run.summary(), "")]
    return pd.DataFrame(rows, columns=["finding", "evidence", "parameters"])
