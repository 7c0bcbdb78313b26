#!/usr/bin/env bash
# safetensors 0.8.0, save_file: the file it leaves can be read by its owner alone (mode 0600), whatever the umask says
# and also where it replaces a file of mode 0664.
# One would guess the mode that open() or numpy.save gives: 0644 under the usual umask of 022. A model that one account
# saves is then unreadable to the service that is to load it.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --no-compile safetensors==0.8.0 numpy==2.3.5
umask 022
cd "$place"
"$place/venv/bin/python" - <<'PY'
import os
import stat

import numpy as np
from safetensors.numpy import save_file


def mode(path):
    return oct(stat.S_IMODE(os.stat(path).st_mode))


np.save("plain.npy", np.zeros(2))
save_file({"a": np.zeros(2)}, "new.safetensors")
open("old.safetensors", "w").close()
os.chmod("old.safetensors", 0o664)
save_file({"a": np.zeros(2)}, "old.safetensors")
seen = {name: mode(name) for name in ("plain.npy", "new.safetensors", "old.safetensors")}
print("mode after writing, umask 022:", seen)
assert seen == {"plain.npy": "0o644", "new.safetensors": "0o600", "old.safetensors": "0o600"}, "changed"
PY
