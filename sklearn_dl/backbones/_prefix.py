"""A network in two halves: a prefix that stays frozen, and the rest of it.

The halves meet at a layer that takes one tensor, the map. The prefix is the network
itself, ended there; the rest is the graph behind it, over the very same layers.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from sklearn_dl.backbones._cut import Reached
from sklearn_dl.backbones._fold import (
    ONCE,
    Pairs,
    ToItsEnd,
    Tracer,
    qualified,
    with_parts,
)


class NoPrefix(Exception):
    """Says why a network isn't taken in two halves."""


class Ended(nn.Module):
    """Stands in a prefix where the rest began, and ends its forward."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Leave the network with the map."""
        raise Reached(x)


@dataclass(frozen=True)
class Border:
    """Where the halves of a network meet."""

    entry: str  # the layer that the map enters
    gone: frozenset[str]  # the layers that a prefix does without

    def prefix_of(self, network: nn.Module) -> nn.Module:
        """Return the network up to the border, of the same parts and tensors."""
        new: dict[str, nn.Module] = {name: nn.Identity() for name in self.gone}
        return with_parts(network, {**new, self.entry: Ended()})


class _Graph(Tracer):
    """The graph of a network, and what each layer is given in it.

    Layers that something acts on, such as hooks, are called as they are.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        # A layer, what it is given first, and how many nodes there were by then.
        self.entries: list[tuple[str, fx.Node | None, int]] = []
        try:
            with ONCE.lock:
                self.nodes_ = list(self.trace(ToItsEnd(network)).nodes)
        except Exception as error:  # control flow that depends on values
            raise NoPrefix(f"it can't be traced: {type(error).__name__}") from error

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Tell whether a layer is called, rather than looked into."""
        if m._forward_hooks or m._forward_pre_hooks or "forward" in vars(m):
            return True
        return super().is_leaf_module(m, module_qualified_name)

    def note_call(self, m: nn.Module, *given: Any) -> None:
        """Note what a layer is given."""
        first = given[0].node if given and isinstance(given[0], fx.Proxy) else None
        name = self.path_of_module(m).removeprefix("network").removeprefix(".")
        self.entries.append((name, first, len(self.graph.nodes)))


def find_border(network: nn.Module, trained: Collection[str]) -> Border:
    """Return the last border in front of the parameters that are trained, by name."""
    graph = _Graph(network)
    nodes, entries = graph.nodes_, graph.entries
    place = {node: k for k, node in enumerate(nodes)}
    layers = [f"{name.rpartition('.')[0]}." for name in trained]

    def trains(node: fx.Node) -> bool:
        name = qualified(node)
        if node.op == "call_module":
            return any(layer.startswith(f"{name}.") for layer in layers)
        return node.op == "get_attr" and name in trained

    first = next((k for k, node in enumerate(nodes) if trains(node)), 0)
    # A tensor that is used behind a place crosses it; parameters are at hand anywhere.
    alone = {}  # nodes that are all that crosses the place behind them
    crossing = 0  # up to where something from before is used
    for k, node in enumerate(nodes[:first]):
        if node.op != "get_attr":
            if crossing <= k and node.op != "placeholder":
                alone[node] = k
            crossing = max([crossing, *(place[user] for user in node.users)])
    times = Counter(name for name, _, _ in entries)
    found = {
        name: alone[node]
        for name, node, count in entries
        if node in alone and count <= first and times[name] == 1
    }
    if not found:
        raise NoPrefix("no layer takes one tensor in front of its trained part")
    entry = max(found, key=lambda name: found[name])  # the outermost of the last
    kept = {qualified(node).rpartition(".")[0] for node in nodes[: found[entry] + 1]}
    kept |= {entry, *(name for name, _, count in entries if count <= found[entry])}
    whole = {qualified(n) for n in nodes[: found[entry] + 1] if n.op == "call_module"}
    return Border(entry, frozenset(_gone(network, kept | whole, whole)))


def _gone(network: nn.Module, kept: set[str], whole: set[str]) -> list[str]:
    """Return the outermost layers of which nothing is kept.

    Of some, the `whole`, all that is in them is kept.
    """
    around = {name[:k] for name in kept for k, c in enumerate(name) if c == "."}
    gone: list[str] = []
    for name, _ in network.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in (*gone, *whole))
        if name and not inside and name not in kept | around:
            gone.append(name)
    return gone


def rest_of(network: nn.Module, entry: str) -> fx.GraphModule:
    """Return the network from what enters a layer on, over the very same layers.

    What depends on training flags of layers that are looked into is as it is now.
    """
    graph = _Graph(network)
    nodes = graph.nodes_
    start = {name: node for name, node, _ in graph.entries}.get(entry)
    if start is None:
        raise NoPrefix(f"nothing is known to enter {entry!r}")
    behind = set(nodes[nodes.index(start) + 1 :])
    used = {node for later in behind for node in later.all_input_nodes}
    rest = fx.Graph()
    new = {start: rest.placeholder("maps")}
    for node in nodes:
        if node in behind or (node.op == "get_attr" and node in used):
            new[node] = rest.node_copy(node, new.__getitem__)
    return fx.GraphModule(graph.root, rest)


def divides(rest: fx.GraphModule, pairs: Pairs) -> bool:
    """Tell whether a BatchNorm is in a rest, but not the convolution in front of it."""
    here = {qualified(node) for node in rest.graph.nodes}
    return any(norm in here and conv not in here for conv, norm in pairs)


def flags_of(network: nn.Module) -> tuple:
    """Return what the graph of a network depends on: training flags, and hooks."""
    return tuple(
        (part.training, bool(part._forward_hooks or part._forward_pre_hooks))
        for part in network.modules()
    )
