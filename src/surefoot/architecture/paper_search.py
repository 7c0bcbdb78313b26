"""The search of arXiv 2410.08339 as its authors' code has it: a trainable threshold prunes weights softly."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot.architecture._budget import Budget
from surefoot.architecture._search.found import Best, FoundNets
from surefoot.architecture._search.tasks import table, task_losses
from surefoot.architecture.autoencoder import NetworkAutoencoder
from surefoot.architecture.net_batch import NetBatch

MOST_THRESHOLD, STEEP, SOFT = 3.0, 100.0, 10.0
LR_Z, LR_T, SHARE = 0.1, 0.01, 7000.0


@checked
def search_paper(
    decoder: NetworkAutoencoder,
    X: Any,
    y: Any,
    *,
    restarts: int = 1,
    steps: int | None = None,
    seconds: float | None = None,
    generator: torch.Generator | None = None,
) -> list[FoundNets]:
    """Each depth on its own: z ~ U(0, 1), a threshold t in [0, 3], w' = w sigmoid(100 (|w| - t)).

    The loss is MSE + c sum_w [0.5 sigmoid(10 (|w| - t)) + 0.1 |w|] with c = (first MSE) / 7000. Unlike the
    authors' code, c is that of each restart and depth (there the first depth's, a matter of order), and the
    network that comes back is the best of the run, pruned hard (w = 0 where |w| < t), not the last.

    Parameters
    ----------
    decoder : NetworkAutoencoder
        Of the table's own shape: there are no adapters.
    X : (n, n_in) array or tensor
        Inputs in the range of the space.
    y : (n,) or (n, n_out) array or tensor
        Numbers.
    restarts : int
        Starts of each depth.
    steps : int, optional
        Full-batch steps of Adam, 0.1 for z and 0.01 for t; the authors take 30001.
    seconds : float, optional
        Wall-clock time in place of `steps`, of each depth.
    generator : torch.Generator, optional
        Of the starts.

    Returns
    -------
    list of FoundNets
        One a depth, best first; `losses` are those of the hard-pruned networks.

    Raises
    ------
    ValueError
        An argument is not allowed, or the table has another shape.
    """
    data = table(X, y, "regression")
    restarts = check_number("restarts", restarts, least=1, whole=True)
    shape, own = (data.x.shape[1], data.n_out), (decoder.space.n_in, decoder.space.n_out)
    if shape != own:
        raise ValueError(
            f"X and y must have {own[0]} and {own[1]} columns, got {shape[0]} and {shape[1]}"
        )
    return [
        _one_depth(decoder, data.x, data.y, d, restarts, Budget(steps, seconds), generator)
        for d in range(1, decoder.space.max_depth + 1)
    ]


def _one_depth(
    decoder: NetworkAutoencoder,
    x: Float[Tensor, "n D"],
    y: Float[Tensor, "n K"],
    depth: int,
    restarts: int,
    budget: Budget,
    generator: torch.Generator | None,
) -> FoundNets:
    z = torch.rand(
        restarts, decoder.z_dim, generator=generator, dtype=torch.float32
    ).requires_grad_()
    t = torch.zeros(restarts, dtype=torch.float32, requires_grad=True)
    optimizer = torch.optim.Adam([{"params": [z], "lr": LR_Z}, {"params": [t], "lr": LR_T}])
    best, share = Best(), None
    for _ in budget:
        nets = decoder.decode(z, depth)
        fit = task_losses(pruned(nets, t, hard=False)(x), y, "regression")
        share = fit.detach() / SHARE if share is None else share
        loss = fit + share * sparsity(nets, t)
        z.grad, t.grad = torch.autograd.grad(loss.sum(), [z, t])
        _see(best, decoder, z, t, depth, x, y, share)
        optimizer.step()
        with torch.no_grad():
            t.clamp_(0, MOST_THRESHOLD)
    assert share is not None
    _see(best, decoder, z, t, depth, x, y, share)
    assert best.nets is not None
    nets = best.nets
    losses = task_losses(nets(x), y, "regression").double()
    order = losses.argsort()
    found = FoundNets(nets.space, *([p[order] for p in part] for part in nets.parts))
    found.losses, found.collapsed, found.iterations = losses[order], 0, budget.done
    return found


@torch.no_grad()
def _see(
    best: Best,
    decoder: NetworkAutoencoder,
    z: Tensor,
    t: Tensor,
    depth: int,
    x: Tensor,
    y: Tensor,
    share: Tensor,
) -> None:
    """Keep the hard-pruned network if its loss is the best so far."""
    nets = decoder.decode(z, depth, hard=True)
    hard = pruned(nets, t, hard=True)
    loss = task_losses(hard(x), y, "regression") + share * sparsity(nets, t)
    best.see(hard, loss)


def pruned(nets: NetBatch, t: Float[Tensor, " R"], *, hard: bool) -> NetBatch:
    """Weights below the threshold taken out: softly as in the forward pass, or for good.

    Parameters
    ----------
    nets : NetBatch
        R networks.
    t : (R,) tensor
        Their thresholds.
    hard : bool
        w = 0 where |w| < t, instead of w sigmoid(100 (|w| - t)).
    """
    edge = t[:, None, None]
    kept = [
        w * (w.abs() >= edge) if hard else w * torch.sigmoid(STEEP * (w.abs() - edge))
        for w in nets.weights
    ]
    return NetBatch(nets.space, kept, nets.biases, nets.gates, nets.acts)


def sparsity(nets: NetBatch, t: Float[Tensor, " R"]) -> Float[Tensor, " R"]:
    """sum_w [0.5 sigmoid(10 (|w| - t)) + 0.1 |w|].

    Parameters
    ----------
    nets : NetBatch
        R networks.
    t : (R,) tensor
        Their thresholds.
    """
    edge = t[:, None, None]
    each = [
        (0.5 * torch.sigmoid(SOFT * (w.abs() - edge)) + 0.1 * w.abs()).sum((1, 2))
        for w in nets.weights
    ]
    return torch.stack(each).sum(0)
