"""How a request is to be solved, and the facts of what was done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from surefoot.barycenter._solver.descent import Rule
from surefoot.record import Fact


@dataclass(frozen=True)
class Settings:
    """How a request is to be solved."""

    method: str
    rule: Rule
    init: Any
    max_iter: int
    tol: float
    sqrt: str
    record: bool
    optimality_gap: bool

    def facts(
        self, *, tau: float, free: bool, mass_tau: float, initial: str, steps: int, converged: bool,
        rank_deficient: bool,
    ) -> dict[str, Fact]:  # fmt: skip
        """What was done with one problem: as it ran, and not as it was asked for."""
        return {
            "method": self.method, "descends": self.rule.descends, "geodesic": self.rule.geodesic,
            "tau": tau, "mass": "free" if free else "fixed", "mass_tau": mass_tau,
            "initial": initial, "tol": self.tol, "max_iter": self.max_iter, "sqrt": self.sqrt,
            "steps": steps, "converged": converged, "rank_deficient": rank_deficient,
        }  # fmt: skip
