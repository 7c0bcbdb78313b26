"""Gradient descent over weights and architecture at once, in many restarts and depths."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any, overload

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot.architecture._budget import Budget, Clock
from surefoot.architecture._nets.family import shapes
from surefoot.architecture._search.found import Best, FoundNets
from surefoot.architecture._search.tasks import Data, Task, table, task_losses
from surefoot.architecture._search.variables import (
    Direct,
    Latent,
    Variables,
    embedding_scale,
)
from surefoot.architecture.autoencoder import NetworkAutoencoder
from surefoot.architecture.net_batch import NetBatch
from surefoot.architecture.space import MLPSpace

# Fractions of the budget between which the penalty rises, and over which the activations harden.
RAMP, HARDENED = (0.15, 0.5), 0.5
COLDEST = 0.05
LEAST_WEIGHTS = 1e-3
LOOKS, SEEN_ROWS, CHUNK = 25, 1024, 4096
JITTER = 0.1


@overload
def search(
    decoder: NetworkAutoencoder | MLPSpace,
    X: Any,
    y: Any,
    *,
    task: Task,
    depth: int,
    restarts: int = ...,
    size_penalty: float = ...,
    steps: int | None = ...,
    seconds: float | None = ...,
    lr: float = ...,
    generator: torch.Generator | None = ...,
    warm_start: Any = ...,
    adapters: bool = ...,
    batch_size: int = ...,
    clock: Clock = ...,
) -> FoundNets: ...
@overload
def search(
    decoder: NetworkAutoencoder | MLPSpace, X: Any, y: Any, *, task: Task, depth: Sequence[int],
    restarts: int = ..., size_penalty: float = ..., steps: int | None = ..., seconds: float | None = ...,
    lr: float = ..., generator: torch.Generator | None = ..., warm_start: Any = ...,
    adapters: bool = ..., batch_size: int = ...,
    clock: Clock = ...,
) -> list[FoundNets]: ...  # fmt: skip
@checked
def search(
    decoder: NetworkAutoencoder | MLPSpace,
    X: Any,
    y: Any,
    *,
    task: Task,
    depth: int | Sequence[int],
    restarts: int = 8,
    size_penalty: float = 0.03,
    steps: int | None = None,
    seconds: float | None = None,
    lr: float = 0.02,
    generator: torch.Generator | None = None,
    warm_start: Any = None,
    adapters: bool = True,
    batch_size: int = 256,
    clock: Clock = time.perf_counter,
) -> FoundNets | list[FoundNets]:
    """Networks that fit a table and are small: task + lambda(t) S(m) / S_0 + 1e-3 sum_i mean |W_i|, by Adam.

    S(m) is the exact number of parameters of the exported network, differentiable through the gates, and S_0
    that with every gate on. lambda rises linearly between 15 % and 50 % of the budget; the activations'
    temperature falls from 1 to 0.05 over its first half. Restarts do not interact. Kept is the best network
    after the rise, not the last one.

    Parameters
    ----------
    decoder : NetworkAutoencoder or MLPSpace
        A frozen decoder to search through; or a space, whose widths and activations are searched directly:
        weights, gates and activations are then the variables.
    X : (n, features) array or tensor
        Standardised columns.
    y : (n,) or (n, outputs) array or tensor
        Standardised numbers, or classes 0..C-1.
    task : "regression" or "classification"
        Squared error, or cross-entropy of C logits (of one logit where C is 2).
    depth : int or sequence of int
        Hidden layers; several are searched side by side in each step.
    restarts : int
        Starts of each depth, in one tensor program.
    size_penalty : float
        lambda.
    steps : int, optional
        Iterations; the result then depends on the generator only.
    seconds : float, optional
        Wall-clock time in place of `steps`.
    lr : float
        Of Adam; it falls to a tenth over the second half.
    generator : torch.Generator, optional
        Of starts and mini-batches; by default torch's global one.
    warm_start : NetBatch, Module, callable or estimator, optional
        What the embeddings start at, as `NetworkAutoencoder.encode` takes it: the first restart exactly,
        the others near it. By default they start at N(0, s_z^2), s_z the spread of embeddings of random
        networks.
    adapters : bool
        Whether linear maps before and after the decoder's hidden layers are searched too, which fit any
        number of features and outputs, and are folded into the first and last layer. Without them the table
        must have the decoder's own shape.
    batch_size : int
        Rows of a mini-batch; all of them where there are no more.
    clock : callable
        What `seconds` are measured by; `time.process_time` makes them CPU time.

    Returns
    -------
    FoundNets, or a list of them, one a depth
        Networks of n_in = features and n_out = outputs, best penalised loss first. Collapsed restarts are
        left out, so there may be none.

    Raises
    ------
    ValueError
        An argument is not allowed; the message names it.
    """
    data = table(X, y, task)
    several = not isinstance(depth, int) and isinstance(depth, Sequence)
    space = decoder if isinstance(decoder, MLPSpace) else decoder.space
    listed = list(depth) if isinstance(depth, Sequence) else [depth]
    depths = [check_number("depth", d, least=1, most=space.max_depth, whole=True) for d in listed]
    if not depths:
        raise ValueError("depth must name at least one depth, got none")
    restarts = check_number("restarts", restarts, least=1, whole=True)
    size_penalty = check_number("size_penalty", size_penalty, least=0)
    lr = check_number("lr", lr, above=0)
    batch_size = check_number("batch_size", batch_size, least=1, whole=True)
    budget = Budget(steps, seconds, clock)
    if isinstance(decoder, MLPSpace):
        if warm_start is not None:
            raise ValueError("warm_start needs an autoencoder as decoder: a space embeds nothing")
        own = dataclasses.replace(decoder, n_in=data.x.shape[1], n_out=data.n_out)
        variables: list[Variables] = [Direct(own, d, restarts, generator) for d in depths]
    else:
        variables = _latent(decoder, data, depths, restarts, adapters, warm_start, generator)
    best = _descend(variables, data, budget, size_penalty, lr, batch_size, generator)
    found = [_finished(b, data, size_penalty, budget.done) for b in best]
    return found if several else found[0]


def _latent(
    model: NetworkAutoencoder,
    data: Data,
    depths: list[int],
    restarts: int,
    adapters: bool,
    warm_start: Any,
    generator: torch.Generator | None,
) -> list[Variables]:
    shape, own = (data.x.shape[1], data.n_out), (model.space.n_in, model.space.n_out)
    if (not adapters or warm_start is not None) and shape != own:
        raise ValueError(
            f"{'warm_start' if adapters else 'adapters=False'} needs the decoder's own {own[0]} features and "
            f"{own[1]} outputs, the table has {shape[0]} and {shape[1]}"
        )
    scale = embedding_scale(model, generator)

    def starts() -> Float[Tensor, "R z"]:
        z = torch.randn(restarts, model.z_dim, generator=generator, dtype=torch.float32) * scale
        if warm_start is None:
            return z
        z = model.encode(warm_start) + JITTER * z
        z[0] = model.encode(warm_start)[0]
        return z

    return [
        Latent(model, starts(), d, data.x, data.n_out, adapters, generator) for d in depths
    ]  # fmt: skip


def _descend(
    variables: list[Variables],
    data: Data,
    budget: Budget,
    size_penalty: float,
    lr: float,
    batch_size: int,
    generator: torch.Generator | None,
) -> list[Best]:
    tensors = [t for v in variables for t in v.tensors()]
    optimizer = torch.optim.Adam(tensors, lr=lr, fused=True)
    n, best = len(data.x), [Best() for _ in variables]
    seen = (
        data if n <= SEEN_ROWS else _rows(data, torch.randperm(n, generator=generator)[:SEEN_ROWS])
    )
    for spent in budget:
        for group in optimizer.param_groups:
            group["lr"] = lr * (1 - 0.9 * max(0.0, 2 * spent - 1))
        rising = min(max((spent - RAMP[0]) / (RAMP[1] - RAMP[0]), 0.0), 1.0)
        temperature = COLDEST ** min(spent / HARDENED, 1.0)
        drawn = torch.randint(n, (batch_size,), generator=generator) if n > batch_size else None
        rows = data if drawn is None else _rows(data, drawn)
        total = torch.zeros((), dtype=torch.float32)
        for v in variables:
            nets = v.nets(temperature)
            each = penalised(nets, rows, size_penalty * rising)
            total = total + each.sum()
        for t, g in zip(
            tensors, torch.autograd.grad(total, tensors, allow_unused=True), strict=True
        ):
            t.grad = g
        optimizer.step()
        if spent >= RAMP[1] and budget.done % LOOKS == 0:
            _look(variables, best, seen, size_penalty)
    _look(variables, best, seen, size_penalty)
    return best


def _rows(data: Data, rows: Tensor) -> Data:
    return data._replace(x=data.x[rows], y=data.y[rows])


@torch.no_grad()
def _look(variables: list[Variables], best: list[Best], seen: Data, size_penalty: float) -> None:
    for v, b in zip(variables, best, strict=True):
        nets = v.nets(COLDEST, hard=True)
        b.see(nets, penalised(nets, seen, size_penalty))


def penalised(nets: NetBatch, rows: Data, weight: float) -> Float[Tensor, " R"]:
    """The loss of every restart: task + weight S(m) / S_0 + 1e-3 sum_i mean |W_i|.

    Parameters
    ----------
    nets : NetBatch
        One network a restart.
    rows : Data
        On which the task's loss is taken.
    weight : float
        lambda as it is now.
    """
    most = full_size(nets.space, nets.depth)
    weights = sum(
        (w.abs().mean((1, 2)) for w in nets.weights), torch.zeros(len(nets), dtype=torch.float32)
    )
    task = task_losses(nets(rows.x), rows.y, rows.task)
    return task + weight * nets.size() / most + LEAST_WEIGHTS * weights


def full_size(space: Any, depth: int) -> int:
    """S_0: parameters with every gate on."""
    return sum((a + 1) * b for a, b in shapes(space, depth))


@torch.no_grad()
def _finished(best: Best, data: Data, size_penalty: float, iterations: int) -> FoundNets:
    assert best.nets is not None
    alive = best.alive()
    order = best.loss.argsort()
    order = order[alive[order]]
    kept = best.nets[order]
    found = FoundNets(kept.space, *([t.detach() for t in p] for p in kept.parts))
    total = torch.zeros(len(found), dtype=torch.float64)
    for at in range(0, len(data.x), CHUNK):
        rows = _rows(data, torch.arange(at, min(at + CHUNK, len(data.x))))
        total += task_losses(found(rows.x), rows.y, data.task).double() * len(rows.x)
    found.losses = total / len(data.x)
    found.collapsed = int(len(alive) - len(order))
    found.iterations = iterations
    return found
