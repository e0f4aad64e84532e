"""What `augment` may be, and what holds for every augmenter."""

import copy
import pickle
import random
import types
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from scipy import ndimage
from sklearn.base import clone
from torchvision import transforms as v1
from torchvision import tv_tensors
from torchvision.transforms import functional as F
from torchvision.transforms import v2

from sklearn_dl.augmentation import (
    AUGMENTATIONS,
    PRESETS,
    Augment,
    resolve_augment,
)
from sklearn_dl.augmentation._augmenter import Augmenter
from sklearn_dl.backbones import CallablePreprocessing, Preprocessing

SMALL = Preprocessing(36, (32, 32), mean=(0.5,) * 3, std=(0.2,) * 3)
DIRECT = Preprocessing((32, 32), None, mean=(0.5,) * 3, std=(0.2,) * 3)


def noise(height=80, width=100, channels=3, seed=0):
    shape = (height, width, channels) if channels == 3 else (height, width)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, "uint8"))


def drawn(augment, image, seed=0, preprocessing=SMALL):
    augmenter, _ = resolve_augment(augment, preprocessing)
    return augmenter(image, np.random.default_rng(seed))


def plain(image, preprocessing=SMALL):
    return F.pil_to_tensor(preprocessing.geometry(image))


# Names


@pytest.mark.parametrize("nothing", [None, [], (), Augment(None), Augment([])])
def test_nothing_to_do_is_none(nothing):
    assert resolve_augment(nothing, SMALL) == (None, None)


@pytest.mark.parametrize("wrong", [0, -1, 2.0, True, np.bool_(True), "4", [4]])
@pytest.mark.parametrize("transforms", ["standard", None])
def test_a_wrong_number_of_views_is_named(transforms, wrong):
    with pytest.raises(ValueError, match=r"views must be an int, 1 or more.*got"):
        resolve_augment(Augment(transforms, views=wrong), SMALL)


@pytest.mark.parametrize("views", [None, 1, 8, np.int64(3)])
def test_views_change_no_draw(views):
    assert torch.equal(
        drawn(Augment("strong", views=views), noise()), drawn("strong", noise())
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_the_list_of_its_names(preset):
    image = noise()
    for seed in range(5):
        assert torch.equal(
            drawn(preset, image, seed), drawn(list(PRESETS[preset]), image, seed)
        )


def test_no_preset_mirrors_top_and_bottom_and_light_mirrors_nothing():
    assert set().union(*PRESETS.values()) <= set(AUGMENTATIONS)
    assert not any("vertical_flip" in names for names in PRESETS.values())
    assert not {"flip", "crop"} & set(PRESETS["light"])


def test_light_keeps_digits_whole_and_their_ground_plain():
    pixels = np.zeros((28, 28), "uint8")
    pixels[5:23, 13:16] = 255
    for seed in range(50):
        view = drawn("light", Image.fromarray(pixels), seed, DIRECT)[0]
        assert ndimage.label(view > 0)[1] == 1  # no stroke is doubled
        assert (view > 127).sum() > 40
        assert view[:, [0, -1]].max() == 0


def test_the_order_of_neighbouring_names_and_repetitions_do_not_matter():
    image = noise()
    a = drawn(["noise", "rotation", "color", "noise"], image)
    assert torch.equal(a, drawn(("rotation", "color", "noise"), image))


@pytest.mark.parametrize(
    ("one", "other"), [("trivial", "trivialaugment"), ("rand", "randaugment")]
)
def test_recipes_have_two_spellings(one, other):
    image = noise()
    assert torch.equal(drawn(one, image, 3), drawn(other, image, 3))


@pytest.mark.parametrize(
    ("name", "reference"),
    [("trivial", v2.TrivialAugmentWide()), ("rand", v2.RandAugment())],
)
def test_recipes_are_those_of_torchvision(name, reference):
    image = noise()
    for seed in range(8):
        view = drawn(name, image, seed)
        torch.manual_seed(int(np.random.default_rng(seed).integers(2**32)))
        expected = F.pil_to_tensor(reference(SMALL.geometry(image)))
        assert torch.equal(view, expected)


@pytest.mark.parametrize("wrong", ["rotate", "Flip", "jpg", "strng", "xyz"])
def test_an_unknown_name_is_answered_by_the_names(wrong):
    with pytest.raises(ValueError, match=f"Unknown augment '{wrong}'") as caught:
        resolve_augment(["flip", wrong], SMALL)
    assert all(name in str(caught.value) for name in (*AUGMENTATIONS, "trivial"))
    near = {"rotate": "rotation", "Flip": "flip", "strng": "strong"}
    if wrong in near:
        assert f"Did you mean '{near[wrong]}'?" in str(caught.value)


@pytest.mark.parametrize("wrong", [3, {"flip": 1}, [None], v2.RandomHorizontalFlip])
def test_what_is_no_transform_is_a_type_error(wrong):
    with pytest.raises(TypeError, match="augment must be None, a name"):
        resolve_augment(wrong, SMALL)


def test_a_class_is_answered_by_how_to_make_one():
    with pytest.raises(TypeError, match=r"write RandomHorizontalFlip\(...\)"):
        resolve_augment(v2.RandomHorizontalFlip, SMALL)


# Strength


def test_grids_reach_the_strength():
    augment = clone(Augment("strong", strength=0.5))
    assert augment.get_params()["strength"] == 0.5
    image = noise()
    assert torch.equal(
        drawn(augment.set_params(strength=1.0), image), drawn("strong", image)
    )
    assert not torch.equal(
        drawn(augment.set_params(strength=0.2), image), drawn("strong", image)
    )


def test_each_name_can_have_its_strength():
    image = noise()
    alike = dict.fromkeys(["rotation", "color", "noise"], 2.0)
    np.testing.assert_array_equal(
        drawn(Augment(list(alike), strength=alike), image),
        drawn(Augment(list(alike), strength=2.0), image),
    )
    np.testing.assert_array_equal(
        drawn(Augment("standard", strength={"color": 0, "crop": 0}), image),
        drawn("flip", image),
    )
    rest = {"rotation": 0.0, "noise": 0.0}
    np.testing.assert_array_equal(
        drawn(Augment([*rest, "color"], strength=rest), image), drawn("color", image)
    )
    augmenter, _ = resolve_augment(
        Augment(["noise", np.array, "crop"], strength={"crop": 0.5}), SMALL
    )
    assert augmenter.steps[0].strengths == {"crop": 0.5, "noise": 1.0}
    rand = drawn(Augment(["rand"], strength={"rand": 2}), image)
    np.testing.assert_array_equal(rand, drawn(Augment("rand", strength=2), image))


def test_strengths_of_what_is_not_there_are_an_error():
    match = r"strength has 'blur', 'rand', which .* contain flip, noise"
    with pytest.raises(ValueError, match=match):
        resolve_augment(
            Augment(["noise", "flip"], strength={"blur": 2, "noise": 2, "rand": 1}),
            SMALL,
        )
    with pytest.raises(ValueError, match=r"strength\['noise'\] must be a number"):
        resolve_augment(Augment("noise", strength={"noise": 11}), SMALL)


def test_strength_is_the_magnitude_of_rand():
    image = noise()
    reference = v2.RandAugment(magnitude=18)
    view = drawn(Augment("rand", strength=2), image)
    torch.manual_seed(int(np.random.default_rng(0).integers(2**32)))
    assert torch.equal(view, F.pil_to_tensor(reference(SMALL.geometry(image))))


@pytest.mark.parametrize("strength", [-0.1, float("nan"), 11, "much", True, None])
def test_a_wrong_strength_is_named(strength):
    with pytest.raises(ValueError, match="strength must be a number"):
        resolve_augment(Augment("light", strength=strength), SMALL)


@pytest.mark.parametrize("transforms", ["trivial", ImageOps.mirror])
def test_a_strength_without_effect_is_an_error(transforms):
    with pytest.raises(ValueError, match="has no effect"):
        resolve_augment(Augment(transforms, strength=2), SMALL)


# Callables


def test_a_function_gets_a_pil_image_at_the_network_size():
    seen = []

    def mirror(image):
        seen.append(image)
        return ImageOps.mirror(image)

    image = noise()
    view = drawn(mirror, image)
    assert torch.equal(view, plain(image).flip(-1))
    assert isinstance(seen[0], Image.Image)
    assert seen[0].size == (32, 32)


def test_a_function_gets_a_tensor_where_images_are_floats():
    floats = F.to_tensor(noise(32, 32))
    view = drawn(lambda image: image.flip(-2), floats, 0, DIRECT)
    assert torch.equal(view, floats.flip(-2))


V2 = [
    v2.RandomHorizontalFlip(1.0),
    v2.ColorJitter(0.5, 0.5),
    # Torchvision 0.19 has noise for floats alone.
    *([v2.GaussianNoise()] if hasattr(v2.Transform, "make_params") else []),
    v2.RandomErasing(1.0),
    v2.ElasticTransform(),
    v2.AugMix(),
    v2.Compose([v2.ToImage(), v2.RandomRotation(20)]),
    v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]),
]


@pytest.mark.parametrize("transform", V2, ids=lambda t: type(t).__name__)
@pytest.mark.parametrize("channels", [1, 3])
def test_any_transform_of_torchvision_works_as_it_does_by_itself(transform, channels):
    image = noise(channels=channels)
    view = drawn(transform, image, 2)
    torch.manual_seed(int(np.random.default_rng(2).integers(2**32)))
    expected = transform(tv_tensors.Image(plain(image).contiguous()))
    if expected.is_floating_point():
        expected = (255 * expected).round().to(torch.uint8)
    assert view.dtype == torch.uint8
    assert torch.equal(view, expected.as_subclass(torch.Tensor))


def test_the_old_transforms_of_torchvision_work():
    image = noise()
    transform = v1.Compose([v1.RandomHorizontalFlip(1.0), v1.ToTensor()])
    assert torch.equal(drawn(transform, image), plain(image).flip(-1))


@pytest.mark.parametrize(
    "transform",
    [v2.RandomResizedCrop(32), v2.Compose([v2.ToImage(), v2.RandomResizedCrop(32)])],
)
def test_a_transform_that_crops_gets_the_original(transform):
    image = noise(200, 300)
    view = drawn(transform, image)
    torch.manual_seed(int(np.random.default_rng(0).integers(2**32)))
    assert torch.equal(view, transform(tv_tensors.Image(F.pil_to_tensor(image))))


def test_what_comes_back_at_another_size_is_resized():
    image = noise(200, 300)
    view = drawn(v2.CenterCrop(180), image)
    assert torch.equal(view, plain(F.center_crop(image, [180, 180])))
    assert drawn([lambda image: image.crop((0, 0, 9, 9))], image).shape == (3, 32, 32)


def test_names_and_callables_act_in_their_places():
    image = noise(200, 300)
    seen = []

    def mirror(image):
        seen.append(F.pil_to_tensor(image))
        return ImageOps.mirror(image)

    rng = np.random.default_rng(0)
    augmenter, _ = resolve_augment([mirror, "crop", "erase"], SMALL)
    assert repr(augmenter) == "Augmenter(crop, mirror, erase)"
    augmenter(image, rng)
    assert torch.equal(seen[0], drawn("crop", image))
    mixed, _ = resolve_augment(["crop", "flip", "trivial", "erase"], SMALL)
    assert repr(mixed) == "Augmenter(crop, flip, trivial, erase)"


@pytest.mark.parametrize(
    ("transform", "error", "message"),
    [
        (lambda image: None, TypeError, "must return an image, got NoneType"),
        (lambda image: torch.zeros(2, 32, 32), TypeError, "1 or 3 channels"),
        (lambda image: torch.zeros(3, 9, 9, dtype=int), TypeError, "uint8 or float"),
        (lambda image: F.to_tensor(image) * 4 - 2, ValueError, "leave normalisation"),
        (lambda image: F.to_tensor(image) * np.nan, ValueError, "must lie in"),
    ],
)
def test_a_transform_that_returns_no_image_is_told_so(transform, error, message):
    with pytest.raises(error, match=message):
        drawn(transform, noise())


def test_generators_of_the_process_are_seeded_and_put_back():
    values = []

    def jitter(image):
        values.append((random.random(), np.random.rand(), torch.rand(1).item()))
        return image

    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    expected = (random.random(), np.random.rand(), torch.rand(1).item())
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    for seed in (0, 0, 1):
        drawn(jitter, noise(), seed)
    assert values[0] == values[1]
    assert not set(values[0]) & set(values[2])
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected


def test_generators_are_put_back_after_an_error():
    def fail(image):
        torch.rand(1)
        raise RuntimeError("no")

    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="no"):
        drawn(fail, noise())
    assert torch.equal(before, torch.get_rng_state())


def test_a_subclass_of_a_torchvision_transform_gets_a_tensor():
    class Own(v2.Transform):
        def transform(self, inpt, params):
            assert isinstance(inpt, tv_tensors.Image)
            return 255 - inpt

        _transform = transform  # its name in torchvision 0.19

    assert torch.equal(drawn(Own(), noise()), 255 - plain(noise()))


# Albumentations


@pytest.fixture
def albumentations():
    """Return a class like Albumentations' transforms, with a generator of its own."""

    class Stand:
        def __init__(self):
            self.rng = np.random.default_rng()
            self.seeds = []

        def set_random_seed(self, seed):
            self.seeds.append(seed)
            self.rng = np.random.default_rng(seed)

        def __call__(self, *, image):
            assert isinstance(image, np.ndarray)
            assert image.shape[:2] == (32, 32)
            noise = self.rng.integers(0, 9, image.shape, "uint8")
            return {"image": image // 2 + noise}

    Stand.__module__ = "albumentations.core.composition"
    return Stand


@pytest.mark.parametrize("channels", [1, 3])
def test_albumentations_get_an_array_and_a_seed(albumentations, channels):
    image = noise(channels=channels)
    transform = albumentations()
    augmenter, _ = resolve_augment(transform, SMALL)
    first, again, other = (
        augmenter(image, np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    darker = plain(image) // 2
    assert (first >= darker).all()
    assert (first <= darker + 8).all()
    assert transform.seeds == []  # the user's object is left alone
    assert not augmenter.thread_safe


def test_old_albumentations_are_seeded_through_the_process(albumentations):
    del albumentations.set_random_seed
    albumentations.__call__ = lambda self, image: {
        "image": image + np.random.randint(0, 2, image.shape).astype("uint8")
    }
    transform = albumentations()
    assert torch.equal(drawn(transform, noise(), 4), drawn(transform, noise(), 4))
    assert not torch.equal(drawn(transform, noise(), 4), drawn(transform, noise(), 5))


def test_albumentations_that_crop_get_the_original(albumentations):
    image = noise(200, 300)
    cropper = type("RandomCrop", (albumentations,), {})
    cropper.__module__ = "albumentations.augmentations.crops"
    cropper.__call__ = lambda self, image: {"image": image[10:42, 20:52]}
    composed = albumentations()
    composed.transforms = [cropper()]
    expected = F.pil_to_tensor(image)[:, 10:42, 20:52]
    assert torch.equal(drawn(cropper(), image), expected)
    composed.__class__ = type("Compose", (cropper,), {"__module__": cropper.__module__})
    assert torch.equal(drawn(composed, image), expected)


# Preprocessing that is a function


def to_network(image):
    return F.normalize(F.to_tensor(F.resize(image, [16, 16])), [0.5] * 3, [0.5] * 3)


@pytest.mark.parametrize("name", [*AUGMENTATIONS, *PRESETS, "trivial", "rand"])
@pytest.mark.parametrize("channels", [1, 3])
def test_everything_happens_before_a_preprocessing_that_is_a_function(name, channels):
    preprocessing = CallablePreprocessing(to_network)
    image = noise(90, 70, channels)
    views = [drawn(name, image, seed, preprocessing) for seed in range(6)]
    assert all(view.shape == (3, 16, 16) for view in views)
    assert views[0].dtype == torch.float32
    assert min(view.min() for view in views) < 0
    again = [drawn(name, image, seed, preprocessing) for seed in range(6)]
    assert all(torch.equal(a, b) for a, b in zip(views, again, strict=True))
    if name != "blur" and (name, channels) != ("grayscale", 1):
        # The function's own resizing hides a blur; grey stays grey.
        assert len({view.numpy().tobytes() for view in views}) > 1


def test_crop_before_a_function_cuts_a_part_of_the_original():
    sizes = []

    def measure(image):
        sizes.append(image.size)
        return to_network(image)

    augmenter, _ = resolve_augment("crop", CallablePreprocessing(measure))
    for seed in range(20):
        augmenter(noise(90, 120), np.random.default_rng(seed))
    areas = np.array([w * h / (90 * 120) for w, h in sizes])
    assert 0.3 < areas.min() < 0.6
    assert areas.max() <= 1


# What holds for all


@pytest.mark.parametrize("augment", ["strong", ["flip", "elastic", "jpeg"], "trivial"])
def test_threads_get_what_one_thread_gets(augment):
    augmenter, _ = resolve_augment(augment, SMALL)
    images = [noise(seed=seed) for seed in range(24)]

    def one(row):
        return augmenter(images[row], np.random.default_rng(row))

    alone = [one(row) for row in range(24)]
    with ThreadPoolExecutor(8) as executor:
        together = list(executor.map(one, range(24)))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_thread_safety_is_told():
    assert resolve_augment(list(AUGMENTATIONS), SMALL)[0].thread_safe
    assert not resolve_augment("trivial", SMALL)[0].thread_safe
    assert not resolve_augment(["flip", ImageOps.mirror], SMALL)[0].thread_safe


@pytest.mark.parametrize("augment", ["strong", "rand", ["crop", ImageOps.mirror]])
def test_augmenters_are_pickled_and_copied(augment):
    augmenter, _ = resolve_augment(augment, SMALL)
    image = noise()
    expected = augmenter(image, np.random.default_rng(0))
    for twin in (pickle.loads(pickle.dumps(augmenter)), copy.deepcopy(augmenter)):
        assert isinstance(twin, Augmenter)
        assert repr(twin) == repr(augmenter)
        assert torch.equal(twin(image, np.random.default_rng(0)), expected)


@pytest.mark.parametrize("resize", [None, 40])
def test_images_keep_their_size_where_the_network_has_none(resize):
    preprocessing = Preprocessing(resize, None, mean=(0.5,) * 3, std=(0.2,) * 3)
    image = noise(80, 100)
    view = drawn("strong", image, 0, preprocessing)
    assert view.shape == plain(image, preprocessing).shape


def test_a_transform_of_another_room_is_any_callable():
    module = types.SimpleNamespace(invert=ImageOps.invert)
    assert torch.equal(drawn(module.invert, noise()), 255 - plain(noise()))
