"""Promises of surefoot.nesterov."""

from math import sqrt

from tests.contract.promise import Promise

from surefoot.nesterov import guarantee as nesterov

MU, L = 1.0, 20.0
S = sqrt(MU / L)
PROBLEM = {"mu": MU, "L": L, "how": "exact", "every_run": True}
METHOD = {
    "optimizer": "NAG", "start": "rest", "hyperparameters_changed": False, "weight_decay": 0.0,
    "maximize": False, "all_parameters": True,
}  # fmt: skip
OTHERWISE = [
    {"optimizer": "SGD"}, {"start": "moving"}, {"hyperparameters_changed": True}, {"weight_decay": 0.1},
    {"maximize": True}, {"all_parameters": False}, {"may_skip_steps": True},
]  # fmt: skip
NAG = {"eta": 1 / L, "alpha": 1 / L, "rho": (1 - S) / (1 + S)}
SILENT = {"sigma_mult": 0.0, "sigma_add": 0.0}
FALLS, STAYS = [0.5**n for n in range(8)], [1.0] + [0.9] * 7

PROMISES = [
    Promise(
        nesterov.accelerated_rate,
        lambda: nesterov.accelerated_rate(**PROBLEM),
        {nesterov.GAP: FALLS},
        {nesterov.GAP: STAYS},
        {**METHOD, **NAG, **SILENT},
        [*OTHERWISE, {"rho": 0.1}, {"sigma_mult": 3.0}],
        numbers=("f* is the infimum",),
    ),
    Promise(
        nesterov.curved_rate,
        nesterov.curved_rate,
        {nesterov.GAP: FALLS},
        {nesterov.GAP: STAYS},
        METHOD,
        OTHERWISE,
        others=NAG,
        seeds=12,
        spread=0.01,
    ),
    Promise(
        nesterov.strongly_convex_rate,
        lambda: nesterov.strongly_convex_rate(mu=MU, L=L, how="exact"),
        {nesterov.GAP: FALLS},
        {nesterov.GAP: STAYS},
        {**METHOD, **NAG, **SILENT},
        [
            *OTHERWISE,
            {"rho": 0.1},
            {"alpha": 0.02},
            {"eta": 0.1},
            {"sigma_mult": 3.0},
            {"sigma_add": 0.1},
        ],
        numbers=("f* is the infimum",),
    ),
    Promise(
        nesterov.decreasing_rate,
        lambda: nesterov.decreasing_rate(**PROBLEM),
        {nesterov.GAP: FALLS},
        {nesterov.GAP: STAYS},
        {**METHOD, "optimizer": "DecreasingNAG", "mu": MU, "L": L, **SILENT},
        [*OTHERWISE, {"mu": 2.0}, {"L": 10.0}, {"sigma_mult": 0.5}],
        numbers=("f* is the infimum",),
    ),
]
