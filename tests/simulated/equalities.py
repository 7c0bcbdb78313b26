"""Problems that meet a theorem of the package with equality, many runs at once.

Each gives a `Case`: n independent runs, and the facts that the theorem reads, all of them as it asks, so that
the numbers alone decide. The mean of measured over promised is exactly 1 at every step, for any start, as
f = |W|^2/2 is the same in all directions.
"""

from dataclasses import dataclass

import numpy as np

from surefoot.guarantee import Guarantee
from surefoot.lora import guarantee as lora
from surefoot.record import Record
from surefoot.zeroth_order import guarantee as zeroth_order

CHAIN = {
    "optimizer": "SGD", "momentum": 0.0, "weight_decay": 0.0, "nesterov": False, "maximize": False,
    "max_grad_norm": 0.0, "method": "rac_lora", "dropout": 0.0, "dtype": "float64", "quantised": False,
    "gradients": "exact", "gamma": 1.0, "gamma_max": 1.0, "sketch_low": 1.0, "sketch_high": 1.0,
    "steps": 1, "precondition": False, "how_lam": "exact: symmetric exchangeable entries", "train": "B",
}  # fmt: skip
LOZO = {
    "method": "lozo", "momentum": 0.0, "num_directions": 1, "one_sided": False, "leave_one_out": False,
    "normalize": False, "c_clip": "none", "weight_decay": 0.0, "skipped_steps": False,
    "unrecorded_steps": 0, "drifts": False, "scale": "paper", "v_dist": "orthogonal", "dense_entries": 0,
}  # fmt: skip
ONES = lora.Constants(L=1.0, mu=1.0)
SLIGHT = 1e-3


def start(d):
    """Almost all weight on one coordinate."""
    return np.array([1.0] + [SLIGHT] * (d - 1))


@dataclass(frozen=True)
class Case:
    """Runs of a problem: what was measured (seeds, steps), and what they note."""

    runs: np.ndarray
    quantity: str
    facts: dict
    guarantee: Guarantee

    @property
    def record(self):
        """As what ran would have written it."""
        record = Record()
        for i, row in enumerate(self.runs):
            record.extend(i, self.quantity, row)
            record.note(i, **self.facts)
        return record

    @property
    def ratios(self):
        """Measured over promised, (seeds, steps)."""
        one = Case(self.runs[:1], self.quantity, self.facts, self.guarantee)
        return self.runs / self.guarantee.bound(one.record)


def chains(gaps, lam, sketch):
    """Chains of one row with L = mu = gamma = 1, which remove what a sketch spans."""
    facts = CHAIN | {"sketch": sketch, "lam": lam, "lam_max": lam}
    return Case(gaps, "gap", facts, lora.linear_rate(ONES))


def coordinates(n, seed, *, d=32, r=1, blocks=16):
    """Sketches that pick coordinates: each block zeroes r of d entries, so that runs are 0 or too high."""
    rng = np.random.default_rng(seed)
    picked = rng.random((n, blocks, d)).argsort(axis=2)[:, :, :r]
    alive = np.ones((n, blocks + 1, d), dtype=bool)
    for t in range(blocks):
        alive[:, t + 1] = alive[:, t]
        np.put_along_axis(alive[:, t + 1], picked[:, t], False, axis=1)
    return chains(alive @ start(d) ** 2 / 2, r / d, "coordinate")


def haar(n, seed, *, d=8, r=1, blocks=16):
    """Uniform subspaces: each block keeps a share 1 - Beta(r/2, (d - r)/2) of the gap."""
    rng = np.random.default_rng(seed)
    kept = 1 - rng.beta(r / 2, (d - r) / 2, size=(n, blocks))
    gaps = np.concatenate([np.ones((n, 1)), np.cumprod(kept, axis=1)], axis=1) / 2
    return chains(gaps, r / d, "orthonormal")


def contraction(n, seed, *, shape=(4, 8), r=2, nu=30, periods=60):
    """LOZO with orthogonal V from a rank-one difference, at the step that contracts most."""
    m, cols = shape
    rng, rho = np.random.default_rng(seed), cols / r
    rate = 1 / (rho * (m * r + 2))
    rest = np.zeros((n, m, cols))
    rest[:, 0, 0] = 1.0
    rows = [np.ones(n)]
    for _ in range(periods):
        q, upper = np.linalg.qr(rng.standard_normal((n, cols, r)))
        q = q * np.sign(np.einsum("nii->ni", upper))[:, None, :]
        back = q.transpose(0, 2, 1)
        moved = rest @ q
        rest = rest - moved @ back
        for _ in range(nu):
            u = rng.standard_normal((n, m, r))
            moved = moved - rate * rho * (moved * u).sum(axis=(1, 2), keepdims=True) * u
        rest = rest + moved @ back
        rows.append((rest**2).sum(axis=(1, 2)))
    facts = LOZO | {"lr": rate, "nu": nu, "low_rank_shapes": f"{m}x{cols} r{r} x1"}
    promised = zeroth_order.contraction_guarantee("distance")
    return Case(np.array(rows).T, "distance", facts, promised)
