"""The theorems of a chain as `Guarantee`s: what is promised of a record of blocks.

Columns of the record, over seeds and blocks t = 0, 1, ...: `loss` f(W^t); `gap` f(W^t) - f*;
`mean_grad_norm2` the mean of ||grad f||^2 over W^0 ... W^{T-1}, at T >= 1;
`projected_grad_norm2` and `grad_norm2_estimate` of the block that starts at t.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from surefoot.guarantee import Assumption, Guarantee
from surefoot.lora.bounds import RateLaw, asymm_floor, largest_step, lora_smoothness, rac_bound
from surefoot.record import Record

PAPER = "arXiv 2410.08305"
DERIVED = f"{PAPER}, derived here"
SLACK = 1 + 1e-6  # a sketch in float32 is orthonormal to seven digits


@dataclass(frozen=True)
class Constants:
    """What the theorems need to know, and how it came to be known.

    `how_L`, `how_mu` and `how_sigma2` beginning with "exact" are believed; anything else counts as
    an estimate that nobody can certify. `reasons` are what the theorems do not cover about the run.
    """

    L: float
    gamma: float
    lam: float
    lam_max: float | None = None
    mu: float | None = None
    sigma2: float = 0.0
    local_steps: int = 1
    sketch_low: float = 1.0
    sketch_high: float = 1.0
    how_L: str = "exact"
    how_mu: str = "exact"
    how_sigma2: str = "exact"
    how_lam: str = "exact: symmetric exchangeable entries"
    reasons: tuple[str, ...] = ()

    def assumptions(self, law: RateLaw) -> tuple[Assumption, ...]:
        """The conditions that every rate shares."""
        most = largest_step(law, self.L, self.local_steps)
        name = "1/L" if law in ("gd", "sgd") else "1/(2 L N)"
        step = self.gamma * self.sketch_high
        smooth, sketches = "f is L-smooth in the adapted weights", "E[H] >= lam I, drawn afresh"
        found = [
            _measured("smooth", smooth, self.L, self.how_L),
            Assumption(
                "step size", f"gamma <= {name} = {most:.6g}", step, step <= most * SLACK,
                "learning rates",
            ),
            _measured("sketches", sketches, self.lam, self.how_lam),
        ]  # fmt: skip
        if law != "gd":
            found.append(_measured("noise", "variance <= sigma2", self.sigma2, self.how_sigma2))
        found += [
            Assumption("method", "as in the theorem", None, False, reason)
            for reason in self.reasons
        ]
        return tuple(found)

    def pl(self) -> tuple[Assumption, ...]:
        """The Polyak-Lojasiewicz condition."""
        return (_measured("PL", "|grad f|^2 >= 2 mu (f - f*)", self.mu, self.how_mu),)


def _measured(name: str, requires: str, value: float | None, how: str) -> Assumption:
    return Assumption(name, requires, value, True if how.startswith("exact") else None, how)


def descent(c: Constants, name: str = "one-block descent (G1)") -> Guarantee:
    """G1: f(W^{t+1}) <= f(W^t) - gamma (1 - L gamma / 2) ||G H||^2 in every block of every run.

    For sketches that are not orthonormal the eigenvalues of S^T S, between `sketch_low` and
    `sketch_high`, take their toll: low in front, high beside L gamma.
    """

    def bound(record: Record) -> Float[np.ndarray, "seeds steps"]:
        loss, moved = record["loss"], record["projected_grad_norm2"]
        factor = c.gamma * c.sketch_low * (1 - c.L * c.gamma * c.sketch_high / 2)
        steps = loss.shape[1]
        return np.concatenate([loss[:, :1], loss[:, :-1] - factor * moved[:, : steps - 1]], axis=1)

    return Guarantee(
        name, "f(W') <= f(W) - g (1 - L g/2) |G H|^2", DERIVED, "loss", "upper", "every run", bound,
        lambda record: c.assumptions("gd"), atol=1e-12,
        latex=r"f(W^{t+1}) \le f(W^t) - \gamma (1 - L\gamma/2) \|G H\|_F^2",
    )  # fmt: skip


def _rate(
    c: Constants, law: RateLaw, which: str
) -> Callable[[Record], Float[np.ndarray, "seeds steps"]]:
    def bound(record: Record) -> Float[np.ndarray, "seeds steps"]:
        quantity = "gap" if which == "gap" else "mean_grad_norm2"
        # Outside its range the theorem says nothing; the assumption reports that, not the curve.
        gamma = min(c.gamma, largest_step(law, c.L, c.local_steps))
        promised = rac_bound(
            record.curves(quantity).steps, law, L=c.L, gamma=gamma, lam=c.lam, gap0=1.0, mu=c.mu,
            lam_max=c.lam_max, local_steps=c.local_steps,
        )  # fmt: skip
        floor = rac_bound(
            1, law, L=c.L, gamma=gamma, lam=c.lam, gap0=0.0, mu=c.mu, lam_max=c.lam_max,
            sigma2=c.sigma2, local_steps=c.local_steps,
        )  # fmt: skip
        start = record["gap"][:, :1]
        curve, rest = getattr(promised, which), getattr(floor, which)
        return np.asarray(start * np.asarray(curve)[None, :] + float(rest))

    return bound


STATEMENTS: dict[RateLaw, tuple[str, str, str]] = {
    "gd": ("G2", "G3", f"{PAPER}, Theorems 5.3 and 5.5"),
    "sgd": ("G4", "G4", DERIVED),
    "rr": ("G5", "G5", DERIVED),
    "fed": ("G6", "G6", DERIVED),
}


def stationarity(c: Constants, law: RateLaw = "gd", name: str | None = None) -> Guarantee:
    """G2 (G4, G5 for "sgd", "rr"): the mean squared gradient along the chain falls as 1/T."""
    number, _, source = STATEMENTS[law]
    formula = {
        "gd": "2 D0 / (lam g T)",
        "sgd": "2 D0 / (lam g T) + g L sigma2 lam_max / lam",
    }.get(law, "8 D0 / (3 g N lam T) + 4/3 g^2 L^2 N sigma2 lam_max / lam")
    return Guarantee(
        name or f"stationarity ({number})", f"E |grad f(W~)|^2 <= {formula}", source,
        "mean_grad_norm2", "upper", "expectation", _rate(c, law, "grad_norm2"),
        lambda record: c.assumptions(law),
    )  # fmt: skip


def linear_rate(c: Constants, law: RateLaw = "gd", name: str | None = None) -> Guarantee:
    """G3 (G4, G5): under PL the gap falls geometrically, at gradient descent's rate times lam."""
    if c.mu is None:
        raise ValueError("the linear rate needs mu; without it there is only stationarity(...)")
    _, number, source = STATEMENTS[law]
    formula = {
        "gd": "(1 - g mu lam)^T D0",
        "sgd": "(1 - g mu lam)^T D0 + g L sigma2 lam_max / (2 mu lam)",
    }.get(law, "(1 - 3/4 g N mu lam)^T D0 + 2/3 g^2 L^2 N sigma2 lam_max / (mu lam)")
    return Guarantee(
        name or f"linear rate ({number})", f"E f(W^T) - f* <= {formula}", source,
        "gap", "upper", "expectation", _rate(c, law, "gap"),
        lambda record: (*c.assumptions(law), *c.pl()),
    )  # fmt: skip


def free_estimate(tolerance: float = 0.03, name: str = "free gradient norm (G7)") -> Guarantee:
    """G7: (d/r) tr(gB (A A^T)^+ gB^T) / s^2 is ||G||_F^2 in the mean over the sketches.

    Columns `grad_norm2_estimate` and, measured in full, `grad_norm2`.
    """
    return Guarantee(
        name, "E (d/r) |dL/dB|^2 / s^2 = |grad f|^2", DERIVED, "grad_norm2_estimate", "equal",
        "expectation", lambda record: record["grad_norm2"], tolerance=tolerance,
    )  # fmt: skip


def factor_smoothness(s: float, L: float, name: str = "smooth factors (G8)") -> Guarantee:
    """G8: with one factor orthonormal and frozen, the loss is s^2 L-smooth in the other, always.

    Column `local_smoothness`, the Hessian's norm in the trained factors.
    """
    return Guarantee(
        name, "|Hessian in the trained factor| <= s^2 L", DERIVED, "local_smoothness", "upper",
        "every run", lambda record: s**2 * L, tolerance=1e-6,
    )  # fmt: skip


def lora_curvature(s: float, L: float, name: str = "curvature of LoRA (G8)") -> Guarantee:
    """G8 for LoRA: the Hessian in (A, B) is at most s^2 L (|A|^2 + |B|^2) + s |G|, which grows.

    Columns `local_smoothness` and the spectral norms `norm_A`, `norm_B`, `norm_G`.
    """

    def bound(record: Record) -> Float[np.ndarray, "seeds steps"]:
        norms = [record[k] for k in ("norm_A", "norm_B", "norm_G")]
        return np.asarray(np.vectorize(lora_smoothness)(s, L, *norms))

    return Guarantee(
        name, "|Hessian in (A, B)| <= s^2 L (|A|^2 + |B|^2) + s |G|", DERIVED, "local_smoothness",
        "upper", "every run", bound, tolerance=1e-6,
    )  # fmt: skip


def asymm_limit(
    M: Float[np.ndarray, "m n"],
    b: Float[np.ndarray, "m n"],
    a: Callable[[int], Float[np.ndarray, " n"]],
    tolerance: float = 1e-8,
    name: str = "where AsymmLoRA ends (G9)",
) -> Guarantee:
    """G9: AsymmLoRA on sum M W^2 + b W ends at the minimum over its row space; `a(seed)` is its row.

    Column `limit`, the loss at the end of the run.
    """

    def bound(record: Record) -> Float[np.ndarray, "seeds 1"]:
        return np.array([[asymm_floor(M, b, a(int(s)))] for s in record.curves("limit").seeds])

    return Guarantee(
        name, "f = - sum_i (sum_j b_ij a_j)^2 / (4 sum_j M_ij a_j^2)", DERIVED, "limit", "equal",
        "every run", bound, tolerance=tolerance,
    )  # fmt: skip
