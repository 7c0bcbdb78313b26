"""Does the plain network follow the multi-branch one? The gap, the one-step defect, the rules."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from surefoot._numerics.checks import check_choice
from surefoot.guarantee import Assumption
from surefoot.reparam._block.branches import IDENTITY
from surefoot.reparam.block import NON_LINEAR
from surefoot.reparam.merging import blocks, linear_blocks, merge_state, merge_values

Closure = Callable[[nn.Module], Tensor]

LINEAR_SERVERS = ("fedavg", "fedavgm", "fedprox")
LINEAR_CLIENTS = ("sgd", "rep_adamw")
WHY_NOT = {
    "fedadam": "the server's Adam normalises a merged update, which is not the merge of normalised ones",
    "fedyogi": "the server's Yogi normalises a merged update, which is not the merge of normalised ones",
    "fedadagrad": "the server's Adagrad normalises a merged update",
    "krum": "distances between merged updates are not distances between unmerged ones",
    "median": "a median of sums is not the sum of medians",
    "trimmed_mean": "a trimmed mean of sums is not the sum of trimmed means",
    "bulyan": "distances between merged updates are not distances between unmerged ones",
    "quantised": "rounding a merged update is not merging rounded ones",
    "adam": "Adam with multiplied gradients is not Adam on every branch; use RepAdamW",
    "plain": "the plain network's gradient norm is not the multi-branch one's; clip_csla_norm_ takes that",
    "per_branch": NON_LINEAR,
}


def equivalence_gap(plain: nn.Module, csla: nn.Module) -> float:
    """max over conv weights of |W' - merge|_inf / |merge|_inf, in float64 (G1).

    Raises
    ------
    TypeError
        A block of `csla` is in mode "rep" (per-branch BN is non-linear) or "plain".
    KeyError
        The models have other blocks.
    """
    own = plain.state_dict()
    worst = 0.0
    for path, block in linear_blocks(csla):
        name = f"{path}.conv.weight" if path else "conv.weight"
        if name not in own:
            raise KeyError(f"the plain model has no {name!r}: it is not a conversion of this one")
        parts = {b: block.kernels[b].detach() for b in block.convolutions}
        if IDENTITY in block.branches:
            parts[IDENTITY] = block.identity.detach()
        reference = block.merge(parts).double()
        size = float(reference.abs().max())
        difference = float((own[name].double() - reference).abs().max())
        worst = max(worst, difference / size if size else difference)
    return worst


def synchronise(
    plain: nn.Module,
    plain_optimizer: torch.optim.Optimizer,
    csla: nn.Module,
    csla_optimizer: torch.optim.Optimizer,
) -> None:
    """Set the plain network, buffers and momentum to the merge of the multi-branch one's."""
    plain.load_state_dict(merge_state(csla))

    def buffer(name: str, value: Tensor) -> Tensor:
        state = csla_optimizer.state.get(parameters[name], {})
        found = state.get("momentum_buffer")
        return torch.zeros_like(value) if found is None else found.detach()

    parameters = dict(csla.named_parameters())
    started = any(s.get("momentum_buffer") is not None for s in csla_optimizer.state.values())
    merged = merge_values(csla, buffer)
    for name, parameter in plain.named_parameters():
        state = plain_optimizer.state[parameter]
        if started:
            state["momentum_buffer"] = merged[name].clone()
        else:
            state.pop("momentum_buffer", None)


def one_step_defect(
    plain: nn.Module,
    plain_optimizer: torch.optim.Optimizer,
    csla: nn.Module,
    csla_optimizer: torch.optim.Optimizer,
    closure: Closure,
    before: Callable[[torch.optim.Optimizer], Any] | None = None,
) -> float:
    """The gap after one step that both take from the same state: what G1 promises, to rounding.

    `plain` is set to the merge of `csla`, then both step on `closure(model)`, the loss of one batch.
    Both models and optimisers are left after the step. `before(optimizer)` runs between the backward
    pass and the step, for instance to clip. The free-running gap grows exponentially once rounding flips
    a ReLU's mask; this does not, and is what can be judged.
    """
    synchronise(plain, plain_optimizer, csla, csla_optimizer)
    for model, optimizer in ((plain, plain_optimizer), (csla, csla_optimizer)):
        optimizer.zero_grad()
        closure(model).backward()  # type: ignore[no-untyped-call]
        if before is not None:
            before(optimizer)
        optimizer.step()
    return equivalence_gap(plain, csla)


class Shadow:
    """A multi-branch copy beside a plain run: its free-running gap and its one-step defect.

    The run itself is untouched: the defect is measured on copies.
    """

    def __init__(
        self,
        csla: nn.Module,
        csla_optimizer: torch.optim.Optimizer,
        plain: nn.Module,
        plain_optimizer: torch.optim.Optimizer,
    ) -> None:
        self.csla, self.csla_optimizer = csla, csla_optimizer
        self.plain = plain
        # One deepcopy of both, so that the copied optimiser steps the copied parameters.
        self._copy, self._copy_optimizer = copy.deepcopy((plain, plain_optimizer))

    def step(self, closure: Closure) -> tuple[float, float]:
        """Step the shadow with the batch that the run has just stepped with.

        Returns the free-running gap and the one-step defect.
        """
        defect = one_step_defect(
            self._copy, self._copy_optimizer, self.csla, self.csla_optimizer, closure
        )
        return equivalence_gap(self.plain, self.csla), defect


def equivalence_holds(
    server: str = "fedavg", client: str = "sgd", clip: str | None = None, norm: str = "bn"
) -> Assumption:
    """Whether plain training follows the multi-branch one under these rules, and why not (G1, G2, G3).

    Linear in the gradient history on the clients, linear aggregation on the server, clipping by the
    multi-branch norm, a norm only after the sum. FedProx's term is added after the multiplier.

    Raises
    ------
    ValueError
        An unknown rule.
    """
    allowed = {
        "server": (server, (*LINEAR_SERVERS, "fedadam", "fedyogi", "fedadagrad", "krum", "median",
                            "trimmed_mean", "bulyan", "quantised")),
        "client": (client, (*LINEAR_CLIENTS, "adam")),
        "clip": (clip, (None, "csla", "plain")),
        "norm": (norm, ("bn", "group_norm", "none", "per_branch")),
    }  # fmt: skip
    reasons = []
    for name, (given, known) in allowed.items():
        check_choice(name, given, known)
        if given in WHY_NOT:
            reasons.append(f"{name} {given}: {WHY_NOT[given]}")
    return Assumption(
        name="linear rules",
        requires="clients and server linear in the gradients, the norm after the sum",
        measured=None,
        holds=not reasons,
        how="; ".join(reasons) or f"by the rules: server {server}, client {client}, clip {clip}",
    )


def check_equivalent_mode(model: nn.Module) -> None:
    """Raise TypeError where a model has BatchNorm inside its branches."""
    for name, block in blocks(model):
        if block.mode == "rep":
            raise TypeError(f"block {name or 'itself'}: {NON_LINEAR}")
