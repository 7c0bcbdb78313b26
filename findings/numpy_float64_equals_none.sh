#!/usr/bin/env bash
# NumPy 2.4.6, pandas 3.1.1: np.dtype("float64") == None is True, from either side, as None stands for the default dtype wherever NumPy
# reads one; their hashes differ, so that a list that holds None holds float64 too and a set does not. A pandas table has no dtype
# of its own: getattr(table, "dtype", None) == np.dtype("float64") is therefore True for a table of float32, and for lists and None.
# One would guess that a missing dtype equals no dtype, and that what is equal has one hash.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --no-compile numpy==2.4.6 pandas==3.1.1
cd "$place"
"$place/venv/bin/python" -W error - <<'PY'
import numpy as np
import pandas as pd

double, single = np.dtype("float64"), np.dtype("float32")
table = pd.DataFrame(np.zeros((2, 3), np.float32))
seen = {
    "dtype(float64) == None": double == None,
    "None == dtype(float64)": None == double,
    "dtype(float32) == None": single == None,
    "dtype(float64) in [None]": double in [None],
    "dtype(float64) in {None}": double in {None},
    "dtype of a float32 table, or None, == dtype(float64)": getattr(table, "dtype", None) == double,
    "the same of its values": table.to_numpy().dtype == double,
}
for said, value in seen.items():
    print(f"{said}: {value}")
assert list(seen.values()) == [True, True, False, True, False, True, False], "changed"
PY
