"""The paper's task: find a hidden random network again, small; by a trained, an untrained, no decoder."""

from __future__ import annotations

import dataclasses
import time
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from surefoot._numerics.seeds import generator_for
from surefoot.architecture.autoencoder import NetworkAutoencoder
from surefoot.architecture.baselines import random_decoder
from surefoot.architecture.experiments.spaces import S3, trained
from surefoot.architecture.net_batch import NetBatch
from surefoot.architecture.paper_search import search_paper
from surefoot.architecture.polishing import polish_lbfgs
from surefoot.architecture.searching import search
from surefoot.architecture.space import MLPSpace
from surefoot.record import Record

ROWS = {"train": 2000, "validation": 1000, "test": 2000}
HIDDEN = MLPSpace(3, 1, 5, 4, min_width=5)


class Size(NamedTuple):
    """How much of everything."""

    pretraining: tuple[float, ...]
    """CPU seconds; one trained decoder for each."""
    search: float
    """CPU seconds of a search of one depth."""
    depths: tuple[int, ...]
    """Of the hidden networks."""
    decoders: tuple[int, ...]
    """Depths that are searched."""
    polish: int
    """Outer steps of L-BFGS."""


SIZES = {
    "quick": Size((1.5,), 0.3, (1,), (2,), 2),
    "standard": Size((40.0,), 0.9, (1, 2, 3, 4), (1, 2, 3, 4), 10),
    "paper": Size((40.0, 300.0, 1800.0), 10.0, (1, 2, 3, 4), (1, 2, 3, 4), 20),
}
PENALTIES = (0.03, 0.2)


class Target(NamedTuple):
    """A hidden network's table, and what it really needs."""

    x: dict[str, Tensor]
    y: dict[str, Tensor]
    size: int
    nonzero: int


def hidden_target(depth: int, seed: int) -> Target:
    """A random network of width 5 and its outputs, standardised, on rows of three splits.

    Parameters
    ----------
    depth : int
        Its hidden layers.
    seed : int
        Of the network and the rows.
    """
    generator = generator_for("surefoot.architecture rediscovery", seed, depth)
    net = HIDDEN.sample(1, depth, generator)
    x = {name: HIDDEN.sample_inputs(n, generator) for name, n in ROWS.items()}
    y = {name: net(rows)[0] for name, rows in x.items()}
    mean, std = y["train"].mean(), y["train"].std()
    plain = net.to_sequential(0)
    counts = [p.numel() for p in plain.parameters()]
    nonzero = [int((p != 0).sum()) for p in plain.parameters()]
    return Target(x, {k: (v - mean) / std for k, v in y.items()}, sum(counts), sum(nonzero))


def conditions(size: Size, seed: int) -> dict[str, NetworkAutoencoder | MLPSpace]:
    """What is searched through: decoders trained for a while, an untrained one, the entries themselves.

    Parameters
    ----------
    size : Size
        How long they are trained.
    seed : int
        Of the training.
    """
    found: dict[str, NetworkAutoencoder | MLPSpace] = {
        f"trained {s:g} s": trained(S3, s, seed) for s in size.pretraining
    }
    return {**found, "untrained": random_decoder(S3, seed), "direct": S3}


def run(config: Any, seed: int, record: Record) -> None:
    """Every condition and penalty on every target at every depth, the same CPU time each; then L-BFGS."""
    size = SIZES[config.size]
    searched = conditions(size, seed)
    paper = _papers_decoder(size, seed) if config.size != "quick" else None
    step = 0
    for depth in size.depths:
        target = hidden_target(depth, seed)
        for decoder_depth in size.decoders:
            for name, decoder in searched.items():
                for penalty in PENALTIES:
                    generator = generator_for(
                        "surefoot.architecture search", seed, depth, decoder_depth
                    )
                    nets = search(
                        decoder, target.x["train"], target.y["train"], task="regression",
                        depth=decoder_depth, restarts=8, size_penalty=penalty, seconds=size.search,
                        generator=generator, clock=time.process_time,
                    )  # fmt: skip
                    _judge(record, seed, step, f"{name}, {penalty:g}", nets, target, size.polish)
            if paper is not None:
                generator = generator_for("surefoot.architecture paper", seed, depth)
                steps = int(300 * size.search)
                found = search_paper(
                    paper, target.x["train"], target.y["train"], steps=steps, generator=generator
                )
                _judge(
                    record,
                    seed,
                    step,
                    "paper's search",
                    found[decoder_depth - 1],
                    target,
                    size.polish,
                )
            record.append(seed, step, size=target.size, nonzero=target.nonzero, depth=depth)
            step += 1


def _papers_decoder(size: Size, seed: int) -> NetworkAutoencoder:
    """The paper's loss, gates and encoder, on standard outputs; raw ones learn nothing in this time."""
    space = dataclasses.replace(S3, bias_scale=0.0)
    model = NetworkAutoencoder(
        space,
        encoder="conv",
        decoder="conv",
        gate="hard",
        winner_weight=1.0,
        all_weight=0.0,
        seed=seed,
    )
    return model.fit(seconds=size.pretraining[-1], seed=seed, clock=time.process_time)


@torch.no_grad()
def r2(net: nn.Module | NetBatch, x: Tensor, y: Tensor) -> Any:
    """1 - squared error over variance: of a module one number, of a batch one a network.

    Parameters
    ----------
    net : Module or NetBatch
        What predicts.
    x, y : tensors
        A table.
    """
    left = (net(x) - y).square().mean((-2, -1))
    return (1 - left / y.var(correction=0)).numpy()


def _judge(
    record: Record, seed: int, step: int, name: str, nets: NetBatch, target: Target, outer: int
) -> None:
    """The best restart by validation, before and after L-BFGS, and the median restart."""
    if not len(nets):
        # All restarts collapsed: the constant model, whose one number is its bias.
        record.update(
            seed, step,
            {f"{name}: R2": 0.0, f"{name}: polished": 0.0, f"{name}: median R2": 0.0, f"{name}: params": 1.0,
             f"{name}: neurons": 0.0},
        )  # fmt: skip
        return
    x, y = target.x, target.y
    scores = r2(nets, x["validation"], y["validation"])
    best = int(np.argmax(scores))
    module = nets.to_sequential(best)

    def judge(m: nn.Module) -> float:
        return 1 - float(r2(m, x["validation"].double(), y["validation"].double()))

    polished, _ = polish_lbfgs(module, x["train"], y["train"], outer=outer, inner=5, judge=judge)
    record.update(
        seed, step,
        {
            f"{name}: R2": float(r2(module, x["test"], y["test"])),
            f"{name}: polished": float(r2(polished, x["test"], y["test"])),
            f"{name}: median R2": float(np.median(r2(nets, x["test"], y["test"]))),
            f"{name}: params": float(sum(p.numel() for p in module.parameters())),
            f"{name}: neurons": float(sum(nets.widths(best))),
        },
    )  # fmt: skip


def arms(record: Record) -> list[str]:
    """The conditions of a record, in the order of running."""
    end = ": polished"
    return [q.removesuffix(end) for q in record.quantities if q.endswith(end)]


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """Medians over targets, depths and seeds: errors before and after L-BFGS, parameters, neurons."""
    rows = [
        {
            "condition": arm,
            "error of the best": 1 - float(np.median(record[f"{arm}: R2"])),
            "error of the median": 1 - float(np.median(record[f"{arm}: median R2"])),
            "after L-BFGS": 1 - float(np.median(record[f"{arm}: polished"])),
            "parameters": float(np.median(record[f"{arm}: params"])),
            "true": float(np.median(record["size"])),
            "true non-zero": float(np.median(record["nonzero"])),
            "neurons": float(np.median(record[f"{arm}: neurons"])),
        }
        for arm in arms(record)
    ]
    depth = record["depth"]
    by_depth = [
        {
            "condition": arm,
            **{
                f"hidden depth {int(d)}": 1
                - float(np.median(record[f"{arm}: polished"][depth == d]))
                for d in np.unique(depth)
            },
        }
        for arm in arms(record)
    ]
    title = f"hidden networks found again, {SIZES[config.size].search:g} CPU-s a search"
    return {title: pd.DataFrame(rows), "error after L-BFGS by hidden depth": pd.DataFrame(by_depth)}
