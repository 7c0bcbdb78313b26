"""One step of AGNES on lists of tensors: a loop, a foreach and a fused version of the same formula.

With r = alpha/eta and c = eta rho (r = 1 and c = alpha rho where eta = 0), the buffer u = -(alpha/c) v
turns the two-step form of arXiv 2302.05515 into Nesterov SGD with dampening 1 - r:

    u <- rho u + r g,    p <- p - eta g - c u,    x = p + c u.

That is what torch's fused SGD kernel computes in one pass over memory; torch.optim.SGD refuses the
combination of nesterov and dampening, and copies its first gradient undamped.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from surefoot.nesterov._optimizer.hyperparameters import StepForm


def _numbers(k: StepForm) -> tuple[float, float, float, float]:
    """(eta, rho, r, c) for kernels that take no tensors."""
    return float(k.eta), float(k.rho), float(k.r), float(k.c)


def single_step(
    params: list[Tensor],
    grads: list[Tensor],
    buffers: list[Tensor],
    k: StepForm,
    weight_decay: float,
    maximize: bool,
) -> None:
    """A loop over the tensors; also serves tensor hyperparameters and torch.compile."""
    for p, g, u in zip(params, grads, buffers, strict=True):
        if maximize:
            g = -g
        if weight_decay != 0:
            g = g.add(p, alpha=weight_decay)
        if torch.is_complex(p):
            p, g, u = torch.view_as_real(p), torch.view_as_real(g), torch.view_as_real(u)
        if isinstance(k.eta, Tensor) or isinstance(k.rho, Tensor) or isinstance(k.r, Tensor):
            u.mul_(k.rho).add_(g * k.r)
            p.sub_(g * k.eta + u * k.c)
        else:
            u.mul_(k.rho).add_(g, alpha=k.r)
            p.add_(g, alpha=-k.eta).add_(u, alpha=-float(k.c))


def foreach_step(
    params: list[Tensor],
    grads: list[Tensor],
    buffers: list[Tensor],
    k: StepForm,
    weight_decay: float,
    maximize: bool,
) -> None:
    """Horizontally fused over the tensors; without weight decay it allocates nothing."""
    eta, rho, r, c = _numbers(k)
    if maximize:
        grads = list(torch._foreach_neg(grads))
    if weight_decay != 0:
        grads = list(torch._foreach_add(grads, params, alpha=weight_decay))
    torch._foreach_mul_(buffers, rho)
    torch._foreach_add_(buffers, grads, alpha=r)
    torch._foreach_add_(params, grads, alpha=-eta)
    torch._foreach_add_(params, buffers, alpha=-c)


def fused_step(
    params: list[Tensor],
    grads: list[Tensor],
    buffers: list[Tensor],
    k: StepForm,
    weight_decay: float,
    maximize: bool,
    grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
) -> None:
    """One pass over memory, by the private kernel behind torch.optim.SGD(fused=True)."""
    eta, rho, r, _ = _numbers(k)
    given = list(zip(params, grads, buffers, strict=True))
    walked = [_in_one_order(*each) for each in given]
    torch._fused_sgd_(
        [p for p, _, _ in walked],
        [g for _, g, _ in walked],
        # The kernel insists on no buffers without momentum; v is 0 then, whatever u holds.
        [u for _, _, u in walked] if rho else [],
        weight_decay=weight_decay,
        momentum=rho,
        lr=eta,
        dampening=1.0 - r,
        nesterov=True,
        maximize=maximize,
        is_first_step=False,
        grad_scale=grad_scale,
        found_inf=found_inf,
    )
    for (p, g, u), (q, h, w) in zip(given, walked, strict=True):
        # The kernel leaves the gradient without its scale.
        for mine, copy in ((p, q), (u, w), (g, g if grad_scale is None else h)):
            if copy is not mine:
                mine.copy_(copy)


def _in_one_order(p: Tensor, g: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The three as the kernel may have them: copies where they do not lie alike, or leave gaps.

    On the CPU torch 2.13 walks through memory whatever the strides say: a gradient that was assigned by hand
    and lies crosswise would move the wrong entries without a word.
    """
    if not _dense(p):
        return p.contiguous(), g.contiguous(), u.contiguous()
    g, u = (t if t.stride() == p.stride() else torch.empty_like(p).copy_(t) for t in (g, u))
    return p, g, u


def _dense(t: Tensor) -> bool:
    """No gaps in memory: the last element is as far from the first as there are elements between them."""
    return sum((n - 1) * s for n, s in zip(t.shape, t.stride(), strict=True)) == t.numel() - 1


@functools.cache
def fused_works(device_type: str, dtype: torch.dtype = torch.float64) -> bool:
    """Whether the private kernel is there and computes the formula, tried on two steps.

    On more elements than a vector register holds: torch 2.13 leaves whole registers of float16 and
    bfloat16 untouched on the CPU (pytorch issue 191763), and only the remainder is right.
    """
    if device_type not in ("cpu", "cuda") or not dtype.is_floating_point:
        return False
    try:
        ends = ((1.0, 2.0), (2.0, 1.0), (-1.0, -2.0))
        p, g, u = (torch.linspace(*e, 131, dtype=torch.float64) for e in ends)
        q, h, w = (t.to(device_type, dtype, copy=True) for t in (p, g, u))
        k = StepForm.of(0.04, 0.1, 0.8)
        for _ in range(2):
            single_step([p], [g], [u], k, 0.01, False)
            fused_step([q], [h], [w], k, 0.01, False)
        most = 16 * torch.finfo(dtype).eps
        return all(float((a.cpu().double() - b).abs().max()) <= most for a, b in ((q, p), (w, u)))
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        return False
