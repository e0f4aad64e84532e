"""The file of an exported model: a graph, and what it says about itself, checked."""

import json
import os
import zipfile
from importlib.util import find_spec
from typing import Any

import numpy as np
from PIL import Image

from sklearn_dl._files import first_line
from sklearn_dl.persistence._errors import ModelFileError, check_file

FORMAT = "sklearn_dl exported model"
VERSION = 1
FILTERS = {kind.name.lower(): kind for kind in Image.Resampling}
FILTERS["nearest-exact"] = Image.Resampling.NEAREST
_KINDS = ("classes", "labels", "targets")
_LARGEST_SIDE = 2**14  # pixels


def open_graph(
    path: str | os.PathLike, providers: tuple[str, ...]
) -> tuple[Any, dict[str, Any]]:
    """Return a session of onnxruntime with a file, and the file's metadata."""
    path = check_file(path)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            saved = "manifest.json" in archive.namelist()
        other = "a file of torch, whose loading can run code, or another zip"
        kind = "a file of save: read it with load" if saved else other
        raise ModelFileError(f"{path} is {kind}. This takes what export_onnx wrote.")
    if find_spec("onnxruntime") is None:
        raise ImportError("load_exported needs onnxruntime: pip install onnxruntime.")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    with open(path, "rb") as file:
        data = file.read()  # as bytes, so that it can't refer to other files
    try:
        session = onnxruntime.InferenceSession(data, options, providers=[*providers])
    except Exception as error:  # onnxruntime raises errors of many kinds
        raise ModelFileError(
            f"{path} ({len(data)} bytes) is no ONNX graph that onnxruntime "
            f"{onnxruntime.__version__} can run: {first_line(error)}"
        ) from error
    text = session.get_modelmeta().custom_metadata_map.get("sklearn_dl", "null")
    return session, _described(path, text, session)


def _described(path: str, text: str, session: Any) -> dict[str, Any]:
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError):
        metadata = None
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise ModelFileError(f"{path} is an ONNX graph, but none of export_onnx.")
    version = metadata.get("version")
    if type(version) is not int or version > VERSION:
        writer = metadata.get("versions")
        writer = writer.get("sklearn_dl") if isinstance(writer, dict) else None
        raise ModelFileError(
            f"{path} was written by sklearn_dl {writer!s:.40}, with the format "
            f"{version!r:.20}: this one knows those up to {VERSION}. Update sklearn_dl."
        )
    try:
        _check(metadata, session)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ModelFileError(
            f"What {path} says about itself doesn't fit its graph, or is damaged: "
            f"{type(error).__name__}: {error!s:.200}"
        ) from error
    return metadata


def _check(metadata: dict[str, Any], session: Any) -> None:
    """Raise where metadata and graph are not what `export_onnx` writes."""
    if metadata["kind"] not in _KINDS:
        raise ValueError(f"the kind {metadata['kind']!r:.40} is not known")
    if metadata["kind"] == "targets" and type(metadata["single"]) is not bool:
        raise ValueError("single is neither true nor false")
    outputs = {output.name: output.shape for output in session.get_outputs()}
    shape = outputs[metadata["output"]]
    (taken,) = session.get_inputs()
    if taken.name != "images" or len(taken.shape) != 4:
        raise ValueError(f"the graph takes {taken.name!r:.40} of {taken.shape}")
    channels = taken.shape[3]
    kind = "tensor(uint8)" if channels == 3 else "tensor(float)"
    if type(channels) is not int or channels < 1 or taken.type != kind:
        raise ValueError(f"the graph takes {taken.type!r:.40} of {channels!r} channels")
    if len(metadata["preprocessing"]["mean"]) != channels:
        raise ValueError(f"the preprocessing isn't for {channels} channels")
    _check_rule(metadata["preprocessing"], tuple(taken.shape[1:3]))
    if metadata["kind"] == "targets":
        return
    classes = np.array(metadata["classes"], dtype=metadata["classes_dtype"])
    if classes.dtype.hasobject or classes.ndim != 1 or not len(classes):
        raise ValueError("the classes are no list of labels")
    columns = shape[1] if len(shape) == 2 else None
    binary = metadata["output"] == "scores" and len(classes) == 2
    if columns != len(classes) and not (binary and columns == 1):
        raise ValueError(f"there are {len(classes)} classes for outputs of {shape}")


def _check_rule(rule: dict[str, Any], size: tuple[Any, ...]) -> None:
    if rule["interpolation"] not in FILTERS:
        raise ValueError(f"the interpolation {rule['interpolation']!r:.40} is unknown")
    if rule.get("resize_side") not in (None, "shorter", "longer"):
        raise ValueError(f"the side {rule['resize_side']!r:.40} is unknown")
    resize, crop = rule["resize_size"], rule["crop_size"]
    sides = resize if isinstance(resize, list) else [resize]
    for side in [*sides, *([] if crop is None else crop)]:
        if side is not None and not (type(side) is int and 0 < side <= _LARGEST_SIDE):
            raise ValueError(f"{side!r:.40} is no side of an image in pixels")
    given = resize if crop is None else crop
    if isinstance(given, list) and tuple(given) != size:
        raise ValueError(f"images of {given} are cropped for a graph of {size}")
