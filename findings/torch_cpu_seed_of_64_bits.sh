#!/usr/bin/env bash
# torch 2.13.0, CPU: manual_seed takes a seed of 64 bits, initial_seed gives all 64 back, and the numbers that are drawn follow from
# the lower 32 alone: s, s + 2^32 and s + 5 * 2^40 draw the same in randn, randint and randperm, in a generator of one's own as in the
# global one. Seeds that are hashes of 64 bits, or (run << 32) + worker, collide without a word; NumPy's generators use every bit.
# One would guess that seeds which differ, and are told apart by initial_seed, differ in what is drawn.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --no-compile torch==2.13.0 numpy==2.4.6
cd "$place"
"$place/venv/bin/python" - <<'PY'
import numpy as np
import torch

draws = {
    "randn": lambda g: torch.randn(1000, generator=g),
    "randint": lambda g: torch.randint(1 << 40, (1000,), generator=g),
    "randperm": lambda g: torch.randperm(1000, generator=g),
}
start = 12345
for name, draw in draws.items():
    first = draw(torch.Generator().manual_seed(start))
    for more in (1, 1 << 32, 5 << 40):
        generator = torch.Generator().manual_seed(start + more)
        assert generator.initial_seed() == start + more
        same = torch.equal(first, draw(generator))
        print(f"{name:8} seed {start} and {start} + {more}: {'the same numbers' if same else 'others'}")
        assert same == (more % (1 << 32) == 0), "changed"
torch.manual_seed(start)
one = torch.rand(1000)
torch.manual_seed(start + (1 << 32))
assert torch.equal(one, torch.rand(1000)), "changed"
a, b = (np.random.default_rng(start + more).random(1000) for more in (0, 1 << 32))
print("numpy.random.default_rng of the same two:", "the same numbers" if (a == b).all() else "others")
assert not (a == b).any(), "changed"
PY
