"""Run a chain on a problem of one matrix and record what the guarantees speak of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from surefoot.lora.chain import ChainOfLora
from surefoot.lora.config import RacConfig
from surefoot.lora.experiments.problems import Problem, adapted
from surefoot.lora.guarantee import add_run
from surefoot.record import Record

DIVERGED = 1e12


@dataclass
class Run:
    """The gap from block 0 on, and the chain's record with what was measured at every block's start."""

    record: Record
    gap: list[float] = field(default_factory=list)
    diverged_at: int | None = None

    def into(self, record: Record, seed: int, f_star: float, of: str = "") -> None:
        """Copy numbers and facts under a seed, and under an arm's name, into another record."""
        add_run(record, seed, self.record, f_star, of)


def chain_on(problem: Problem, r: int, config: RacConfig, alpha: int | None = None) -> ChainOfLora:
    """A chain on the problem's one weight."""
    return ChainOfLora(adapted(problem, r, alpha), config)


def rows_of(parts: list[Tensor] | None, order: str, seed: int) -> Iterator[Tensor | None]:
    """Rows for each step: all of them; or a part drawn at random, or each part once an epoch."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        if parts is None:
            yield None
        elif order == "shuffle":
            yield from (parts[i] for i in torch.randperm(len(parts), generator=generator).tolist())
        else:
            yield parts[int(torch.randint(len(parts), (), generator=generator))]


def descend(
    problem: Problem,
    chain: ChainOfLora,
    gamma: float,
    blocks: int,
    *,
    steps: int = 1,
    parts: list[Tensor] | None = None,
    order: str = "draw",
    seed: int = 0,
    gradients: bool = True,
    every: int = 1,
    enough: float = 0.0,
) -> Run:
    """Plain SGD through PEFT, `steps` a block; stops when the loss has grown beyond all bounds.

    The gap is taken every so many blocks, and at the end; `enough` of the first gap ends the run.
    """
    run = Run(chain.record)
    noted = {None: "exact", "shuffle": "reshuffled"}.get(order if parts else None, "drawn")
    chain.record.note(chain.config.seed, gradients=noted, max_grad_norm=0.0)
    optimizer = torch.optim.SGD(chain.param_groups(gamma), lr=1.0)
    model = chain.model.get_base_model()
    rows = rows_of(parts, order, seed)
    for t in range(blocks):
        if t % every == 0:
            _measure(problem, chain, run, gradients, parts)
            if not run.gap[-1] <= DIVERGED:
                run.diverged_at = t
                return run
            # Rounding takes a finished run's gap below 0.
            if enough and run.gap[-1] < enough * run.gap[0]:
                break
        for _ in range(steps):
            _loss(problem, chain, model, next(rows)).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
            chain.step(optimizer)
    _measure(problem, chain, run, False, None)
    return run


def _measure(
    problem: Problem, chain: ChainOfLora, run: Run, gradients: bool, parts: list[Tensor] | None
) -> None:
    W = chain.weight("lin")
    loss = float(problem.f(W))
    run.gap.append(loss - problem.f_star)
    if not chain.config.chained:
        return  # one block to the end: there is no further start of one
    chain.observe(
        loss=loss, grad_norm2=float(problem.gradient(W).square().sum()) if gradients else None
    )
    if parts is not None:
        g = torch.stack([problem.gradient(W, part) for part in parts])
        variance = float((g - g.mean(0)).square().sum((1, 2)).mean())
        chain.record.append(chain.config.seed, chain.block, variance=variance)


def _loss(
    problem: Problem, chain: ChainOfLora, model: torch.nn.Module, rows: Tensor | None
) -> Tensor:
    """The loss through the forward pass of PEFT; the penalty needs W itself."""
    module = chain.layers[0].module
    x = problem.features if rows is None else problem.features[rows]
    loss = problem.part(module(x), rows)
    if problem.l2:
        layer = chain.layers[0]
        W = layer.weight + (layer.parameter("B") @ layer.parameter("A")) * layer.scaling
        loss = loss + 0.5 * problem.l2 * (W**2).sum()
    return loss
