"""Valid calls of `surefoot.privacy`."""

import torch
from torch import nn

from faults.valid.fields import fields_of
from surefoot import privacy as P
from surefoot.record import Record


def train(bumps, seed):
    torch.manual_seed(seed)
    w = torch.zeros(3)
    for t in range(4):
        w = w - 0.1 * (torch.ones(3) + bumps.get(t, 0))
    return w


def optimizer():
    from opacus.optimizers import DPOptimizer

    net = nn.Linear(3, 1)
    return DPOptimizer(
        torch.optim.SGD(net.parameters(), lr=0.1),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        expected_batch_size=4,
    )


def accountant():
    from opacus.accountants import RDPAccountant

    made = RDPAccountant()
    for _ in range(10):
        made.step(noise_multiplier=1.0, sample_rate=0.1)
    return made


def calls():
    standard = P.standard(1.0, 0.1, 10)
    return {
        "Mechanism": lambda: {"pair": P.gaussian(1.0).pair, "kind": "guarantee", "note": ""},
        "Heuristic": lambda: {
            "pair": P.last_iterate(1.0, 0.1, 10).pair,
            "noise_multiplier": 1.0,
            "sample_rate": 0.1,
            "steps": 10,
            "plain": True,
            "note": "",
        },
        "Standard": lambda: {
            "history": ((1.0, 0.1, 10),),
            "method": "pld",
            "lower": P.gaussian(0.1),
        },
        "Calibration": lambda: fields_of(P.calibrate(2.0, 1e-5, 0.1, 10)),
        "Value": lambda: fields_of(standard.epsilon(1e-5)),
        "Steps": lambda: fields_of(P.max_steps(2.0, 1e-5, 2.0, 0.1, limit=50)),
        "LinearWeights": lambda: {
            "values": torch.ones(4, dtype=torch.float64).numpy(),
            "origin": "given",
        },
        "LinearityMeter": lambda: {
            "run": train,
            "steps": 4,
            "scale": 0.1,
            "probes": 2,
            "seed": 0,
            "size": 1.0,
        },
        "Report": lambda: fields_of(P.compare(1.0, 0.1, 10, 1e-5)),
        "attach_gradient_canaries": lambda: {
            "dp_optimizer": optimizer(),
            "canaries": torch.eye(2, 4),
            "included": torch.tensor([True, False]),
            "sample_rate": 0.1,
            "seed": 0,
        },
        "from_opacus": lambda: {"source": accountant(), "delta": 1e-5},
        "note_training": lambda: {"record": Record(), "seed": 0, "source": accountant()},
    }
