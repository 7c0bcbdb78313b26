"""What a restart costs: in place against building the PeftModel anew, and as a share of training.

Thread CPU time, both interleaved in one process, medians: the machine may be busy.
"""

import statistics
import time
import warnings

import pytest
import torch
from torch import nn

from surefoot.lora import ChainOfLora, RacConfig

peft = pytest.importorskip("peft", reason="needs the llm extra")

LAYERS, ROUNDS = 6, 31
torch.set_num_threads(1)


class Stack(nn.Module):
    def __init__(self, width, layers=LAYERS):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))

    def forward(self, x):
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return x


def targets(layers=LAYERS):
    return [f"layers.{i}" for i in range(layers)]


def cpu(call):
    started = time.thread_time()
    call()
    return time.thread_time() - started


def restart_and_rebuild(width=256, r=4, rounds=ROUNDS):
    """Median seconds of a restart in place and of merge_and_unload + get_peft_model."""
    torch.manual_seed(0)
    config = peft.LoraConfig(r=r, target_modules=targets())
    chain = ChainOfLora(
        peft.get_peft_model(Stack(width), config), RacConfig(keep_history="seeds", blocks=rounds)
    )
    optimizer = torch.optim.AdamW(chain.trainable_parameters(), lr=1e-3)
    chain.attach(optimizer)
    other = peft.get_peft_model(Stack(width), config)

    def rebuild():
        nonlocal other
        other = peft.get_peft_model(other.merge_and_unload(), config)
        torch.optim.AdamW([p for p in other.parameters() if p.requires_grad], lr=1e-3)

    ours, theirs = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for i in range(rounds + 3):
            for layer in chain.layers:
                layer.parameter("B").data.normal_(std=1e-3)
            a, b = cpu(lambda: chain.end_block(optimizer)), cpu(rebuild)
            if i >= 3:  # the first ones fill caches
                ours.append(a)
                theirs.append(b)
    return statistics.median(ours), statistics.median(theirs)


def share_of_training(rows, width=512, r=8, steps=20, rounds=7):
    """Seconds of a restart, and of one training step, at so many rows a step."""
    torch.manual_seed(0)
    config = peft.LoraConfig(r=r, target_modules=targets())
    chain = ChainOfLora(
        peft.get_peft_model(Stack(width), config),
        RacConfig(keep_history="seeds", blocks=rounds, steps_per_block="epoch"),
    )
    optimizer = torch.optim.AdamW(chain.trainable_parameters(), lr=1e-3)
    x = torch.randn(rows, width)

    def step():
        chain.model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        chain.step(optimizer)

    step()
    restarts, training = [], []
    for _ in range(rounds):
        training.append(cpu(step))
        training.append(cpu(step))
        restarts.append(cpu(lambda: chain.end_block(optimizer)))
    return statistics.median(restarts), statistics.median(training) * steps


def test_restart(capsys):
    ours, theirs = restart_and_rebuild()
    with capsys.disabled():
        print(f"\nrestart in place {1e3 * ours:.2f} ms, rebuild {1e3 * theirs:.2f} ms")
        print(f"  rebuild / in place {theirs / ours:.1f} (bar 3)")


@pytest.mark.parametrize("rows", [32, 1024])
def test_share_of_training(rows, capsys):
    restart, training = share_of_training(rows)
    with capsys.disabled():
        print(f"\n{rows} rows: restart {1e3 * restart:.2f} ms, 20 steps {1e3 * training:.0f} ms")
        print(f"  share {100 * restart / training:.2f} % (bar 5 % at 1024 rows)")
