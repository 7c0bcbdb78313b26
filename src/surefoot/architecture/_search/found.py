"""The best networks of every restart, and the batch that comes back."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot.architecture.net_batch import NetBatch


@checked(nan=True)
class FoundNets(NetBatch):
    """What `search` found at one depth, best first: hard gates, one activation a neuron, adapters folded in.

    Restarts that collapsed (a layer without an active neuron, or a loss that is not finite) are left out, so
    there may be fewer networks than restarts, and none at all.

    Parameters
    ----------
    space, weights, biases, gates, acts
        As in `NetBatch`.

    Attributes
    ----------
    losses
        The task's loss of each network on all of the data, (networks,).
    collapsed
        Restarts that are left out.
    iterations
        Steps that ran.
    """

    losses: Float[Tensor, " networks"]
    collapsed: int
    iterations: int


class Best:
    """The networks of least penalised loss that every restart has been through."""

    def __init__(self) -> None:
        self.nets: NetBatch | None = None
        self.loss = torch.empty(0)

    def see(self, nets: NetBatch, loss: Float[Tensor, " R"]) -> None:
        """Keep what is better; a loss that is not finite never is."""
        loss = loss.nan_to_num(nan=torch.inf, posinf=torch.inf)
        if self.nets is None:
            # A copy: an optimizer goes on writing into the tensors that it was given.
            copied = ([t.detach().clone() for t in part] for part in nets.parts)
            self.nets, self.loss = NetBatch(nets.space, *copied), loss
            return
        better = loss < self.loss
        self.loss = torch.where(better, loss, self.loss)
        self.nets = NetBatch(
            nets.space,
            *(
                [_where(better, new, old) for new, old in zip(a, b, strict=True)]
                for a, b in zip(nets.parts, self.nets.parts, strict=True)
            ),
        )

    def alive(self) -> Bool[Tensor, " R"]:
        """Restarts with a finite loss and a neuron in every layer."""
        assert self.nets is not None
        on = torch.stack([(g > 0).any(-1) for g in self.nets.gates])
        return on.all(0) & self.loss.isfinite()


def _where(chosen: Bool[Tensor, " R"], new: Tensor, old: Tensor) -> Tensor:
    return torch.where(chosen.view(-1, *[1] * (new.ndim - 1)), new, old)
