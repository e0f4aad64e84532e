"""Odd images on their way through a network: strips, and files of 16 bits."""

import sys
import warnings

import numpy as np
import processes
import pytest
from PIL import Image

from sklearn_dl import ImageFeatureExtractor


@pytest.fixture(scope="module")
def extractor():
    return ImageFeatureExtractor(
        "mobilenet_v3_small", weights="builtin", image_size=64, cache=None
    ).fit(np.zeros((1, 64, 64, 3), np.uint8))


def said(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(warning.message) for warning in caught]


def test_a_strip_of_which_little_is_seen_is_said_once_a_call(extractor, tmp_path):
    paths = [str(tmp_path / f"{k}.png") for k in range(4)]
    for k, path in enumerate(paths):
        size = (60, 50) if k == 0 else (50 * 60, 50)
        Image.new("RGB", size, (k, 90, 90)).save(path)
    for _ in range(2):
        [text] = said(lambda: extractor.transform(paths))
        assert text.startswith("Row ")
        assert "50 pixels high and 3000 wide, and the network sees 1.3% of it" in text
        assert "preprocessing='pad' or 'squash'" in text
    assert said(lambda: extractor.transform(paths[:1])) == []
    for whole in ("pad", "squash"):
        model = ImageFeatureExtractor(
            "mobilenet_v3_small",
            weights="builtin",
            preprocessing=whole,
            image_size=64,
        )
        assert said(lambda model=model: model.fit(paths).transform(paths)) == []
    strips = np.full((3, 50, 3000), 90, np.uint8)
    [text] = said(lambda: extractor.transform(strips))
    assert text.startswith("Row 0 is 50 pixels high")


def test_a_file_of_16_bits_has_the_features_of_its_array(extractor, tmp_path):
    rng = np.random.default_rng(0)
    values = (30_000 + 400 * rng.random((3, 80, 70))).astype(np.uint16)
    paths = []
    for k, value in enumerate(values):
        paths.append(tmp_path / f"{k}.tif")
        Image.fromarray(value).save(paths[-1])
    found, expected = extractor.transform(paths), extractor.transform(values)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    narrow = extractor.transform((values // 257).astype(np.uint8))
    # What 8 bits keep of 400 levels are two: the features are others.
    assert np.abs(found - narrow).max() > 20 * np.abs(found - expected).max()


_MEMORY = """
import resource, sys
import numpy as np
from PIL import Image
from sklearn_dl import ImageFeatureExtractor
Image.MAX_IMAGE_PIXELS = None
strip, small = sys.argv[1:]
Image.new("RGB", (20_000, 1)).save(strip)
Image.new("RGB", (300, 280)).save(small)
extractor = ImageFeatureExtractor(
    "mobilenet_v3_small", weights="builtin", cache=None
).fit([small])
extractor.transform([small] * 2)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
extractor.transform([strip])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units")
def test_a_strip_takes_little_memory(tmp_path):
    done = processes.run(_MEMORY, tmp_path / "strip.png", tmp_path / "small.png")
    assert int(done.stdout.split()[-1]) < 20_000  # kB; it took 5 GB
