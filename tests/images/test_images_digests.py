"""Digests of images: the same for the same content, another for another, re-read."""

import hashlib
import io
import os
import pickle
import tempfile
import threading
import time
import tracemalloc
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import processes
import pytest
import torch
from PIL import Image

from sklearn_dl._images import (
    DatasetItem,
    ImageDecodeError,
    _digests,
    as_source,
    digest_image,
)

RNG = np.random.default_rng(0)
STACK = RNG.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def forget(monkeypatch):
    """Let every test begin with a process that knows no file."""
    monkeypatch.setattr(_digests, "_PROCESS", _digests._ProcessMemory())


@pytest.fixture
def old(monkeypatch):
    """Let files that were written just now count as old ones."""
    monkeypatch.setattr(_digests, "_TICK", 0)


@pytest.fixture
def reads(monkeypatch):
    """Count the files that are read."""
    opened = []
    read = hashlib.file_digest

    def counted(file, name):
        opened.append(file.name)
        return read(file, name)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    return opened


def encoded(pixels, format="PNG", **options):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format=format, **options)
    return stream.getvalue()


def write(path, content):
    path.write_bytes(content)
    return str(path)


def items(dataset):
    return [DatasetItem(dataset, row) for row in range(len(dataset))]


def digest(X, row=0):
    found = as_source(X).digests([row])[0]
    assert isinstance(found, bytes)
    assert len(found) == 32
    return found


class Memory:
    """A memory of files in two dicts."""

    def __init__(self):
        self.files = {}
        self.asked = []

    def known_files(self, paths):
        self.asked.append(list(paths))
        return {path: self.files[path] for path in paths if path in self.files}

    def remember_files(self, files):
        self.files.update(files)


# -------------------------------------------------------------------------- pixels


@pytest.mark.parametrize(
    "X",
    [
        STACK.reshape(6, -1),
        STACK.astype(np.int64),
        list(STACK),
        torch.from_numpy(STACK).permute(0, 3, 1, 2),
        list(torch.from_numpy(STACK).permute(0, 3, 1, 2)),
        [*STACK, np.zeros((2, 3, 3), np.uint8)],
        [Image.fromarray(pixels) for pixels in STACK],
        [Image.fromarray(pixels).convert("RGBA") for pixels in STACK],
        items([Image.fromarray(pixels) for pixels in STACK]),
    ],
    ids="rows int64 list tensor tensors objects pil rgba dataset".split(),
)
def test_the_same_pixels_have_the_same_digest_in_every_form(X):
    assert as_source(X).digests(range(6)) == as_source(STACK).digests(range(6))


def test_the_digest_of_pixels_is_the_same_in_every_release():
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    expected = hashlib.sha256(b"pixels uint8 2 4 3\n" + bytes(range(24))).digest()
    assert digest(pixels[None]) == expected


def test_every_change_of_the_pixels_changes_the_digest():
    changed = STACK[0].copy()
    changed[-1, -1, -1] ^= 1
    grey = STACK[0, :, :, :1]
    different = [
        STACK[0],
        STACK[1],
        changed,
        STACK[0].transpose(1, 0, 2),
        STACK[0].reshape(4, 16, 3),
        STACK[0].astype(np.float32) / 255,
        grey,
        np.repeat(grey, 3, axis=2),
        np.zeros((8, 6, 1), np.float32),
        np.zeros((8, 6, 1), np.uint8),
        np.zeros((6, 8, 1), np.uint8),
    ]
    assert len({digest_image(pixels) for pixels in different}) == len(different)


def test_a_digest_of_what_was_decoded_is_that_of_the_row():
    floats = STACK.astype(np.float32) / 255
    tensor = torch.from_numpy(floats[1]).permute(2, 0, 1)
    assert digest_image(tensor) == digest(floats, 1)
    assert digest_image(floats[1]) == digest(floats, 1)
    grey = STACK[..., 0]
    assert digest_image(Image.fromarray(grey[1])) == digest(grey, 1)
    assert digest_image(grey[1]) == digest(grey[..., None], 1)
    assert digest_image(Image.fromarray(STACK[1])) == digest(STACK, 1)
    assert digest_image(tensor[:1]) == digest(floats[..., :1], 1)


def test_an_image_that_is_turned_has_the_digest_of_the_turned_pixels():
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a turn by 90 degrees clockwise
    content = encoded(STACK[0], exif=exif)
    with Image.open(io.BytesIO(content)) as image:
        source = as_source([image])
        turned = np.rot90(STACK[0], -1)
        np.testing.assert_array_equal(np.asarray(source[0]), turned)
        assert source.digests([0])[0] == digest(turned[None])
        assert digest_image(source[0]) == digest(turned[None])


def test_large_arrays_are_read_in_blocks(monkeypatch):
    from sklearn_dl._images import _source

    source = as_source(STACK)
    expected = source.digests(range(6))
    monkeypatch.setattr(_source, "_BLOCK_VALUES", 2 * STACK[0].size)
    sizes = []
    batch = type(source).batch

    def noted(self, rows):
        sizes.append(len(rows))
        return batch(self, rows)

    monkeypatch.setattr(type(source), "batch", noted)
    assert source.digests([0, 1, 2, 3, 4, 5]) == expected
    assert sizes == [2, 2, 2]


def test_rows_are_taken_in_any_order_as_often_as_they_come():
    source = as_source(STACK)
    all_of_them = source.digests(range(6))
    assert source.digests([3, 0, 3, -1]) == [all_of_them[i] for i in (3, 0, 3, 5)]
    mask = np.array([True, False, False, True, False, False])
    assert source.digests(mask) == [all_of_them[0], all_of_them[3]]
    assert source.digests([]) == []
    with pytest.raises(IndexError, match="row 6"):
        source.digests([6])
    with pytest.raises(TypeError, match="float"):
        source.digests([1.5])


def test_only_a_dataset_is_read_for_a_digest_each_time():
    noise = np.random.default_rng(0)

    class Random:
        def __len__(self):
            return 2

        def __getitem__(self, row):
            return noise.integers(0, 256, (4, 4, 3), dtype=np.uint8), row

    source = as_source(items(Random()))
    assert source.digest_reads
    assert source.digests([0])[0] != source.digests([0])[0]
    for X in (STACK, ["a.png"], [encoded(STACK[0])], [Image.fromarray(STACK[0])]):
        assert not as_source(X).digest_reads


# --------------------------------------------------------------------------- files


def test_a_file_and_its_bytes_have_the_digest_of_the_content(tmp_path):
    content = encoded(STACK[0], "JPEG")
    expected = hashlib.sha256(content).digest()
    path = write(tmp_path / "ünï cödé 蟻.jpg", content)
    for X in ([path], [Path(path)], np.array([[path]], dtype=object)):
        assert digest(X) == expected
    assert digest([content]) == digest([memoryview(content)]) == expected
    assert digest([encoded(STACK[0], "PNG")]) != expected


def test_a_damaged_file_has_a_digest(tmp_path):
    path = write(tmp_path / "a.png", b"no image")
    assert digest([path]) == hashlib.sha256(b"no image").digest()


def test_an_unchanged_file_is_read_once(tmp_path, old, reads):
    path = write(tmp_path / "a.png", encoded(STACK[0]))
    first = digest([path])
    assert as_source([path]).digests([0]) == [first]
    assert as_source([path, path]).digests([0, 1]) == [first, first]
    assert reads == [path]


def test_duplicated_paths_are_read_once(tmp_path, reads, monkeypatch):
    path = write(tmp_path / "a.png", encoded(STACK[0]))
    monkeypatch.chdir(tmp_path)
    X = [path, "a.png", "./a.png", path]
    found = as_source(X).digests([0, 1, 2, 3, 3])
    assert len(set(found)) == 1
    assert len(reads) == 1


def in_place(path, content):
    with open(path, "r+b") as file:
        file.write(content)


def with_its_time_put_back(path, content):
    before = os.stat(path)
    in_place(path, content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert os.stat(path).st_mtime_ns == before.st_mtime_ns


def by_rename(path, content):
    before = os.stat(path)
    other = Path(path).with_suffix(".new")
    other.write_bytes(content)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(other, path)


def by_link(path, content):
    target = Path(path).with_suffix(".target")
    target.write_bytes(content)
    Path(path).unlink()
    Path(path).symlink_to(target)


@pytest.mark.parametrize(
    "change", [in_place, with_its_time_put_back, by_rename, by_link]
)
def test_a_changed_file_of_the_same_size_has_another_digest(tmp_path, old, change):
    one, other = b"a" * 100, b"b" * 100
    path = write(tmp_path / "a.png", one)
    assert digest([path]) == hashlib.sha256(one).digest()
    time.sleep(0.05)  # more than a tick of the clock of the file system
    change(path, other)
    assert digest([path]) == hashlib.sha256(other).digest()


def test_a_link_that_leads_elsewhere_is_followed(tmp_path, old):
    for name in "ab":
        write(tmp_path / name, name.encode() * 10)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "a")
    assert digest([str(link)]) == digest([str(tmp_path / "a")])
    link.unlink()
    link.symlink_to(tmp_path / "b")
    assert digest([str(link)]) == digest([str(tmp_path / "b")])


def test_a_file_that_was_changed_just_now_is_read_again(tmp_path, reads):
    path = write(tmp_path / "a.png", b"a" * 100)
    memory = Memory()
    source = as_source([path])
    assert source.digests([0], memory=memory) == source.digests([0], memory=memory)
    assert len(reads) == 2
    assert memory.files == {}
    # the change of its times is a change as recent
    os.utime(path, (0, 0))
    source.digests([0])
    source.digests([0])
    assert len(reads) == 4


def test_a_file_counts_as_unchanged_two_seconds_after_its_change(
    tmp_path, reads, monkeypatch
):
    path = write(tmp_path / "a.png", b"a" * 100)
    changed = os.stat(path).st_ctime_ns
    for seconds, n_reads in ((1.9, 1), (1.9, 2), (2.1, 3), (2.1, 3)):
        now = changed + int(seconds * 1e9)
        monkeypatch.setattr(_digests.time, "time_ns", lambda now=now: now)
        digest([path])
        assert len(reads) == n_reads


@pytest.mark.parametrize("times", [1, 99])
def test_a_file_that_changes_while_it_is_read_is_read_again(
    tmp_path, monkeypatch, old, times
):
    path = write(tmp_path / "a.png", b"a" * 100)
    memory = Memory()
    read = hashlib.file_digest
    contents = []

    def changing(file, name):
        found = read(file, name)
        if len(contents) < times:
            time.sleep(0.05)
            contents.append(f"{len(contents)}".encode() * 100)
            in_place(path, contents[-1])
        return found

    monkeypatch.setattr(hashlib, "file_digest", changing)
    found = as_source([path]).digests([0], memory=memory)
    if times == 1:
        assert found == [hashlib.sha256(b"0" * 100).digest()]
        assert memory.files.keys() == {path}
    else:  # given up: what was read last, remembered nowhere
        assert 1 < len(contents) < 6
        assert memory.files == {}
        assert _digests._PROCESS.files == {}


def test_relative_paths_follow_the_working_directory(tmp_path, old, monkeypatch):
    for name in "ab":
        (tmp_path / name).mkdir()
        write(tmp_path / name / "x.png", name.encode() * 10)
    source = as_source(["x.png"])
    for name in "aba":
        monkeypatch.chdir(tmp_path / name)
        assert source.digests([0])[0] == hashlib.sha256(name.encode() * 10).digest()


def test_a_tilde_is_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    write(tmp_path / "x.png", b"x")
    assert digest(["~/x.png"]) == digest([str(tmp_path / "x.png")])


def test_all_files_that_can_not_be_read_are_named_as_reading_names_them(tmp_path):
    good = write(tmp_path / "good.png", encoded(STACK[0]))
    X = [
        good,
        str(tmp_path / "missing.png"),
        str(tmp_path),
        write(tmp_path / "empty.png", b""),
        good,
        str(tmp_path / "missing, too.png"),
        "a\0b",
    ]
    source = as_source(X)
    expected = []
    for row in (1, 2, 3, 5, 6):
        with pytest.raises(ImageDecodeError) as error:
            source[row]
        expected += error.value.failures
        with pytest.raises(ImageDecodeError) as error:
            source.digests([row])
        assert error.value.failures == expected[-1:]
    for threads in (1, 3):
        with pytest.raises(ImageDecodeError) as error:
            source.digests([6, 5, 4, 3, 2, 1, 0, 1], threads=threads)
        assert error.value.failures == expected
    assert "no such file" in str(error.value)


@contextmanager
def unprivileged():
    """Give up what the superuser may do, for a block."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions of POSIX")
def test_a_file_that_may_not_be_read_is_named():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = write(Path(folder) / "secret.png", b"secret")
        os.chmod(path, 0)
        with unprivileged(), pytest.raises(ImageDecodeError) as error:
            digest(["x", path], 1)
    assert error.value.failures == [(1, path, "permission denied")]


def test_bytes_without_content_are_named():
    with pytest.raises(ImageDecodeError, match=r"row 1: empty \(0 bytes\)"):
        as_source([encoded(STACK[0]), b""]).digests([0, 1])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes of POSIX")
def test_a_pipe_is_refused_rather_than_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageDecodeError, match="a pipe, not an image file"):
        digest([str(tmp_path / "pipe")])


def test_an_error_of_a_dataset_names_the_row():
    class Broken(list):
        def __getitem__(self, row):
            if row == 1:
                raise RuntimeError("on purpose")
            return STACK[row], 0

    source = as_source(items(Broken([0, 1, 2])))
    with pytest.raises(ImageDecodeError, match="row 1: on purpose"):
        source.digests([0, 1, 2], threads=4)


def test_files_are_read_in_as_many_threads(tmp_path, monkeypatch):
    X = [write(tmp_path / f"{k}.png", bytes([k]) * 9) for k in range(8)]
    together = threading.Barrier(4, timeout=30)
    read = hashlib.file_digest

    def meeting(file, name):
        together.wait()
        return read(file, name)

    monkeypatch.setattr(hashlib, "file_digest", meeting)
    found = as_source(X).digests(range(8), threads=4)
    assert found == [hashlib.sha256(bytes([k]) * 9).digest() for k in range(8)]


def test_a_dataset_is_read_in_one_thread():
    names = set()

    class Noting(list):
        def __getitem__(self, row):
            names.add(threading.get_ident())
            return STACK[row]

    as_source(items(Noting(range(6)))).digests(range(6), threads=4)
    assert names == {threading.get_ident()}


def test_a_large_file_is_not_held_in_memory(tmp_path):
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(100 * 2**20)
    tracemalloc.start()
    try:
        digest([str(path)])
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


# ------------------------------------------------------------------------- memories


def test_a_memory_is_asked_for_what_the_process_does_not_know(tmp_path, old, reads):
    X = [write(tmp_path / f"{k}.png", bytes([k]) * 9) for k in range(3)]
    memory = Memory()
    source = as_source(X)
    expected = source.digests([0, 1], memory=memory)
    assert memory.asked == [X[:2]]
    assert [memory.files[path][1] for path in X[:2]] == expected
    status = os.stat(X[0])
    times = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    assert memory.files[X[0]][0] == (*times, status.st_ino, status.st_dev)
    expected = source.digests([0, 1, 2], memory=memory)
    assert memory.asked[1:] == [X[2:]]
    assert len(reads) == 3
    _digests._PROCESS.files.clear()  # as another process has it
    memory.files[X[1]] = [list(memory.files[X[1]][0]), memory.files[X[1]][1]]
    assert source.digests([0, 1, 2], memory=memory) == expected
    assert source.digests([0, 1, 2]) == expected  # the process has learnt them
    assert len(reads) == 3


@pytest.mark.parametrize("part", range(5))
def test_what_a_memory_says_of_a_file_that_differs_is_not_taken(
    tmp_path, old, reads, part
):
    path = write(tmp_path / "a.png", b"a")
    memory = Memory()
    as_source([path]).digests([0], memory=memory)
    stamp = list(memory.files[path][0])
    stamp[part] += 1
    _digests._PROCESS.files.clear()
    memory.files[path] = (tuple(stamp), b"?" * 32)
    expected = hashlib.sha256(b"a").digest()
    assert as_source([path]).digests([0], memory=memory) == [expected]
    assert memory.files[path][1] == expected
    assert len(reads) == 2


def test_names_that_are_no_text_are_kept_from_a_memory(tmp_path, old):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")
    try:
        write(Path(path), b"a")
    except OSError:
        pytest.skip("the file system takes no such name")
    memory = Memory()
    assert as_source([path]).digests([0], memory=memory) == [digest([path])]
    assert memory.files == {}
    assert memory.asked in ([], [[]])


def test_the_memory_of_the_process_is_bounded(tmp_path, old, reads, monkeypatch):
    monkeypatch.setattr(_digests, "_REMEMBERED", 2)
    X = [write(tmp_path / f"{k}.png", bytes([k]) * 9) for k in range(3)]
    for path in X:
        digest([path])
    assert list(_digests._PROCESS.files) == X[1:]
    digest([X[1]])
    assert len(reads) == 3
    digest([X[0]])
    assert len(reads) == 4
    assert list(_digests._PROCESS.files) == [X[2], X[0]]
    time.sleep(0.05)
    in_place(X[2], b"?")
    digest([X[2]])  # is now the one that was read last
    assert list(_digests._PROCESS.files) == [X[0], X[2]]


def test_many_threads_may_ask_at_once(tmp_path, old, monkeypatch):
    monkeypatch.setattr(_digests, "_REMEMBERED", 5)
    X = [write(tmp_path / f"{k}.png", bytes([k]) * 9) for k in range(12)]
    expected = [hashlib.sha256(bytes([k]) * 9).digest() for k in range(12)]
    wrong = []

    def ask():
        for _ in range(30):
            if as_source(X).digests(range(12), threads=2) != expected:
                wrong.append(1)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(_digests._PROCESS.files) == 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks of POSIX")
def test_a_child_process_does_not_wait_for_a_thread_it_has_not(tmp_path):
    path = write(tmp_path / "a.png", b"a")
    code = f"""
import os
from sklearn_dl._images import _digests, as_source
_digests._PROCESS.lock.acquire()
child = os.fork()
if not child:
    as_source([{path!r}]).digests([0])
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert processes.run(code).stdout.strip() == "7"


# ---------------------------------------------------------------------------- take


def shown(source):
    return [np.asarray(source[row]) for row in range(len(source))]


@pytest.mark.parametrize(
    "make",
    [
        lambda path: STACK,
        lambda path: STACK.reshape(6, -1),
        lambda path: list(STACK),
        lambda path: torch.from_numpy(STACK).permute(0, 3, 1, 2),
        lambda path: [*STACK[:5], np.ones((2, 3, 3), np.uint8)],
        lambda path: [Image.fromarray(pixels) for pixels in STACK],
        lambda path: [encoded(pixels) for pixels in STACK],
        lambda path: items(list(STACK)),
        lambda path: [
            write(path / f"{k}.png", encoded(pixels)) for k, pixels in enumerate(STACK)
        ],
        lambda path: [[write(path / f"{k}.png", encoded(STACK[k]))] for k in range(6)],
    ],
    ids="array rows list tensor objects pil bytes dataset paths column".split(),
)
def test_a_part_of_a_source_shows_those_rows_in_that_order(tmp_path, make):
    X = make(tmp_path)
    X = np.array(X, dtype=object) if isinstance(X[0], list) else X
    source = as_source(X)
    rows = [4, 0, 4, -1]
    part = source.take(rows)
    assert len(part) == 4
    assert type(part) is type(source)
    for name in ("kind", "stackable", "thread_safe", "digest_reads", "n_features"):
        assert getattr(part, name) == getattr(source, name)
    assert part.image_shape == source.image_shape
    everything = shown(source)
    part_again = pickle.loads(pickle.dumps(part))
    for taken in (part, part_again):
        for row, pixels in zip(rows, shown(taken), strict=True):
            np.testing.assert_array_equal(pixels, everything[row])
        assert taken.digests(range(4)) == source.digests(rows)
        assert [taken.path(i) for i in range(4)] == [
            source.path(i) for i in (4, 0, 4, 5)
        ]
    assert len(source) == 6
    assert len(source.take([])) == 0
    assert len(source.take(np.arange(6) < 2).take([1])) == 1
    with pytest.raises(IndexError, match="row 6"):
        source.take([6])


def test_a_part_keeps_what_the_whole_range_of_numbers_meant():
    X = np.array([[0, 255, 3, 4], [0, 300, 5, 6]])
    with pytest.warns(UserWarning, match="outside 0-255"):
        source = as_source(X)
    part = source.take([0])
    assert part[0].dtype == np.float32
    np.testing.assert_array_equal(part[0], source[0])
    assert (
        part.digests([0])[0]
        == source.digests([0])[0]
        != as_source(X[:1]).digests([0])[0]
    )


@pytest.mark.parametrize("make", [np.ascontiguousarray, list])
def test_a_part_is_pickled_without_the_rest(make):
    source = as_source(make(np.zeros((1000, 16, 16, 3), np.uint8)))
    assert len(pickle.dumps(source.take([7]))) < 5000


def test_a_part_of_a_memory_map_holds_those_rows_only(tmp_path):
    np.save(tmp_path / "x.npy", STACK)
    source = as_source(np.load(tmp_path / "x.npy", mmap_mode="r"))
    part = source.take([2, 1])
    np.testing.assert_array_equal(part.batch([0, 1]), STACK[[2, 1]])
    assert type(part._data) is np.ndarray
    assert part._data.nbytes == STACK[:2].nbytes
