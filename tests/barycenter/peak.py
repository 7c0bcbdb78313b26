"""Peak memory of a call, in a process of its own."""

import os
import subprocess
import sys

import pytest

CODE = """
import sys, numpy as np, torch
{imports}

def of(name):
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * next(int(l.split()[1]) for l in lines if l.startswith(name))

def call(covs):
    return {call}

torch.set_num_threads(1)
n, d = {n}, {d}
rng = np.random.default_rng(0)
covs = np.empty((n, d, d))
for i in range(n):
    Q = np.linalg.qr(rng.standard_normal((d, d)))[0]
    A = (Q * rng.uniform(0.1, 1, d)) @ Q.T
    covs[i] = (A + A.T) / 2
covs[:, 0, 1] *= 1 + {asymmetry}
call(covs[:4])
open("/proc/self/clear_refs", "w").write("5")
before = of("VmRSS")
call(covs)
print((of("VmHWM") - before) / covs.nbytes)
"""
OURS = "from surefoot.barycenter import suot_barycenter"


def peak_buffers(call, n, d, asymmetry=0.0, imports=OURS):
    """Peak of resident memory over what was there before, in sizes of the inputs, which do not count."""
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("the peak of a process can be reset on Linux only")
    code = CODE.format(call=call, n=n, d=d, asymmetry=asymmetry, imports=imports)
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return float(done.stdout)
