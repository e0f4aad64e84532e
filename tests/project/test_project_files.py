"""Files that are replaced as a whole."""

import errno
import io
import os
import stat
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from sklearn_dl import ImageFeatureExtractor
from sklearn_dl._files import replacing, writing
from sklearn_dl.persistence import export_state_dict, save


def write(path, content=b"new"):
    with replacing(path) as file:
        file.write(content)


@pytest.mark.skipif(sys.platform == "win32", reason="has no such modes")
def test_the_mode_of_a_file_stays(tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(b"old")
    path.chmod(0o600)
    write(path)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    write(tmp_path / "open")
    os.umask(mask := os.umask(0))
    assert stat.S_IMODE((tmp_path / "open").stat().st_mode) == 0o666 & ~mask


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no pipes")
def test_a_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileExistsError, match="a device or a pipe"):
        write(tmp_path / "pipe")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    with pytest.raises(FileExistsError, match="a device or a pipe"):
        write(os.devnull)


def test_what_a_killed_process_left_is_removed_later(tmp_path):
    old, recent, others = (
        tmp_path / f".{name}.0123.tmp" for name in ("model[1]", "model[1].x", "other")
    )
    for path in (old, recent, others):
        path.write_bytes(b"half")
    for path in (old, others):
        os.utime(path, (time.time() - 7200,) * 2)
    write(tmp_path / "model[1]")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [recent.name, others.name, "model[1]"]
    )


def test_an_error_leaves_what_was_there(tmp_path):
    path = tmp_path / "model"
    write(path, b"old")

    def fail():
        with replacing(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["model"]


@pytest.fixture
def full_disk(monkeypatch):
    """Let files that are made here be on a disk without room."""
    if not os.path.exists("/dev/full"):
        pytest.skip("has no full disk")
    opened = Path.open

    def full(path, mode="r", **options):
        new = mode == "xb"
        return opened(*(Path("/dev/full"), "wb") if new else (path, mode), **options)

    monkeypatch.setattr(Path, "open", full)


def extractor():
    model = ImageFeatureExtractor(
        "squeezenet1_1", weights=None, image_size=32, cache=None
    )
    return model.fit(np.zeros((2, 32, 32, 3), "uint8"))


@pytest.mark.parametrize(
    ("write_model", "name"),
    [
        (save, "model"),
        (export_state_dict, "w.pth"),
        (export_state_dict, "w.safetensors"),
    ],
)
def test_a_full_disk_is_called_full(tmp_path, full_disk, write_model, name):
    with pytest.raises(OSError, match="The disk is full") as caught:
        write_model(extractor(), tmp_path / name)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_other_errors_are_not_those_of_a_full_disk(tmp_path):
    for error in (OSError(errno.EIO, "no disk"), ValueError("nothing"), SystemExit()):
        with pytest.raises(type(error)) as caught, writing(tmp_path):
            raise error
        assert caught.value is error


class Interrupted(io.BytesIO):
    """A file whose writing is interrupted, the nth time."""

    def __init__(self, n):
        self.left = n

    def write(self, data):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return super().write(data)


@pytest.mark.parametrize("n", [1, 2, 5, 12, 20])
def test_an_interrupted_write_stays_interrupted(tmp_path, n):
    # Torch ends a file that it can't write with an error of its own.
    with pytest.raises(KeyboardInterrupt), writing(tmp_path / "weights.pth"):
        torch.save({"a": torch.zeros(10**5), "b": torch.ones(9)}, Interrupted(n))


@pytest.mark.parametrize(
    "handled", [KeyboardInterrupt(), OSError(errno.ENOSPC, "full")]
)
def test_what_the_caller_was_handling_is_no_part_of_it(handled, tmp_path):
    """Such as a fit that was interrupted, or another disk that was full."""
    path = tmp_path / "no" / "file"
    try:
        raise handled
    except (KeyboardInterrupt, OSError):
        with pytest.raises(FileNotFoundError), writing(path):
            path.write_bytes(b"")
