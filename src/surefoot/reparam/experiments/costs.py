"""What each mode costs on the device and on the wire (part costs)."""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from surefoot.guarantee import Guarantee
from surefoot.record import Record
from surefoot.reparam.cost import cost_report
from surefoot.reparam.guarantee import costs_of_plain
from surefoot.reparam.merging import convert_to_plain
from surefoot.reparam.models import repopt_vgg
from surefoot.reparam.optimizer import RepSGD

MODES = ("fedrepopt", "csla", "rep", "inf")
SIDE = {"quick": 16, "standard": 32, "paper": 32}


def network(mode: Any) -> nn.Sequential:
    """Eight blocks, 32 to 128 channels, and the stem: the spec's network."""
    return repopt_vgg((2, 3, 2), (32, 64, 128), mode=mode, strides=(1, 1, 2, 2))


def run(config: Any, seed: int, record: Record) -> None:
    """Parameters, bytes, saved activations, and the least CPU time of a step, modes interleaved."""
    g = torch.Generator().manual_seed(seed)
    side = SIDE[config.size]
    x, y = torch.randn(32, 3, side, side, generator=g), torch.randint(0, 10, (32,), generator=g)
    csla = network("csla")
    plain, mults = convert_to_plain(csla)
    models = {"fedrepopt": plain, "csla": csla, "rep": network("rep"), "inf": network("plain")}

    def loss(model: nn.Module) -> Tensor:
        return nn.functional.cross_entropy(model(x), y)

    pairs = {
        m: (
            models[m],
            RepSGD(
                models[m].named_parameters(), 0.01, grad_mults=mults if m == "fedrepopt" else {}
            ),
        )
        for m in MODES
    }
    cost_report(pairs, loss, rounds=3 if config.size == "quick" else 10, record=record, seed=seed)


def guarantees(config: Any) -> list[Guarantee]:
    """The device's costs are those of the plain network that was measured beside it."""
    return [
        costs_of_plain("parameters: fedrepopt", "parameters: inf", unit="parameters"),
        costs_of_plain("bytes: fedrepopt", "bytes: inf", unit="bytes a round, one way"),
    ]


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """All modes, as ratios to the plain network with plain SGD."""
    rows = []
    for m in MODES:
        value = {
            k: float(record.constant(f"{k}: {m}").mean()) for k in ("parameters", "bytes", "saved")
        }
        ratio = float(
            record.constant(f"seconds: {m}").min() / record.constant("seconds: inf").min()
        )
        rows.append(
            {"mode": m, "parameters": value["parameters"], "bytes a round": value["bytes"],
             "saved activations, MiB": value["saved"] / 2**20, "step time / plain SGD": ratio}
        )  # fmt: skip
    return {"costs": pd.DataFrame(rows)}
