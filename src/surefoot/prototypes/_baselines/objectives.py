"""What a client minimises in each federated method, beside the cross-entropy."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surefoot.prototypes._baselines.stack import (
    Batch,
    Objective,
    Stack,
    adapted,
    classified,
    cross_entropy,
)
from surefoot.prototypes.head import ZeroShotHead


def proximal(head: ZeroShotHead, anchor: Stack, mu: float) -> Objective:
    """+ (mu / 2) |w - w_global|^2: FedProx (arXiv 1812.06127), and Ditto's personal model (2012.04221)."""
    plain = cross_entropy(head)

    def loss(stack: Stack, batch: Batch) -> Float[Tensor, " M"]:
        away = [(w - a).flatten(1).square().sum(1) for w, a in zip(stack, anchor, strict=True)]
        return plain(stack, batch) + mu / 2 * torch.stack(away).sum(0)

    return loss


def contrastive(
    head: ZeroShotHead, anchor: Stack, previous: Stack, mu: float, tau: float
) -> Objective:
    """+ mu times MOON's loss (arXiv 2103.16257): u near the global model's, not the last one's."""

    def loss(stack: Stack, batch: Batch) -> Float[Tensor, " M"]:
        u = adapted(stack, batch.z)
        with torch.no_grad():
            near, far = adapted(anchor, batch.z), adapted(previous, batch.z)
        cosines = [nn.functional.cosine_similarity(u, other, dim=-1) / tau for other in (near, far)]
        pulled = nn.functional.softplus(cosines[1] - cosines[0])
        return classified(head(u), batch) + mu * (pulled * batch.weight).sum(1)

    return loss


def prototypical(
    head: ZeroShotHead, prototypes: Float[Tensor, "classes d"], mu: float
) -> Objective:
    """+ mu times the mean square of u - P_class: FedProto (arXiv 2105.00243)."""

    def loss(stack: Stack, batch: Batch) -> Float[Tensor, " M"]:
        u = adapted(stack, batch.z)
        away = (u - prototypes[batch.y]).square().mean(-1)
        return classified(head(u), batch) + mu * (away * batch.weight).sum(1)

    return loss


class BiasElimination:
    """DBE (arXiv 2311.14975): a vector of its own behind each client's adapter, and a common mean before it.

    The running mean of u before the vector is drawn to the mean over clients.
    """

    def __init__(
        self,
        head: ZeroShotHead,
        common: Float[Tensor, " d"],
        running: Float[Tensor, "M d"],
        weight: float,
        momentum: float,
    ) -> None:
        self.head, self.common, self.running = head, common, running
        self.weight, self.momentum = weight, momentum

    def __call__(self, stack: Stack, batch: Batch) -> Float[Tensor, " M"]:
        """The loss of a batch, which moves the running means."""
        u = adapted(stack[:2], batch.z)
        live = (batch.weight.sum(1) > 0)[:, None]
        moved = (u * batch.weight[:, :, None]).sum(1)
        mean = (1 - self.momentum) * self.running + self.momentum * moved
        self.running = torch.where(live, mean.detach(), self.running)
        drawn = (mean - self.common).square().mean(1) / 2
        return classified(self.head(u + stack[2][:, None]), batch) + self.weight * drawn


class NearestPrototype:
    """Logits -|u - P_c|^2 / 2, up to a constant of u; a class nobody has is never answered."""

    def __init__(self, prototypes: Float[Tensor, "classes d"], there: Tensor) -> None:
        self.prototypes = prototypes
        self.shift = torch.where(there, prototypes.square().sum(1) / 2, torch.inf)

    def __call__(self, u: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch classes"]:
        """Larger where u is nearer."""
        return u @ self.prototypes.T - self.shift
