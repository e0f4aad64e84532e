"""Loader of map-style datasets, such as those of torchvision and Hugging Face."""

import os
import sys
import warnings
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from PIL import Image
from sklearn.utils import Bunch

from sklearn_dl._images import IMAGE_KEYS, DatasetItem, ImageDecodeError
from sklearn_dl.datasets._common import (
    class_names,
    did_you_mean,
    indicators,
    object_column,
    result,
    several_labels,
)

_TARGETS = ("targets", "labels", "_labels", "y")
_SAMPLES = ("samples", "imgs", "_samples")
_FILES = (*_SAMPLES, "_image_files", "_images")
TARGET_KEYS = (
    *("label", "labels", "target", "targets", "class", "cls", "category"),
    *("fine_label", "class_label"),
)


def load_torch_dataset(
    dataset: Any,
    *,
    image: str | None = None,
    target: str | None = None,
    return_X_y: bool = False,
) -> Any:
    """View any map-style dataset as lazy X and y.

    Parameters
    ----------
    dataset : object with ``__len__`` and ``__getitem__``
        A dataset of torchvision or of Hugging Face, a ``Subset``, ``ConcatDataset`` or
        ``TensorDataset``, an array of h5py or zarr, or one's own. An item is the image,
        a tuple (image, target, ...) or a mapping with "image" and "label"; the image a
        PIL image, a path, encoded bytes, an array (H, W[, C]) or a tensor (C, H, W),
        uint8 or float.
    image : str, default=None
        Name of the image where items are mappings. By default the only column of
        Hugging Face's type ``Image``, or a usual name, such as "image" or "img".
    target : str, default=None
        Name of the target where items are mappings. By default a usual name, such as
        "label" or "fine_label", or the only column of the type ``ClassLabel``.
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of the bunch.

    Returns
    -------
    bunch : :class:`~sklearn.utils.Bunch`
        ``data``, an (n, 1) object array of handles on the items, which are read when
        an estimator needs them; ``target``, (n,) or (n, k), or None if items are images
        alone; ``target_names``, the classes or None; ``filenames``, the (n,) paths or
        None.

    Raises
    ------
    TypeError
        If the dataset has no length or cannot be indexed.
    ValueError
        If it is empty, or has no image or target of that name.
    ImageDecodeError
        If an item cannot be read; the error names its row.

    Warns
    -----
    UserWarning
        If items have more than an image, but no target was found.

    Notes
    -----
    Targets come from the dataset's own list of them where it has one (``targets``,
    ``labels``, ``samples``, a column of Hugging Face's); otherwise every item is read
    once. Where the dataset has ``classes``, or a column ``names``, integer targets
    become these names, unless the dataset transforms its targets.

    The dataset's own transform is kept, and called each time an item is read: with a
    random one each reading differs. Floats are passed on as they are, so leave
    normalisation to the estimator. Estimators read items in threads.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_dl.datasets import load_torch_dataset
    >>> images = np.zeros((3, 8, 8, 3), dtype="uint8")
    >>> dataset = list(zip(images, ["ant", "bee", "ant"]))
    >>> X, y = load_torch_dataset(dataset, return_X_y=True)
    >>> X.shape, y
    ((3, 1), array(['ant', 'bee', 'ant'], dtype='<U3'))
    """
    _check_map_style(dataset)
    n = _length(dataset)
    if n == 0:
        raise ValueError("The dataset is empty.")
    items, columns = dataset, has_columns(dataset)
    if columns:
        items, image = image_view(dataset, image)
    raw = _known_targets(dataset, target)
    if raw is None and not columns:
        raw = _read_targets(dataset, target)
    if raw is None:
        _warn_without_target(dataset[0], image)
    y, names = raw, _classes(dataset, target)
    if raw is not None:
        y, names = _named(raw, names, columns)
    bunch = Bunch(
        data=object_column([DatasetItem(items, row, image) for row in range(n)]),
        target=y,
        target_names=names,
        filenames=_files(dataset),
    )
    return result(bunch, return_X_y)


def _check_map_style(dataset: Any) -> None:
    kind = type(dataset).__name__
    if isinstance(dataset, Mapping):
        parts = list(dataset)[:5]
        way_out = f"pass one of its parts, dataset[{parts[0]!r}]" if parts else "empty"
        raise TypeError(f"{kind} is a mapping of {parts}: {way_out}.")
    if _is(dataset, "DataLoader"):
        raise TypeError(f"{kind} makes batches: pass its dataset, loader.dataset.")
    if _is(dataset, "IterableDataset"):
        raise TypeError(
            f"{kind} is an iterable-style dataset: its items cannot be indexed. Use a "
            "map-style one (with __len__ and __getitem__), or list(dataset)."
        )
    sized = hasattr(dataset, "__len__") or hasattr(dataset, "shape")
    if not (sized and hasattr(dataset, "__getitem__")):
        raise TypeError(f"A dataset has __len__ and __getitem__; {kind} has not.")


def _length(dataset: Any) -> int:
    """Return the number of items, of an array of zarr too, which has no length."""
    return len(dataset) if hasattr(dataset, "__len__") else dataset.shape[0]


def _is(dataset: Any, name: str) -> bool:
    """Tell whether an object is of a class of torch.utils.data, if torch is loaded."""
    data = sys.modules.get("torch.utils.data")
    return data is not None and isinstance(dataset, getattr(data, name))


def _inner(dataset: Any) -> list[Any] | None:
    """Return the datasets a wrapper is made of, or None if it is none."""
    if _is(dataset, "Subset"):
        return [dataset.dataset]
    return list(dataset.datasets) if _is(dataset, "ConcatDataset") else None


def _gather(dataset: Any, parts: list[Any]) -> Any:
    """Bring what the wrapped datasets have into the order of the wrapper."""
    if any(part is None for part in parts):
        return None
    if _is(dataset, "Subset"):
        return parts[0][np.asarray(dataset.indices, dtype=np.intp)]
    return np.concatenate(parts)


# ----------------------------------------------------------------------- targets


def _known_targets(dataset: Any, key: str | None) -> np.ndarray | None:
    """Return the targets without reading an item, or None."""
    inner = _inner(dataset)
    if inner is not None:
        return _gather(dataset, [_known_targets(part, key) for part in inner])
    if has_columns(dataset):
        column = target_column(dataset, key)
        return None if column is None else _to_array(read_column(dataset, column))
    values = _listed_targets(dataset) if key is None else None
    if values is None:
        return None
    transform = getattr(dataset, "target_transform", None)
    if transform is not None:
        values = [transform(_scalar(value)) for value in values]
    return _to_array(values)


def _listed_targets(dataset: Any) -> Any:
    if _is(dataset, "TensorDataset"):
        return dataset.tensors[1] if len(dataset.tensors) > 1 else None
    for name in _TARGETS:
        values = _list_of(dataset, name)
        if len(values) == _length(dataset):
            return values
    for name in _SAMPLES:
        values = _list_of(dataset, name)
        if len(values) == _length(dataset) and all(map(_is_sample, values)):
            return [value[1] for value in values]
    return None


def _list_of(dataset: Any, name: str) -> Any:
    """Return the list, array or tensor of that name, empty if there is none."""
    values = getattr(dataset, name, None)
    if not hasattr(values, "__len__") or isinstance(values, str | bytes | Mapping):
        return []
    return values


def _is_sample(value: Any) -> bool:
    return (
        isinstance(value, tuple | list)
        and len(value) == 2
        and isinstance(value[0], str | os.PathLike)
    )


def _read_targets(dataset: Any, key: str | None) -> np.ndarray | None:
    values = []
    for row in range(_length(dataset)):
        try:
            item = dataset[row]
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise ImageDecodeError([(row, None, reason)]) from error
        found = _target_of(item, row, key)
        if found is None:
            return None
        values += found
    return _to_array(values)


def _target_of(item: Any, row: int, key: str | None) -> list[Any] | None:
    """Return the target of an item in a list, None if it has none."""
    if isinstance(item, Mapping):
        if key is not None and key not in item:
            known = sorted(map(str, item))
            raise ValueError(f"Row {row} has no target {key!r}, only {known}.")
        keys = TARGET_KEYS if key is None else (key,)
        return next(([item[key]] for key in keys if key in item), None)
    if key is not None:
        kind = type(item).__name__
        raise TypeError(f"target={key!r} is for items that are mappings; got {kind}.")
    return [item[1]] if isinstance(item, tuple | list) and len(item) > 1 else None


def _warn_without_target(item: Any, image: str | None) -> None:
    """Warn, if an item has something beside its image that a target could be."""
    if not isinstance(item, Mapping):
        return
    keys = item.keys() - {image, *IMAGE_KEYS}
    names = sorted(str(k) for k in keys if not isinstance(item[k], Image.Image))
    if names:
        warnings.warn(
            f"No target was found among {names}, so `target` is None: name it, such as "
            f"load_torch_dataset(dataset, target={names[0]!r}).",
            UserWarning,
            stacklevel=3,
        )


def _scalar(value: Any) -> Any:
    """Return the Python number of a tensor or array of one, else the value."""
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        return value.item()
    return value


def _to_array(values: Any) -> np.ndarray:
    if hasattr(values, "detach"):
        return values.detach().cpu().numpy()
    if isinstance(values, np.ndarray):
        return values
    plain = [_scalar(v.detach().cpu() if hasattr(v, "detach") else v) for v in values]
    try:
        array = np.array([v.numpy() if hasattr(v, "numpy") else v for v in plain])
    except ValueError:  # of different lengths
        array = np.empty(0, dtype=object)
    texts = all(isinstance(value, str) for value in plain)
    if array.dtype.kind in "biuf" or (array.dtype.kind == "U" and texts):
        return array
    array = np.empty(len(plain), dtype=object)
    array[:] = plain
    return array


# ------------------------------------------------------------------ names, files


def _named(
    raw: np.ndarray, names: np.ndarray | None, columns: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return targets with the names of classes in place of their codes, and names."""
    several = several_labels(raw.tolist()) if raw.dtype == object else None
    if columns and names is not None and (several or raw.ndim > 1):
        return indicators(raw.tolist(), range(len(names)))[0], names
    if several is not None:
        return several
    if names is None:
        return raw, class_names(raw)
    codes = raw.ndim == 1 and raw.dtype.kind in "iu"
    if codes and raw.min() >= 0 and raw.max() < len(names):
        return names[raw], names
    if columns:  # -1 and None among others are no label
        name_of = dict(enumerate(names.tolist()))
        named = [name_of.get(code) for code in raw.tolist()]
        return (raw if set(named) == {None} else _to_array(named)), names
    return raw, names


def _classes(dataset: Any, key: str | None) -> np.ndarray | None:
    """Return the names of classes that integer targets stand for, or None."""
    inner = _inner(dataset)
    if inner is not None:
        found: list[Any] = [_classes(part, key) for part in inner]
        first = found[0]
        same = all(np.array_equal(names, first) for names in found)
        return first if same else None
    if has_columns(dataset):
        column = target_column(dataset, key)
        return None if column is None else names_of(dataset, column)
    if getattr(dataset, "target_transform", None) is not None or key is not None:
        return None
    classes = _list_of(dataset, "classes")
    if len(classes) == 0:
        return None
    # ImageNet's are tuples of synonyms
    several = [c if isinstance(c, tuple | list) else [c] for c in classes]
    return np.array([", ".join(map(str, names)) for names in several])


def _files(dataset: Any) -> np.ndarray | None:
    inner = _inner(dataset)
    if inner is not None:
        return _gather(dataset, [_files(part) for part in inner])
    for name in _FILES:
        values = _list_of(dataset, name)
        if len(values) != _length(dataset):
            continue
        paths = [value[0] if _is_sample(value) else value for value in values]
        if all(isinstance(path, str | os.PathLike) for path in paths):
            return np.array([os.fspath(path) for path in paths])
    return None


def has_columns(dataset: Any) -> bool:
    """Tell a dataset of Hugging Face, by what it says of its columns."""
    named = isinstance(getattr(dataset, "features", None), Mapping)
    return named and hasattr(dataset, "select_columns")


def image_view(dataset: Any, name: str | None) -> tuple[Any, str | None]:
    """Return what reads the images alone, and their name in its items, if known."""
    if getattr(dataset, "format", {}).get("type") == "custom":
        return dataset, name  # a function of the user's makes the items
    name = _image_column(dataset, name)
    return dataset.with_format(None).select_columns([name]), name


def _image_column(dataset: Any, name: str | None) -> str:
    if name is not None:
        return _known(name, dataset.features)
    of_kind = _of_kind(dataset, "Image")
    likely = [key for key in IMAGE_KEYS if key in (of_kind or dataset.features)]
    likely = likely or of_kind
    if likely and (len(likely) == 1 or likely[0] in IMAGE_KEYS):
        return likely[0]
    found = "no column of images" if not likely else f"several of images, {likely}"
    raise ValueError(
        f"The dataset has {found}, among {list(dataset.features)}: name it with image=."
    )


def target_column(dataset: Any, name: str | None) -> str | None:
    """Return the name of the column of targets, or None."""
    if name is not None:
        return _known(name, dataset.features)
    for key in TARGET_KEYS:
        if key in dataset.features:
            return key
    classes = _of_kind(dataset, "ClassLabel")
    return classes[0] if len(classes) == 1 else None


def read_column(dataset: Any, name: str) -> Any:
    """Return the values of a column; images, in others, are not decoded."""
    return dataset.with_format(None).select_columns([name])[:][name]


def names_of(dataset: Any, name: str) -> np.ndarray | None:
    """Return the names of the classes that the integers of a column stand for."""
    feature = dataset.features[name]
    feature = getattr(feature, "feature", feature)  # of a list of labels
    names = getattr(feature, "names", None)
    return None if names is None else np.array(names)


def _of_kind(dataset: Any, kind: str) -> list[str]:
    features = dataset.features.items()
    return [name for name, feature in features if type(feature).__name__ == kind]


def _known(name: str, features: Collection[str]) -> str:
    if name not in features:
        hint = did_you_mean(name, features)
        raise ValueError(f"The dataset has no column {name!r}. {hint}")
    return name
