"""What the tests of all rooms share: their threads, and the fixtures of several files.

The fixtures import what they need: torch and numpy read the numbers of threads once.
"""

import os
from pathlib import Path
from urllib.error import URLError

import pytest

# Workers beside one another share the cores, and what a test starts does as they do.
for _library in ("OMP", "MKL", "OPENBLAS"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

# What ``-m quick`` runs: of each room the files that take a few seconds at most.
QUICK_FILES = """
augmentation: augmenter mix names views
backbones: callables freeze in_estimators preprocessing real_weights zoo
commands: train
datasets: files torch
ensemble: diversity
estimators: linear recipe_parts
extraction: forward reader store_cache store_contract
images: decode digests items source
inspection: corruptions losses parts
model_selection: experiments lr_find
persistence: state_dict trust
project: files shape
runtime: allocator fingerprint
training: adversarial averaging gradients head losses net sam schedule stopping
training: tensorboard trainable
"""
QUICK = {
    f"test_{room}_{name}"
    for room, _, names in (line.partition(": ") for line in QUICK_FILES.split("\n"))
    for name in names.split()
}


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Let workers take the tests in long runs, so that few of them share fixtures."""
    options = config.option
    if getattr(options, "numprocesses", None) and options.dist == "no":
        options.dist = "worksteal"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """Take a worker for each core, but no more than the memory and the work allow.

    A worker takes up to 3 GiB; beyond eight the longest tests decide.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError):
        memory = 16 * 2**30
    return max(1, min(cores, 8, memory // (3 * 2**30)))


def pytest_collection_modifyitems(items):
    """Mark what is quick, and begin with the longest: other workers do the rest."""
    for item in items:
        slow = any(item.get_closest_marker(m) for m in ("slow", "network", "gpu"))
        if item.path.stem in QUICK and not slow:
            item.add_marker("quick")
    items.sort(key=lambda item: item.path.parent.name != "project")


@pytest.fixture(autouse=True)
def few_threads(request):
    """Leave the other cores alone: threads gain nothing on small images.

    A file with ``pytestmark = pytest.mark.threads(2)`` is about work in threads.
    """
    import torch

    marker = request.node.get_closest_marker("threads")
    threads = torch.get_num_threads()
    torch.set_num_threads(marker.args[0] if marker else 1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def assets():
    """Return the folder of real weights and photographs."""
    folder = os.environ.get("SKLEARN_DL_ASSETS")
    if not folder:
        pytest.skip("SKLEARN_DL_ASSETS is not set: no real weights and images")
    return Path(folder)


@pytest.fixture
def machine(tmp_path):
    """Return a folder with `photos`: six images of ants, and lighter ones of bees."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for name, low in (("ants", 0), ("bees", 120)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(6):
            pixels = rng.integers(low, low + 130, (40, 48, 3), "uint8")
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.jpg")
    return tmp_path


# ----------------------------------------------------------------------- backbones


@pytest.fixture
def without_memory(monkeypatch):
    """Let networks be built without their weights: shapes and names are real."""
    from sklearn_dl.backbones import _load, _zoo

    def build(name, size=None, *, shapes_only=False, pretrained=False):
        return _zoo.build(name, size, shapes_only=True, pretrained=pretrained)

    monkeypatch.setattr(_load, "build", build)


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Give an empty cache, and a download that fails as it does without a network."""
    import torch

    def fail(*args, **kwargs):
        raise URLError("Name or service not known")

    old = torch.hub.get_dir()
    torch.hub.set_dir(str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    yield tmp_path / "hub" / "checkpoints"
    torch.hub.set_dir(old)


# ---------------------------------------------------------------------- estimators


@pytest.fixture(scope="session")
def data():
    """Return 24 images of 32 x 32 in two classes that any features tell apart."""
    from estimator_cases import two_brightnesses

    return two_brightnesses(24)


@pytest.fixture(scope="session")
def image_files(tmp_path_factory, data):
    """Return the paths of the images of `data`, losslessly on disk."""
    from PIL import Image

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
    import numpy as np

    return np.array(image_files, dtype=object)[:, None]


@pytest.fixture(scope="session")
def small_rows():
    """Return 40 rows of 8 x 8 grey pixels, and their classes."""
    import numpy as np

    rng = np.random.default_rng(1)
    rows = rng.integers(0, 128, (40, 64), "uint8")
    y = np.arange(40) % 2
    rows[y == 1] += 100
    return rows, y


@pytest.fixture(scope="session")
def pretrained_file(tmp_path_factory):
    """Return a file of resnet18 weights whose BatchNorm statistics mean something."""
    import torch
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


# ------------------------------------------------------------------------ commands


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Return a folder of six dark and six light images, by their classes."""
    from commands_cases import write_folder

    return write_folder(tmp_path_factory.mktemp("commands") / "images")


@pytest.fixture(scope="session")
def classifier():
    """Return a classifier of the images of `folder`."""
    from commands_cases import small_classifier

    return small_classifier()


@pytest.fixture(scope="session")
def model(classifier, tmp_path_factory):
    """Return the path of `classifier`, saved."""
    from sklearn_dl.persistence import save

    path = tmp_path_factory.mktemp("commands") / "small.model"
    save(classifier, path)
    return path


@pytest.fixture(scope="session")
def graph(model, tmp_path_factory):
    """Return the path of `classifier`, exported."""
    from commands_cases import command

    pytest.importorskip("onnxscript")
    path = tmp_path_factory.mktemp("commands") / "small.onnx"
    assert command("export", model, path) == 0
    return path
