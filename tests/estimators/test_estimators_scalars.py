"""Parameters that are numpy's scalars, as grids make them, are those of Python."""

import functools
import pickle

import numpy as np
import pytest
from estimator_cases import two_brightnesses
from sklearn.base import clone

from sklearn_dl import ImageClassifier, ImageFeatureExtractor, ImageRegressor
from sklearn_dl.augmentation import Augment
from sklearn_dl.datasets import Channels
from sklearn_dl.persistence import load, save
from sklearn_dl.training import Head, LogLoss, Optimizer, Schedule, Trainable

X, Y = two_brightnesses(8)
# Numbers that float16 holds, and int8.
BASE = {
    **{"backbone": "squeezenet1_1", "weights": None, "layer": ("pooled", "avg")},
    **{"preprocessing": "data", "image_size": 32, "image_shape": (32, 32, 3)},
    **{"tta": 2, "batch_size": 4, "device": "cpu", "precision": "float32"},
    **{"cache": "memory", "random_state": 3, "verbose": 0},
}
TRAINING = {
    **{"head": Head((3,), dropout=0.5, init="he_normal", normalization="layer")},
    **{"trainable": 1, "warmup_epochs": 1, "lr": 0.0078125},
    **{"backbone_lr": (0.0009765625, 0.001953125), "augment": "flip"},
    **{"max_epochs": 3, "optimizer": "adam", "schedule": "cosine"},
    **{"early_stopping": True, "validation_fraction": 0.25, "n_iter_no_change": 2},
    **{"tol": 0.0009765625, "scoring": None, "warm_start": False, "callbacks": None},
    "net_params": {"iterator_train__drop_last": True},
}
CLASSES = {
    **{"loss": LogLoss(0.25), "class_weight": {"dark": 2.0, "light": 0.5}},
    "scoring": "accuracy",
}
CASES = {
    ImageClassifier: {**BASE, **TRAINING, **CLASSES},
    ImageRegressor: {**BASE, **TRAINING, "loss": "absolute_error", "scoring": "r2"},
    ImageFeatureExtractor: BASE,
}
# Other values, which hold more of the small objects.
OBJECTS = {
    "trainable": Trainable(1, freeze_batch_norm=False),
    "augment": Augment(["flip"], strength=0.5, mix="mixup", mix_alpha=0.5),
    "optimizer": Optimizer(
        "sgd",
        weight_decay=0.125,
        l1=0.0009765625,
        max_grad_norm=2.0,
        max_grad_value=0.5,
        options={"momentum": 0.5, "nesterov": True},
    ),
    "schedule": Schedule(
        "step", step_size=1, gamma=0.5, warmup_lr=0.015625, warmup_steps=0.5
    ),
    "image_shape": Channels([2, 1, 0], rgb=False, shape=(32, 32, 3)),
    "head": Head(4, activation="tanh", init="xavier_uniform"),
}
INTEGERS = [*np.sctypeDict.values()]
INTEGERS = sorted({t for t in INTEGERS if issubclass(t, np.integer)}, key=str)
INTEGERS = [t for t in INTEGERS if t is not np.timedelta64]
FLOATS = [np.float16, np.float32, np.float64, np.longdouble]
# All integers of an estimator are of one type at once, and so are the others.
TYPES = [
    (integer, FLOATS[position % len(FLOATS)], np.str_, np.bool_)
    for position, integer in enumerate(INTEGERS)
]


def as_numpy(value, types):
    """Return a value with numpy's scalars of these types in place of Python's."""
    integer, floating, text, truth = types
    again = functools.partial(as_numpy, types=types)
    if isinstance(value, bool):
        return truth(value)
    for kind, scalar in ((int, integer), (float, floating), (str, text)):
        if isinstance(value, kind):
            return scalar(value)
    if isinstance(value, list | tuple):
        return type(value)(map(again, value))
    if isinstance(value, dict):
        return {key: again(part) for key, part in value.items()}
    if hasattr(value, "get_params"):
        params = {k: again(v) for k, v in value.get_params(deep=False).items()}
        return type(value)(**params)
    return value


def outputs(model):
    """Return all numbers that a fitted estimator gives."""
    method = next(
        n for n in ("predict_proba", "transform", "predict") if n in dir(model)
    )
    return getattr(model, method)(X)


@functools.cache
def expected(kind, objects):
    return outputs(kind(**parameters(kind, objects)).fit(X, target(kind)))


def parameters(kind, objects):
    own = CASES[kind]
    return {
        **own,
        **({k: v for k, v in OBJECTS.items() if k in own} if objects else {}),
    }


def target(kind):
    return np.linspace(0, 1, len(X)) if kind is ImageRegressor else Y


def test_cases_hold_all_parameters():
    for kind, given in CASES.items():
        assert given.keys() == kind().get_params(deep=False).keys()


def test_a_warm_start_goes_on_where_a_number_is_numpys():
    given = {"weights": None, "image_size": 32, "max_epochs": 1, "warm_start": True}
    model = ImageClassifier("squeezenet1_1", **given, head=Head(np.int64(4))).fit(X, Y)
    model.set_params(image_size=np.int8(32), head=Head(4), max_epochs=np.uint8(2))
    assert model.fit(X, Y).n_iter_ == 3
    assert model.set_params(max_epochs=1).get_params()["max_epochs"] == 1


@pytest.mark.parametrize("objects", [False, True], ids=["plain", "objects"])
@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("types", TYPES, ids=lambda types: types[0].__name__)
def test_numpy_scalars_are_taken_everywhere(kind, objects, types, tmp_path):
    given = as_numpy(parameters(kind, objects), types)
    model = kind(**given)
    for name, value in model.get_params(deep=False).items():
        assert value is given[name]
    copied = clone(model)
    assert repr(copied) == repr(model)
    model.fit(X, target(kind))
    found = outputs(model)
    np.testing.assert_array_equal(found, expected(kind, objects))
    np.testing.assert_array_equal(outputs(pickle.loads(pickle.dumps(model))), found)
    save(model, tmp_path / "model")
    loaded = load(tmp_path / "model")
    np.testing.assert_array_equal(outputs(loaded), found)
    if types is TYPES[0]:
        copied.fit(X, target(kind))
        np.testing.assert_array_equal(outputs(copied), found)
