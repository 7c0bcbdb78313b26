#!/usr/bin/env bash
# pykan 0.2.8, MultKAN: the list given as `width` is rewritten in place, each number n becoming [n, 0], and building a model
# seeds the global generators of torch, NumPy and Python's random (with seed=1 unless told otherwise).
# One would guess that a constructor leaves its arguments and the caller's random numbers alone: two networks that are built one
# after the other start alike, and whatever the caller draws afterwards is the same in every run that he thought was another.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --no-compile torch==2.13.0 numpy==2.3.5 pykan==0.2.8 matplotlib==3.10.7 sympy==1.14.0 \
  scikit-learn==1.7.2 tqdm==4.67.1 pyyaml==6.0.3 pandas==2.3.3
cd "$place"
"$place/venv/bin/python" -W ignore - <<'PY'
import torch
from kan import MultKAN

width, drawn = [2, 3, 1], []
for seed in (10, 11):
    torch.manual_seed(seed)
    MultKAN(width=list(width), grid=3, k=3, auto_save=False)
    drawn.append(torch.rand(1).item())
MultKAN(width=width, grid=3, k=3, auto_save=False)
print("width afterwards:", width)
print("drawn after manual_seed(10) and a model, manual_seed(11) and a model:", drawn)
assert width == [[2, 0], [3, 0], [1, 0]], "changed"
assert drawn[0] == drawn[1], "changed"
PY
