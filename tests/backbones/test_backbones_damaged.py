"""Damaged files of weights are read equal, or refused with their name."""

import io
import json
import warnings

import pytest
import torch
from damage import damaged, refusals
from safetensors.torch import save_file
from torch import nn

from sklearn_dl.backbones import load_backbone

RULE = {"resize_size": 9, "crop_size": [9, 9], "mean": [0.5] * 3, "std": [0.2] * 3}
N = [60, pytest.param(750, marks=pytest.mark.slow)]


def small_network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten())


def write(path):
    state = small_network().state_dict()
    if path.suffix == ".safetensors":
        save_file(state, path, {"preprocessing": json.dumps(RULE)})
    elif path.stem == "wrapped":
        torch.save({"state_dict": state, "preprocessing": RULE}, path)
    else:
        new = path.stem != "old"
        torch.save(state, path, _use_new_zipfile_serialization=new)


@pytest.mark.parametrize("n", N)
@pytest.mark.parametrize("name", ["w.pth", "old.pth", "wrapped.pth", "w.safetensors"])
def test_damaged_weights_are_refused_with_the_name_of_their_file(tmp_path, name, n):
    path = tmp_path / name
    write(path)
    copies = damaged(path.read_bytes(), n)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of the file's format
        found = refusals(
            path, copies, lambda file: load_backbone(small_network, file, layer="2")
        )
    assert found > n / 2


class Interrupted(io.BytesIO):
    """A file whose reading is interrupted, the nth time."""

    def __init__(self, data, n):
        super().__init__(data)
        self.left = n

    def _count(self):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt

    def read(self, *args):
        self._count()
        return super().read(*args)

    def readinto(self, buffer):
        self._count()
        return super().readinto(buffer)


@pytest.mark.parametrize("n", [1, 2, 4, 8])
@pytest.mark.parametrize("name", ["w.pth", "old.pth"])
def test_reading_that_is_interrupted_stays_so(tmp_path, monkeypatch, name, n):
    path, load = tmp_path / name, torch.load
    write(path)

    def interrupted(file, **options):
        return load(Interrupted(path.read_bytes(), n), **options)

    monkeypatch.setattr(torch, "load", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_backbone(small_network, path, layer="2")
