"""Three ways for a module to give each copy its own tensors.

Where a tensor is added or multiplied to what a module returns, hooks do that for the rows of each copy. Any
other module is called once for each copy, with the tensor written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from surefoot.zeroth_order._engine import hooks
from surefoot.zeroth_order._engine.paired.copies import Copies, Unpaired
from surefoot.zeroth_order._engine.tensors import TrainedTensor

# Dense matrices of more numbers are written: a difference for each copy would cost their memory.
SMALL = 1 << 16
# How many times its perturbation a factor must be, for dividing by it to be harmless.
FAR = 16

Hook = Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Tensor], Tensor]


def by_copy(y: Tensor, copies: Copies) -> Tensor:
    """An output as (k, rows, width) that may be written."""
    if not copies.holds(y):
        y = copies.spread(y)
    return y if y.is_contiguous() else y.contiguous()


class Added:
    """A bias of a linear-like module: y_k += delta_k."""

    def __init__(self, tensor: TrainedTensor) -> None:
        self.tensor = tensor

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], y: Tensor
    ) -> Tensor:
        """The output with the deltas of the copies added."""
        copies, deltas = seen(self.tensor)
        y = by_copy(y, copies)
        y.view(copies.k, -1, y.shape[-1]).add_(deltas.unsqueeze(1).to(y.dtype))
        return y


class Multiplied:
    """A small dense weight: y_k += x_k D_k^T, or the rows of D_k that an embedding looks up."""

    def __init__(self, tensor: TrainedTensor, kind: type[hooks.LowRankHook]) -> None:
        self.tensor, self.kind = tensor, kind

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], y: Tensor
    ) -> Tensor:
        """The output with the products of the copies added."""
        copies, deltas = seen(self.tensor)
        x: Tensor = args[0] if args else next(iter(kwargs.values()))
        k = copies.k
        if issubclass(self.kind, hooks.EmbeddingHook):
            y, shared = by_copy(y, copies), k > 1 and not copies.are_copies(x)
            looked_up = deltas[:, x] if shared else deltas[:, x.reshape(k, -1)[0]]
            if shared:
                looked_up = looked_up.repeat_interleave(copies.rows, 0)
            return y.add_(looked_up.reshape(y.shape).to(y.dtype))
        if not copies.holds(x):
            x = copies.spread(x)
        y = by_copy(y, copies)
        right = deltas if issubclass(self.kind, hooks.Conv1DHook) else deltas.mT
        rows = x.reshape(k, -1, x.shape[-1]).to(y.dtype)
        y.view(k, -1, y.shape[-1]).baddbmm_(rows, right.to(y.dtype))
        return y


class Scaled:
    """A norm that ends in "* weight (+ bias)": y_k = y rho_k + (b + e_k - b rho_k), rho_k = (w + d_k) / w."""

    def __init__(self, weight: TrainedTensor | None, bias: TrainedTensor | None) -> None:
        self.weight, self.bias = weight, bias

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], y: Tensor
    ) -> Tensor:
        """The output as each copy's weights would have it."""
        found = seen(self.weight or self.bias)
        copies, k = found[0], found[0].k
        y = by_copy(y, copies)
        rows = y.view(k, -1, y.shape[-1])
        w, b = module._parameters["weight"], module._parameters.get("bias")
        shift: Tensor | None = None
        if self.bias is not None:
            shift = seen(self.bias)[1]
        if self.weight is not None:
            assert w is not None
            ratio = (w + seen(self.weight)[1]) / w
            if b is not None:
                shift = b * (1 - ratio) if shift is None else shift + b * (1 - ratio)
            rows.mul_(ratio.unsqueeze(1).to(y.dtype))
        if shift is not None:
            rows.add_(shift.unsqueeze(1).to(y.dtype))
        return y

    def is_safe(self, louder: dict[int, float]) -> bool:
        """Whether the weight is far from 0, measured by its perturbation at eps."""
        if self.weight is None:
            return True
        assert self.weight.shown is not None
        least = torch.linalg.vector_norm(self.weight.param.detach(), -torch.inf)
        most = torch.linalg.vector_norm(self.weight.shown, torch.inf)
        return bool(least > FAR * most / louder.get(self.weight.index, 1.0))


class Apart:
    """Any module: its forward is called once for each copy, on that copy's rows, with its tensors written.

    Parameters
    ----------
    copies
        Those of the forward.
    plain
        The module's own forward.
    show
        Shows the module its tensors as copy k has them; None: as the iterate has them.
    """

    def __init__(
        self, copies: Copies, plain: Callable[..., Any], show: Callable[[int | None], None]
    ) -> None:
        self.copies, self.plain, self.show = copies, plain, show

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the module returns for all present copies."""
        copies = self.copies
        k, lo, apart = copies.k, copies.lo, copies.apart
        found = []
        try:
            for j in range(k):
                copies.k, copies.lo, copies.apart = 1, lo + j, True
                self.show(lo + j)
                given = [self._part(a, k, j) for a in args]
                found.append(
                    self.plain(*given, **{n: self._part(a, k, j) for n, a in kwargs.items()})
                )
        finally:
            copies.k, copies.lo, copies.apart = k, lo, apart
            self.show(None)
        return found[0] if k == 1 else self._joined(found)

    def _part(self, given: Any, k: int, j: int) -> Any:
        if isinstance(given, Tensor):
            whole = given.ndim and given.shape[0] % (k * self.copies.rows) == 0
            return given.chunk(k)[j] if whole else given
        if isinstance(given, tuple) and not hasattr(given, "_fields"):
            return tuple(self._part(each, k, j) for each in given)
        if isinstance(given, list):
            return [self._part(each, k, j) for each in given]
        return given

    def _joined(self, parts: list[Any]) -> Any:
        first = parts[0]
        if isinstance(first, Tensor):
            return torch.cat([self._whole(p) for p in parts])
        if isinstance(first, Mapping):
            found: Any = {} if type(first) is dict else type(first)()
            for key in first:
                found[key] = self._joined([p[key] for p in parts])
            return found
        if isinstance(first, (list, tuple)):
            inside = [self._joined(list(each)) for each in zip(*parts, strict=True)]
            return type(first)(*inside) if hasattr(first, "_fields") else type(first)(inside)
        return first

    def _whole(self, part: Tensor) -> Tensor:
        """What a module returned for one copy, with the rows of that copy."""
        rows = self.copies.rows
        if part.ndim == 0:
            return part.unsqueeze(0)
        if part.shape[0] % rows == 0:
            return part
        if part.shape[0] == 1:
            return part.expand(rows, *part.shape[1:]) if part.ndim > 1 else part
        if part.ndim == 2:
            return part.expand(rows, *part.shape)
        raise Unpaired(f"a module returns {tuple(part.shape)} for {rows} rows")


def seen(tensor: TrainedTensor | None) -> tuple[Copies, Tensor]:
    """The present copies, and what each of them adds to a dense tensor."""
    assert tensor is not None
    assert tensor.copies is not None
    assert tensor.shown is not None
    return tensor.copies, tensor.copies.cut(tensor.shown)


@torch.no_grad()
def ends_in_product(module: nn.Module) -> bool:
    """Whether what a module returns is proportional to its weight, entry by entry: asked of the module."""
    own = {n: p for n, p in module._parameters.items() if p is not None}
    weight = own.get("weight")
    if list(own) != ["weight"] or weight is None or weight.ndim != 1 or list(module.children()):
        return False
    generator = torch.Generator().manual_seed(0)
    n = weight.numel()
    x = torch.randn(4, n, generator=generator).to(weight)
    by = 2.0 ** torch.randint(-2, 3, (n,), generator=generator).to(weight)
    try:
        one = module.forward(x)
        module._parameters["weight"] = nn.Parameter(weight * by, requires_grad=False)
        two = module.forward(x)
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError):
        return False
    finally:
        module._parameters["weight"] = weight
    if not isinstance(one, Tensor) or one.shape != x.shape or not bool(one.isfinite().all()):
        return False
    return torch.equal(one * by, two) and bool(one.any())
