"""RepSGD beside torch's SGD on one plain network, and the multi-branch network that it replaces.

Thread CPU time of whole training steps, interleaved, least of the rounds: the machine may be busy.
"""

import torch
from torch import nn

from surefoot.reparam import RepSGD, convert_to_plain, cost_report, repopt_vgg


def measure(rounds=15, side=32):
    def network(mode):
        return repopt_vgg((2, 3, 2), (32, 64, 128), mode=mode, strides=(1, 1, 2, 2))

    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(32, 3, side, side, generator=g), torch.randint(0, 10, (32,), generator=g)
    csla, rep = network("csla"), network("rep")
    plain, mults = convert_to_plain(csla)
    twin, _ = convert_to_plain(csla)
    settings = {"lr": 0.01, "momentum": 0.9, "weight_decay": 4e-5}
    pairs = {
        "RepSGD": (plain, RepSGD(plain.named_parameters(), grad_mults=mults, **settings)),
        "SGD": (twin, torch.optim.SGD(twin.parameters(), foreach=True, **settings)),
        "CSLA": (csla, torch.optim.SGD(csla.parameters(), foreach=True, **settings)),
        "rep": (rep, torch.optim.SGD(rep.parameters(), foreach=True, **settings)),
    }
    return {
        c.mode: c
        for c in cost_report(pairs, lambda m: nn.functional.cross_entropy(m(x), y), rounds=rounds)
    }


def test_step_time_and_activations():
    torch.set_num_threads(1)
    costs = measure()
    base = costs["SGD"]
    for name, cost in costs.items():
        print(
            f"{name:7} step x{cost.seconds / base.seconds:.3f}, saved {cost.saved_bytes / 2**20:.1f} MiB, "
            f"{cost.parameters} parameters"
        )
    assert costs["RepSGD"].seconds <= 1.05 * base.seconds
    assert costs["CSLA"].seconds >= 1.2 * base.seconds
    assert costs["RepSGD"].saved_bytes == base.saved_bytes
