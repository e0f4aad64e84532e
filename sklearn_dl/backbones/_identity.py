"""Digests of what the features of a network depend on."""

import hashlib
from typing import Any

import torch
from torch import nn

from sklearn_dl._runtime import fingerprint_text, package_versions
from sklearn_dl.backbones._walk import named_tensors, walk

_INTERNAL = frozenset([*vars(nn.Module()), "_compiled_call_impl"])


def packages_of(network: nn.Module) -> set[str]:
    """Return the names of the packages whose modules a network is made of."""
    return {type(part).__module__.partition(".")[0] for _, part in walk(network)}


def is_settled(network: nn.Module) -> bool:
    """Tell whether the code of a network stays as it is.

    That of one's own classes may read globals, which may change.
    """
    return packages_of(network) <= {"torch", "torchvision", "timm"}


def digest_weights(network: nn.Module) -> str:
    """Return the digest of all parameters and buffers, with their names and dtypes."""
    digest = hashlib.sha256()
    with torch.inference_mode(False), torch.no_grad():
        for name, tensor in named_tensors(network).items():
            if not name.endswith("num_batches_tracked"):
                digest.update(f"{name} {tensor.dtype} {[*tensor.shape]}\n".encode())
                flat = tensor.detach().cpu().contiguous().reshape(-1)
                digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def digest_architecture(backbone: Any) -> str:
    """Return the digest of the modules of a `Backbone`, and of where they are cut."""
    modules = [(p.removesuffix("."), m) for p, m in walk(backbone._network)]
    parts = [
        (name, type(part), {k: v for k, v in vars(part).items() if k not in _INTERNAL})
        for name, part in modules
    ]
    hooks = [
        (name, hook)
        for name, part in modules
        for found in (part._forward_pre_hooks, part._forward_hooks)
        for hook in found.values()
    ]
    point = backbone.layer, backbone.pooling, backbone._channels_last
    versions = package_versions([type(part) for _, part in modules])
    text = fingerprint_text([point, parts, hooks, versions])
    return hashlib.sha256(text.encode()).hexdigest()
