"""A layer of splines in the place of a linear one: y_o = sum_i base_oi silu(x_i) + sum_j w_oij b_j(x_i)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot._numerics.sizes import wide
from surefoot._numerics.transforms import readable
from surefoot.kan._basis.bspline import Policy
from surefoot.kan._basis.edge import Basis, EdgeRule
from surefoot.kan._grid import fitted_range, transfer
from surefoot.kan._kernel.doors import Kernel, native_possible, spline_layer
from surefoot.kan._layer.arguments import (
    Activation,
    check_kernel,
    check_tensor,
    edge_rule,
    grid_ends,
)
from surefoot.kan._layer.outside import OutOfGridWarning, Outside, warn_far
from surefoot.kan._layer.replaced import put_aside
from surefoot.kan._layer.state import pack, unpack
from surefoot.kan.peers import Imported, read_efficient_kan, read_pykan

__all__ = ["KANLinear", "OutOfGridWarning"]


@checked(leave=("base_activation",))
class KANLinear(nn.Module):
    """A drop-in for `torch.nn.Linear` whose every edge is a learned function of one variable.

    Source: arXiv 2404.19756, equation 2.10, with one weight a spline (its scale parameter is redundant).

    Parameters
    ----------
    in_features, out_features
        As in `torch.nn.Linear`.
    grid_size
        Cells G of the grid; every basis has C = G + spline_order functions of each input.
    spline_order
        Degree k, 1 to 5.
    grid_range
        The ends of the grid, in the units of the input; by default (-1, 1), and (-2, 2) for "rbf".
    base_activation
        "silu", None, or any function of a tensor: the branch beside the splines.
    basis
        "bspline"; "rbf": Gaussians of the normalised input (FastKAN); "chebyshev": polynomials of its tanh.
    bias
        Whether a constant is added to each output.
    out_of_grid
        What B-splines are outside the grid: "zero" (as in pykan and efficient-kan: they fade to 0 within
        spline_order cells, and further out an input is dead),
        "clamp" (their value at the end), "linear" (a straight line from there).
    kernel
        "c": compiled on first use, for B-splines in float32 on the CPU; "torch": never; "auto": where it can
        be had, and otherwise torch after one warning.
    higher_order
        Torch's own operations always. Double backward is right either way: this is for what takes the graph
        apart.
    device, dtype
        Of the weights. The grid is kept in float64.

    Attributes
    ----------
    weight
        (in (C + 1), out): the splines of each input in turn, then SiLU's rows.
    mask
        (out, in), False where an edge is 0 whatever its weights are and is not trained; None: all edges live.
    grid_lo, grid_hi
        (in,), the ends of the grid of each feature, in float64.

    Raises
    ------
    ValueError
        An argument is out of range; in a call, of an input that is no floating-point tensor of `in_features`
        columns, of another dtype than the weight, or not finite.
    RuntimeError
        `kernel` is "c" and there is no compiler, or the layer is not one that it computes.
    """

    weight: nn.Parameter
    grid_lo: Tensor
    grid_hi: Tensor
    mask: Tensor | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        grid_size: int = 5,
        spline_order: int = 3,
        grid_range: tuple[float, float] | None = None,
        base_activation: Activation = "silu",
        basis: Basis = "bspline",
        bias: bool = False,
        out_of_grid: Policy = "zero",
        kernel: Kernel = "auto",
        higher_order: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features = check_number("in_features", in_features, least=1, whole=True)
        self.out_features = check_number("out_features", out_features, least=1, whole=True)
        self.rule = edge_rule(basis, grid_size, spline_order, base_activation, out_of_grid)
        check_kernel(kernel, higher_order, basis)
        lo, hi = grid_ends(grid_range, basis)
        self.kernel, self.higher_order = kernel, bool(higher_order)
        self._base: Callable[[Tensor], Tensor] | None
        named = nn.functional.silu if base_activation == "silu" else base_activation
        self._base = None if self.rule.silu else named
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        self.norm = nn.LayerNorm(in_features, **made) if basis == "rbf" else None
        lines = in_features * (self.rule.bases + (base_activation is not None))
        self.weight = nn.Parameter(torch.empty(lines, out_features, **made))
        self.bias = nn.Parameter(torch.empty(out_features, **made)) if bias else None
        if not self.weight.is_floating_point():
            raise ValueError(f"dtype must be a real floating-point type, got {self.weight.dtype}")
        held = self.weight.device
        grid: dict[str, Any] = {
            "device": "cpu" if held.type == "meta" else held,
            "dtype": torch.float64,
        }
        # No buffers: Opacus refuses a layer that has any, and a conversion to 16 bits would move the grid.
        self.grid_lo = torch.full((in_features,), lo, **grid)
        self.grid_hi = torch.full((in_features,), hi, **grid)
        self.register_buffer("mask", None)
        self._outside = Outside()
        self.reset_parameters()

    @classmethod
    def from_pykan(
        cls, layer: Any, *, kernel: Kernel = "auto", higher_order: bool = False
    ) -> KANLinear:
        """The same function as a pykan 0.2 `KANLayer`, which is only read; its scales become weights.

        Its zeros in `mask` become a mask here, so that they stay zero.

        Raises
        ------
        ValueError
            It is no such layer, or its grid is not uniform, as `update_grid` leaves it with `grid_eps` < 1.
        """
        return cls._of(read_pykan(layer), kernel=kernel, higher_order=higher_order)

    @classmethod
    def from_efficient_kan(
        cls, layer: Any, *, kernel: Kernel = "auto", higher_order: bool = False
    ) -> KANLinear:
        """The same function as efficient-kan's `KANLinear`, which is only read; its scaler becomes weights.

        Raises
        ------
        ValueError
            It is no such layer, or its grid is not uniform, as `update_grid` leaves it with `grid_eps` < 1.
        """
        return cls._of(read_efficient_kan(layer), kernel=kernel, higher_order=higher_order)

    @classmethod
    def _of(cls, found: Imported, **how: Any) -> KANLinear:
        layer = cls(
            found.spline.shape[1], found.spline.shape[0], grid_size=found.size, spline_order=found.order,
            base_activation=found.activation, bias=found.bias is not None, device=found.spline.device,
            dtype=found.spline.dtype, **how,
        )  # fmt: skip
        with torch.no_grad():
            layer.spline_weight.copy_(found.spline)
            if layer.base_weight is not None:
                layer.base_weight.copy_(found.base)
            if layer.bias is not None and found.bias is not None:
                layer.bias.copy_(found.bias)
        layer.grid_lo, layer.grid_hi, layer.mask = found.lo, found.hi, found.mask
        return layer

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw splines from N(0, 0.01 / in), the base from N(0, 1 / in); the bias is 0."""
        scale = 1 / math.sqrt(self.in_features)
        splines = self.in_features * self.rule.bases
        with torch.no_grad():
            self.weight[:splines].normal_(std=0.1 * scale, generator=generator)
            self.weight[splines:].normal_(std=scale, generator=generator)
            if self.bias is not None:
                self.bias.zero_()
        if self.norm is not None:
            self.norm.reset_parameters()

    @property
    def grid_size(self) -> int:
        """Cells G."""
        return self.rule.size

    @property
    def spline_order(self) -> int:
        """Degree k."""
        return self.rule.order

    @property
    def spline_weight(self) -> Float[Tensor, "out in bases"]:
        """A view of the splines' weights."""
        splines = self.weight[: self.in_features * self.rule.bases]
        return splines.view(self.in_features, self.rule.bases, -1).permute(2, 0, 1)

    @property
    def base_weight(self) -> Float[Tensor, "out in"] | None:
        """A view of the base's weights; None without a base."""
        found = self.weight[self.in_features * self.rule.bases :].T
        return found if found.numel() else None

    @property
    def base_activation(self) -> Callable[[Tensor], Tensor] | None:
        """The function beside the splines; None without a base."""
        return self._base or (None if self.base_weight is None else nn.functional.silu)

    def live_weight(self) -> Float[Tensor, "lines out"]:
        """The weight with 0 where the mask removes an edge."""
        if self.mask is None:
            return self.weight
        live = self.mask.T.repeat_interleave(self.rule.bases, 0)
        if len(live) < len(self.weight):
            live = torch.cat([live, self.mask.T])
        # A product would keep a NaN.
        return torch.where(
            live, self.weight, torch.zeros((), dtype=self.weight.dtype, device=live.device)
        )

    @property
    def out_of_grid_fraction(self) -> float:
        """The share of inputs outside their grid since the last `fit_grid`; 0 before any forward pass.

        Counted for B-splines in eager mode: a compiled or transformed call reads no values.
        """
        return self._outside.fraction

    def forward(self, x: Float[Tensor, "*n in"]) -> Float[Tensor, "*n out"]:
        """The layer at x, of any number of leading dimensions."""
        kind = check_tensor(x).device.type
        automatic = kind != "meta" and torch.is_autocast_enabled(kind)
        self._check(x, automatic)
        if not automatic:
            return self._compute(x, self.weight.dtype)
        with torch.autocast(kind, enabled=False):
            return self._compute(x, torch.float32)

    def _compute(self, x: Tensor, result: torch.dtype) -> Tensor:
        weight: Tensor = self.weight if self.mask is None else self.live_weight()
        # The kernel and the spline's cell want more digits than 16 bits have.
        within = torch.float64 if weight.dtype == torch.float64 else torch.float32
        flat = x if x.ndim == 2 else x.reshape(-1, self.in_features)
        if flat.dtype != within or weight.dtype != within:
            flat, weight = flat.to(within), weight.to(within)
        y = self._splines(flat, weight)
        if self.bias is not None:
            y = y + self.bias.to(within)
        if x.ndim != 2:
            y = y.reshape(*x.shape[:-1], self.out_features)
        return y if result == within else y.to(result)

    def _splines(self, x: Tensor, weight: Tensor) -> Tensor:
        rule, base = self.rule, self._base
        if self.kernel == "c" and not native_possible(rule, x):
            raise RuntimeError(
                f"kernel='c' computes float32 on the CPU, got {x.dtype} on {x.device}; kernel='auto' takes "
                "torch there"
            )
        inner = x if rule.basis != "rbf" else self._normalised(x)
        splines = weight if base is None else weight[: self.in_features * rule.bases]
        lo, hi = self.grid_lo, self.grid_hi
        if lo.device != x.device:  # of a layer on the meta device
            lo, hi = lo.to(x.device), hi.to(x.device)
        y, tally = spline_layer(rule, inner, splines, lo, hi, self.kernel, self.higher_order)
        if readable():
            self._outside.look(x, self.grid_lo, self.grid_hi, rule, tally)
        return y if base is None else y + base(x) @ weight[len(splines) :]

    def _normalised(self, x: Tensor) -> Tensor:
        assert self.norm is not None
        own = (self.norm.weight.to(x.dtype), self.norm.bias.to(x.dtype))
        return nn.functional.layer_norm(x, (self.in_features,), *own, self.norm.eps)

    def _check(self, x: Tensor, automatic: bool) -> None:
        own = self.weight
        if not x.is_floating_point():
            raise ValueError(f"x must be a floating-point tensor, got {x.dtype}")
        if not x.ndim or x.shape[-1] != self.in_features:
            raise ValueError(
                f"x must have {self.in_features} columns (in_features), got shape {tuple(x.shape)}"
            )
        if x.dtype != own.dtype and not (automatic and torch.float64 not in (x.dtype, own.dtype)):
            raise ValueError(
                f"x must have the layer's dtype {own.dtype}, got {x.dtype}; convert one of them"
            )
        if x.device != own.device:
            raise ValueError(f"x must be on the layer's device {own.device}, got {x.device}")

    def fit_grid(
        self, x: Float[Tensor, "*n in"], *, quantile: float = 0.001, margin: float = 0.01, keep: bool = True
    ) -> KANLinear:  # fmt: skip
        """Set the grid of each feature to where its data are; the layer itself is changed and returned.

        Parameters
        ----------
        x
            Training inputs of this layer.
        quantile
            The grid spans from this quantile to 1 minus it.
        margin
            And so much of its width more, on either side. A constant feature gets half a unit.
        keep
            Whether splines are refitted so that the function stays what it was, as well as the new grid can
            say it; where the data lie far from the grid there was, that is extrapolated, and warned of. The
            optimizer keeps its state: the parameter is the same one.

        Raises
        ------
        ValueError
            An argument is out of range, or the basis is "chebyshev", which has no grid.
        """
        self._check(check_tensor(x), False)
        if self.rule.basis == "chebyshev":
            raise ValueError("basis='chebyshev' has no grid to fit")
        rows = x.reshape(-1, self.in_features)
        if not len(rows):
            raise ValueError("x must have at least one row")
        if not torch.isfinite(rows).all():
            raise ValueError("x must be finite, got NaN or infinity")
        check_number("quantile", quantile, least=0, below=0.5)
        check_number("margin", margin, least=0)
        if self.norm is not None:
            rows = self._normalised(rows.to(self.norm.weight.dtype))
        with torch.no_grad():
            if keep and self.rule.basis == "bspline":
                warn_far(rows, self.grid_lo, self.grid_hi)
            lo, hi = fitted_range(rows, quantile, margin)
            self._move(self.rule, lo, hi, keep)
        self._outside.restart()
        return self

    def refine(self, grid_size: int) -> KANLinear:
        """Go to another number of cells on the same range; the layer itself is changed and returned.

        Exact for B-splines where the new number is a multiple of the old one, else by least squares. The
        weight is a new parameter then: make a new optimizer; an old one warns at its next step.
        """
        check_number("grid_size", grid_size, least=1, whole=True)
        if self.rule.basis == "chebyshev":
            raise ValueError("basis='chebyshev' has no grid to refine")
        rule = dataclasses.replace(self.rule, size=int(grid_size))
        with torch.no_grad():
            self._move(rule, self.grid_lo, self.grid_hi, keep=True)
        return self

    def _move(self, rule: EdgeRule, lo: Tensor, hi: Tensor, keep: bool) -> None:
        if not isinstance(self.weight, nn.Parameter):
            # What is written into a weight that is computed anew would be lost without a word.
            raise ValueError(
                "the grid cannot be changed while weight is computed from other parameters (weight_norm, "
                "torch.nn.utils.prune, a parametrization); remove that first and put it back afterwards"
            )
        splines = self.in_features * self.rule.bases
        old = (self.rule, self.grid_lo, self.grid_hi)
        if keep:
            held = self.weight[:splines].view(self.in_features, self.rule.bases, -1)
            found = transfer(held, old, (rule, lo, hi)).flatten(0, 1)
            new = torch.cat([found, self.weight[splines:]])
            if new.shape == self.weight.shape:
                self.weight.copy_(new)
            else:
                put_aside(self.weight)
                self.weight = nn.Parameter(new, requires_grad=self.weight.requires_grad)
        self.rule, self.grid_lo, self.grid_hi = rule, lo, hi

    def curve(self, out_feature: int, in_feature: int) -> Callable[[Tensor], Tensor]:
        """One edge as a function of a tensor of any shape, base included, bias not.

        Of "rbf" the splines of a layer see the normalised input: this is the edge of normalised inputs, exact
        without a base.
        """
        o = check_number("out_feature", out_feature, least=0, below=self.out_features, whole=True)
        i = check_number("in_feature", in_feature, least=0, below=self.in_features, whole=True)
        live = self.mask is None or bool(self.mask[o, i])
        # 16 bits do not tell the cells of a grid apart.
        weight = wide(self.spline_weight[o, i].detach()) * live
        base = None if self.base_weight is None else wide(self.base_weight[o, i].detach()) * live
        act = self.base_activation

        def evaluate(x: Tensor) -> Tensor:
            at = check_tensor(x).to(weight)
            lo, hi = self.grid_lo[i : i + 1], self.grid_hi[i : i + 1]
            y: Tensor = self.rule(at[..., None], lo, hi)[..., 0, :] @ weight
            return y if base is None or act is None else y + base * act(at)

        return evaluate

    def regularization(self, l1: float = 1.0, entropy: float = 1.0) -> Float[Tensor, ""]:
        """L1 of the edges' mean absolute spline weights, and the entropy of how they share it.

        As efficient-kan has it, for pykan's penalty of arXiv 2404.19756, equation 2.17, on activations.
        """
        edges = wide(self.spline_weight).abs().mean(-1)
        if self.mask is not None:
            edges = torch.where(self.mask, edges, torch.zeros_like(edges))
        total = edges.sum()
        share = edges / total.clamp(min=torch.finfo(edges.dtype).tiny)
        # The slope of p log p at 0 is infinite, and times the 0 of |w| there no number.
        share = torch.where(share > 0, share, torch.ones_like(share))
        spread: Tensor = (share * share.log()).sum()
        return l1 * total - entropy * spread

    def get_extra_state(self) -> Float64[Tensor, " numbers"]:
        """The grid, and what the weight's shape does not tell."""
        return pack(self.rule, self._base is not None, self.grid_lo, self.grid_hi)

    def set_extra_state(self, state: Tensor) -> None:
        """Take the grid; refuse a state of a layer with another basis, grid size, order, base or policy."""
        ends = unpack(state, self.rule, self._base is not None, self.grid_lo)
        self.grid_lo, self.grid_hi = ends

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        if self.mask is None and prefix + "mask" in state_dict:
            shape = (self.out_features, self.in_features)
            self.mask = torch.ones(shape, dtype=torch.bool, device=self.weight.device)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> KANLinear:
        # torch gives `_apply` no types.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.grid_lo, self.grid_hi = (self._moved(fn, end) for end in (self.grid_lo, self.grid_hi))
        return self

    @staticmethod
    def _moved(fn: Callable[[Tensor], Tensor], end: Tensor) -> Tensor:
        """An end of the grid where the layer went.

        Its numbers stay: in 16 bits it would be another grid, `to_empty` leaves what memory holds, and the
        meta device, to which Opacus sends a layer whose parameters come from elsewhere, has none.
        """
        moved = fn(end)
        return end if moved.device.type == "meta" else end.to(moved.device)

    def extra_repr(self) -> str:
        """Sizes and whatever differs from the default."""
        rule = self.rule
        told = [
            f"{self.in_features}, {self.out_features}, grid_size={rule.size}, spline_order={rule.order}"
        ]
        if rule.basis != "bspline":
            told.append(f"basis={rule.basis!r}")
        if self.base_weight is None:
            told.append("base_activation=None")
        if rule.policy != "zero":
            told.append(f"out_of_grid={rule.policy!r}")
        return ", ".join([*told, f"bias={self.bias is not None}"])
