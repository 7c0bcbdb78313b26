"""Spline layers beside this year's packages: the shapes of 5.1, one process a shape.

A step is forward and backward; CPU time of the thread, one thread, interleaved, least of all rounds. inkan,
flashkan, KANditioned and pykan come from the `bench` extra, efficient-kan's and FastKAN's formulas are
written down in `kan_row`; inkan and flashkan also run as whole models under torch.compile. KANditioned is
linear interpolation, not cubic. SUREFOOT_BENCH=small: one small shape, no compilation.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from surefoot.kan import KANLinear

SMALL = os.environ.get("SUREFOOT_BENCH") == "small"
ROWS = {
    "64-64-10": (5, 1000),
    "2-128-1": (5, 2000),
    "64-64-10, fine": (50, 1000),
    "784-64-10": (5, 256),
    "256-256": (5, 128),
    "32-128-4": (8, 500),
    "16-16-16-1": (30, 4000),
    "64-64-10, few rows": (5, 16),
}
if SMALL:
    ROWS = {"8-8-2": (5, 64)}
SPLINES = (
    "inkan",
    "flashkan",
    "inkan, compiled",
    "flashkan, compiled",
    "FastKAN",
    "efficient",
    "pykan",
)


def row(widths, grid, batch):
    rounds = 3 if SMALL else max(10, min(60, 60000 // batch))
    script = str(Path(__file__).with_name("kan_row.py"))
    command = [sys.executable, script, widths, *map(str, (grid, batch, rounds))]
    done = subprocess.run(
        command + ["--quick"] * SMALL,
        capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", ROWS)
def test_a_step_is_ahead_of_every_peer(name, capsys):
    grid, batch = ROWS[name]
    found = row(name.split(",")[0], grid, batch)
    with capsys.disabled():
        print(
            f"\n{name}, G = {grid}, batch {batch}; missing: {found['missing']}, failed: {found['failed']}"
        )
        for kind in ("step", "forward"):
            ms = found["ms"][kind]
            told = (
                f"{other} {ms[other] / ms['surefoot']:.2f}" for other in ms if other != "surefoot"
            )
            print(f"  {kind} {ms['surefoot']:.3f} ms; of others over ours: {', '.join(told)}")
    ms = found["ms"]["step"]
    assert min(ms[n] for n in SPLINES if n in ms) > ms["surefoot"]
    assert ms["surefoot, torch"] < ms["efficient"] * (1.5 if batch < 100 else 1)


def cpu(call, rounds=20):
    least = float("inf")
    for _ in range(rounds):
        start = time.thread_time()
        call()
        least = min(least, time.thread_time() - start)
    return least


def step_of(layer, x):
    def step():
        layer.weight.grad = x.grad = None
        layer(x).sum().backward()

    return step


def test_the_grid_costs_little_and_rows_cost_the_same(capsys):
    torch.set_num_threads(1)
    x = (torch.rand(1024, 64) * 1.9 - 0.95).requires_grad_()
    coarse, fine = KANLinear(64, 64), KANLinear(64, 64, grid_size=50)
    steps = step_of(coarse, x), step_of(fine, x)
    times = [cpu(step) for step in steps]
    many = 2048 if SMALL else 16384
    large = (torch.rand(many, 64) * 1.9 - 0.95).requires_grad_()
    few = large[:256].detach().clone().requires_grad_()
    a_row = {n: cpu(step_of(coarse, z)) / n for n, z in ((256, few), (1024, x), (many, large))}
    with capsys.disabled():
        print(f"\nG 50 over G 5: {times[1] / times[0]:.2f}")
        print("us a row: " + ", ".join(f"{n}: {1e6 * s:.2f}" for n, s in a_row.items()))
    if not SMALL:
        assert times[1] <= 1.6 * times[0]
        assert a_row[many] <= 1.1 * a_row[1024]
        assert a_row[256] <= 1.5 * a_row[many]


def test_memory_of_a_step(capsys):
    """Saved tensors, parameters and buffers not counted, in sizes of x; an MLP's layer beside it."""
    x = (torch.rand(4096, 128) * 1.9 - 0.95).requires_grad_()

    def saved(module):
        own = {p.untyped_storage().data_ptr() for p in module.parameters()}
        own |= {b.untyped_storage().data_ptr() for b in module.buffers()}
        found = {}

        def pack(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                found[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            module(x)
        return sum(found.values()) / (4 * x.numel())

    ours = saved(KANLinear(128, 128))
    mlp = saved(torch.nn.Sequential(torch.nn.Linear(128, 128), torch.nn.SiLU()))
    with capsys.disabled():
        print(f"\nsaved, in sizes of x: ours {ours:.2f}, an MLP's layer {mlp:.2f}")
    assert ours <= 1.05


def test_two_threads_cost_no_more_than_one(capsys):
    """CPU time of the whole process: rows spread over threads are the same work and one sum more.

    Nothing of torch's own runs in parallel beside it: its threads spin while they wait.
    """
    x = (torch.rand(1024 if SMALL else 8192, 64) * 1.9 - 0.95).requires_grad_()
    layer, least = KANLinear(64, 64), {1: float("inf"), 2: float("inf")}
    ones = torch.ones(len(x), 64)
    before = torch.get_num_threads()
    for _ in range(3 if SMALL else 15):
        for threads in least:
            torch.set_num_threads(threads)
            start = time.process_time()
            torch.autograd.grad(layer(x), (x, layer.weight), ones)
            least[threads] = min(least[threads], time.process_time() - start)
    torch.set_num_threads(before)
    with capsys.disabled():
        print(f"\nCPU time of two threads over one: {least[2] / least[1]:.3f}")
    if not SMALL:
        assert least[2] <= 1.1 * least[1]
