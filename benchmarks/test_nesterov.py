"""AGNES against torch.optim.SGD(nesterov=True): time a step, and memory.

One process, one thread, the same tensors; the two optimizers alternate step by step, so that both see
the same machine. The claim is the ratio of the medians: at most 1.10 (goal 1.00) in the same mode.
"""

import statistics
import time

import numpy as np
import pytest
import torch

from surefoot.nesterov import AGNES

SHAPES = {
    "800 small tensors, 1.66 M parameters": [(45, 46)] * 800,
    "ten 1024 x 1024": [(1024, 1024)] * 10,
}
ROUNDS = 60


def with_gradients(shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    params = [torch.randn(s, generator=generator).requires_grad_() for s in shapes]
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator)
    return params


def alternate(optimizers, rounds=ROUNDS):
    """Median milliseconds of a step of each optimizer."""
    seconds = [[] for _ in optimizers]
    for round_ in range(rounds + 5):
        for i, optimizer in enumerate(optimizers):
            started = time.perf_counter()
            optimizer.step()
            if round_ >= 5:
                seconds[i].append(time.perf_counter() - started)
    return [statistics.median(s) * 1e3 for s in seconds]


def buffers(optimizer):
    return sum(
        t.numel() * t.element_size()
        for state in optimizer.state.values()
        for t in state.values()
        if isinstance(t, torch.Tensor)
    )


@pytest.mark.parametrize("mode", ["foreach", "fused"])
@pytest.mark.parametrize("name", SHAPES)
def test_step_time(name, mode):
    torch.set_num_threads(1)
    flags = {"foreach": mode == "foreach", "fused": mode == "fused"}
    sgd = torch.optim.SGD(
        with_gradients(SHAPES[name]), lr=1e-3, momentum=0.9, nesterov=True, **flags
    )
    ours = AGNES(with_gradients(SHAPES[name]), lr=5e-4, correction=1e-3, momentum=0.9, **flags)
    theirs_ms, ours_ms = alternate([sgd, ours])
    print(
        f"\n{mode}, {name}: SGD {theirs_ms:.3f} ms, AGNES {ours_ms:.3f} ms, "
        f"ratio {ours_ms / theirs_ms:.3f} (required <= 1.10); buffers "
        f"{buffers(ours) / 1e6:.2f} MB against {buffers(sgd) / 1e6:.2f} MB"
    )
    assert buffers(ours) == buffers(sgd)
    assert ours_ms / theirs_ms <= 1.10


@pytest.fixture(scope="module")
def slopes():
    torch.set_num_threads(1)
    sizes = [10**5, 10**6, 10**7]
    found = {}
    for name, make in {
        "AGNES": lambda p: AGNES(p, fused=True),
        "SGD": lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9, nesterov=True, fused=True),
    }.items():
        times = [
            alternate([make(with_gradients([(size // 100, 100)]))], 40 if size == 10**7 else 200)[0]
            for size in sizes
        ]
        found[name] = np.polyfit(np.log10(sizes), np.log10(times), 1)[0]
        print(
            f"\n{name}, {sizes} parameters: {[f'{t:.3f} ms' for t in times]}, slope {found[name]:.3f}"
        )
    return found


def test_cost_grows_as_that_of_sgd(slopes):
    assert abs(slopes["AGNES"] - slopes["SGD"]) <= 0.05


@pytest.mark.xfail(
    strict=False,
    reason="100,000 parameters fit the cache and 10 million do not: one pass over memory measures "
    "1.12 to 1.15 here, as torch's own SGD does",
)
def test_cost_is_linear_in_the_parameters(slopes):
    assert abs(slopes["AGNES"] - 1) <= 0.1
