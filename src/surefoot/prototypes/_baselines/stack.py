"""Many adapters of one shape as stacked weights, trained side by side in one loop."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from surefoot.prototypes._server.adamw import LONGEST
from surefoot.prototypes.adapter import ResidualAdapter
from surefoot.prototypes.head import ZeroShotHead

Stack = list[Tensor]
"""Transposed weights of M adapters: (M, d, h), (M, h, d); perhaps (M, d), added behind them."""
PADDING = -1


@dataclass(frozen=True)
class Batch:
    """One mini-batch of each of M adapters."""

    z: Float[Tensor, "M B d"]
    y: Int[Tensor, "M B"]
    weight: Float[Tensor, "M B"]
    """1 / size of the adapter's batch, 0 where it is padded."""


Objective = Callable[[Stack, Batch], Float[Tensor, " M"]]
"""Weights and a batch of each adapter to its loss."""


def stacked(adapters: Sequence[ResidualAdapter]) -> Stack:
    """Copies of the weights of adapters of one shape."""
    return [
        torch.stack([a.down.weight.detach().T for a in adapters]),
        torch.stack([a.up.weight.detach().T for a in adapters]),
    ]


def unstacked(stack: Stack) -> list[ResidualAdapter]:
    """The adapters, without the vector behind them."""
    found = []
    for down, up in zip(stack[0], stack[1], strict=True):
        adapter = ResidualAdapter(down.shape[0], down.shape[1], seed=0, dtype=down.dtype)
        with torch.no_grad():
            adapter.down.weight.copy_(down.T)
            adapter.up.weight.copy_(up.T)
        found.append(adapter)
    return found


def adapted(stack: Stack, z: Float[Tensor, "M B d"]) -> Float[Tensor, "M B d"]:
    """u of every adapter on its own rows."""
    hidden = torch.relu(torch.bmm(z, stack[0]))
    u = z + torch.relu(torch.bmm(hidden, stack[1]))
    return u + stack[2][:, None] if len(stack) > 2 else u


class CrossEntropy:
    """The mean cross-entropy of each adapter's batch, and its gradients in closed form.

    Autograd takes half as long again on matrices of this size.
    """

    def __init__(self, head: ZeroShotHead) -> None:
        self.head = head

    def __call__(self, stack: Stack, batch: Batch) -> Float[Tensor, " M"]:
        """The loss of each."""
        return classified(self.head(adapted(stack, batch.z)), batch)

    def gradients(self, stack: Stack, batch: Batch) -> Stack:
        """Of each loss, in the weights of two layers."""
        down, up = stack
        with torch.no_grad():
            hidden = torch.bmm(batch.z, down).relu_()
            risen = torch.bmm(hidden, up).relu_()
            u, rows = batch.z + risen, self.head.weight.to(risen.dtype)
            if self.head.normalize:
                # As torch.nn.functional.normalize has it, also where u = 0.
                sizes = torch.linalg.vector_norm(u, dim=-1, keepdim=True).clamp_min_(1e-12)
                u = u / sizes
            wrong = (u @ rows.T).softmax(-1)
            wrong.scatter_add_(-1, batch.y[..., None], wrong.new_full((*batch.y.shape, 1), -1.0))
            back = (wrong * batch.weight[..., None]) @ rows
            if self.head.normalize:
                back = (back - u * (back * u).sum(-1, keepdim=True)) / sizes
            back *= risen > 0
            below = torch.bmm(back, up.mT).mul_(hidden > 0)
            return [torch.bmm(batch.z.mT, below), torch.bmm(hidden.mT, back)]


def cross_entropy(head: ZeroShotHead) -> CrossEntropy:
    """The mean cross-entropy of each adapter's batch."""
    return CrossEntropy(head)


def classified(logits: Float[Tensor, "M B classes"], batch: Batch) -> Float[Tensor, " M"]:
    """The mean cross-entropy of given logits."""
    each = nn.functional.cross_entropy(logits.flatten(0, 1), batch.y.flatten(), reduction="none")
    found: Tensor = (each.view_as(batch.weight) * batch.weight).sum(1)
    return found


def train(
    stack: Stack,
    z: Float[Tensor, "N d"],
    y: Int[Tensor, " N"],
    plan: Int[Tensor, "steps M B"],
    lr: float,
    objective: Objective,
    kept: Collection[int] = (),
) -> dict[int, Stack]:
    """AdamW with gradients clipped to 1, adapter by adapter, as `train_global_adapter` does.

    Parameters
    ----------
    stack
        Where they start; not changed.
    z, y
        The rows of all of them.
    plan
        Rows of each adapter's batch at each step, padded by -1; an adapter whose batch is all padding has
        finished, and keeps its weights.
    lr
        Constant step size.
    objective
        The loss of each.
    kept
        Steps after which the weights are kept; the last always is.

    Returns
    -------
    dict
        Step -> weights.
    """
    leaves = [w.clone().requires_grad_() for w in stack]
    optimizer = torch.optim.AdamW(leaves, lr=lr, fused=True)
    lengths = (plan[:, :, 0] != PADDING).sum(0)
    wanted = {*kept, len(plan)} if len(kept) else {len(plan)}
    ends = set(lengths.tolist())
    final = [w.clone() for w in stack]
    found: dict[int, Stack] = {0: final} if not len(plan) else {}
    for step in range(1, len(plan) + 1):
        rows = plan[step - 1]
        live = rows != PADDING
        weight = live / live.sum(1, keepdim=True).clamp(min=1)
        at = rows.clamp(min=0)
        batch = Batch(z[at], y[at], weight.to(z.dtype))
        if isinstance(objective, CrossEntropy) and len(leaves) == 2:
            gradients = objective.gradients(leaves, batch)
        else:
            losses = objective(leaves, batch)
            # The fused AdamW reads a gradient's memory in the weight's order, whatever the strides say.
            gradients = [g.contiguous() for g in torch.autograd.grad(losses.sum(), leaves)]
        _clip(gradients)
        for leaf, gradient in zip(leaves, gradients, strict=True):
            leaf.grad = gradient
        optimizer.step()
        if step in ends or step in wanted:
            _take(final, leaves, lengths >= step)
        if step in wanted:
            found[step] = [w.clone() for w in final]
    return found


def _take(into: Stack, leaves: Stack, running: Bool[Tensor, " M"]) -> None:
    for kept, leaf in zip(into, leaves, strict=True):
        kept[running] = leaf.detach()[running]


def _clip(gradients: Sequence[Tensor]) -> None:
    """As `torch.nn.utils.clip_grad_norm_`, each adapter by itself."""
    squares = [torch.linalg.vector_norm(g.flatten(1), dim=1).square() for g in gradients]
    sizes = torch.stack(squares).sum(0).sqrt()
    if bool((sizes > LONGEST).any()):
        factor = (LONGEST / (sizes + 1e-6)).clamp(max=1)
        for g in gradients:
            g.mul_(factor.view(-1, *[1] * (g.ndim - 1)))


def accuracies(
    stack: Stack,
    head: Callable[[Tensor], Tensor],
    tests: Sequence[tuple[Float[Tensor, "_ d"], Int[Tensor, " _"]]],
) -> Float[Tensor, "M domains"]:
    """Of every adapter on every domain; NaN of one that diverged."""
    columns = []
    with torch.no_grad():
        for z, y in tests:
            u = adapted(stack, z.expand(len(stack[0]), *z.shape))
            scores = head(u)
            right = (scores.argmax(-1) == y).double().mean(1)
            columns.append(torch.where(scores.isnan().any(-1).any(-1), torch.nan, right))
    return torch.stack(columns, dim=1)
