"""Promises of surefoot.zeroth_order."""

from tests.contract.promise import Promise

from surefoot.zeroth_order import federated_guarantee as federated
from surefoot.zeroth_order import guarantee as zeroth_order
from surefoot.zeroth_order import private_guarantee as private
from surefoot.zeroth_order._engine.recording import MEAN_SQUARED, SQUARED_DIRECTION, WEIGHED
from surefoot.zeroth_order.bounds import lozo_contraction

RUN = {
    "method": "lozo", "momentum": 0.0, "num_directions": 1, "one_sided": False, "leave_one_out": False,
    "normalize": False, "c_clip": "none", "weight_decay": 0.0, "skipped_steps": False,
    "unrecorded_steps": 0, "drifts": False, "lr": 1e-3, "nu": 1, "scale": "paper",
    "v_dist": "orthogonal", "low_rank_shapes": "8x12 r2 x1", "dense_entries": 0,
    "products": "float32",
}  # fmt: skip
OTHERWISE = [
    {"method": "zo-adam"}, {"momentum": 0.9}, {"num_directions": 2}, {"one_sided": True},
    {"leave_one_out": True}, {"normalize": True}, {"c_clip": 1.0}, {"weight_decay": 0.1},
    {"skipped_steps": True},
    {"unrecorded_steps": 3}, {"drifts": True},
]  # fmt: skip
PRIVATE = {
    "scale": "unit", "v_dist": "gaussian", "clipping": "per example", "sampling": "poisson",
    "divisor": "constant",
}  # fmt: skip
PER_PERIOD = lozo_contraction(8, 12, 2, 1e-3, 1, "orthogonal")

PROMISES = [
    Promise(
        zeroth_order.gradient_guarantee,
        lambda: zeroth_order.gradient_guarantee(L=1.0, sigma2=0.0, delta0=1.0),
        {MEAN_SQUARED: [1.0, 0.9, 0.8], "fd_error": [1e-3] * 3},
        {MEAN_SQUARED: [1e9, 1e9, 1e9]},
        RUN,
        [*OTHERWISE, {"v_dist": "gaussian"}, {"lr": 1.0}, {"products": "bfloat16"}],
        seeds=12,
        spread=0.01,
        numbers=("linear over the perturbation",),
    ),
    Promise(
        zeroth_order.contraction_guarantee,
        lambda: zeroth_order.contraction_guarantee("distance"),
        {"distance": [PER_PERIOD**k for k in range(4)]},
        {"distance": [3 * PER_PERIOD**k for k in range(4)]},
        RUN,
        [
            *OTHERWISE,
            {"low_rank_shapes": "8x12 r2 x2"},
            {"dense_entries": 5},
            {"nu": 2, "v_dist": "gaussian"},
        ],
        seeds=12,
        spread=0.01,
    ),
    Promise(
        private.descent_guarantee,
        lambda: private.descent_guarantee(L=1.0, delta0=1.0),
        {
            WEIGHED: [1.0, 0.9, 0.8],
            "c": [0.1] * 3,
            SQUARED_DIRECTION: [96.0] * 3,
            "fd_error": [1e-3] * 3,
        },
        {WEIGHED: [1e9, 1e9, 1e9]},
        {**RUN, **PRIVATE},
        [
            *OTHERWISE,
            {"scale": "paper"},
            {"clipping": "none"},
            {"sampling": "shuffled"},
            {"divisor": "the batch"},
        ],
        seeds=12,
        spread=0.01,
        numbers=("linear over the perturbation", "constants"),
    ),
    Promise(
        federated.scalar_wire,
        federated.scalar_wire,
        {
            federated.WIRE: [2 * 128 + 2 * 144.0, 4 * 144.0],
            "messages": [2, 2],
            "replies": [2, 2],
            "rounds lacking": [0, 2],
        },
        {federated.WIRE: [2 * 128 + 2 * 144.0, 4 * 144.0 + 8]},
        {"protocol": "scalars"},
        [{"protocol": "arrays"}],
        others={"directions": 2},
    ),
    Promise(
        federated.scalar_pooled,
        federated.scalar_pooled,
        {federated.ULPS: [0.0, 1.0]},
        {federated.ULPS: [0.0, 2.0]},
        {"participation": "all", "noise": "none", "local_steps": 1, "losses_in": "float64"},
        [
            {"participation": "some"},
            {"noise": "by the sites"},
            {"local_steps": 2},
            {"losses_in": "float32"},
        ],
    ),
    Promise(
        federated.scalar_replay,
        federated.scalar_replay,
        {federated.APART: [0.0]},
        {federated.APART: [1.0]},
        {"run_on": "2.13 cpu", "replayed_on": "2.13 cpu"},
        [{"replayed_on": "2.13 cuda"}],
    ),
]
