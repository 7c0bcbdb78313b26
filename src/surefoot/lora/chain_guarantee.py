"""`ChainGuarantee`: what the theorems promise of one chain, or why they promise nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from surefoot.certificate import Certificate, certify
from surefoot.guarantee import Assumption
from surefoot.lora._block.merge import HALVES
from surefoot.lora._block.sketch_constants import SINGULAR, sketch_constants
from surefoot.lora.bounds import RacBound, RateLaw, blocks_to, largest_step, rac_bound
from surefoot.lora.errors import GuaranteeError
from surefoot.lora.guarantee import SLACK, Constants, descent, linear_rate, stationarity
from surefoot.record import Record

if TYPE_CHECKING:
    from surefoot.lora.chain import ChainOfLora


@dataclass(frozen=True)
class ChainGuarantee:
    """The promised curves of one chain over its blocks.

    `status` is "covered", or "not covered" with the `reasons`; the curves then raise a
    GuaranteeError, and only the descent of each block is still audited (G1).
    """

    constants: Constants
    f_star: float | None
    f0: float | None
    measured_blocks: tuple[float | None, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why no theorem covers the run; empty where one does."""
        return self.constants.reasons

    @property
    def status(self) -> str:
        """ "covered" or "not covered"."""
        return "not covered" if self.reasons else "covered"

    @property
    def law(self) -> RateLaw:
        """Which theorem: exact gradients, or unbiased ones of known variance."""
        return "sgd" if self.constants.sigma2 else "gd"

    @property
    def assumptions(self) -> tuple[Assumption, ...]:
        """Every condition with what was measured of it."""
        pl = self.constants.pl() if self.constants.mu is not None else ()
        return (*self.constants.assumptions(self.law), *pl)

    def rate(self, t: int) -> float:
        """(1 - gamma mu lam)^t."""
        return float(self._bound(t, 1.0, 0.0).gap or 0.0)

    def promised(self, t: int) -> float:
        """Upper limit of E f(W^t) - f*; needs mu, f_star and f0."""
        return float(self._bound(t, self._gap0(), self.constants.sigma2).gap or 0.0)

    def stationarity(self, t: int) -> float:
        """Upper limit of the mean squared gradient over the first t blocks; needs f_star and f0.

        A lower limit of f will do for f_star: 0 for cross-entropy.
        """
        bound = self._bound(t, self._gap0(), self.constants.sigma2, pl=False)
        return float(bound.grad_norm2)

    def steps_to(self, eps: float) -> int:
        """Blocks until the promised gap is eps times the first one, without noise."""
        self._covered()
        c = self.constants
        return blocks_to(eps, gamma=c.gamma, lam=c.lam, mu=self._mu())

    def check(self, history: Sequence[float] | Record) -> list[Certificate]:
        """Hold the run against the promises.

        `history` is the loss at W^0, W^1, ..., W^T of this chain (full loss, one a block), or a
        `Record` of several seeds with the columns of `surefoot.lora.guarantee`. One run decides
        only what holds in every run; claims on a mean over sketches need at least five seeds.
        """
        record = history if isinstance(history, Record) else self._record(history)
        c = self.constants
        made = [g for g in (descent(c),) if "projected_grad_norm2" in record]
        if "gap" in record and c.mu is not None:
            made.append(linear_rate(c, self.law))
        if "mean_grad_norm2" in record and "gap" in record:
            made.append(stationarity(c, self.law))
        return [certify(record, g) for g in made]

    def _record(self, losses: Sequence[float]) -> Record:
        known = [v for v in self.measured_blocks[: len(losses) - 1] if v is not None]
        if len(known) < len(losses) - 1:
            raise ValueError(
                f"{len(losses)} losses belong to {len(losses) - 1} blocks, the chain measured the "
                f"gradient of {len(known)}; give one loss a block, the first before training"
            )
        record = Record()
        record.extend(0, "loss", losses)
        record.extend(0, "projected_grad_norm2", known)
        if self.f_star is not None:
            record.extend(0, "gap", np.asarray(losses) - self.f_star)
        return record

    def _bound(self, t: int, gap0: float, sigma2: float, pl: bool = True) -> RacBound:
        self._covered()
        c = self.constants
        return rac_bound(
            t, "sgd" if sigma2 else "gd", L=c.L, gamma=c.gamma, lam=c.lam, gap0=gap0,
            mu=self._mu() if pl else None, lam_max=c.lam_max, sigma2=sigma2,
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


def reasons_of(chain: ChainOfLora) -> tuple[str, ...]:
    """Everything about a chain that no theorem covers, in words."""
    config, found = chain.config, []
    if config.method in ("lora", "cola", "relora"):
        found.append(
            f"{config.method} trains both factors, and f(W + s B A) is smooth in neither (G8)"
        )
    if config.method == "asymm_lora":
        found.append(
            "asymm_lora never redraws its sketch: it ends at the minimum over W0 + {B A} (G9)"
        )
    for layer in chain.layers:
        # PEFT's embedding layers have a dropout that their forward pass does not use.
        p = getattr(layer.module.lora_dropout[layer.adapter], "p", 0.0)
        if p and not layer.embedding:
            found.append(f"lora_dropout={p} in {layer.name} changes the function that descends")
            break
    halves = [layer.name for layer in chain.layers if layer.weight.dtype in HALVES]
    if halves:
        found.append(f"16-bit base weights ({halves[0]}): the gradient is taken at rounded weights")
    if chain.companion.error:
        found.append("the companion adapter was recompressed: part of the past was cut off")
    if callable(config.sketch) and chain.sketch_range[1] > SLACK:
        found.append("a sketch of your own that is not orthonormal needs precondition=True")
    return (*found, *chain._steps_seen.reasons)


def guarantee_of(
    chain: ChainOfLora,
    L: float,
    mu: float | None,
    f_star: float | None,
    f0: float | None,
    sigma2: float,
    how: str,
) -> ChainGuarantee:
    """See `ChainOfLora.guarantee`."""
    seen = chain._steps_seen
    gamma = chain.gamma if not seen.largest else seen.largest
    reasons = reasons_of(chain)
    if gamma is None:
        if not reasons:
            raise GuaranteeError(
                "the step size is not known: build the optimizer from param_groups(gamma), "
                "or take a step first"
            )
        gamma = 1 / L
    low, high = chain.sketch_range
    if sketch_constants(chain)[0] < SINGULAR:
        reasons = (*reasons, "E[H] is singular: the sketches leave some direction out for ever")
    most = largest_step("gd", L)
    if not reasons and gamma * high > most * SLACK:
        factor = "" if high <= SLACK else f" times the sketch's largest eigenvalue {high:.6g}"
        raise GuaranteeError(
            f"the step size gamma = {gamma:.6g}{factor} is above 1/L = {most:.6g}; lower gamma"
        )
    smallest = min(seen.smallest, gamma)
    lam, lam_max, how_lam = sketch_constants(chain)
    constants = Constants(
        L=L, gamma=smallest, lam=max(lam, SINGULAR), lam_max=max(lam_max, SINGULAR) * max(1.0, high),
        mu=mu, sigma2=sigma2, sketch_low=low, sketch_high=high, how_L=how, how_mu=how,
        how_sigma2=how, how_lam=how_lam, reasons=reasons,
    )  # fmt: skip
    blocks = tuple(report.projected_grad_norm2 for report in chain.reports)
    return ChainGuarantee(constants, f_star, f0, blocks)
