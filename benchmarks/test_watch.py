"""Watching a loop that only logs its loss costs under 2 % of its steps.

One process, one model: plain and watched rounds alternate, so that both see the same machine and the
same memory. The claim is the median ratio of neighbouring rounds; the cost is a few microseconds a
step, whatever the model, so steps much shorter than these pay more in proportion.
"""

import statistics
import time

import pytest
import torch
from torch import nn

from surefoot import watch

ROUNDS, STEPS = 100, 50


@pytest.mark.parametrize("width", [256, 512])
def test_logging_the_loss(width):
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 64, generator=generator)
    y = torch.randint(10, (64,), generator=generator)
    model = nn.Sequential(
        nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    seconds = {False: [], True: []}
    for round_ in range(2 * ROUNDS):
        watched = round_ % 2 == 1
        w = watch(model, optimizer, every=50) if watched else None
        started = time.perf_counter()
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            if w is not None:
                w.log(loss=loss)
            optimizer.step()
        seconds[watched].append(time.perf_counter() - started)
        if w is not None:
            w.close()
            assert w.record["loss"].shape == (1, STEPS)
    plain, with_watch = (statistics.median(s) / STEPS * 1e6 for s in seconds.values())
    # Neighbouring rounds see the same machine: the median of their ratios is what the watch costs.
    ratio = statistics.median(w / p for p, w in zip(*seconds.values(), strict=True))
    print(
        f"\nwatch, width {width}: {plain:.1f} us/step plain, {with_watch:.1f} us/step watched, "
        f"ratio {ratio:.4f} (required <= 1.02)"
    )
    assert ratio <= 1.02
