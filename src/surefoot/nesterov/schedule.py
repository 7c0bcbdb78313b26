"""Change eta, alpha and rho together: a scheduler that moves `lr` alone voids the promise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from surefoot._numerics.arguments import checked
from surefoot._showing import showing
from surefoot.certificate import Certificate
from surefoot.nesterov.optimizer import AGNES, NAG
from surefoot.nesterov.parameters import convex_momentum
from surefoot.record import Record

Rule = Callable[[int], tuple[float, float, float]]


@showing
@checked(leave=("optimizer",))
class NAGSchedule:
    """Sets the three constants of every group before each step.

    Parameters
    ----------
    optimizer
        An AGNES or NAG.
    rule
        "convex": the momentum n/(n+3) of NAG, n/(n+5) of AGNES, with the group's own steps; or a
        function of n that returns (eta, alpha, rho). NAG takes its `lr` from eta and needs
        alpha = eta.

    Notes
    -----
    Call `step` after the optimizer's `step`. Source: arXiv 2302.05515, the authors' notebook.
    """

    def __init__(self, optimizer: AGNES, rule: Literal["convex"] | Rule) -> None:
        if not isinstance(optimizer, AGNES):
            raise TypeError(f"optimizer must be AGNES or NAG, got {type(optimizer).__name__}")
        if isinstance(rule, str) and rule != "convex":
            raise ValueError(f'rule must be "convex" or a function of n, got {rule!r}')
        self.optimizer, self.rule, self.n = optimizer, rule, 0
        for group in optimizer.param_groups:
            group["scheduled"] = True
        self.record.note(schedule=rule if isinstance(rule, str) else "a function of n")
        self._apply()

    @property
    def record(self) -> Record:
        """The record of the optimizer, which holds what the schedule changed."""
        return self.optimizer.record

    def certificates(self, **constants: Any) -> list[Certificate]:
        """Those of the optimizer, see `AGNES.certificates`: no rate is promised to a schedule."""
        return self.optimizer.certificates(**constants)

    def step(self) -> None:
        """Go on to the constants of the next step."""
        self.n += 1
        self._apply()

    def _apply(self) -> None:
        nag = isinstance(self.optimizer, NAG)
        for group in self.optimizer.param_groups:
            if callable(self.rule):
                eta, alpha, rho = self.rule(self.n)
                if nag and alpha != eta:
                    raise ValueError(f"NAG needs alpha = eta, the rule gave {alpha} and {eta}")
                group["correction"], group["lr"] = eta, alpha
            else:
                rho = convex_momentum(self.n, agnes=not nag)
            if not 0 <= rho < 1:
                raise ValueError(f"rho must be in [0, 1), the rule gave {rho} at n = {self.n}")
            group["momentum"] = rho

    def state_dict(self) -> dict[str, Any]:
        """How far the schedule is; a function given as rule is not stored."""
        return {"n": self.n}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a stored schedule was."""
        self.n = int(state["n"])
        self._apply()
