"""Any X in every method: the table in README."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from estimator_cases import EASY, classifier, extractor, two_brightnesses
from PIL import Image
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from torchvision import models

from sklearn_dl import ImageClassifier, ImageFeatureExtractor
from sklearn_dl.datasets import load_image_folder, load_torch_dataset

IMAGES, LABELS = two_brightnesses(16, seed=5)


def _bytes(image):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def _objects(values):
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


class _Items(torch.utils.data.Dataset):
    def __len__(self):
        return len(IMAGES)

    def __getitem__(self, i):
        return Image.fromarray(IMAGES[i]), int(i >= 8)


PIL = [Image.fromarray(image) for image in IMAGES]
# Every one of these is the same 16 images.
FORMS = {
    "nhwc": lambda paths: IMAGES,
    "nchw": lambda paths: np.ascontiguousarray(IMAGES.transpose(0, 3, 1, 2)),
    "rgba": lambda paths: np.concatenate(
        [IMAGES, np.full((16, 32, 32, 1), 255, "uint8")], axis=3
    ),
    "int64": lambda paths: IMAGES.astype("int64"),
    "tensor": lambda paths: torch.from_numpy(IMAGES).permute(0, 3, 1, 2),
    "rows": lambda paths: IMAGES.reshape(16, -1),
    "frame of rows": lambda paths: pd.DataFrame(IMAGES.reshape(16, -1)).add_prefix("p"),
    "paths": lambda paths: paths,
    "tuple of paths": lambda paths: tuple(paths),
    "np.str_ paths": lambda paths: np.array(paths),
    "Series of paths": lambda paths: pd.Series(paths, index=range(50, 66)),
    "nullable Series": lambda paths: pd.Series(paths, dtype="string"),
    "column of paths": lambda paths: _objects(paths)[:, None],
    "frame of paths": lambda paths: pd.DataFrame({"path": paths}),
    "PIL list": lambda paths: PIL,
    "PIL array": lambda paths: _objects(PIL),
    "PIL column": lambda paths: _objects(PIL)[:, None],
    "bytes": lambda paths: [_bytes(image) for image in IMAGES],
    "list of arrays": lambda paths: list(IMAGES),
    "array of arrays": lambda paths: _objects(list(IMAGES)),
    "dataset": lambda paths: load_torch_dataset(_Items()).data,
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("forms")
    paths = []
    for row, image in enumerate(IMAGES):
        Image.fromarray(image).save(folder / f"{row}.png")
        paths.append(str(folder / f"{row}.png"))
    return paths


@pytest.fixture(scope="module")
def reference():
    model = classifier(**EASY).fit(IMAGES, LABELS)
    features = extractor().fit_transform(IMAGES)
    assert model.score(IMAGES, LABELS) == 1.0
    assert features.std(0).max() > 0
    return model.predict_proba(IMAGES), features


def _spread(values):
    return np.ptp(values, axis=0).max()


@pytest.mark.parametrize("form", FORMS)
def test_every_form_in_every_method_gives_the_same_answer(form, files, reference):
    X = FORMS[form](files)
    P, F = reference
    model = classifier(**EASY).fit(X, LABELS)
    assert model.score(X, LABELS) == 1.0
    assert model.predict(X).tolist() == LABELS.tolist()
    # A resize of arrays differs from PIL's by its rounding only.
    assert np.abs(model.predict_proba(X) - P).max() < 0.05
    features = extractor().fit(X).transform(X)
    assert features.dtype == np.float32
    cosine = (features * F).sum(1) / np.linalg.norm(features, axis=1)
    assert (cosine / np.linalg.norm(F, axis=1)).min() > 0.998


@pytest.mark.parametrize("form", FORMS)
def test_features_are_identical_in_every_form_where_nothing_is_resized(form, files):
    same = extractor(image_size=(32, 32))
    F = same.fit_transform(IMAGES)
    assert _spread(F) > 0
    np.testing.assert_array_equal(same.transform(FORMS[form](files)), F)


def test_path_bytes_and_pil_are_identical_also_where_images_are_resized(files):
    same = extractor(image_size=40)
    F = same.fit_transform(files)
    np.testing.assert_array_equal(same.transform([_bytes(i) for i in IMAGES]), F)
    np.testing.assert_array_equal(same.transform(PIL), F)


def test_float_images_in_0_to_1_are_the_uint8_ones(files):
    same = extractor(image_size=(32, 32))
    F = same.fit_transform(IMAGES)
    G = same.transform(IMAGES.astype("float64") / 255)
    np.testing.assert_allclose(G, F, rtol=1e-4, atol=1e-5 * np.abs(F).max())


@pytest.mark.parametrize("shape", [(16, 8, 12), (16, 8, 12, 1)])
def test_grey_images_are_three_equal_channels(shape):
    grey = np.random.default_rng(0).integers(0, 256, shape, "uint8")
    colour = np.repeat(grey.reshape(16, 8, 12, 1), 3, axis=3)
    same = extractor()
    np.testing.assert_array_equal(same.fit_transform(grey), same.fit_transform(colour))
    rows = extractor(image_shape=(8, 12)).fit_transform(grey.reshape(16, -1))
    np.testing.assert_array_equal(rows, same.transform(colour))


def test_images_of_different_sizes_go_together():
    sizes = [(40, 50), (64, 33), (32, 32)]
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, (*size, 3), "uint8") for size in sizes]
    F = extractor().fit_transform(arrays)
    one_by_one = [extractor().fit_transform([array])[0] for array in arrays]
    np.testing.assert_allclose(F, one_by_one, atol=1e-5 * np.abs(F).max())


def test_fit_on_one_form_and_predict_on_another(files):
    model = classifier(**EASY).fit(files, LABELS)
    P = model.predict_proba(files)
    np.testing.assert_allclose(model.predict_proba(PIL), P, atol=1e-6)
    assert model.score(IMAGES, LABELS) == 1.0
    assert model.score(pd.DataFrame({"file": files}), LABELS) == 1.0


def test_read_only_and_memory_mapped_images(tmp_path):
    np.save(tmp_path / "images.npy", IMAGES)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    fixed = IMAGES.copy()
    fixed.setflags(write=False)
    for trainable in ("head", "all"):
        P, Q, R = (
            classifier(trainable=trainable).fit(X, LABELS).predict_proba(X)
            for X in (IMAGES, mapped, fixed)
        )
        np.testing.assert_array_equal(P, Q)
        np.testing.assert_array_equal(P, R)


def test_non_contiguous_images_and_labels():
    X, y = np.repeat(IMAGES, 2, 0)[::2], np.repeat(LABELS, 2)[::2]
    P = classifier().fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(P, classifier().fit(IMAGES, LABELS).predict_proba(X))
    turned = IMAGES[:, ::-1]
    F = extractor().fit_transform(turned)
    np.testing.assert_array_equal(F, extractor().fit_transform(turned.copy()))


def test_nullable_columns_are_plain_ones():
    rows = pd.DataFrame(IMAGES.reshape(16, -1)).add_prefix("p")
    P = classifier().fit(rows, LABELS).predict_proba(rows)
    nullable = rows.astype("UInt8")
    Q = classifier().fit(nullable, LABELS).predict_proba(nullable)
    np.testing.assert_array_equal(P, Q)


def test_a_generator_is_refused_with_the_forms_that_are_taken():
    with pytest.raises(TypeError, match=r"paths, PIL images.*got generator"):
        classifier().fit((image for image in IMAGES), LABELS)


# ------------------------------------------------------------------ real weights


@pytest.fixture(scope="module")
def real(assets):
    parameters = {"weights": assets / "mobilenet_v2_imagenet.pth"}
    train = load_image_folder(assets / "hymenoptera_data" / "train")
    val = load_image_folder(assets / "hymenoptera_data" / "val")
    return parameters, train, val


@pytest.fixture(scope="module")
def val_features(real):
    parameters, _, val = real
    return ImageFeatureExtractor(**parameters).fit(val.data).transform(val.data)


def test_features_equal_a_plain_torchvision_pipeline(real, val_features):
    parameters, _, val = real
    module = models.mobilenet_v2()
    state = torch.load(parameters["weights"], weights_only=True)
    module.load_state_dict(state)
    module.classifier = torch.nn.Identity()
    module.float().eval()
    preset = models.MobileNet_V2_Weights.IMAGENET1K_V1.transforms()
    expected = []
    with torch.inference_mode():
        for (path,) in val.data:
            with Image.open(path) as image:
                pixels = preset(image.convert("RGB"))
            expected.append(module(pixels[None])[0].numpy())
    assert len(expected) == 153
    np.testing.assert_allclose(val_features, expected, atol=1e-4)


def test_photographs_as_arrays_differ_by_the_rounding_of_the_resize(real, val_features):
    parameters, _, val = real
    # Uncached: stored features had other companions in their batch, and so may differ
    # in the last bits.
    same = ImageFeatureExtractor(**parameters, cache=None).fit(val.data)
    chosen = val.data[::15, 0]
    pil = [Image.open(path).convert("RGB") for path in chosen]
    stored = [Path(path).read_bytes() for path in chosen]
    F = same.transform(chosen)
    np.testing.assert_array_equal(same.transform(pil), F)
    np.testing.assert_array_equal(same.transform(stored), F)
    np.testing.assert_allclose(F, val_features[::15], atol=1e-4)
    G = same.transform([np.asarray(image) for image in pil])
    cosine = (F * G).sum(1) / np.linalg.norm(F, axis=1) / np.linalg.norm(G, axis=1)
    assert cosine.min() >= 0.998


def test_features_and_a_linear_svm_on_photographs(real):
    parameters, train, val = real
    extractor = ImageFeatureExtractor(**parameters)
    model = make_pipeline(extractor, StandardScaler(), LinearSVC(C=1e-3))
    assert model.fit(train.data, train.target).score(val.data, val.target) >= 0.95


def test_a_trained_head_on_photographs(real):
    parameters, train, val = real
    scores = [
        ImageClassifier(**parameters, random_state=seed)
        .fit(train.data, train.target)
        .score(val.data, val.target)
        for seed in range(3)
    ]
    assert np.mean(scores) >= 0.93
