"""The first step of the factored mode looks whether hooks see every use of the weights they stand for.

A module may read another module's weight without calling it (nn.MultiheadAttention reads
out_proj.weight; tied weights in F.linear). Such a tensor is moved to a copy that is written before each
forward.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from surefoot._numerics.seeds import hash64
from surefoot._numerics.sizes import wide
from surefoot.errors import warn
from surefoot.zeroth_order._engine.counter_rng import CounterRNG
from surefoot.zeroth_order._engine.numberless import refuse
from surefoot.zeroth_order._engine.tensors import TrainedTensor
from surefoot.zeroth_order._engine.weight_uses import WeightUses

# The norm of the perturbation that is looked at, relative to the weights': large, so that a missed use shows.
LOUD = 0.3
# Numbers of a weight that are set aside while it is written: the check costs no copy of a large one.
SET_ASIDE = 1 << 18


class HookWarning(UserWarning):
    """A weight is read outside its module; it is written before each forward from now on."""


class NoisyLossWarning(UserWarning):
    """The loss is another one at each evaluation, by draws that cannot be repeated."""


NOISY = (
    "the loss was {one:.6g} and then {two:.6g} at the same weights: something in the forward draws random "
    "numbers that cannot be drawn again (dropout or noise from a generator of its own), and differences of "
    "losses are then mostly that noise; call model.eval(), or draw from torch's own generator"
)


class SelfCheck:
    """One forward that counts reads of all tensors, and two that compare losses for one of them.

    Compiled code may read weights where no count can see it: hence the second look, at a tensor chosen
    at random, and at all of them once one was wrong. It compares the loss with a perturbation in the hooks
    and with the same one in the weights, in some of the columns: all rows, as a part of a weight that is read
    elsewhere is a part of its rows.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.autocast: torch.dtype | None = None

    def run(self, tensors: list[TrainedTensor], loss: Callable[[], float]) -> bool:
        """Move every tensor that hooks do not serve to a written copy; False if no loss could tell.

        Parameters
        ----------
        tensors
            The trained tensors, at the start of their first period: B is zero.
        loss
            The loss of the closure, evaluated anew at each call.
        """
        hooked = [x for x in tensors if x.storage == "hooked"]
        if not hooked:
            return True
        if not math.isfinite(self._count(hooked, loss)):
            return False
        hooked = [x for x in hooked if x.storage == "hooked"]
        if not hooked:
            return True
        # What hides its numbers can be read by its own modules only, whatever compiled code does.
        hooked = [x for x in hooked if not x.numberless or hasattr(x.param, "shift")]
        if not hooked:
            return True
        chosen = hooked[hash64(self.seed, "check") % len(hooked)]
        if self.agrees(chosen, loss):
            return True
        one, two = loss(), loss()
        if not math.isclose(one, two, rel_tol=self._tolerance(chosen.param), abs_tol=1e-6):
            warn(NOISY.format(one=one, two=two), NoisyLossWarning)
            return True
        # Code that was compiled before the hooks were laid does not look for them.
        if "torch._dynamo" in sys.modules:
            torch.compiler.reset()
            if self.agrees(chosen, loss):
                return True
        for tensor in hooked:
            if tensor is chosen or not self.agrees(tensor, loss):
                self._write(tensor, "its weight is read outside its module as well")
        return True

    def _count(self, hooked: list[TrainedTensor], loss: Callable[[], float]) -> float:
        for tensor in hooked:
            tensor.counting, tensor.calls = True, 0
        uses = WeightUses(x.param for x in hooked)
        try:
            with eagerly(), uses:
                value = loss()
        except (RuntimeError, NotImplementedError):
            # A weight without numbers fails whoever reads it, in torch's words.
            self._refuse_reads(hooked, uses)
            raise
        finally:
            for tensor in hooked:
                tensor.counting = False
        self.autocast = uses.autocast
        self._refuse_reads(hooked, uses)
        for tensor in hooked:
            if tensor.numberless:
                continue
            if not tensor.calls:
                self._write(tensor, "its module was never called in the forward")
            elif uses.count[id(tensor.param)] > tensor.calls:
                self._write(tensor, "its weight is read outside its module as well")
        return value

    @staticmethod
    def _refuse_reads(hooked: list[TrainedTensor], uses: WeightUses) -> None:
        refuse(
            (x for x in hooked if x.numberless and uses.count[id(x.param)] > x.calls),
            "it is read outside its module as well, where no hook can reach; freeze it",
        )

    def agrees(self, tensor: TrainedTensor, loss: Callable[[], float]) -> bool:
        """Whether a perturbation of some columns is the same loss in the hooks and in the weights."""
        assert tensor.v is not None
        assert tensor.b is not None
        v, b = tensor.v, tensor.b
        stride = math.ceil(tensor.n / max(1, SET_ASIDE // tensor.m))
        columns = slice(hash64(self.seed, "columns") % stride, None, stride)
        part = torch.zeros_like(v)
        part[columns] = v[columns]
        u = CounterRNG(self.seed).normal("check", 0, tensor.index, (tensor.m, tensor.rank)).to(v)
        # ||U V^T||^2 from the two Gram matrices: the product would be a copy of the weight.
        wide_u, wide_part = wide(u), wide(part)
        norm = float(((wide_u.T @ wide_u) * (wide_part.T @ wide_part)).sum()) ** 0.5
        a = u * (LOUD * self._norm(tensor) / max(norm, 1e-30))
        tensor.v, tensor.shown = part, a
        try:
            hooked = loss()
            # Zero factors and not none: compiled code stays the same.
            tensor.shown = torch.zeros_like(a)
            with self._written(tensor, a, part, columns):
                written = loss()
        finally:
            tensor.v, tensor.shown = v, b
        return math.isclose(hooked, written, rel_tol=self._tolerance(tensor.param), abs_tol=1e-6)

    @staticmethod
    def _norm(tensor: TrainedTensor) -> float:
        if tensor.numberless:
            packed: Any = tensor.param
            return float(packed.frobenius())
        weight = tensor.matrix()
        return math.hypot(*(float(weight[rows].float().norm()) for rows in tensor.row_blocks()))

    @staticmethod
    @contextlib.contextmanager
    def _written(tensor: TrainedTensor, a: Tensor, part: Tensor, columns: slice) -> Iterator[None]:
        """With A V^T, of which only some columns are not zero, in the weight itself."""
        if tensor.numberless:
            packed: Any = tensor.param
            packed.shift = (a, part)
            try:
                yield
            finally:
                packed.shift = None
            return
        weight = tensor.matrix()
        before = weight[:, columns].clone()
        weight[:, columns] = torch.addmm(before.to(part), a, part[columns].T).to(weight)
        try:
            yield
        finally:
            weight[:, columns] = before

    def _tolerance(self, p: Tensor) -> float:
        return 1e-4 if p.element_size() >= 4 and self.autocast is None else 3e-2

    @staticmethod
    def _write(tensor: TrainedTensor, why: str) -> None:
        refuse([tensor], f"it cannot be perturbed by a hook: {why}; freeze it")
        tensor.unhook()
        tensor.storage = "written"
        tensor.begin(tensor.v, tensor.rank)
        warn(
            f"{tensor.name} cannot be perturbed by a hook: {why}; it is written before each forward instead, "
            "which costs a copy of it",
            HookWarning,
        )


def eagerly() -> contextlib.AbstractContextManager[object]:
    """Run compiled models as they were written: compiled code shows a function mode nothing."""
    stance = getattr(torch.compiler, "set_stance", None)
    return contextlib.nullcontext() if stance is None else stance("force_eager")
