"""One trainable tensor, where its iterate is kept, and how a perturbation or an update reaches it.

Three ways to keep a tensor. In place: the parameter is the iterate and is perturbed itself. Hooked: the
parameter holds the weights of the period's start, and hooks add the rank-r rest (B + s eps U) V^T to
what the module returns. Written: a copy in single precision is the iterate, and the parameter is
written before each forward.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surefoot.zeroth_order._engine.kept import KeptFactors
from surefoot.zeroth_order._engine.paired.copies import Copies

Storage = Literal["inplace", "hooked", "written"]
# Numbers converted at a time when weights are folded: no full copy of a large embedding exists.
BLOCK = 1 << 19


def exact(dtype: torch.dtype) -> torch.dtype:
    """What factors and copies are kept in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


@dataclass(eq=False)
class TrainedTensor:
    """A trainable tensor seen as an m x n matrix of rank-r motion, or as a dense vector (rank 0).

    Attributes
    ----------
    index, name, param, group
        Its place among the trained tensors, its name, the parameter, and the place of its group.
    storage, rank
        How its iterate is kept, and the rank it moves with; 0 is dense.
    v, v_cast
        V of this period in the precision of the factors, and in the parameter's.
    b
        B of the iterate W + B V^T, where the parameter is not written.
    base
        The iterate (dense) or the weights of the period's start, where a copy is kept.
    moments
        The state of the update rule, by name.
    kept
        Factors of past periods that were set aside instead of folded.
    shown
        A of the low-rank term A V^T that hooks add: B, or B beside a perturbation; one for each copy, and for
        a dense tensor what is added to it, while a forward holds several copies.
    copies
        Those that the present forward holds; None outside of a paired one.
    position
        The multiple of the direction that the model sees at present.
    period
        The period that V belongs to; -1 before the first.
    packed
        What stands for the numbers of a parameter that has none of its own; None where it has.
    counting, calls
        Whether hooks count how often they served a read, and the count.
    """

    index: int
    name: str
    param: nn.Parameter
    group: int
    storage: Storage = "inplace"
    rank: int = 0
    v: Tensor | None = None
    v_cast: Tensor | None = None
    b: Tensor | None = None
    base: Tensor | None = None
    moments: dict[str, Tensor] = field(default_factory=dict)
    kept: KeptFactors = field(default_factory=KeptFactors)
    hooks: list[Any] = field(default_factory=list)
    counting: bool = False
    calls: int = 0
    position: float = 0.0
    period: int = -1
    shown: Tensor | None = None
    packed: tuple[Tensor, ...] | None = None
    copies: Copies | None = None

    @property
    def numberless(self) -> bool:
        """Whether the parameter is a shape without numbers, as that of a quantised base."""
        return self.packed is not None or self.param.is_meta or hasattr(self.param, "packed")

    @property
    def device(self) -> torch.device:
        """Where its factors are."""
        return self.param.device if self.packed is None else self.packed[0].device

    @property
    def m(self) -> int:
        """Rows."""
        return self.param.shape[0] if self.param.ndim else 1

    @property
    def n(self) -> int:
        """Columns: everything but the first dimension."""
        return self.param.numel() // max(self.m, 1)

    @property
    def dense(self) -> bool:
        """Whether the tensor moves in all directions."""
        return self.rank == 0

    @property
    def frozen(self) -> bool:
        """Whether its parameter has been frozen since; it then stays where it is."""
        return not self.param.requires_grad

    def matrix(self) -> Float[Tensor, "m n"]:
        """The parameter as a matrix that shares its memory."""
        return self.param.data.view(self.m, self.n)

    def direction_shape(self) -> tuple[int, ...]:
        """Shape of the random numbers of one direction."""
        return tuple(self.param.shape) if self.dense else (self.m, self.rank)

    def usable_rank(self, rank: int) -> int:
        """The rank this tensor moves with: 0 (dense) for vectors, and where rank r is no saving."""
        return rank if self.param.ndim >= 2 and 0 < rank < min(self.m, self.n) else 0

    def begin(self, v: Tensor | None, rank: int) -> None:
        """A new period: rank, V, and B = 0."""
        self.rank = rank
        exactly = exact(self.param.dtype)
        device = self.device
        self.v = None if v is None else v.to(device, exactly)
        self.v_cast = None if self.v is None else self.v.to(self.param.dtype)
        if self.storage != "inplace":
            if not self.dense and (self.b is None or self.b.shape != (self.m, rank)):
                self.b = torch.zeros(self.m, rank, dtype=exactly, device=device)
            if self.storage == "written" and self.base is None:
                kind = exactly if self.dense else self.param.dtype
                self.base = self.param.detach().to(kind, copy=True)
        self.shown = self.b

    # -- perturbing ---------------------------------------------------------------------------------------

    def place(self, direction: Tensor, s: float, factor: float) -> None:
        """Move the weights seen by the model to iterate + s * direction; `factor` scales U V^T."""
        if self.storage == "inplace":
            self._shift(direction, s - self.position, factor)
        elif self.storage == "hooked":
            assert self.b is not None
            self.shown = self.b if s == 0 else torch.add(self.b, direction, alpha=s * factor)
        else:
            self.write(direction, s, factor)
        self.position = s

    def _shift(self, direction: Tensor, s: float, factor: float) -> None:
        if s == 0:
            return
        if self.dense:
            self.param.data.add_(direction, alpha=s)
        else:
            assert self.v_cast is not None
            self.matrix().addmm_(direction, self.v_cast.T, alpha=s * factor)

    def write(self, direction: Tensor | None = None, s: float = 0.0, factor: float = 1.0) -> None:
        """Write iterate + s * direction into the parameter, from the copy."""
        assert self.base is not None
        if self.dense:
            moved = self.base if direction is None or s == 0 else self.base.add(direction, alpha=s)
            self.param.data.copy_(moved)
            return
        assert self.b is not None
        assert self.v is not None
        a = self.b if direction is None or s == 0 else self.b.add(direction, alpha=s * factor)
        base, out = self.base.view(self.m, self.n), self.matrix()
        for rows in self.row_blocks():
            out[rows] = self._moved(base[rows].to(self.v.dtype), a, rows).to(out.dtype)

    def _moved(self, start: Tensor, a: Tensor, rows: slice = slice(None)) -> Tensor:
        """Some rows of start + A V^T, and of what was kept of past periods."""
        assert self.v is not None
        for left, right in [] if self.kept.joined is None else [self.kept.joined]:
            start = torch.addmm(start, left[rows], right.T)
        return torch.addmm(start, a[rows], self.v.T)

    def value_at(self, direction: Tensor, s: float, factor: float) -> Tensor:
        """Iterate + s * direction in the precision of the factors, without writing it."""
        kind = exact(self.param.dtype)
        start = (self.param.detach() if self.base is None else self.base).to(kind)
        if self.dense:
            return torch.add(start, direction, alpha=s)
        assert self.b is not None
        assert self.v is not None
        a = torch.add(self.b, direction, alpha=s * factor)
        return self._moved(start.view(self.m, self.n), a).view(self.param.shape)

    def row_blocks(self) -> list[slice]:
        """Rows to be converted at a time."""
        rows = max(1, BLOCK // max(self.n, 1))
        return [slice(at, at + rows) for at in range(0, self.m, rows)]

    # -- updating -----------------------------------------------------------------------------------------

    def update(self, step: Tensor, amount: float, factor: float) -> None:
        """iterate += amount * factor * step V^T (dense: amount * step), and show the iterate."""
        if self.storage == "inplace":
            self._shift(step, amount, factor)
            return
        if self.dense:
            assert self.base is not None
            self.base.add_(step, alpha=amount)
            self.param.data.copy_(self.base)
            return
        assert self.b is not None
        self.b.add_(step, alpha=amount * factor)
        if self.storage == "written":
            self.write()
        self.shown = self.b

    def restore_and_update(
        self, direction: Tensor, amount: float, perturb: float, update: float
    ) -> None:
        """Take the perturbation back and add `amount` of its direction, in one pass over the weights."""
        if self.storage == "inplace" and self.position:
            if self.dense:
                self.param.data.add_(direction, alpha=amount - self.position)
            else:
                assert self.v_cast is not None
                alpha = amount * update - self.position * perturb
                self.matrix().addmm_(direction, self.v_cast.T, alpha=alpha)
        else:
            self.update(direction, amount, update)
        self.position = 0.0

    def decay(self, keep: float) -> None:
        """iterate *= keep, for matrices at the end of a period, after their factors were folded."""
        if keep == 1 or self.param.ndim < 2:
            return
        if self.kept or self.numberless:
            raise ValueError(
                f"weight_decay must be 0 with fold=False, which never writes weights: {self.name} would be "
                f"multiplied by {keep:.6g}"
            )
        if self.base is not None:
            self.base.mul_(keep)
        if self.base is not None and self.dense:
            self.param.data.copy_(self.base)
        else:
            self.param.data.mul_(keep)

    # -- folding ------------------------------------------------------------------------------------------

    def fold(self) -> None:
        """W <- W + B V^T in single precision, B <- 0."""
        if self.storage == "inplace" or self.dense:
            return
        assert self.b is not None
        assert self.v is not None
        if self.storage == "written":
            self.write()
            assert self.base is not None
            self.base.copy_(self.param.data.view_as(self.base))
        else:
            out = self.matrix()
            for rows in self.row_blocks():
                moved = torch.addmm(out[rows].to(self.v.dtype), self.b[rows], self.v.T)
                out[rows] = moved.to(out.dtype)
        self.b.zero_()
        self.shown = self.b

    def keep(self, period: int, cap: int | None = None) -> float | None:
        """Set this period's B aside instead of folding it; hooks, or writes, go on adding it.

        Parameters
        ----------
        period
            The one that ends.
        cap
            The rank above which what was set aside is cut down; None: it grows.

        Returns
        -------
        float or None
            The relative error of cutting down, where that was needed.
        """
        assert self.b is not None
        assert self.v is not None
        self.kept.add(period, self.b, self.v)
        self.b.zero_()
        error = None if cap is None or self.kept.rank <= cap else self.kept.cut(cap)
        if self.storage == "written":
            self.write()
        return error

    @property
    def is_pending(self) -> bool:
        """Whether the iterate is more than the parameter holds: hooks add the rest."""
        moved = self.b is not None and bool(self.b.any())
        return self.storage == "hooked" and (moved or bool(self.kept.rank))

    def reread(self, *, forget: bool) -> None:
        """Somebody wrote the parameter: what it holds is the iterate, and `forget` drops the moments."""
        if self.b is not None:
            self.b.zero_()
        if self.base is not None:
            self.base.copy_(self.param.data.view_as(self.base))
        if forget:
            self.moments.clear()
        self.shown, self.position = self.b, 0.0

    # -- what hooks add -----------------------------------------------------------------------------------

    def factors(self) -> list[tuple[Tensor, Tensor]]:
        """(A, V) pairs whose products the model sees on top of the parameter."""
        found = [] if self.kept.joined is None else [self.kept.joined]
        if self.shown is not None and self.v is not None:
            shown = self.shown if self.copies is None else self.copies.cut(self.shown)
            found.append((shown, self.v))
        return found

    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """The same with the periods that were kept apart."""
        return [*self.kept.each(), *self.factors()[self.kept.joined is not None :]]

    def unhook(self) -> None:
        """Take the hooks out; the module then shows its parameter alone."""
        for handle in self.hooks:
            handle.remove()
        self.hooks.clear()
