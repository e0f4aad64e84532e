import pytest
from commands_cases import command, small_classifier, write_folder

from sklearn_dl.persistence import save


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("commands") / "images")


@pytest.fixture(scope="session")
def classifier():
    return small_classifier()


@pytest.fixture(scope="session")
def model(classifier, tmp_path_factory):
    path = tmp_path_factory.mktemp("commands") / "small.model"
    save(classifier, path)
    return path


@pytest.fixture(scope="session")
def graph(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("commands") / "small.onnx"
    assert command("export", model, path) == 0
    return path
