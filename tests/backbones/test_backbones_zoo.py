"""The table of backbones."""

import time

import pytest
import torchvision
from backbone_cases import ALL
from torchvision.models import get_model_weights

from sklearn_dl.backbones import find_layers, list_backbones


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
        assert row["min_size"] == max(meta["min_size"])
    assert not zoo.isna().any().any()


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
