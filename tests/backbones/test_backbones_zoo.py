"""The table of backbones."""

import time

import pytest
import torch
import torchvision
from backbone_cases import ALL, SMALL, all_names
from torchvision.models import get_model_weights

from sklearn_dl.backbones import (
    Preprocessing,
    assemble_torchvision,
    find_layers,
    list_backbones,
    load_backbone,
)


def test_every_classification_model_is_listed_with_torchvisions_numbers():
    zoo = list_backbones()
    assert zoo.index.name == "backbone"
    assert zoo.index.tolist() == sorted(ALL)
    assert len(zoo) >= 80
    for name, row in zoo.iterrows():
        entries = get_model_weights(name)
        assert row["weights"] == row["all_weights"][0] == entries.DEFAULT.name
        ours = {"builtin"} if name == "mobilenet_v3_small" else set()
        assert set(row["all_weights"]) == {entry.name for entry in entries} | ours
        meta = entries.DEFAULT.meta
        assert row["acc@1"] == meta["_metrics"]["ImageNet-1K"]["acc@1"]
        assert row["acc@5"] == meta["_metrics"]["ImageNet-1K"]["acc@5"]
        assert row["n_parameters"] == meta["num_params"]
        assert row["download_mb"] == meta["_file_size"]
        assert row["input_size"] == entries.DEFAULT.transforms().crop_size[0]
        if not name.startswith(("efficientnet_v2", "maxvit", "swin", "vit")):
            assert row["min_size"] == max(meta["min_size"])
    assert not zoo.isna().any().any()


@pytest.mark.parametrize("name", all_names(("resnet18", *SMALL)))
def test_the_smallest_side_is_what_the_network_runs_on(name):
    smallest = list_backbones().loc[name, "min_size"]

    def described(side):
        rule = Preprocessing(side, (side, side), (0.5,) * 3, (0.5,) * 3)
        return assemble_torchvision(name, (side, side), rule, "pooled", True)

    described(smallest)
    if smallest > 1:
        with pytest.raises(ValueError, match=f"{smallest - 1}"):
            described(smallest - 1)
    if name == "maxvit_t":
        described(445)
        with pytest.raises(ValueError, match="sides of 221 to 224 pixels"):
            described(225)


@pytest.mark.parametrize("name", ["efficientnet_v2_s", "swin_t", "swin_v2_t"])
def test_networks_run_on_less_than_their_metadata_say(name):
    with torch.inference_mode():
        backbone = load_backbone(name, None, image_size=32).eval()
        assert torch.isfinite(backbone(torch.rand(2, 3, 32, 32))).all()


def test_the_table_builds_no_network(monkeypatch):
    def refuse(*args, **kwargs):
        pytest.fail("a network was built")

    monkeypatch.setattr(torchvision.models, "get_model_builder", refuse)
    start = time.perf_counter()
    list_backbones()
    assert time.perf_counter() - start < 2


def test_layers_are_the_named_points_and_the_submodules():
    layers = find_layers(torchvision.models.squeezenet1_1())
    assert find_layers("squeezenet1_1") == layers
    assert layers[:2] == ["pre_logits", "pooled"]
    assert {"features", "features.3.squeeze", "classifier"} <= set(layers)
