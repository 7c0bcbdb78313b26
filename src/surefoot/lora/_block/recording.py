"""What a chain writes into its record: facts of its settings and steps, numbers of each block.

Numbers at step t belong to block t: `loss`, `grad_norm2` where somebody measured them at its start;
`projected_grad_norm2`, `grad_norm2_estimate`, `update_norm`, `steps`; `gamma` and `gamma_max`, the step
sizes that were seen; `sketch_low` and `sketch_high`, the eigenvalues of S^T S; `companion_error`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from surefoot.lora._block.adapted_layer import AdaptedLayer
from surefoot.lora._block.companion import Companion
from surefoot.lora._block.sketch_constants import (
    sketch_constants,
    sketch_stretch,
    smallest_share,
)
from surefoot.lora._block.steps_seen import StepsSeen
from surefoot.lora.config import RacConfig, Side
from surefoot.lora.result import BlockReport
from surefoot.record import Fact, Record


def note_settings(
    record: Record, config: RacConfig, layers: list[AdaptedLayer], quantised: bool, extras: bool
) -> None:
    """What is known before the first step.

    Parameters
    ----------
    record
        The chain's own; its one seed is that of the sketches.
    config, layers
        The settings and the adapted layers.
    quantised
        Whether past blocks are held in a companion adapter.
    extras
        Whether anything trains in full beside the adapted weights.
    """
    seed = config.seed
    record.note(
        seed, method=config.method, train=config.train, sketch=config.to_dict()["sketch"],
        precondition=config.precondition, quantised=quantised, extras=extras,
    )  # fmt: skip
    # PEFT's embedding layers have a dropout that their forward pass does not use.
    dropped = {
        layer.name: float(getattr(layer.module.lora_dropout[layer.adapter], "p", 0.0))
        for layer in layers
        if not layer.embedding
    }
    name = max(dropped, key=lambda k: dropped[k], default="")
    record.note(seed, dropout=dropped.get(name, 0.0), dropout_layer=name)
    for layer in layers:
        dtype = str(layer.weight.dtype).removeprefix("torch.")
        record.note(seed, rank=layer.r, scaling=layer.scaling, dtype=dtype)
    if not callable(config.sketch):
        note_sketch_constants(record, config, layers, extras)


def note_sketch_constants(
    record: Record, config: RacConfig, layers: list[AdaptedLayer], extras: bool
) -> None:
    """The eigenvalues of E[H]: at once for known laws, by Monte-Carlo draws where it is a callable.

    Parameters
    ----------
    record
        The chain's own; where it has them already nothing is drawn.
    config, layers
        The settings and the adapted layers.
    extras
        What trains in full counts with the eigenvalue 1.
    """
    if record.fact("lam").all:
        return
    record.note(config.seed, share=smallest_share(config, layers))
    stretch = sketch_stretch(config, layers)
    if stretch is not None:
        record.note(config.seed, sketch_mean=stretch[0], sketch_sup=stretch[1])
    low, high, how = sketch_constants(config, layers)
    record.note(config.seed, lam=low, lam_max=max(high, 1.0) if extras else high, how_lam=how)


def write_steps(record: Record, seed: int, block: int, steps: StepsSeen) -> None:
    """The optimizer and its step sizes, where something about them is new.

    Parameters
    ----------
    record, seed
        The chain's own.
    block
        The open one.
    steps
        What was seen of it.
    """
    steps.changed = False
    for kind in steps.kinds:
        record.note(seed, **kind)
    low, high = steps.block
    if math.isfinite(low):
        record.append(seed, block, gamma=low, gamma_max=high)


def write_block(record: Record, seed: int, report: BlockReport, companion: Companion) -> None:
    """A block that has ended.

    Parameters
    ----------
    record, seed
        The chain's own.
    report
        Of the block.
    companion
        What recompressing has cut off so far counts for a quantised base.
    """
    measured = {
        "projected_grad_norm2": report.projected_grad_norm2,
        "grad_norm2_estimate": report.grad_norm2,
        "update_norm": report.update_norm,
        "steps": float(report.steps),
        "companion_error": companion.error if companion.layers else None,
    }
    found = {name: value for name, value in measured.items() if value is not None}
    record.update(seed, report.block, found)
    if not report.steps:
        record.note(seed, objection="a block was merged in which no optimizer stepped")


def dump(record: Record, seed: int) -> dict[str, Any]:
    """The record as JSON values."""
    columns = {}
    for name in record.quantities:
        curves = record.curves(name)
        if seed in curves.seeds:
            row = curves.values[list(curves.seeds).index(seed)]
            columns[name] = [curves.steps.tolist(), row.tolist()]
    facts = {name: list(known.values.get(seed, ())) for name, known in record.facts.items()}
    return {"columns": columns, "facts": facts}


def load(record: Record, seed: int, data: dict[str, Any]) -> None:
    """Add what `dump` gave."""
    for name, (steps, values) in data["columns"].items():
        record.extend(seed, name, values, steps)
    for name, values in data["facts"].items():
        for value in values:
            record.note(seed, **{name: value})


def steps_of(record: Record, block: int) -> tuple[float, float]:
    """The step sizes that a block has seen so far."""
    found = (math.inf, 0.0)
    if "gamma" in record:
        low, high = record.curves("gamma"), record.curves("gamma_max")
        at = np.flatnonzero(low.steps == block)
        if len(at):
            found = float(low.values[0, at[0]]), float(high.values[0, at[0]])
    return found


def rebuild(
    record: Record,
    seed: int,
    reports: Iterable[BlockReport],
    steps: StepsSeen,
    companion: Companion,
) -> None:
    """Of a chain that was stored without its record, by a version that kept none: what still is known.

    Every block gets the smallest and the largest step size of all.

    Parameters
    ----------
    record, seed
        The chain's own.
    reports
        Of the blocks that have ended.
    steps
        Without objections, as that version made them, every step was one of plain SGD.
    companion
        Of a quantised base.
    """
    for report in reports:
        write_block(record, seed, report, companion)
        if steps.largest and report.steps:
            record.append(seed, report.block, gamma=steps.smallest, gamma_max=steps.largest)
    for reason in steps.reasons:
        record.note(seed, objection=reason)
    if steps.largest and not steps.reasons:
        # Whether gradients were clipped nobody saw.
        record.note(seed, **{k: v for k, v in PLAIN_STEPS.items() if k != "max_grad_norm"})


PLAIN_STEPS: dict[str, Fact] = {
    "optimizer": "SGD", "momentum": 0.0, "weight_decay": 0.0, "nesterov": False, "maximize": False,
    "max_grad_norm": 0.0,
}  # fmt: skip


def note_federation(
    record: Record,
    seed: int,
    shapes: Iterable[tuple[int, int]],
    *,
    method: str,
    rank: int | None,
    train: Side,
    gamma: float,
    local_steps: int,
    eta: float,
    clients: int,
    dtype: torch.dtype,
    of: str = "",
) -> None:
    """What is known of a federation before its first round.

    Parameters
    ----------
    record, seed
        Where to; the seed of the sketches.
    shapes
        (m, n) of every matrix.
    method
        "fed_rac" draws one sketch a round for all clients.
    rank
        None where the matrices themselves are averaged.
    train
        The factor that clients train.
    gamma, local_steps, eta
        Steps of the clients, how many a round, and of the server.
    clients
        How many there are.
    dtype
        Of the matrices.
    of
        Whose facts these are, where the record has others beside them.
    """
    shared = method == "fed_rac"
    record.note(
        seed, of, method=method, train=train, gamma=gamma, steps=local_steps, eta=eta, clients=clients,
        shared_sketch=shared, dropout=0.0, quantised=False, precondition=False,
        dtype=str(dtype).removeprefix("torch."),
    )  # fmt: skip
    if rank is not None:
        record.note(seed, of, rank=rank)
    if shared and rank is not None:
        shares = [rank / (n if train == "B" else m) for m, n in shapes]
        record.note(
            seed, of, sketch="orthonormal", sketch_low=1.0, sketch_high=1.0, lam=min(shares),
            lam_max=max(shares), share=min(shares), sketch_mean=1.0, sketch_sup=1.0,
            how_lam="exact: symmetric exchangeable entries",
        )  # fmt: skip
