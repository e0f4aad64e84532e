import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from estimator_cases import two_brightnesses
from one_thread import one_thread  # noqa: F401
from PIL import Image


@pytest.fixture(scope="session")
def assets():
    """Return the folder of real weights and photographs."""
    folder = os.environ.get("SKLEARN_DL_ASSETS")
    if not folder:
        pytest.skip("SKLEARN_DL_ASSETS is not set: no real weights and images")
    return Path(folder)


@pytest.fixture(scope="session")
def data():
    """Return 24 images of 32 x 32 in two classes that any features tell apart."""
    return two_brightnesses(24)


@pytest.fixture(scope="session")
def image_files(tmp_path_factory, data):
    """Return the paths of the images of `data`, losslessly on disk."""
    folder = tmp_path_factory.mktemp("images")
    paths = []
    for row, image in enumerate(data[0]):
        path = folder / f"{row:02d}.png"
        Image.fromarray(image).save(path)
        paths.append(str(path))
    return paths


@pytest.fixture(scope="session")
def path_column(image_files):
    """Return the paths as an (n, 1) object array."""
    return np.array(image_files, dtype=object)[:, None]


@pytest.fixture(scope="session")
def small_rows():
    """Return 40 rows of 8 x 8 grey pixels, and their classes."""
    rng = np.random.default_rng(1)
    rows = rng.integers(0, 128, (40, 64), "uint8")
    y = np.arange(40) % 2
    rows[y == 1] += 100
    return rows, y


def encoded(image, kind="PNG"):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, kind)
    return stream.getvalue()


@pytest.fixture(scope="session")
def pretrained_file(tmp_path_factory):
    """Return a file of resnet18 weights whose BatchNorm statistics mean something."""
    from torchvision.models import resnet18

    with torch.random.fork_rng():
        torch.manual_seed(3)
        module = resnet18(weights=None).train()
        with torch.no_grad():
            for _ in range(3):
                module(torch.randn(8, 3, 32, 32))
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(module.state_dict(), path)
    return path
