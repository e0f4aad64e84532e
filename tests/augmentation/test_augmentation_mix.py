import numpy as np
import pytest
import torch
from scipy import stats

from sklearn_dl.augmentation import Augment, Mixing, resolve_augment
from sklearn_dl.backbones import Preprocessing

B, C, H, W = 6, 3, 16, 24


def batch(dtype=torch.float32):
    """Return a batch in which each image has a value of its own."""
    values = torch.arange(B).view(B, 1, 1, 1) * 40
    values = values.expand(B, C, H, W).clone()
    pixels = values.to(torch.uint8)
    return pixels if dtype == torch.uint8 else pixels.to(dtype) / 255


def mixed(mix, alpha=1.0, seed=0, pixels=None, target=None, weight=None):
    return Mixing(mix, alpha).mix_batch(
        batch() if pixels is None else pixels,
        torch.arange(B) if target is None else target,
        torch.linspace(0.5, 2, B) if weight is None else weight,
        rng=np.random.default_rng(seed),
    )


KEYS = {"x", "target", "weight", "mix_target", "mix_weight", "mix_share"}


@pytest.mark.parametrize("mix", ["mixup", "cutmix", "both"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_classes_come_in_pairs_with_their_weights(mix, dtype):
    out = mixed(mix, pixels=batch(dtype))
    assert set(out) == KEYS
    assert torch.equal(out["target"], torch.arange(B))
    weight = torch.linspace(0.5, 2, B)
    assert torch.equal(out["weight"], weight)
    assert sorted(out["mix_target"].tolist()) == list(range(B))
    assert torch.equal(out["mix_weight"], weight[out["mix_target"]])
    assert out["mix_share"].shape == (B,)
    assert out["mix_share"].unique().numel() == 1


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_mixup_adds_images_by_the_share_of_their_labels(dtype):
    pixels = batch(dtype)
    for seed in range(5):
        out = mixed("mixup", seed=seed, pixels=pixels)
        x = pixels.double() / (255 if dtype == torch.uint8 else 1)
        share = out["mix_share"][0].double()
        expected = share * x + (1 - share) * x[out["mix_target"]]
        torch.testing.assert_close(out["x"].double(), expected, atol=1e-6, rtol=0)
        assert out["x"].dtype == (torch.float32 if dtype == torch.uint8 else dtype)


def test_mixup_draws_its_share_from_beta():
    for alpha in (0.2, 1.0, 4.0):
        shares = [mixed("mixup", alpha, seed)["mix_share"][0] for seed in range(800)]
        assert (
            stats.kstest(np.array(shares), stats.beta(alpha, alpha).cdf).pvalue > 1e-3
        )


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_cutmix_pastes_one_rectangle_and_its_share_counts_the_pixels(dtype):
    pixels = batch(dtype)
    for seed in range(60):
        out = mixed("cutmix", seed=seed, pixels=pixels)
        assert out["x"].dtype == dtype
        second = pixels[out["mix_target"]]
        for i in range(B):
            other = out["mix_target"][i] != i
            pasted = (out["x"][i] != pixels[i]).any(0)
            if not other:
                assert not pasted.any()
                continue
            assert torch.equal(out["x"][i][:, pasted], second[i][:, pasted])
            rows, columns = pasted.any(1), pasted.any(0)
            assert torch.equal(pasted, rows[:, None] & columns)
            share = 1 - pasted.double().mean()
            assert abs(out["mix_share"][i] - share) < 1e-6


def test_cutmix_has_the_box_of_the_paper():
    """The paper's recipe, written out with numpy and the same draws."""
    for seed in range(40):
        out = mixed("cutmix", 0.7, seed)
        rng = np.random.default_rng(seed)
        lam = rng.beta(0.7, 0.7)
        order = rng.permutation(B)
        cy, cx = rng.integers(H), rng.integers(W)
        h, w = round(H * np.sqrt(1 - lam)), round(W * np.sqrt(1 - lam))
        mask = np.ones((H, W))
        y1, x1 = cy - h // 2, cx - w // 2
        mask[max(y1, 0) : max(y1 + h, 0), max(x1, 0) : max(x1 + w, 0)] = 0
        x = batch().numpy()
        expected = mask * x + (1 - mask) * x[order]
        np.testing.assert_array_equal(out["x"].numpy(), expected.astype("float32"))
        np.testing.assert_allclose(out["mix_share"][0], mask.mean(), atol=1e-6)


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_the_mean_label_equals_the_share_of_the_pixels(mix):
    # Image i is the constant of its label: the mean pixel is the mean label.
    pixels = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 32, 32)
    for seed in range(50):
        out = Mixing(mix, alpha=1.0).mix_batch(
            pixels,
            torch.tensor([0, 1]),
            torch.ones(2),
            rng=np.random.default_rng(seed),
        )
        share = out["mix_share"]
        label = share * out["target"] + (1 - share) * out["mix_target"]
        torch.testing.assert_close(out["x"].mean((1, 2, 3)), label, atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(B,), (B, 4)])
@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_values_are_mixed_as_the_images_are(mix, shape):
    target = torch.arange(B).float().view(B, *[1] * (len(shape) - 1)).expand(shape)
    weight = torch.arange(B).float() + 1
    pixels = (torch.arange(B) / 10).view(B, 1, 1, 1).expand(B, C, H, W)
    out = mixed(mix, pixels=pixels, target=target, weight=weight)
    assert set(out) == {"x", "target", "weight"}
    mean = out["x"].mean((1, 2, 3)) * 10
    assert not torch.allclose(mean, torch.arange(B).float(), atol=1e-3)
    torch.testing.assert_close(
        out["target"], mean.view(B, *[1] * (len(shape) - 1)).expand(shape)
    )
    torch.testing.assert_close(out["weight"], mean + 1)


def test_both_tosses_a_coin_for_each_batch():
    pixels = batch(torch.uint8)
    kinds = [mixed("both", seed=seed, pixels=pixels)["x"].dtype for seed in range(200)]
    assert 70 < kinds.count(torch.uint8) < 130


@pytest.mark.parametrize(("mix", "alpha"), [("mixup", 0.2), ("cutmix", 1.0)])
def test_without_alpha_each_mix_has_its_own(mix, alpha):
    assert torch.equal(mixed(mix, None)["x"], mixed(mix, alpha)["x"])
    assert not torch.equal(mixed(mix, None)["x"], mixed(mix, 3.0)["x"])


@pytest.mark.parametrize("mix", ["mixup", "cutmix", "both"])
def test_the_generator_decides_and_what_came_in_stays(mix):
    pixels = batch()
    before = pixels.clone()
    assert torch.equal(mixed(mix, pixels=pixels)["x"], mixed(mix, pixels=pixels)["x"])
    different = {mixed(mix, seed=s)["x"].numpy().tobytes() for s in range(5)}
    assert len(different) == 5
    assert torch.equal(pixels, before)


def test_a_batch_of_one_is_mixed_with_itself():
    for mix in ("mixup", "cutmix"):
        out = Mixing(mix, alpha=1.0).mix_batch(
            batch()[3:4],
            torch.tensor([3]),
            torch.ones(1),
            rng=np.random.default_rng(0),
        )
        torch.testing.assert_close(out["x"], batch()[3:4])


@pytest.mark.parametrize("mix", ["mix", None, "Mixup"])
def test_a_wrong_mix_is_named(mix):
    with pytest.raises(ValueError, match="mix must be 'mixup', 'cutmix' or 'both'"):
        mixed(mix)


@pytest.mark.parametrize("alpha", [0, -1, float("nan"), float("inf"), "1", True])
def test_a_wrong_alpha_is_named(alpha):
    with pytest.raises(ValueError, match="mix_alpha must be a number above 0"):
        mixed("mixup", alpha)


SMALL = Preprocessing(36, (32, 32), mean=(0.5,) * 3, std=(0.2,) * 3)


@pytest.mark.parametrize(
    ("augment", "steps", "mixing"),
    [
        ("mixup", None, Mixing("mixup")),
        ("cutmix", None, Mixing("cutmix")),
        (["mixup", "cutmix"], None, Mixing("both")),
        (["cutmix", "flip", "mixup"], "Augmenter(flip)", Mixing("both")),
        (["standard", "mixup"], "Augmenter(crop, flip, color)", Mixing("mixup")),
        (["flip", "mixup", "crop"], "Augmenter(crop, flip)", Mixing("mixup")),
        (Augment("mixup", mix_alpha=0.3), None, Mixing("mixup", 0.3)),
        (Augment("flip", mix="both"), "Augmenter(flip)", Mixing("both")),
        (Augment(None, mix="cutmix", mix_alpha=2), None, Mixing("cutmix", 2)),
        (Augment("flip", mix_alpha=0.3), "Augmenter(flip)", None),
        ("flip", "Augmenter(flip)", None),
    ],
)
def test_mixing_is_a_kind_of_augmentation(augment, steps, mixing):
    augmenter, found = resolve_augment(augment, SMALL)
    assert (augmenter if augmenter is None else repr(augmenter)) == steps
    assert found == mixing


def test_a_grid_reaches_the_mixing():
    augment = Augment("light").set_params(mix="cutmix", mix_alpha=0.5)
    assert resolve_augment(augment, SMALL)[1] == Mixing("cutmix", 0.5)


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        (Augment("flip", mix="mixdown"), "mix must be 'mixup', 'cutmix' or 'both'"),
        (Augment("flip", mix_alpha=0.0), "mix_alpha must be a number above 0"),
        (Augment(["flip", "mixup"], mix="cutmix"), "name the mixing in one of them"),
        (Augment("mixup", strength=2.0), "no effect on 'mixup'"),
        (Augment(["flip", "mixup"], strength={"mixup": 2}), "don't contain"),
        ("mixop", "Did you mean 'mixup'"),
    ],
)
def test_what_cannot_be_mixed_is_named(augment, message):
    with pytest.raises(ValueError, match=message):
        resolve_augment(augment, SMALL)
