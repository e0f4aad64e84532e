"""A model that was saved is, when it is loaded, what it was."""

import os
import random
import signal
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import processes
import pytest
import torch
from persistence_cases import (
    NUMBERS,
    ROWS,
    SMALL,
    X,
    Y,
    assert_same_outputs,
    classifier,
    extractor,
    outputs,
    regressor,
)
from sklearn import config_context
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils.validation import check_is_fitted

from sklearn_dl import make_feature_classifier
from sklearn_dl._extraction import FeatureCache
from sklearn_dl.persistence import ModelFileError, load, save
from sklearn_dl.training import SAM, Head, Optimizer

LABELS = np.stack([Y == "dark", np.arange(18) % 2 == 0], axis=1).astype(int)

# Learns two brightnesses within a few epochs of the head.
EASY = {"layer": "features.2", "optimizer": "adam", "lr": 1e-2, "max_epochs": 10}


def with_classifier(model):
    return make_feature_classifier(classifier=model, **SMALL)


MODELS = {
    "classifier": (classifier(), X, Y),
    "all trained": (classifier(trainable="all", backbone="mobilenet_v3_small"), X, Y),
    "last stage": (classifier(trainable=1, warmup_epochs=1), X, Y),
    "head": (
        classifier(head=Head((8, 4), dropout=0.2, normalization="batch")),
        X,
        Y,
    ),
    "head of one layer": (classifier(head=Head(dropout=0.1)), X, Y),
    "layer": (classifier(layer=("features.5", "max")), X, Y),
    "hinge": (classifier(loss="hinge"), X, Y),
    "labels": (classifier(class_weight="balanced"), X, LABELS),
    "early stopping": (
        classifier(early_stopping=True, validation_fraction=0.3, schedule="cosine"),
        X,
        Y,
    ),
    "views": (classifier(tta="five_crop", augment="light"), X, Y),
    "bfloat16": (classifier(precision="bfloat16"), X, Y),
    "float64": (classifier(precision="float64", trainable=1), X, Y),
    "normalised by data": (classifier(preprocessing="data"), X, Y),
    "optimizer": (classifier(optimizer=Optimizer(SAM, l1=1e-4)), X, Y),
    "regressor": (regressor(), X, NUMBERS),
    "two targets": (regressor(), X, np.stack([NUMBERS, -NUMBERS], axis=1)),
    "extractor": (extractor(), X, None),
    "extractor of 64 bits": (extractor(precision="float64", tta="flip"), X, None),
    "features": (make_feature_classifier(**SMALL), X, Y),
    "calibrated features": (make_feature_classifier(probability=True, **SMALL), X, Y),
    "svc": (with_classifier(SVC()), X, Y),
    "logistic": (
        with_classifier(LogisticRegression()),
        X,
        Y,
    ),
    "sgd": (with_classifier(SGDClassifier()), X, Y),
    "forest": (
        with_classifier(RandomForestClassifier(3)),
        X,
        Y,
    ),
    "boosting": (
        make_feature_classifier(
            classifier=HistGradientBoostingClassifier(max_iter=3), **SMALL
        ),
        X,
        Y,
    ),
    "neighbours": (
        with_classifier(KNeighborsClassifier()),
        X,
        Y,
    ),
    "voting": (
        VotingClassifier(
            [
                ("net", classifier()),
                ("svm", make_feature_classifier(probability=True, **SMALL)),
            ],
            voting="soft",
        ),
        X,
        Y,
    ),
    "voting regressor": (
        VotingRegressor(
            [("net", regressor()), ("ridge", make_pipeline(extractor(), Ridge()))]
        ),
        X,
        NUMBERS,
    ),
    "stacking": (
        StackingClassifier(
            [("net", classifier()), ("svm", make_feature_classifier(**SMALL))], cv=2
        ),
        X,
        Y,
    ),
    "bagging": (BaggingClassifier(classifier(), 2, random_state=0), ROWS, Y),
    "boosted": (AdaBoostClassifier(classifier(**EASY), n_estimators=2), ROWS, Y),
    "search": (GridSearchCV(classifier(), {"head__dropout": [0.0, 0.2]}, cv=2), X, Y),
    "calibrated": (CalibratedClassifierCV(classifier(), cv=2), X, Y),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_loaded_model_is_what_was_saved(name, tmp_path):
    model, images, y = MODELS[name]
    model = clone(model).fit(images, y)
    save(model, tmp_path / "model")
    again = load(tmp_path / "model")
    assert type(again) is type(model)
    check_is_fitted(again)
    assert_same_outputs(model, again, images)
    assert repr(again) == repr(model)
    assert repr(clone(again)) == repr(clone(model))


def test_attributes_of_the_fit_survive(tmp_path):
    import pandas as pd

    paths = pd.DataFrame({"image": list(map(str, range(18)))})
    for i, image in enumerate(X):
        from PIL import Image

        Image.fromarray(image).save(tmp_path / f"{i}.png")
    paths["image"] = [str(tmp_path / f"{i}.png") for i in range(18)]

    model = classifier(early_stopping=True, validation_fraction=0.3).fit(paths, Y)
    save(model, tmp_path / "model")
    again = load(tmp_path / "model")
    np.testing.assert_array_equal(again.feature_names_in_, model.feature_names_in_)
    assert again.n_features_in_ == 1
    assert again.preprocessing_ == model.preprocessing_
    assert again.n_iter_ == model.n_iter_
    assert again.classes_.dtype == model.classes_.dtype
    np.testing.assert_array_equal(again.classes_, model.classes_)
    pd.testing.assert_frame_equal(again.history_, model.history_)
    assert again.best_epoch_ == model.best_epoch_


def test_a_loaded_model_can_be_fitted_again_and_goes_on(tmp_path):
    model = classifier(warm_start=True).fit(X, Y)
    save(model, tmp_path / "model")
    again = load(tmp_path / "model")
    assert_same_outputs(clone(again).fit(X, Y), clone(model).fit(X, Y))
    again.fit(X, Y)
    assert len(again.history_) == 4
    again.partial_fit(X, Y)
    assert again.n_iter_ == 5


def test_nothing_of_the_optimizer_is_in_the_file(tmp_path):
    plain = classifier(trainable="all", optimizer="adam").fit(X, Y)
    going_on = classifier(trainable="all", optimizer="adam", warm_start=True)
    save(plain, tmp_path / "plain")
    save(going_on.fit(X, Y), tmp_path / "going on")
    sizes = [os.path.getsize(tmp_path / name) for name in ("plain", "going on")]
    assert abs(sizes[0] - sizes[1]) < 1000
    tensors = sum(p.nbytes for p in plain.module_.state_dict().values())
    assert sizes[0] < tensors + 60_000


def test_members_of_an_ensemble_share_a_backbone_in_the_file_and_in_memory(tmp_path):
    members = [(str(k), classifier(lr=10.0**-k)) for k in (2, 3, 4)]
    model = VotingClassifier(members, voting="soft").fit(X, Y)
    save(model, tmp_path / "three")
    save(model.estimators_[0], tmp_path / "one")
    one = os.path.getsize(tmp_path / "one")
    assert os.path.getsize(tmp_path / "three") < 1.1 * one
    again = load(tmp_path / "three")
    networks = [member._network.backbone.module for member in again.estimators_]
    assert networks[0] is networks[1] is networks[2]
    assert again.named_estimators_["2"] is again.estimators_[0]


def test_trained_backbones_of_one_origin_stay_apart(tmp_path):
    members = [(str(k), classifier(trainable=1, lr=10.0**-k)) for k in (2, 3)]
    model = VotingClassifier(members, voting="soft").fit(X, Y)
    save(model, tmp_path / "model")
    again = load(tmp_path / "model")
    assert_same_outputs(model, again)
    first = again.estimators_[0].module_.backbone
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(1)
    assert_same_outputs(model.estimators_[1], again.estimators_[1])


def test_a_network_that_was_handed_out_predicts_the_same_too(tmp_path):
    model = classifier(backbone="resnet18").fit(X, Y)
    _ = model.module_  # from now on it isn't folded
    save(model, tmp_path / "model")
    assert_same_outputs(model, load(tmp_path / "model"))


def test_saving_and_loading_leave_the_model_and_the_generators_alone(tmp_path):
    model = classifier(backbone="resnet18").fit(X, Y)
    before = outputs(model)
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    states = torch.random.get_rng_state(), np.random.get_state()[1], random.getstate()
    save(model, tmp_path / "model")
    load(tmp_path / "model")
    assert torch.equal(states[0], torch.random.get_rng_state())
    np.testing.assert_array_equal(states[1], np.random.get_state()[1])
    assert states[2] == random.getstate()
    assert model._network.backbone.settled
    for method, values in outputs(model).items():
        np.testing.assert_array_equal(values, before[method])


def test_the_same_model_gives_the_same_file(tmp_path):
    model = classifier().fit(X, Y)
    save(model, tmp_path / "one")
    save(model, tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_an_estimator_that_was_not_fitted_is_kept_too(tmp_path):
    model = classifier(weights="some/file.pth", cache=FeatureCache(max_bytes=10))
    save(model, tmp_path / "model")
    again = load(tmp_path / "model")
    assert repr(again) == repr(model)
    assert again.cache == model.cache
    assert not hasattr(again, "module_")


def test_a_model_for_a_gpu_predicts_where_there_is_none(tmp_path):
    model = classifier(cache="memory").fit(X, Y)
    wanted = outputs(model)
    model.device = "cuda:7"
    save(model, tmp_path / "model")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = load(tmp_path / "model")
    assert again.device == "cuda:7"
    with pytest.warns(UserWarning, match="not available on this machine"):
        np.testing.assert_array_equal(again.predict(X), wanted["predict"])
    with pytest.raises(ValueError, match="not available on this machine"):
        again.fit(X, Y)


def test_weights_that_are_gone_are_not_missed(tmp_path):
    from sklearn_dl.persistence import export_state_dict

    weights = tmp_path / "weights.safetensors"
    export_state_dict(extractor().fit(X), weights)
    model = classifier(weights=str(weights)).fit(X, Y)
    save(model, tmp_path / "model")
    weights.unlink()
    again = load(tmp_path / "model")
    assert_same_outputs(model, again)
    with pytest.raises(FileNotFoundError, match="no file of weights"):
        clone(again).fit(X, Y)


def test_an_interrupted_save_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "model"
    save(classifier().fit(X, Y), path)
    good = path.read_bytes()
    other = classifier(trainable="all").fit(X, Y)
    for hook in ("os.fsync", "os.replace", "zipfile.ZipFile.writestr"):
        for error in (OSError("disk full"), KeyboardInterrupt()):

            def fail(*args, error=error, **kwargs):
                raise error

            with monkeypatch.context() as patch:
                patch.setattr(hook, fail)
                with pytest.raises(type(error)):
                    save(other, path)
            assert path.read_bytes() == good
            assert os.listdir(tmp_path) == ["model"]
    model = classifier(tta=lambda image: [image]).fit(X, Y)
    with pytest.raises(ModelFileError, match="tta"):
        save(model, path)
    assert path.read_bytes() == good


def test_a_killed_save_leaves_what_was_there(tmp_path):
    path = tmp_path / "model"
    save(classifier().fit(X, Y), path)
    good = path.read_bytes()
    code = (
        "import os, sys, zipfile\n"
        "from persistence_cases import X, Y, classifier\n"
        "from sklearn_dl.persistence import save\n"
        "model = classifier(trainable='all').fit(X, Y)\n"
        "write = zipfile.ZipFile.writestr\n"
        "def slow(*args):\n"
        "    write(*args); print('writing', flush=True); import time; time.sleep(60)\n"
        "zipfile.ZipFile.writestr = slow\n"
        "save(model, sys.argv[1])\n"
    )
    process = processes.start(code, path)
    assert process.stdout.readline() == b"writing\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert path.read_bytes() == good
    assert_same_outputs(load(path), load(path))


def test_arrays_come_back_in_their_order_of_memory(tmp_path):
    model = Ridge().fit([[0.0], [1.0]], [0.0, 1.0])
    model.rows_ = np.arange(6.0).reshape(2, 3)
    model.columns_ = np.asfortranarray(model.rows_)
    model.every_other_ = model.rows_[:, ::2]
    model.nothing_ = np.zeros((0, 3), np.int16)
    model.words_ = np.array([["é", "zwei"]])
    model.mixed_ = np.array([[1, "a"], [None, 2.5]], object)
    save(model, tmp_path / "model")
    again = load(tmp_path / "model")
    for name in ("rows_", "columns_", "every_other_", "nothing_", "words_", "mixed_"):
        array, found = getattr(model, name), getattr(again, name)
        np.testing.assert_array_equal(found, array)
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        assert found.flags.writeable
    assert again.columns_.flags.f_contiguous
    assert again.rows_.flags.c_contiguous


def test_the_file_is_plain(tmp_path):
    save(MODELS["features"][0].fit(X, Y), tmp_path / "model")
    with zipfile.ZipFile(tmp_path / "model") as archive:
        names = archive.namelist()
        assert {Path(name).suffix for name in names} == {".json", ".safetensors"}
        assert {info.compress_type for info in archive.infolist()} == {0}
        manifest = archive.read("manifest.json").decode()
    assert '"scikit-learn":' in manifest
    assert '"torch":' in manifest


def test_requests_for_metadata_are_kept(tmp_path):
    with config_context(enable_metadata_routing=True):
        svm = SVC().set_fit_request(sample_weight=True)
        for model in (
            make_pipeline(extractor(), svm),
            classifier(max_epochs=1).set_fit_request(sample_weight="weight"),
        ):
            save(model.fit(X, Y), tmp_path / "m")
            again = load(tmp_path / "m")
            steps = [m[-1] if hasattr(m, "steps") else m for m in (model, again)]
            kept, found = (str(step.get_metadata_routing()) for step in steps)
            assert "weight" in kept
            assert found == kept


def test_after_partial_fit_there_is_nothing_to_leave_out(tmp_path):
    model = classifier().partial_fit(X, Y, classes=np.unique(Y))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save(model, tmp_path / "m")
    assert_same_outputs(model, load(tmp_path / "m"))


def test_what_can_not_be_saved_says_so(tmp_path):
    with pytest.raises(TypeError, match="takes an estimator"):
        save({"no": "estimator"}, tmp_path / "model")
    with pytest.raises(ValueError, match="backbones='half'"):
        save(classifier(), tmp_path / "model", backbones="half")
    with pytest.raises(FileNotFoundError, match="no folder"):
        save(classifier(), tmp_path / "missing" / "model")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        save(classifier(), tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_network_that_was_changed_by_hand_is_refused(tmp_path):
    model = classifier().fit(X, Y)
    model.module_.backbone.module.features[1] = torch.nn.GELU()
    with pytest.raises(ModelFileError, match="changed after 'squeezenet1_1' was built"):
        save(model, tmp_path / "model")
    model = classifier().fit(X, Y)
    model.module_.head = torch.nn.Sequential(model.module_.head)
    with pytest.raises(ModelFileError, match="head was changed"):
        save(model, tmp_path / "model")


def test_a_pipeline_keeps_its_scaler_and_forgets_its_memory(tmp_path):
    model = make_feature_classifier(memory=str(tmp_path / "joblib"), **SMALL).fit(X, Y)
    with pytest.warns(UserWarning, match=r"Pipeline\.memory"):
        save(model, tmp_path / "model")
    again = load(tmp_path / "model")
    assert again.memory is None
    assert isinstance(again["scaler"], StandardScaler)
    assert_same_outputs(model, again)
