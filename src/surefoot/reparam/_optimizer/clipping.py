"""Clipping by the norm that the multi-branch network would have seen."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot._numerics.sizes import wide
from surefoot.reparam._optimizer.facts import MULT, Watched
from surefoot.reparam._optimizer.parameters import check_gradients, labels

# How often each optimizer's gradients were clipped here, for whoever watches a step.
CLIPPED: WeakKeyDictionary[torch.optim.Optimizer, int] = WeakKeyDictionary()


@torch.no_grad()
def csla_norm(optimizer: torch.optim.Optimizer) -> Float[Tensor, ""]:
    """sqrt(sum_l <M_l, g_l^2> + sum_other |g|^2): the global gradient norm of the CSLA network (G3).

    dL/dW_j = s_j E_j^T(g), so sum_j |dL/dW_j|^2 = <sum_j E_j(s_j^2), g^2> (derived here). Squared and
    summed in at least float32.
    """
    parts: list[Tensor] = []
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            mult = optimizer.state[parameter].get(MULT) if parameter in optimizer.state else None
            square = wide(parameter.grad).square()
            parts.append(square.sum() if mult is None else (square * mult.to(square)).sum())
    if not parts:
        return torch.zeros(())
    return torch.stack([p.to(parts[0].device) for p in parts]).sum().sqrt()


@checked
@torch.no_grad()
def clip_csla_norm_(optimizer: torch.optim.Optimizer, max_norm: float) -> Float[Tensor, ""]:
    """Scale all `p.grad` by min(1, max_norm / (norm + 1e-6)), the norm as `csla_norm`; returns it.

    Clipping the plain network by its own norm breaks the equivalence; by this one it does not. An
    optimizer with a record notes clip = "csla" there.

    Parameters
    ----------
    optimizer
        A RepSGD or a wrapped optimizer, after the backward pass.
    max_norm
        The largest norm that the multi-branch network's gradient may have.

    Returns
    -------
    Tensor
        The norm before clipping.

    Raises
    ------
    ValueError
        `max_norm` is not positive.
    NonFiniteError
        A gradient holds NaN or infinity; the parameter is named.
    """
    check_number("max_norm", max_norm, above=0, finite=False)
    names = getattr(optimizer, "_names", {})
    with_gradient = [
        p for group in optimizer.param_groups for p in group["params"] if p.grad is not None
    ]
    gradients = [p.grad for p in with_gradient if p.grad is not None]
    known = labels(optimizer.param_groups, names)
    steps = int(optimizer.param_groups[0].get("steps", 0))
    check_gradients(with_gradient, gradients, known, steps)
    norm = csla_norm(optimizer)
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factor.to(gradient.device))
    CLIPPED[optimizer] = CLIPPED.get(optimizer, 0) + 1
    watched = getattr(optimizer, "_watched", None)
    if isinstance(watched, Watched):
        watched.note(clip="csla")
    return norm
