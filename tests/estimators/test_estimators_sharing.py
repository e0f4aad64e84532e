"""One frozen backbone for all: who may write to it has his own."""

import copy
import pickle
import threading

import numpy as np
import pytest
import torch
from estimator_cases import classifier, extractor, regressor, two_brightnesses
from skorch.callbacks import Callback

from sklearn_dl import (
    FeatureCache,
    ImageClassifier,
    ImageFeatureExtractor,
    ImageRegressor,
    make_feature_classifier,
)
from sklearn_dl.augmentation import Augment
from sklearn_dl.persistence import load, save

X, Y = two_brightnesses(16)


class Keeps(Callback):
    """Keeps the network after training."""

    def on_train_end(self, net, **kwargs):
        self.network_ = net.module_


class Looks(Callback):
    """Does nothing."""


def doubled(network):
    with torch.no_grad():
        for parameter in network.backbone.parameters():
            parameter.mul_(2)


def test_what_a_callback_kept_and_changed_is_seen_by_its_estimator_alone():
    keeps, other = Keeps(), classifier().fit(X, Y)
    model = classifier(callbacks=[keeps]).fit(X, Y)
    before = model.predict_proba(X)
    np.testing.assert_array_equal(before, other.predict_proba(X))
    doubled(keeps.network_)
    assert np.abs(model.predict_proba(X) - before).max() > 1e-3
    np.testing.assert_array_equal(other.predict_proba(X), before)


def test_what_is_changed_in_module_is_seen_by_its_estimator_alone():
    model, other = classifier().fit(X, Y), classifier().fit(X, Y)
    assert model._network.backbone.module is other._network.backbone.module
    before = model.predict_proba(X)
    doubled(model.module_)
    assert np.abs(model.predict_proba(X) - before).max() > 1e-3
    np.testing.assert_array_equal(other.predict_proba(X), before)
    for parameter in model._network.backbone.parameters():  # as who kept it does
        parameter.data.mul_(0.5)
    np.testing.assert_array_equal(model.predict_proba(X), before)


@pytest.mark.parametrize("trainable", ["head", "all"])
@pytest.mark.parametrize("cache", [None, "memory"])
def test_who_only_reads_module_changes_nothing(tmp_path, trainable, cache):
    options = {"backbone": "mobilenet_v3_small", "weights": "builtin"}
    model = classifier(trainable=trainable, cache=cache, **options).fit(X, Y)
    FeatureCache().clear()  # the batches of the fit round otherwise
    before = model.predict_proba(X[:5])
    assert not model.module_.backbone.settled
    np.testing.assert_array_equal(model.predict_proba(X[:5]), before)
    FeatureCache().clear()
    np.testing.assert_array_equal(model.predict_proba(X[:5]), before)
    save(model, tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").predict_proba(X[:5]), before)


def test_hooks_on_module_see_what_is_predicted():
    model = classifier(trainable="all").fit(X, Y)
    seen = []
    for part in (model.module_, model.module_.backbone, model.module_.backbone.module):
        part.register_forward_hook(lambda *_: seen.append(len(seen)))
    model.predict(X[:2])
    assert len(seen) == 3


@pytest.mark.parametrize("augment", [None, "light"])
def test_a_callback_that_does_nothing_changes_nothing(augment):
    options = {"augment": augment, "batch_size": 8}
    plain = classifier(**options).fit(X, Y)
    watched = classifier(**options, callbacks=[Looks()]).fit(X, Y)
    np.testing.assert_array_equal(plain.predict_proba(X), watched.predict_proba(X))


def test_estimators_out_of_one_pickle_compute_each_in_its_own_precision():
    pair = [extractor().fit(X), extractor().fit(X)]
    one, two = pickle.loads(pickle.dumps(pair))
    one.set_params(precision="float64")
    assert one.transform(X).dtype == np.float64
    np.testing.assert_array_equal(two.transform(X), pair[1].transform(X))


def test_a_warm_start_is_pickled_with_one_network():
    cold = classifier().fit(X, Y)
    warm = classifier(warm_start=True).fit(X, Y)
    assert len(pickle.dumps(warm)) < 1.1 * len(pickle.dumps(cold))
    again = pickle.loads(pickle.dumps(warm))
    assert again._net.module_ is again._network
    np.testing.assert_array_equal(
        again.fit(X, Y).predict_proba(X), warm.fit(X, Y).predict_proba(X)
    )


REMOVED = {
    "freeze_batch_norm": (True, "Trainable"),
    "label_smoothing": (0.1, "LogLoss"),
    "mix": ("mixup", "Augment"),
    "mix_alpha": (0.2, "Augment"),
    "normalize": ("data", "preprocessing='data'"),
    "pooling": ("max", r"layer=\("),
    "weight_decay": (1e-4, "Optimizer"),
}


@pytest.mark.parametrize("name", REMOVED)
def test_a_removed_parameter_is_refused_with_what_to_write(name):
    value, instead = REMOVED[name]
    of_features = name in ("normalize", "pooling")
    kinds = [ImageClassifier, *([ImageFeatureExtractor] if of_features else [])]
    kinds += [ImageRegressor] if name != "label_smoothing" else []
    for kind in kinds:
        with pytest.raises(TypeError, match=f"no {name} any more: write .*{instead}"):
            kind(**{name: value})
        with pytest.raises(ValueError, match=f"no {name} any more: write .*{instead}"):
            kind().set_params(**{name: value})


@pytest.mark.parametrize("name", ["normalize", "pooling"])
def test_the_pipeline_of_features_refuses_them_too(name):
    with pytest.raises(TypeError, match=f"no {name} any more"):
        make_feature_classifier(**{name: REMOVED[name][0]})


def test_layers_that_were_set_to_train_change_no_prediction_and_no_cache():
    net = {"backbone": "mobilenet_v3_small", "weights": "builtin"}
    model = classifier(**net).fit(X, Y)
    wanted = model.predict_proba(X)
    modules = [m for m in model.module_.backbone.modules() if hasattr(m, "running_var")]
    kept = [m.running_var.clone() for m in modules]
    for module in modules:
        module.train()
    np.testing.assert_allclose(model.predict_proba(X), wanted, atol=1e-6)
    assert modules
    assert all(map(torch.equal, kept, [m.running_var for m in modules]))

    cache = FeatureCache(name="modes")
    one = extractor(cache=cache, **net).fit(X)
    other = extractor(cache=None, **net).fit(X)
    for module in one.backbone_.modules():
        module.training = not list(module.children())
    one.transform(X)
    found = extractor(cache=cache, **net).fit(X).transform(X)
    np.testing.assert_allclose(found, other.transform(X), atol=1e-5)


def test_epochs_of_warm_up_are_those_of_a_head_alone():
    options = {"augment": "light", "max_epochs": 4, "random_state": 0}
    options |= {"backbone": "mobilenet_v3_small", "weights": "builtin"}
    head = classifier(trainable="head", **options).fit(X, Y)
    warm = classifier(trainable="all", warmup_epochs=3, **options).fit(X, Y)
    head, warm = head.history_["train_loss"], warm.history_["train_loss"]
    assert head[:3].tolist() == warm[:3].tolist()


def test_who_never_had_a_parameter_is_told_nothing_of_it():
    for make, name in ((extractor, "weight_decay"), (regressor, "label_smoothing")):
        with pytest.raises(TypeError, match="unexpected keyword"):
            make(**{name: 0.1})


def test_settings_of_an_augmentation_that_is_not_there():
    made = ImageClassifier().set_params(augment__strength=0.5).augment
    assert made.transforms == Augment().transforms
    made = ImageClassifier().set_params(augment__mix="mixup").augment
    assert (made.transforms, made.mix) == (None, "mixup")


def hook_on_a_layer(backbone):
    backbone.module.classifier.register_forward_hook(lambda part, given, out: 3 * out)


def hook_on_the_backbone(backbone):
    backbone.register_forward_hook(lambda part, given, out: 3 * out)


def forward_of_its_own(backbone):
    plain = backbone.forward
    backbone.forward = lambda x: 3 * plain(x)


def parameter_of_its_own(backbone):
    backbone.gain = torch.nn.Parameter(torch.tensor(3.0))
    backbone.register_forward_hook(lambda part, given, out: out * part.gain)


def layer_of_its_own(backbone):
    backbone.last = torch.nn.Linear(backbone.n_features, backbone.n_features)
    backbone.register_forward_hook(lambda part, given, out: part.last(out))


CHANGES = [
    hook_on_a_layer,
    hook_on_the_backbone,
    forward_of_its_own,
    parameter_of_its_own,
    layer_of_its_own,
]


@pytest.mark.parametrize("change", CHANGES)
def test_who_changes_a_backbone_gets_features_of_his_own(change):
    options = {"backbone": "mobilenet_v3_small", "weights": "builtin"}
    model = extractor(cache=FeatureCache(name="changes"), **options).fit(X)
    before = model.transform(X)
    change(model.backbone_)
    changed = model.transform(X)
    assert np.abs(changed - before).max() > 0.1
    if change is not layer_of_its_own:
        np.testing.assert_allclose(changed, 3 * before, rtol=1e-4, atol=1e-5)
    other = extractor(cache=FeatureCache(name="changes"), **options).fit(X)
    np.testing.assert_array_equal(other.transform(X), before)


def test_a_hook_sees_tensors_and_once_removed_all_is_as_before():
    model = extractor(cache=None, backbone="mobilenet_v3_small").fit(X)
    before, seen = model.transform(X), []
    part = model.backbone_.module.features[1]
    handle = part.register_forward_hook(lambda part, given, out: seen.append(out))
    for _ in range(2):
        model.transform(X)
    assert torch.cat(seen).shape[0] == 2 * len(X)
    handle.remove()
    np.testing.assert_array_equal(model.transform(X), before)


@pytest.mark.parametrize("name", ["module", "module.features", "module.features.4"])
def test_a_part_is_computed_that_an_equal_one_was_replaced_by(name):
    options = {"backbone": "mobilenet_v3_small", "weights": "builtin"}
    model = extractor(cache=FeatureCache(name=f"replaced {name}"), **options).fit(X)
    backbone = model.backbone_
    before = model.transform(X[:1])
    old = backbone.get_submodule(name)
    parent, _, last = name.rpartition(".")
    setattr(backbone.get_submodule(parent), last, copy.deepcopy(old))
    for parameter in old.parameters():
        parameter.data.mul_(1.5)
    FeatureCache(name=f"replaced {name}").clear()
    np.testing.assert_array_equal(model.transform(X[:1]), before)


def test_batch_norm_without_statistics_is_computed_as_it_is():
    model = extractor(cache=None, backbone="mobilenet_v3_small").fit(X)
    norm = model.backbone_.module.features[0][1]
    norm.running_mean = norm.running_var = None
    assert np.isfinite(model.transform(X)).all()


def test_what_a_hook_reads_may_change():
    factor = [1.0]

    def build():
        network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        network.register_forward_hook(lambda part, given, out: factor[0] * out)
        return network

    model = ImageFeatureExtractor(build, weights=None, image_size=32).fit(X)
    before = model.transform(X)
    factor[0] = 5.0
    np.testing.assert_allclose(model.transform(X), 5 * before, rtol=1e-6)


class Doubles(Callback):
    """Writes to a frozen backbone within an epoch, and looks at its output."""

    def on_batch_end(self, net, batch=None, training=False, **kwargs):
        if training:
            doubled(net.module_)
            x = torch.rand(2, 3, 32, 32)
            backbone = net.module_.backbone.eval()
            with torch.no_grad():
                self.got_, self.wanted_ = backbone(x), backbone.module(x)


def test_what_a_callback_writes_in_an_epoch_is_seen_at_once():
    doubles = Doubles()
    options = {"backbone": "mobilenet_v3_small", "augment": "light", "max_epochs": 1}
    classifier(callbacks=[doubles], batch_size=8, **options).fit(X, Y)
    torch.testing.assert_close(doubles.got_, doubles.wanted_)


def test_all_threads_are_handed_the_same_network():
    model = extractor().fit(X)
    found, start = [], threading.Barrier(4, timeout=30)

    def read():
        start.wait()
        found.append(model.backbone_)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [backbone is model.backbone_ for backbone in found] == [True] * 4


@pytest.mark.parametrize("part", ["head", "stage"])
def test_a_training_goes_on_with_a_part_that_was_replaced(part):
    model = classifier(trainable="all", warm_start=True).fit(X, Y)
    if part == "head":
        model.module_.head = torch.nn.Linear(model.module_.backbone.n_features, 2)
    else:
        features = model.module_.backbone.module.features
        features[0] = copy.deepcopy(features[0])
    n_epochs = len(model.history_)
    assert len(model.fit(X, Y).history_) > n_epochs
