#!/usr/bin/env bash
# pyRiemann 0.12, mean_covariance(X, metric=..., sample_weight=...): the deprecated name hands on metric="riemann" and
# sample_weight=None whatever is given, so that metric="euclid" returns the Riemannian mean and weights count for nothing.
# One would guess a deprecated name to do what it did, with a warning; the warning says nothing of it. gmean does what it says.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --no-compile pyriemann==0.12
"$place/venv/bin/python" -W ignore - <<'PY'
import numpy as np
from pyriemann.geometry.mean import gmean, mean_covariance

X = np.array([np.diag([1.0, 4.0]), np.diag([9.0, 1.0])])
arithmetic = X.mean(0)
old, new = mean_covariance(X, metric="euclid"), gmean(X, metric="euclid")
print("euclid, mean_covariance:", np.diag(old), "gmean:", np.diag(new), "arithmetic:", np.diag(arithmetic))
assert np.allclose(new, arithmetic)
assert not np.allclose(old, arithmetic), "changed"
weighted = mean_covariance(X, metric="riemann", sample_weight=np.array([1.0, 0.0]))
assert np.allclose(weighted, mean_covariance(X, metric="riemann")), "changed"
assert np.allclose(gmean(X, metric="riemann", sample_weight=np.array([1.0, 0.0])), X[0])
PY
