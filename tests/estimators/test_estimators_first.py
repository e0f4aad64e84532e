"""Small things that people meet first: what is chosen, refused and said."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from estimator_cases import SMALL, classifier, extractor, regressor, two_brightnesses
from sklearn.exceptions import NotFittedError
from sklearn.svm import SVC
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from sklearn_dl import (
    FeatureSVC,
    ImageClassifier,
    ImageFeatureExtractor,
    ImageRegressor,
    make_feature_classifier,
)
from sklearn_dl.persistence import load, save

X, Y = two_brightnesses(8)


@pytest.mark.parametrize("kind", [ImageClassifier, ImageRegressor])
def test_built_in_weights_choose_their_backbone(kind, tmp_path):
    options = {"weights": "builtin", "image_size": 32, "random_state": 0}
    options["max_epochs"] = 2
    y = Y if kind is ImageClassifier else np.arange(8.0)
    model = kind(**options).fit(X, y)
    named = kind("mobilenet_v3_small", **options).fit(X, y)
    np.testing.assert_array_equal(model.predict(X), named.predict(X))
    assert model.get_params()["backbone"] == "auto"
    for backbones in ("whole", "reference"):
        save(model, tmp_path / backbones, backbones=backbones)
        again = load(tmp_path / backbones)
        np.testing.assert_array_equal(again.predict(X), model.predict(X))


def test_without_weights_the_usual_backbone_is_taken():
    model = ImageFeatureExtractor(weights=None, image_size=32, random_state=0).fit(X)
    assert model.backbone_.name == "mobilenet_v2"
    with pytest.raises(ValueError, match="'mobilenet_v3_small', not of 'resnet18'"):
        ImageFeatureExtractor("resnet18", weights="builtin").fit(X)


def test_regimes_of_the_built_in_weights_keep_their_backbone():
    from sklearn_dl.model_selection import recommend_regime

    model = ImageClassifier(weights="builtin", image_size=32)
    *_, last = recommend_regime(model, 10**6, "different")
    assert (last.estimator.backbone, last.estimator.weights) == (
        "mobilenet_v3_small",
        None,
    )


def test_the_feature_classifier_takes_the_backbone_first():
    model = make_feature_classifier("resnet18", weights=None)
    assert model.named_steps["features"].backbone == "resnet18"
    with pytest.raises(TypeError, match=r"backbone first: write classifier=SVC\("):
        make_feature_classifier(SVC(), weights=None)
    with pytest.raises(TypeError, match=r"backbone first: write classifier=SVC\("):
        make_feature_classifier(SVC, weights=None)
    with pytest.raises(TypeError, match=r"backbone first: write classifier=SVC\("):
        make_feature_classifier(SVC(), backbone="resnet18")


@pytest.mark.parametrize("method", ["predict_proba", "predict_log_proba"])
def test_a_model_without_probabilities_says_what_has_them(method):
    hinge = classifier(loss="hinge")
    assert not hasattr(hinge, method)
    with pytest.raises(AttributeError, match=rf"{method}.*loss='log_loss'"):
        getattr(hinge, method)
    assert not hasattr(FeatureSVC(), method)
    with pytest.raises(AttributeError, match=rf"{method}.*probability=True"):
        getattr(FeatureSVC(), method)
    model = make_feature_classifier(**SMALL).fit(X, Y)
    with pytest.raises(AttributeError) as caught:
        getattr(model, method)
    assert "probability=True" in str(caught.value.__cause__)
    for other in (hinge, FeatureSVC()):
        with pytest.raises(AttributeError, match="no attribute 'nothing'"):
            other.nothing  # noqa: B018


@pytest.mark.parametrize("make", [classifier, regressor])
def test_what_a_fit_gives_says_that_there_was_none(make):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        make().module_  # noqa: B018


def test_logarithms_of_probabilities():
    model = classifier().fit(X, Y)
    expected = np.log(model.predict_proba(X))
    np.testing.assert_array_equal(model.predict_log_proba(X), expected)
    several = classifier().fit(X, np.array([[0, 1], [1, 1]] * 4))
    assert several.predict_log_proba(X).shape == (8, 2)


def test_columns_of_a_table_are_named():
    frame = pd.DataFrame({"age": [1.0, 2.0], "path": ["a.jpg", "b.jpg"]})
    with pytest.raises(ValueError, match=r"one column, X\[\['path'\]\]\."):
        extractor().fit(frame)
    with pytest.raises(ValueError, match=r"one column, X\[:, \[1\]\]\."):
        extractor().fit(frame.to_numpy())


@pytest.mark.parametrize("make", [classifier, extractor])
@pytest.mark.parametrize("form", ["stack", "grey", "list"])
def test_one_grey_image_is_not_read_as_rows(make, form):
    forms = {"stack": X, "grey": X[..., 0], "list": list(X)}
    model = make().fit(forms[form], Y)
    use = model.predict if make is classifier else model.transform
    with pytest.raises(ValueError, match=r"\(768, 1024\) would be 768 rows.*X\[None\]"):
        use(np.zeros((768, 1024), "uint8"))
    assert len(use(np.zeros((1, 768, 1024), "uint8"))) == 1
    shaped = make(image_shape=(32, 32, 3)).fit(forms["stack"], Y)
    use = shaped.predict if make is classifier else shaped.transform
    assert len(use(X.reshape(8, -1))) == 8


def test_a_data_loader_is_told_its_dataset():
    loader = DataLoader(TensorDataset(torch.zeros(2, 3, 8, 8)), batch_size=1)
    with pytest.raises(TypeError, match=r"load_torch_dataset\(loader\.dataset\)"):
        extractor().fit(loader)


LONG = "iVBORw0KGgo/" * 500  # as images in base64 begin


@pytest.mark.parametrize(
    "use",
    [
        lambda: extractor().fit(LONG),
        lambda: extractor().fit([LONG]).transform([LONG]),
        lambda: extractor(backbone=LONG).fit(X),
        lambda: extractor(weights=LONG).fit(X),
        lambda: extractor(layer=LONG).fit(X),
        lambda: extractor(preprocessing=LONG).fit(X),
        lambda: extractor(device=LONG).fit(X),
        lambda: extractor(cache=LONG).fit(X),
        lambda: regressor(trainable=LONG).fit(X, np.arange(8.0)),
        lambda: classifier(augment=LONG).fit(X, Y),
    ],
    ids=[
        *("X", "row", "backbone", "weights", "layer", "preprocessing", "device"),
        *("cache", "trainable", "augment"),
    ],
)
def test_a_long_text_does_not_fill_an_error(use):
    with pytest.raises((ValueError, TypeError, OSError, RuntimeError)) as caught:
        use()
    assert LONG[:20] in str(caught.value) or "long" in str(caught.value)
    assert len(str(caught.value)) < 700


def test_a_path_of_usual_length_stays_whole():
    path = "folder/" * 30 + "image.jpg"
    with pytest.raises(ValueError, match=f"'{path}': no such file"):
        extractor().fit([path]).transform([path])


@pytest.mark.parametrize("trainable", ["head", 0, []])
def test_a_warm_up_of_a_head_alone_is_an_error(trainable):
    with pytest.raises(ValueError, match=r"warmup_epochs=1 .* trains the head alone"):
        classifier(trainable=trainable, warmup_epochs=1).fit(X, Y)


@dataclasses.dataclass
class Output:
    """What Hugging Face's models give."""

    last_hidden_state: torch.Tensor
    pooler_output: torch.Tensor | None = None


class WithFields(nn.Module):
    """A network that gives a dataclass, or a dict."""

    def __init__(self, form=Output):
        super().__init__()
        self.form = form
        self.stem = nn.Conv2d(3, 5, 4, 4)

    def forward(self, pixel_values):
        values = self.stem(pixel_values)
        return self.form(last_hidden_state=values, pooler_output=values.amax((2, 3)))


def with_fields():
    torch.manual_seed(0)
    return WithFields()


def with_a_dict():
    torch.manual_seed(0)
    return WithFields(dict)


@pytest.mark.parametrize("make", [with_fields, with_a_dict])
def test_a_field_of_a_networks_output_is_taken_by_name(make, tmp_path):
    options = {"backbone": make, "weights": "DEFAULT", "image_size": (32, 32)}
    with pytest.raises(TypeError, match=r"(Output|dict), not a.*layer='pooler_output'"):
        extractor(**options).fit(X)
    with pytest.raises(ValueError, match=r"Unknown layer 'pooler'.*'pooler_output'"):
        extractor(**options, layer="pooler").fit(X)
    model = extractor(**options, layer="pooler_output").fit(X)
    found = model.transform(X)
    images = torch.from_numpy(X).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        out = make().stem(model.preprocessing_.normalize(images))
    np.testing.assert_allclose(found, out.amax((2, 3)).numpy(), atol=1e-5)
    mean = extractor(**options, layer=("last_hidden_state", "avg")).fit_transform(X)
    np.testing.assert_allclose(mean, out.mean((2, 3)).numpy(), atol=1e-5)
    trained = classifier(**options, layer="pooler_output", trainable="all").fit(X, Y)
    assert trained.predict(X).shape == (8,)
