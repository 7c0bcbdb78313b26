"""The first step of the factored mode looks whether hooks see every use of the weights they stand for.

A module may read another module's weight without calling it (nn.MultiheadAttention reads
out_proj.weight; tied weights in F.linear). Such a tensor is moved to a copy that is written before each
forward.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from surefoot._numerics.seeds import hash64
from surefoot.zeroth_order._engine.tensors import Slot
from surefoot.zeroth_order._engine.weight_uses import Reads

if TYPE_CHECKING:
    from surefoot.zeroth_order._engine.evaluation import Closure, Evaluation

# The perturbation that is looked at, relative to the weights: large, so that a missed use shows.
LOUD = 0.3


class HookWarning(UserWarning):
    """A weight is read outside its module; it is written before each forward from now on."""


class SelfCheck:
    """One forward that counts reads of all tensors, and two that compare losses for one of them.

    Compiled code may read weights where no count can see it: hence the second look, at a tensor chosen
    at random, and at all of them once one was wrong.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def run(self, optimizer: Evaluation, closure: Closure) -> None:
        """Move every tensor that hooks do not serve to a written copy."""
        hooked = [s for s in optimizer.slots if s.storage == "hooked"]
        if not hooked:
            return
        for slot in hooked:
            slot.fired = 0
        with Reads(s.param for s in hooked) as reads:
            optimizer._evaluate(closure)
        for slot in hooked:
            if not slot.fired:
                self._write(slot, "its module was never called in the forward")
            elif reads.count[id(slot.param)] > slot.fired:
                self._write(slot, "its weight is read outside its module as well")
        hooked = [s for s in hooked if s.storage == "hooked"]
        if not hooked:
            return
        chosen = hooked[hash64(self.seed, "check") % len(hooked)]
        if self._agrees(optimizer, chosen, closure):
            return
        for slot in hooked:
            if slot is chosen or not self._agrees(optimizer, slot, closure):
                self._write(slot, "its weight is read outside its module as well")

    def _agrees(self, optimizer: Evaluation, slot: Slot, closure: Closure) -> bool:
        assert slot.v is not None
        assert slot.b is not None
        u = optimizer.streams.normal("check", 0, slot.index, (slot.m, slot.rank))
        noise = u.to(slot.v) @ slot.v.T
        size = LOUD * float(slot.param.data.float().norm()) / max(float(noise.norm()), 1e-30)
        slot.low = slot.b + size * u.to(slot.b)
        hooked = optimizer._evaluate(closure)
        kept = slot.param.data.clone()
        moved = torch.addmm(kept.view(slot.m, slot.n).to(slot.v), slot.low, slot.v.T)
        slot.matrix().copy_(moved)
        slot.active = False
        written = optimizer._evaluate(closure)
        slot.active = True
        slot.param.data.copy_(kept)
        slot.low = slot.b
        return math.isclose(hooked, written, rel_tol=self._tolerance(slot.param), abs_tol=1e-6)

    @staticmethod
    def _tolerance(p: Tensor) -> float:
        return 1e-4 if p.element_size() >= 4 else 3e-2

    @staticmethod
    def _write(slot: Slot, why: str) -> None:
        slot.unhook()
        slot.storage = "written"
        slot.begin(slot.v, slot.rank)
        warnings.warn(
            f"{slot.name} cannot be perturbed by a hook: {why}; it is written before each forward instead, "
            "which costs a copy of it",
            HookWarning,
            stacklevel=7,
        )
