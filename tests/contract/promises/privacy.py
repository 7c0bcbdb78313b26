"""Promises of surefoot.privacy."""

from tests.contract.promise import Promise

from surefoot.privacy import guarantee as privacy
from surefoot.privacy.linear_weights import DEPARTURE, additivity_claim
from surefoot.privacy.probe import UNEVEN, linearity_claim

TRAINING = {
    "noise_multiplier": 1.0, "sample_rate": 0.1, "steps": 50, "delta": 1e-5,
    "sampling": "poisson", "clipping": "per example", "adjacency": "add/remove",
}  # fmt: skip
HIDDEN = {
    **TRAINING, "releases": "last", "linearity": "OK", "optimizer": "SGD", "lr": 0.1, "momentum": 0.0,
    "weight_decay": 0.0,
}  # fmt: skip
NOT_PRIVATE = [
    {"sampling": "shuffled"}, {"clipping": "none"}, {"adjacency": "replace"}, {"claimed_steps": 10,
     "claimed_noise_multiplier": 1.0, "claimed_sample_rate": 0.1},
]  # fmt: skip
RELEASED = {
    **TRAINING, "mechanism": "poisson-subsampled gaussian", "clip_norm": 24.0, "non_finite": "zero",
    "secret_noise": True, "secret_sampling": True, "divisor": "constant", "population_public": True,
    "released": "noised scalars, weights", "private_run": "a",
}  # fmt: skip
NOT_AS_PROVEN = [
    {"mechanism": "gaussian"}, {"clip_norm": float("inf")}, {"non_finite": "skipped"},
    {"secret_noise": False}, {"secret_sampling": False}, {"divisor": "batch size"},
    {"population_public": False}, {"released": "noised scalars, loss"}, {"released": "counts"},
]  # fmt: skip
AUDITED = {"audited": [1.0]}, {"audited": [9.0]}  # proven 4.91, heuristic 4.15

PROMISES = [
    Promise(
        privacy.proven_claim,
        lambda: privacy.proven_claim("audited"),
        *AUDITED,
        # Without delta there is no number to exceed, and the bound is infinite.
        {k: v for k, v in TRAINING.items() if k != "delta"},
        NOT_PRIVATE,
        others={"delta": 1e-5, "confidence": 0.95},
    ),
    Promise(
        privacy.released_claim,
        lambda: privacy.released_claim("audited"),
        *AUDITED,
        {k: v for k, v in RELEASED.items() if k != "delta"},
        [*NOT_PRIVATE, *NOT_AS_PROVEN],
        others={"delta": 1e-5, "confidence": 0.95},
    ),
    Promise(
        privacy.heuristic_claim,
        lambda: privacy.heuristic_claim("audited"),
        *AUDITED,
        {k: v for k, v in HIDDEN.items() if k != "delta"},
        [
            *NOT_PRIVATE,
            {"releases": "all"},
            {"linearity": "violated"},
            {"optimizer": "Adam"},
            {"momentum": 0.9},
            {"forward_only": True},
            {"public_directions": True},
        ],
        others={"delta": 1e-5, "confidence": 0.95},
    ),
    Promise(
        privacy.postprocessing_claim,
        lambda: privacy.postprocessing_claim("heuristic", "standard"),
        {"heuristic": [1.0, 2.0], "standard": [1.5, 2.0]},
        {"heuristic": [1.0, 2.1]},
        why="it compares two computed numbers of one setting",
    ),
    Promise(
        linearity_claim,
        linearity_claim,
        {UNEVEN: [1.0, 1.2]},
        {UNEVEN: [1.0, 7.0]},
        unmeasured=("probed steps",),
        why="its one condition is about steps that nobody probes",
    ),
    Promise(
        additivity_claim,
        additivity_claim,
        {DEPARTURE: [1e-15]},
        {DEPARTURE: [1e-3]},
        why="it is measured on the optimizer itself, whatever it is",
    ),
]
