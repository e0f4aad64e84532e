"""Columns of a dataset of Hugging Face: which is the image, which the target."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from sklearn_dl._images import IMAGE_KEYS
from sklearn_dl.datasets._common import did_you_mean

TARGET_KEYS = (
    *("label", "labels", "target", "targets", "class", "cls", "category"),
    *("fine_label", "class_label"),
)


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
