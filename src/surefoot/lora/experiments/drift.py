"""What a hundred merges do to 16-bit weights, with and without a residual (a chain's default).

A merge rounds W + s B A to the weight's dtype; where blocks are small the training is lost in it. The
residual keeps what was rounded away in the same 16 bits. Each merge then errs by at most u^2 |W_ij|,
u the unit roundoff, which is the guarantee (derived here).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from surefoot.guarantee import Guarantee
from surefoot.lora.chain import ChainOfLora
from surefoot.lora.config import RacConfig
from surefoot.lora.doors.peft import with_lora
from surefoot.record import Record

SIZE, BLOCKS, RANK = 256, 100, 4
RELATIVE = (1e-1, 1e-2, 1e-3, 1e-4)
RESIDUAL = "residual in bfloat16"
ARMS = (
    "PEFT's merge",
    "stochastic rounding",
    RESIDUAL,
    "residual in float32",
    "one final rounding",
)
ROUNDOFF = 2.0**-8  # bfloat16: eight significant bits


class OneLayer(nn.Module):
    """A single square linear layer in bfloat16."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.lin = nn.Linear(SIZE, SIZE, bias=False, dtype=torch.bfloat16)

    def forward(self, x: Float[Tensor, "rows n"]) -> Float[Tensor, "rows n"]:
        """The layer's output."""
        found: Tensor = self.lin(x)
        return found


def chain_of(seed: int, merge_dtype: Any) -> ChainOfLora:
    """A chain on that layer whose factors the study sets by hand."""
    with torch.random.fork_rng(devices=[]):
        model = with_lora(OneLayer(seed), RANK, ["lin"])
    return ChainOfLora(model, RacConfig(seed=seed, merge_dtype=merge_dtype, keep_history="none"))


def stochastic(weight: Float[Tensor, "m n"], generator: torch.Generator) -> Tensor:
    """Float32 to bfloat16, up or down with the probabilities that make it unbiased."""
    noise = torch.randint(0, 1 << 16, weight.shape, generator=generator, dtype=torch.int32)
    bits = weight.view(torch.int32) + noise
    return (bits & ~0xFFFF).view(torch.float32).to(torch.bfloat16)


def run(config: Any, seed: int, record: Record) -> None:
    """A hundred random rank-4 blocks of each relative size."""
    for q in RELATIVE:
        chains = {
            RESIDUAL: chain_of(seed, "residual"),
            "residual in float32": chain_of(seed, "float32"),
        }
        start = chains[RESIDUAL].weight("lin")
        plain, rounded = start.bfloat16(), start.bfloat16()
        exact = start.double()
        generator = torch.Generator().manual_seed(seed)
        largest = float(exact.norm())
        for _ in range(BLOCKS):
            b = torch.randn(SIZE, RANK, generator=generator)
            b *= q * float(start.norm()) / float(b.norm())
            for chain in chains.values():
                chain.layers[0].parameter("B").data.copy_(b)
            delta = chains[RESIDUAL].layers[0].delta()
            for chain in chains.values():
                chain.end_block()
            exact += delta.double()
            plain += delta.bfloat16()
            rounded = stochastic(rounded.float() + delta, generator)
            largest = max(largest, float(exact.norm()))
        found = {name: chain.weight("lin") for name, chain in chains.items()} | {
            "PEFT's merge": plain, "stochastic rounding": rounded,
            "one final rounding": exact.bfloat16(),
        }  # fmt: skip
        update = float((exact - start.double()).norm())
        for name in ARMS:
            error = float((found[name].double() - exact).norm()) / update
            record.update(seed, 0, {f"{name}, q = {q:g}": error})
        record.update(seed, 0, {f"bound, q = {q:g}": BLOCKS * ROUNDOFF**2 * largest / update})


def residual_guarantee(q: float, quantity: str | None = None) -> Guarantee:
    """The error of T merges is at most T u^2 max ||W||, here relative to the accumulated update.

    |W - fl(W)| <= u |W| entry by entry, and storing that remainder in the same dtype errs by u of it;
    the sum itself is taken in float32, whose own rounding is 2^8 times smaller than u^2 |W|.
    """
    return Guarantee(
        f"16-bit merges with a residual, q = {q:g}", "|W_T - exact| <= T u^2 max |W|",
        "arXiv 2410.08305, derived here", quantity or f"{RESIDUAL}, q = {q:g}", "upper", "every run",
        lambda record: record[f"bound, q = {q:g}"], tolerance=2.0**-7,
        trivial=1.0,  # nothing of the training left
    )  # fmt: skip


def guarantees(config: Any) -> Iterable[Guarantee]:
    """One for each size of block."""
    return [residual_guarantee(q) for q in RELATIVE]


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """Errors relative to the accumulated update, mean over the seeds."""
    rows = [
        {"size of a block": f"{q:g}"}
        | {name: float(np.mean(record.constant(f"{name}, q = {q:g}"))) for name in ARMS}
        for q in RELATIVE
    ]
    return {f"error of {BLOCKS} merges into bfloat16": pd.DataFrame(rows)}
