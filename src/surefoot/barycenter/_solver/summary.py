"""A result in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from surefoot.barycenter.bounds import iterations_for

if TYPE_CHECKING:
    from surefoot.barycenter.result import BarycenterResult


def report(result: BarycenterResult, problem: int = 0) -> str:
    """Did it converge, how far may it be from the optimum, what was promised and what happened."""

    def of(x: object) -> float:
        return float(np.reshape(np.asarray(x), -1)[problem])

    steps, done = int(of(result.n_iter)), bool(of(result.converged))
    word = "converged" if done else "NOT converged"
    lines = [
        f"{word} after {steps} steps of {result.method}: tau = {of(result.tau):.6g}, "
        f"{result.mass} mass, ||G||_B = {of(result.grad_norm):.3g} sqrt(tr B)"
    ]
    value, gap = of(result.value), of(result.certificate)
    if np.isnan(gap):
        lines.append(f"F = {value:.10g}; no certificate of optimality (free mass is not convex)")
    else:
        lines.append(
            f"F = {value:.10g}, certified to be at most {gap:.3g} above its minimum"
            + (f" ({gap / value:.2g} of F)" if value > 0 else "")
        )
    rho = of(result.rate_bound)
    if rho > 0:
        lines.append(
            f"unit steps shrink F - F* by {1 - rho:.6g} a step or better: at most "
            f"{iterations_for(1e-6, rho)} of them for six digits (derived bound)"
        )
    if (scale := of(result.scale)) != 1:
        lines.append(f"cov is {scale:.6g} times the barycenter, to keep the mean trace (debias)")
    if result.rank_deficient:
        lines.append("some input, or the joint range, lacks full rank: the rank rule was applied")
    if result._solution.history is not None:
        lines += [c.summary() for c in result.certificates(problem)]
    return "\n".join(lines)
