"""Where weights come from, and what is said when they do not."""

import argparse
import json
import os
import re

import pytest
import torch
from backbone_cases import images, reference_network
from safetensors.torch import save_file
from torchvision.models import ResNet18_Weights, SqueezeNet1_1_Weights

from sklearn_dl.backbones import Preprocessing, load_backbone
from sklearn_dl.backbones._weights import (
    Checkpoint,
    cached_path,
    is_path,
    prepare_state,
)

NAME = "squeezenet1_1"
HEAD = "classifier.1"


@pytest.fixture(scope="module")
def network():
    return reference_network(NAME, 64)[0]


@pytest.fixture(scope="module")
def state(network):
    return network.state_dict()


def load(path, name=NAME, **options):
    return load_backbone(name, path, **options)


def same_weights(backbone, state):
    own = backbone.module.state_dict()
    return len(own) > 0 and all(
        torch.equal(value, state[key]) for key, value in own.items()
    )


VARIANTS = {
    "plain": lambda s: s,
    "half": lambda s: {k: v.half() for k, v in s.items()},
    "double": lambda s: {k: v.double() for k, v in s.items()},
    "module prefix": lambda s: {f"module.{k}": v for k, v in s.items()},
    "lightning": lambda s: {"state_dict": {f"model.{k}": v for k, v in s.items()}},
    "wrapped": lambda s: {"state_dict": dict(s), "epoch": 3, "optimizer": {"lr": 0.1}},
    "model wrapper": lambda s: {"model": {f"module.{k}": v for k, v in s.items()}},
    "backbone prefix": lambda s: {f"backbone.{k}": v for k, v in s.items()},
    "two prefixes": lambda s: {f"module.encoder_q.{k}": v for k, v in s.items()},
    "a number": lambda s: {f"0.{k}": v for k, v in s.items()},
    "its own name": lambda s: {f"features.{k}": v for k, v in s.items()},
    "an averaged model": lambda s: {
        "n_averaged": torch.tensor(3),
        **{f"module.{k}": v for k, v in s.items()},
    },
    "counted": lambda s: {
        "total_ops": torch.zeros(1),
        **{f"{k.rpartition('.')[0]}.total_ops": torch.zeros(1) for k in s},
        **s,
    },
    "beside": lambda s: {
        "loss.weight": torch.zeros(3),
        "projector.0.weight": torch.zeros(3, 3),
        "epoch": 3,
        **s,
    },
    "beside a prefix": lambda s: {
        **{f"student.{k}": v for k, v in s.items()},
        "student.projector.weight": torch.zeros(3, 3),
        "teacher.center": torch.zeros(3),
    },
    "an average alone": lambda s: {"state_dict_ema": dict(s), "epoch": 3},
    "deep": lambda s: {"run": {"ema": {"model": dict(s)}}, "best": torch.tensor(0.5)},
    "equal twice": lambda s: {"model": dict(s), "model_ema": dict(s)},
    "no head": lambda s: {k: v for k, v in s.items() if not k.startswith(HEAD)},
    "other head": lambda s: {
        k: v[:7].clone() if k.startswith(HEAD) else v for k, v in s.items()
    },
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_form_of_a_state_dict_is_read(tmp_path, state, variant):
    content = VARIANTS[variant](state)
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    backbone = load(path)
    expected = {k: v.half().float() for k, v in state.items()}
    assert same_weights(backbone, expected if variant == "half" else state)
    assert {p.dtype for p in backbone.parameters()} == {torch.float32}
    assert all(p.requires_grad for p in backbone.parameters())
    assert backbone.pretrained


TWICE = {
    "an average": (
        lambda s, t: {"model": s, "model_ema": t},
        "'model.' and 'model_ema.'",
    ),
    "an average in a wrapper": (
        lambda s, t: {"model": s, "model_ema": {f"module.{k}": t[k] for k in t}},
        "'model.' and 'model_ema.module.'",
    ),
    "student and teacher": (
        lambda s, t: {
            "student": {f"backbone.{k}": v for k, v in s.items()},
            "teacher": {f"backbone.{k}": v for k, v in t.items()},
        },
        "'student.backbone.' and 'teacher.backbone.'",
    ),
    "queries and keys": (
        lambda s, t: {
            **{f"module.encoder_q.{k}": v for k, v in s.items()},
            **{f"module.encoder_k.{k}": v for k, v in t.items()},
        },
        "'module.encoder_q.' and 'module.encoder_k.'",
    ),
}


@pytest.mark.parametrize("case", TWICE)
def test_of_two_networks_in_a_file_none_is_guessed(tmp_path, state, case):
    make, places = TWICE[case]
    other = {key: value + 1 for key, value in state.items()}
    torch.save(make(dict(state), other), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=f"several networks.*{places}.*none") as caught:
        load(tmp_path / "w.pth")
    assert str(tmp_path / "w.pth") in str(caught.value)


def test_a_network_beside_the_one_with_the_very_names_is_a_second_one(tmp_path, state):
    other = {f"ema.{key}": value + 1 for key, value in state.items()}
    torch.save({**state, **other}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="several networks that fit, under '' and 'em"):
        load(tmp_path / "w.pth")


@pytest.mark.parametrize("prefix", ["", "module.", "net.backbone."])
def test_another_network_is_known_behind_a_prefix(tmp_path, prefix):
    network, _ = reference_network("resnet18", 64)
    state = {f"{prefix}{k}": v for k, v in network.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="It looks like 'resnet18'"):
        load(tmp_path / "w.pth", "squeezenet1_1")


@pytest.mark.parametrize("prefix", ["", "net."])
def test_an_early_layer_of_a_prefixed_network_is_found(tmp_path, prefix):
    network, _ = reference_network("resnet18", 64)
    first = network.conv1.weight
    state = {f"{prefix}{k}": v for k, v in network.state_dict().items()}
    torch.save(state, tmp_path / "w.pth")
    backbone = load(tmp_path / "w.pth", "resnet18", layer="conv1")
    assert torch.equal(backbone.module.conv1.weight, first)


@pytest.mark.parametrize(
    "odd",
    [
        lambda tensor: tensor.to_sparse(),
        lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
        lambda tensor: tensor.to(torch.complex64),
    ],
)
def test_tensors_that_hold_no_plain_numbers_are_named(tmp_path, state, odd):
    key = next(iter(state))
    torch.save({**state, key: odd(state[key])}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=rf"w\.pth has a tensor in '{key}' that isn't"):
        load(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("key", "shape", "said"),
    [
        ("encoder.pos_embedding", (1, 1, 768), "0 patches"),
        ("conv_proj.weight", (), "of another shape"),
    ],
)
def test_a_vision_transformer_without_patches_is_named(tmp_path, key, shape, said):
    network, _ = reference_network("vit_b_32", 64)
    torch.save({**network.state_dict(), key: torch.zeros(shape)}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=rf"w\.pth .*{said}"):
        load(tmp_path / "w.pth", "vit_b_32")


def test_a_larger_network_of_the_family_does_not_pass_for_a_small_one(tmp_path):
    network, _ = reference_network("resnet34", 64)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"unexpected: layer1\.2\.conv1\.weight"):
        load(tmp_path / "w.pth", "resnet18")


def test_a_vision_transformer_that_is_not_square_says_so(tmp_path):
    network, _ = reference_network("vit_b_32", 64)
    state = network.state_dict()
    position = state["encoder.pos_embedding"]
    state["encoder.pos_embedding"] = position.new_zeros(1, 7, position.shape[-1])
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w\.pth is of .* 6 patches.*square"):
        load(tmp_path / "w.pth", "vit_b_32")


@pytest.mark.parametrize("half", [False, True])
def test_safetensors_are_read(tmp_path, state, half):
    content = {k: v.half() if half else v for k, v in state.items()}
    save_file(content, tmp_path / "weights.safetensors")
    backbone = load(str(tmp_path / "weights.safetensors"))
    expected = {k: v.half().float() for k, v in state.items()} if half else state
    assert same_weights(backbone, expected)


@pytest.mark.parametrize("name", ["mnasnet0_5", "shufflenet_v2_x0_5", "googlenet"])
def test_safetensors_of_networks_with_layer_versions(tmp_path, name):
    network, _ = reference_network(name, 64, seed=3)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    backbone = load(tmp_path / "weights.safetensors", name)
    assert same_weights(backbone, network.state_dict())
    momenta = {m.momentum for m in network.modules() if hasattr(m, "momentum")}
    assert {m.momentum for m in backbone.modules() if hasattr(m, "momentum")} == momenta


def test_preprocessing_comes_from_the_files_metadata(tmp_path, state):
    wanted = Preprocessing(100, (80, 80), (0.1, 0.2, 0.3), (1.0, 2.0, 3.0), "bicubic")
    meta = {"preprocessing": json.dumps(wanted.to_dict())}
    save_file(dict(state), tmp_path / "weights.safetensors", meta)
    assert load(tmp_path / "weights.safetensors").preprocessing == wanted
    wrapped = {"state_dict": state, "preprocessing": wanted.to_dict()}
    torch.save(wrapped, tmp_path / "weights.pth")
    assert load(tmp_path / "weights.pth").preprocessing == wanted
    named = load(tmp_path / "weights.pth", preprocessing="IMAGENET1K_V1")
    assert named.preprocessing.resize_size == 256


def test_preprocessing_of_a_file_without_any_is_the_first_recipes(tmp_path):
    network, _ = reference_network("mobilenet_v2", 64)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    prep = load(tmp_path / "weights.pth", "mobilenet_v2").preprocessing
    assert (prep.resize_size, prep.crop_size) == (256, (224, 224))


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("{}", "fields"),
        ("[" * 10**5, ""),
        ('{"crop_size": [10, 0]}', "crop_size"),
        ('{"resize_size": 100000}', "resize_size"),
        ('{"mean": [0.5, 0.5, NaN]}', "mean"),
        ('{"std": [1, 0, 1]}', "std"),
        ('{"interpolation": "magic"}', "interpolation"),
    ],
)
def test_broken_preprocessing_in_a_file_is_named(tmp_path, state, text, field):
    good = Preprocessing(10, (10, 10), (0.5,) * 3, (0.5,) * 3).to_dict()
    if field not in ("", "fields"):
        text = json.dumps({**good, **json.loads(text)})
    save_file(dict(state), tmp_path / "w.safetensors", {"preprocessing": text})
    with pytest.raises(ValueError, match=rf"preprocessing in .*safetensors.*{field}"):
        load(tmp_path / "w.safetensors")


def test_checkpoint_of_another_network_says_which(tmp_path, state):
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="does not fit 'resnet18'") as caught:
        load(tmp_path / "weights.pth", "resnet18")
    message = str(caught.value)
    assert "missing: conv1.weight" in message
    assert "unexpected: features.0.weight" in message
    assert "looks like 'squeezenet1_1'" in message


def test_shapes_that_differ_are_named(tmp_path, state):
    wrong = {**state, "features.0.bias": torch.zeros(7)}
    torch.save(wrong, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"features.0.bias \(7,\) instead of \(64,\)"):
        load(tmp_path / "weights.pth")


def test_file_for_features_alone_serves_pooled_but_not_pre_logits(tmp_path):
    network, _ = reference_network("mobilenet_v3_small", 64)
    kept = {k: v for k, v in network.state_dict().items() if k.startswith("features")}
    torch.save(kept, tmp_path / "weights.pth")
    backbone = load(tmp_path / "weights.pth", "mobilenet_v3_small", layer="pooled")
    assert same_weights(backbone, network.state_dict())
    with pytest.raises(ValueError, match=r"2 missing: classifier.0.weight"):
        load(tmp_path / "weights.pth", "mobilenet_v3_small")


def test_values_that_are_not_finite_are_named(tmp_path, state):
    bad = {**state, "features.0.bias": torch.full((64,), torch.nan)}
    torch.save(bad, tmp_path / "weights.pth")
    with pytest.raises(
        ValueError, match=r"NaN or infinite values in features\.0\.bias"
    ):
        load(tmp_path / "weights.pth")


class Code:
    """A pickle that would run a command when read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_code_in_a_file_is_not_run(tmp_path, state):
    torch.save(
        {"state_dict": dict(state), "x": Code(tmp_path / "ran")}, tmp_path / "w.pth"
    )
    with pytest.raises(ValueError, match=r"\(posix\.system\).*could run code"):
        load(tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()


def test_a_class_in_a_file_is_named(tmp_path, state):
    args = argparse.Namespace(lr=0.1)
    torch.save({"model": dict(state), "args": args}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"more than tensors \(argparse\.Namespace\)"):
        load(tmp_path / "w.pth")


def test_a_whole_module_in_a_file_is_refused(tmp_path, network):
    torch.save(network, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="Save torch's state_dict"):
        load(tmp_path / "w.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("size", [0, 10, 1000])
def test_damaged_files_are_named(tmp_path, state, suffix, size):
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(dict(state), path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=re.escape(f"{path} ({size} bytes) cannot")):
        load(path)


def test_text_and_other_content_is_refused(tmp_path):
    (tmp_path / "w.pth").write_text("not weights")
    with pytest.raises(ValueError, match="cannot be read as weights"):
        load(tmp_path / "w.pth")
    torch.save([1, 2], tmp_path / "w.pth")
    with pytest.raises(ValueError, match="no state dict but list"):
        load(tmp_path / "w.pth")
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="'epoch' is a int"):
        load(tmp_path / "w.pth")


def test_missing_files_and_directories_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.pth"):
        load(str(tmp_path / "nothing.pth"))
    with pytest.raises(IsADirectoryError, match="is a directory"):
        load(tmp_path)


def test_paths_and_names_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    entries = ("IMAGENET1K_V1",)
    (tmp_path / "bare").touch()
    (tmp_path / "IMAGENET1K_V1").touch()
    for path in ("w.pth", "a/b", "x.safetensors", "bare", tmp_path / "IMAGENET1K_V1"):
        assert is_path(path, entries)
    for name in ("DEFAULT", "IMAGENET1K_V1", "IMAGENET1K_V7", None):
        assert not is_path(name, entries)


def test_without_a_network_the_error_says_what_to_do(no_network):
    with pytest.raises(OSError, match="could not be downloaded") as caught:
        load_backbone("resnet18")
    message = str(caught.value)
    assert ResNet18_Weights.DEFAULT.url in message
    assert str(no_network / "resnet18-f37072fd.pth") in message
    assert "weights=None" in message
    assert "weights='builtin'" in message
    assert "path/to/file" in message
    assert message.count("\n") <= 4


@pytest.mark.parametrize(
    "weights", ["DEFAULT", "IMAGENET1K_V1", SqueezeNet1_1_Weights.IMAGENET1K_V1]
)
def test_a_file_in_the_cache_needs_no_network(no_network, state, weights):
    no_network.mkdir(parents=True)
    torch.save(state, cached_path(SqueezeNet1_1_Weights.DEFAULT))
    backbone = load(weights)
    assert same_weights(backbone, state)
    assert backbone.preprocessing == Preprocessing.from_transforms(
        SqueezeNet1_1_Weights.DEFAULT.transforms()
    )


def test_a_damaged_file_in_the_cache_is_named(no_network):
    no_network.mkdir(parents=True)
    path = cached_path(SqueezeNet1_1_Weights.DEFAULT)
    path.write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"Delete it, to download it again") as caught:
        load("DEFAULT")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_branches_in_a_file_are_ignored_and_input_renormalised(
    no_network, without_memory, name
):
    network, _ = reference_network(name, 80)
    extra = {"aux1.conv.weight": torch.zeros(3), "AuxLogits.fc.bias": torch.zeros(3)}
    no_network.mkdir(parents=True)
    path = no_network / "weights.pth"
    torch.save({**network.state_dict(), **extra}, path)
    backbone = load(path, name)
    network.transform_input = True  # as torchvision sets it for its own weights
    network.fc = torch.nn.Identity()
    x = images(80)
    with torch.inference_mode():
        assert torch.equal(backbone.eval()(x), network(x))


def test_old_names_in_published_files_are_translated(tmp_path):
    old = {
        "features.denseblock1.denselayer1.norm.1.weight": "d1",
        "encoder.layers.encoder_layer_0.mlp.linear_1.weight": "v1",
        "encoder.layers.encoder_layer_0.mlp.linear_2.bias": "v2",
        "heads.head.bias": "gone",
    }
    checkpoint = Checkpoint(tmp_path, {"": old})
    state = prepare_state(checkpoint, {"x"}, {"x"}, "heads.head")
    assert state == {
        "features.denseblock1.denselayer1.norm1.weight": "d1",
        "encoder.layers.encoder_layer_0.mlp.0.weight": "v1",
        "encoder.layers.encoder_layer_0.mlp.3.bias": "v2",
    }


@pytest.mark.parametrize(
    ("backbone", "options", "message"),
    [
        ("resnet19", {}, "'resnet18'"),
        ("mobilnet_v2", {}, "'mobilenet_v2'"),
        ("zzz", {}, "80 in all"),
        ("resnet50", {"weights": "IMAGENET1K_V3"}, "'IMAGENET1K_V"),
        (
            "resnet50",
            {"weights": ResNet18_Weights.DEFAULT},
            "not weights of 'resnet50'",
        ),
        ("resnet18", {"layer": "layer5"}, "'layer4'"),
        ("resnet18", {"layer": "flatten"}, "Unknown layer 'flatten'"),
        ("resnet18", {"layer": ("layer4", "mean")}, "pooling must be one of"),
        ("resnet18", {"layer": ("pre_logits", "cls")}, "does not apply"),
        ("resnet18", {"layer": ("avgpool", "cls")}, "does not apply"),
        (
            "mobilenet_v3_small",
            {"layer": ("pre_logits", "max")},
            r"layer=\('pooled', 'max'\)",
        ),
        ("alexnet", {"image_size": 32}, "32 x 32 pixels.*least 63"),
        ("maxvit_t", {"image_size": 256}, "221 to 224"),
        ("swin_t", {"image_size": (224, 3)}, "224 x 3 pixels.*least 4"),
        ("vit_b_32", {"image_size": 100}, "multiple of 32"),
        (
            "vit_b_32",
            {"layer": "encoder.layers.encoder_layer_0.self_attention.out_proj"},
            "not called",
        ),
    ],
)
def test_wrong_names_and_sizes_are_refused(without_memory, backbone, options, message):
    options = {"weights": None, **options}
    with pytest.raises(ValueError, match=message):
        load_backbone(backbone, **options)


@pytest.mark.parametrize("backbone", [None, 3, ["resnet18"]])
def test_backbone_of_another_type_is_refused(backbone):
    with pytest.raises(TypeError, match="backbone must be"):
        load_backbone(backbone)


def test_weights_of_another_type_are_refused():
    with pytest.raises(TypeError, match="weights must be"):
        load_backbone("resnet18", 3)
