"""Frozen first blocks run once, on the rows of one copy; the first trained block gets those of all."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from typing import Any

from torch import Tensor, nn

from surefoot.zeroth_order._engine.paired.copies import Copies, mapped
from surefoot.zeroth_order._engine.paired.plan import Plan


def first_blocks(
    model: nn.Module, called: list[nn.Module], reading: Collection[nn.Module | None]
) -> tuple[list[nn.Module], list[nn.Module]] | None:
    """The members of a list of blocks before the first trained one, and the others.

    Parameters
    ----------
    model
        The module.
    called
        Its modules, in the order in which a forward calls them.
    reading
        Those that read something trained.

    Returns
    -------
    tuple or None
        None where something that is trained is read before all blocks.
    """
    first = next((m for m in called if m in reading), None)
    if first is None:
        return None
    for blocks in model.modules():
        if not isinstance(blocks, nn.ModuleList):
            continue
        at = next((j for j, b in enumerate(blocks) if any(m is first for m in b.modules())), 0)
        if at and all(b in called for b in blocks):
            return list(blocks[:at]), list(blocks[at:])
    return None


class Prefix:
    """The blocks of a model before and after its first trained one.

    Parameters
    ----------
    frozen, later
        Members of one list of modules: those that hold nothing trained, and the others.
    """

    def __init__(self, frozen: list[nn.Module], later: list[nn.Module]) -> None:
        self.frozen, self.later = frozen, later

    @classmethod
    def of(cls, model: nn.Module, plan: Plan) -> Prefix | None:
        """The blocks of a model; None where something that is trained is read before all of them."""
        found = first_blocks(model, plan.called, plan.reading)
        return None if found is None else cls(*found)

    def lay(self, stack: contextlib.ExitStack, copies: Copies, k: int) -> None:
        """Hooks that repeat what the first trained block is given, until the stack ends."""

        def begin(module: nn.Module, args: Any) -> None:
            copies.k = 1

        def widen(module: nn.Module, args: Any, kwargs: Any) -> Any:
            copies.k = k

            def repeat(x: Tensor) -> Tensor:
                whole = x.ndim > 1 and x.shape[0] == copies.rows
                return x.repeat(k, *[1] * (x.ndim - 1)) if whole else x

            # States of a cache are another block's: only what is given as tensors is repeated.
            return tuple(mapped(a, repeat) for a in args), {
                n: mapped(a, repeat) for n, a in kwargs.items()
            }

        stack.callback(self.frozen[0].register_forward_pre_hook(begin).remove)
        for block in self.later:
            handle = block.register_forward_pre_hook(widen, with_kwargs=True)
            stack.callback(handle.remove)
