"""What happened to gradients between backward and the optimizer's step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

PRIVATE = "gradients were clipped sample by sample and noised (Opacus), and the theorem is about plain SGD"
MULTIPLIED = (
    "gradients were multiplied between backward and the step: by clipping, or by a loss scale that is no "
    "power of two and that chain.attach(optimizer, scaler=scaler) would tell"
)
CHANGED = "gradients were changed between backward and the step, and the theorem is about plain SGD"
EXACT = 2e-7  # a power of two divides without rounding; sums of several backwards may round apart


def compare(
    pairs: Sequence[tuple[Tensor, Tensor]], held: float, known: float | None
) -> tuple[float, str | None]:
    """The scale of the gradients that backward gave, and what else was done to them, if anything.

    Parameters
    ----------
    pairs
        Of each layer the gradient that backward gave and the one that the step is about to use.
    held
        What the step itself will divide its gradients by.
    known
        The loss scale, where a scaler told it.

    Returns
    -------
    tuple of float and str or None
        What to divide backward's gradients by, or by what they seem to be multiplied if that is no scale; and
        the sentence why they are not the step's.
    """
    sums = torch.zeros(3, dtype=torch.float64)
    for given, used in pairs:
        a, b = given.double().flatten(), used.double().flatten()
        sums += torch.stack([a @ a, a @ b, b @ b]).cpu()
    given2, both, used2 = sums.tolist()
    if not math.isfinite(given2 + both + used2):
        return 1.0, CHANGED
    if not given2:
        return known or 1.0, CHANGED if used2 else None
    ratio = both / given2
    apart2 = used2 - ratio * both
    tolerance = _tolerance(used for _, used in pairs)
    if apart2 > tolerance**2 * used2 or ratio <= 0:
        return 1.0, CHANGED
    scale = held / ratio
    if known is not None:
        return known, None if abs(scale / known - 1) <= tolerance else MULTIPLIED
    if abs(scale - 1) <= tolerance:
        return 1.0, None
    power = 2.0 ** round(math.log2(scale))
    return (power, None) if abs(scale / power - 1) <= EXACT else (scale, MULTIPLIED)


def _tolerance(used: Iterable[Tensor]) -> float:
    # Where gradients are summed in 16 bits the sum of what the hooks saw rounds otherwise.
    return 0.02 if any(x.dtype.itemsize == 2 for x in used) else 1e-4


def scale_before(scaler: Any, scale: float, used: Iterable[Tensor]) -> float | None:
    """The scaler's scale in a step that has been taken, where it is the one that was seen in it.

    Parameters
    ----------
    scaler
        It may have grown its scale since.
    scale
        What the gradients were seen to be multiplied by.
    used
        The gradients of the step, for their precision.
    """
    now, most = float(scaler.get_scale()), _tolerance(used)
    return next(
        (x for x in (now, now / scaler.get_growth_factor()) if abs(scale / x - 1) <= most), None
    )
