"""Files that are replaced as a whole."""

import os
import stat
import sys
import time

import pytest

from sklearn_dl._files import replacing


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
