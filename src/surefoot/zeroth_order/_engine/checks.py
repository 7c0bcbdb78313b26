"""Argument checks of the zeroth-order optimisers: what was given, what is allowed, what to do."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from surefoot._numerics.checks import check_choice, check_numbers

REPROJECTIONS = ("paper", "lstsq", "reset")
SCALES = ("paper", "unit")
V_DISTRIBUTIONS = ("gaussian", "orthogonal")
MODES = ("auto", "inplace", "factored")


def check_parameter(name: str, parameter: Tensor) -> None:
    """A real floating-point tensor of this process alone."""
    if type(parameter.data).__name__ in ("DTensor", "FlatParameter"):
        raise TypeError(
            f"{name} is sharded ({type(parameter.data).__name__}); zeroth-order steps need whole "
            "parameters: run one full model per process instead of FSDP or DeepSpeed ZeRO-3"
        )
    if not parameter.is_floating_point():
        raise TypeError(
            f"{name} must be of a real floating-point dtype, got {parameter.dtype}; "
            "freeze it or train an adapter on top"
        )
    if parameter.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise TypeError(
            f"{name} must be float16, bfloat16, float32 or float64, got {parameter.dtype}"
        )


def loss_value(given: Any) -> float:
    """What a closure returned, as a double."""
    if isinstance(given, Tensor):
        if given.numel() != 1:
            raise ValueError(
                f"closure must return one number, got a tensor of shape {tuple(given.shape)}"
            )
        return float(given.detach().double())
    if isinstance(given, bool) or not isinstance(given, (int, float)):
        try:
            given = float(given)
        except (TypeError, ValueError):
            raise ValueError(
                f"closure must return one number, got {type(given).__name__}"
            ) from None
    return float(given)


def check_shapes(shapes: Any) -> list[tuple[int, int]]:
    """(m, n) of matrices, as whole numbers; there may be none.

    Raises
    ------
    ValueError
        If they are no such pairs.
    """
    none = isinstance(shapes, list | tuple) and not shapes
    sizes = np.ones((0, 2)) if none else check_numbers("shapes", shapes, nonnegative=True)
    if sizes.ndim != 2 or sizes.shape[1] != 2 or (sizes < 1).any() or (sizes % 1).any():
        raise ValueError(f"shapes must be (m, n) pairs of whole numbers, got {shapes!r}")
    return [(int(m), int(n)) for m, n in sizes]


def losses_of_examples(given: Any) -> Tensor:
    """What a closure of a private run returned: one loss an example, in double."""
    if not isinstance(given, Tensor) or given.ndim != 1:
        got = f"shape {tuple(given.shape)}" if isinstance(given, Tensor) else type(given).__name__
        raise ValueError(
            "with privacy the closure returns one loss an example, a tensor of shape (b,) (reduction='none', "
            f"without a mean), got {got}"
        )
    if len(given) > 1 and given.stride(0) == 0:
        # Each would be clipped, and one example would move them all.
        raise ValueError(
            "with privacy the closure returns one loss an example (reduction='none'), got one number that "
            f"was expanded to {len(given)}"
        )
    return given.detach().double().cpu()


def check_paired(paired: bool | str, batch: Any) -> None:
    """Whether the argument can be used.

    Raises
    ------
    ValueError
        If it is none of True, False and "auto", or True without a batch.
    """
    if not isinstance(paired, bool):
        check_choice("paired", paired, ("auto",))
    if paired is True and batch is None:
        raise ValueError("paired=True needs batch=: what the closure is called with")
