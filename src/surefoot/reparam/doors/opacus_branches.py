"""Opacus' optimizer with the clipping and the noise of the multi-branch network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from opacus.optimizers import DPOptimizer
from torch import Tensor

from surefoot.reparam._guarantee.columns import NOISE
from surefoot.reparam._optimizer.facts import MULT
from surefoot.reparam.optimizer import RepSGD

# Entries from which on the mean of squares is as good as Gaussian.
FEWEST = 100


# Opacus has no types.
class BranchDPOptimizer(DPOptimizer):  # type: ignore[misc]
    """DP-SGD of the CSLA network, made on the plain one.

    h_i = sqrt(M) g_i has the norm of the CSLA network's gradient. It is clipped, the sum takes the noise
    sigma C xi, and is multiplied by sqrt(M): M times the clipped gradients, with noise of variance
    sigma^2 C^2 M, which is what independent noise on every branch is when merged. RepSGD then steps without
    multipliers of its own.

    Parameters
    ----------
    given
        What Opacus made around the RepSGD.
    mults
        M by parameter.
    """

    def __init__(self, given: DPOptimizer, mults: Mapping[Any, Tensor]) -> None:
        super().__init__(
            given.original_optimizer, noise_multiplier=given.noise_multiplier,
            max_grad_norm=given.max_grad_norm, expected_batch_size=given.expected_batch_size,
            loss_reduction=given.loss_reduction, generator=given.generator, secure_mode=given.secure_mode,
        )  # fmt: skip
        self.step_hook = given.step_hook
        # Opacus hangs its per-example gradients on the parameters.
        self.mults: dict[Any, Tensor] = dict(mults)
        self.roots: dict[Any, Tensor] = {p: m.sqrt() for p, m in mults.items()}
        self.squares, self.count, self.measured = 0.0, 0, 0

    def clip_and_accumulate(self) -> None:
        """Clip by the norm of the branches."""
        for p, root in self.roots.items():
            # In place: Opacus marks what it has used already.
            samples = p.grad_sample
            for each in samples if isinstance(samples, list) else [samples]:
                if each is not None:
                    each.mul_(root)
        super().clip_and_accumulate()

    def pre_step(self, closure: Any = None) -> Any:
        """Clip, add noise and scale as Opacus does, then merge."""
        made = super().pre_step(closure)
        if made:
            for p, root in self.roots.items():
                p.grad.mul_(root)
            self._measure()
        return made

    @torch.no_grad()
    def _measure(self) -> None:
        """How far the noise that is in the gradients is from the law, in standard deviations of its mean."""
        deviation = self.noise_multiplier * self.max_grad_norm
        if not deviation:
            return
        divisor = 1.0
        if self.loss_reduction == "mean":
            divisor = self.expected_batch_size * self.accumulated_iterations
        for p, mult in self.mults.items():
            moved = mult > 0
            exact = self.roots[p].double() * p.summed_grad.double().view_as(p)
            noise = (p.grad.double() * divisor - exact)[moved]
            self.squares += float((noise.square() / mult.double()[moved]).sum()) / deviation**2
            self.count += int(moved.sum())
        if self.count < FEWEST:
            return
        off = abs(self.squares / self.count - 1) * (self.count / 2) ** 0.5
        inner: RepSGD = self.original_optimizer
        # Whoever knows the noise knows the sums that it hides.
        inner.record.private(NOISE)
        inner.record.append(inner._watched.seed, self.measured, **{NOISE: off})
        self.measured += 1

    def load_state_dict(self, state_dict: Any) -> None:
        """Take the state of a RepSGD; multipliers in it stay out, as they are applied here."""
        super().load_state_dict(state_dict)
        for state in self.original_optimizer.state.values():
            state.pop(MULT, None)


def around(given: DPOptimizer) -> BranchDPOptimizer:
    """The same with the law of the branches; the RepSGD inside gives its multipliers up."""
    inner: RepSGD = given.original_optimizer
    own = [p for p in given.params if MULT in inner.state.get(p, {})]
    mults = {p: inner.state[p].pop(MULT) for p in own}
    inner._watched.note(
        clipping="per example", clip_norm=float(given.max_grad_norm),
        noise_multiplier=float(given.noise_multiplier), noised="branches", clip="csla",
    )  # fmt: skip
    return BranchDPOptimizer(given, mults)
