"""What one step adds to the memory of a loaded model, private or not, each arm in a process of its own.

The whole MiniLM under a head, its embeddings frozen, on sequences of 24 tokens; at size quick a perceptron on
digits. The same batch for all. The peak is the kernel's own count, from after loading on; it needs Linux.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from surefoot.zeroth_order.experiments import memory
from surefoot.zeroth_order.experiments.private_task import LENGTH
from surefoot.zeroth_order.lozo import LOZO as Optimizer
from surefoot.zeroth_order.private import Privacy

LOZO, DP_LOZO, SGD = "LOZO", "DP-LOZO", "SGD"
DP_SGD, GHOST = "DP-SGD (Opacus)", "DP-SGD (Opacus, ghost clipping)"
ARMS = (LOZO, DP_LOZO, SGD, DP_SGD, GHOST)
NEEDS_OPACUS = (DP_SGD, GHOST)
BATCH, STEPS, WIDTH = 16, 3, 1024
CLIP, SIGMA = 1.0, 1.0


def peak(arm: str, size: str, encoder: Path | None = None) -> float:
    """Peak resident megabytes (2^20 bytes) above the loaded model over three steps; NaN off Linux.

    Parameters
    ----------
    arm
        One of `ARMS`.
    size
        Of the study.
    encoder
        A model's folder, in place of MiniLM.

    Raises
    ------
    RuntimeError
        If the process of the measurement fails, with what it said.
    """
    if not Path("/proc/self/clear_refs").exists():
        return float("nan")
    given = [arm, size, *([str(encoder)] if encoder else [])]
    done = subprocess.run(
        [sys.executable, "-m", __name__, *given], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"measuring the memory of {arm} failed: {done.stderr[-2000:]}")
    return float(done.stdout.split()[-1])


class Headed(nn.Module):
    """Two classes from the mean over the tokens of an encoder, whose embeddings are frozen."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        # What a configuration holds is known when it is read.
        self.head = nn.Linear(int(encoder.config.hidden_size), 2)  # type: ignore[union-attr, arg-type]
        for name, p in encoder.named_parameters():
            p.requires_grad_("embeddings" not in name and "pooler" not in name)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits."""
        hidden: Tensor = self.encoder(input_ids=ids).last_hidden_state
        logits: Tensor = self.head(hidden.mean(dim=1))
        return logits


def loaded(size: str, encoder: str | None) -> tuple[nn.Module, Tensor]:
    """The model, and a batch of made-up inputs."""
    generator = torch.Generator().manual_seed(0)
    if size == "quick":
        layers = [nn.Linear(64, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(WIDTH, 2)), torch.rand(
            BATCH, 64, generator=generator
        )
    from surefoot import data
    from surefoot.zeroth_order.doors.encoders import open_encoder

    model, _ = open_encoder(data.load("minilm", encoder))
    return Headed(model), torch.randint(1000, 20000, (BATCH, LENGTH), generator=generator)


def _stepping(arm: str, model: nn.Module, x: Tensor, y: Tensor) -> Callable[[], None]:
    """The steps of an arm, all imports made."""
    if arm in NEEDS_OPACUS:
        from surefoot.zeroth_order.doors import opacus

        warnings.simplefilter("ignore")
        return functools.partial(opacus.whole_batches, model, x, y, steps=STEPS, ghost=arm == GHOST)

    def losses(batch: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(batch), y[: len(batch)], reduction="none")

    def mean() -> Tensor:
        return losses(x).mean()

    def first_order() -> None:
        plain = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-6)
        for _ in range(STEPS):
            plain.zero_grad()
            # torch's own has no types.
            mean().backward()  # type: ignore[no-untyped-call]
            plain.step()

    def forwards() -> None:
        privacy = Privacy(SIGMA, CLIP, 0.5, 2 * BATCH) if arm == DP_LOZO else None
        optimizer = Optimizer(
            model, 1e-6, scale="unit", self_check=False, privacy=privacy, freeze_embeddings=True
        )
        for _ in range(STEPS):
            if privacy is None:
                optimizer.step(mean)
            else:
                optimizer.step(losses, x)
        optimizer.flush()

    return first_order if arm == SGD else forwards


def _measure(arm: str, size: str, encoder: str | None = None) -> float:
    torch.set_num_threads(1)
    model, x = loaded(size, encoder)
    y = torch.arange(BATCH) % 2
    step = _stepping(arm, model, x, y)
    # The first step of torch's own optimizers imports a compiler, which is no part of one either.
    small = nn.Linear(2, 2)
    small(torch.ones(1, 2)).sum().backward()
    torch.optim.SGD(small.parameters(), lr=0.1).step()
    # What imports and loading left behind is given back, and the peak is counted from here.
    before = memory.restart()
    step()
    return memory.highest() - before


if __name__ == "__main__":
    print(f"{_measure(*sys.argv[1:]):.1f}")
