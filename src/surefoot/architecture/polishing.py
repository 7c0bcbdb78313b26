"""L-BFGS on a small plain network: what follows a search, and what a warm start is judged by."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surefoot._numerics.checks import check_number

Loss = Callable[[Tensor, Tensor], Tensor]


def polish_lbfgs(
    module: nn.Module,
    x: Float[Tensor, "n D"],
    y: Tensor,
    *,
    outer: int = 10,
    inner: int = 4,
    loss: Loss = nn.functional.mse_loss,
    judge: Callable[[nn.Module], float] | None = None,
) -> tuple[nn.Module, list[float]]:
    """Train a copy in float64 by L-BFGS with strong Wolfe steps: zeros stay zeros, the best state is kept.

    Parameters
    ----------
    module : Module
        A plain network; it is left as it is.
    x : (n, D) tensor
        Inputs.
    y : tensor
        Targets, as `loss` takes them.
    outer, inner : int
        Rounds, and iterations of each; a round that gives NaN ends the training.
    loss : callable
        (outputs, y) -> loss.
    judge : callable, optional
        The loss of a network by which the best state is chosen; by default that of the training.

    Returns
    -------
    Module
        The best state seen, in the dtype of `module`.
    list of float
        What `judge` says at the start and after every round.

    Raises
    ------
    ValueError
        outer is negative or inner below 1.
    """
    outer = check_number("outer", outer, least=0, whole=True)
    inner = check_number("inner", inner, least=1, whole=True)
    dtype = next(module.parameters()).dtype
    net, x, y = (
        copy.deepcopy(module).double(),
        x.double(),
        y.double() if y.is_floating_point() else y,
    )
    masks = [(p, (p != 0).double()) for p in net.parameters() if p.ndim == 2]
    optimizer = torch.optim.LBFGS(net.parameters(), max_iter=inner, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        value = loss(net(x), y)
        value.backward()  # type: ignore[no-untyped-call]
        for p, mask in masks:
            if p.grad is not None:
                p.grad.mul_(mask)
        return float(value.detach())

    @torch.no_grad()
    def now() -> float:
        return judge(net) if judge is not None else float(loss(net(x), y))

    values = [now()]
    best, state = values[0], copy.deepcopy(net.state_dict())
    for _ in range(outer):
        optimizer.step(closure)  # type: ignore[no-untyped-call]
        values.append(now())
        if values[-1] != values[-1]:
            break
        if not values[-1] >= best:
            best, state = values[-1], copy.deepcopy(net.state_dict())
    net.load_state_dict(state)
    return net.to(dtype), values
