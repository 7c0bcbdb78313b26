"""What may be embedded besides networks of the space: any module, callable or estimator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn


def outputs_of(function: Any, x: Float[Tensor, "P D"], n_out: int) -> Float[Tensor, "P K"]:
    """What a function gives at inputs, in float64.

    Parameters
    ----------
    function : Module, callable or estimator
        A module gets a tensor in the dtype of its parameters, in evaluation mode; an estimator's `predict`,
        and any other callable, a float64 array (P, D). It returns (P, K), or (P,) for one output.
    x : (P, D) tensor
        Inputs.
    n_out : int
        K.

    Raises
    ------
    TypeError
        It is nothing of these.
    ValueError
        It returns another shape, or numbers that are not finite.
    """
    found = _call(function, x)
    y = torch.as_tensor(found.detach().cpu() if isinstance(found, Tensor) else np.asarray(found))
    if y.shape == (len(x),) and n_out == 1:
        y = y[:, None]
    if y.shape != (len(x), n_out) or y.is_complex():
        raise ValueError(
            f"the function must return shape ({len(x)}, {n_out}), got {tuple(y.shape)} of {y.dtype}"
        )
    y = y.double()
    if not bool(torch.isfinite(y).all()):
        raise ValueError("the function returns NaN or infinity at a probe input")
    return y


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; each of its modules gets its own mode back."""
    modes = [(m, m.training) for m in module.modules()]
    try:
        module.eval()
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes:
            part.training = mode


def _call(function: Any, x: Tensor) -> Any:
    # Copies, as it may write into what it is given.
    if isinstance(function, nn.Module):
        like = next((t for t in function.parameters() if t.is_floating_point()), x)
        with evaluating(function):
            return function(x.to(like, copy=True))
    called: Callable[[Any], Any] | None = getattr(function, "predict", None)
    if called is None and callable(function):
        called = function
    if called is None:
        raise TypeError(
            "encode takes a NetBatch, a module, a callable or an estimator with predict, "
            f"got {type(function).__name__}"
        )
    return called(x.to(torch.float64, copy=True).numpy())
