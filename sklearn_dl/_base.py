"""Reading of X, loading of the backbone, and the tags: what all estimators share."""

import copy
import copyreg
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted, validate_data

from sklearn_dl._doc_link import DocLinkMixin
from sklearn_dl._extraction import PixelReader, channel_statistics, resolve_cache
from sklearn_dl._images import Channels, ImageSource, as_source
from sklearn_dl._runtime import Execution
from sklearn_dl.backbones import Backbone, further_kernels, shared_backbone

try:  # scikit-learn 1.9 and later
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Stands in where scikit-learn has no callbacks."""

    def with_callbacks(method):
        """Return the method as it is."""
        return method


_UNSEEDED = count()  # random backbones of this process that no cache can serve


_PICKLING: ContextVar[bool] = ContextVar("_PICKLING", default=False)


class Attributes(dict):
    """What pickle keeps of an estimator. No file of skops holds one, unless trusted."""


class ImageEstimatorMixin(DocLinkMixin, CallbackSupportMixin):
    """Any X in, through one backbone."""

    def __sklearn_tags__(self):
        """Declare the forms of X: rows of pixels, stacks of images, paths."""
        tags = super().__sklearn_tags__()
        # There is no tag for stacks of colour images, (n, H, W, C).
        tags.input_tags.two_d_array = True
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        return tags

    @contextmanager
    def _fit_task(self, X, y, n_tasks: int = 0, **metadata) -> Iterator[Any]:
        """Run a fit as a task of scikit-learn's callbacks; undo it if it fails.

        Yields the callbacks' context and what their hooks are given, or None where
        scikit-learn has no callbacks.
        """
        context = None
        data = {"X": X, "y": y, "metadata": metadata or None}
        if hasattr(self, "_init_callback_context"):
            context = self._init_callback_context(max_subtasks=n_tasks)
            context.call_on_fit_task_begin(estimator=self, **data)
        before = dict(self.__dict__)
        try:
            yield None if context is None else (context, data)
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise
        if context is not None:
            context.call_on_fit_task_end(
                estimator=self, reconstruction_attributes=dict, **data
            )

    def _fit_source(self, X, goes_on: bool = False) -> ImageSource:
        """Check the X of a fit, which may go on, and remember its columns."""
        shape = image_shape_of(self) if goes_on else self.image_shape
        source = as_source(X, image_shape=shape)
        self.__dict__.pop("n_features_in_", None)
        validate_data(self, X, skip_check_array=True, ensure_2d=False)
        if source.n_features is not None:
            self.n_features_in_ = source.n_features
        self._fitted_kind = source.kind
        self._fitted_channels = _channels_of(source)
        return source

    def _new_source(self, X) -> ImageSource:
        """Check the X that a fitted estimator is given."""
        check_is_fitted(self)
        return self._checked_source(X)

    def _checked_source(self, X) -> ImageSource:
        """Check X against the one of the fit."""
        channels = getattr(self, "_fitted_channels", None)
        source = as_source(X, image_shape=image_shape_of(self))
        if (found := _channels_of(source)) != channels:
            raise ValueError(
                f"X has images of {_said(found)}, but {type(self).__name__} was fitted "
                f"on images of {_said(channels)}."
            )
        if source.kind == "pixels" != self._fitted_kind and self.image_shape is None:
            height, width = np.shape(X)  # perhaps of one grey image
            if max(height, width) <= 4 * min(height, width):
                raise ValueError(
                    f"X of shape {(height, width)} would be {height} rows of pixels, "
                    f"but {type(self).__name__} was fitted on images of another form. "
                    "One grey image is X[None]; rows of pixels need "
                    "image_shape=(height, width[, channels])."
                )
        rows_of_pixels = source.kind == self._fitted_kind == "pixels"
        if rows_of_pixels or (hasattr(X, "columns") and source.n_features == 1):
            validate_data(self, X, reset=False, skip_check_array=True, ensure_2d=False)
        # Images are images: paths may follow arrays.
        if not rows_of_pixels:
            return source
        if source.n_features != self.n_features_in_:
            raise ValueError(
                f"X has {source.n_features} features, but {type(self).__name__} is "
                f"expecting {self.n_features_in_} features as input: rows must have "
                "as many pixels as in fit."
            )
        return source

    def __getstate__(self):
        """Return the state that skops keeps: arrays, with a recipe of the network.

        Pickle, copies and joblib, which ask by `__reduce_ex__`, get the attributes.
        """
        if _PICKLING.get():
            return Attributes(self._pickled_state())
        from sklearn_dl._saving import to_arrays

        return to_arrays(self, ImageEstimatorMixin)

    def __setstate__(self, state):
        # A subclass may have made a plain dict of the attributes.
        plain = not type(self).__setstate__.__module__.startswith("sklearn_dl.")
        if "manifest.json" in state or not (plain or isinstance(state, Attributes)):
            from sklearn_dl._saving import from_arrays

            state = vars(from_arrays(state, ImageEstimatorMixin, type(self)))
        super().__setstate__(state)

    def __reduce_ex__(self, protocol):
        token = _PICKLING.set(True)
        try:
            state = self.__getstate__()  # that of a subclass too
        finally:
            _PICKLING.reset(token)
        return copyreg.__newobj__, (type(self),), Attributes(state)

    def _pickled_state(self) -> dict[str, Any]:
        """Return the attributes, with networks on the CPU."""
        return super().__getstate__()

    def _execution(self, *, fall_back: bool = False) -> Execution:
        """Return the device, the precision and the batch size of a call."""
        how = self.device, self.precision, self.batch_size, self.verbose
        return Execution.of(*how, fall_back=fall_back)

    def _load_backbone(
        self, source: ImageSource, seed: int, execution: Execution, rows: Any = None
    ) -> Backbone:
        """Return the backbone, frozen, with its preprocessing for these training rows.

        All estimators of the process that ask for the same have the very same one.
        """
        if self.cache != "memory":  # what is wrong with it is said now
            resolve_cache(self.cache)
        if self.weights is None:
            self._warn_once_that_nothing_hits()
        normalization = None
        if isinstance(self.preprocessing, str | tuple | list):
            n_channels = 3 if source.channels is None else source.channels.n
            normalization = _normalization(self.preprocessing, n_channels)
        size = self.image_size
        backbone = shared_backbone(
            self.backbone,
            self.weights,
            layer=tuple(self.layer) if isinstance(self.layer, list) else self.layer,
            preprocessing=None if normalization else self.preprocessing,
            image_size=tuple(size) if isinstance(size, list) else size,
            channels=source.channels,
            seed=seed,
            device=execution.device,
            dtype=execution.module_dtype,
        )
        n = backbone.preprocessing.n_channels
        if source.channels is None and n not in (1, 3):
            raise ValueError(
                f"The backbone takes images of {n} channels, but X is read as RGB or "
                f"grey: image_shape=Channels({n}) reads all {n}."
            )
        if n > 3:
            self._warn_of_unseen_channels(backbone)
        if normalization is None:
            return backbone
        preprocessing = backbone.preprocessing
        if normalization == "data":
            with PixelReader(source, preprocessing, execution.device, rows) as reader:
                normalization = channel_statistics(reader, execution.step_size)
        return backbone.replace_preprocessing(
            preprocessing.replace_normalization(*normalization)
        )

    def _warn_of_unseen_channels(self, backbone: Backbone) -> None:
        """Warn of channels behind RGB that a frozen first stage doesn't look at."""
        if not further_kernels(backbone):
            return
        trainable = getattr(self, "trainable", "head")
        trainable = getattr(trainable, "stages", trainable)
        if next(iter(backbone.stages)) not in backbone.trainable_stages(trainable):
            warnings.warn(
                "The channels behind the first three, which are taken for red, green "
                "and blue, change nothing: their kernels are zero, and stay so without "
                "training of the first stage (trainable='all'). Channels(..., "
                "rgb=False) looks at all channels, Channels([3]) at the fourth alone.",
                UserWarning,
                stacklevel=2,
            )

    def _warn_once_that_nothing_hits(self) -> None:
        """Warn at the second of the random backbones that no cache can serve."""
        frozen = getattr(self, "trainable", "head") == "head"
        found_again = callable(self.backbone) or self.random_state is not None
        if frozen and not found_again and self.cache is not None:
            if next(_UNSEEDED) == 1:
                warnings.warn(
                    "weights=None with random_state=None draws another backbone at "
                    "each fit, so that no features are found again in the cache: set "
                    "random_state.",
                    UserWarning,
                    stacklevel=2,
                )


def on_cpu(module: torch.nn.Module) -> torch.nn.Module:
    """Return the module on the CPU, a copy where it is on another device."""
    tensor = next(module.parameters(), None)
    if tensor is None or tensor.device.type == "cpu":
        return module
    return copy.deepcopy(module).cpu()


def _channels_of(source: ImageSource) -> tuple[int, bool] | None:
    """Return how many channels images have, and whether they are in colour.

    None for those in grey, RGB and RGBA.
    """
    channels = source.channels
    return None if channels is None else (channels.n, channels.rgb)


def _said(channels: tuple[int, bool] | None) -> str:
    return "RGB or grey" if channels is None else f"{channels[0]} channels"


def _normalization(preprocessing, n_channels: int) -> Any:
    """Return "data" or (mean, std) where `preprocessing` is that, else None."""
    if isinstance(preprocessing, str):
        return "data" if preprocessing == "data" else None
    try:
        mean, std = (tuple(float(v) for v in part) for part in preprocessing)
    except (TypeError, ValueError):
        mean, std = (), ()
    finite = all(math.isfinite(value) for value in (*mean, *std))
    right = len(mean) == len(std) == n_channels
    if not right or min(std) <= 0 or not finite:
        n = "three" if n_channels == 3 else n_channels
        raise ValueError(
            f"preprocessing={preprocessing!r} is not a pair (mean, std) of {n} "
            "channels each, finite and with std > 0; or use 'data', for those of the "
            "training rows."
        )
    return mean, std


def image_shape_of(estimator: Any) -> Any:
    """Return the `image_shape` of an estimator, with the channels found in its fit."""
    shape, channels = estimator.image_shape, vars(estimator).get("_fitted_channels")
    if channels is None or isinstance(shape, Channels):
        return shape
    # Files don't tell that they are to be read with all channels.
    return Channels(channels[0], rgb=channels[1], shape=shape)


def network_of(estimator: Any) -> Any:
    """Return what an estimator predicts with, which nobody may change.

    A `BackboneWithHead`, the `Backbone` of an extractor, or None where it isn't fitted.
    """
    state = vars(estimator)
    return state.get("_network", state.get("_backbone"))


def estimators_within(value: Any, seen: set[int] | None = None) -> Iterator[Any]:
    """Yield an estimator and those that it holds, also in containers, each once."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return
    parts: Any = ()
    if hasattr(value, "get_params") and not isinstance(value, type):
        yield value
        parts = vars(value).values()
    elif isinstance(value, dict):
        parts = value.values()
    elif type(value) in (list, tuple):
        parts = value
    if parts:
        seen.add(id(value))
    for part in parts:
        yield from estimators_within(part, seen)
