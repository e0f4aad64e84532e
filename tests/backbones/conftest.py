import pytest
import torch
from one_thread import one_thread  # noqa: F401

from sklearn_dl.backbones import _load, _zoo


@pytest.fixture
def without_memory(monkeypatch):
    """Let networks be built without their weights: shapes and names are real."""

    def build(name, size=None, *, shapes_only=False, pretrained=False):
        return _zoo.build(name, size, shapes_only=True, pretrained=pretrained)

    monkeypatch.setattr(_load, "build", build)


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Give an empty cache, and a download that fails as it does without a network."""
    from urllib.error import URLError

    def fail(*args, **kwargs):
        raise URLError("Name or service not known")

    old = torch.hub.get_dir()
    torch.hub.set_dir(str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    yield tmp_path / "hub" / "checkpoints"
    torch.hub.set_dir(old)
