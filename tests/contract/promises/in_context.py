"""Promises of surefoot.in_context."""

from tests.contract.promise import Promise

from surefoot.in_context import guarantee as g
from surefoot.in_context.prompts import LAW

# d = 1, n = 10^6, one loop: c = .7155, and not vacuous.
SIZES = {"d": 1, "n": 10**6, "loops": 1}
TASK = {"law": LAW, "noise": 0.0, "tied": True}
OTHER_LAW = {"law": "x ~ N(0, S), w ~ N(0, I)"}
SPOILS = [OTHER_LAW, {"noise": 0.5}, {"tied": False}]
PLANE = {"d": 2, "n": 20, "loops": 2}
"""The loss at 0 is 2, at b* .2169."""
FLOW = {
    "loss": [2.0, 1.0, 0.5], "dominance_ratio": [5.0, 3.0, 1.5], "asymmetry": [0.0] * 3,
    "least_loss": [0.2],
}  # fmt: skip
LOOPS = {
    "asymmetry": [0.0], "least_eigenvalue": [0.5], "off_scalar": [0.0], "condition": [2.0],
    "step": [0.7], "largest": [0.7],
}  # fmt: skip

PROMISES = [
    Promise(
        g.minimiser_near_inverse, g.minimiser_near_inverse,
        {"minimiser_distance": [0.1], "loss_ratio": [1.001]}, {"minimiser_distance": [0.8]},
        {**SIZES, **TASK}, [*SPOILS, {"d": 0}, {"n": 0.5}, {"loops": 0}],
        numbers=("a global minimiser",),
    ),
    Promise(
        g.bias_cost, g.bias_cost, {"bias_z": [1.2]}, {"bias_z": [8.0]}, {"law": LAW}, [OTHER_LAW],
    ),
    Promise(
        g.gradient_dominance, g.gradient_dominance, FLOW, {"dominance_ratio": [5.0, 0.01, 1.5]},
        {**TASK, "sigma": "identity"}, [*SPOILS, {"sigma": "given"}],
        numbers=("symmetric A above the floor",),
    ),
    Promise(
        g.scalar_dominance, g.scalar_dominance, FLOW, {"dominance_ratio": [5.0, 0.01, 1.5]},
        {**PLANE, **TASK, "sigma": "identity", "path": "b I"},
        [*SPOILS, {"sigma": "given"}, {"path": "any"}, {"d": 0}, {"n": 0}, {"loops": 0}],
    ),
    Promise(
        g.flow_time_bound, g.flow_time_bound, {**FLOW, "flow_time": [0.0, 0.2, 0.5]},
        {"flow_time": [0.0, 0.2, 40.0]},
        {**PLANE, **TASK, "sigma": "identity", "method": "gradient flow", "start": "A = 0"},
        [*SPOILS, {"sigma": "given"}, {"method": "Adam"}, {"start": "other"}, {"loops": 0}],
    ),
    Promise(
        g.exact_optimum_reached, g.exact_optimum_reached, {"loss_ratio": [1.0005]},
        {"loss_ratio": [1.09]}, {"law": LAW, "noise": 0.0}, [OTHER_LAW, {"noise": 0.1}],
    ),
    Promise(
        g.prompts_contract, g.prompts_contract, {**LOOPS, "contraction": [1.0, 0.99, 0.9]},
        {"contraction": [1.0, 1.01, 0.9]}, {"noise": 0.0, "tied": True, "u": "zero"},
        [{"noise": 0.1}, {"tied": False}, {"u": "trained"}],
        numbers=("symmetric A", "positive definite A"),
    ),
    Promise(
        g.mean_over_loops, g.mean_over_loops, {**LOOPS, "loops_loss": [2.0, 0.33, 0.1]},
        {"loops_loss": [2.0, 9.0, 9.0]}, {**PLANE, **TASK, "u": "zero"},
        [*SPOILS, {"u": "trained"}, {"d": 0}, {"n": 0}, {"loops": 0}],
        numbers=("A = b S^-1",), seeds=12, spread=0.02,
    ),
    Promise(
        g.diverging_prompts, g.diverging_prompts, {**LOOPS, "diverging": [0.001]},
        {"diverging": [0.9]}, {"d": 2, "n": 20, "law": LAW}, [OTHER_LAW, {"d": 0}, {"n": 0}],
        numbers=("symmetric A", "positive definite A"), seeds=30, spread=0.05,
    ),
]  # fmt: skip
