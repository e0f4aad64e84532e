"""The table of layers tells the truth, and leaves the network as it was."""

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from sklearn_dl import (
    ImageClassifier,
    ImageFeatureExtractor,
    ImageRegressor,
    make_feature_classifier,
)
from sklearn_dl._base import network_of
from sklearn_dl.backbones import Backbone, find_layers, load_backbone
from sklearn_dl.inspection import model_summary
from sklearn_dl.training import BackboneWithHead

SMALL = {"backbone": "squeezenet1_1", "weights": None, "image_size": 32}


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (8, 40, 40, 3), "uint8")


@pytest.fixture(scope="module")
def fitted(images):
    model = ImageClassifier(**SMALL, trainable=1, max_epochs=1, random_state=0)
    return model.fit(images, [0, 1] * 4)


def as_if_fitted(backbone: Backbone, n_outputs: int) -> ImageClassifier:
    """Return an estimator around a network, without the memory of its weights."""
    head = nn.Linear(backbone.n_features, n_outputs, device="meta")
    model = ImageClassifier()
    model._network = BackboneWithHead(backbone, head)
    return model


def test_vgg19_has_the_published_number_of_parameters():
    with torch.device("meta"):
        backbone = load_backbone("vgg19", None)
    thousand = model_summary(as_if_fitted(backbone, 1000))
    assert thousand.attrs["parameters"] == 143_667_240
    summary = model_summary(as_if_fitted(backbone, 102))
    assert summary.attrs["parameters"] == 139_988_134
    head = summary[summary.stage == "head"]
    assert head.layer.tolist() == ["head"]
    assert head.parameters.sum() == head.trainable.sum() == 417_894
    assert summary.attrs["megabytes"] == pytest.approx(139_988_134 * 4 / 1e6)


@pytest.mark.parametrize(
    "name",
    [
        "convnext_tiny",
        "densenet121",
        "efficientnet_b0",
        "googlenet",
        "inception_v3",
        "maxvit_t",
        "mobilenet_v3_small",
        "resnet18",
        "shufflenet_v2_x0_5",
        "swin_v2_t",
        "vit_b_16",
    ],
)
def test_with_its_head_each_network_has_torchvisions_number_of_parameters(name):
    weights = torchvision.models.get_model_weights(name)
    published = weights["IMAGENET1K_V1"].meta["num_params"]
    if name in ("googlenet", "inception_v3"):  # published with auxiliary heads or not
        with torch.device("meta"):
            plain = torchvision.models.get_model(
                name, aux_logits=False, init_weights=False
            )
        published = sum(p.numel() for p in plain.parameters())
    if name == "maxvit_t":  # its own head has no bias
        published += 1000
    with torch.device("meta"):
        backbone = load_backbone(name, None)
    summary = model_summary(as_if_fitted(backbone, 1000))
    assert summary.attrs["parameters"] == summary.parameters.sum() == published
    assert summary.layer.is_unique
    # Each stage has exactly the parameters that freezing works on.
    sizes = {n: p.numel() for n, p in backbone.module.named_parameters()}
    expected = {s: sum(sizes[n] for n in ns) for s, ns in backbone.stages.items()}
    found = summary[summary.stage != "head"].groupby("stage").parameters.sum()
    assert found.to_dict() == expected
    called = set(summary[summary.kind != "Parameter"].layer) - {"head"}
    assert called <= set(find_layers(backbone.module))


def test_rows_follow_the_image_with_the_shapes_of_a_plain_forward():
    extractor = ImageFeatureExtractor("resnet18", weights=None, image_size=64)
    summary = model_summary(extractor).set_index("layer")
    net = torchvision.models.resnet18(weights=None).eval()
    shapes = {}

    def keep(module, inputs, output):
        shapes.setdefault(names[module], tuple(output.shape[1:]))

    names = {module: name for name, module in net.named_modules()}
    for module in names:
        module.register_forward_hook(keep)
    with torch.no_grad():
        net(torch.zeros(1, 3, 64, 64))
    leaves = {n for n, m in net.named_modules() if not list(m.children())} - {"fc"}
    order = [name for name in shapes if name in leaves]
    assert summary.index.tolist() == order
    assert summary.output_shape.to_dict() == {name: shapes[name] for name in order}
    assert summary.kind["layer1.0.conv1"] == "Conv2d"


def test_a_fitted_classifier_shows_what_training_changed(fitted):
    summary = model_summary(fitted)
    network = network_of(fitted)
    trainable = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert summary.attrs["trainable"] == summary.trainable.sum() == trainable
    last = list(network.backbone.stages)[-1]
    assert set(summary[summary.trainable > 0].stage) == {last, "head"}
    assert summary.attrs["non_trainable"] == summary.attrs["parameters"] - trainable
    assert summary.iloc[-1].layer == "head.output"
    assert summary.iloc[-1].output_shape == (2,)
    assert summary.attrs["note"] == ""


def test_the_first_image_of_x_passes_like_a_black_one(fitted, images):
    assert model_summary(fitted, images).equals(model_summary(fitted))


def test_nothing_is_left_behind(fitted, images):
    network = network_of(fitted)
    network.train()
    modes = {name: module.training for name, module in network.named_modules()}
    assert len(set(modes.values())) == 2  # the frozen part is in evaluation mode
    before = {name: t.clone() for name, t in network.state_dict().items()}
    generator = torch.get_rng_state()
    model_summary(fitted, images)
    assert modes == {name: m.training for name, m in network.named_modules()}
    assert all(torch.equal(before[n], t) for n, t in network.state_dict().items())
    assert torch.equal(generator, torch.get_rng_state())
    hooks = [(m._forward_hooks, m._forward_pre_hooks) for m in network.modules()]
    assert not any(one or other for one, other in hooks)


def test_hooks_are_removed_when_the_forward_pass_fails(fitted):
    network = network_of(fitted)

    def broken(module, inputs):
        raise RuntimeError("broken layer")

    handle = network.head.register_forward_pre_hook(broken)
    with pytest.raises(RuntimeError, match="broken layer"):
        model_summary(fitted)
    handle.remove()
    assert not any(m._forward_hooks for m in network.modules())


def test_the_hook_that_cuts_a_backbone_off_stays(images):
    extractor = ImageFeatureExtractor(**SMALL, layer="features.5").fit(images)
    before = extractor.transform(images)
    summary = model_summary(extractor)
    assert summary.iloc[-1].layer == "features.5"
    assert summary.iloc[-1].output_shape == (128, 3, 3)
    assert np.array_equal(extractor.transform(images), before)


class Twice(nn.Module):
    """Meets one layer twice, uses one by its weight alone, has a parameter itself."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(3, 1, 1))
        self.shared = nn.Conv2d(3, 3, 1)
        self.unseen = nn.Linear(3, 5)

    def forward(self, x):
        x = self.shared(self.shared(x + self.shift)).mean((2, 3))
        return nn.functional.linear(x, self.unseen.weight, self.unseen.bias)


def test_shared_and_uncalled_layers_count_once():
    summary = model_summary(ImageFeatureExtractor(Twice, weights=None)).set_index(
        "layer"
    )
    assert summary.parameters.to_dict() == {"shift": 3, "unseen": 20, "shared": 12}
    assert summary.kind.to_dict() == {
        "shift": "Parameter",
        "unseen": "Linear",
        "shared": "Conv2d",
    }
    assert summary.output_shape["unseen"] is None
    assert summary.attrs["parameters"] == 35


def test_before_fit_the_head_is_missing_and_the_note_says_so():
    model = ImageRegressor(**SMALL, trainable=1)
    summary = model_summary(model)
    assert network_of(model) is None
    assert "head" not in set(summary.stage)
    assert 0 < summary.attrs["trainable"] < summary.attrs["parameters"]
    assert "head" in summary.attrs["note"]
    assert summary.attrs["note"] in repr(summary)


def test_it_prints_every_layer_and_the_totals(fitted):
    summary = model_summary(fitted)
    total = f"{summary.attrs['parameters']:,} parameters"
    assert len(repr(summary).splitlines()) == len(summary) + 2
    assert total in repr(summary)
    assert total in summary._repr_html_()
    assert total not in repr(summary.head())


def test_a_pipeline_is_refused_with_a_hint():
    with pytest.raises(TypeError, match="got Pipeline; of a pipeline, give the step"):
        model_summary(make_feature_classifier())
