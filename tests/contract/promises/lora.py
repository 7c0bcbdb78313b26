"""Promises of surefoot.lora."""

import numpy as np
from tests.contract.promise import Promise

from surefoot.lora import guarantee as lora

SGD = {
    "optimizer": "SGD", "momentum": 0.0, "weight_decay": 0.0, "nesterov": False, "maximize": False,
    "max_grad_norm": 0.0,
}  # fmt: skip
NOT_SGD = [
    {"optimizer": "AdamW"}, {"momentum": 0.9}, {"weight_decay": 0.1}, {"nesterov": True}, {"maximize": True},
    {"max_grad_norm": 1.0},
]  # fmt: skip
BLOCKS = {
    **SGD, "method": "rac_lora", "dropout": 0.0, "dtype": "float32", "quantised": False,
    "gradients": "exact", "gamma": 0.5, "sketch_high": 1.0,
}  # fmt: skip
OTHERS = {
    "lam_max": 0.5, "sketch_low": 1.0, "steps": 1, "sketch": "orthonormal", "precondition": False,
}  # fmt: skip
OTHERWISE = [
    *NOT_SGD, {"method": "lora"}, {"dropout": 0.1}, {"dtype": "bfloat16"}, {"gradients": "drawn"},
    {"gamma": 5.0}, {"objection": "somebody merged by hand"},
]  # fmt: skip
EXACT = {"lam": 0.5, "how_lam": "exact: by symmetry"}
MEAN = {"seeds": 40, "spread": 0.01}


def constants():
    return lora.Constants(L=1.0, mu=1.0)


def terms(seed):
    return np.ones((1, 2)), np.ones((1, 2))


PROMISES = [
    Promise(
        lora.descent,
        lambda: lora.descent(constants()),
        {"loss": [1.0, 0.6, 0.3], "projected_grad_norm2": [1.0, 0.5]},  # falls by .375 of it
        {"loss": [1.0, 0.7, 0.3]},
        BLOCKS,
        OTHERWISE,
        others={**OTHERS, **EXACT},
        numbers=("smooth",),
    ),
    Promise(
        lora.stationarity,
        lambda: lora.stationarity(constants()),
        {"mean_grad_norm2": [3.0, 2.0, 1.0], "gap": [1.0, 0.5, 0.25, 0.1]},  # at most 8 / T
        {"mean_grad_norm2": [20.0] * 3},
        {**BLOCKS, **EXACT},
        [*OTHERWISE, {"method": "asymm_lora"}, {"lam": 0.0}],
        others=OTHERS,
        starts={"mean_grad_norm2": 1},
        numbers=("smooth",),
        **MEAN,
    ),
    Promise(
        lora.linear_rate,
        lambda: lora.linear_rate(constants()),
        {"gap": [1.0, 0.5, 0.25]},  # at most .75^T
        {"gap": [1.0, 1.0, 1.0]},
        {**BLOCKS, **EXACT},
        [*OTHERWISE, {"method": "asymm_lora"}, {"lam": 0.0}],
        others=OTHERS,
        numbers=("smooth", "PL"),
        **MEAN,
    ),
    Promise(
        lora.free_estimate,
        lora.free_estimate,
        {"grad_norm2_estimate": [1.0, 2.0], "grad_norm2": [1.0, 2.0]},
        {"grad_norm2_estimate": [3.0, 6.0]},
        {"method": "rac_lora", "sketch": "orthonormal", "dropout": 0.0, "gradients": "exact"},
        [{"method": "lora"}, {"sketch": "mine"}, {"dropout": 0.1}, {"gradients": "drawn"}],
        **MEAN,
    ),
    Promise(
        lora.factor_smoothness,
        lambda: lora.factor_smoothness(1.0),
        {"local_smoothness": [3.0, 4.0]},
        {"local_smoothness": [3.0, 4.1]},
        {"method": "rac_lora", "sketch_high": 1.0, "precondition": False},
        [{"method": "lora"}, {"sketch_high": 2.0}, {"precondition": True, "sketch": "gaussian"}],
        others={"scaling": 2.0, "sketch": "orthonormal"},
    ),
    Promise(
        lora.lora_curvature,
        lambda: lora.lora_curvature(1.0),
        # At most s^2 (|A|^2 + |B|^2) + s |G| = 10.
        {"local_smoothness": [9.0], "norm_A": [1.0], "norm_B": [1.0], "norm_G": [1.0]},
        {"local_smoothness": [10.1]},
        {"method": "lora"},
        [{"method": "rac_lora"}],
        others={"scaling": 2.0},
    ),
    Promise(
        lora.asymm_limit,
        lambda: lora.asymm_limit(terms),
        {"limit": [-0.5], "row": [1.0, 1.0]},
        {"limit": [-0.4]},
        {**SGD, "method": "asymm_lora", "rank": 1},
        [*NOT_SGD, {"method": "rac_lora"}, {"rank": 2}],
    ),
]
