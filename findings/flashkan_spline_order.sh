#!/usr/bin/env bash
# flashkan 0.2.0: every spline_order but 3 is accepted and evaluates something else than B-splines of that order. With constant
# coefficients a spline is constant on its grid (its bases sum to 1); of order 2 and 4 it is not. At order 3 and the default
# grid_size 5 the sum is right to 1e-4, and grows wrong with the grid: in float32 by more than 1 at grid_size 200.
# One would guess an error for an order that is not supported, and that a finer grid is more exact.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --no-compile torch==2.13.0 numpy==2.3.5 flashkan==0.2.0
cd "$place"
"$place/venv/bin/python" -W ignore - <<'PY'
import torch
from flashkan import KANLayer

torch.manual_seed(0)
x = (torch.rand(500, 1) * 1.9 - 0.95)


def off(order, grid):
    """How far a spline with all coefficients 1 is from 1 inside the grid."""
    layer = KANLayer(1, 1, grid_size=grid, spline_order=order)
    with torch.no_grad():
        for name, p in layer.named_parameters():
            p.fill_(0.0 if "base" in name else 1.0)
        return (layer(x) - 1).abs().max().item()


layer = KANLayer(1, 1)
print("parameters:", {n: tuple(p.shape) for n, p in layer.named_parameters()})
seen = {(k, g): off(k, g) for k, g in ((3, 5), (2, 5), (4, 5), (3, 50), (3, 200))}
for (k, g), error in seen.items():
    print(f"spline_order {k}, grid_size {g}: off by {error:.1e}")
assert seen[3, 5] < 1e-3, "changed"
assert seen[2, 5] > 0.05 and seen[4, 5] > 0.05, "changed"
assert seen[3, 200] > 0.1, "changed"
PY
