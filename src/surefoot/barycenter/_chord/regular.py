"""Inputs that are plainly regular, seen in one pass: they need no other check, and no symmetrised copy."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Inexact
from torch import Tensor

from surefoot.barycenter._chord.block import adjoint, diagonals, parts_of
from surefoot.barycenter._solver.checks import ASYMMETRY, SMALLEST


def regular(covs: Any) -> tuple[Inexact[np.ndarray, "... d d"], bool] | None:
    """The inputs (..., n, d, d) as they lie in memory, and whether they are symmetric to the bit.

    None where anything at all is unusual: other checks name it.
    """
    x = covs
    if isinstance(x, Tensor):
        if x.requires_grad or x.device.type != "cpu" or x.is_conj() or x.is_neg():
            return None
        if x.dtype not in (torch.float64, torch.complex128):
            return None
        x = x.numpy()
    if type(x) is not np.ndarray or x.dtype not in (np.float64, np.complex128):
        return None
    if x.ndim < 3 or x.shape[-1] != x.shape[-2] or not x.size:
        return None
    x = np.ascontiguousarray(x)
    if not x.flags.writeable:
        # Nothing is written to it, but torch warns of such arrays.
        x = x.copy()
    each = x.reshape(-1, *x.shape[-2:])
    top = diagonals(each).max(axis=1)
    low = float(top.min())
    if not (low > SMALLEST and float(top.max()) < 1 / SMALLEST):
        return None
    symmetric = True
    for part in parts_of(each):
        off = each[part] - adjoint(each[part])
        # Of NaN and of infinities the differences are NaN, which no comparison holds for.
        worst = float(np.abs(off).max()) if x.dtype.kind == "c" else float(off.max())
        if not worst <= ASYMMETRY * low:
            return None
        symmetric = symmetric and worst == 0
    return x, symmetric
