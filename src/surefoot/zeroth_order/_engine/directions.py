"""The random directions of a step, and showing the model the iterate plus a multiple of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from surefoot.zeroth_order._engine.counter_rng import CounterRNG
from surefoot.zeroth_order._engine.paired.copies import Copies
from surefoot.zeroth_order._engine.settings import Settings
from surefoot.zeroth_order._engine.tensors import TrainedTensor, exact

# Dense directions of more numbers are drawn again at every use: holding them would cost their memory.
HELD = 1 << 16


class Directions:
    """Draws U and V of every trained tensor, and places the iterate beside them.

    Parameters
    ----------
    tensors, groups
        The trained tensors, and the optimizer's own list of parameter groups (rank and eps are read there).
    settings
        The scale, the distribution of V and the length of a period.
    """

    def __init__(
        self, tensors: list[TrainedTensor], groups: list[dict[str, Any]], settings: Settings
    ) -> None:
        self.tensors, self.groups, self.settings = tensors, groups, settings
        self.rng = CounterRNG(settings.seed)
        self.t, self.at = 0, 0.0
        # By how much some perturbations are larger than eps, while a check looks at large ones.
        self.louder: dict[int, float] = {}
        self._held: dict[int, Tensor] = {}
        self._held_for = -1

    def scale_of(self, tensor: TrainedTensor) -> tuple[float, float]:
        """How U V^T is scaled in the perturbation and in the update."""
        if tensor.dense:
            return 1.0, 1.0
        if self.settings.scale == "paper":
            return 1.0, 1 / tensor.rank
        return tensor.rank**-0.5, tensor.rank**-0.5

    def draw(self, tensor: TrainedTensor, i: int) -> Tensor:
        """U (dense: z) of direction i of the present step."""
        index = self.t * self.settings.num_directions + i
        u = self.rng.normal("U", index, tensor.index, tensor.direction_shape())
        p = tensor.param
        return u.to(tensor.device, p.dtype if tensor.storage == "inplace" else exact(p.dtype))

    def draw_v(self, tensor: TrainedTensor, period: int, rank: int) -> Tensor | None:
        """V of a period; None for a dense tensor."""
        if not rank:
            return None
        orthogonal = self.settings.v_dist == "orthogonal"
        return self.rng.factor(period, tensor.index, tensor.n, rank, orthogonal)

    def begin_period(
        self, renewed: Callable[[TrainedTensor, Tensor | None], None] = lambda tensor, old: None
    ) -> None:
        """Draw V where a period starts; `renewed` is told of each tensor's new V and is given the old."""
        period = self.t // self.settings.nu
        for tensor in self.tensors:
            if tensor.period == period:
                continue
            rank = tensor.usable_rank(self.groups[tensor.group]["rank"])
            old, tensor.period = tensor.v, period
            tensor.begin(self.draw_v(tensor, period, rank), rank)
            renewed(tensor, old)

    def held(self, tensor: TrainedTensor, i: int) -> Tensor:
        """Direction i of a tensor: the one that is held, or drawn again."""
        there = self._held.get(tensor.index) if self._held_for == i else None
        return self.draw(tensor, i) if there is None else there

    def place(self, i: int, s: float) -> None:
        """Show the model the iterate plus s eps times direction i."""
        self._hold(i)
        self._move(s)

    def _hold(self, i: int) -> None:
        if self._held_for != i:
            self.release()
            self._held = {
                x.index: self.draw(x, i)
                for x in self.tensors
                if not (x.dense and x.param.numel() > HELD)
            }
            self._held_for = i

    def amount(self, tensor: TrainedTensor, s: float) -> float:
        """s eps, as it multiplies the direction of a tensor."""
        return s * float(self.groups[tensor.group]["eps"]) * self.louder.get(tensor.index, 1.0)

    def spread(
        self, points: list[tuple[int, float]], copies: Copies, tensors: list[TrainedTensor]
    ) -> None:
        """Show copy k the iterate plus s_k eps times direction i_k.

        Parameters
        ----------
        points
            (i_k, s_k) of each copy.
        copies
            Which of them a forward holds.
        tensors
            Those that hooks add to what modules return.
        """
        alone = {i for i, _ in points} == {0}
        if alone:
            # As after an evaluation of each: the update goes along what is held.
            self._hold(0)
        for tensor in tensors:
            drawn: dict[int, Tensor] = {}
            stacked = []
            factor = self.scale_of(tensor)[0]
            for i, s in points:
                if i not in drawn:
                    drawn[i] = self.held(tensor, i)
                amount = self.amount(tensor, s)
                if tensor.dense:
                    stacked.append(drawn[i] * amount)
                else:
                    assert tensor.b is not None
                    stacked.append(torch.add(tensor.b, drawn[i], alpha=amount * factor))
            tensor.shown, tensor.copies = torch.stack(stacked), copies

    def place_one(self, tensor: TrainedTensor, i: int, s: float) -> None:
        """Show the model one tensor at the iterate plus s eps times direction i."""
        amount = self.amount(tensor, s)
        tensor.write(self.held(tensor, i), amount, self.scale_of(tensor)[0])

    def value_at(self, tensor: TrainedTensor, i: int, s: float) -> Tensor:
        """One tensor at the iterate plus s eps times direction i, in the precision of factors."""
        return tensor.value_at(
            self.held(tensor, i), self.amount(tensor, s), self.scale_of(tensor)[0]
        )

    @staticmethod
    def gather(tensors: list[TrainedTensor]) -> None:
        """Every tensor is the iterate alone again."""
        for tensor in tensors:
            tensor.shown, tensor.copies = tensor.b, None

    def _move(self, s: float) -> None:
        for tensor in self.tensors:
            if tensor.frozen:
                continue
            direction = self.held(tensor, self._held_for)
            tensor.place(direction, self.amount(tensor, s), self.scale_of(tensor)[0])
        self.at = s

    def release(self) -> None:
        """Back to the iterate, and forget the direction."""
        if self.at:
            self._move(0.0)
        self.forget()

    def forget(self) -> None:
        """Nothing is held, and the model sees the iterate."""
        self._held, self._held_for, self.at = {}, -1, 0.0
