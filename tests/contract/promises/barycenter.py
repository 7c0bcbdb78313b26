"""Promises of surefoot.barycenter."""

import math

from tests.contract.promise import Promise

from surefoot.barycenter import guarantee as barycenter

PATH = {
    "F": [3.0, 2.0, 1.5], "grad2": [1.0, 0.5, 0.1], "rounding": [0.0] * 3,
    "lambda_min": [1.0] * 3, "lambda_max": [2.0] * 3, "alpha": [0.5], "beta": [3.0], "tau": [1.0],
    "step": [1.0, 1.0],
}  # fmt: skip
STARTS = {"step": 1, "reached": 1, "least_grad2": 1}
READ_OFF = ("steps up to 1", "start among the inputs")

PROMISES = [
    Promise(
        barycenter.descent,
        barycenter.descent,
        {**PATH, "reached": [2.5, 1.7]},  # at most F - grad2 / 2
        {"reached": [2.6, 1.7]},
        {"descends": True},
        [{"descends": False}],
        starts=STARTS,
    ),
    Promise(
        barycenter.stationarity,
        barycenter.stationarity,
        {**PATH, "reached": [2.0, 1.5], "least_grad2": [2.0, 1.5]},  # at most 2 (F_0 - F_K) / K
        {"least_grad2": [2.0, 1.6]},
        {"descends": True},
        [{"descends": False}],
        starts=STARTS,
        numbers=("unit steps", "one objective"),
    ),
    Promise(
        barycenter.confinement,
        lambda: barycenter.confinement()[0],
        PATH,
        {"lambda_max": [2.0, 3.1, 2.0]},
        {"geodesic": True},
        [{"geodesic": False}],
        starts=STARTS,
        numbers=READ_OFF,
    ),
    Promise(
        barycenter.confinement,
        lambda: barycenter.confinement()[1],
        PATH,
        {"lambda_min": [1.0, 0.01, 1.0]},
        {"geodesic": True},
        [{"geodesic": False}],
        starts=STARTS,
        numbers=(*READ_OFF, "regular inputs"),
    ),
    Promise(
        barycenter.rate,
        barycenter.rate,
        {**PATH, "excess": [1.0, 0.1, 0.01]},
        {"excess": [1.0, 1.0, 1.0]},
        {"mass": "fixed", "geodesic": True},
        [{"mass": "free"}, {"geodesic": False}],
        starts=STARTS,
        numbers=("unit steps", "regular inputs", "start among the inputs"),
    ),
    Promise(
        barycenter.optimality,
        barycenter.optimality,
        {**PATH, "optimality_gap": [1.5, 0.6, 0.1], "excess": [1.0, 0.5, 0.0]},
        {"optimality_gap": [1.5, 0.4, 0.1]},
        {"mass": "fixed"},
        [{"mass": "free"}],
        starts=STARTS,
    ),
    Promise(
        barycenter.influence,
        lambda: barycenter.influence()[0],
        # At most exp(-U) = .37 for the second input.
        {"weight": [0.7, 0.3], "upsilon": [0.0, 1.0], "lam": [0.5, 0.5], "temperature": [1.0]},
        {"weight": [0.6, 0.4]},
        {"mass": "free"},
        [{"mass": "fixed"}],
        seeds=1,
    ),
    Promise(
        barycenter.influence,
        lambda: barycenter.influence()[1],
        {"stretch": [1.2, 1.6], "lambda_min": [2.0], "tau": [4.0]},  # at most (1 + sqrt(5)) / 2
        {"stretch": [1.2, 1.7]},
        {"tau": 4.0},
        [{"tau": math.inf}],
        seeds=1,
        numbers=("regular barycenter",),
    ),
]
