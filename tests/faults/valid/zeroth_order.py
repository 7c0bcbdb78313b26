"""Valid calls of `surefoot.zeroth_order`."""

import numpy as np
import torch
from torch import nn

from faults.valid.fields import fields_of
from surefoot import zeroth_order as Z


def net():
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def logged():
    model = net()
    log = Z.StepLog()
    made = Z.LOZO(model, lr=1e-2, nu=2, rank=1, seed=1, log=log)
    for _ in range(4):
        made.step(lambda: model(torch.ones(1, 3)).square().sum())
    made.flush()
    return {"model": net(), "log": log, "upto": 4}


def report():
    model = net()
    made = Z.LOZO(model, lr=1e-3, nu=2, rank=1)
    batch = torch.ones(1, 3)
    made.step(lambda: model(batch).square().sum())
    return {
        "optimizer": made,
        "model": model,
        "data": [batch, 2 * batch],
        "loss": lambda m, b: m(b).square().sum(),
        "steps": 2,
    }


COMMON = {
    "lr": 1e-3,
    "eps": 1e-3,
    "momentum": 0.0,
    "nu": 2,
    "scale": "paper",
    "v_dist": "gaussian",
    "mode": "inplace",
    "seed": 0,
    "num_directions": 1,
    "weight_decay": 0.0,
}


def calls():
    return {
        "LOZO": lambda: {
            "params_or_model": net(),
            **COMMON,
            "mode": "auto",
            "rank": 1,
            "reproject": "paper",
        },
        "MeZO": lambda: {"params_or_model": net(), **COMMON, "nu": 1},
        "ZOAdam": lambda: {
            "params_or_model": net(),
            **{k: v for k, v in COMMON.items() if k != "momentum"},
            "nu": 1,
            "betas": (0.9, 0.999),
            "adam_eps": 1e-8,
        },
        "StepLog": lambda: {"path": None},
        "Quality": lambda: fields_of(Z.Quality(np.ones(3), np.ones(3), "float32")),
        "LOZOReport": report,
        "replay": logged,
    }
