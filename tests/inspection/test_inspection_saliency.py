"""Which parts of an image a prediction rests on."""

import numpy as np
import pytest
import torch
from PIL import Image
from robustness_cases import assets_or_skip, photographs
from saliency_cases import PLAIN, SIDE, SQUARE, averaged, bright_squares, small
from sklearn.ensemble import VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, LogisticRegression
from torch import nn
from torch.nn import functional as F

from sklearn_dl import (
    ImageClassifier,
    ImageFeatureExtractor,
    ImageRegressor,
    make_feature_classifier,
)
from sklearn_dl._base import network_of
from sklearn_dl.backbones import Preprocessing, load_backbone
from sklearn_dl.datasets import load_image_folder
from sklearn_dl.inspection import saliency
from sklearn_dl.inspection._saliency import find_map, placed
from sklearn_dl.training import as_linear


@pytest.fixture(scope="module")
def fitted():
    X, y, _ = bright_squares(16)
    return small().fit(X, y)


def share_inside(maps, starts, margin=8):
    """Return how often the maximum of a map lies in the square, or just beside."""
    hits = []
    for values, (top, left) in zip(maps, starts, strict=True):
        row, column = np.unravel_index(values.argmax(), values.shape)
        low, high = -margin, SQUARE + margin
        hits.append(low <= row - top < high and low <= column - left < high)
    return np.mean(hits)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet18", 96),
        ("convnext_tiny", 96),
        ("vit_b_16", 96),
        pytest.param("mobilenet_v3_small", 224, marks=pytest.mark.slow),
        pytest.param("swin_t", 224, marks=pytest.mark.slow),
    ],
)
def test_the_map_is_brightest_at_the_square_that_decides(name, size):
    X, y, _ = bright_squares(40)
    model = make_feature_classifier(
        classifier=LogisticRegression(C=0.1, max_iter=1000),
        backbone=name,
        weights=None,
        image_size=size,
        random_state=0,
    ).fit(X, y)
    X, y, starts = bright_squares(16, seed=1)
    maps = saliency(model, X[y == "square"], target="square", method="grad_cam")
    assert maps.shape == (8, SIDE, SIDE)
    assert maps.dtype == np.float32
    assert maps.min() >= 0
    assert share_inside(maps, starts[y == "square"]) >= 0.75


@pytest.mark.parametrize("without", [torch.no_grad, torch.inference_mode])
def test_maps_are_the_same_where_gradients_are_off(fitted, without):
    X, _, _ = bright_squares(2)
    maps = saliency(fitted, X, method="grad_cam")
    with without():
        np.testing.assert_array_equal(saliency(fitted, X, method="grad_cam"), maps)
    assert maps.any()


def test_occlusion_is_largest_at_the_square_that_decides():
    X, y, _ = bright_squares(40)
    model = make_feature_classifier(
        classifier=LogisticRegression(C=0.1),
        backbone="resnet18",
        weights=None,
        image_size=64,
        random_state=0,
    ).fit(X, y)
    X, y, starts = bright_squares(12, seed=1)
    maps = saliency(model, X[y == "square"], target="square", method="occlusion")
    assert share_inside(maps, starts[y == "square"]) >= 0.75


def test_of_a_linear_head_on_an_averaged_map_it_is_the_weighted_map():
    X = photographs(6, size=(40, 40))
    y = np.array(["a", "b", "c"] * 2)
    model = ImageClassifier(
        averaged, preprocessing=PLAIN, max_epochs=3, lr=0.1, random_state=0
    ).fit(X, y)
    conv = averaged().conv
    x = torch.from_numpy(X).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        cells = conv((x - 0.5) / 0.25)  # (6, 6, 10, 10)
        weight = as_linear(network_of(model).head).weight
        for column, label in enumerate(model.classes_):
            cam = (
                torch.einsum("c,nchw->nhw", weight[column], cells) / cells[0, 0].numel()
            )
            expected = F.interpolate(
                cam.clamp(min=0)[:, None], (40, 40), mode="bilinear"
            )[:, 0]
            got = saliency(model, X, target=label)
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)
        chosen = model.predict(X)
        per_row = saliency(model, X, target=chosen)
        np.testing.assert_array_equal(saliency(model, X), per_row)


class Flattened(nn.Module):
    """A convolution each of whose cells is a feature."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 4, stride=4)

    def forward(self, x):
        return self.conv(x).flatten(1)


def flattened():
    torch.manual_seed(0)
    return Flattened()


def test_channels_are_weighed_by_the_mean_of_their_gradients():
    X = photographs(4, size=(20, 20))
    model = ImageClassifier(
        flattened,
        preprocessing=PLAIN.replace_image_size((20, 20)),
        max_epochs=2,
        random_state=0,
    ).fit(X, [0, 1] * 2)
    x = torch.from_numpy(X).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        cells = flattened().conv((x - 0.5) / 0.25)
        gradient = as_linear(network_of(model).head).weight[1].view(4, 5, 5)
        cam = torch.einsum("c,nchw->nhw", gradient.mean((1, 2)), cells).clamp(min=0)
    expected = F.interpolate(cam[:, None], (20, 20), mode="bilinear")[:, 0]
    got = saliency(model, X, target=1)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


def test_a_regressors_map_has_the_sign_and_unit_of_its_prediction():
    X = photographs(8, size=(40, 40))
    y = 1000 * np.linspace(-1, 1, 8)
    options = {"preprocessing": PLAIN, "max_epochs": 3, "random_state": 0}
    model = ImageRegressor(averaged, **options).fit(X, y)
    maps = saliency(model, X, layer="conv")
    head = as_linear(network_of(model).head)
    bias = head.bias.item() * y.std() + y.mean()
    # The mean of the enlarged map is that of the cells but for the border.
    means = 100 * maps.mean((1, 2)) + bias
    np.testing.assert_allclose(means, model.predict(X), atol=0.1 * np.ptp(maps) * 100)
    assert (maps < 0).any()
    both = ImageRegressor(averaged, **options).fit(X, np.stack([y, -y], 1))
    with pytest.raises(ValueError, match="2 outputs: give target, from 0 to 1"):
        saliency(both, X)
    assert saliency(both, X, target=1).shape == (8, 40, 40)


def test_of_a_linear_pipeline_it_is_the_weighted_map():
    X = photographs(6, size=(40, 40))
    y = np.array(["a", "b"] * 3)
    extractor = ImageFeatureExtractor(averaged, preprocessing=PLAIN)
    model = make_feature_classifier(classifier=LogisticRegression(C=10))
    model.set_params(features=extractor).fit(X, y)
    x = torch.from_numpy(X).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        cells = averaged().conv((x - 0.5) / 0.25)
    weight = model[-1].coef_[0] / model[1].scale_
    cam = torch.einsum("c,nchw->nhw", torch.from_numpy(weight).float(), cells) / 100
    for label, signed in (("a", -cam), ("b", cam)):
        expected = F.interpolate(
            signed.clamp(min=0)[:, None], (40, 40), mode="bilinear"
        )[:, 0]
        got = saliency(model, X, target=label)
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5)
    numbers = make_feature_classifier(classifier=LinearRegression())
    numbers.set_params(features=extractor).fit(X, np.arange(6.0))
    assert (saliency(numbers, X) < 0).any()


@pytest.mark.parametrize(
    ("name", "size", "kind", "cells"),
    [
        ("mobilenet_v3_small", 224, "channels_first", (7, 7)),
        ("resnet18", (96, 192), "channels_first", (6, 12)),
        ("resnet18", 64, "channels_first", (4, 4)),
        ("convnext_tiny", 224, "channels_first", (7, 7)),
        ("swin_t", 224, "channels_first", (7, 7)),
        ("vit_b_16", 64, "tokens", (4, 4)),
        ("squeezenet1_1", 224, "channels_first", (13, 13)),
        pytest.param("resnet18", 224, "channels_first", (7, 7), marks=pytest.mark.slow),
        pytest.param("vit_b_16", 224, "tokens", (14, 14), marks=pytest.mark.slow),
        pytest.param(
            "densenet121", 224, "channels_first", (7, 7), marks=pytest.mark.slow
        ),
        pytest.param("vgg11", 224, "channels_first", (7, 7), marks=pytest.mark.slow),
        pytest.param("maxvit_t", 224, "channels_first", (7, 7), marks=pytest.mark.slow),
        pytest.param(
            "inception_v3", 299, "channels_first", (8, 8), marks=pytest.mark.slow
        ),
    ],
)
def test_the_last_map_that_matters_is_found(name, size, kind, cells):
    backbone = load_backbone(name, weights=None, image_size=size)
    shape = backbone.preprocessing.output_size
    layer, layout = find_map(backbone.eval().requires_grad_(False), shape)
    assert (layout.kind, (layout.height, layout.width)) == (kind, cells)
    if name == "vit_b_16":
        assert layer == "encoder.layers.encoder_layer_11.ln_1"
        assert layout.extra == 1


def test_a_layer_can_be_chosen(fitted):
    X = bright_squares(2)[0]
    finer = saliency(fitted, X, layer="layer2", frame="input")
    assert finer.shape == (2, SIDE, SIDE)
    assert not np.allclose(finer, saliency(fitted, X, frame="input"))
    with pytest.raises(ValueError, match="is no submodule"):
        saliency(fitted, X, layer="features.99")
    with pytest.raises(ValueError, match="gives no map or tokens"):
        saliency(fitted, X, layer="avgpool")
    with pytest.raises(ValueError, match="occlusion has none"):
        saliency(fitted, X, layer="layer4", method="occlusion")


class Flat(nn.Module):
    """No layer of it has a map."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3 * 16 * 16, 8)

    def forward(self, x):
        return self.linear(x.flatten(1))


def test_a_network_without_a_map_is_occluded():
    X = photographs(6, size=(16, 16))
    model = ImageClassifier(
        Flat,
        preprocessing=PLAIN.replace_image_size((16, 16)),
        max_epochs=1,
        random_state=0,
    ).fit(X, [0, 1] * 3)
    auto = saliency(model, X, target=1)
    np.testing.assert_array_equal(
        auto, saliency(model, X, target=1, method="occlusion")
    )
    with pytest.raises(ValueError, match="use method='occlusion'"):
        saliency(model, X, method="grad_cam")


@pytest.mark.parametrize(
    ("resize", "crop", "size"),
    [
        (64, (64, 64), (64, 64)),
        (73, (64, 64), (150, 100)),
        (73, (64, 64), (90, 301)),
        ((64, 48), None, (33, 77)),
        (None, None, (40, 50)),
        (None, (64, 64), (50, 90)),
    ],
)
def test_a_map_is_placed_where_the_crop_was(resize, crop, size):
    preprocessing = Preprocessing(resize, crop, mean=(0.5,) * 3, std=(0.2,) * 3)
    rows, columns = np.meshgrid(*map(np.arange, size), indexing="ij")
    coordinates = torch.from_numpy(np.stack([rows, columns, rows + 1]).astype("f4"))
    seen = preprocessing.geometry(coordinates)  # where each pixel came from
    inside = (seen[2] > 0).numpy()
    row_map = placed(seen[0].numpy(), preprocessing, size)
    column_map = placed(seen[1].numpy(), preprocessing, size)
    weight = placed(inside.astype("f4"), preprocessing, size)
    assert row_map.shape == size
    sure = weight > 0.999
    # But for the border of the crop each value is back where it came from.
    assert sure.mean() > 0.2
    shift = 2 + max(size) / 64
    assert np.abs(row_map - rows)[sure].max() < shift
    assert np.abs(column_map - columns)[sure].max() < shift
    assert np.abs((row_map - rows)[sure].mean()) < 0.3
    assert np.abs((column_map - columns)[sure].mean()) < 0.3
    outside = (weight == 0).mean()
    expected = 1 - _seen_share(preprocessing, size)
    assert outside == pytest.approx(expected, abs=0.06)


def test_a_map_of_a_strip_is_placed_without_resizing_all_of_it(monkeypatch):
    preprocessing = Preprocessing(64, (56, 56), (0.5,) * 3, (0.5,) * 3)
    made, zeros = [], np.zeros

    def counting(shape, *args, **kwargs):
        made.append(np.prod(shape))
        return zeros(shape, *args, **kwargs)

    monkeypatch.setattr(np, "zeros", counting)
    back = placed(np.ones((56, 56), "f4"), preprocessing, (4, 10_000))
    assert back.shape == (4, 10_000)
    # The crop shows 56 of the 64 lines of 4 pixels: 3.5 pixels at the centre.
    assert set(np.flatnonzero(back[1] > 0.5)) <= {4998, 4999, 5000, 5001}
    assert {4999, 5000} <= set(np.flatnonzero(back[1] > 0.5))
    assert max(made) <= 10_000 * 56


def test_a_map_of_a_padded_image_is_placed_on_all_of_it():
    how = {"mean": (0.5,) * 3, "std": (0.2,) * 3, "resize_side": "longer"}
    preprocessing = Preprocessing(64, (64, 64), **how)
    image = torch.arange(1.0, 121.0)[None, None].expand(3, 60, 120)
    seen = preprocessing.geometry(image)[0].numpy()
    back = placed(seen, preprocessing, (60, 120))
    np.testing.assert_allclose(back, image[0].numpy(), atol=3)


def _seen_share(preprocessing, size):
    resize, crop = preprocessing.resize_size, preprocessing.crop_size
    if crop is None:
        return 1.0
    scale = 1.0 if resize is None else resize / min(size)
    return np.prod([min(c / (s * scale), 1) for c, s in zip(crop, size, strict=True)])


def test_images_of_different_sizes_have_maps_of_their_own_sizes(fitted, tmp_path):
    paths = []
    for number, size in enumerate([(60, 90), (120, 100)]):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(photographs(1, number, size)[0]).save(paths[-1])
    maps = saliency(fitted, paths, target="square")
    assert [m.shape for m in maps] == [(60, 90), (120, 100)]
    assert saliency(fitted, paths, frame="input").shape == (2, SIDE, SIDE)
    for values, path in zip(maps, paths, strict=True):
        one = saliency(fitted, [path], target="square")[0]
        np.testing.assert_allclose(values, one, rtol=1e-3, atol=1e-4)


def state(model):
    parts, stack = [], [network_of(model)]
    while stack:
        parts.append(stack.pop())
        stack += [c for c in parts[-1]._modules.values() if c is not None]
    tensors = [t for p in parts for t in p._parameters.values() if t is not None]
    return (
        [len(p._forward_hooks) + len(p._forward_pre_hooks) for p in parts],
        [p.training for p in parts],
        [(t.data_ptr(), t._version, t.requires_grad, t.grad is None) for t in tensors],
        getattr(network_of(model).backbone, "settled", None),
    )


@pytest.mark.parametrize("trainable", ["head", "all"])
@pytest.mark.parametrize("method", ["grad_cam", "occlusion"])
def test_the_estimator_stays_as_it_was(trainable, method):
    X, y, _ = bright_squares(6)
    model = small(trainable=trainable, image_size=48).fit(X, y)
    other = small(image_size=48).fit(X, y)
    answers, shared = model.predict_proba(X), [other.predict_proba(X)]
    before = state(model)
    shared.insert(0, state(other))
    grad = torch.is_grad_enabled()
    saliency(model, X[:2], method=method)
    assert state(model) == before
    assert state(other) == shared[0]
    np.testing.assert_array_equal(model.predict_proba(X), answers)
    np.testing.assert_array_equal(other.predict_proba(X), shared[1])
    assert torch.is_grad_enabled() == grad
    with torch.no_grad():
        again = saliency(model, X[:2], method=method)
    with torch.inference_mode():
        np.testing.assert_array_equal(saliency(model, X[:2], method=method), again)


def test_several_labels_per_image_have_a_map_each():
    X = photographs(6)
    y = np.array([[0, 1, 1], [1, 0, 0]] * 3)
    model = small(max_epochs=1).fit(X, y)
    maps = [saliency(model, X[:2], target=label) for label in range(3)]
    assert not np.allclose(maps[0], maps[1])


def test_what_is_wrong_is_said(fitted):
    X = bright_squares(3)[0]
    with pytest.raises(ValueError, match="target is 'circle' in row 0"):
        saliency(fitted, X, target="circle")
    with pytest.raises(ValueError, match="one for each of 3"):
        saliency(fitted, X, target=["square"] * 2)
    with pytest.raises(NotFittedError):
        saliency(small(), X)
    voting = VotingClassifier([("a", small())])
    with pytest.raises(TypeError, match="for an ensemble, one of its"):
        saliency(voting, X)


@pytest.mark.slow
def test_on_photographs_both_methods_look_at_the_same_place():
    folder = assets_or_skip()
    data = load_image_folder(folder / "hymenoptera_data" / "train")
    y = np.asarray(data.target)
    model = make_feature_classifier(weights=folder / "mobilenet_v2_imagenet.pth").fit(
        data.data, y
    )
    held_out = load_image_folder(folder / "hymenoptera_data" / "val")
    X = list(held_out.data)[::25]
    cam = saliency(model, X, frame="input")
    covered = saliency(model, X, frame="input", method="occlusion")
    alike = [
        np.corrcoef(a.ravel(), b.ravel())[0, 1]
        for a, b in zip(cam, covered, strict=True)
    ]
    assert np.median(alike) > 0.3
