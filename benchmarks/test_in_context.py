"""The looped transformer against the attention that it is equal to, evaluated as the field's code does.

One process, one thread, equal tensors; before each timed call of ours stands one of the peer. That is
how github.com/chengxiang/LinearTransformer (arXiv 2306.00297) does it: scores by one einsum, then scores,
mask and keys by another. The claim is the median of the paired ratios: at least 100.
"""

import statistics
import subprocess
import sys
import time

import numpy as np
import torch

from surefoot.in_context import GaussianPrompts, LoopedTransformer

ROUNDS = 9


def seconds(call):
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def einsum_attention(Z, Q, P, mask):
    """The peer's layer: Z is (batch, n + 1, d + 1)."""
    scores = torch.einsum("BNi, ij, BMj -> BNM", (Z, Q, Z))
    keys = torch.einsum("ij, BNj -> BNi", (P, Z))
    return torch.einsum("BNM, ML, BLi -> BNi", (scores, mask, keys)) / (len(mask) - 1)


def peer(A, p, loops):
    d, n = len(A), p.X.shape[-1]
    Q, P = torch.zeros(d + 1, d + 1, dtype=A.dtype), torch.zeros(d + 1, d + 1, dtype=A.dtype)
    # Its key is the second factor, so that our A comes in transposed; it adds where we subtract.
    Q[:d, :d], P[d, d] = -A.mT, 1
    mask = torch.eye(n + 1, dtype=A.dtype)
    mask[n, n] = 0
    Z = torch.zeros(len(p.y), n + 1, d + 1, dtype=A.dtype)
    Z[:, :n, :d], Z[:, n, :d], Z[:, :n, d] = p.X.mT, p.xq, p.y
    for _ in range(loops):
        Z = Z + einsum_attention(Z, Q, P, mask)
    return -Z[:, n, d]


def model_of(d, loops):
    model = LoopedTransformer(d, loops, dtype=torch.float64, init_std=0.1).requires_grad_(False)
    model.A += 0.5 * torch.eye(d, dtype=torch.float64)
    return model


def test_against_einsum_attention(benchmark):
    torch.set_num_threads(1)
    d, n, loops, batch = 10, 200, 5, 256
    model, p = model_of(d, loops), GaussianPrompts(d, n, seed=0).sample(batch)
    peers = []

    def before():
        peers.append(seconds(lambda: peer(model.A, p, loops)))

    benchmark.pedantic(lambda: model(p.X, p.y, p.xq), setup=before, rounds=ROUNDS, warmup_rounds=2)
    mine, theirs = benchmark.stats.stats.data, peers[-ROUNDS:]
    ratio = statistics.median(b / a for a, b in zip(mine, theirs, strict=True))
    apart = float((model(p.X, p.y, p.xq) - peer(model.A, p, loops)).abs().max())
    benchmark.extra_info.update(ratio=ratio, peer_ms=statistics.median(theirs) * 1e3, apart=apart)
    print(
        f"\nbatch {batch}, d {d}, n {n}, {loops} loops: einsum attention "
        f"{statistics.median(theirs) * 1e3:.1f} ms, ours {statistics.median(mine) * 1e3:.2f} ms, "
        f"ratio {ratio:.0f} (required >= 100, aim 291); largest difference {apart:.1e}"
    )
    assert apart < 1e-11
    assert ratio >= 100


def exponent(sizes, calls):
    """The slope of log time over log size, of medians taken in turn."""
    times = [[] for _ in sizes]
    for round_ in range(ROUNDS + 2):
        for call, measured in zip(calls, times, strict=True):
            spent = seconds(call)
            if round_ >= 2:
                measured.append(spent)
    ms = [statistics.median(t) * 1e3 for t in times]
    return ms, float(np.polyfit(np.log(sizes), np.log(ms), 1)[0])


def test_cost_is_linear_in_prompts_and_loops():
    """In loops beyond the second moments, which are made once: the same prompts, many loops."""
    torch.set_num_threads(1)
    prompts = (512, 1024, 2048, 4096)
    model = model_of(16, 8)
    whole = GaussianPrompts(16, 64, seed=0).sample(max(prompts))
    parts = [[v[:b].contiguous() for v in (whole.X, whole.y, whole.xq)] for b in prompts]
    ms, slope = exponent(prompts, [lambda part=part: model(*part) for part in parts])
    print(f"\nprompts {prompts}: {', '.join(f'{t:.2f}' for t in ms)} ms, exponent {slope:.3f}")
    loops = (128, 256, 512, 1024)
    again = model_of(16, 1)
    ms_loops, in_loops = exponent(loops, [lambda t=t: again(*parts[0], loops=t) for t in loops])
    print(f"loops {loops}: {', '.join(f'{t:.2f}' for t in ms_loops)} ms, exponent {in_loops:.3f}")
    assert abs(slope - 1) <= 0.15
    assert abs(in_loops - 1) <= 0.15


SCALE = """
import resource, time, torch
from surefoot.in_context import GaussianPrompts, LoopedTransformer
torch.set_num_threads(1)
model = LoopedTransformer(32, 10, dtype=torch.float64, init_std=0.01).requires_grad_(False)
p = GaussianPrompts(32, 256, seed=0).sample(4096)
model(p.X[:8], p.y[:8], p.xq[:8])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
started = time.perf_counter()
model(p.X, p.y, p.xq)
spent = time.perf_counter() - started
print(spent, before / 2**20, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


def test_four_thousand_prompts_of_32_features():
    done = subprocess.run([sys.executable, "-c", SCALE], capture_output=True, text=True, check=True)
    spent, before, peak = map(float, done.stdout.split())
    print(
        f"\n4,096 prompts, d 32, n 256, 10 loops: {spent:.2f} s (required < 2), peak of the whole process "
        f"{peak:.2f} GiB (required < 1), {before:.2f} GiB of it before the call, prompts included"
    )
    assert spent < 2
    assert peak < 1
