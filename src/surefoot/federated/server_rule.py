"""What a server does with the mean of its clients: the linear rules, and Adam for comparison."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from surefoot._numerics.checks import check_choice, check_number
from surefoot.record import Fact

Rule = Literal["fedavg", "fedprox", "fedavgm", "fedadam"]


@dataclass
class ServerRule:
    """new = rule(old, mean of the clients).

    fedavg and fedprox take old + lr (mean - old), FedProx's term being the client's; fedavgm the same with
    heavy-ball momentum (arXiv 1909.06335); fedadam Adam on mean - old (arXiv 2003.00295), which is not
    linear. Integer arrays are taken from the mean.

    Parameters
    ----------
    rule
        "fedavg", "fedprox", "fedavgm" or "fedadam".
    lr
        The server's learning rate.
    momentum
        Of fedavgm.
    betas, tau
        Of fedadam: decay of both moments, and what is added to the root.
    buffers, squares
        Its state: first moments (or momentum) and second moments by array.
    """

    rule: Rule = "fedavg"
    lr: float = 1.0
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.99)
    tau: float = 1e-3
    buffers: dict[str, Tensor] = field(default_factory=dict)
    squares: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choice("rule", self.rule, get_args(Rule))
        check_number("lr", self.lr, above=0)
        check_number("momentum", self.momentum, least=0, below=1)

    @property
    def facts(self) -> dict[str, Fact]:
        """What a federation's record says of the server; nothing is known of a subclass."""
        if type(self) is not ServerRule:
            return {"server": f"unknown ({type(self).__name__})", "server_lr": float(self.lr)}
        momentum = self.momentum if self.rule == "fedavgm" else 0.0
        return {"server": self.rule, "server_lr": float(self.lr), "server_momentum": momentum}

    def apply(self, old: dict[str, Tensor], mean: dict[str, Tensor]) -> dict[str, Tensor]:
        """The next global state; float64 inside, each array's dtype outside."""
        if self.rule in ("fedavg", "fedprox") and self.lr == 1:
            return mean
        new = {}
        for name, target in mean.items():
            if not target.is_floating_point():
                new[name] = target
                continue
            start = old[name].double()
            move = target.double() - start
            if self.rule == "fedavgm":
                buffer = self.buffers.get(name)
                move = move if buffer is None else self.momentum * buffer + move
                self.buffers[name] = move
            elif self.rule == "fedadam":
                zero = torch.zeros_like(move)
                first = self.betas[0] * self.buffers.get(name, zero) + (1 - self.betas[0]) * move
                second = self.betas[1] * self.squares.get(name, zero)
                second = second + (1 - self.betas[1]) * move.square()
                self.buffers[name], self.squares[name] = first, second
                move = first / (second.sqrt() + self.tau)
            new[name] = (start + self.lr * move).to(target.dtype)
        return new
