"""Losses that reduce over rows give one number for each copy, without the user's help."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from surefoot.zeroth_order._engine.paired.copies import Copies, Unpaired

SPLIT = {
    F.cross_entropy, F.nll_loss, F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss, F.kl_div,
    F.binary_cross_entropy, F.binary_cross_entropy_with_logits,
}  # fmt: skip
# Weights of these have the rows of their input; those of the others are of classes.
BY_ROW = {F.binary_cross_entropy, F.binary_cross_entropy_with_logits, F.mse_loss, F.l1_loss}


class SplitLosses(TorchFunctionMode):
    """In here a loss with reduction "mean" or "sum" is the stack of the losses of all copies.

    Parameters
    ----------
    copies
        Those of the forward.
    kept
        Which targets have rows in the input, where the output head was asked for some rows only.
    """

    def __init__(self, copies: Copies, kept: Callable[[Tensor, int], Tensor] | None = None) -> None:
        super().__init__()
        self.copies, self.kept = copies, kept

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Split a loss, pass on everything else."""
        kwargs = kwargs or {}
        if function not in SPLIT or kwargs.get("reduction", "mean") == "none":
            return function(*args, **kwargs)
        return self._split(function, args, dict(kwargs))

    def _split(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor:
        named = dict(zip(("input", "target"), args, strict=False))
        given = named | {n: kwargs.pop(n) for n in ("input", "target") if n in kwargs}
        x, y, k = given["input"], given["target"], self.copies.k
        if not isinstance(x, Tensor) or not x.ndim or x.shape[0] % k:
            shape = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise Unpaired(
                f"{function.__name__} is taken of {shape}, not of the rows of {k} copies"
            )
        y = self._targets(x, y, k)
        rest = args[2:]
        weight: Any = kwargs.get("weight")
        split = (
            function in BY_ROW and isinstance(weight, Tensor) and weight.shape[:1] == x.shape[:1]
        )
        weights = weight.chunk(k) if split else [weight] * k
        found = []
        for a, b, w in zip(x.chunk(k), y, weights, strict=True):
            more = kwargs | {"weight": w} if "weight" in kwargs else kwargs
            found.append(function(a, b, *rest, **more))
        return torch.stack(found)

    def _targets(self, x: Tensor, y: Any, k: int) -> Any:
        if not isinstance(y, Tensor) or not y.ndim:
            return [y] * k
        if self.kept is not None and y.shape[0] > x.shape[0]:
            y = self.kept(y, x.shape[0])
        if y.shape[0] == x.shape[0]:
            return y.chunk(k)
        if y.shape[0] * k == x.shape[0] or y.shape[0] == 1:
            # Of one copy: the first blocks were run for it alone.
            return [y] * k
        raise Unpaired(
            f"a loss is taken of {x.shape[0]} rows with {y.shape[0]} targets for {k} copies"
        )
