"""The output head on the rows that have a label, and on no others: most of its products are never read."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from surefoot.zeroth_order._engine import hooks
from surefoot.zeroth_order._engine.paired.copies import Copies, Unpaired

IGNORED = -100
# The share of labelled rows from which on it is not worth it.
MANY = 0.75


class Withheld:
    """Stands where logits would: those of most rows were not computed."""

    def __getattr__(self, name: str) -> Any:
        raise Unpaired("the closure reads logits, which are computed for labelled rows only")

    def __getitem__(self, at: Any) -> Any:
        raise Unpaired("the closure reads logits, which are computed for labelled rows only")


class LabelRows:
    """Which rows of a batch have a label, and the head that is asked for them.

    Parameters
    ----------
    model, head
        The module, and the one of its own that returns logits.
    shifted
        Whether the label of a row is that of the next one, as in causal losses.
    """

    def __init__(self, model: nn.Module, head: nn.Module, shifted: bool) -> None:
        self.head, self.shifted = head, shifted
        self.around = [m for m in model.modules() if m is not head and head in set(m.modules())]

    @staticmethod
    def head_of(model: nn.Module) -> nn.Module | None:
        """The module that returns logits, where a model names it."""
        try:
            found = model.get_output_embeddings()  # type: ignore[operator]
        except (AttributeError, NotImplementedError, TypeError):
            return None
        return found if isinstance(found, nn.Module) and hooks.linear_kind(found) else None

    @staticmethod
    def are_few(batch: Any) -> bool:
        """Whether enough rows of a batch have no label."""
        labels = batch.get("labels") if isinstance(batch, Mapping) else None
        if not isinstance(labels, Tensor) or labels.ndim != 2 or labels.is_floating_point():
            return False
        share = float((labels != IGNORED).double().mean())
        return 0 < share <= MANY

    def lay(self, stack: contextlib.ExitStack, copies: Copies, labels: Tensor) -> Rows:
        """Hooks that ask the head for labelled rows, until the stack ends."""
        there = labels != IGNORED
        if self.shifted:
            there = torch.cat([there[:, 1:], torch.zeros_like(there[:, :1])], 1)
        rows = Rows(there, copies)
        stack.callback(self.head.register_forward_pre_hook(rows.select).remove)
        stack.callback(self.head.register_forward_hook(rows.done, always_call=True).remove)
        for module in self.around:
            stack.callback(module.register_forward_hook(_withhold).remove)
        return rows


class Rows:
    """The labelled rows of one forward."""

    def __init__(self, there: Tensor, copies: Copies) -> None:
        self.there, self.copies, self.before = there, copies, copies.rows
        self.at = there.flatten().nonzero().flatten()

    def select(self, module: nn.Module, args: Any) -> Any:
        """Of what the head is given."""
        x, k = args[0], self.copies.k
        if x.ndim != 3 or x.shape[:2] != (k * self.there.shape[0], self.there.shape[1]):
            return None
        # One row a copy, of as many positions as there are labels.
        self.before, self.copies.rows = self.copies.rows, 1
        return (x.reshape(k, -1, x.shape[-1])[:, self.at], *args[1:])

    def done(self, module: nn.Module, args: Any, y: Any) -> None:
        """The head has been asked."""
        self.copies.rows = self.before

    def kept(self, targets: Tensor, rows: int) -> Tensor:
        """Of the targets of a loss.

        Raises
        ------
        Unpaired
            If its targets are others than these rows have.
        """
        flat, one = targets.flatten(), self.there.numel()
        there = flat != IGNORED
        if flat.numel() % one or not bool((there.view(-1, one) == self.there.flatten()).all()):
            raise Unpaired("the loss has other targets than the labels say")
        found = flat[there]
        return found.repeat(self.copies.k) if flat.numel() == one else found


def _withhold(module: nn.Module, args: Any, found: Any) -> None:
    if isinstance(found, Mapping) and found.get("loss") is not None and "logits" in found:
        found["logits"] = Withheld()  # type: ignore[index]
