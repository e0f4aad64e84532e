#!/usr/bin/env bash
# torch 2.14.1 (CPU), torch.optim.SGD, Adagrad and AdamW with fused=True: a gradient whose
# memory format differs from that of its parameter is applied in the order of the memory.
# Where a convolution's weight is channels_last and its `.grad` is contiguous (summed over
# processes in a flat buffer and split again, or read from a file), the step moves the
# wrong weights, without an error or a warning; with fused=False it is right. A copy into
# `torch.empty_like(parameter)` helps.
#
# Seen: "SGD: plain 0.0 fused 2.0e-02" and alike: the largest difference to the step
# with a gradient in the parameter's own format.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import torch


def weight_after_step(kind, fused, memory_format):
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    optimizer = kind(layer.parameters(), lr=0.1, fused=fused, foreach=False)
    layer(torch.randn(2, 3, 8, 8)).square().mean().backward()
    layer.weight.grad = layer.weight.grad.contiguous(memory_format=memory_format)
    optimizer.step()
    return layer.weight.detach()


for kind in (torch.optim.SGD, torch.optim.Adagrad, torch.optim.AdamW):
    differences = []
    for fused in (False, True):
        own = weight_after_step(kind, fused, torch.channels_last)
        other = weight_after_step(kind, fused, torch.contiguous_format)
        differences.append((own - other).abs().max().item())
    plain, fused = differences
    print(f"{kind.__name__}: plain {plain} fused {fused:.1e}")
    assert plain == 0.0
    assert fused > 0.01, "the formats are told apart now"
PYTHON
