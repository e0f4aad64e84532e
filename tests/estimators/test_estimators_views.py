"""Augmented views that come back: the draws of training, and what a backbone sees."""

import signal

import numpy as np
import pytest
import torch
from estimator_cases import (
    Raise,
    Recorder,
    classifier,
    extractor,
    regressor,
    state_of,
)
from PIL import Image, ImageOps
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from sklearn_dl import FeatureCache
from sklearn_dl._extraction import _pixels
from sklearn_dl.augmentation import Augment, resolve_augment
from sklearn_dl.backbones import images_seen
from sklearn_dl.datasets import load_torch_dataset
from sklearn_dl.persistence import load, save
from sklearn_dl.training import Checkpoint, Head

SEED = int(np.random.RandomState(0).randint(2**31 - 1))  # of random_state=0
STANDARD = Augment("standard", views=3)


class Inputs(Recorder):
    """Keeps what the network gets in training, epoch by epoch, in order of the rows."""

    def initialize(self):
        self.features, self.pixels = [], []
        return super().initialize()

    def on_batch_begin(self, net, *, batch=None, training=False, **kwargs):
        if training:
            self.features.append(batch[0].get("features"))
            self.pixels.append(batch[0].get("x"))


def inputs_of(X, y, **parameters):
    seen = Inputs()
    order = {"net_params": {"iterator_train__shuffle": False}, "batch_size": 24}
    classifier(callbacks=[seen], **order, **parameters).fit(X, y)
    return seen


def view_of(X, number, preprocessing, augment="standard"):
    """Return a view of images as pixels (n, C, h, w), drawn by hand."""
    augmenter, _ = resolve_augment(augment, preprocessing)
    keys = ((SEED, number, 0, row) for row in range(len(X)))
    rows = zip(map(Image.fromarray, X), map(np.random.default_rng, keys), strict=True)
    return torch.stack([augmenter(*row) for row in rows])


def differ(one, other):
    one, other = (m if isinstance(m, dict) else state_of(m) for m in (one, other))
    return {name for name in one if not torch.equal(one[name], other[name])}


# ------------------------------------------------------------------ a frozen backbone


@pytest.mark.parametrize(("views", "epochs"), [(1, 4), (3, 7), (4, 2), (None, 2)])
def test_a_frozen_backbone_sees_what_epochs_ask_for(views, epochs, data):
    before = images_seen()
    augment = Augment("standard", views=views)
    classifier(augment=augment, max_epochs=epochs, cache=None).fit(*data)
    passes = epochs + 1 if views is None else min(views, epochs)
    assert images_seen() - before == 24 * passes


def test_a_fit_that_stops_early_pays_for_no_more(image_files, data):
    before, stop = images_seen(), Raise("on_epoch_end", 2)
    model = classifier(augment=STANDARD, max_epochs=9, cache=None, callbacks=[stop])
    assert model.fit(image_files, data[1]).n_iter_ == 2
    assert images_seen() - before == 2 * 24


def test_epochs_come_back_to_the_features_of_their_view(data):
    seen = inputs_of(*data, augment=STANDARD, max_epochs=7)
    assert len({features.numpy().tobytes() for features in seen.features}) == 3
    plain = extractor(image_size=(32, 32)).fit(data[0])
    preprocessing = classifier(max_epochs=1).fit(*data).preprocessing_
    for epoch, features in enumerate(seen.features, start=1):
        pixels = view_of(data[0], epoch % 3, preprocessing)
        expected = plain.transform(pixels.permute(0, 2, 3, 1).numpy())
        np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", [classifier, regressor])
def test_training_is_as_through_the_backbone(make, data):
    """Epochs 3 to 6 of eight views are drawn as new ones are."""
    X, y = data[0], data[1] if make is classifier else np.arange(24.0)
    fits = []
    for views in (None, 8):
        model = make(max_epochs=2, warm_start=True, head=Head(dropout=0.3))
        model.fit(X, y).set_params(augment=Augment("standard", views=views))
        fits.append(state_of(model.set_params(max_epochs=4).fit(X, y)))
        assert model.n_iter_ == 6
    for name, tensor in fits[0].items():
        torch.testing.assert_close(fits[1][name], tensor, rtol=1e-4, atol=1e-4)


def darker(image):
    return image.point(lambda v: int(v * torch.rand(1).item()))


@pytest.mark.parametrize(
    "transforms", ["standard", "trivial", ["flip", darker, "erase"]]
)
def test_same_seeds_are_same_views(transforms, data, image_files, monkeypatch):
    """Whatever reads them, and whether the steps' own draws come between or not."""
    X, y, fits = image_files, data[1], []
    cache = FeatureCache("memory", name=f"same views {transforms}")
    for workers, threads, kept in (
        *((0, 1, None), (0, 3, cache)),
        *((0, 1, cache), (2, 2, None)),
    ):
        monkeypatch.setattr(_pixels, "decoding_threads", lambda n=threads: n)
        model = classifier(
            augment=Augment(transforms, views=2),
            head=Head(dropout=0.3),
            batch_size=7,
            cache=kept,
            net_params={"iterator_train__num_workers": workers},
        )
        torch.manual_seed(len(fits))
        expected = torch.get_rng_state()
        fits.append(state_of(model.fit(X, y)))
        assert torch.equal(torch.get_rng_state(), expected)
    assert [differ(fits[0], other) for other in fits[1:]] == [set()] * 3
    own = transforms == "standard"
    assert cache.statistics().entries == (48 if own else 0)
    assert cache.statistics().hits == (48 if own else 0)
    model = classifier(augment=Augment(transforms, views=2), batch_size=7)
    model.set_params(head__dropout=0.3, random_state=1)
    assert differ(fits[0], model.fit(X, y))


def test_workers_that_outlive_an_epoch_are_refused(data):
    workers = {"num_workers": 1, "persistent_workers": True}
    options = {f"iterator_train__{name}": value for name, value in workers.items()}
    with pytest.raises(ValueError, match="repeat the first epoch's rows"):
        classifier(augment=STANDARD, net_params=options).fit(*data)


def test_equal_images_have_views_of_their_own(data):
    X = np.repeat(data[0][:1], 24, axis=0)
    cache = FeatureCache("memory", name="equal images")
    seen = inputs_of(X, data[1], augment=STANDARD, max_epochs=1, cache=cache)
    assert len(np.unique(seen.features[0].numpy(), axis=0)) == 24
    assert cache.statistics().entries == 24


def test_candidates_share_the_views_of_a_fold(data):
    before, cache = images_seen(), FeatureCache("memory", name="candidates")
    model = classifier(augment__views=2, max_epochs=3, cache=cache)
    rates = {"lr": [1e-3, 1e-2], "augment__views": [2, 3]}
    search = GridSearchCV(model, rates, cv=2, refit=False, error_score="raise")
    search.fit(*data)
    assert images_seen() - before == 2 * 12 * 3 + 24  # and the test rows
    assert search.cv_results_["param_augment__views"].tolist() == [2, 2, 3, 3]


@pytest.mark.parametrize("random_state", [None, np.random.RandomState(0)])
def test_views_of_a_seed_that_comes_once_are_not_cached(random_state, data):
    cache = FeatureCache("memory", name=f"once {random_state}")
    options = {"random_state": random_state, "augment": STANDARD, "cache": cache}
    classifier(**{**options, "weights": None}).fit(*data)
    assert cache.statistics().entries == 0


def test_a_folder_keeps_views_for_later_runs(data, tmp_path):
    options = {"augment": STANDARD, "max_epochs": 4, "cache": str(tmp_path / "c")}
    first = classifier(**options).fit(*data)
    before = images_seen()
    assert not differ(first, classifier(**options).fit(*data))
    assert images_seen() == before


@pytest.mark.parametrize("cache", [None, FeatureCache("memory", name="of a dataset")])
def test_views_of_a_dataset_are_those_of_its_images(cache, data):
    X, y = data
    items = load_torch_dataset([(image, 0) for image in X]).data
    before, options = images_seen(), {"augment": STANDARD, "max_epochs": 4}
    model = classifier(**options, cache=cache).fit(items, y)
    assert images_seen() - before == 3 * 24
    assert not differ(model, classifier(**options, cache=None).fit(X, y))
    before = images_seen()
    assert not differ(model, classifier(**options, cache=cache).fit(items, y))
    assert images_seen() - before == (0 if cache else 3 * 24)


def test_views_of_a_regressor_and_of_rows_of_pixels(small_rows):
    X, y = small_rows
    before = images_seen()
    model = regressor(augment=Augment("light", views=2), max_epochs=5, cache=None)
    model.fit(X, y.astype(float))
    assert images_seen() - before == 2 * 40
    assert model.predict(X).shape == (40,)


@pytest.mark.parametrize("mix", ["mixup", "cutmix", "both"])
def test_mixtures_with_a_frozen_backbone_are_refused(mix, data):
    model = classifier(augment=Augment("standard", mix=mix, views=4))
    with pytest.raises(ValueError, match=r"views=4 with a frozen.*leave out the mixi"):
        model.fit(*data)
    assert not hasattr(model, "history_")


def test_ctrl_c_while_a_view_is_computed_keeps_what_was_learned(data):
    calls = []

    def interrupting(image):
        calls.append(1)
        if len(calls) == 24 + 5:
            signal.raise_signal(signal.SIGINT)
        return ImageOps.mirror(image)

    model = classifier(augment=Augment(interrupting, views=2), max_epochs=4)
    # Where tests run in the background it is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt):
        model.fit(*data)
    signal.signal(signal.SIGINT, before)
    assert model.n_iter_ == 1
    assert model.stop_reason_ == "interrupted by the user"
    assert model.predict(data[0]).shape == (24,)


def test_an_error_in_a_later_view_leaves_nothing(data):
    calls = []

    def failing(image):
        calls.append(1)
        if len(calls) > 24:
            raise ValueError("the second view")
        return image

    model = classifier(augment=Augment(failing, views=2))
    with pytest.raises(ValueError, match="the second view"):
        model.fit(*data)
    assert not hasattr(model, "history_")


def test_a_network_that_a_callback_has_is_fed_the_same(data):
    class Looks(Recorder):  # of another module: it may write to the backbone
        pass

    options = {"augment": STANDARD, "max_epochs": 5, "cache": None}
    one = classifier(**options).fit(*data)
    assert not differ(one, classifier(callbacks=[Looks()], **options).fit(*data))


# ------------------------------------------------------------------ a trained backbone


@pytest.mark.parametrize("trainable", [1, "all"])
def test_pixels_of_a_trained_backbone_come_back(trainable, data):
    options = {"trainable": trainable, "image_size": (32, 32), "cache": None}
    seen = inputs_of(*data, augment=STANDARD, max_epochs=5, **options)
    model = classifier(image_size=(32, 32), max_epochs=1).fit(*data)
    preprocessing = model.preprocessing_
    for epoch, pixels in enumerate(seen.pixels, start=1):
        assert torch.equal(pixels, view_of(data[0], epoch % 3, preprocessing))


def test_mixtures_of_views_are_new_in_each_epoch(data):
    augment = Augment(None, mix="mixup", mix_alpha=1.0, views=1)
    options = {"trainable": "all", "image_size": (32, 32), "max_epochs": 2}
    first, second = inputs_of(*data, augment=augment, **options).pixels
    assert not torch.equal(first, second)
    augment = Augment("flip", mix="cutmix", views=1)
    warm = {"warmup_epochs": 1, **options}
    assert inputs_of(*data, augment=augment, **warm).features == [None, None]


def test_a_warmup_runs_the_frozen_backbone_once_per_view(data):
    before = images_seen()
    seen = inputs_of(
        *data,
        augment=Augment("standard", views=2),
        trainable="all",
        warmup_epochs=4,
        max_epochs=6,
        cache=None,
    )
    assert images_seen() - before == 2 * 24 + 2 * 24
    assert [features is None for features in seen.features] == [False] * 4 + [True] * 2
    assert torch.equal(seen.features[0], seen.features[2])
    assert not torch.equal(seen.features[0], seen.features[1])


# ----------------------------------------------------------------- trainings that go on


def test_partial_fits_and_warm_starts_count_the_epochs_on(data):
    options = {"augment": STANDARD, "cache": None}
    whole = classifier(max_epochs=5, **options).fit(*data)
    parts = classifier(max_epochs=2, warm_start=True, **options).fit(*data)
    parts.partial_fit(*data).fit(*data)
    assert parts.n_iter_ == 5
    assert not differ(whole, parts)


@pytest.mark.parametrize("parameters", [{}, {"trainable": 1, "warmup_epochs": 3}])
def test_a_fit_that_is_resumed_goes_on_with_its_views(parameters, data, tmp_path):
    options = {"augment": STANDARD, "cache": None, "max_epochs": 8, **parameters}
    options["head"] = Head(dropout=0.3)
    whole = classifier(**options).fit(*data)
    kept = Checkpoint(str(tmp_path))
    failing = [kept, Raise("on_batch_end", 5, RuntimeError)]  # one batch an epoch
    with pytest.raises(RuntimeError):
        classifier(**options, callbacks=failing).fit(*data)
    before = images_seen()
    resumed = classifier(**options, callbacks=[kept]).fit(*data)
    assert not differ(whole, resumed)
    assert resumed.n_iter_ == 8
    if not parameters:
        assert images_seen() - before == 3 * 24


# ------------------------------------------------------------------------ the parameter


@pytest.mark.parametrize("views", [4, np.int64(4)])
def test_models_are_saved_with_their_views(views, data, tmp_path):
    model = classifier(augment=Augment("standard", views=views)).fit(*data)
    save(model, tmp_path / "m")
    again = load(tmp_path / "m")
    assert again.augment.views == 4
    assert clone(again).augment.get_params() == {**STANDARD.get_params(), "views": 4}
    np.testing.assert_array_equal(again.predict(data[0]), model.predict(data[0]))


def test_a_model_keeps_its_views_in_skops(data):
    io = pytest.importorskip("skops.io")
    model = classifier(augment=Augment("standard", views=4)).fit(*data)
    dumped = io.dumps(model)
    again = io.loads(dumped, trusted=io.get_untrusted_types(data=dumped))
    assert repr(again.augment) == "Augment(views=4)"


def test_views_are_reached_where_there_is_no_augment_yet():
    model = classifier().set_params(augment__views=4)
    assert repr(model.augment) == "Augment(views=4)"
    model = classifier(augment=["flip"]).set_params(augment__views=np.int64(2))
    assert clone(model).augment.transforms == ["flip"]
    assert clone(model).augment.views == 2


def test_views_need_room_for_as_many_features(data):
    cache = FeatureCache("memory", name="room")
    model = classifier(augment=STANDARD, max_epochs=7, cache=cache).fit(*data)
    row = 4 * model.module_.backbone.n_features
    assert cache.statistics().bytes == 3 * 24 * row
