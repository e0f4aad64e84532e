"""The form in which a network predicts: BatchNorm folded into convolutions.

BatchNorm in evaluation mode is a scale and a shift of each channel: where it alone
takes the output of a convolution, they go into that one's weights. Where autocast
computes in a half precision, weights are cast once rather than at each batch. The
outputs are the network's but for rounding.
"""

import os
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from sklearn_dl.backbones._cut import Reached, WidenedConv2d

# Layers whose weights autocast would cast at each batch.
_CAST = (nn.Conv2d, nn.Linear)
_LARGEST_FLOAT16 = torch.finfo(torch.float16).max

Pairs = list[tuple[str, str]]


class _Lock:
    """A lock that the child of a fork finds open."""

    def __init__(self) -> None:
        self.renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        self.lock = threading.RLock()


# For what is once in a process: shared networks, their forms, tracing by torch.fx.
ONCE = _Lock()


class Tracer(fx.Tracer):
    """Follows one thread: torch.fx replaces ``nn.Module.__call__`` for all."""

    def __init__(self) -> None:
        super().__init__(autowrap_modules=())  # type: ignore[arg-type]
        self._thread = threading.get_ident()

    @classmethod
    def nodes(cls, network: nn.Module) -> list[Any]:
        """Return the nodes of a network's graph, which don't keep it alive."""
        tracer = cls()
        try:
            with ONCE.lock:
                return list(tracer.trace(ToItsEnd(network)).nodes)
        finally:
            # Another thread may be in a call still, which asks for these.
            kept = "_thread", "_autowrap_function_ids"
            for name in vars(tracer).keys() - kept:
                delattr(tracer, name)

    def call_module(self, m, forward, args, kwargs):
        """Record the call of a layer."""
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        self.note_call(m, *args, *kwargs.values())
        return super().call_module(m, forward, args, kwargs)

    def note_call(self, m: nn.Module, *given: Any) -> None:
        """Take note of the call of a layer, or of what holds layers."""

    def getattr(self, attr, attr_val, parameter_proxy_cache):
        """Record the use of a parameter."""
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)


class ToItsEnd(nn.Module):
    """A network whose forward returns where it is cut."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x):
        try:
            return self.network(x)
        except Reached as reached:
            return reached.output


def foldable(network: nn.Module) -> Pairs:
    """Return the names of convolutions whose output one BatchNorm alone takes, with it.

    They are found in the graph that torch.fx traces; what can't be traced has none.
    """
    parts = dict(network.named_modules())
    kinds = {type(part) for part in parts.values()}
    if not {nn.Conv2d, nn.BatchNorm2d} <= kinds:
        return []
    try:
        nodes = Tracer.nodes(network)
    except Exception:  # control flow that depends on values
        return []
    calls = Counter(qualified(node) for node in nodes if node.op == "call_module")
    # Tensors that are used past their layers.
    used = {qualified(n).rpartition(".")[0] for n in nodes if n.op == "get_attr"}

    def once(node: Any, kind: type) -> bool:
        if not isinstance(node, fx.Node) or node.op != "call_module":
            return False
        name = qualified(node)
        return calls[name] == 1 and name not in used and _is_bare(parts[name], kind)

    return [
        (qualified(node.args[0]), qualified(node))
        for node in nodes
        if once(node, nn.BatchNorm2d)
        and once(node.args[0], nn.Conv2d)
        and len(node.args[0].users) == 1
    ]


def qualified(node: Any) -> str:
    """Return the name, in the network, of the layer or tensor that a node takes."""
    return str(node.target).removeprefix("network.")


def _is_bare(part: Any, kind: type) -> bool:
    """Tell whether a layer is of a class itself, and nothing acts on it."""
    acted_on = part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part)
    widened = type(part) is WidenedConv2d and kind is nn.Conv2d
    if (type(part) is not kind and not widened) or acted_on:
        return False
    return kind is not nn.BatchNorm2d or getattr(part, "running_mean", None) is not None


def inference_form(
    network: nn.Module, pairs: Pairs, dtype: torch.dtype | None = None
) -> nn.Module:
    """Return the network with the `pairs` folded, and weights in autocast's `dtype`.

    It has all modules and tensors that stay the same in common with the network, which
    must be in evaluation mode; where nothing is gained, it is the network.
    """
    new: dict[str, nn.Module] = {}
    with torch.inference_mode(False), torch.no_grad():
        for conv, norm in pairs:
            layer = _joined(network.get_submodule(conv))
            weights = _folded(layer, network.get_submodule(norm), dtype)
            if weights is not None:
                new[conv], new[norm] = _with_weights(layer, *weights), nn.Identity()
        for name, part in network.named_modules(remove_duplicate=False):
            if dtype is not None and any(_is_bare(part, kind) for kind in _CAST):
                part = _joined(new.get(name, part))
                bias = None if part.bias is None else part.bias.to(dtype)
                new[name] = _with_weights(part, part.weight.to(dtype), bias)
    return with_parts(network, new)


def _joined(part: Any) -> Any:
    """Return a layer with all its weights in one tensor."""
    return part.joined() if isinstance(part, WidenedConv2d) else part


def _folded(
    conv: Any, norm: Any, dtype: torch.dtype | None
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return the weight and bias of a convolution that does what BatchNorm did.

    None where the range of float16 doesn't suffice.
    """
    mps = conv.weight.device.type == "mps"  # which has no float64
    wide = torch.float32 if mps else torch.float64
    scale, shift = fuse_conv_bn_weights(
        conv.weight.new_ones(len(conv.weight), 1, 1, 1, dtype=wide),
        None if conv.bias is None else conv.bias.to(wide),
        norm.running_mean.to(wide),
        norm.running_var.to(wide),
        norm.eps,
        None if norm.weight is None else norm.weight.to(wide),
        None if norm.bias is None else norm.bias.to(wide),
    )
    weight, bias = conv.weight * scale.to(conv.weight), shift.to(conv.weight)
    if dtype == torch.float16:
        largest = torch.stack([weight.abs().max(), bias.abs().max()]).max()
        if not largest < _LARGEST_FLOAT16:
            return None
    return weight, bias


def _with_weights(part: nn.Module, weight: Any, bias: Any) -> nn.Module:
    new = _shallow(part)
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None:
            value = nn.Parameter(value.detach(), requires_grad=False)
        new._parameters[name] = value
    return new


def with_parts(module: nn.Module, new: Mapping[str, nn.Module]) -> nn.Module:
    """Return a module with other parts in the place of some; the rest is the same."""
    if not new:
        return module
    if "" in new:
        return new[""]
    inside: dict[str, dict[str, nn.Module]] = {}
    for name, part in new.items():
        first, _, rest = name.partition(".")
        inside.setdefault(first, {})[rest] = part
    copy = _shallow(module)
    for name, parts in inside.items():
        child = module._modules[name]
        assert child is not None
        copy._modules[name] = with_parts(child, parts)
    return copy


def _shallow(module: nn.Module) -> Any:
    """Return a module of the same parts and tensors, which others may replace."""
    copy = object.__new__(type(module))
    vars(copy).update(
        vars(module),
        _modules=dict(module._modules),
        _parameters=dict(module._parameters),
    )
    return copy
