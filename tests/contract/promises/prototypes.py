"""Promises of surefoot.prototypes."""

from tests.contract.promise import Promise

from surefoot.prototypes import guarantee as prototypes

RELEASED = {
    "epsilon": 4.0, "delta": 1e-5, "method": "mean", "clipped_to_clip": True,
    "noise_source": "operating system", "beside": "class sizes",
}  # fmt: skip
NOT_PRIVATE = [
    {"method": "cluster"}, {"method": "cluster_var"}, {"clipped_to_clip": False},
    {"noise_source": "seed"}, {"beside": "class sizes and coverage"}, {"epsilon": 0.0}, {"delta": 1.0},
]  # fmt: skip
CERTIFIED = {"solver": "certified", "batch": "all rows", "dtype": "float64"}
UNCERTIFIED = [{"solver": "adamw"}, {"batch": "mini-batches"}, {"dtype": "float32"}]
DESCENT = {
    "loss": [1.0, 0.75, 0.6], "gradient norm squared": [0.5, 0.2], "step size": [1.0, 1.0],
}  # fmt: skip

PROMISES = [
    Promise(
        prototypes.pooled_identity,
        prototypes.pooled_identity,
        {"weights that differ": [0.0]},
        {"weights that differ": [1.0]},
        {"ratio": 1.0, "method": "random", "private": False, "sampler": "none"},
        [{"ratio": 0.3}, {"method": "mean"}, {"private": True}, {"sampler": "additive"}],
    ),
    Promise(
        prototypes.private_upload,
        prototypes.private_upload,
        {"noise multiplier": [1.0812]},  # nu(4, 1e-5) = 1.081162
        {"noise multiplier": [1.0811]},
        RELEASED,
        NOT_PRIVATE,
    ),
    Promise(
        prototypes.distinguishing_advantage,
        prototypes.distinguishing_advantage,
        {"advantage, lower limit": [0.356]},  # 2 Phi(1/(2 nu)) - 1 = 0.35625
        {"advantage, lower limit": [0.357]},
        RELEASED,
        NOT_PRIVATE,
    ),
    Promise(
        prototypes.armijo_descent,
        prototypes.armijo_descent,
        DESCENT,
        {"loss": [1.0, 0.76, 0.6]},
        CERTIFIED,
        UNCERTIFIED,
    ),
    Promise(
        prototypes.stationary_point,
        prototypes.stationary_point,
        {**DESCENT, "least gradient norm squared": [0.5, 0.2]},
        {"least gradient norm squared": [0.5, 0.41]},
        CERTIFIED,
        UNCERTIFIED,
        starts={"least gradient norm squared": 1},
    ),
    Promise(
        prototypes.coverage_bound,
        prototypes.coverage_bound,
        {
            "risk gap": [0.1],
            "coverage bound": [0.3],
            "trivial gap": [20.0],
            "risk on the records": [1.0],
        },
        {"risk gap": [0.31]},
        {
            "assignment": "nearest of class and client",
            "weights": "assigned shares",
            "loss": "cross-entropy",
        },
        [{"assignment": "nearest"}, {"weights": "equal"}, {"loss": "squared error"}],
    ),
    Promise(
        prototypes.communication,
        prototypes.communication,
        {"bytes up": [800.0], "promised bytes up": [800.0]},
        {"bytes up": [804.0]},
        {"dtype": "float32"},
        [{"dtype": "float64"}],
    ),
    Promise(
        prototypes.wire_communication,
        prototypes.wire_communication,
        {prototypes.WIRE_UP: [1056.0], f"promised {prototypes.WIRE_UP}": [1056.0]},
        {prototypes.WIRE_UP: [928.0]},
        {"dtype": "float32"},
        [{"dtype": "float64"}],
    ),
]
