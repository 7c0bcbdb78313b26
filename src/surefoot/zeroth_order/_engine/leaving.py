"""What leaves a model through `state_dict` in mid-period: weights without the factors that hooks add."""

from __future__ import annotations

import warnings

from torch import nn

from surefoot.zeroth_order._engine.tensors import TrainedTensor


class PendingFactors:
    """A hook on every module whose weight is hooked: says once that its `state_dict` lacks a term.

    Parameters
    ----------
    tensors
        The trained tensors, of which dense ones are written at each step.

    Attributes
    ----------
    told
        Whether it was said.
    covered
        Whether the optimizer's own state, which holds the factors, was taken since its last step.
    """

    def __init__(self, tensors: list[TrainedTensor]) -> None:
        self.tensors = tensors
        self.told = self.covered = False

    def __call__(self, module: nn.Module, prefix: str, keep_vars: bool) -> None:
        """Before a module's state is gathered."""
        silent = self.told or self.covered
        pending = [] if silent else [x.name for x in self.tensors if x.is_pending]
        if not pending:
            return
        self.told = True
        more = f" and {len(pending) - 1} others" if len(pending) > 1 else ""
        how = (
            "optimizer.adapter() holds what was kept apart"
            if any(x.kept for x in self.tensors)
            else "call optimizer.flush() first, or for a checkpoint take optimizer.state_dict() before it"
        )
        warnings.warn(
            f"state_dict in mid-period lacks what {pending[0]}{more} moved by since the period began, "
            f"which hooks add to the model's output (mode 'factored'): {how}",
            stacklevel=3,
        )
