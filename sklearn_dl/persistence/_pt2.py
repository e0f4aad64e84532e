"""Export to torch's own format of graphs."""

import io
import os
import warnings
from typing import Any

import numpy as np

from sklearn_dl._files import check_target, replacing
from sklearn_dl.persistence._errors import ModelFileError
from sklearn_dl.persistence._graph import exported_program, graph_of


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
        As in `export_onnx`; and if `path` ends in something else, which
        ``torch.export.load`` wouldn't take.

    Warnings
    --------
    Loading a ``.pt2`` can run code: ``torch.export.load`` falls back on pickle. Only
    load those that you wrote. Nothing in this library loads one.

    Notes
    -----
    Input and output are those of `export_onnx`. The metadata are in the extra file
    ``sklearn_dl.json``.

    Examples
    --------
    >>> from sklearn_dl.persistence import export_pt2
    >>> export_pt2(model, "ants_bees.pt2")  # doctest: +SKIP
    """
    import torch

    if not os.fspath(path).endswith(".pt2"):
        raise ModelFileError(f"{os.fspath(path)!r} must end in '.pt2'.")
    check_target(path)
    graph = graph_of(estimator)
    try:
        program = exported_program(graph.module, graph.size)
    except Exception as error:  # the exporter raises errors of many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise ModelFileError(
            f"torch {torch.__version__} can't export this backbone: {reason}"
        ) from error
    module = program.module()

    def run(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return module(torch.from_numpy(images)).numpy()

    graph.check(run, "The exported program")
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of its own functions
        torch.export.save(program, buffer, extra_files={"sklearn_dl.json": graph.text})
    with replacing(path) as file:
        file.write(buffer.getbuffer())
