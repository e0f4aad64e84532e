"""Exports of a fitted estimator as one graph: ONNX, and torch's own format."""

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from sklearn_dl._files import ModelFileError, check_target, first_line, replacing
from sklearn_dl.persistence._exported_file import seal
from sklearn_dl.persistence._graph import graph_of

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def export_onnx(estimator: Any, path: str | os.PathLike) -> None:
    """Write a fitted estimator as one ONNX graph, from pixels to predictions.

    Normalisation, backbone, head and softmax (or the scale of a regressor's targets)
    are in it, in float32. It is only written if onnxruntime predicts the same by it.

    Parameters
    ----------
    estimator : ImageClassifier, ImageRegressor or Pipeline
        Fitted. A pipeline is of `ImageFeatureExtractor`, `FeatureScaler` or
        StandardScaler, and `FeatureSVC`, LinearSVC, LogisticRegression,
        RidgeClassifier, SGDClassifier or a linear regressor, as
        `make_feature_classifier` builds it; also with ``probability=True``.
    path : str or path-like
        The file, such as ``"model.onnx"``. It is replaced as a whole.

    Raises
    ------
    ModelFileError
        If the estimator has no such form (a function for preprocessing, test-time
        augmentation, another model on the features), torch can't export its backbone,
        or predictions differ by more than 1e-4 (of targets and scores: of their scale).
    ImportError
        If a package of ``sklearn_dl[export]`` is missing.

    See Also
    --------
    load_exported : A classifier or regressor of the file, without torch.

    Notes
    -----
    The input ``images`` is uint8 RGB of shape (n, height, width, 3), n free; of other
    numbers of channels float32 in [0, 1], (n, height, width, C). The output (n, k) is
    called ``probabilities``, ``scores`` (``loss="hinge"``; an SVM, whose k is 1 for two
    classes) or ``targets``. The metadata have, under ``sklearn_dl``, a JSON of the
    classes and of the rule for resizing and cropping images; their last entry,
    ``sklearn_dl.sha256``, is the digest of all bytes before it, which `load_exported`
    asks for. Other programs read the file as any ONNX graph.

    Examples
    --------
    >>> from sklearn_dl.persistence import export_onnx
    >>> export_onnx(model, "ants_bees.onnx")  # doctest: +SKIP
    """
    missing = [package for package in _PACKAGES if find_spec(package) is None]
    if missing:
        raise ImportError(
            f"export_onnx needs {missing[0]}: pip install 'sklearn_dl[export]'."
        )
    import onnxruntime

    check_target(path)
    graph = graph_of(estimator)
    output = graph.output
    with _explained("this backbone to ONNX"):
        names: Any = {"input_names": ["images"], "output_names": [output]}
        program = torch.onnx.export(
            graph.program(), **names, dynamo=True, verbose=False
        )
    assert program is not None
    model = program.model_proto
    del model.metadata_props[:]
    for node in model.graph.node:  # paths of source files, and nothing one needs
        del node.metadata_props[:]
        node.doc_string = ""
    entry = model.metadata_props.add()
    entry.key, entry.value = "sklearn_dl", graph.text
    data = model.SerializeToString()
    data += seal(data)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])

    def run(images: np.ndarray) -> np.ndarray:
        return session.run([output], {"images": images})[0]

    graph.check(run, "The ONNX graph")
    with replacing(path) as file:
        file.write(data)


def export_pt2(estimator: Any, path: str | os.PathLike) -> None:
    """Write a fitted estimator as a graph of torch, from pixels to predictions.

    What `export_onnx` writes, for programs that have torch: ``torch.export.load``,
    AOTInductor, ExecuTorch.

    Parameters
    ----------
    estimator : ImageClassifier, ImageRegressor or Pipeline
        As in `export_onnx`.
    path : str or path-like
        The file, ending in ``.pt2``. It is replaced as a whole.

    Raises
    ------
    ModelFileError
        As in `export_onnx`; and if `path` ends in something else.

    Warnings
    --------
    Loading a ``.pt2`` can run code: ``torch.export.load`` falls back on pickle. Only
    load those that you wrote. Nothing in this library loads one.

    Notes
    -----
    Input and output are those of `export_onnx`; the metadata are in the extra file
    ``sklearn_dl.json``.

    Examples
    --------
    >>> from sklearn_dl.persistence import export_pt2
    >>> export_pt2(model, "ants_bees.pt2")  # doctest: +SKIP
    """
    if not os.fspath(path).endswith(".pt2"):
        raise ModelFileError(f"{os.fspath(path)!r} must end in '.pt2'.")
    check_target(path)
    graph = graph_of(estimator)
    with _explained("this backbone"):
        program = graph.program()
    module = program.module()

    def run(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return module(torch.from_numpy(images)).numpy()

    graph.check(run, "The exported program")
    buffer = io.BytesIO()
    with _explained("this backbone"):
        torch.export.save(program, buffer, extra_files={"sklearn_dl.json": graph.text})
    with replacing(path) as file:
        file.write(buffer.getbuffer())


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Say in one line why torch can't export."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, of its own functions
            yield
    except Exception as error:  # the exporter raises errors of many kinds
        raise ModelFileError(
            f"torch {torch.__version__} can't export {what}: {first_line(error)}"
        ) from error
