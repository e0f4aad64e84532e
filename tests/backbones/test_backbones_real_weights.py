"""Real weights and photographs, where they are at hand."""

import os
from pathlib import Path

import pytest
import torch
import torchvision
from PIL import Image
from torchvision.transforms import functional as F

from sklearn_dl.backbones import load_backbone

ASSETS = os.environ.get("SKLEARN_DL_ASSETS")
pytestmark = pytest.mark.skipif(
    not ASSETS, reason="SKLEARN_DL_ASSETS does not name the folder of real weights"
)


def test_features_equal_those_of_a_plain_torchvision_pipeline():
    weights = Path(ASSETS) / "mobilenet_v2_imagenet.pth"
    paths = sorted((Path(ASSETS) / "hymenoptera_data" / "val").rglob("*.jpg"))[::19]
    pictures = [Image.open(path).convert("RGB") for path in paths]
    assert len(pictures) >= 8

    network = torchvision.models.mobilenet_v2()
    state = torch.load(weights, weights_only=True)
    network.load_state_dict({k: v.float() for k, v in state.items()}, strict=False)
    network.classifier = torch.nn.Identity()
    preset = torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1.transforms()

    backbone = load_backbone("mobilenet_v2", weights).eval()
    cut = [F.pil_to_tensor(backbone.preprocessing.geometry(p)) for p in pictures]
    with torch.inference_mode():
        expected = network.eval()(torch.stack([preset(p) for p in pictures]))
        features = backbone(backbone.preprocessing.normalize(torch.stack(cut)))
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-4)
    assert features.std() > 0.1
