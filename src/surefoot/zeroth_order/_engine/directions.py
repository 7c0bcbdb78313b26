"""The random directions of a step, and showing the model the iterate plus a multiple of one."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from surefoot.zeroth_order._engine.draws import Streams
from surefoot.zeroth_order._engine.tensors import Slot, exact

HELD = 1 << 16


class Directions(torch.optim.Optimizer):
    """Draws U and V of every slot from the streams, and places the iterate beside them."""

    nu: int
    scale: str
    v_dist: str
    num_directions: int
    streams: Streams
    slots: list[Slot]
    t: int
    _sums: np.ndarray | None
    _total: float
    _weight: float | None
    _micro: int
    _held: dict[int, Tensor]
    _held_for: int
    _at: float

    def _factor(self, slot: Slot) -> tuple[float, float]:
        """How U V^T is scaled in the perturbation and in the update."""
        if slot.dense:
            return 1.0, 1.0
        if self.scale == "paper":
            return 1.0, 1 / slot.rank
        return slot.rank**-0.5, slot.rank**-0.5

    def _direction(self, slot: Slot, i: int) -> Tensor:
        u = self.streams.normal("U", self.t * self.num_directions + i, slot.index, slot.shape())
        p = slot.param
        kind = p.dtype if slot.storage == "inplace" else exact(p.dtype)
        return u.to(p.device, kind)

    def _begin_period(self) -> None:
        """Draw V where a period starts, and let the momentum follow."""
        period = self.t // self.nu
        for slot in self.slots:
            if slot.period == period:
                continue
            rank = slot.full_rank_for(self.param_groups[slot.group]["rank"])
            old, slot.period = slot.v, period
            slot.begin(self._draw_v(slot, period, rank), rank)
            self._new_period(slot, old)

    def _draw_v(self, slot: Slot, period: int, rank: int) -> Tensor | None:
        if not rank:
            return None
        orthogonal = self.v_dist == "orthogonal"
        return self.streams.factor(period, slot.index, slot.n, rank, orthogonal)

    def _new_period(self, slot: Slot, old_v: Tensor | None) -> None:
        """What a method does to its state when V has changed."""

    def _place(self, i: int, s: float) -> None:
        """Show the model the iterate plus s eps times direction i."""
        if self._held_for != i:
            self._release()
            self._held = {
                x.index: self._direction(x, i) for x in self.slots if not self._redrawn(x)
            }
            self._held_for = i
        self._move(s)

    def _move(self, s: float) -> None:
        for slot in self.slots:
            direction = self._held.get(slot.index)
            if direction is None:
                direction = self._direction(slot, self._held_for)
            eps = self.param_groups[slot.group]["eps"]
            slot.place(direction, s * eps, self._factor(slot)[0])
        self._at = s

    def _redrawn(self, slot: Slot) -> bool:
        """Large dense directions are drawn again at every use: holding them would cost their memory."""
        return slot.dense and slot.param.numel() > HELD

    def _release(self) -> None:
        """Back to the iterate, and forget the direction."""
        if self._at:
            self._move(0.0)
        self._held, self._held_for, self._at = {}, -1, 0.0

    def _clear(self) -> None:
        self._sums = None
        self._total, self._weight, self._micro = 0.0, None, 0
        self._held, self._held_for, self._at = {}, -1, 0.0
