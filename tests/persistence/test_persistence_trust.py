"""What a model holds of the user's own: left out, refused, or loaded with trust."""

import functools
import warnings

import numpy as np
import persistence_cases
import pytest
import torch
from persistence_cases import (
    Halved,
    X,
    Y,
    assert_same_outputs,
    classifier,
    extractor,
    mirrored,
    own_loss,
    rewritten,
    run,
    tiny_network,
)
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    VotingClassifier,
)
from sklearn.feature_selection import SelectKBest, mutual_info_classif
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, TunedThresholdClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC
from skorch.callbacks import Callback

from sklearn_dl import ImageClassifier
from sklearn_dl.backbones._load import forget_shared
from sklearn_dl.persistence import ModelFileError, export_state_dict, load, save


def test_what_files_may_name_is_called_by_that_name():
    from sklearn_dl._saving._trust import OBJECTS, Trust, name_of

    ours = {name for name in OBJECTS if name.startswith("sklearn_dl")}
    assert {name_of(Trust().find(name, "object")) for name in ours} == ours


class Watch(Callback):
    """A user's callback."""


def test_what_only_training_needs_is_left_out_with_a_warning(tmp_path):
    model = classifier(
        loss=own_loss,
        callbacks=[Watch()],
        augment=lambda image: image,
        scoring=lambda model, X, y: 0.0,
        early_stopping=True,
        validation_fraction=0.3,
        optimizer=functools.partial(torch.optim.SGD, momentum=0.5),
        schedule="cosine",
    ).fit(X, Y)
    with pytest.warns(UserWarning, match="Left out") as caught:
        save(model, tmp_path / "model")
    text = str(caught[0].message)
    for name in ("loss", "callbacks", "augment", "scoring"):
        assert f"ImageClassifier.{name} (" in text
    again = load(tmp_path / "model")
    assert (again.loss, again.callbacks, again.augment) == ("log_loss", None, None)
    assert again.schedule == "cosine"
    assert_same_outputs(model, again)
    assert clone(again).fit(X, Y).n_iter_ >= 1


def test_a_loss_of_margins_stays_one(tmp_path):
    model = classifier(loss=torch.nn.MultiMarginLoss()).fit(X, Y)
    with pytest.warns(UserWarning, match="'hinge' instead"):
        save(model, tmp_path / "model")
    assert_same_outputs(model, load(tmp_path / "model"))


def test_plain_models_are_saved_without_a_warning(tmp_path):
    model = classifier(optimizer=torch.optim.Adam, random_state=0).fit(X, Y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save(model, tmp_path / "model")
        assert load(tmp_path / "model").optimizer is torch.optim.Adam


def test_attributes_that_are_not_plain_are_left_out(tmp_path):
    model = classifier().fit(X, Y)
    model.note_, model.helper_ = {"who": "me"}, Watch()
    with pytest.warns(UserWarning, match="helper_"):
        save(model, tmp_path / "model")
    again = load(tmp_path / "model")
    assert again.note_ == {"who": "me"}
    assert not hasattr(again, "helper_")


def test_a_search_over_functions_keeps_its_best_estimator(tmp_path):
    grid = {"augment": [None, lambda image: image]}
    model = GridSearchCV(classifier(), grid, cv=2, scoring=score).fit(X, Y)
    model.best_estimator_.set_params(augment=None)
    with pytest.warns(UserWarning, match=r"GridSearchCV\.param_grid"):
        save(model, tmp_path / "model")
    assert_same_outputs(model, load(tmp_path / "model"))


def score(model, X, y):
    return model.score(X, y)


def test_functions_that_nobody_can_import_are_refused_by_place(tmp_path):
    def local():
        return tiny_network()

    for backbone in (local, lambda: tiny_network()):
        model = ImageClassifier(backbone, image_size=16, max_epochs=1).fit(X, Y)
        with pytest.raises(ModelFileError, match=r"backbone.*top level of a module"):
            save(model, tmp_path / "model")
    pipeline = make_pipeline(extractor(), Local(), LinearSVC()).fit(X, Y)
    with pytest.raises(ModelFileError, match=r"steps\[1\]\[1\].*which no other"):
        save(pipeline, tmp_path / "model")


Local = type("Local", (Halved,), {"__qualname__": "f.<locals>.Local"})


def test_own_types_and_functions_need_trust(tmp_path):
    path = tmp_path / "model"
    own = functools.partial(tiny_network, width=3)
    model = VotingClassifier(
        [
            (
                "net",
                ImageClassifier(own, image_size=16, max_epochs=2, tta=mirrored),
            ),
            (
                "features",
                make_pipeline(
                    extractor(), Halved(), LinearSVC(), memory=None, verbose=False
                ),
            ),
        ]
    ).fit(X, Y)
    save(model, path)
    with pytest.raises(ModelFileError) as caught:
        load(path)
    for thing in (Halved, tiny_network, mirrored):
        assert f"persistence_cases.{thing.__name__}" in str(caught.value)
    with pytest.raises(ModelFileError, match=r"uses persistence_cases\.Halved, which"):
        load(path, trusted=[tiny_network, mirrored])
    trusted = [Halved, tiny_network, mirrored]
    again = load(path, trusted=trusted)
    assert_same_outputs(model, again)
    assert clone(again).fit(X, Y).predict(X[:2]).shape == (2,)


def test_a_trained_network_of_ones_own_is_loaded_with_its_tensors(tmp_path):
    model = ImageClassifier(
        tiny_network, image_size=16, max_epochs=2, trainable="all", weights=None
    ).fit(X, Y)
    save(model, tmp_path / "model")
    before = torch.random.get_rng_state()
    again = load(tmp_path / "model", trusted=[tiny_network])
    assert torch.equal(before, torch.random.get_rng_state())
    assert again._network.backbone.pretrained is False
    assert_same_outputs(model, again)


def test_what_a_script_defined_is_found_in_the_module_it_moved_to(tmp_path):
    code = (
        "from persistence_cases import X, Y, extractor, Halved\n"
        "from sklearn.pipeline import make_pipeline\n"
        "from sklearn.svm import LinearSVC\n"
        "from sklearn_dl.persistence import save\n"
        "Halved = type('Halved', (Halved,), {})\n"
        "save(make_pipeline(extractor(), Halved(), LinearSVC()).fit(X, Y), sys.argv[1])"
    )
    run(code, tmp_path / "model")
    with pytest.raises(ModelFileError, match=r"__main__\.Halved"):
        load(tmp_path / "model")
    again = load(tmp_path / "model", trusted=[Halved])
    assert type(again[1]) is persistence_cases.Halved
    assert again.predict(X[:2]).shape == (2,)


@pytest.mark.parametrize(
    "model",
    [
        make_pipeline(SelectKBest(k=2), LogisticRegression()),
        make_pipeline(SelectKBest(mutual_info_classif, k=2), LogisticRegression()),
        TunedThresholdClassifierCV(LogisticRegression(), cv=2),
        GradientBoostingClassifier(n_estimators=3, random_state=0),
        HistGradientBoostingClassifier(max_iter=3, random_state=0),
    ],
    ids=lambda model: str(model)[:60],
)
def test_ordinary_models_of_scikit_learn_come_back(model, tmp_path):
    features, labels = load_iris(return_X_y=True)
    if isinstance(model, TunedThresholdClassifierCV):
        labels = labels == 0
    save(model.fit(features, labels), tmp_path / "model")
    again = load(tmp_path / "model")
    np.testing.assert_array_equal(
        again.predict_proba(features), model.predict_proba(features)
    )


def test_trust_takes_things_not_names(tmp_path):
    save(classifier(), tmp_path / "model")
    with pytest.raises(TypeError, match="the class or function itself"):
        load(tmp_path / "model", trusted=["os.system"])
    with pytest.raises(TypeError, match="must be a list"):
        load(tmp_path / "model", trusted="os.system")


def test_a_trusted_function_is_not_called_because_a_file_says_so(tmp_path):
    from persistence_cases import change_manifest

    save(classifier(), tmp_path / "model")
    node = {"kind": "call", "name": "persistence_cases:mirrored", "arguments": [1]}

    def call(manifest):
        manifest["nodes"], manifest["root"] = [node], [0]

    change_manifest(tmp_path / "model", call)
    with pytest.raises(ModelFileError, match="is no class"):
        load(tmp_path / "model", trusted=[mirrored])


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "first.safetensors"
    export_state_dict(extractor().fit(X), path)
    return path


def test_backbones_by_reference_are_found_again(weights, tmp_path):
    members = [(str(k), classifier(weights=str(weights), lr=10.0**-k)) for k in (2, 3)]
    model = VotingClassifier(members, voting="soft").fit(X, Y)
    path = tmp_path / "model"
    save(model, path, backbones="reference")
    assert path.stat().st_size < weights.stat().st_size / 10
    assert_same_outputs(model, load(path))

    moved = weights.rename(tmp_path / "moved.safetensors")
    forget_shared()
    with pytest.raises(ModelFileError, match=r"load\(path, weights="):
        load(path)
    assert_same_outputs(model, load(path, weights=moved))
    assert_same_outputs(model, load(path, weights={"squeezenet1_1": str(moved)}))

    other = tmp_path / "other.safetensors"
    export_state_dict(extractor(random_state=1).fit(X), other)
    with pytest.raises(ModelFileError, match="their digest differs"):
        load(path, weights=other)


def test_a_backbone_that_was_trained_before_it_was_frozen_is_stored_whole(
    weights, tmp_path
):
    path = tmp_path / "model"
    model = classifier(weights=str(weights), trainable="all", warm_start=True)
    model.fit(X, Y).set_params(trainable="head").fit(X, Y)
    for _ in range(2):  # what was loaded is settled, and has other weights still
        save(model, path, backbones="reference")
        assert_same_outputs(model, model := load(path))


def test_what_can_not_be_referred_to_is_stored_whole(weights, tmp_path):
    path = tmp_path / "model"
    for model in (
        classifier(),  # random
        classifier(weights=str(weights), trainable=1),
        ImageClassifier(tiny_network, image_size=16, max_epochs=1),
    ):
        save(model.fit(X, Y), path, backbones="reference")
        names = []
        rewritten(path, lambda members, names=names: names.extend(members))
        assert "tensors-0.safetensors" in names
        weights_were_there = load(path, trusted=[tiny_network])
        assert_same_outputs(model, weights_were_there)


def test_a_wide_reference_keeps_its_precision(weights, tmp_path):
    model = extractor(weights=str(weights), precision="float64", tta="flip").fit(X)
    save(model, tmp_path / "model", backbones="reference")
    again = load(tmp_path / "model")
    assert again.transform(X[:2]).dtype == np.float64
    assert_same_outputs(model, again)


def test_a_network_that_was_changed_is_stored_whole(weights, tmp_path):
    model = extractor(weights=str(weights)).fit(X)
    other = extractor(weights=str(weights)).fit(X)
    _ = model.backbone_  # to look at
    save(model, tmp_path / "read", backbones="reference")
    assert (tmp_path / "read").stat().st_size < weights.stat().st_size / 10
    assert_same_outputs(model, load(tmp_path / "read"))
    with torch.no_grad():  # its weights are in no file of weights
        next(model.backbone_.parameters()).mul_(2)
    save(model, tmp_path / "model", backbones="reference")
    assert (tmp_path / "model").stat().st_size > weights.stat().st_size / 2
    again = load(tmp_path / "model")
    assert_same_outputs(model, again)
    assert again._backbone.settled  # nobody has been given that one
    wanted = other.transform(X)
    with torch.no_grad():
        next(again.backbone_.parameters()).zero_()
    np.testing.assert_array_equal(other.transform(X), wanted)


def test_small_parameters_come_back_as_they_were(tmp_path):
    from pathlib import Path

    from torchvision.models import ResNet18_Weights

    from sklearn_dl.augmentation import Augment
    from sklearn_dl.backbones import Preprocessing
    from sklearn_dl.training import LogLoss, Schedule, Trainable

    parameters = {
        "weights": ResNet18_Weights.IMAGENET1K_V1,
        "preprocessing": Preprocessing(40, (32, 32), (0.5,) * 3, (0.25,) * 3),
        "image_size": np.int64(32),
        "layer": ("layer3", "max"),
        "trainable": Trainable(2, freeze_batch_norm=True),
        "loss": LogLoss(label_smoothing=0.1),
        "augment": Augment("light", mix="mixup", mix_alpha=0.3),
        "backbone_lr": (1e-5, np.float32(1e-3)),
        "class_weight": {"dark": 1.0, "light": float("inf")},
        "schedule": Schedule("cosine", warmup_steps=3),
        "random_state": np.random.RandomState(3),
        "device": torch.device("cpu"),
        "net_params": {
            "iterator_train__num_workers": 2,
            "text": "\udcff\n",
            "path": Path("some") / "folder",
        },
    }
    model = ImageClassifier("resnet18", **parameters)
    save(model, tmp_path / "model")
    again = load(tmp_path / "model")
    for name, value in parameters.items():
        found = again.get_params(deep=False)[name]
        assert type(found) is type(value), name
        if name == "random_state":
            assert found.randint(10**6) == value.randint(10**6)
        else:
            assert repr(found) == repr(value), name
