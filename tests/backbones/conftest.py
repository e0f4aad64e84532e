import pytest
import torch

from sklearn_dl.backbones import _load, _zoo


@pytest.fixture(autouse=True)
def one_thread():
    """Leave the other cores alone: threads gain nothing on small images."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
