"""What a fit leaves behind, and what it refuses to take along."""

import pickle

import numpy as np
import pandas as pd
import processes
import pytest
from estimator_cases import classifier, extractor, regressor, two_brightnesses
from PIL import Image

from sklearn_dl._images import ImageDecodeError


@pytest.mark.parametrize("warm_start", [False, True])
def test_no_gradient_stays_behind(data, warm_start):
    model = classifier(trainable="all", warm_start=warm_start).fit(*data)
    parameters = list(model.module_.parameters())
    assert len(parameters) > 2
    assert all(parameter.grad is None for parameter in parameters)
    if warm_start:
        assert len(model._net.optimizer_.state) == len(parameters)
    else:  # nothing goes on with a net
        assert not hasattr(model, "_net")


def test_no_training_data_stay_in_a_pickle(data):
    X, y = data
    many = np.concatenate([X] * 20), np.concatenate([y] * 20)
    small = len(pickle.dumps(classifier(early_stopping=True).fit(*data)))
    large = len(pickle.dumps(classifier(early_stopping=True).fit(*many)))
    assert abs(large - small) < 10_000 < many[0].nbytes


def test_no_thread_stays_behind():
    code = """
import threading, numpy as np
from sklearn_dl import ImageFeatureExtractor
X = np.zeros((3, 40, 40, 3), "uint8")
ImageFeatureExtractor("squeezenet1_1", weights=None, image_size=32).fit_transform(X)
print(*[t.name for t in threading.enumerate()])
"""
    assert processes.run(code).stdout.split() == ["MainThread"]


@pytest.mark.parametrize(
    "validation",
    [
        (["gone.png"] * 2, ["dark", "light"], r"row 0, 'gone\.png'"),
        (np.full((2, 32, 32, 3), np.nan), ["dark", "light"], "NaN"),
        (np.zeros((2, 32, 32, 3), "uint8"), ["dark", "green"], "green"),
        (np.zeros((2, 32, 32, 3), "uint8"), ["dark"], r"inconsistent .*samples"),
    ],
    ids=["file", "nan", "class", "length"],
)
@pytest.mark.parametrize("trainable", ["head", "all"])
def test_errors_of_validation_rows_say_so(data, validation, trainable):
    X_val, y_val, message = validation
    with pytest.raises(ValueError, match=message) as caught:
        classifier(trainable=trainable).fit(*data, X_val=X_val, y_val=y_val)
    assert any("X_val" in note for note in caught.value.__notes__)


def test_errors_of_training_rows_do_not_speak_of_validation(tmp_path):
    X, y = two_brightnesses(16)
    paths = []
    for i, pixels in enumerate(X):
        paths.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(pixels).save(paths[-1])
    paths[3] = "gone.png"
    with pytest.raises(ImageDecodeError, match=r"row 3, 'gone\.png'") as caught:
        classifier(trainable="all").fit(paths, y, X_val=X, y_val=y)
    assert not any("X_val" in note for note in getattr(caught.value, "__notes__", []))


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("batch_size", "batch_size"),
        ("callbacks", "callbacks"),
        ("criterion__reduction", "loss"),
        ("device", "device"),
        ("dtype", "precision"),
        ("module", "backbone"),
        ("module__x", "backbone"),
        ("optimizer__weight_decay", "weight_decay"),
        ("preprocessing", "preprocessing"),
        ("train_split", "X_val"),
    ],
)
def test_net_params_do_not_take_what_has_a_parameter(data, name, instead):
    with pytest.raises(ValueError, match=rf"net_params=\['{name}'\].*set .*{instead}"):
        classifier(net_params={name: 1}).fit(*data)


@pytest.mark.parametrize(
    ("given", "fused"), [({}, True), ({"optimizer__foreach": True}, None)]
)
def test_the_step_is_fused_unless_the_user_chooses(data, given, fused):
    model = classifier(device="cpu", net_params=given or None, warm_start=True)
    model.fit(*data)
    assert {g.get("fused") for g in model._net.optimizer_.param_groups} == {fused}


def test_a_scaled_step_is_not_fused(data):
    model = classifier(precision="float16", trainable="all", warm_start=True)
    model.set_params(device="cpu").fit(*data)
    assert {g.get("fused") for g in model._net.optimizer_.param_groups} == {None}
    assert np.isfinite(model.predict_proba(data[0])).all()


def test_pinned_memory_needs_workers(data):
    parameters = {"iterator_train__pin_memory": True}
    with pytest.raises(ValueError, match="needs iterator_train__num_workers"):
        classifier(net_params=parameters).fit(*data)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("preprocessing", "data"),
        ("image_size", 48),
        ("layer", "features.3"),
        ("backbone", "squeezenet1_0"),
    ],
)
def test_a_warm_start_refuses_another_network(data, name, value):
    model = classifier(warm_start=True).fit(*data)
    expected = model.predict_proba(data[0])
    with pytest.raises(ValueError, match=rf"{name}.* changed since"):
        model.set_params(**{name: value}).fit(*data)
    np.testing.assert_array_equal(model.predict_proba(data[0]), expected)
    model.set_params(warm_start=False).fit(*data)


def test_callbacks_that_are_none_are_refused(data):
    with pytest.raises(ValueError, match="callbacks has 'progress'"):
        classifier(callbacks=["progress"]).fit(*data)


def test_a_renamed_column_of_paths_is_an_error(tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    frame = pd.DataFrame({"path": [str(tmp_path / "a.png")] * 2})
    fitted = extractor().fit(frame)
    assert fitted.transform(frame).shape[0] == 2
    with pytest.raises(ValueError, match="feature names should match"):
        fitted.transform(frame.rename(columns={"path": "q"}))
    assert fitted.transform(frame["path"].tolist()).shape[0] == 2


def test_a_regressor_takes_validation_rows_of_its_own_width(data):
    X, _ = data
    with pytest.raises(ValueError, match="y_val has 2 targets, but the fit had 1"):
        regressor().fit(X, np.arange(24.0), X_val=X, y_val=np.zeros((24, 2)))


@pytest.mark.parametrize("weights", [{"dark": -1, "light": 1}, {"dark": np.nan}])
def test_class_weights_are_at_least_zero(data, weights):
    with pytest.raises(ValueError, match="class_weight"):
        classifier(class_weight=weights).fit(*data)
