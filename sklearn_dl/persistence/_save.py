"""Saving and loading fitted models."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

from sklearn.base import BaseEstimator

from sklearn_dl._base import ImageEstimatorMixin
from sklearn_dl._files import ModelFileError, check_target, replacing
from sklearn_dl._saving import Trust, build, describe, reading, write_archive


def save(
    estimator: BaseEstimator, path: str | os.PathLike, *, backbones: str = "whole"
) -> None:
    """Write a model to one file of plain data, which runs no code when it is loaded.

    For the estimators of this library, and for scikit-learn's pipelines, ensembles,
    searches and calibrated classifiers with or without them. What stood at `path` is
    replaced as a whole, or stays if saving is interrupted.

    Parameters
    ----------
    estimator : estimator
        Fitted, or not.
    path : str or path-like
        The file; any name will do, such as ``"ants_bees.model"``.
    backbones : {"whole", "reference"}, default="whole"
        Whether the tensors of frozen backbones are in the file, each backbone once; or
        only the name of their weights and a digest, so that `load` needs those weights.
        Backbones that were trained or changed, random or made by callables are always
        in the file.

    Raises
    ------
    ModelFileError
        If prediction needs what can't be written without code, such as a lambda in
        ``backbone=``. It names the place.
    FileNotFoundError, FileExistsError, IsADirectoryError
        If the folder of `path` doesn't exist, or `path` is one, or a device.

    Warns
    -----
    UserWarning
        If something of your own is left out that only a new fit needs: callbacks,
        functions in ``augment``, losses, optimisers, scorers. Defaults stand for it.

    See Also
    --------
    load : Read the file.
    export_onnx : Write a graph for programs without torch.

    Notes
    -----
    The file is an uncompressed zip: ``manifest.json`` has the parameters, what was
    learned beside tensors, the versions of the packages and a SHA-256 digest of every
    other member; the others are ``.safetensors``. The optimiser's state is not saved: a
    warm start or `partial_fit` goes on from the weights with a fresh one. A
    ``Pipeline``'s ``memory`` is left out, since it names a folder of pickles.

    Your own classes (a transformer in a pipeline) and importable functions (a callable
    backbone such as ``partial(timm.create_model, "resnet26d")``, a function in ``tta``
    or ``preprocessing``) are stored by name: `load` wants them in ``trusted=``.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from sklearn_dl import ImageClassifier
    >>> from sklearn_dl.persistence import load, save
    >>> images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), "uint8")
    >>> model = ImageClassifier(
    ...     "mobilenet_v3_small", weights="builtin", image_size=32, random_state=0
    ... )
    >>> model = model.fit(images, [0, 1] * 4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "some.model")
    ...     save(model, path)
    ...     again = load(path)
    >>> bool((again.predict_proba(images) == model.predict_proba(images)).all())
    True
    """
    if backbones not in ("whole", "reference"):
        raise ValueError(f"backbones={backbones!r} must be 'whole' or 'reference'.")
    if isinstance(estimator, type) or not hasattr(estimator, "get_params"):
        raise TypeError(f"save takes an estimator, got {estimator!r:.100}.")
    check_target(path)
    members = describe(estimator, ImageEstimatorMixin, way=backbones)
    with replacing(path) as file:
        write_archive(file, members)


def load(
    path: str | os.PathLike,
    *,
    trusted: Iterable[Any] = (),
    weights: str | os.PathLike | Mapping[str, Any] | None = None,
) -> Any:
    """Read a model that `save` wrote; nothing in the file is executed.

    On the same versions and device it predicts what it did before, to the last bit.
    Its parameters are as they were; only a folder in ``cache`` becomes ``"memory"``, as
    a file must not say where others are written.

    Parameters
    ----------
    path : str or path-like
    trusted : list of classes and functions, default=()
        Your own, that the model uses: ``[my_module.MyTransformer, timm.create_model]``.
        Only give what you know: instances of the classes are made with what the file
        says, and prediction calls the functions.
    weights : path or dict of str to path, default=None
        For a file that was saved with ``backbones="reference"``: where the weights are
        now, or where those of each backbone are, by its name. None looks where they
        came from, as `sklearn_dl.backbones.load_backbone` does.

    Returns
    -------
    estimator : estimator
        As it was saved, of the same class.

    Raises
    ------
    ModelFileError
        If the file is none of `save`, is damaged or has the format of another version,
        names what isn't trusted, or refers to weights that aren't there or differ.
    FileNotFoundError, IsADirectoryError
        If there is no such file.

    Warns
    -----
    InconsistentVersionWarning
        scikit-learn's, if another version of it fitted the model.

    See Also
    --------
    save : Write the file.

    Notes
    -----
    Only a short list of classes is made: those of this library, scikit-learn's
    estimators and the parts of fitted ones. Everything else is refused before anything
    is imported. Digests tell of damage, not of malice: who can write the file can make
    a model that predicts what they want. Of compiled parts of scikit-learn, decision
    trees are checked; others (such as those of libsvm and of histogram gradient
    boosting) trust their arrays, so that a file made to do harm may crash the process.

    A model trained on a GPU loads anywhere. With ``device="cuda"`` where there is none,
    prediction warns and takes the CPU, and a new fit asks for another `device`.

    Examples
    --------
    >>> import os, tempfile
    >>> from sklearn.svm import LinearSVC
    >>> from sklearn_dl.persistence import load, save
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "svm.model")
    ...     save(LinearSVC().fit([[0.0], [1.0]], ["no", "yes"]), path)
    ...     load(path).predict([[1.0]])
    array(['yes'], dtype='<U3')
    """
    trust = Trust(trusted)
    with reading(path) as archive:
        loaded = build(archive, ImageEstimatorMixin, trust, weights)
        if not isinstance(loaded, BaseEstimator):
            raise ModelFileError("it holds no estimator.")
        return loaded
