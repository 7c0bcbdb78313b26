"""What a zeroth-order step costs beyond its two forwards: LOZO against MeZO, 92 M parameters, one process.

Thread CPU time, all methods interleaved, medians: the machine may be busy. The peers are written as their
authors publish them, on the same model and batch.
"""

import copy
import functools
import statistics
import subprocess
import sys
import time

import pytest
import torch

from surefoot.zeroth_order import LOZO, MeZO

transformers = pytest.importorskip("transformers", reason="needs the llm extra")

ROUNDS = 11


def bert(hidden=768, layers=12, vocab=8000):
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=vocab, hidden_size=hidden, num_hidden_layers=layers,
        num_attention_heads=hidden // 64, intermediate_size=4 * hidden, max_position_embeddings=64,
    )  # fmt: skip
    return transformers.BertModel(config, add_pooling_layer=False).eval()


def closure_of(model):
    ids = torch.randint(0, 8000, (8, 32), generator=torch.Generator().manual_seed(1))
    return lambda: model(input_ids=ids).last_hidden_state.square().mean()


def cpu(call):
    started = time.thread_time()
    call()
    return time.thread_time() - started


def mezo_as_published(model, closure, eps=1e-3, lr=0.0):
    """princeton-nlp/MeZO's step: four Gaussian passes, new storage at each."""

    def perturb(scale):
        torch.manual_seed(7)
        for p in model.parameters():
            z = torch.normal(mean=0, std=1, size=p.data.size(), dtype=p.dtype)
            p.data = p.data + scale * z * eps

    with torch.no_grad():
        perturb(1)
        plus = closure()
        perturb(-2)
        minus = closure()
        perturb(1)
        g = float(plus - minus) / (2 * eps)
        torch.manual_seed(7)
        for p in model.parameters():
            z = torch.normal(mean=0, std=1, size=p.data.size(), dtype=p.dtype)
            p.data = p.data - lr * (g * z)


def overheads(
    hidden=768, layers=12, rounds=ROUNDS, which=("factored", "inplace", "mezo", "published")
):
    model = bert(hidden, layers)
    closure = closure_of(model)
    # Plain forwards are those of a model without hooks.
    untouched = closure_of(copy.deepcopy(model))

    def plain():
        return untouched(), untouched()

    optimizers = {
        "factored": lambda: LOZO(model, 0.0, rank=2, nu=50, self_check=False),
        "inplace": lambda: LOZO(model, 0.0, rank=2, nu=50, mode="inplace"),
        "mezo": lambda: MeZO(model, 0.0),
    }
    found = {name: [] for name in which}
    forwards = []
    with torch.no_grad():
        for name in which:
            if name == "published":
                run = functools.partial(mezo_as_published, model, closure)
            else:
                optimizer = optimizers[name]()
                optimizer.step(closure)
                run = functools.partial(optimizer.step, closure)
            for _ in range(rounds):
                two = cpu(plain)
                whole = cpu(run)
                forwards.append(two)
                found[name].append(whole - two)
            if name == "factored":
                found["fold"] = [cpu(optimizer.flush)]
                for tensor in optimizer.tensors:
                    tensor.unhook()
    size = sum(p.numel() for p in model.parameters())
    two = statistics.median(forwards)
    medians = {k: statistics.median(v) for k, v in found.items()}
    if "fold" in medians:
        medians["factored"] += medians.pop("fold") / 50
    return size, two, medians


def test_overhead(capsys):
    size, two, found = overheads()
    with capsys.disabled():
        print(f"\n{size / 1e6:.1f} M parameters, two forwards {two:.3f} s CPU")
        for name, seconds in found.items():
            print(f"  {name:10} {seconds:.4f} s  {100 * seconds / two:.1f} % of two forwards")
    assert found["factored"] <= 0.08 * two
    assert found["factored"] <= found["mezo"] / 10
    assert found["inplace"] <= found["mezo"] / 4


def test_cost_grows_with_the_width_and_not_with_its_square(capsys):
    narrow, wide = (overheads(h, 4, 15, ("factored",))[2]["factored"] for h in (512, 1024))
    with capsys.disabled():
        print(f"\ndoubling the width: {wide / narrow:.2f} times the overhead")
    assert wide / narrow <= 2.6


MEMORY = r"""
import ctypes, re, sys, torch
from pathlib import Path
sys.path.insert(0, "benchmarks")
from test_zeroth_order import bert, closure_of
from surefoot.zeroth_order import LOZO, MeZO
torch.set_num_threads(1)
model = bert()
closure = closure_of(model)
def read(what):
    return int(re.search(what + r":\s+(\d+)", Path("/proc/self/status").read_text()).group(1)) / 1024
def restart():
    # What building the model left behind is given back, and the peak is counted from here.
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return read("VmRSS")
loaded = restart()
with torch.no_grad():
    for _ in range(3):
        closure()
forward = read("VmHWM")
restart()
# With seed 20 the check of the first step falls on the embedding, the largest tensor.
make = {
    "lozo": lambda: LOZO(model, 1e-6, seed=20),
    "lozo-m": lambda: LOZO(model, 1e-6, momentum=0.9, seed=20),
    "inplace": lambda: LOZO(model, 1e-6, mode="inplace"),
    "mezo": lambda: MeZO(model, 1e-6),
    "mezo-m": lambda: MeZO(model, 1e-6, momentum=0.9),
}[sys.argv[1]]
optimizer = make()
for _ in range(3):
    optimizer.step(closure)
optimizer.flush()
print(forward - loaded, read('VmHWM') - loaded)
"""


def test_memory(capsys):
    found = {}
    for name in ("lozo", "lozo-m", "inplace", "mezo", "mezo-m"):
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, name], capture_output=True, text=True, check=True
        )
        found[name] = tuple(map(float, done.stdout.split()))
    with capsys.disabled():
        for name, (forward, whole) in found.items():
            print(
                f"\n  {name:8} peak above the loaded model {whole:.0f} MB (forward alone {forward:.0f})"
            )
    forward, whole = found["lozo"]
    assert whole <= forward + 16
    assert found["mezo-m"][1] >= found["mezo"][1] + 4 * 90


@pytest.mark.xfail(
    reason="a bar not reached: LOZO gains 2 points on zero-shot, AdamW 4.4, on these snippets",
    strict=True,
)
def test_lozo_gains_three_points_on_the_zero_shot_prompt(capsys):
    """Test accuracy on movie snippets after 9,000 steps, rate and stopping point by validation, 3 seeds."""
    from surefoot.zeroth_order.experiments import sentences

    data = sentences.snippets()
    zero_shot = sentences.evaluate(sentences.Adapter(data.head), data, "test")[1]
    found = []
    for seed in range(3):
        tried = {
            lr: sentences.evaluate(sentences.train("LOZO", lr, seed, 2000, data)[0], data, "val")[0]
            for lr in sentences.GRID
        }
        best = min(tried, key=lambda lr: tried[lr] if tried[lr] == tried[lr] else float("inf"))
        model, _ = sentences.train("LOZO", best, seed, 18_000, data)
        found.append(sentences.evaluate(model, data, "test")[1])
    with capsys.disabled():
        print(f"\nzero-shot {zero_shot:.3f}, LOZO {[round(a, 3) for a in found]}: required +.030")
    assert statistics.mean(found) >= zero_shot + 0.03
