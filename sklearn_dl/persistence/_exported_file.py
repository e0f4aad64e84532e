"""The file of an exported model: a graph, and what it says about itself, checked."""

import hashlib
import json
import os
import zipfile
from importlib.util import find_spec
from typing import Any

import numpy as np

from sklearn_dl._files import ModelFileError, check_file, first_line
from sklearn_dl._images import Asked, Channels, check_preprocessing

FORMAT = "sklearn_dl exported model"
VERSION = 2  # 1 had no digest
_KINDS = ("classes", "labels", "targets")
_DIGEST = b"sklearn_dl.sha256"


def seal(data: bytes | memoryview) -> bytes:
    """Return what `export_onnx` puts behind an ONNX model: the digest of its bytes.

    It is one more entry of the model's metadata, as protobuf writes it: messages can
    be continued, so those who read the file need not know of it.
    """
    digest = hashlib.sha256(data).hexdigest().encode()
    parts = ((1, _DIGEST), (2, digest))  # fields of an entry: its key, its value
    entry = b"".join(_field(number, part) for number, part in parts)
    return _field(14, entry)  # of a ModelProto: `metadata_props`


def _field(number: int, content: bytes) -> bytes:
    """Return a field of protobuf, of at most 127 bytes."""
    return bytes([number << 3 | 2, len(content)]) + content


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
    _check_digest(path, data)
    try:
        session = onnxruntime.InferenceSession(data, options, providers=[*providers])
        text = session.get_modelmeta().custom_metadata_map.get("sklearn_dl", "null")
    except Exception as error:  # onnxruntime raises errors of many kinds
        raise ModelFileError(
            f"{path} ({len(data)} bytes) is no ONNX graph that onnxruntime "
            f"{onnxruntime.__version__} can run: {first_line(error)}"
        ) from error
    return session, _described(path, text, session)


def _check_digest(path: str, data: bytes) -> None:
    """Raise where a file isn't what `export_onnx` wrote, to the last bit."""
    length = len(seal(b""))
    written = memoryview(data)[:-length]
    if data[-length:] == seal(written):
        return
    if FORMAT.encode() not in data:
        raise ModelFileError(
            f"{path} ({len(data)} bytes) is no file of export_onnx, or is cut off."
        )
    raise ModelFileError(
        f"{path} is not what export_onnx wrote: the digest at its end is missing or "
        "differs. It was damaged, changed by another tool, or written by a version of "
        "sklearn_dl without digests. Export the model again."
    )


def _described(path: str, text: str, session: Any) -> dict[str, Any]:
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError):
        metadata = None
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise ModelFileError(f"{path} is an ONNX graph, but none of export_onnx.")
    version = metadata.get("version")
    if type(version) is not int or version != VERSION:
        writer = metadata.get("versions")
        writer = writer.get("sklearn_dl") if isinstance(writer, dict) else None
        raise ModelFileError(
            f"{path} was written by sklearn_dl {writer!s:.40}, with the format "
            f"{version!r:.20}: this one knows the format {VERSION}. Update sklearn_dl, "
            "or export the model again."
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
    rule, size = metadata["preprocessing"], tuple(taken.shape[1:3])
    check_preprocessing(rule)
    if len(rule["mean"]) != channels:
        raise ValueError(f"the preprocessing isn't for {channels} channels")
    if asked := metadata.get("channels"):
        taken = Asked.of(Channels(**asked)).channels
        if taken is None or taken.n != channels:
            raise ValueError(f"{asked!r:.80} are not {channels} channels")
    given = rule["resize_size"] if rule["crop_size"] is None else rule["crop_size"]
    if isinstance(given, list) and tuple(given) != size:
        raise ValueError(f"images of {given} are cropped for a graph of {size}")
    if metadata["kind"] == "targets":
        return
    dtype = metadata["classes_dtype"]
    try:
        classes = np.array(metadata["classes"], dtype=dtype)
    except (TypeError, ValueError) as error:
        raise ValueError(f"classes are no labels of classes_dtype: {error}") from error
    if classes.dtype.hasobject or classes.ndim != 1 or not len(classes):
        raise ValueError("classes are no list of labels")
    columns = shape[1] if len(shape) == 2 else None
    binary = metadata["output"] == "scores" and len(classes) == 2
    if columns != len(classes) and not (binary and columns == 1):
        raise ValueError(f"there are {len(classes)} classes for outputs of {shape}")
