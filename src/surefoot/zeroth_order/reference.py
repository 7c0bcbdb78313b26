"""LOZO line by line, on plain tensors: to be checked against the paper, and the fast code against it.

arXiv 2410.07698: estimator LGE, lazy sampling, and LOZO-M's projected momentum factor. Every product is
written out, nothing is fused; random numbers are the optimiser's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from surefoot.zeroth_order._engine.counter_rng import CounterRNG


def lozo_reference(
    start: Sequence[Tensor],
    f: Callable[[Sequence[Tensor], int], Tensor],
    steps: int,
    *,
    lr: float,
    rank: int,
    nu: int,
    eps: float,
    momentum: float = 0.0,
    scale: str = "paper",
    seed: int = 0,
    orthogonal: bool = False,
) -> list[Tensor]:
    """The tensors after `steps` steps of LOZO (or LOZO-M) on f(tensors, t).

    A tensor with fewer than two dimensions, or no more than `rank` rows or columns, is dense.
    """
    rng = CounterRNG(seed)
    # The optimiser rounds rates, like c, to what its log can hold.
    lr = float(torch.tensor(lr, dtype=torch.float32))
    x = [p.clone() for p in start]
    v: list[Tensor | None] = [None] * len(x)
    n_factor: list[Tensor | None] = [None] * len(x)
    perturb = 1.0 if scale == "paper" else rank**-0.5
    update = 1 / rank if scale == "paper" else rank**-0.5
    for t in range(steps):
        u, v_old = [], list(v)
        for i, p in enumerate(x):
            m, n = p.shape[0] if p.ndim else 1, p.numel() // (p.shape[0] if p.ndim else 1)
            if p.ndim >= 2 and rank < min(m, n):
                if t % nu == 0:
                    v[i] = rng.factor(t // nu, i, n, rank, orthogonal).to(p)
                u.append(rng.normal("U", t, i, (m, rank)).to(p))
            else:
                u.append(rng.normal("U", t, i, tuple(p.shape)).to(p))
        z = [
            ui if vi is None else (perturb * ui @ vi.T).view_as(p)
            for p, ui, vi in zip(x, u, v, strict=True)
        ]
        plus = f([p + eps * d for p, d in zip(x, z, strict=True)], t)
        minus = f([p - eps * d for p, d in zip(x, z, strict=True)], t)
        # The optimiser stores c in single precision, and so does this.
        c = float(torch.tensor((float(plus) - float(minus)) / (2 * eps), dtype=torch.float32))
        for i, (p, ui, vi) in enumerate(zip(x, u, v, strict=True)):
            g, old = c * ui, n_factor[i]
            if momentum and old is not None:
                if vi is not None and t % nu == 0:
                    before = v_old[i]
                    assert before is not None
                    old = old @ (before.T @ vi) / vi.shape[0]
                g = momentum * old + (1 - momentum) * g
            if momentum:
                n_factor[i] = g
            x[i] = p - lr * (g if vi is None else (update * g @ vi.T).view_as(p))
    return x
