"""Points at which a network is asked for its numbers: checked where they enter."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from surefoot._numerics.checks import check_number
from surefoot._numerics.transforms import readable


def check_points(name: str, x: Any, d: int) -> Float[Tensor, "n {d}"]:
    """A floating tensor (n, d) of finite numbers; arrays become tensors.

    Raises
    ------
    ValueError
        It has another shape, whole numbers, or one that is not finite; the message names the row.
    """
    if isinstance(x, np.ndarray):
        x = torch.from_numpy(x)
    if not isinstance(x, Tensor):
        raise ValueError(f"{name} must be a tensor of shape (n, {d}), got {type(x).__name__}")
    if not x.is_floating_point():
        raise ValueError(
            f"{name} must hold floating numbers, got {x.dtype}; write {name}.double() if that is meant"
        )
    if x.ndim != 2 or x.shape[1] != d:
        raise ValueError(f"{name} must have shape (n, {d}), got {tuple(x.shape)}")
    if readable() and x.device.type != "meta":
        bad = ~torch.isfinite(x.detach())
        if bad.any():
            row = int(bad.any(1).nonzero()[0])
            raise ValueError(f"{name} must be finite, got {x[row].tolist()} in row {row}")
    return x


def check_values(name: str, y: Any, n: int) -> Float[Tensor, " {n}"]:
    """A tensor (n,) of finite numbers in float64.

    Raises
    ------
    ValueError
        It has another shape, or a number that is not finite.
    """
    if isinstance(y, np.ndarray):
        y = torch.from_numpy(y)
    if not isinstance(y, Tensor) or y.is_complex() or y.dtype == torch.bool:
        raise ValueError(f"{name} must be a tensor of {n} real numbers, got {y!r}")
    if tuple(y.shape) != (n,):
        raise ValueError(f"{name} must have shape ({n},), one number a point, got {tuple(y.shape)}")
    values: Tensor = y.detach().double()
    if not torch.isfinite(values).all():
        row = int((~torch.isfinite(values)).nonzero()[0])
        raise ValueError(f"{name} must be finite, got {float(values[row])} for point {row}")
    return values


def check_coefficient(
    name: str, value: Any, least: float | None = None, above: float | None = None
) -> float:
    """One number: values at some points are none, as other points need them too.

    Raises
    ------
    ValueError
        It is none, or out of bounds.
    """
    if np.ndim(value):
        raise ValueError(
            f"{name} must be a number or a function (n, d) -> (n,), got {type(value).__name__} of shape "
            f"{tuple(np.shape(value))}"
        )
    return check_number(name, value, least=least, above=above)
