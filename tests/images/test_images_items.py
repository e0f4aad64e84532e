"""Handles on the items of a dataset."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from sklearn_dl._images import DatasetItem, ImageDecodeError, as_source

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 5, 7, 3), dtype=np.uint8)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "0.png"
    Image.fromarray(IMAGES[0]).save(path)
    return path


class Items:
    """A map-style dataset over given items; counts what is read."""

    def __init__(self, items):
        self.items = items
        self.read = 0

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        self.read += 1
        if isinstance(self.items[i], Exception):
            raise self.items[i]
        return self.items[i]


def handles(items):
    dataset = Items(items)
    X = np.empty((len(items), 1), dtype=object)
    X[:, 0] = [DatasetItem(dataset, i) for i in range(len(items))]
    return dataset, X


def test_items_may_be_tuples_mappings_or_images_alone(file):
    image = IMAGES[0]
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    items = [
        (Image.fromarray(image), 1),
        {"image": image, "label": 2},
        {"img": tensor},
        image,
        (tensor,),
        file,
        file.read_bytes(),
    ]
    dataset, X = handles(items)
    source = as_source(X)
    assert (source.kind, source.n_features, dataset.read) == ("objects", 1, 0)
    for row in range(len(items)):
        np.testing.assert_array_equal(np.asarray(source[row]), image)
    assert dataset.read == len(items)


def test_normalised_floats_of_a_dataset_pass_through():
    tensor = torch.tensor([-2.0, 0.0, 2.5]).reshape(3, 1, 1)
    _, X = handles([(tensor, 0)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert as_source(X)[0].ravel().tolist() == [-2.0, 0.0, 2.5]


def test_an_item_that_fails_is_named_by_row():
    _, X = handles([IMAGES[0], KeyError("lost"), {"audio": 1}, ("nowhere.jpg", 0)])
    source = as_source(X)
    words = {1: "lost", 2: r"no 'image', only \['audio'\]", 3: "no such file"}
    for row, word in words.items():
        with pytest.raises(ImageDecodeError, match=f"row {row}.*{word}"):
            source[row]


def test_pickled_items_share_their_dataset():
    dataset, X = handles([IMAGES.repeat(20, axis=0)] * 50)
    assert len(pickle.dumps(X)) < 2 * len(pickle.dumps(dataset))
    copy = pickle.loads(pickle.dumps(X))
    assert copy[0, 0].dataset is copy[49, 0].dataset
    assert copy[49, 0].index == 49
