"""Exported models as estimators of scikit-learn, without torch."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from joblib import cpu_count
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.metaestimators import available_if

from sklearn_dl._images import (
    FILTERS,
    Channels,
    ImageDecodeError,
    as_source,
    decode_image,
    resize_part,
    resized_size,
    strip_part,
)
from sklearn_dl.persistence._exported_file import open_graph


def _gives(output: str):
    return lambda self: self._metadata["output"] == output


class _Exported(BaseEstimator):
    """What the classifier and the regressor share: images through the graph."""

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        batch_size: int = 32,
        image_shape: tuple[int, ...] | None = None,
        providers: Sequence[str] = ("CPUExecutionProvider",),
    ):
        self.path = path
        self.batch_size = batch_size
        self.image_shape = image_shape
        self.providers = providers

    def fit(self, X=None, y=None):
        """Return the model as it is: what it knows is in its file."""
        _ = self._metadata
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self):
        """Declare the forms of X: rows of pixels, stacks of images, paths."""
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        return tags

    def __getstate__(self):
        return {k: v for k, v in super().__getstate__().items() if k != "_opened"}

    @property
    def _metadata(self) -> dict[str, Any]:
        return self._graph()[1]

    @property
    def preprocessing_(self) -> dict[str, Any]:
        """How images are resized and cropped; the graph does the rest."""
        return self._metadata["preprocessing"]

    def _graph(self) -> tuple[Any, dict[str, Any]]:
        """Return a session of onnxruntime with the file, and its metadata."""
        wanted = os.fspath(self.path), tuple(self.providers)
        if getattr(self, "_opened", (None,))[0] != wanted:  # set_params may change it
            self._opened = wanted, open_graph(*wanted)
        return self._opened[1]

    def _asked(self) -> Any:
        """Return what images are read as: `image_shape`, and the file's channels."""
        shape, metadata = self.image_shape, self._metadata
        n = len(metadata["preprocessing"]["mean"])
        asked = metadata.get("channels") or ({"channels": n} if n != 3 else None)
        if asked is None or isinstance(shape, Channels):
            return shape
        return Channels(**(asked if shape is None else {**asked, "shape": shape}))

    def _run(self, X) -> np.ndarray:
        """Return the outputs of the graph, (n, k)."""
        session, metadata = self._graph()
        rule = metadata["preprocessing"]
        n = len(rule["mean"])
        source = as_source(X, image_shape=self._asked())
        if (found := 3 if source.channels is None else source.channels.n) != n:
            raise ValueError(
                f"X has images of {found} channels, but the graph takes {n}."
            )
        read = partial(_pixels, source, rule)
        parts = []
        threads = min(8, cpu_count()) if source.thread_safe else 1
        with ThreadPoolExecutor(threads) as executor:
            for start in range(0, len(source), self.batch_size):
                rows = range(start, min(start + self.batch_size, len(source)))
                pixels = list(executor.map(read, rows))
                failures = [p for p in pixels if isinstance(p, ImageDecodeError)]
                if failures:
                    raise ImageDecodeError.join(failures)
                feed = {"images": np.stack(pixels)}
                parts.append(session.run([metadata["output"]], feed)[0])
        return np.concatenate(parts)


class ExportedClassifier(ClassifierMixin, _Exported):
    """A classifier that `export_onnx` wrote, run by onnxruntime.

    It needs neither torch nor torchvision. `load_exported` makes it.

    Parameters
    ----------
    path : str or path-like
        The ``.onnx`` file.
    batch_size : int, default=32
        Images in one run of the graph.
    image_shape : tuple of int, Channels or None, default=None
        (height, width) or (height, width, channels) of rows of pixels; None infers it
        where images are square. Which channels of images are taken the file says;
        `sklearn_dl.datasets.Channels` takes others.
    providers : sequence of str, default=("CPUExecutionProvider",)
        Those of onnxruntime, such as ``"CUDAExecutionProvider"``, the preferred first.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels, in the order of the columns.
    preprocessing_ : dict
        How images are resized and cropped.

    Examples
    --------
    >>> from sklearn_dl.persistence import ExportedClassifier
    >>> ExportedClassifier("ants_bees.onnx", batch_size=8)
    ExportedClassifier(batch_size=8, path='ants_bees.onnx')
    """

    @property
    def classes_(self) -> np.ndarray:
        """Labels, in the order of the columns."""
        metadata = self._metadata
        return np.array(metadata["classes"], dtype=metadata["classes_dtype"])

    @available_if(_gives("probabilities"))
    def predict_proba(self, X):
        """Return the probability of each class, or of each label.

        Parameters
        ----------
        X : images, in any form that `ImageClassifier` takes

        Returns
        -------
        ndarray of shape (n_images, n_classes)
        """
        return self._run(X)

    @available_if(_gives("scores"))
    def decision_function(self, X):
        """Return the score of each class; of two classes that of the second.

        Parameters
        ----------
        X : images, in any form that `ImageClassifier` takes

        Returns
        -------
        ndarray of shape (n_images,) or (n_images, n_classes)
        """
        scores = self._run(X)
        if self._metadata["kind"] == "labels" or scores.shape[1] > 2:
            return scores
        return scores[:, -1] - scores[:, 0] if scores.shape[1] == 2 else scores[:, 0]

    def predict(self, X):
        """Return the most probable class of each image, or its labels.

        Parameters
        ----------
        X : images, in any form that `ImageClassifier` takes

        Returns
        -------
        ndarray of shape (n_images,) or (n_images, n_labels)
        """
        values, metadata = self._run(X), self._metadata
        if metadata["kind"] == "labels":
            return (values > (0.5 if metadata["output"] == "probabilities" else 0)) * 1
        if values.shape[1] == 1:
            return self.classes_[(values[:, 0] > 0).astype(int)]
        return self.classes_[values.argmax(axis=1)]


class ExportedRegressor(RegressorMixin, _Exported):
    """A regressor that `export_onnx` wrote, run by onnxruntime.

    It needs neither torch nor torchvision. `load_exported` makes it.

    Parameters
    ----------
    path, batch_size, image_shape, providers
        As in `ExportedClassifier`, and so is the attribute ``preprocessing_``.

    Examples
    --------
    >>> from sklearn_dl.persistence import ExportedRegressor
    >>> ExportedRegressor("weight.onnx")
    ExportedRegressor(path='weight.onnx')
    """

    def predict(self, X):
        """Return the targets of each image.

        Parameters
        ----------
        X : images, in any form that `ImageRegressor` takes

        Returns
        -------
        ndarray of shape (n_images,) or (n_images, n_targets)
        """
        values = self._run(X)
        return values[:, 0] if self._metadata["single"] else values


def load_exported(
    path: str | os.PathLike,
    *,
    batch_size: int = 32,
    image_shape: tuple[int, ...] | None = None,
    providers: Sequence[str] = ("CPUExecutionProvider",),
) -> ExportedClassifier | ExportedRegressor:
    """Make a classifier or regressor of a file that `export_onnx` wrote.

    It takes images as the original did, with onnxruntime and Pillow: torch is neither
    needed nor imported. For images of 8 bits it predicts the same.

    Parameters
    ----------
    path : str or path-like
        The ``.onnx`` file.
    batch_size, image_shape, providers
        As in `ExportedClassifier`.

    Returns
    -------
    ExportedClassifier or ExportedRegressor

    Raises
    ------
    ModelFileError
        If the file is not what `export_onnx` wrote, to the last bit: it was damaged, or
        changed by another tool; or it is another's, such as a ``.pt2``, whose loading
        can run code.
    FileNotFoundError
        If there is no such file.
    ImportError
        If onnxruntime is missing: ``pip install onnxruntime``.

    Notes
    -----
    RGB arrays of floats, which should lie in [0, 1], and of 16 bits are rounded to 8
    bits, which is what the graph takes: predictions differ a little from the
    original's.

    Examples
    --------
    >>> from sklearn_dl.persistence import load_exported
    >>> model = load_exported("ants_bees.onnx")  # doctest: +SKIP
    >>> model.predict(["some/image.jpg"])  # doctest: +SKIP
    array(['ants'], dtype='<U4')
    """
    opened = open_graph(path, tuple(providers))
    regressor = opened[1]["kind"] == "targets"
    kind = ExportedRegressor if regressor else ExportedClassifier
    model = kind(
        path, batch_size=batch_size, image_shape=image_shape, providers=providers
    )
    model._opened = (os.fspath(path), tuple(providers)), opened
    return model


def _pixels(source, preprocessing: dict[str, Any], row: int) -> Any:
    """Return an image as the graph takes it, or why there is none."""
    try:
        image = source[row]
    except ImageDecodeError as error:
        return error
    if len(preprocessing["mean"]) != 3:
        return _bands(np.asarray(image), preprocessing)
    if isinstance(image, np.ndarray):
        image = decode_image(image)
    return np.asarray(_geometry(image, preprocessing).convert("RGB"))


def _bands(image: np.ndarray, rule: dict[str, Any]) -> np.ndarray:
    """Return channels (H, W, C) at the graph's size, as floats in [0, 1]."""
    bands = [Image.fromarray(band) for band in np.moveaxis(image, -1, 0)]
    pixels = np.stack([np.asarray(_geometry(b, rule)) for b in bands], axis=-1)
    return pixels.astype(np.float32) / (255 if pixels.dtype == np.uint8 else 1)


def _geometry(image: Image.Image, rule: dict[str, Any]) -> Image.Image:
    """Resize and crop an image as `sklearn_dl.backbones.Preprocessing` does."""
    resize, crop = rule["resize_size"], rule["crop_size"]
    width, height = image.size
    size = resized_size(resize, rule.get("resize_side") == "longer", height, width)
    kind = FILTERS[rule.get("interpolation", "bilinear")]
    part = strip_part((height, width), size, crop)
    if part is not None:
        image = resize_part(image, *part, kind)
    elif size != (height, width):
        image = image.resize(size[::-1], kind)
    if crop is None:
        return image
    left, top = _start(image.width, crop[1]), _start(image.height, crop[0])
    return image.crop((left, top, left + crop[1], top + crop[0]))


def _start(have: int, want: int) -> int:
    """Return where a crop begins: before the image, in black, where that is smaller."""
    return round((have - want) / 2) if have >= want else -((want - have) // 2)
