"""Products in 16 bits whose rounding cancels in the difference of two copies.

Per pair xm = (x+ + x-) / 2 and xd = x+ - x- go through one product in 16 bits, and y+- = ym +- yd / 2 is put
together in float32: the rounding of xm is the same in both copies, and that of xd is relative to the
difference itself. Everything else stays in float32, and so does the last product: logits of 20 are an eighth
apart in bfloat16, which moves what a softmax makes of them by a tenth.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surefoot._numerics.checks import check_choice
from surefoot.zeroth_order._engine import hooks
from surefoot.zeroth_order._engine.paired.copies import Copies
from surefoot.zeroth_order._engine.settings import Settings

PRECISIONS = ("auto", "float32", "bfloat16")
LOW = (torch.bfloat16, torch.float16)
# Numbers of a weight that are converted at a time.
BLOCK = 1 << 21


def matmul(
    module: nn.Module, x: Tensor, dtype: torch.dtype, weight: Tensor | None = None
) -> Tensor:
    """x W^T of a linear-like module, without its bias, computed in some dtype.

    A module, or a weight, that is kept in another form has a `product(x, dtype)` of its own.

    Parameters
    ----------
    module
        Linear-like.
    x
        (rows, in).
    dtype
        What the product is computed in, and what comes back.
    weight
        The weight in that dtype, where it is held.
    """
    own = product_of(module)
    if own is not None:
        return own(x, dtype)
    w: Any = module.weight if weight is None else weight
    x = x.to(dtype)
    if hooks.linear_kind(module) is hooks.Conv1DHook:
        return torch.mm(x, w.to(dtype))
    if w.dtype == dtype or w.numel() <= BLOCK:
        return F.linear(x, w.to(dtype))
    # No whole copy of a large weight in more bits.
    rows = max(1, BLOCK // w.shape[1])
    parts = (w[at : at + rows] for at in range(0, w.shape[0], rows))
    return torch.cat([F.linear(x, part.to(dtype)) for part in parts], -1)


def product_of(module: nn.Module) -> Callable[[Tensor, torch.dtype], Tensor] | None:
    """x W^T in some dtype, of a module whose weight is no matrix of numbers."""
    for owner in (module, module._parameters.get("weight")):
        own: Callable[[Tensor, torch.dtype], Tensor] | None = getattr(owner, "product", None)
        if own is not None:
            return own
    return None


class Weights:
    """Weights in 16 bits of a model whose own are in 32: half as much memory again.

    They are made anew in every period, and where a weight was written in between.
    """

    def __init__(self) -> None:
        self._held: dict[int, tuple[tuple[Any, ...], Tensor]] = {}
        self.period = -1

    def __call__(self, module: nn.Module, dtype: torch.dtype) -> Tensor | None:
        """The weight of a module; None where it is in that dtype already, or in another form."""
        weight: Any = module._parameters.get("weight")
        if weight is None or weight.dtype == dtype or product_of(module) is not None:
            return None
        key = (self.period, weight._version, weight.data_ptr(), dtype)
        there = self._held.get(id(weight))
        if there is None or there[0] != key:
            there = (key, weight.detach().to(dtype))
            self._held[id(weight)] = there
        return there[1]

    def forget(self) -> None:
        """Somebody wrote weights."""
        self._held.clear()

    def __getstate__(self) -> dict[str, Any]:
        # Found by identity, which a copy does not share; and quickly made again.
        return {"_held": {}, "period": -1}


class Product:
    """The forward of a linear-like module while a forward holds several copies.

    Parameters
    ----------
    module
        Linear-like.
    copies
        Those of the forward.
    low
        The dtype of its products; None: as exact as the rest.
    weights
        Holds weights in it.
    pairs
        Whether copies are pairs, whose difference counts.
    """

    def __init__(
        self,
        module: nn.Module,
        copies: Copies,
        low: torch.dtype | None,
        weights: Weights,
        pairs: bool,
    ) -> None:
        self.module, self.copies, self.low = module, copies, low
        self.weights, self.pairs = weights, pairs

    def __call__(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        """What the module returns, in the dtype of its input."""
        x = args[0] if args else next(iter(kwargs.values()))
        rows, copies, low = x.reshape(-1, x.shape[-1]), self.copies, self.low
        if low is None or copies.apart:
            y = matmul(self.module, rows, x.dtype)
        elif self.pairs and copies.k > 1 and copies.holds(x):
            y = self._differenced(rows, low)
        else:
            # The same for all copies, and so is its rounding.
            y = matmul(self.module, rows, low, self.weights(self.module, low)).to(x.dtype)
        bias = self.module._parameters.get("bias")
        if bias is not None:
            y.add_(bias)
        return y.view(*x.shape[:-1], y.shape[-1])

    def _differenced(self, rows: Tensor, low: torch.dtype) -> Tensor:
        plus, minus = rows.view(self.copies.k // 2, 2, -1, rows.shape[-1]).unbind(1)
        both = torch.empty(2, *plus.shape, dtype=rows.dtype, device=rows.device)
        torch.lerp(minus, plus, 0.5, out=both[0])
        torch.sub(plus, minus, out=both[1])
        weight = self.weights(self.module, low)
        found = matmul(self.module, both.view(-1, rows.shape[-1]), low, weight).to(rows.dtype)
        mean, difference = found.view(2, self.copies.k // 2, plus.shape[1], -1).unbind(0)
        y = torch.empty(
            self.copies.k // 2, 2, *mean.shape[1:], dtype=rows.dtype, device=rows.device
        )
        torch.add(mean, difference, alpha=0.5, out=y[:, 0])
        torch.sub(mean, difference, alpha=0.5, out=y[:, 1])
        return y.view(-1, y.shape[-1])


def low_of(
    precision: str, model: nn.Module | None, settings: Settings
) -> tuple[torch.dtype | None, str]:
    """The dtype of products, and in words why they are not in 16 bits where one would expect it.

    Parameters
    ----------
    precision
        "auto", "float32" or "bfloat16".
    model
        The module; None where only parameters are known.
    settings
        Of the optimizer.

    Raises
    ------
    ValueError
        For "bfloat16" where there is nothing to cancel, or no model.
    """
    check_choice("precision", precision, PRECISIONS)
    if precision == "bfloat16":
        if model is None or settings.mode != "factored":
            raise ValueError(
                "precision 'bfloat16' needs mode 'factored': pass the module, or model="
            )
        if settings.one_sided or settings.leave_one_out:
            raise ValueError(
                "precision 'bfloat16' needs the central difference, whose copies come in pairs: leave out "
                "one_sided and leave_one_out"
            )
        if any(p.dtype == torch.float64 for p in model.parameters()):
            raise ValueError("precision 'bfloat16' is for weights of 16 or 32 bits, got float64")
    if precision == "float32" or model is None or settings.mode != "factored":
        return None, ""
    asked = torch.bfloat16 if precision == "bfloat16" else dtype_of(model)
    if asked is None or settings.one_sided or settings.leave_one_out:
        return None, ""
    device = next(p.device for p in model.parameters() if not p.is_meta)
    if not is_fast(asked, device.type):
        name = str(asked).removeprefix("torch.")
        return None, f"float32 products: those in {name} are slower here"
    return asked, ""


def dtype_of(model: nn.Module) -> torch.dtype | None:
    """The 16-bit dtype of the weights of a model's linear-like modules; None where they have more bits."""
    for module in model.modules():
        if hooks.linear_kind(module) is None:
            continue
        if product_of(module) is not None:
            return torch.bfloat16
        weight = module._parameters.get("weight")
        if weight is not None and weight.dtype in LOW:
            return weight.dtype
    return None


@functools.cache
def is_fast(dtype: torch.dtype, device: str) -> bool:
    """Whether a product in this dtype is faster than in float32, by one of 128 rows and 576 columns."""
    if device != "cpu":
        return True
    taken = {}
    for kind in (torch.float32, dtype):
        x, w = torch.ones(128, 576, dtype=kind), torch.ones(576, 576, dtype=kind)
        each = []
        for _ in range(6):
            begun = time.thread_time()
            F.linear(x, w)
            each.append(time.thread_time() - begun)
        taken[kind] = min(each)
    return taken[dtype] < taken[torch.float32]
