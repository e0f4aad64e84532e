"""Export to ONNX."""

import os
import warnings
from importlib.util import find_spec
from typing import Any

import numpy as np

from sklearn_dl._files import check_target, replacing
from sklearn_dl.persistence._errors import ModelFileError
from sklearn_dl.persistence._graph import exported_program, graph_of


def export_onnx(estimator: Any, path: str | os.PathLike) -> None:
    """Write a fitted estimator as one ONNX graph, from pixels to predictions.

    Normalisation, backbone, head and softmax (or the scale of a regressor's targets)
    are in it, in float32. Before it is written it is run with onnxruntime, and must
    predict what the estimator does.

    Parameters
    ----------
    estimator : ImageClassifier, ImageRegressor or Pipeline
        Fitted. A pipeline is of `ImageFeatureExtractor`, StandardScaler and LinearSVC,
        LogisticRegression, RidgeClassifier, SGDClassifier or a linear regressor, as
        `make_feature_classifier` builds it; also with ``probability=True``.
    path : str or path-like
        The file, such as ``"model.onnx"``. It is replaced as a whole.

    Raises
    ------
    ModelFileError
        A ValueError: if the estimator has no such form (a function for preprocessing,
        test-time augmentation, another model on the features), torch can't export its
        backbone, or the graph's predictions differ from the estimator's by more than
        1e-4 (of targets and scores: of their scale).
    ImportError
        If onnx, onnxscript or onnxruntime are missing: ``sklearn_dl[export]``.

    See Also
    --------
    load_exported : A classifier or regressor of the file, without torch.

    Notes
    -----
    The input ``images`` is uint8 RGB of shape (n, height, width, 3), n free, height and
    width those of the network's input. The output (n, k) is called ``probabilities``,
    ``scores`` (``loss="hinge"``, LinearSVC: k is 1 for a LinearSVC of two classes) or
    ``targets``. The model's metadata have, under ``sklearn_dl``, a JSON of the classes
    and of the rule for resizing and cropping images.

    Examples
    --------
    >>> from sklearn_dl.persistence import export_onnx
    >>> export_onnx(model, "ants_bees.onnx")  # doctest: +SKIP
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if find_spec(package) is None:
            raise ImportError(
                f"export_onnx needs {package}: pip install 'sklearn_dl[export]'."
            )
    check_target(path)
    graph = graph_of(estimator)
    output = graph.metadata["output"]
    model = _model(graph.module, graph.size, output)
    entry = model.metadata_props.add()
    entry.key, entry.value = "sklearn_dl", graph.text
    data = model.SerializeToString()
    run = _runner(data, output)
    graph.check(run, "The ONNX graph")
    with replacing(path) as file:
        file.write(data)


def _model(module: Any, size: tuple[int, int], output: str) -> Any:
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, of its own functions
            program = torch.onnx.export(
                exported_program(module, size),
                input_names=["images"],
                output_names=[output],
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # the exporter raises errors of many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise ModelFileError(
            f"torch {torch.__version__} can't export this backbone to ONNX: {reason}"
        ) from error
    assert program is not None
    model = program.model_proto
    del model.metadata_props[:]
    for node in model.graph.node:  # paths of source files, and nothing one needs
        del node.metadata_props[:]
        node.doc_string = ""
    return model


def _runner(data: bytes, output: str) -> Any:
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])

    def run(images: np.ndarray) -> np.ndarray:
        return session.run([output], {"images": images})[0]

    return run
