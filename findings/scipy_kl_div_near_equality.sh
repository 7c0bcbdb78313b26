#!/usr/bin/env bash
# SciPy 1.17.1, scipy.special.kl_div(x, y) = x log(x/y) - x + y: for y = x (1 + 1e-6) the result is right to four digits
# only, for y = x (1 + 1e-7) to less than two, as three numbers near 1 cancel.
# One would guess a function made for this expression to be accurate near its minimum, where deviances and tail
# bounds need it.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --no-compile scipy==1.17.1 numpy==2.3.5 mpmath==1.3.0
"$place/venv/bin/python" - <<'PY'
from mpmath import log, mp, mpf
from scipy.special import kl_div

mp.dps = 50
seen = {}
for d in (1e-3, 1e-6, 1e-7):
    x, y = 1.0, 1.0 + d
    exact = mpf(x) * log(mpf(x) / mpf(y)) - mpf(x) + mpf(y)
    seen[d] = float(abs(mpf(float(kl_div(x, y))) / exact - 1))
print("relative error at y = x (1 + d):", seen)
assert seen[1e-3] < 1e-9 and seen[1e-6] > 1e-5 and seen[1e-7] > 1e-4, "changed"
PY
