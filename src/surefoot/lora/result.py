"""What comes back of a chain: a report of each block, and what the theorems promise of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from surefoot._numerics.arguments import checked
from surefoot._showing import showing
from surefoot.certificate import Certificate
from surefoot.guarantee import Assumption
from surefoot.lora._theorem.conditions import SLACK
from surefoot.lora._theorem.rates import Constants
from surefoot.lora._theorem.settings import Settings, settings_of
from surefoot.lora.bounds import RacBound, RateLaw, blocks_to, largest_step, rac_bound
from surefoot.lora.config import Side
from surefoot.lora.errors import GuaranteeError
from surefoot.lora.guarantee import add_losses, certificates, linear_rate, stationarity
from surefoot.record import Record


@showing
@checked(nan=True)
@dataclass(frozen=True)
class BlockReport:
    """One block of a chain.

    Parameters
    ----------
    block, steps
        Its number from 0, and its optimizer steps.
    trained
        The factor that was trained ("A", "B"), or None where both or the weights were.
    projected_grad_norm2
        ||G H||_F^2 (right sketch) or ||H G||_F^2 at the start of the block, summed over the layers,
        from the first gradient; None where none was seen.
    grad_norm2
        The unbiased estimate of ||G||_F^2 made of it (G7); None likewise.
    update_norm
        ||s B A||_F over all layers: how far the block moved the weights.
    """

    block: int
    steps: int
    trained: Side | None
    projected_grad_norm2: float | None
    grad_norm2: float | None
    update_norm: float


@showing
@dataclass(frozen=True)
class ChainGuarantee:
    """The promised curves of one chain over its blocks.

    `status` is "covered", or "not covered" with the `reasons`; the curves then raise a
    GuaranteeError, and only the descent of each block is still audited (G1).

    Parameters
    ----------
    record
        What the chain wrote of itself.
    constants
        Of the problem.
    settings
        Of the run, as its record says them.
    f_star, f0
        A lower limit of the loss, and the loss at the start.
    blocks
        How many have ended.
    """

    record: Record
    constants: Constants
    settings: Settings
    f_star: float | None
    f0: float | None
    blocks: int

    @classmethod
    def of(
        cls,
        record: Record,
        constants: Constants,
        f_star: float | None,
        f0: float | None,
        planned: float | None,
        blocks: int,
    ) -> ChainGuarantee:
        """Of a chain's record.

        Parameters
        ----------
        record
            A copy: where no step was taken yet it gets the planned step size.
        constants
            Of the problem.
        f_star, f0
            A lower limit of the loss, and the loss at the start.
        planned
            The step size of `param_groups`, if they were asked for.
        blocks
            How many have ended.

        Raises
        ------
        GuaranteeError
            The step size is above 1/L, or not known.
        """
        (seed,) = record.seeds
        steps = {"steps": 1.0} if "steps" not in record else {}
        record.update(seed, 0, steps)
        law: RateLaw = "sgd" if constants.sigma2 else "gd"
        if "gamma" not in record:
            made = stationarity(constants, law)
            if planned is None and all(a.holds is not False for a in made.assumptions(record)):
                raise GuaranteeError(
                    "the step size is not known: build the optimizer from param_groups(gamma), "
                    "or take a step first"
                )
            gamma = 1 / constants.L if planned is None else planned
            record.append(seed, 0, gamma=gamma, gamma_max=gamma)
        found = cls(record, constants, settings_of(record, "", [seed])[0], f_star, f0, blocks)
        s, most = found.settings, largest_step("gd", constants.L)
        known = s.stretch(single=True)
        high = s.sketch_high if known is None or math.isinf(known) else known
        if not found.reasons and s.gamma_max * high > most * SLACK:
            factor = "" if high <= SLACK else f" times the sketch's largest eigenvalue {high:.6g}"
            raise GuaranteeError(
                f"the step size gamma = {s.gamma_max:.6g}{factor} is above 1/L = {most:.6g}; "
                "lower gamma"
            )
        return found

    @property
    def law(self) -> RateLaw:
        """Which theorem: exact gradients, or unbiased ones of known variance."""
        return "sgd" if self.constants.sigma2 else "gd"

    @property
    def assumptions(self) -> tuple[Assumption, ...]:
        """Every condition with what was measured of it."""
        c = self.constants
        made = stationarity(c, self.law) if c.mu is None else linear_rate(c, self.law)
        return made.assumptions(self.record)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why no theorem covers the run; empty where one does."""
        return tuple(a.how for a in self.assumptions if a.holds is False and a.name != "step size")

    @property
    def status(self) -> str:
        """ "covered" or "not covered"."""
        return "not covered" if self.reasons else "covered"

    def rate(self, t: int) -> float:
        """(1 - gamma mu lam)^t."""
        return float(self._bound(t, 1.0, 0.0).gap or 0.0)

    def promised(self, t: int) -> float:
        """Upper limit of E f(W^t) - f*; needs mu, f_star and f0."""
        return float(self._bound(t, self._gap0(), self._sigma2).gap or 0.0)

    def stationarity(self, t: int) -> float:
        """Upper limit of the mean squared gradient over the first t blocks; needs f_star and f0.

        A lower limit of f will do for f_star: 0 for cross-entropy.
        """
        bound = self._bound(t, self._gap0(), self._sigma2, pl=False)
        return float(bound.grad_norm2)

    def steps_to(self, eps: float) -> int:
        """Blocks until the promised gap is eps times the first one, without noise."""
        self._covered()
        s = self.settings
        return blocks_to(eps, gamma=s.gamma, lam=s.lam, mu=self._mu())

    def check(self, history: Sequence[float] | Record) -> list[Certificate]:
        """Hold the run against the promises.

        Parameters
        ----------
        history
            The loss at W^0, W^1, ..., W^T of this chain (full loss, one a block), or the records of
            several chains, which say for themselves what ran. One run decides only what holds in every
            run; claims on a mean over sketches need at least five seeds.
        """
        if isinstance(history, Record):
            record = history
        else:
            record = Record.concat([self.record])
            add_losses(record, record.seeds[0], history, self.blocks)
        found = certificates(record, self.constants, self.f_star, law=self.law)
        return [c for c in found if c.checked and c.quantity != "grad_norm2_estimate"]

    @property
    def _sigma2(self) -> float:
        return self.constants.sigma2 or 0.0

    def _bound(self, t: int, gap0: float, sigma2: float, pl: bool = True) -> RacBound:
        self._covered()
        s = self.settings
        return rac_bound(
            t, "sgd" if sigma2 else "gd", L=self.constants.L, gamma=s.gamma, lam=s.lam, gap0=gap0,
            mu=self._mu() if pl else None, lam_max=s.noise_share(True), sigma2=sigma2,
        )  # fmt: skip

    def _covered(self) -> None:
        if self.reasons:
            raise GuaranteeError(f"no theorem covers this run: {'; '.join(self.reasons)}")

    def _mu(self) -> float:
        if self.constants.mu is None:
            raise GuaranteeError("a rate for f - f* needs mu; without it there is stationarity(t)")
        return self.constants.mu

    def _gap0(self) -> float:
        if self.f_star is None or self.f0 is None:
            raise GuaranteeError(
                "a promised value needs f_star and f0; a lower limit of f will do for f_star"
            )
        return self.f0 - self.f_star
