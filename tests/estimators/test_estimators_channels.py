"""Estimators on images of any number of channels: every regime, kept and deployed."""

import pickle
import warnings
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline, make_union
from torch import nn

from sklearn_dl import (
    FeatureCache,
    FeatureScaler,
    FeatureSVC,
    ImageClassifier,
    ImageFeatureExtractor,
    ImageRegressor,
    make_feature_classifier,
)
from sklearn_dl._images import as_source
from sklearn_dl.backbones import (
    Preprocessing,
    further_kernels,
    images_seen,
    load_backbone,
)
from sklearn_dl.datasets import Channels
from sklearn_dl.inspection import (
    AugmentationDisplay,
    SaliencyDisplay,
    model_summary,
    robustness_report,
    saliency,
)
from sklearn_dl.persistence import (
    export_onnx,
    export_state_dict,
    load,
    load_exported,
    save,
)
from sklearn_dl.training import BackboneWithHead
from sklearn_dl.training._optimizers import parameter_groups

SMALL = {"backbone": "mobilenet_v3_small", "weights": "builtin", "image_size": 64}
EXPORTS = all(map(find_spec, ("onnx", "onnxscript", "onnxruntime")))
RNG = np.random.default_rng(0)
TILES = RNG.integers(0, 65536, (12, 70, 60, 13), dtype=np.uint16)
LABELS = np.array(["wet", "dry"] * 6)


def five_classes(n, rng):
    """Return noise in RGB, with a fourth band whose stripes are of five kinds."""
    y, side = np.arange(n) % 5, 64
    rows, columns = np.mgrid[:side, :side] / side
    images = rng.integers(0, 256, (n, side, side, 4), dtype=np.uint8)
    for image, kind in zip(images, y, strict=True):
        wave = 2 * np.pi * rng.uniform(4, 5)
        x, down = wave * columns + rng.uniform(0, 6), wave * rows + rng.uniform(0, 6)
        from_centre = 2 * wave * np.hypot(columns - 0.5, rows - 0.5)
        stripes = (x, down, x + down, None, from_centre)[kind]
        values = np.sin(x) * np.sin(down) if stripes is None else np.sin(stripes)
        image[..., 3] = 128 + 100 * values
    return images, y


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(1)
    return *five_classes(100, rng), *five_classes(50, rng)


def both(regime, **options):
    """Return a classifier that looks at all four channels."""
    asked = options.pop("image_shape", Channels(4, rgb=False))
    if regime == "svm":
        return make_feature_classifier(**SMALL, image_shape=asked)
    return ImageClassifier(
        **SMALL, image_shape=asked, trainable=regime, random_state=0, **options
    )


@pytest.mark.parametrize(
    ("regime", "options"),
    [
        ("svm", {}),
        ("head", {}),
        (1, {"max_epochs": 16}),
        ("all", {"max_epochs": 8}),
        ("head", {"image_shape": Channels([3])}),
        ("svm", {"image_shape": Channels([3])}),
    ],
)
def test_what_a_fourth_band_alone_tells_is_learned(problem, regime, options):
    X, y, X_test, y_test = problem
    model = both(regime, **options).fit(X, y)
    assert model.score(X_test, y_test) >= 0.85  # chance is 0.2


def test_a_further_channel_that_begins_at_zero_is_learned(problem):
    X, y, X_test, y_test = problem
    model = both("all", image_shape=Channels(4), max_epochs=40).fit(X, y)
    assert model.score(X_test, y_test) >= 0.8


def test_kernels_of_further_channels_learn_at_the_rate_of_the_head():
    backbone = load_backbone("mobilenet_v3_small", "builtin", channels=4)
    network = BackboneWithHead(backbone, nn.Linear(backbone.n_features, 2))
    backbone.freeze("all")
    for backbone_lr in (0.01, (0.01, 0.02)):
        rates = {"lr": 0.5, "backbone_lr": backbone_lr, "weight_decay": 0.0}
        groups = parameter_groups(network, **rates)
        (group,) = [group for group in groups if group["name"] == "channels"]
        assert group["lr"] == 0.5
        assert group["params"][0] is further_kernels(backbone)[0]
        every = [p for group in groups for p in group["params"]]
        assert len({*map(id, every)}) == len(every) == len([*network.parameters()])
    backbone.freeze(1)
    names = {group["name"] for group in parameter_groups(network, **rates)}
    assert "channels" not in names


def test_features_of_colour_and_of_a_band_stand_side_by_side(problem):
    X, y, X_test, y_test = problem
    features = make_union(
        ImageFeatureExtractor(**SMALL, image_shape=Channels([0, 1, 2])),
        ImageFeatureExtractor(**SMALL, image_shape=Channels([3])),
    )
    model = make_pipeline(features, FeatureScaler(), FeatureSVC()).fit(X, y)
    assert model.score(X_test, y_test) >= 0.9


def test_frozen_kernels_of_zero_are_warned_of(problem):
    X, y, *_ = problem
    for model in (
        ImageFeatureExtractor(**SMALL, image_shape=Channels(4)),
        both("head", image_shape=Channels(4), max_epochs=1),
        both(1, image_shape=Channels(4), max_epochs=1),
    ):
        with pytest.warns(UserWarning, match="change nothing: their kernels are zero"):
            model.fit(X[:10], y[:10])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        both("all", image_shape=Channels(4), max_epochs=1).fit(X[:10], y[:10])
        both("head", max_epochs=1).fit(X[:10], y[:10])


@pytest.mark.filterwarnings("ignore:The channels behind")
def test_features_do_not_see_a_fourth_channel_by_default():
    X = RNG.integers(0, 256, (4, 70, 60, 4), dtype=np.uint8)
    rgb = ImageFeatureExtractor(**SMALL).fit_transform(X[..., :3])
    four = ImageFeatureExtractor(**SMALL, image_shape=Channels(4))
    for fourth in (X[..., 3:], np.full((4, 70, 60, 1), 9, np.uint8)):
        images = np.concatenate([X[..., :3], fourth], -1)
        assert np.abs(four.fit_transform(images) - rgb).max() <= 1e-5


def test_picked_bands_give_the_features_of_the_rgb_image():
    for X in (TILES, (TILES >> 8).astype(np.uint8), list(TILES)):
        rgb = [tile[..., [3, 2, 1]] for tile in X]
        expected = ImageFeatureExtractor(**SMALL).fit_transform(rgb)
        picked = ImageFeatureExtractor(**SMALL, image_shape=Channels([3, 2, 1]))
        assert np.array_equal(picked.fit_transform(X), expected)


@pytest.fixture
def files(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    paths = [str(tmp_path / f"{row}.tif") for row in range(len(TILES))]
    for path, tile in zip(paths, TILES, strict=True):
        tifffile.imwrite(path, tile, photometric="minisblack", planarconfig="contig")
    return paths


def test_files_follow_arrays_and_are_cached_by_their_channels(files):
    cache = FeatureCache()
    extractor = ImageFeatureExtractor(**SMALL, cache=cache).fit(TILES)
    expected = extractor.transform(TILES)
    assert np.array_equal(extractor.transform(files), expected)
    picks = [Channels([3, 2, 1]), Channels([1, 2, 3]), Channels(13), Channels([3])]
    before = images_seen()
    first = [
        clone(extractor).set_params(image_shape=p).fit_transform(files) for p in picks
    ]
    # Those of all bands are there already.
    assert images_seen() - before == 3 * len(files)
    again = [
        clone(extractor).set_params(image_shape=p).fit_transform(files) for p in picks
    ]
    assert images_seen() - before == 3 * len(files)
    for one, other in zip(first, again, strict=True):
        assert np.array_equal(one, other)
    assert len({one.tobytes() for one in first}) == 4


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(make_feature_classifier(**SMALL), marks=pytest.mark.slow),
        pytest.param(
            ImageClassifier(**SMALL, max_epochs=2, random_state=0),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ImageClassifier(**SMALL, max_epochs=1, trainable="all", random_state=0),
            marks=pytest.mark.slow,
        ),
        ImageClassifier(
            **SMALL, max_epochs=1, layer="features.5", trainable=1, random_state=0
        ),
    ],
    ids=["svm", "head", "all", "layer"],
)
def test_models_are_saved_loaded_and_exported(model, tmp_path, files):
    model = clone(model).fit(TILES, LABELS)
    method = "predict_proba" if hasattr(model, "predict_proba") else "decision_function"
    expected = getattr(model, method)(TILES)
    save(model, tmp_path / "model.sdl")
    for copied in (load(tmp_path / "model.sdl"), pickle.loads(pickle.dumps(model))):
        assert np.array_equal(getattr(copied, method)(TILES), expected)
        assert np.array_equal(getattr(copied, method)(files), expected)
    if not EXPORTS:
        return
    export_onnx(model, tmp_path / "model.onnx")
    exported = load_exported(tmp_path / "model.onnx")
    for X in (TILES, files):
        assert np.abs(getattr(exported, method)(X) - expected).max() <= 1e-4
    with pytest.raises(ValueError, match="with 13 channels expected"):
        exported.predict(TILES[..., :3])


ASKED = [
    Channels(4),
    Channels([3, 2, 1]),
    Channels([5]),
    Channels([4, 2, 0], shape=(70, 60, 13)),
]


@pytest.mark.filterwarnings("ignore:The channels behind")
@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_saved_models_take_the_channels_that_are_asked_for(asked, tmp_path):
    X = TILES[..., :4] if asked.channels == 4 else TILES
    model = make_feature_classifier(**SMALL, image_shape=asked).fit(X, LABELS)
    save(model, tmp_path / "model.sdl")
    again = load(tmp_path / "model.sdl")
    assert str(again[0].image_shape) == str(asked)
    assert np.array_equal(again.decision_function(X), model.decision_function(X))


@pytest.mark.filterwarnings("ignore:The channels behind")
@pytest.mark.skipif(not EXPORTS, reason="needs sklearn_dl[export]")
@pytest.mark.parametrize(
    "asked",
    [*(pytest.param(one, marks=pytest.mark.slow) for one in ASKED[:3]), ASKED[3]],
    ids=str,
)
def test_exported_models_take_the_channels_that_are_asked_for(asked, tmp_path):
    X = TILES[..., :4] if asked.channels == 4 else TILES
    model = make_feature_classifier(**SMALL, image_shape=asked).fit(X, LABELS)
    export_onnx(model, tmp_path / "model.onnx")
    # The file says which: nobody need say it again.
    exported = load_exported(tmp_path / "model.onnx")
    difference = exported.decision_function(X) - model.decision_function(X)
    # A graph for RGB takes 8 bits of the 16.
    assert np.abs(difference).max() <= (
        1e-4 if model[0].preprocessing_.n_channels != 3 else 0.1
    )


@pytest.mark.filterwarnings("ignore:Images have 13 channels")
@pytest.mark.parametrize(
    "options",
    [
        {"augment": "standard", "trainable": "all"},
        {"augment": ["strong", "mixup"], "trainable": 1},
        {"augment": "cutmix", "tta": "ten_crop"},
        {"tta": 3, "augment": "light"},
        {"preprocessing": "data"},
        {"preprocessing": ((0.5,) * 13, (0.3,) * 13)},
        {"preprocessing": lambda x: x[:, :64, :64].float() / 65535, "image_size": None},
        {"early_stopping": True, "validation_fraction": 0.5},
    ],
    ids=lambda options: "-".join(options),
)
def test_training_takes_all_channels(options):
    options = {**SMALL, "max_epochs": 2, "random_state": 0, **options}
    model = ImageClassifier(**options).fit(TILES, LABELS)
    assert model.preprocessing_.n_channels == 13
    assert model.predict_proba(TILES).shape == (12, 2)
    if options.get("preprocessing") == "data":
        expected = TILES.reshape(-1, 13).mean(0) / 65535
        assert model.preprocessing_.mean == pytest.approx(expected, abs=2e-3)


def test_a_regressor_and_rows_of_pixels():
    rows = TILES[:, :32, :32].astype(np.float32).reshape(12, -1) / 65535
    model = ImageRegressor(
        **SMALL, image_shape=(32, 32, 13), max_epochs=1, random_state=0
    )
    assert model.fit(rows, np.arange(12.0)).predict(rows).shape == (12,)


def test_a_grid_reaches_into_channels():
    model = ImageClassifier(
        **SMALL, image_shape=Channels(13), max_epochs=1, random_state=0
    )
    grid = {"image_shape__rgb": [True, False], "image_shape__channels": [13, [3, 2, 1]]}
    search = GridSearchCV(model, grid, cv=2, error_score="raise")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        search.fit(TILES, LABELS)
    assert len(search.cv_results_["params"]) == 4


def test_other_channels_than_those_of_the_fit_are_refused():
    model = ImageClassifier(**SMALL, max_epochs=1, random_state=0).fit(TILES, LABELS)
    with pytest.raises(ValueError, match="with 13 channels expected"):
        model.predict(TILES[..., :3])
    rgb = clone(model).fit(TILES[..., :3], LABELS)
    with pytest.raises(
        ValueError, match=r"13 channels, but .* fitted on .* RGB or grey"
    ):
        rgb.predict(TILES)
    with pytest.raises(
        ValueError, match=r"12 channels, but .* fitted on .* 13 channels"
    ):
        clone(model).set_params(image_shape=None).fit(
            TILES, LABELS, X_val=as_source(TILES[..., :12]), y_val=LABELS
        )
    model.set_params(warm_start=True, image_shape=Channels([3, 2, 1]))
    with pytest.raises(
        ValueError, match=r"network of the fit before is for 13 channels"
    ):
        model.fit(TILES, LABELS)
    with pytest.raises(ValueError, match="of 13 channels each"):
        clone(rgb).set_params(preprocessing=((0.5,) * 3, (0.5,) * 3)).fit(TILES, LABELS)


def test_saliency_and_summary_of_many_channels():
    import matplotlib

    matplotlib.use("Agg")
    model = ImageClassifier(**SMALL, max_epochs=1, random_state=0).fit(TILES, LABELS)
    for method in ("grad_cam", "occlusion"):
        maps = saliency(model, TILES[:2], method=method)
        assert maps.shape == (2, 70, 60)
        assert maps.max() > 0
    SaliencyDisplay.from_estimator(model, TILES[:2]).plot()
    summary = model_summary(model, TILES)
    assert summary.parameters[0] == 13 * 16 * 9


def test_a_preprocessing_for_many_channels_is_taken():
    preprocessing = Preprocessing(72, (64, 64), (0.4,) * 13, (0.2,) * 13)
    options = {**SMALL, "image_size": None, "preprocessing": preprocessing}
    model = ImageClassifier(**options, max_epochs=1, random_state=0)
    model.fit(TILES, LABELS)
    assert model.preprocessing_.mean == (0.4,) * 13


@pytest.mark.parametrize("rgb", [True, False])
def test_exported_weights_of_further_channels_are_weights_again(rgb, tmp_path):
    X, path = TILES[..., :5], tmp_path / "weights.safetensors"
    asked = Channels(5, rgb=rgb)
    options = {"trainable": "all", "max_epochs": 1, "random_state": 0}
    model = ImageClassifier(**SMALL, image_shape=asked, **options).fit(X, LABELS)
    export_state_dict(model, path)
    backbone = load_backbone("mobilenet_v3_small", path, channels=asked)
    images = torch.rand(2, 5, 64, 64)
    with torch.no_grad():
        expected = model.module_.backbone.eval()(images)
        assert torch.allclose(backbone.eval()(images), expected, atol=1e-5)
        # Whoever doesn't take the first three for colours has the same kernels.
        other = load_backbone(
            "mobilenet_v3_small", path, channels=Channels(5, rgb=not rgb)
        )
        assert torch.allclose(other.eval()(images), expected, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"warm_start": True}], ids=["partial", "warm"])
def test_files_follow_arrays_where_a_fit_goes_on(options, files):
    small = {**SMALL, **options, "max_epochs": 1, "random_state": 0}
    model = ImageClassifier(**small)
    go_on = model.fit if options else model.partial_fit
    go_on(TILES, LABELS)
    go_on(files, LABELS)
    assert np.array_equal(model.predict_proba(files), model.predict_proba(TILES))


def test_a_backbone_of_other_channels_than_x_names_the_way():
    def four():
        return nn.Sequential(nn.Conv2d(4, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    X = TILES[..., :4]
    with pytest.raises(ValueError, match=r"4 channels, .* image_shape=Channels\(4\)"):
        ImageFeatureExtractor(four).fit(X)
    asked = ImageFeatureExtractor(four, image_shape=Channels(4))
    assert asked.fit_transform(X).shape == (12, 8)


def test_a_summary_before_the_fit_is_of_the_channels_of_the_images():
    model = ImageFeatureExtractor(**SMALL)
    asked = clone(model).set_params(image_shape=(40, 40, 13))
    for summary in (model_summary(model, TILES), model_summary(asked)):
        assert summary.parameters[0] == 13 * 16 * 9


def test_augmented_images_of_other_channels_are_drawn_in_grey_or_colour(files):
    import matplotlib

    matplotlib.use("Agg")
    cases = [(None, 13, True), (Channels(2), 2, False), (Channels(4), 4, True)]
    for asked, n, fitted in cases:
        X = TILES[..., :n]
        model = ImageClassifier(**SMALL, image_shape=asked, augment="light")
        if fitted:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.set_params(max_epochs=1).fit(X, LABELS)
        for images in (X, files) if fitted and asked is None else (X,):
            display = AugmentationDisplay.from_estimator(
                model, images, n_images=2, n_draws=1
            )
            shown = display.axes_[0, 1].images[0].get_array()
            assert shown.shape == ((64, 64, 3) if n == 4 else (64, 64))
    asked = Channels([3, 2, 1])
    plain = AugmentationDisplay(TILES[..., [3, 2, 1]], image_size=32).plain
    for one, other in zip(
        AugmentationDisplay(files, image_size=32, image_shape=asked).plain,
        plain,
        strict=True,
    ):
        assert torch.equal(one, other)


@pytest.mark.parametrize("n", [1, 3])
def test_corruptions_are_those_of_one_and_three_channels(n, tmp_path):
    X = RNG.integers(0, 256, (12, 40, 40, 3), dtype=np.uint8)[..., :n]
    paths = [str(tmp_path / f"{row}.png") for row in range(12)]
    for path, image in zip(paths, X, strict=True):
        Image.fromarray(image.squeeze()).save(path)
    model = make_feature_classifier(**SMALL, image_shape=Channels(n)).fit(X, LABELS)
    tables = [robustness_report(model, of, LABELS).table for of in (X, paths)]
    assert tables[0].equals(tables[1])
    picked = make_feature_classifier(**SMALL, image_shape=Channels([0] * n))
    with pytest.raises(ValueError, match=r"picks the channels \[0"):
        robustness_report(picked.fit(X, LABELS), X, LABELS)


def test_what_is_odd_about_x_is_said_once_in_a_call():
    dark = TILES[..., :3] >> 4
    with pytest.warns(UserWarning, match="X has 16-bit pixels from") as caught:
        ImageFeatureExtractor(**SMALL).fit_transform(dark)
    assert len(caught) == 1
    strips = np.zeros((12, 10, 400, 3), np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = make_feature_classifier(**SMALL).fit(strips, LABELS)
    with pytest.warns(UserWarning, match="10 pixels high and 400 wide") as caught:
        robustness_report(model, strips, LABELS)
    assert len(caught) == 1
