"""Which module was at work when a weight was read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from surefoot.zeroth_order._engine.weight_uses import WeightUses


class Readers(WeightUses):
    """Which module of a model, the innermost one, was at work when a weight was read.

    Parameters
    ----------
    model
        Whose modules are looked at.
    tensors
        The weights.

    Attributes
    ----------
    by
        For the id of each weight that was read, how often by which module; None: by none of the model's.
    called
        The modules, in the order of their first calls.
    """

    def __init__(self, model: nn.Module, tensors: Iterable[Tensor]) -> None:
        super().__init__(tensors)
        self.by: dict[int, Counter[nn.Module | None]] = {}
        self.called: dict[nn.Module, None] = {}
        self._model = model
        self._stack: list[nn.Module] = []

    def __enter__(self) -> Any:
        # Hooks of the modules and no global ones, which torch.compile warns of.
        self._handles = []
        for module in self._model.modules():
            self._handles += [
                module.register_forward_pre_hook(self._enters, prepend=True),
                module.register_forward_hook(self._leaves, prepend=True, always_call=True),
            ]
        # torch gives neither of the two types.
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *how: Any) -> None:
        super().__exit__(*how)  # type: ignore[no-untyped-call]
        for handle in self._handles:
            handle.remove()

    def _enters(self, module: nn.Module, args: Any) -> None:
        self._stack.append(module)
        self.called[module] = None

    def _leaves(self, module: nn.Module, args: Any, y: Any) -> None:
        if self._stack:
            self._stack.pop()

    def used(self, tensor: Tensor) -> None:
        """Note one read."""
        reader = self._stack[-1] if self._stack else None
        self.by.setdefault(id(tensor), Counter())[reader] += 1
