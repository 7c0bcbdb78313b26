"""Fit L steps of gradient descent with one preconditioner to implied weights."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

START = 0.3
FAR = 1.5
"""Logarithm of the factor from which on another start is tried too."""
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
    that the sum of squares sees, and the fit ends beside an A that is there. Lengths are taken in the unit in
    which `start` is `START` I at S = I, so that features in other units are fitted as well.

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
    unit = float(start.norm()) / (START * math.sqrt(len(start)))
    Sh, g = unit * Sh, unit * g
    alike = (each.clamp_min(float(each.mean()) * 1e-12) * len(W)).reciprocal()
    A = _minimise(Sh, g, W, loops, alike, start / unit)
    A = _minimise(Sh, g, W, loops, each.sum().reciprocal().expand(len(W)), A)
    return A * unit


def fit_from(
    Sh: Float[Tensor, "B d d"],
    g: Float[Tensor, "B d"],
    W: Float[Tensor, "B d"],
    loops: int,
    inverse: Float[Tensor, "d d"],
    step: float,
) -> Float[Tensor, "d d"]:
    """`fit` from `START` S^-1, and from `step` S^-1 where that is better or far from it: the better end.

    Steps that are tiny, or so large that descent diverges, are too far from `START` to be found from there.

    Parameters
    ----------
    Sh, g, W, loops
        As in `fit`.
    inverse
        S^-1.
    step
        The best multiple of it, as far as is known.
    """
    weight = W.square().sum().clamp_min(torch.finfo(W.dtype).tiny).reciprocal().expand(len(W))

    def loss(A: Tensor) -> float:
        found = loss_and_gradient(A, Sh, g, W, loops, weight)[0]
        return found if math.isfinite(found) else math.inf

    usual, other = fit(Sh, g, W, loops, START * inverse), step * inverse
    if not step or (loss(other) >= loss(usual) and abs(math.log(abs(step) / START)) < FAR):
        return usual
    return min(usual, other, fit(Sh, g, W, loops, other), key=loss)


def _minimise(
    Sh: Tensor, g: Tensor, W: Tensor, loops: int, weight: Tensor, start: Tensor
) -> Tensor:
    A = start.clone(memory_format=torch.contiguous_format).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [A], max_iter=STEPS, max_eval=2 * STEPS, history_size=50, line_search_fn="strong_wolfe",
        tolerance_grad=TOLERANCE, tolerance_change=TOLERANCE**1.3,
    )  # fmt: skip

    def closure() -> float:
        loss, A.grad = loss_and_gradient(A.detach(), Sh, g, W, loops, weight)
        return loss

    before = closure()
    # torch gives `step` of L-BFGS no types.
    optimizer.step(closure)  # type: ignore[no-untyped-call]
    found = A.detach()
    # Of a line search that ran into overflow nothing is kept.
    return found if loss_and_gradient(found, Sh, g, W, loops, weight)[0] <= before else start


def loss_and_gradient(
    A: Float[Tensor, "d d"],
    Sh: Float[Tensor, "B d d"],
    g: Float[Tensor, "B d"],
    W: Float[Tensor, "B d"],
    loops: int,
    weight: Float[Tensor, " B"],
) -> tuple[float, Float[Tensor, "d d"]]:
    """sum_i weight_i |w_L - W|^2 and its gradient, by hand: a third of the time of autograd's."""
    w, residuals = torch.zeros_like(g), []
    for _ in range(loops):
        residuals.append(g - _times(Sh, w))
        w = w + residuals[-1] @ A
    gap = w - W
    back = 2 * weight[:, None] * gap
    gradient = torch.zeros_like(A)
    for residual in reversed(residuals):
        gradient += residual.T @ back
        back = back - _times(Sh, back @ A.T)
    return float((weight * gap.square().sum(1)).sum()), gradient


def _times(Sh: Tensor, w: Tensor) -> Tensor:
    return (Sh @ w[..., None])[..., 0]
