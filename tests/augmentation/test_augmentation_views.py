import pickle
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as F
from torchvision.transforms import v2

from sklearn_dl.augmentation import resolve_augment, resolve_views
from sklearn_dl.augmentation._views import Views
from sklearn_dl.backbones import CallablePreprocessing, Preprocessing

COLOURS = {"mean": (0.5,) * 3, "std": (0.2,) * 3}
MARGIN = Preprocessing(40, (32, 32), **COLOURS)
TIGHT = Preprocessing(28, (28, 28), **COLOURS)
DIRECT = Preprocessing((28, 42), None, **COLOURS)


def noise(height=60, width=90, channels=3, seed=0):
    shape = (height, width, channels) if channels == 3 else (height, width)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, "uint8"))


def plain(image, preprocessing=MARGIN):
    return F.pil_to_tensor(preprocessing.geometry(image))


def test_none_is_none():
    assert resolve_views(None, MARGIN) is None


@pytest.mark.parametrize("channels", [1, 3])
def test_flip_is_the_image_and_its_mirror_image(channels):
    image = noise(channels=channels)
    views = resolve_views("flip", MARGIN)(image)
    assert views.shape == (2, channels, 32, 32)
    assert torch.equal(views[0], plain(image))
    assert torch.equal(views[1], plain(image).flip(-1))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("preprocessing", "resize", "crop"),
    [(MARGIN, [40], [32, 32]), (TIGHT, [32], [28, 28]), (DIRECT, [32, 48], [28, 42])],
    ids=["preset", "no margin", "height and width"],
)
def test_crops_equal_torchvision(preprocessing, resize, crop, channels):
    image = noise(channels=channels)
    resized = F.resize(image, resize, antialias=True)
    for name, reference in (("five_crop", F.five_crop), ("ten_crop", F.ten_crop)):
        expected = [F.pil_to_tensor(part) for part in reference(resized, crop)]
        views = resolve_views(name, preprocessing)
        assert views.n_views == len(expected)
        assert torch.equal(views(image), torch.stack(expected))


def test_the_centre_is_the_plain_view():
    image = noise()
    views = resolve_views("five_crop", MARGIN)(image)
    assert torch.equal(views[4], plain(image))
    assert len({view.numpy().tobytes() for view in views}) == 5


@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing(None, None, **COLOURS),
        Preprocessing(None, (32, 32), **COLOURS),
        Preprocessing(20, (32, 32), **COLOURS),
        Preprocessing((32, 64), (32, 32), **COLOURS),
        Preprocessing(30, None, **COLOURS),
    ],
)
@pytest.mark.parametrize("tta", ["flip", "five_crop", "ten_crop", 3])
@pytest.mark.parametrize("size", [(60, 90), (28, 28)])
def test_views_have_the_size_of_the_plain_view(tta, preprocessing, size):
    image = noise(*size)
    views = resolve_views(tta, preprocessing)(image)
    assert views.shape[1:] == plain(image, preprocessing).shape
    assert len({view.numpy().tobytes() for view in views}) == len(views)


@pytest.mark.parametrize("tta", ["flip", "five_crop", "ten_crop", 4])
def test_floats_stay_floats(tta):
    views = resolve_views(tta, MARGIN)(F.to_tensor(noise()))
    assert views.dtype == torch.float32
    assert views.min() >= 0
    assert views.max() <= 1


@pytest.mark.parametrize("augment", [None, "light", "strong", "trivial", ["noise"]])
def test_an_int_adds_random_views_to_the_plain_one(augment):
    image = noise()
    views = resolve_views(5, MARGIN, augment)
    first = views(image)
    assert torch.equal(first[0], plain(image))
    augmenter, _ = resolve_augment(augment or "light", MARGIN)
    for k in range(1, 5):
        assert torch.equal(first[k], augmenter(image, np.random.default_rng(k)))
    assert views.thread_safe == (augment != "trivial")


@pytest.mark.parametrize("tta", ["flip", "ten_crop", 6, v2.FiveCrop(20)])
def test_views_depend_on_the_image_alone(tta):
    views = resolve_views(tta, MARGIN)
    images = [noise(seed=seed) for seed in range(4)]
    one_by_one = [views(image) for image in images]
    backwards = [views(image) for image in images[::-1]][::-1]
    twin = pickle.loads(pickle.dumps(views))
    for image, a, b in zip(images, one_by_one, backwards, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, twin(image))


def test_a_callable_gives_the_images():
    image = noise()

    def corners(image):
        return [image.crop((0, 0, 50, 50)), image.transpose(Image.Transpose.ROTATE_90)]

    views = resolve_views(corners, MARGIN)
    assert repr(views) == "Views(corners, n_views=2)"
    assert not views.thread_safe
    expected = [plain(part) for part in corners(image)]
    assert torch.equal(views(image), torch.stack(expected))


def test_images_of_the_network_size_are_not_resized_again():
    image = noise()
    views = resolve_views(v2.FiveCrop(32), MARGIN)(image)
    expected = torch.stack([F.pil_to_tensor(part) for part in F.five_crop(image, [32])])
    assert torch.equal(views, expected)


def test_a_random_callable_gives_each_image_the_same_views_and_leaves_no_trace():
    def jitter(image):
        return [image.rotate(float(90 * torch.rand(1))) for _ in range(3)]

    before = torch.get_rng_state()
    views = resolve_views(jitter, MARGIN)
    assert torch.equal(views(noise()), views(noise()))
    assert torch.equal(before, torch.get_rng_state())


def test_a_callable_must_return_as_many_images_for_each():
    views = resolve_views(lambda image: [image] * (1 + image.width // 100), MARGIN)
    with pytest.raises(ValueError, match="returned 1 images; for a first one"):
        views(noise())
    with pytest.raises(ValueError, match="returned no image"):
        resolve_views(lambda image: [], MARGIN)


@pytest.mark.parametrize("wrong", ["mirror", 1, 0, -2, 2.5, True, v2.FiveCrop])
def test_a_wrong_tta_is_named(wrong):
    with pytest.raises(ValueError, match="tta must be None, 'flip'"):
        resolve_views(wrong, MARGIN)


def test_random_views_without_an_augment_mirror_nothing():
    views = [resolve_views(3, MARGIN, a)(noise()) for a in (None, [], "light")]
    assert torch.equal(views[0], views[2])
    assert torch.equal(views[1], views[2])


@pytest.mark.parametrize("tta", ["flip", "five_crop", "ten_crop", 3])
def test_views_come_before_a_preprocessing_that_is_a_function(tta):
    def to_network(image):
        return F.to_tensor(F.resize(image, [16, 16])) * 2 - 1

    image = noise(80, 96)
    views = resolve_views(tta, CallablePreprocessing(to_network))(image)
    assert views.shape[1:] == (3, 16, 16)
    assert len({view.numpy().tobytes() for view in views}) == len(views)
    if tta == "five_crop":
        expected = [to_network(part) for part in F.five_crop(image, [70, 84])]
        assert torch.equal(views, torch.stack(expected))
    else:
        assert torch.equal(views[0], to_network(image)) or tta == "ten_crop"


def test_threads_get_what_one_thread_gets():
    views = resolve_views(4, MARGIN)
    assert isinstance(views, Views)
    assert views.thread_safe
    images = [noise(seed=seed) for seed in range(8)]
    together = {}
    threads = [
        threading.Thread(target=lambda k=k: together.update({k: views(images[k])}))
        for k in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(together[k], views(images[k])) for k in range(8))


@pytest.mark.parametrize("size", [(3000, 60), (50, 2400)])
@pytest.mark.parametrize("form", ["pil", "floats"])
def test_crops_of_a_strip_are_those_of_all_of_it_resized_in_part(
    size, form, monkeypatch
):
    width, height = size
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    image = Image.fromarray(pixels)
    expected = F.ten_crop(F.resize(image, [40]), [32])
    made = []
    resize = Image.Image.resize

    def counting(image, size, *args, **kwargs):
        made.append(size)
        return resize(image, size, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "resize", counting)
    if form == "floats":
        image = F.pil_to_tensor(image) / 255
    found = resolve_views("ten_crop", MARGIN)(image)
    for one, other in zip(found, expected, strict=True):
        pixels = one * 255 if form == "floats" else one.float()
        assert (pixels - F.pil_to_tensor(other)).abs().max() <= 2
    assert max(map(np.prod, made)) < 40 * 40 * 12
    long = Image.new("RGB", (100_000, 2))
    assert len(resolve_views("five_crop", MARGIN)(long)) == 5
