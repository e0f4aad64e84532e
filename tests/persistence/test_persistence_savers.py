"""Fitted models through the savers of others, and ours, into another process."""

import copy
import json
import pickle
import threading
from importlib.util import find_spec
from pathlib import Path

import cloudpickle
import joblib
import numpy as np
import pytest
from persistence_cases import (
    NUMBERS,
    ROWS,
    SMALL,
    Y,
    classifier,
    extractor,
    outputs,
    regressor,
    run,
    tiny_network,
)
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    TunedThresholdClassifierCV,
)

from sklearn_dl import ImageClassifier, make_feature_classifier
from sklearn_dl.persistence import ModelFileError, save

needs_skops = pytest.mark.skipif(find_spec("skops") is None, reason="needs skops")
FEATURES = make_feature_classifier(**SMALL)
PROBABLE = make_feature_classifier(**SMALL, probability=True)
TWO = [("head", classifier()), ("stage", classifier(trainable=1, max_epochs=1))]
THREE = [*TWO, ("features", PROBABLE)]
GRID = {"max_epochs": [1, 2]}
MODELS = {
    "classifier": classifier(trainable="all", backbone="mobilenet_v3_small"),
    "regressor": regressor(),
    "extractor": extractor(),
    "pipeline": FEATURES,
    "hard voting": VotingClassifier(THREE),
    "soft voting": VotingClassifier(THREE, voting="soft"),
    "bagging": BaggingClassifier(classifier(), n_estimators=2, random_state=0),
    "AdaBoost": AdaBoostClassifier(classifier(), n_estimators=2, random_state=0),
    "stacking": StackingClassifier([*TWO, ("features", FEATURES)], cv=2),
    "calibrated": CalibratedClassifierCV(classifier(), cv=2),
    "grid search": GridSearchCV(classifier(), GRID, cv=2),
    "halving search": HalvingGridSearchCV(
        classifier(random_state=None), GRID, cv=2, min_resources=9, random_state=0
    ),
    "frozen": FrozenEstimator(classifier()),
    "tuned threshold": TunedThresholdClassifierCV(classifier(), cv=2),
}
# What skops and MLflow ask for, as docs/guide/saving.md says.
TRUSTED = [
    "sklearn_dl._classifier.ImageClassifier",
    "sklearn_dl._features.ImageFeatureExtractor",
    "sklearn_dl._linear.FeatureSVC",
    "sklearn_dl._linear.FeatureScaler",
    "sklearn_dl._regressor.ImageRegressor",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.metrics._classification.balanced_accuracy_score",
    "sklearn.metrics._scorer._CurveScorer",
    "sklearn.metrics._scorer._PassthroughScorer",
    "sklearn.metrics._scorer._Scorer",
    "sklearn.model_selection._search_successive_halving.HalvingGridSearchCV",
    "sklearn.model_selection._split.StratifiedKFold",
    "sklearn.utils._bunch.Bunch",
    "sklearn.utils._metadata_requests.MetadataRequest",
    "sklearn.utils._metadata_requests.MethodMetadataRequest",
]


def skops_io():
    """Return the module of skops that saves; tests of it need it."""
    import skops.io

    return skops.io


WRITERS = {
    "pickle": lambda model, path: path.write_bytes(pickle.dumps(model)),
    "cloudpickle": lambda model, path: path.write_bytes(cloudpickle.dumps(model)),
    "joblib": joblib.dump,
    "skops": lambda model, path: skops_io().dump(model, path),
    "save": save,
}
SAVERS = [pytest.param(n, marks=needs_skops if n == "skops" else ()) for n in WRITERS]
READ_ALL = """
import json, pickle
from pathlib import Path
import joblib, numpy as np
from sklearn_dl.persistence import load
folder, trusted = Path(sys.argv[1]), json.loads(sys.argv[2])
readers = {
    "pickle": lambda path: pickle.loads(path.read_bytes()),
    "cloudpickle": lambda path: pickle.loads(path.read_bytes()),
    "joblib": joblib.load,
    "skops": lambda path: __import__("skops.io").io.load(path, trusted=trusted),
    "save": load,
}
rows = np.load(folder / "rows.npy")
for path in sorted(folder.glob("*.model")):
    try:
        model = readers[path.stem.split(", ")[1]](path)
        methods = "predict_proba", "decision_function", "predict", "transform"
        found = {m: getattr(model, m)(rows) for m in methods if hasattr(model, m)}
    except Exception as error:
        found = {"error": repr(error)}
    np.savez(path.with_suffix(""), **found)
"""


@pytest.fixture(scope="module")
def fitted():
    """Return the models, fitted."""
    MODELS["frozen"].estimator.fit(ROWS, Y)
    return {
        name: model.fit(ROWS, NUMBERS if name == "regressor" else Y)
        for name, model in MODELS.items()
    }


@pytest.fixture(scope="module")
def answers(fitted, tmp_path_factory):
    """Write each model by each saver, and return what another process says of all."""
    folder = tmp_path_factory.mktemp("savers")
    np.save(folder / "rows.npy", ROWS)
    for name, model in fitted.items():
        for saver, write in WRITERS.items():
            if saver != "skops" or find_spec("skops"):
                write(model, folder / f"{name}, {saver}.model")
    run(READ_ALL, folder, json.dumps(TRUSTED))
    return folder


@pytest.mark.parametrize("saver", SAVERS)
@pytest.mark.parametrize("name", MODELS)
def test_another_process_predicts_the_same_to_the_last_bit(
    name, saver, fitted, answers
):
    wanted = outputs(fitted[name], ROWS)
    with np.load(answers / f"{name}, {saver}.npz") as got:
        assert got.files == [*wanted], got["error"] if "error" in got else ""
        for method, values in wanted.items():
            np.testing.assert_array_equal(got[method], values)
            assert got[method].dtype == values.dtype


def test_the_page_about_saving_names_what_skops_asks_for():
    page = Path(__file__).parents[2] / "docs" / "guide" / "saving.md"
    text = page.read_text(encoding="utf-8")
    assert [name for name in TRUSTED if f"`{name}`" not in text] == []


@needs_skops
def test_skops_finds_nothing_of_the_training_and_no_pickle(fitted):
    data = skops_io().dumps(fitted["classifier"])
    assert skops_io().get_untrusted_types(data=data) == TRUSTED[:1]
    assert len(data) < 1.1 * len(pickle.dumps(fitted["classifier"]))
    for trace in (b"SGD", b"_rebuild_", b"collections"):
        assert trace not in data


@needs_skops
def test_members_of_an_ensemble_are_one_backbone_in_a_skops_file_and_in_memory():
    members = [(f"{n}", classifier(max_epochs=n)) for n in (1, 2, 3)]
    model = VotingClassifier(members).fit(ROWS, Y)
    data = skops_io().dumps(model)
    assert len(data) < 1.1 * len(skops_io().dumps(model.estimators_[0]))
    again = skops_io().loads(data, trusted=TRUSTED)
    one, *others = [member._network.backbone.module for member in again.estimators_]
    assert all(other is one for other in others)


@needs_skops
def test_skops_refuses_networks_and_functions_of_ones_own_by_name():
    own = classifier(backbone=tiny_network).fit(ROWS, Y)
    with pytest.raises(ModelFileError, match=r"\.backbone is persistence_cases\."):
        skops_io().dumps(own)
    with pytest.raises(ModelFileError, match="no other program can import"):
        skops_io().dumps(classifier(backbone=lambda: tiny_network()))


class Renamed(ImageClassifier):
    """A user's own estimator, trusted where its file is read."""


@needs_skops
def test_a_class_of_ones_own_is_for_skops_to_trust():
    model = Renamed(**SMALL, max_epochs=1).fit(ROWS, Y)
    data = skops_io().dumps(model)
    assert skops_io().get_untrusted_types(data=data) == [f"{__name__}.Renamed"]
    again = skops_io().loads(data, trusted=[Renamed])
    np.testing.assert_array_equal(again.predict_proba(ROWS), model.predict_proba(ROWS))


def test_damaged_states_and_those_of_others_are_refused(fitted):
    state = fitted["classifier"].__getstate__()
    with pytest.raises(ModelFileError, match=r"an ImageFeatureExtractor: it is that"):
        extractor().__setstate__(state)
    with pytest.raises(ModelFileError, match=r"an ImageClassifier is .*manifest\.json"):
        classifier().__setstate__({"cache": "some/folder"})
    flipped = {**state, "tensors-0.safetensors": state["tensors-0.safetensors"] ^ 1}
    with pytest.raises(ModelFileError, match=r"an ImageClassifier: .*digest differs"):
        classifier().__setstate__(flipped)
    with pytest.raises(ModelFileError, match="an ImageClassifier is damaged"):
        classifier().__setstate__({**state, "manifest.json": "odd"})


def test_copies_and_pickles_keep_what_a_warm_start_goes_on_with():
    model = classifier(warm_start=True).fit(ROWS, Y)
    again = pickle.loads(pickle.dumps(model))
    assert again.fit(ROWS, Y).n_iter_ == model.fit(ROWS, Y).n_iter_
    np.testing.assert_array_equal(again.predict_proba(ROWS), model.predict_proba(ROWS))


class Locked(ImageClassifier):
    """An estimator of somebody else's, with what no pickle can hold."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.lock = threading.Lock()

    def __getstate__(self):
        state = super().__getstate__()
        state.pop("lock", None)
        return state

    def __setstate__(self, state):
        super().__setstate__({**state, "lock": threading.Lock()})

    @classmethod
    def _get_param_names(cls):
        return ImageClassifier._get_param_names()


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))]
)
def test_the_state_of_a_subclass_is_its_own(copied):
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), "uint8")
    model = Locked("mobilenet_v3_small", weights="builtin", image_size=32, max_epochs=1)
    model.fit(images, [0, 1, 0, 1])
    again = copied(model)
    assert again.lock is not model.lock
    np.testing.assert_array_equal(
        again.predict_proba(images), model.predict_proba(images)
    )
