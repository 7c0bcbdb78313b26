"""Fit L steps of gradient descent with one preconditioner to implied weights."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.in_context._forms.feature import descend

START = 0.3
STEPS = 300
TOLERANCE = 1e-14


def fit(
    Sh: Float[Tensor, "B d d"],
    g: Float[Tensor, "B d"],
    W: Float[Tensor, "B d"],
    loops: int,
    start: Float[Tensor, "d d"],
) -> Float[Tensor, "d d"]:
    """The preconditioner whose `loops` steps come closest to W: ||w_GD - W||^2 / ||W||^2 by L-BFGS.

    A run before it weighs every prompt alike: the few prompts on which many loops diverge are otherwise all
    that the sum of squares sees, and the fit ends beside an A that is there.

    Parameters
    ----------
    Sh, g
        XX'/n and Xy/n of the prompts.
    W
        Implied weights.
    loops
        Steps.
    start
        Where to start from.
    """
    each = W.square().sum(1)
    if not each.any():
        return torch.zeros_like(start)
    alike = (each.clamp_min(float(each.mean()) * 1e-12) * len(W)).reciprocal()
    A = _minimise(Sh, g, W, loops, alike, start)
    return _minimise(Sh, g, W, loops, each.sum().reciprocal().expand(len(W)), A)


def _minimise(
    Sh: Tensor, g: Tensor, W: Tensor, loops: int, weight: Tensor, start: Tensor
) -> Tensor:
    A = start.clone(memory_format=torch.contiguous_format).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [A], max_iter=STEPS, max_eval=2 * STEPS, history_size=50, line_search_fn="strong_wolfe",
        tolerance_grad=TOLERANCE, tolerance_change=TOLERANCE**1.3,
    )  # fmt: skip

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (weight * (descend(Sh, g, [A] * loops)[-1] - W).square().sum(1)).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        before = float(closure().detach())
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    found = A.detach()
    # Of a line search that ran into overflow nothing is kept.
    after = float((weight * (descend(Sh, g, [found] * loops)[-1] - W).square().sum(1)).sum())
    return found if after <= before else start
