"""What a decoder gives for one depth, and the networks that this stands for."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.architecture._nets.family import Family, shapes
from surefoot.architecture.net_batch import NetBatch

Gate = Literal["ste", "hard", "soft"]
GATES: tuple[Gate, ...] = ("ste", "hard", "soft")
# Below this temperature activations are one-hot, with the gradient of the softmax.
ONE_HOT_BELOW = 0.5


class Entries(NamedTuple):
    """Every entry of B networks of one depth; of gates and activations the logits."""

    weights: list[Tensor]
    biases: list[Tensor]
    gate_logits: list[Tensor]
    act_logits: list[Tensor]


def entry_shapes(space: Family, depth: int) -> list[tuple[int, ...]]:
    """The shapes of the entries of one network, in the order of `Entries`."""
    sides = shapes(space, depth)
    hidden, kinds = [(s[1],) for s in sides[:-1]], len(space.activations)
    return [*sides, *[(s[1],) for s in sides], *hidden, *[(*h, kinds) for h in hidden]]


def split(flat: Float[Tensor, "B total"], space: Family, depth: int) -> Entries:
    """Entries out of one row a network."""
    wanted = entry_shapes(space, depth)
    totals = [math.prod(s) for s in wanted]
    parts = flat.split(totals, -1)  # type: ignore[no-untyped-call]
    found = [p.reshape(len(flat), *s) for p, s in zip(parts, wanted, strict=True)]
    a, b, c = depth + 1, 2 * depth + 2, 3 * depth + 2
    return Entries(found[:a], found[a:b], found[b:c], found[c:])


def to_nets(
    entries: Entries,
    space: Family,
    *,
    gate: Gate,
    temperature: float,
    hard: bool,
    keep_one: bool = True,
) -> NetBatch:
    """The networks that entries stand for.

    Parameters
    ----------
    entries : Entries
        Of B networks.
    space : Family
        Of the networks.
    gate : "ste", "hard" or "soft"
        Straight-through m = 1[q > 1/2] + q - stopgrad(q) with q = sigmoid(logit); without a gradient, as the
        authors have it; or m = q.
    temperature : float
        Of the activations' softmax; below 1/2 they are one-hot and have its gradient at temperature 1.
    hard : bool
        Gates in {0, 1} and one-hot activations, whatever `gate` and `temperature` are.
    keep_one : bool
        Whether a layer whose gates are all off keeps the neuron of the largest logit.
    """
    gates = [_gate(logit, "hard" if hard else gate, keep_one) for logit in entries.gate_logits]
    acts = [_one_of(logit, temperature, hard) for logit in entries.act_logits]
    return NetBatch(space, entries.weights, entries.biases, gates, acts)


def _gate(logit: Float[Tensor, "B W"], gate: Gate, keep_one: bool) -> Float[Tensor, "B W"]:
    if gate == "soft":
        return torch.sigmoid(logit)
    on = logit > 0
    if keep_one:
        largest = torch.nn.functional.one_hot(logit.argmax(-1), logit.shape[-1]).bool()
        on = on | (largest & ~on.any(-1, keepdim=True))
    if gate == "hard":
        return on.to(logit.dtype)
    q = torch.sigmoid(logit)
    return on.to(logit.dtype) + q - q.detach()


def _one_of(logit: Float[Tensor, "B W A"], temperature: float, hard: bool) -> Tensor:
    if logit.shape[-1] == 1:
        return torch.ones_like(logit)
    if not hard and temperature >= ONE_HOT_BELOW:
        return torch.softmax(logit / temperature, -1)
    chosen = torch.nn.functional.one_hot(logit.argmax(-1), logit.shape[-1]).to(logit.dtype)
    if hard:
        return chosen
    # At a low temperature the softmax itself has no gradient left.
    soft = torch.softmax(logit, -1)
    return chosen + soft - soft.detach()
