"""The networks that the tests of this folder try, and torchvision's own to compare."""

import pytest
import torch
import torchvision
from torch import nn

from sklearn_dl.backbones import _zoo

# One small member of each family, with the side of the images it is tried on.
SMALL = {
    "alexnet": 64,
    "convnext_tiny": 64,
    "densenet121": 64,
    "efficientnet_b0": 64,
    "googlenet": 64,
    "inception_v3": 80,
    "maxvit_t": 224,
    "mnasnet0_5": 64,
    "mobilenet_v2": 64,
    "mobilenet_v3_small": 64,
    "regnet_y_400mf": 64,
    "resnet18": 64,
    "shufflenet_v2_x0_5": 64,
    "squeezenet1_1": 64,
    "swin_t": 224,
    "vgg11": 32,
    "vit_b_32": 64,
}
ALL = torchvision.models.list_models(module=torchvision.models)


def small_side(name):
    """Return a side of images that is quick to run and allowed."""
    if name in SMALL:
        return SMALL[name]
    if name.startswith("vit_"):
        return 4 * int(name.rsplit("_", 1)[1])
    return max(64, _zoo.smallest_side(name))


# Those of them that are trained, not only run, in the default tests.
QUICK = (
    "mnasnet0_5",
    "mobilenet_v3_small",
    "resnet18",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
)


def all_names(quick):
    """Return all 80 names; those not in `quick` are marked slow."""
    return [
        pytest.param(name, marks=() if name in quick else pytest.mark.slow)
        for name in ALL
    ]


def reference_network(name, side, seed=0):
    """Torchvision's own network, random, and the name of its last layer."""
    options = {}
    if name in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": True}
    if name.startswith("vit_"):
        options = {"image_size": side}
    torch.manual_seed(seed)
    network = torchvision.models.get_model(name, weights=None, **options).eval()
    *_, head = (n for n, m in network.named_modules() if is_weighted(m))
    return network, head


def is_weighted(module):
    return isinstance(module, nn.Linear | nn.Conv2d)


def images(side, n=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, side, side, generator=generator)
