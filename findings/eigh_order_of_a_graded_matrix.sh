#!/usr/bin/env bash
# NumPy 2.4.6 (OpenBLAS) and torch 2.13.0 (MKL), CPU: the small eigenvalues of a graded covariance, d by d with variances from 1
# down to 1e-12, are right to some 13 digits by eigh and eigvalsh where the large variances come first, and to 3 to 7 digits where the
# same rows and columns are turned round. Channels sorted by falling variance, or the rows of a Gram matrix by falling norm, keep
# their digits; nothing else about the matrix differs, and nothing is said.
# One would guess that a permutation of rows and columns changes eigenvalues by their last digits only.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --no-compile torch==2.13.0 numpy==2.4.6 mpmath==1.3.0
cd "$place"
"$place/venv/bin/python" -W ignore - <<'PY'
import mpmath
import numpy as np
import torch

mpmath.mp.dps = 60
routines = {
    "numpy eigh": lambda a: np.linalg.eigh(a)[0],
    "numpy eigvalsh": np.linalg.eigvalsh,
    "torch eigh": lambda a: torch.linalg.eigh(torch.from_numpy(a))[0].numpy(),
    "torch eigvalsh": lambda a: torch.linalg.eigvalsh(torch.from_numpy(a)).numpy(),
}
random = np.random.default_rng(0)
for d in (6, 12, 22):
    samples = random.standard_normal((d, 4 * d))
    scale = np.geomspace(1, 1e-6, d)
    falling = scale[:, None] * (samples @ samples.T / (4 * d)) * scale
    rising = falling[::-1, ::-1].copy()
    exact = np.array([float(e) for e in mpmath.eigsy(mpmath.matrix(falling.tolist()), eigvals_only=True)])
    exact.sort()
    for name, eigenvalues in routines.items():
        first, last = (float(np.max(np.abs(eigenvalues(a) - exact) / exact)) for a in (falling, rising))
        print(f"d={d:2} {name:14} worst relative error: large first {first:.0e}, large last {last:.0e}")
        assert first < 1e-12 and last > 1e-8, "changed"
PY
