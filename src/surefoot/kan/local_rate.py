"""Whether T1 holds at the start, with every number: the local rate of a model on its data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot.guarantee import Assumption
from surefoot.kan import bounds
from surefoot.kan.problem import Normalisation, Problem, as_problem, parameters_of
from surefoot.kan.spectrum import SINGULAR, Tangent, tangent_of

LISTED = 10
DISTINCT, POSITIVE, SMOOTH, WIDE = (
    "distinct inputs", "positive definite K", "Lipschitz Jacobian", "wide enough",
)  # fmt: skip


@checked(nan=True)
@dataclass(frozen=True)
class LocalRate:
    """T1 at one start: constants, what they permit, and which of its conditions fail.

    Attributes
    ----------
    lambda0
        The smallest eigenvalue of K.
    lambda_max
        The largest one.
    beta
        A bound of |J| on the ball of radius R.
    Lambda
        A bound of the Lipschitz constant of J there; infinite where none is known.
    R
        2 sqrt2 |r0| / sqrt(lambda0): how far a run that is promised anything can go.
    threshold
        The largest Lambda for which T1 holds.
    certified
        Whether every condition that can be read off the start holds; the step size is the run's.
    step
        T1's largest step size; 0 where there is none.
    rate
        The promised factor of L a step at that step size.
    width_needed
        m (Lambda / threshold)^2, as Lambda falls like m^(-1/2); NaN where m is not known.
    r0
        |r| at the start.
    n
        Rows.
    parameters
        Numbers trained.
    largest_row
        max_i K_ii.
    parts
        Smallest eigenvalues of K_a and of K_c, None where K is not such a sum.
    dead
        Shares of inputs and of hidden values outside the grid, where gradients vanish; None where there is no
        grid. No condition of T1, whose lambda0 has it already.
    rho
        The radius of T3's ball.
    Lambda_rho
        Lambda on it.
    assumptions
        The conditions, as measured.
    """

    lambda0: float
    lambda_max: float
    beta: float
    Lambda: float
    R: float
    threshold: float
    certified: bool
    step: float
    rate: float
    width_needed: float
    r0: float
    n: int
    parameters: int
    largest_row: float
    parts: tuple[float, float] | None
    dead: tuple[float, float] | None
    rho: float
    Lambda_rho: float
    assumptions: tuple[Assumption, ...] = field(default=())

    @property
    def failing(self) -> tuple[str, ...]:
        """The conditions that fail or that nobody could measure, a sentence each."""
        return tuple(_sentence(a) for a in self.assumptions if a.holds is not True)

    def stochastic(self, batch: int) -> bounds.StochasticRate:
        """T3's constants for a batch drawn with replacement.

        Raises
        ------
        ValueError
            batch is no whole number of at least 1.
        """
        return bounds.stochastic_rate(
            self.lambda0 if self.lambda0 > SINGULAR * self.lambda_max else 0.0, self.lambda_max,
            self.largest_row, self.r0, self.n, check_number("batch", batch, least=1, whole=True),
            self.rho, self.Lambda_rho,
        )  # fmt: skip

    def __str__(self) -> str:
        head = "certified" if self.certified else "not certified"
        lines = [
            f"T1 (local linear rate): {head}",
            f"  lambda0 {self.lambda0:.4g}, lambda_max {self.lambda_max:.4g}, |r0| {self.r0:.4g}, "
            f"{self.n} rows, {self.parameters} parameters",
            (
                f"  step at most {self.step:.4g}, with which each step takes "
                f"{self.step * self.lambda0 / 2:.4g} of L away at least; R = {self.R:.4g}"
                if self.step > 0
                else "  no step is promised anything"
            ),
        ]
        if self.parts is not None:
            lines.append(
                f"  smallest eigenvalue of the first layer's part {self.parts[0]:.4g}, of the second's "
                f"{self.parts[1]:.4g}"
            )
        for a in self.assumptions:
            state = {True: "holds", False: "FAILS", None: "not known"}[a.holds]
            lines.append(f"  {state:>9}: {_sentence(a)}")
        if self.dead is not None and max(self.dead) > 0:
            lines.append(
                f"  note: {self.dead[0]:.1%} of the inputs and {self.dead[1]:.1%} of the hidden values are "
                "outside the grid, where the splines fade and gradients vanish"
            )
        return "\n".join(lines)


def _sentence(a: Assumption) -> str:
    value = "" if a.measured is None else f", measured {a.measured:.6g}"
    return f"{a.name}: {a.requires}{value} ({a.how})"


@checked
def certificate(
    model: Any,
    X: Any = None,
    y: Any = None,
    normalisation: Normalisation = "sum",
) -> LocalRate:
    """What T1 and T3 promise of descent from the present parameters, and which condition fails.

    The promise depends on |r0|: scaled labels, or a start at f = 0 (`symmetric=True`) with small ones, are
    certified where large ones are not.

    Parameters
    ----------
    model
        A two-layer KAN, any torch module (whose Lambda nobody knows), or a problem (`PIKAN`).
    X, y
        Points (n, d) and targets (n,) of a regression; of a problem None.
    normalisation
        As in `tangent`.

    Raises
    ------
    ValueError
        There are more rows than parameters, so that K is singular whatever they are.
    """
    return local_rate_of(as_problem(model, X, y, normalisation))


def local_rate_of(problem: Problem, tangent: Tangent | None = None) -> LocalRate:
    """That of a problem, from its tangent where it is at hand.

    Parameters
    ----------
    problem
        At its start.
    tangent
        Its K; None: computed here.

    Raises
    ------
    ValueError
        As `certificate`.
    """
    with torch.enable_grad():
        r = problem.residual().detach().double()
    n, P = len(r), sum(p.numel() for p in parameters_of(problem))
    if n > P:
        raise ValueError(
            f"X must have at most as many rows as the model has parameters, {P}, got {n}: K is singular"
        )
    t = tangent_of(problem) if tangent is None else tangent
    lambda0, r0 = (0.0 if t.singular else t.lambda_min), float(r.norm())
    R = bounds.radius(r0, lambda0)
    Lambda = problem.hessian_bound(R) if math.isfinite(R) else math.inf
    limit = bounds.threshold(r0, lambda0)
    beta = math.sqrt(max(t.lambda_max, 0.0)) + (Lambda * R if R else 0.0)
    step = bounds.certified_step(beta, Lambda, r0) if lambda0 > 0 else 0.0
    rho = bounds.stochastic_radius(lambda0, problem.hessian_bound)
    Lambda_rho = problem.hessian_bound(rho) if math.isfinite(rho) else 0.0
    m = getattr(problem, "width", None)
    needed = m * (Lambda / limit) ** 2 if m and r0 and limit > 0 else math.nan
    if m and not r0:
        needed = 0.0
    rows = (
        _distinct(problem), _positive(t), _smooth(problem, R),
        _wide(Lambda, limit, R, needed),
    )  # fmt: skip
    parts = getattr(problem, "gram_parts", lambda: None)()
    least = None if parts is None else (_least(parts[0]), _least(parts[1]))
    dead = getattr(problem, "dead", lambda: None)()
    return LocalRate(
        t.lambda_min, t.lambda_max, beta, Lambda, R, limit, all(a.holds is True for a in rows), step,
        bounds.contraction_factor(step, lambda0), needed, r0, n, P, float(t.K.diagonal().max()), least, dead,
        rho, Lambda_rho, rows,
    )  # fmt: skip


def _least(K: Tensor) -> float:
    return float(torch.linalg.eigvalsh(K)[0])


def coinciding(points: np.ndarray, first: int = 0) -> list[tuple[int, int]]:
    """The pairs of equal rows, numbered from `first`; each row with its first equal."""
    seen: dict[bytes, int] = {}
    pairs = []
    for i, row in enumerate(np.ascontiguousarray(points) + 0.0):  # -0 is 0
        j = seen.setdefault(row.tobytes(), i)
        if j != i:
            pairs.append((first + j, first + i))
    return pairs


def _distinct(problem: Problem) -> Assumption:
    groups: Callable[[], Any] = getattr(problem, "groups", lambda: ())
    found = list(groups())
    name, requires = DISTINCT, "no two rows of one kind at one point"
    if not found:
        return Assumption(name, requires, None, True, "points are not known; K's spectrum has it")
    pairs = [p for first, points in found for p in coinciding(points, first)]
    nearest = min((_nearest(points) for _, points in found), default=math.inf)
    if not pairs:
        return Assumption(name, requires, nearest, True, "smallest distance of two points")
    told = "; ".join(f"points {i},{j} coincide" for i, j in pairs[:LISTED])
    more = f" and {len(pairs) - LISTED} more pairs" if len(pairs) > LISTED else ""
    return Assumption(name, requires, 0.0, False, f"singular: {told}{more}")


def _nearest(points: np.ndarray) -> float:
    if len(points) < 2:
        return math.inf
    return float(np.asarray(cKDTree(points).query(points, k=2)[0])[:, 1].min())


def _positive(t: Tangent) -> Assumption:
    ratio = t.lambda_min / t.lambda_max if t.lambda_max > 0 else 0.0
    how = "lambda0 / lambda_max of K at the start, float64"
    return Assumption(POSITIVE, f"lambda0 > {SINGULAR:g} lambda_max", ratio, not t.singular, how)


def _smooth(problem: Problem, R: float) -> Assumption:
    order, pde = getattr(problem, "spline_order", None), getattr(problem, "pde_order", 0)
    kind = "a regression" if pde == 0 else f"a differential equation of order {pde}"
    if order is None:
        how = "no bound is known of this model's second derivatives"
        return Assumption(SMOOTH, "J Lipschitz on the ball", None, None, how)
    return Assumption(
        SMOOTH, f"spline degree >= {pde + 2} for {kind}", order, order >= pde + 2,
        "degree of the model's splines",
    )  # fmt: skip


def _wide(Lambda: float, limit: float, R: float, needed: float) -> Assumption:
    requires = f"Lambda <= .10355 lambda0 / |r0| = {limit:.4g}"
    if not math.isfinite(Lambda):
        why = "lambda0 is 0, R infinite" if not math.isfinite(R) else "no bound of Lambda is known"
        return Assumption(WIDE, requires, None, None if math.isfinite(R) else False, why)
    how = f"bound on the ball of radius {R:.4g}"
    if Lambda > limit and math.isfinite(needed):
        how += f"; width needed about {needed:.2g}, or labels smaller"
    return Assumption(WIDE, requires, Lambda, Lambda <= limit, how)
