"""Models of other shapes as callables that the probe takes: a torch module, a regressor, text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surefoot._numerics.arguments import checked
from surefoot.in_context.errors import ProbeError


@checked
class ModulePredictor:
    """A torch module as a callable of float64 prompts: in evaluation mode, without gradients.

    Prompts are cast to the dtype of its first floating parameter or buffer and moved to that device. Its mode
    is set back after every call.

    Parameters
    ----------
    module
        Called as module(X, y, xq) with X (B, d, n), y (B, n), xq (B, d).
    """

    def __init__(self, module: nn.Module) -> None:
        if not isinstance(module, nn.Module):
            raise ValueError(f"module must be a torch module, got {type(module).__name__}")
        self.module = module

    def __call__(
        self, X: Float[Tensor, "B d n"], y: Float[Tensor, "B n"], xq: Float[Tensor, "B d"]
    ) -> Any:
        """What the module returns."""
        model = self.module
        like = next(
            (t for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()), X
        )
        modes = [(m, m.training) for m in model.modules()]
        try:
            model.eval()
            with torch.no_grad():
                return model(*(t.to(like.device, like.dtype) for t in (X, y, xq)))
        finally:
            for part, mode in modes:
                part.training = mode


def as_predictor(fn: Any) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The callable itself, or the one that a module or a regressor is made into.

    Raises
    ------
    ProbeError
        It is none of these.
    """
    if isinstance(fn, type):
        raise ProbeError(
            f"fn must be a callable, got the class {fn.__name__}; make an object of it"
        )
    if isinstance(fn, nn.Module):
        return ModulePredictor(fn)
    if hasattr(fn, "fit") and hasattr(fn, "predict"):
        from surefoot.in_context.doors.sklearn import RegressorPredictor

        return RegressorPredictor(fn)
    if not callable(fn):
        raise ProbeError(
            "fn must be a callable fn(X, y, xq), a torch module, or a regressor with fit and predict, "
            f"got {type(fn).__name__}"
        )
    # Whatever is called with tensors and returns one: its type is the caller's word.
    return fn  # type: ignore[no-any-return]


def name_of(fn: Any) -> str:
    """What to call it in a report."""
    inner = getattr(fn, "module", None) or getattr(fn, "estimator", None) or fn
    return str(getattr(fn, "__name__", None) or type(inner).__name__)
