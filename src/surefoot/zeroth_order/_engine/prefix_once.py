"""Frozen first blocks run once an estimate where each copy has a forward: the first keeps their outputs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from surefoot.zeroth_order._engine.paired.copies import leaves
from surefoot.zeroth_order._engine.paired.prefix import first_blocks
from surefoot.zeroth_order._engine.readers import Readers
from surefoot.zeroth_order._engine.replacing import replace_forward
from surefoot.zeroth_order._engine.self_check import eagerly
from surefoot.zeroth_order._engine.tensors import TrainedTensor


class PrefixOnce:
    """What the frozen first blocks of a model returned in the first evaluation of an estimate.

    Parameters
    ----------
    model
        The module; None where only parameters are known.
    tensors
        The trained ones.

    Attributes
    ----------
    blocks
        The frozen ones, in their order; none where nothing can be left out.
    refused
        Whether something was seen that forbids it: compiled code, a block that writes into what another
        returned, a loss that was another one.
    """

    def __init__(self, model: nn.Module | None, tensors: list[TrainedTensor]) -> None:
        self.model, self.tensors = model, tensors
        self.blocks: list[nn.Module] = []
        self.refused = model is None
        self._for: tuple[int, ...] | None = None
        self._kept: list[tuple[Any, list[int]]] = []
        self._at = 0
        self._full = self._trusted = False
        self._used = 0

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"blocks": [], "_for": None, "_kept": [], "_full": False}

    def look(self, run: Callable[[], Any]) -> None:
        """Find the frozen first blocks, by two forwards, where the model has any.

        Parameters
        ----------
        run
            The forward.
        """
        moving = [x for x in self.tensors if not x.frozen]
        key = tuple(x.index for x in moving)
        if self.refused or key == self._for:
            return
        self._for, self.blocks, self._trusted = key, [], False
        assert self.model is not None
        if not _may_have_some(self.model, {id(x.param) for x in moving}):
            return
        with eagerly(), Readers(self.model, (x.param for x in moving)) as readers:
            run()
        reading = {m for by in readers.by.values() for m in by}
        if None not in reading:
            found = first_blocks(self.model, list(readers.called), reading)
            self.blocks = found[0] if found else []
        if self.blocks and _is_compiled(self.blocks[0], run):
            self._refuse()

    def forget(self) -> None:
        """An estimate begins or ends."""
        self._kept, self._full = [], False

    def evaluate(self, once: Callable[[], Any], may_skip: Callable[[], bool]) -> Any:
        """The loss, without the frozen blocks where an evaluation of this estimate has run them.

        Parameters
        ----------
        once
            The evaluation.
        may_skip
            Whether the last evaluation drew no random numbers, which the blocks would have to draw again.
        """
        if self.refused or not self.blocks:
            return once()
        if not self._full:
            with self._keeping():
                found = once()
            self._full = bool(self._kept) and may_skip()
            return found
        if any(versions != _versions(y) for y, versions in self._kept):
            self._refuse()
            return once()
        self._at = 0
        try:
            with self._skipping():
                found = once()
        except _Unlike:
            self._refuse()
            return once()
        self._used += 1
        if self._used & (self._used - 1) == 0 or not self._trusted or self._at != len(self._kept):
            # Again as often as the uses double: a closure may read other states later than at first.
            whole = once()
            self._trusted = self._at == len(self._kept) and _same(found, whole)
            if not self._trusted:
                self._refuse()
            return whole
        return found

    def _refuse(self) -> None:
        self.refused = True
        self.blocks = []
        self.forget()

    @contextlib.contextmanager
    def _keeping(self) -> Iterator[None]:
        self._kept = []

        def keep(module: nn.Module, args: Any, y: Any) -> None:
            self._kept.append((y, _versions(y)))

        handle = self.blocks[-1].register_forward_hook(keep)
        try:
            yield
        finally:
            handle.remove()

    @contextlib.contextmanager
    def _skipping(self) -> Iterator[None]:
        def kept(*args: Any, **kwargs: Any) -> Any:
            if self._at >= len(self._kept):
                raise _Unlike
            return self._kept[self._at][0]

        def last(*args: Any, **kwargs: Any) -> Any:
            found = kept()
            self._at += 1
            return found

        with contextlib.ExitStack() as stack:
            for block in self.blocks:
                replace_forward(stack, block, last if block is self.blocks[-1] else kept)
            yield


def _same(one: Any, two: Any) -> bool:
    """Whether two losses, or two rows of them, are the same numbers; NaN is NaN."""
    if isinstance(one, Tensor):
        return one.shape == two.shape and bool(torch.isclose(one, two, 0, 0, equal_nan=True).all())
    return bool(one == two or (one != one and two != two))


class _Unlike(Exception):
    """The model calls its blocks more often than the evaluation before."""


def _is_compiled(block: nn.Module, run: Callable[[], Any]) -> bool:
    """Whether a forward reaches a block in compiled code, which may not see what is changed about it."""
    seen: list[bool] = []

    def note(module: nn.Module, args: Any) -> None:
        seen.append(torch.compiler.is_compiling())

    handle = block.register_forward_pre_hook(note)
    try:
        run()
    finally:
        handle.remove()
    # Code that was compiled before asks no new hook.
    return not seen or any(seen)


def _may_have_some(model: nn.Module, moving: set[int]) -> bool:
    """Whether a list of blocks begins with one that holds nothing trained, and ends with one that does."""
    for blocks in model.modules():
        if isinstance(blocks, nn.ModuleList) and len(blocks) > 1:
            holds = [any(id(p) in moving for p in b.parameters()) for b in blocks]
            if any(holds) and not holds[0]:
                return True
    return False


def _versions(y: Any) -> list[int]:
    tensors = (x for x in leaves(y) if isinstance(x, Tensor))
    return [-1 if x.is_inference() else x._version for x in tensors]
