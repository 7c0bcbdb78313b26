"""What a server does with the mean of its clients: the linear rules, and the adaptive ones for comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number
from surefoot.federated._arrays import STATISTICS, is_statistic
from surefoot.record import Fact

Rule = Literal["fedavg", "fedprox", "fedavgm", "fedadam", "fedyogi", "fedadagrad"]
ADAPTIVE = ("fedadam", "fedyogi", "fedadagrad")


@checked
@dataclass
class ServerRule:
    """new = rule(old, mean of the clients).

    fedavg and fedprox take old + lr (mean - old), FedProx's term being the client's; fedavgm the same with
    heavy-ball momentum (arXiv 1909.06335). fedadam, fedyogi and fedadagrad are those optimizers on
    mean - old (arXiv 2003.00295, Algorithm 2, without bias correction), which is not linear.

    Statistics and integers are what the clients measured, no direction to go on in: whatever the rule, they
    are taken from the mean.

    Parameters
    ----------
    rule
        "fedavg", "fedprox", "fedavgm", "fedadam", "fedyogi" or "fedadagrad".
    lr
        The server's learning rate.
    momentum
        Of fedavgm.
    betas, tau
        Of the adaptive rules: decay of both moments (fedadagrad has the first alone), and what is added
        to the root.
    buffers, squares
        Its state: first moments (or momentum) and second moments by array.
    statistics
        Last parts of the names of statistics; BatchNorm's by default.

    Raises
    ------
    ValueError
        A rule that is none of these, or a number outside of its range.
    """

    rule: Rule = "fedavg"
    lr: float = 1.0
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.99)
    tau: float = 1e-3
    buffers: dict[str, Tensor] = field(default_factory=dict)
    squares: dict[str, Tensor] = field(default_factory=dict)
    statistics: tuple[str, ...] = STATISTICS

    def __post_init__(self) -> None:
        check_choice("rule", self.rule, get_args(Rule))
        check_number("lr", self.lr, above=0)
        check_number("momentum", self.momentum, least=0, below=1)
        if not isinstance(self.betas, tuple | list) or len(self.betas) != 2:
            raise ValueError(f"betas must be two numbers in [0, 1), got {self.betas!r}")
        for beta in self.betas:
            check_number("betas", beta, least=0, below=1)
        # Where nothing moves the root is 0, and 0/0 no step.
        check_number("tau", self.tau, above=0)
        given: Any = self.statistics
        if not isinstance(given, tuple | list):
            raise ValueError(f"statistics must be a tuple of names, got {given!r}")

    @property
    def facts(self) -> dict[str, Fact]:
        """What a federation's record says of the server; nothing is known of a subclass."""
        if type(self) is not ServerRule:
            return {"server": f"unknown ({type(self).__name__})", "server_lr": float(self.lr)}
        momentum = self.momentum if self.rule == "fedavgm" else 0.0
        return {"server": self.rule, "server_lr": float(self.lr), "server_momentum": momentum}

    def apply(self, old: Mapping[str, Tensor], mean: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The next global state; float64 inside, each array's dtype outside."""
        if self.rule in ("fedavg", "fedprox") and self.lr == 1:
            return dict(mean)
        new = {}
        for name, target in mean.items():
            if not target.is_floating_point() or is_statistic(name, self.statistics):
                new[name] = target
                continue
            start = old[name].double()
            move = target.double() - start
            if self.rule == "fedavgm":
                buffer = self.buffers.get(name)
                move = move if buffer is None else self.momentum * buffer + move
                self.buffers[name] = move
            elif self.rule in ADAPTIVE:
                move = self._adapted(name, move)
            new[name] = (start + self.lr * move).to(target.dtype)
        return new

    def _adapted(self, name: str, move: Tensor) -> Tensor:
        zero, decay = torch.zeros_like(move), 1 - self.betas[1]
        first = self.betas[0] * self.buffers.get(name, zero) + (1 - self.betas[0]) * move
        before, square = self.squares.get(name, zero), move.square()
        if self.rule == "fedadam":
            second = self.betas[1] * before + decay * square
        elif self.rule == "fedyogi":
            second = before - decay * square * (before - square).sign()
        else:
            second = before + square
        self.buffers[name], self.squares[name] = first, second
        return first / (second.sqrt() + self.tau)
