"""The plain network follows the branches: one step, many steps, clipped steps (part exactness)."""

from __future__ import annotations

from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor, nn

from surefoot.guarantee import Guarantee
from surefoot.record import Record
from surefoot.reparam._block.facts import network_facts
from surefoot.reparam._guarantee.columns import DEFECT, GAP, column
from surefoot.reparam._optimizer.clipping import clip_csla_norm_
from surefoot.reparam._optimizer.facts import note_facts
from surefoot.reparam._optimizer.parameters import decay_groups
from surefoot.reparam.block import ReparamConv2d
from surefoot.reparam.equivalence import equivalence_gap, one_step_defect
from surefoot.reparam.guarantee import NORM_ERROR, clipped_norm, trajectory
from surefoot.reparam.merging import convert_to_plain
from surefoot.reparam.optimizer import RepSGD

STEPS = {"quick": 20, "standard": 200, "paper": 1000}
SETTINGS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "momentum, decay": {"momentum": 0.9, "weight_decay": 1e-2},
    "nesterov": {"momentum": 0.9, "nesterov": True},
    "dampening": {"momentum": 0.9, "dampening": 0.3},
}
DTYPES = {"float64": torch.float64, "float32": torch.float32}
CLIPPED = "clipped"


def network(seed: int, dtype: torch.dtype) -> nn.Sequential:
    """Stride 2, depthwise and square blocks, scales from N(0, 1); ReLU, in float32 SiLU.

    Where a sum lies within its rounding of zero, the plain network and the branches can be on two sides of
    ReLU's kink: in float32 a step now and then differs by what one mask is worth, which is no rounding.
    """
    g = torch.Generator().manual_seed(seed)
    activation: Literal["relu", "silu"] = "relu" if dtype == torch.float64 else "silu"

    def block(i: int, o: int, stride: int = 1, groups: int = 1) -> ReparamConv2d:
        scales = {b: torch.randn(o, generator=g) for b in ("kxk", "1x1", "identity")}
        return ReparamConv2d(
            i, o, 3, stride, groups, mode="csla", scales=scales, generator=g, dtype=dtype,
            activation=activation,
        )  # fmt: skip

    blocks = (block(3, 8, 2), block(8, 8, groups=8), block(8, 8))
    with torch.random.fork_rng(devices=[]):
        # torch's own layers draw from the global generator, of which no seed of a run knows.
        torch.manual_seed(seed)
        head = nn.Linear(8, 5, dtype=dtype)
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)


def run(config: Any, seed: int, record: Record) -> None:
    """One-step defect (judged), free-running gap (shown) and the clipped norm, by optimiser and dtype."""
    for dtype_name, dtype in DTYPES.items():
        for name, settings in SETTINGS.items():
            _one(config, seed, record, f"{name}, {dtype_name}", dtype, settings)
    _clipping(config, seed, record)


def _batch(g: torch.Generator, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    x = torch.randn(8, 3, 8, 8, generator=g, dtype=torch.float64).to(dtype)
    return x, torch.randint(0, 5, (8,), generator=g)


def _pair(csla: nn.Module, settings: dict[str, Any]) -> tuple[nn.Module, RepSGD, torch.optim.SGD]:
    plain, mults = convert_to_plain(csla, seed=None)
    own = dict(settings)
    decay = own.pop("weight_decay", 0.0)
    ours = RepSGD(decay_groups(plain, decay), 0.05, grad_mults=mults, **own)
    return plain, ours, torch.optim.SGD(decay_groups(csla, decay), lr=0.05, **own)


def _one(
    config: Any, seed: int, record: Record, name: str, dtype: torch.dtype, settings: dict[str, Any]
) -> None:
    judged, free = network(seed, dtype), network(seed, dtype)
    plain, ours, theirs = _pair(judged, settings)
    free_plain, free_ours, free_theirs = _pair(free, settings)
    g = torch.Generator().manual_seed(seed + 1)
    for t in range(STEPS[config.size]):
        x, y = _batch(g, dtype)

        def loss(model: nn.Module, x: Tensor = x, y: Tensor = y) -> Tensor:
            return nn.functional.cross_entropy(model(x), y)

        one_step_defect(
            plain, ours, judged, theirs, loss, record=record, seed=seed, step=t, of=name
        )
        for model, optimizer in ((free_plain, free_ours), (free, free_theirs)):
            optimizer.zero_grad()
            loss(model).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        record.update(seed, t, {column(GAP, name): equivalence_gap(free_plain, free)})


def _clipping(config: Any, seed: int, record: Record) -> None:
    csla = network(seed, torch.float64)
    plain, ours, theirs = _pair(csla, {"momentum": 0.9})
    g = torch.Generator().manual_seed(seed + 2)
    for t in range(STEPS[config.size]):
        x, y = _batch(g, torch.float64)
        norms = []
        for model, optimizer in ((plain, ours), (csla, theirs)):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
            norms.append(
                float(clip_csla_norm_(ours, 0.5))
                if optimizer is ours
                else float(nn.utils.clip_grad_norm_(csla.parameters(), 0.5))
            )
        if t == 0:  # later norms are those of two networks that rounding has moved apart
            record.update(seed, 0, {column(NORM_ERROR, CLIPPED): abs(norms[0] / norms[1] - 1)})
        for optimizer in (ours, theirs):
            optimizer.step()
    note_facts(record, ours.record.facts, seed, CLIPPED)
    note_facts(record, network_facts(plain), seed, CLIPPED)
    record.update(seed, STEPS[config.size], {column(GAP, CLIPPED): equivalence_gap(plain, csla)})


def guarantees(config: Any) -> list[Guarantee]:
    """G1 for every optimiser and dtype, and G3."""
    found = [
        trajectory(of=f"{name}, {d}", name=f"follows the branches: {name}, {d} (G1)")
        for d in DTYPES
        for name in SETTINGS
    ]
    return [*found, clipped_norm(of=CLIPPED)]


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """Worst defect in machine epsilons and the free-running gap at the end, which nothing bounds."""
    rows = []
    for d, dtype in DTYPES.items():
        eps = torch.finfo(dtype).eps
        for name in SETTINGS:
            gap = record[column(GAP, f"{name}, {d}")][:, -1]
            rows.append(
                {"optimiser": name, "dtype": d,
                 "worst defect (eps)": record[column(DEFECT, f"{name}, {d}")].max() / eps,
                 "gap, median seed": float(pd.Series(gap).median()), "gap, worst seed": gap.max()}
            )  # fmt: skip
    return {"equivalence, step by step and free-running": pd.DataFrame(rows)}
