"""A lazy handle on one item of a map-style dataset."""

from collections.abc import Mapping
from typing import Any

_IMAGE_KEYS = ("image", "img", "pixel_values")


class DatasetItem:
    """One item of a map-style dataset, read only when it is needed.

    An ``(n, 1)`` object array of handles can be indexed by every scikit-learn tool.
    The handles of one dataset share it, also when the array is pickled.

    Parameters
    ----------
    dataset : object with ``__getitem__``
        Such as a ``torchvision.datasets`` object.
    index : int
        Position of the item in the dataset.

    Examples
    --------
    >>> from sklearn_dl._images import DatasetItem
    >>> DatasetItem([("image", 7)], 0).load()
    ('image', 7)
    """

    __slots__ = ("dataset", "index")

    def __init__(self, dataset: Any, index: int):
        self.dataset = dataset
        self.index = index

    def __repr__(self) -> str:
        return f"DatasetItem({type(self.dataset).__name__}, {self.index})"

    def load(self) -> Any:
        """Return the whole item, as the dataset gives it."""
        return self.dataset[self.index]

    def image(self) -> Any:
        """Return the image of the item: the item, its first part or its "image"."""
        item = self.load()
        if isinstance(item, Mapping):
            key = next((key for key in _IMAGE_KEYS if key in item), None)
            if key is None:
                raise ValueError(
                    f"the item has no 'image', only {sorted(map(str, item))}"
                )
            return item[key]
        if isinstance(item, tuple | list):
            if not item:
                raise ValueError("the item is empty")
            return item[0]
        return item
