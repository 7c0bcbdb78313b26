"""What is promised of a run, as core Guarantees on its record: G1 to G6 (all derived here).

`BarycenterResult.record()` has, for problem i as seed i and point k as step k: F, grad2 = ||G||_B^2,
lambda_min and lambda_max of B, optimality_gap (G5), rounding of F; from step 1 on the step eta, reached (F
at the temperature before the step) and least_grad2 (over the points before); and once alpha, beta and
tau. Its facts say what was done: method, and whether its steps descend and are geodesic; mass, tau,
initial, steps, converged ... F* is not known; the last F is at least F*, and where a claim on F - F* is
checked with it instead, the claim checked is the weaker one.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from jaxtyping import Float

from surefoot.barycenter import bounds
from surefoot.certificate import Certificate, certify, unmeasured
from surefoot.guarantee import Assumption, Guarantee, assume_fact
from surefoot.record import Record

SOURCE = "derived in surefoot, for the descent of arXiv 2410.08117"
G1, G2 = "G1 descent of every step", "G2 stationarity"
G3_ABOVE, G3_BELOW = "G3 confinement from above", "G3 confinement from below"
G4, G5 = "G4 linear rate", "G5 optimality gap"
G6_WEIGHT, G6_MAP = "G6 influence, free mass", "G6 influence, fixed mass"
Curve = Float[np.ndarray, "seeds steps"]


def _constant(record: Record, name: str) -> Float[np.ndarray, "seeds 1"]:
    return record.constant(name)[:, None]


def _unknown(name: str, requires: str, record: Record, *quantities: str) -> Assumption | None:
    """The condition as nobody measured it, where the record lacks what it is read from."""
    missing = [q for q in quantities if q not in record]
    if not missing:
        return None
    return Assumption(name, requires, None, None, f"not recorded: {', '.join(missing)}")


def _descends(record: Record) -> Assumption:
    # Momentum, cyclic and Newton steps do not.
    return assume_fact(
        record, "descends", "gradient steps",
        "each step descends at least as (I - eta G) B (I - eta G) does", lambda v: v is True,
    )  # fmt: skip


def _geodesic(record: Record) -> Assumption:
    return assume_fact(
        record, "geodesic", "geodesic steps", "each step is (I - eta G) B (I - eta G)",
        lambda v: v is True,
    )  # fmt: skip


def _fixed(record: Record) -> Assumption:
    return assume_fact(
        record, "mass", "convex objective", "fixed mass, as free mass is not convex",
        lambda v: v == "fixed",
    )  # fmt: skip


def _steps(record: Record, *, unit: bool) -> Assumption:
    name, requires = ("unit steps", "eta = 1") if unit else ("steps up to 1", "0 < eta <= 1")
    if "step" not in record:
        taken = record.fact("steps")
        # A run that was over at its start took no step that could be wrong.
        none = taken.all == (0,) and not taken.missing
        return Assumption(name, requires, None, True if none else None, f"recorded: {taken}")
    eta = record["step"]
    if unit:
        worst = float(eta[np.unravel_index(np.abs(eta - 1).argmax(), eta.shape)])
        return Assumption(name, requires, worst, bool((eta == 1).all()), "read off the run")
    top = float(eta.max())
    holds = bool((eta > 0).all()) and top <= 1
    return Assumption(name, requires, top, holds, "read off the run")


def _one_F(record: Record) -> Assumption:
    # A temperature that is refreshed makes another objective of the point that a step has reached.
    name, requires = "one objective", "F_k is what step k reached, not of another temperature"
    if (unknown := _unknown(name, requires, record, "F", "reached", "rounding")) is not None:
        return unknown
    off = np.abs(record["F"][:, 1:] - record["reached"])
    holds = bool((off <= record["rounding"][:, 1:]).all())
    return Assumption(name, requires, float(off.max(initial=0.0)), holds, "read off the run")


def _start(record: Record) -> Assumption:
    name, requires = "start among the inputs", "alpha I <= B_0 <= beta I"
    needed = ("alpha", "beta", "lambda_min", "lambda_max")
    if (unknown := _unknown(name, requires, record, *needed)) is not None:
        return unknown
    low, high = record["lambda_min"][:, :1], record["lambda_max"][:, :1]
    out = max(
        float((_constant(record, "alpha") - low).max()),
        float((high - _constant(record, "beta")).max()),
    )
    size = float(record.constant("beta").max())
    how = "extreme eigenvalues; measured is the distance outside"
    return Assumption(name, requires, out, out <= 1e-12 * size, how)


def _regular(record: Record, quantity: str, name: str) -> Assumption:
    requires = f"{quantity} > 0"
    if (unknown := _unknown(name, requires, record, quantity)) is not None:
        return unknown
    least = float(record.constant(quantity).min())
    return Assumption(name, requires, least, least > 0, "smallest eigenvalue")


def descent() -> Guarantee:
    """G1, `bounds.descent_bound` on every step; the bound is made of F, ||G||_B^2 and eta alone."""

    def bound(record: Record) -> Curve:
        F, grad2, eta = record["F"][:, :-1], record["grad2"][:, :-1], record["step"]
        # The rounding of either side is part of what can be promised of floating point.
        slack = record["rounding"][:, :-1] + record["rounding"][:, 1:]
        return np.asarray(F - (eta - eta**2 / 2) * grad2 + slack)

    return Guarantee(
        name=G1, statement="F(B_{k+1}) <= F(B_k) - (eta - eta^2/2) ||G_k||_B^2",
        latex=r"F(B_{k+1}) \le F(B_k) - (\eta - \eta^2/2) \|G_k\|_{B_k}^2",
        source=SOURCE, quantity="reached", axis="F after the step",
        sense="upper", holds_in="every run", bound=bound,
        assumptions=lambda record: (_descends(record),), tolerance=0.0,
    )  # fmt: skip


def stationarity() -> Guarantee:
    """G2, `bounds.stationarity_bound` with Flow = F(B_K), by telescoping G1."""

    def bound(record: Record) -> Curve:
        F, K = record["F"], record.curves("least_grad2").steps
        rows = [
            [
                bounds.stationarity_bound(max(f[0], f[i]), f[i], int(k))
                for i, k in enumerate(K, start=1)
            ]
            for f in F
        ]
        found: np.ndarray = np.array(rows) + 4 * record["rounding"][:, 1:]
        return found

    return Guarantee(
        name=G2, statement="min_{k<K} ||G_k||_B^2 <= 2 (F(B_0) - F(B_K)) / K",
        latex=r"\min_{k<K} \|G_k\|_{B_k}^2 \le 2 (F(B_0) - F(B_K)) / K",
        source=SOURCE, quantity="least_grad2", axis="least squared gradient norm so far",
        sense="upper", holds_in="every run", bound=bound,
        assumptions=lambda record: (_descends(record), _steps(record, unit=True), _one_F(record)),
    )  # fmt: skip


def confinement(floor: Literal["proved", "alpha"] = "proved") -> tuple[Guarantee, Guarantee]:
    """G3 from above and from below, `bounds.spectral_confinement`.

    floor="alpha" claims what one would guess and what is false: alpha as a floor of the iterates.
    """

    def above(record: Record) -> tuple[Assumption, ...]:
        return (_geodesic(record), _steps(record, unit=False), _start(record))

    def low(record: Record) -> Float[np.ndarray, "seeds 1"]:
        ends = zip(*(record.constant(n) for n in ("alpha", "beta", "tau")), strict=True)
        if floor == "alpha":
            return _constant(record, "alpha")
        return np.array(
            [[bounds.spectral_confinement(a, b, t)[0] if a > 0 else 0.0] for a, b, t in ends]
        )

    name = G3_BELOW if floor == "proved" else "alpha as a floor of the iterates"
    upper = Guarantee(
        name=G3_ABOVE, statement="B_k <= beta I", latex=r"B_k \preceq \beta I", source=SOURCE,
        quantity="lambda_max", axis="largest eigenvalue of B_k",
        sense="upper", holds_in="every run", tolerance=1e-12,
        bound=lambda record: _constant(record, "beta"), assumptions=above,
    )  # fmt: skip
    lower = Guarantee(
        name=name,
        statement="B_k >= a_f I, 4 phi(a_f)^3 phi(beta) = (phi(a_f) + phi(beta))^2"
        if floor == "proved"
        else "B_k >= alpha I (a plausible claim, false)",
        source=SOURCE, quantity="lambda_min", axis="smallest eigenvalue of B_k",
        sense="lower", holds_in="every run", tolerance=1e-12,
        bound=low, heuristic=floor == "alpha",
        assumptions=lambda record: (
            _geodesic(record), _steps(record, unit=False), _start(record),
            _regular(record, "alpha", "regular inputs"),
        ),
    )  # fmt: skip
    return upper, lower


def rate(floor: Literal["proved", "measured"] = "proved") -> Guarantee:
    """G4, `bounds.linear_rate`: a priori, or with the extreme eigenvalues that were met on the run."""

    def bound(record: Record) -> Curve:
        F, k = record["F"], record.curves("F").steps
        rows = []
        for i in range(len(F)):
            a, b, t = (float(record.constant(n)[i]) for n in ("alpha", "beta", "tau"))
            if not a > 0:
                rows.append(np.full(len(k), record["excess"][i, 0]))
                continue
            low = float(record["lambda_min"][i].min())
            high = float(record["lambda_max"][i].max())
            met = (min(a, low), high) if floor == "measured" else (None, None)
            rho = bounds.linear_rate(a, b, t, *met)
            rows.append((1 - rho) ** k * record["excess"][i, 0])
        found: np.ndarray = np.array(rows) + 2 * record["rounding"]
        return found

    def assumptions(record: Record) -> tuple[Assumption, ...]:
        common = (
            _fixed(record), _geodesic(record), _steps(record, unit=True),
            _regular(record, "alpha", "regular inputs"),
        )  # fmt: skip
        return common if floor == "measured" else (*common, _start(record))

    return Guarantee(
        name=G4 if floor == "proved" else f"{G4}, a posteriori",
        statement="F(B_k) - F* <= (1 - rho)^k (F(B_0) - F*)",
        latex=r"F(B_k) - F^* \le (1 - \rho)^k (F(B_0) - F^*)",
        source=SOURCE + "; not the paper's theorem, whose constants we have not read",
        quantity="excess", axis="F(B_k) - F*", sense="upper", holds_in="every run", bound=bound,
        assumptions=assumptions, tolerance=0.0,
    )  # fmt: skip


def optimality() -> Guarantee:
    """G5, `bounds.gap_bound`: the proved gap at every point is at least what F still lost."""
    return Guarantee(
        name=G5, statement="gap(B_k) >= F(B_k) - F*", latex=r"\mathrm{gap}(B_k) \ge F(B_k) - F^*",
        source=SOURCE, quantity="optimality_gap", sense="lower", holds_in="every run",
        bound=lambda record: record["excess"] - 2 * record["rounding"],
        assumptions=lambda record: (_fixed(record),), tolerance=0.0,
    )  # fmt: skip


def influence() -> tuple[Guarantee, Guarantee]:
    """G6 on `BarycenterResult.influence_record()`, an input a step.

    Free mass: the weight of an input falls exponentially with its Upsilon, whatever is wrong with it.
    Fixed mass, finite tau: no input pulls with a map larger than (1 + sqrt(1 + 2 tau / lambda_min(B)))/2,
    however large it is (S is monotone in A; the limit is `influence.map_limit`). Nothing of the kind
    holds for inputs that vanish.
    """

    def weight(record: Record) -> Curve:
        temperature = float(record.constant("temperature")[0])
        if not math.isfinite(temperature):  # fixed mass: nothing is promised
            return np.full_like(record["weight"], math.inf)
        return bounds.influence_bound(record["upsilon"][0], record["lam"][0], temperature)[None]

    def stretch(record: Record) -> float:
        low, tau = (float(record.constant(n)[0]) for n in ("lambda_min", "tau"))
        return bounds.stretch_bound(low, tau)

    free = Guarantee(
        name=G6_WEIGHT, statement="p_i <= exp(-(U_i - min_j U_j) / T) lam_i / lam_min",
        latex=r"p_i \le e^{-(\Upsilon_i - \min_j \Upsilon_j)/T} \lambda_i / \lambda_{\min}",
        source=SOURCE, quantity="weight", sense="upper", holds_in="every run", bound=weight,
        assumptions=lambda record: (
            assume_fact(record, "mass", "free mass", "the mass is free", lambda v: v == "free"),
        ),
        trivial=math.inf, size=1.0,  # weights are parts of one
    )  # fmt: skip
    fixed = Guarantee(
        name=G6_MAP, statement="lambda_max(S_i) <= (1 + sqrt(1 + 2 tau / lambda_min(B))) / 2",
        latex=r"\lambda_{\max}(S_i) \le (1 + \sqrt{1 + 2\tau/\lambda_{\min}(B)})/2",
        source=SOURCE, quantity="stretch", sense="upper", holds_in="every run", bound=stretch,
        assumptions=lambda record: (
            assume_fact(record, "tau", "finite tau", "tau < inf", lambda v: math.isfinite(float(v))),
            _regular(record, "lambda_min", "regular barycenter"),
        ),
        trivial=math.inf, tolerance=1e-9,
    )  # fmt: skip
    return free, fixed


def with_excess(record: Record, optimum: float | None = None) -> Record:
    """The record with the column `excess` = F minus the optimum, for G4 and G5.

    Where the optimum is not known it is the last F of the problem.
    """
    with record.deriving():
        curves = record.curves("F")
        for seed, f in zip(curves.seeds, curves.values, strict=True):
            least = f[-1] if optimum is None else optimum
            record.extend(int(seed), "excess", f - least, curves.steps)
    return record


def run_certificates(path: Record, inputs: Record) -> list[Certificate]:
    """G1 to G6 on one problem of a result, from its `record` and its `influence_record`."""
    if "F" in path:
        with_excess(path)
    found = []
    for claim in (descent(), stationarity(), *confinement(), rate(), optimality()):
        if claim.quantity not in path:
            found.append(unmeasured(path, claim, _todo(path)))
        elif not np.isnan(path[claim.quantity]).any():  # free mass proves no gap
            found.append(certify(path, claim))
    return [*found, *(certify(inputs, claim) for claim in influence())]


def _todo(path: Record) -> str:
    if 0 in path.fact("steps").all:
        return "the run was over at its start, and took no step"
    return "call suot_barycenter with record=True"
