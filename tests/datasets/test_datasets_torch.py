"""Any map-style dataset as lazy X and y."""

import io
import pickle
import types

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.model_selection import train_test_split
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    random_split,
)
from torchvision import datasets, transforms

from sklearn_dl._images import as_source
from sklearn_dl.datasets import ImageDecodeError, load_torch_dataset, verify_images

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)
TARGETS = [0, 2, 1, 0, 2, 1]


class Items(Dataset):
    """Items that count how often they are read."""

    def __init__(self, items=None, **attributes):
        self.items = items or list(
            zip(map(Image.fromarray, IMAGES), TARGETS, strict=True)
        )
        self.read = []
        vars(self).update(attributes)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        self.read.append(i)
        if isinstance(self.items[i], Exception):
            raise self.items[i]
        return self.items[i]


def images_of(data):
    source = as_source(data)
    return np.stack([np.asarray(source[row]) for row in range(len(source))])


@pytest.mark.parametrize("name", ["targets", "labels", "_labels", "y"])
@pytest.mark.parametrize("make", [list, np.array, torch.tensor])
def test_targets_that_the_dataset_lists_are_taken_without_reading(name, make):
    dataset = Items(**{name: make(TARGETS)})
    bunch = load_torch_dataset(dataset)
    assert dataset.read == []
    assert bunch.data.shape == (6, 1)
    assert bunch.data.dtype == object
    assert bunch.target.tolist() == TARGETS
    np.testing.assert_array_equal(images_of(bunch.data[[4, 1]]), IMAGES[[4, 1]])
    assert dataset.read == [4, 1]


def test_targets_are_read_from_the_items_where_there_is_no_list():
    dataset = Items(labels=["just", "class", "names"])
    assert load_torch_dataset(dataset).target.tolist() == TARGETS
    items = [
        {"image": image, "label": t} for image, t in zip(IMAGES, "abcabc", strict=True)
    ]
    X, y = load_torch_dataset(Items(items), return_X_y=True)
    assert y.tolist() == list("abcabc")
    np.testing.assert_array_equal(images_of(X), IMAGES)
    items = [(image, torch.tensor([1.0, k])) for k, image in enumerate(IMAGES)]
    assert load_torch_dataset(Items(items)).target.shape == (6, 2)


def test_images_alone_give_no_target():
    bunch = load_torch_dataset(list(IMAGES))
    assert bunch.target is None
    assert bunch.target_names is None
    np.testing.assert_array_equal(images_of(bunch.data), IMAGES)


def test_classes_name_the_targets():
    dataset = Items(targets=TARGETS, classes=["ant", "bee", ("wasp", "hornet")])
    bunch = load_torch_dataset(dataset)
    assert bunch.target_names.tolist() == ["ant", "bee", "wasp, hornet"]
    assert bunch.target.tolist() == [bunch.target_names[k] for k in TARGETS]
    unlabelled = Items(targets=[-1, *TARGETS[1:]], classes=["a", "b", "c"])
    assert load_torch_dataset(unlabelled).target.tolist() == [-1, *TARGETS[1:]]


def test_a_target_transform_is_kept():
    dataset = Items(
        targets=torch.tensor(TARGETS),
        classes=["a", "b", "c"],
        target_transform=lambda k: k * 10,
    )
    assert load_torch_dataset(dataset).target.tolist() == [k * 10 for k in TARGETS]


def test_nested_subsets_and_concatenations_keep_rows_and_targets_together():
    classes = ["a", "b", "c"]
    first = Items(targets=TARGETS, classes=classes)
    second = Items(targets=torch.tensor(TARGETS), classes=classes)
    dataset = Subset(ConcatDataset([Subset(first, [5, 3, 1]), second]), [2, 0, 8])
    bunch = load_torch_dataset(dataset)
    assert first.read == second.read == []
    np.testing.assert_array_equal(images_of(bunch.data), IMAGES[[1, 5, 5]])
    assert bunch.target.tolist() == [classes[TARGETS[k]] for k in (1, 5, 5)]
    assert bunch.target_names.tolist() == classes
    assert first.read == [1, 5]
    assert second.read == [5]
    parts = random_split(first, [2, 4], generator=torch.Generator().manual_seed(0))
    got = load_torch_dataset(parts[1]).target.tolist()
    assert got == [classes[TARGETS[k]] for k in parts[1].indices]


def test_tensor_datasets_are_views_of_their_tensors():
    tensors = torch.from_numpy(IMAGES).permute(0, 3, 1, 2)
    X, y = load_torch_dataset(
        TensorDataset(tensors, torch.tensor(TARGETS)), return_X_y=True
    )
    np.testing.assert_array_equal(images_of(X), IMAGES)
    assert y.tolist() == TARGETS
    assert load_torch_dataset(TensorDataset(tensors)).target is None


def test_torchvision_datasets_with_their_transform(tmp_path):
    for name in ("ants/1.png", "bees/1.png", "bees/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(IMAGES[0]).save(tmp_path / name)
    flip = transforms.Compose(
        [transforms.RandomHorizontalFlip(1.0), transforms.ToTensor()]
    )
    folder = datasets.ImageFolder(tmp_path, transform=flip)
    bunch = load_torch_dataset(folder)
    assert bunch.target.tolist() == ["ants", "bees", "bees"]
    assert bunch.filenames.tolist() == [path for path, _ in folder.samples]
    np.testing.assert_allclose(
        images_of(bunch.data)[0], IMAGES[0][:, ::-1] / 255, rtol=1e-6
    )
    part = load_torch_dataset(Subset(folder, [2]))
    assert part.filenames.tolist() == [folder.samples[2][0]]
    fake = datasets.FakeData(4, (3, 6, 6), num_classes=2)
    bunch = load_torch_dataset(fake)
    np.testing.assert_array_equal(images_of(bunch.data)[3], np.asarray(fake[3][0]))
    assert bunch.target.tolist() == [int(fake[k][1]) for k in range(4)]
    assert bunch.filenames is None


def test_scikit_learn_indexes_the_view_and_pickles_share_the_dataset():
    dataset = Items(targets=TARGETS)
    X, y = load_torch_dataset(dataset, return_X_y=True)
    X_train, X_test, _, y_test = train_test_split(X, y, test_size=2, random_state=0)
    rows = [X.ravel().tolist().index(item) for item in X_test.ravel()]
    assert y_test.tolist() == [TARGETS[row] for row in rows]
    copy = pickle.loads(pickle.dumps(X_train))
    assert len({id(item.dataset) for item in copy.ravel()}) == 1
    np.testing.assert_array_equal(images_of(copy), images_of(X_train))


def test_an_item_that_fails_is_named_by_row():
    items = list(zip(IMAGES, TARGETS, strict=True))
    items[3] = RuntimeError("lost")
    with pytest.raises(ImageDecodeError, match="row 3: RuntimeError: lost"):
        load_torch_dataset(Items(items))
    X = load_torch_dataset(Items(items, targets=TARGETS)).data
    with pytest.raises(ImageDecodeError, match="row 3: lost"):
        as_source(X)[3]
    assert verify_images(X)["row"].tolist() == [3]


def test_what_cannot_be_indexed_is_refused():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(IMAGES)

    with pytest.raises(TypeError, match="Stream is an iterable-style dataset"):
        load_torch_dataset(Stream())
    with pytest.raises(TypeError, match="__len__ and __getitem__; int has not"):
        load_torch_dataset(3)
    with pytest.raises(ValueError, match="empty"):
        load_torch_dataset([])


# ------------------------------------------------------------ columns of Hugging Face


class Image_:
    """A feature's type: the name of its class is what tells it."""


Image_.__name__ = "Image"


class ClassLabel:
    def __init__(self, *names):
        self.names = list(names)


class Columns:
    """What the loader asks of a dataset of Hugging Face; it counts decoded images."""

    def __init__(self, columns, features, decoded=None):
        self.columns, self.features = columns, features
        self.decoded = [] if decoded is None else decoded

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def __getitem__(self, key):
        chosen = self.columns.items()
        return {name: self._decode(name, values[key]) for name, values in chosen}

    def _decode(self, name, value):
        if type(self.features[name]).__name__ == "Image":
            self.decoded.append(value)
        return value

    def select_columns(self, names):
        columns = {name: self.columns[name] for name in names}
        return Columns(columns, self.features, self.decoded)

    def with_format(self, kind):
        return self


def columns_of(image="image", target="label", **others):
    columns = {image: list(IMAGES), target: TARGETS}
    features = {image: Image_(), target: ClassLabel("ant", "bee", "wasp")}
    for name, (values, feature) in others.items():
        columns[name], features[name] = values, feature
    return Columns(columns, features)


@pytest.mark.parametrize("image", ["image", "img", "x-ray"])
@pytest.mark.parametrize("target", ["label", "fine_label", "species"])
def test_columns_are_found_and_named_without_decoding_an_image(image, target):
    dataset = columns_of(image, target, id=(list(range(6)), None))
    bunch = load_torch_dataset(dataset)
    assert dataset.decoded == []
    assert bunch.target_names.tolist() == ["ant", "bee", "wasp"]
    assert bunch.target.tolist() == [bunch.target_names[k] for k in TARGETS]
    np.testing.assert_array_equal(images_of(bunch.data[[4, 1]]), IMAGES[[4, 1]])
    assert len(dataset.decoded) == 2
    part = load_torch_dataset(Subset(dataset, [3, 1]))
    assert part.target.tolist() == ["ant", "wasp"]


def test_columns_can_be_named():
    dataset = columns_of(
        other=(list(IMAGES[::-1]), Image_()), coarse=([0] * 6, ClassLabel("insect"))
    )
    bunch = load_torch_dataset(dataset, image="other", target="coarse")
    assert set(bunch.target) == {"insect"}
    np.testing.assert_array_equal(images_of(bunch.data), IMAGES[::-1])
    with pytest.raises(ValueError, match=r"no column 'othr'. Did you mean 'other'"):
        load_torch_dataset(dataset, image="othr")
    with pytest.raises(ValueError, match=r"no column 'fine'\. There is 'image'"):
        load_torch_dataset(dataset, target="fine")
    items = [{"scan": image, "kind": "ab"[k % 2]} for k, image in enumerate(IMAGES)]
    bunch = load_torch_dataset(items, image="scan", target="kind")
    assert bunch.target.tolist() == list("ababab")
    np.testing.assert_array_equal(images_of(bunch.data), IMAGES)
    with pytest.raises(ValueError, match=r"Row 0 has no target 'sort', only \['kind'"):
        load_torch_dataset(items, target="sort")
    with pytest.raises(TypeError, match=r"for items that are mappings; got tuple"):
        load_torch_dataset(Items(), target="sort")


def test_columns_that_cannot_be_found_are_said():
    two = columns_of("left", right=(list(IMAGES), Image_()))
    with pytest.raises(ValueError, match=r"several of images, \['left', 'right'\]"):
        load_torch_dataset(two)
    words = Columns({"text": ["a"]}, {"text": None})
    with pytest.raises(ValueError, match=r"no column of images, among \['text'\]"):
        load_torch_dataset(words)
    two = columns_of(target="sex", age=([0] * 6, ClassLabel("young", "old")))
    with pytest.warns(UserWarning, match=r"No target was found among \['age', 'sex'\]"):
        bunch = load_torch_dataset(two)
    assert bunch.target is bunch.target_names is None
    items = [{"image": image, "kind": "a"} for image in IMAGES]
    with pytest.warns(UserWarning, match=r"dataset, target='kind'\)"):
        assert load_torch_dataset(items).target is None
    alone = Columns({"image": list(IMAGES)}, {"image": Image_()})
    assert load_torch_dataset(alone).target is None


def test_labels_without_a_class_stay_numbers():
    dataset = columns_of()
    dataset.columns["label"] = [-1] * 6  # of a test set
    assert load_torch_dataset(dataset).target.tolist() == [-1] * 6

    dataset.columns["label"] = [0, -1, 1, None, 0, 1]
    y = load_torch_dataset(dataset).target.tolist()
    assert y == ["ant", None, "bee", None, "ant", "bee"]  # fit names the rows


def test_lists_of_labels_become_a_matrix():
    items = [(IMAGES[0], ["b", "a"]), (IMAGES[1], ["a"])]
    bunch = load_torch_dataset(items)
    assert bunch.target.tolist() == [[1, 1], [1, 0]]
    assert bunch.target_names.tolist() == ["a", "b"]
    with pytest.raises(ValueError, match="the target holds a dict in row 0"):
        load_torch_dataset([(IMAGES[0], {"boxes": 1})])
    dataset = columns_of()
    dataset.features["label"] = types.SimpleNamespace(
        feature=ClassLabel("ant", "bee", "cat")
    )
    for labels in ([[0], [0, 2]] * 3, [[0], [2]] * 3):  # without a bee
        dataset.columns["label"] = labels
        bunch = load_torch_dataset(dataset)
        y = [[int(k in row) for k in range(3)] for row in labels]
        assert bunch.target.tolist() == y
        assert bunch.target_names.tolist() == ["ant", "bee", "cat"]


def test_what_holds_datasets_names_the_one_to_pass():
    with pytest.raises(TypeError, match=r"\['train', 'test'\]: .*dataset\['train'\]"):
        load_torch_dataset({"train": columns_of(), "test": columns_of()})
    with pytest.raises(TypeError, match=r"pass its dataset, loader\.dataset"):
        load_torch_dataset(DataLoader(Items()))


def test_cells_of_bytes_are_images_of_items():
    file = io.BytesIO()
    Image.fromarray(IMAGES[0]).save(file, "PNG")
    cell = {"bytes": file.getvalue(), "path": None}
    X = load_torch_dataset([{"image": cell, "label": 0}] * 2).data
    np.testing.assert_array_equal(images_of(X)[1], IMAGES[0])
