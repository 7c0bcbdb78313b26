#!/usr/bin/env bash
# torch 2.13.0, CPU: optimizers with fused=True read a gradient in the order of its memory, whatever its strides say.
# A gradient that was assigned by hand and lies crosswise in memory (a transposed one, a slice of another layout) moves
# the wrong entries; nothing is raised and nothing is warned of. The loops with foreach=True and without are right.
# backward() itself lays gradients out as the parameter lies.
# One would guess the same step from every implementation, or an error where layouts differ.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --no-compile torch==2.13.0 numpy==2.3.5
cd "$place"
"$place/venv/bin/python" -W ignore - <<'PY'
import torch

first = torch.arange(12.0).reshape(3, 4)
second = -first.flip(0)


def two_steps(kind, crosswise, **how):
    parameter = torch.nn.Parameter(torch.zeros(3, 4))
    optimizer = kind([parameter], lr=1.0, **how)
    for gradient in (first, second):
        # The same numbers at the same places, by columns in memory.
        parameter.grad = gradient.t().contiguous().t() if crosswise else gradient.clone()
        optimizer.step()
    return parameter.detach()


found = {}
for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad):
    for name, how in {"loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}.items():
        gap = two_steps(kind, False, **how) - two_steps(kind, True, **how)
        found[kind.__name__, name] = float(gap.abs().max())
        print(f"{kind.__name__:8} {name:8} off by {found[kind.__name__, name]:.3g}")
for (kind, name), gap in found.items():
    assert (gap > 0.1) == (name == "fused"), (kind, name, gap, "changed")
PY
