"""Images behind URLs: one read each, again where that may help, errors by row."""

import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sklearn_dl import FeatureCache, ImageFeatureExtractor
from sklearn_dl._images import _remote, as_source
from sklearn_dl.datasets import (
    ImageDecodeError,
    decode_image,
    load_image_frame,
    verify_images,
)

fsspec = pytest.importorskip("fsspec")
IMAGES = np.random.default_rng(0).integers(0, 256, (500, 8, 8, 3), "uint8")


def encoded(pixels):
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


CONTENT = [encoded(image) for image in IMAGES]


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(_remote, "_PAUSE", 0.0)


@pytest.fixture
def in_memory():
    system = fsspec.filesystem("memory")
    for k, content in enumerate(CONTENT):
        system.pipe(f"/bucket/{k}.png", content)
    yield [f"memory://bucket/{k}.png" for k in range(len(CONTENT))]
    system.rm("/bucket", recursive=True)


class Moody(fsspec.AbstractFileSystem):
    """Fails at the first read of each tenth image, and always at some."""

    protocol = "moody"
    reads: ClassVar[Counter] = Counter()
    lock = threading.Lock()

    def cat_file(self, path, start=None, end=None, **options):
        number = int(path.rpartition("/")[2].partition(".")[0])
        with self.lock:
            self.reads[number] += 1
        if number in (7, 70):
            raise RuntimeError("503, unwell")  # no OSError, as drivers have it
        if number % 10 == 0 and self.reads[number] == 1:
            raise RuntimeError("cut off")
        return CONTENT[number]


@pytest.fixture
def moody():
    fsspec.register_implementation("moody", Moody, clobber=True)
    Moody.reads.clear()
    return [f"moody://bucket/{k}.png" for k in range(len(CONTENT))]


def check(urls):
    source = as_source(urls)
    for k, url in enumerate(urls):
        np.testing.assert_array_equal(np.asarray(source[k]), IMAGES[k])
        assert source.path(k) == url


def test_images_in_memory(in_memory):
    check(in_memory)
    np.testing.assert_array_equal(np.asarray(decode_image(in_memory[3])), IMAGES[3])


def test_failures_that_pass_are_tried_again(moody):
    good = [k for k in range(500) if k not in (7, 70)]
    source = as_source(moody)
    for k in good:
        np.testing.assert_array_equal(np.asarray(source[k]), IMAGES[k])
    assert {Moody.reads[k] for k in good if k % 10 == 0} == {2}
    assert {Moody.reads[k] for k in good if k % 10} == {1}


def test_what_fails_always_is_an_error_by_row(moody):
    found = verify_images(moody)
    assert found["row"].tolist() == [7, 70]
    assert found["path"].tolist() == [moody[7], moody[70]]
    assert set(found["reason"]) == {"couldn't be read 4 times: 503, unwell"}
    assert Moody.reads[7] == Moody.reads[70] == 4


def test_features_of_urls_are_those_of_files_and_read_once(moody, tmp_path):
    files = [tmp_path / f"{k}.png" for k in range(71, 80)]
    for k, file in enumerate(files, 71):
        file.write_bytes(CONTENT[k])
    cache = FeatureCache(name="remote")
    cache.clear()
    model = ImageFeatureExtractor(
        "squeezenet1_1", weights=None, image_size=32, random_state=0, cache=cache
    )
    expected = model.fit_transform(files)
    np.testing.assert_allclose(model.transform(moody[71:80]), expected, atol=1e-6)
    assert set(Moody.reads.values()) == {1}
    with pytest.raises(ImageDecodeError, match=r"row 0, 'moody://bucket/70\.png'"):
        model.transform(moody[70:75])
    with pytest.warns(UserWarning, match="1 of 10 images could not be read"):
        failed = model.transform_to(moody[70:80], tmp_path / "f.npy")
    assert failed["path"].tolist() == [moody[70]]
    np.testing.assert_allclose(np.load(tmp_path / "f.npy")[1:], expected, atol=1e-6)


def test_several_images_are_waited_for_at_once(moody, monkeypatch):
    together = threading.Barrier(8, timeout=20)
    read = Moody.cat_file

    def wait(self, path, **options):
        together.wait()  # for seven others
        return read(self, path, **options)

    model = ImageFeatureExtractor(
        "squeezenet1_1", weights=None, image_size=32, random_state=0, cache=None
    ).fit(moody[71:79])
    expected = model.transform(moody[71:79])
    monkeypatch.setattr(Moody, "cat_file", wait)
    np.testing.assert_array_equal(model.transform(moody[71:79]), expected)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("memory://no/such.png", "no such file"),
        ("nowhere://x/1.png", "(?i)protocol"),
        ("moody://bucket/7.png", "couldn't be read 4 times"),
    ],
)
def test_errors_name_the_url(moody, url, text):
    with pytest.raises(ImageDecodeError, match=text) as caught:
        as_source([url])[0]
    assert caught.value.failures[0][:2] == (0, url)


def test_damaged_content_is_named(in_memory):
    fsspec.filesystem("memory").pipe("/bucket/0.png", CONTENT[0][:50])
    fsspec.filesystem("memory").pipe("/bucket/1.png", b"")
    for k, text in ((0, "truncated PNG"), (1, "empty")):
        with pytest.raises(ImageDecodeError, match=text):
            as_source(in_memory)[k]


def test_without_fsspec_the_extra_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(ImageDecodeError, match=r'pip install "sklearn_dl\[remote\]"'):
        as_source(["memory://bucket/0.png"])[0]


def test_a_table_keeps_urls_as_they_are():
    frame = pd.DataFrame({"path": ["s3://bucket//a/1.jpg", "b/2.jpg"]})
    found = load_image_frame(frame, target=None, root="photos")
    assert found.filenames[0] == "s3://bucket//a/1.jpg"
    assert found.filenames[1].startswith("photos")


@pytest.mark.parametrize("path", ["C:/a.png", "a:b.png", "/x//y.png", "1://x", "://x"])
def test_paths_are_no_urls(path):
    assert not _remote.is_url(path)


class Server(BaseHTTPRequestHandler):
    """Answers each tenth image once with 503 or half of it; some never."""

    asked: ClassVar[Counter] = Counter()

    def do_GET(self):
        number = int(self.path.strip("/").partition(".")[0])
        self.asked[number] += 1
        first = self.asked[number] == 1
        if number == 13:
            return self.send_error(404)
        if number == 17:
            return self.send_error(403)
        if number == 23 or (number % 20 == 0 and first):
            return self.send_error(503)
        content = CONTENT[number]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        cut = number % 20 == 10 and first
        self.wfile.write(content[: len(content) // 2] if cut else content)

    def log_message(self, *args):
        """Say nothing."""


@pytest.fixture
def server():
    pytest.importorskip("aiohttp")
    Server.asked.clear()
    served = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield [f"http://127.0.0.1:{served.server_port}/{k}.png" for k in range(500)]
    served.shutdown()
    thread.join()
    served.server_close()


def test_a_server_that_is_unwell(server):
    found = verify_images(server)
    assert found["row"].tolist() == [13, 17, 23]
    assert found["path"].tolist() == [server[k] for k in (13, 17, 23)]
    reasons = found["reason"].tolist()
    assert reasons[0] == "no such file"
    assert "403" in reasons[1]
    assert reasons[2].startswith("couldn't be read 4 times: 503")
    expected = Counter({k: 2 if k % 10 == 0 else 1 for k in range(500)}) | Counter(
        {23: 4}
    )
    assert Server.asked == expected
    good = [k for k in range(500) if k not in (13, 17, 23)]
    source = as_source(server)
    for k in good:
        np.testing.assert_array_equal(np.asarray(source[k]), IMAGES[k])
