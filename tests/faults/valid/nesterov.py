"""Valid calls of `surefoot.nesterov`."""

import torch
from torch import nn

from faults.valid.fields import fields_of
from surefoot import nesterov as N


def model():
    torch.manual_seed(0)
    return nn.Linear(3, 1).double()


def data():
    torch.manual_seed(1)
    return torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 1, dtype=torch.float64)


def landscape():
    return {
        "model": model(),
        "loss_fn": nn.functional.mse_loss,
        "data": data(),
        "f_star": 0.0,
        "chunk": 2,
        "parameters": None,
    }


def ledger():
    net, (x, y) = model(), data()
    return {
        "optimizer": N.NAG(net.parameters(), lr=0.1, momentum=9 / 11),
        "closure": lambda: nn.functional.mse_loss(net(x), y),
        "mu": 0.1,
        "eta": 0.1,
        "f_star": 0.0,
        "anchor": "final",
        "every": 1,
    }


def calls():
    sample = N.NoiseSample(1.0, 2.0, 0.5, 4)
    return {
        "AGNES": lambda: {
            "params": model().parameters(),
            "lr": 0.01,
            "correction": 0.01,
            "momentum": 0.9,
            "weight_decay": 0.0,
        },
        "NAG": lambda: {
            "params": model().parameters(),
            "lr": 0.01,
            "momentum": 0.9,
            "weight_decay": 0.0,
        },
        "DecreasingNAG": lambda: {"params": model().parameters(), "mu": 0.1, "L": 1.0},
        "AgnesParams": lambda: dict(fields_of(N.agnes_parameters(0.5, 2.0))),
        "Landscape": landscape,
        "Ledger": ledger,
        "NAGSchedule": lambda: {
            "optimizer": N.NAG(model().parameters(), lr=0.01, momentum=0.9),
            "rule": "convex",
        },
        "NoiseSample": lambda: fields_of(sample),
        "NoiseFit": lambda: fields_of(N.fit_noise([(1.0, 2.0), (2.0, 3.5), (3.0, 5.0)])),
        "Interval": lambda: fields_of(N.Interval(1.0, 0.1, 0.9, 1.1, 3)),
        "heavy_ball_flow": lambda: {
            "f": lambda x: x.square().sum() / 2,
            "start": torch.ones(2, dtype=torch.float64),
            "mu": 0.5,
            "time": 1.0,
            "closest": torch.zeros_like,
            "f_star": 0.0,
            "points": 11,
        },
    }
