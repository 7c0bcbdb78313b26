"""Promises of surefoot.kan."""

from tests.contract.promise import Promise

from surefoot.kan import guarantee as kan

# lambda0 = 1, lambda_max = 2, |r0| = .01: Lambda may be 10.3, R = .0283, eta 1/(1.44^2 + .01) = .48.
START = {
    "lambda0": [1.0], "lambda_max": [2.0], "Lambda": [1.0], "r0": [0.01], "rounding_floor": [0.0],
}  # fmt: skip
LOSS = [5e-5, 2e-5, 1e-5, 5e-6]  # T1: times .8 a step
PATH = {
    **START, "loss": LOSS, "moved": [0.0, 0.005, 0.006, 0.007], "lambda_min": [1.0, 0.99, 0.98, 0.98],
    "drift": [0.0, 0.01, 0.01, 0.01], "forecast": LOSS, "reanchored": LOSS,
}  # fmt: skip
READ = {
    "method": "gradient descent",
    "dtype": "float64",
    "eta": 0.4,
    "spline_order": 3,
    "pde_order": 0,
}
SPOILS = [
    {"method": "other: steps are off -eta grad L by 40.0% of it"}, {"method": "AdamW"},
    {"method": "stochastic gradient descent"}, {"dtype": "float32"}, {"eta": 0.5}, {"eta": -0.1},
    {"spline_order": 1}, {"pde_order": 2},
]  # fmt: skip
NUMBERS = ("positive definite K", "wide enough")
FORECAST = {"method": "gradient descent", "eta": 0.4}
FORECAST_SPOILS = [{"method": "AdamW"}, {"eta": 0.51}, {"eta": 0.0}]

MANY = {
    **START, "r0": [0.001], "largest_row": [1.0], "rho": [0.29], "Lambda_rho": [1.0],
    "stopped_loss": [5e-7, 3e-7, 2e-7, 1e-7], "loss": [5e-7, 3e-7, 2e-7, 1e-7],
    "mean_forecast": [5e-7, 3e-7, 2e-7, 1e-7], "drift": [0.0, 0.01, 0.01, 0.01],
}  # fmt: skip
DRAWN = {
    "method": "stochastic gradient descent", "sampling": "with replacement", "dtype": "float64",
    "spline_order": 3, "pde_order": 0, "eta": 0.01, "n": 4, "batch": 2,
}  # fmt: skip
DRAWN_SPOILS = [
    {"method": "gradient descent"}, {"sampling": "a permutation an epoch"}, {"dtype": "float32"},
    {"spline_order": 1}, {"pde_order": 2}, {"eta": 0.1},
]  # fmt: skip


def of_run(factory, fault, *, at=None):
    """One of T1's, which share their conditions."""
    return Promise(
        factory, factory if at is None else lambda: factory()[at], PATH, fault, READ, SPOILS,
        numbers=NUMBERS,
    )  # fmt: skip


def of_forecast(anchor, at, fault):
    numbers = ("little drift",) if anchor == "start" else ()
    return Promise(
        kan.spectral_forecast, lambda: kan.spectral_forecast(anchor=anchor)[at], PATH, {"loss": fault},
        FORECAST, FORECAST_SPOILS, numbers=numbers,
    )  # fmt: skip


PROMISES = [
    of_run(kan.linear_rate, {"loss": [5e-5, 4.1e-5, 1e-5, 5e-6]}),
    # Within the rate from the start, and yet one step rises.
    of_run(kan.contraction, {"loss": [5e-5, 2e-5, 1e-5, 1.1e-5]}),
    of_run(kan.confinement, {"moved": [0.0, 0.01, 0.029, 0.029]}),
    of_run(kan.conditioning, {"lambda_min": [1.0, 0.8, 0.6, 0.49]}),
    of_forecast("start", 0, [5e-5, 2e-5, 1e-5, 3e-5]),
    of_forecast("start", 1, [5e-5, 2e-5, 1e-5, 1e-6]),
    of_forecast("checkpoint", 0, [5e-5, 2e-5, 1e-5, 1.6e-5]),
    of_forecast("checkpoint", 1, [5e-5, 2e-5, 1e-5, 1.6e-6]),
    Promise(
        kan.stochastic_linear_rate, kan.stochastic_linear_rate, MANY,
        {"stopped_loss": [5e-7, 5e-6, 5e-6, 5e-6]}, DRAWN, DRAWN_SPOILS,
        numbers=("positive definite K",), seeds=12, spread=0.05,
    ),
    Promise(
        kan.stays_in_ball, kan.stays_in_ball,
        {**MANY, "r0": [0.004], "left": [0.0, 0.01, 0.01, 0.01]},  # p = .28
        {"left": [0.0, 0.8, 0.8, 0.8]}, DRAWN, DRAWN_SPOILS,
        numbers=("positive definite K",), seeds=30, spread=0.05,
    ),
    Promise(
        kan.mean_forecast, kan.mean_forecast, MANY, {"loss": [5e-7, 3e-6, 3e-6, 3e-6]},
        {k: DRAWN[k] for k in ("method", "sampling", "eta")},
        [{"method": "AdamW"}, {"sampling": "a permutation an epoch"}, {"eta": 0.0}],
        numbers=("little drift", "forecast that falls"), seeds=12, spread=0.05,
    ),
]  # fmt: skip
