"""Keeping fitted models: saving, loading, and exporting them for other programs.

`save` and `load` keep estimators, pipelines and ensembles in one file that holds data
and no code. `export_onnx` writes a graph that runs without torch; `load_exported` makes
a classifier or regressor of it.
"""

from typing import TYPE_CHECKING

from sklearn_dl._files import ModelFileError
from sklearn_dl._files import check_file as check_file
from sklearn_dl._lazy import lazy

if TYPE_CHECKING:
    from sklearn_dl._saving import read_versions as read_versions
    from sklearn_dl.persistence._export import export_onnx, export_pt2
    from sklearn_dl.persistence._exported import (
        ExportedClassifier,
        ExportedRegressor,
        load_exported,
    )
    from sklearn_dl.persistence._exported_file import open_graph as open_graph
    from sklearn_dl.persistence._save import load, save
    from sklearn_dl.persistence._state_dict import export_state_dict

__all__ = [
    "ExportedClassifier",
    "ExportedRegressor",
    "ModelFileError",
    "export_onnx",
    "export_pt2",
    "export_state_dict",
    "load",
    "load_exported",
    "save",
]

# Torch is imported by those that need it: who uses an exported model doesn't have it.
__getattr__, __dir__ = lazy(
    __name__,
    {
        "ExportedClassifier": "sklearn_dl.persistence._exported",
        "ExportedRegressor": "sklearn_dl.persistence._exported",
        "export_onnx": "sklearn_dl.persistence._export",
        "export_pt2": "sklearn_dl.persistence._export",
        "export_state_dict": "sklearn_dl.persistence._state_dict",
        "load": "sklearn_dl.persistence._save",
        "load_exported": "sklearn_dl.persistence._exported",
        "open_graph": "sklearn_dl.persistence._exported_file",
        "read_versions": "sklearn_dl._saving",
        "save": "sklearn_dl.persistence._save",
    },
)
