"""What a layer may be made of: combinations of arguments that mean nothing are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from surefoot._numerics.checks import check_choice, check_number
from surefoot.kan._basis.bspline import Policy
from surefoot.kan._basis.edge import Basis, EdgeRule
from surefoot.kan._kernel.doors import Kernel

Activation = Literal["silu"] | Callable[[Tensor], Tensor] | None
RANGES = {"bspline": (-1.0, 1.0), "rbf": (-2.0, 2.0), "chebyshev": (-1.0, 1.0)}


def edge_rule(
    basis: Basis, grid_size: int, spline_order: int, base_activation: Activation, out_of_grid: Policy
) -> EdgeRule:  # fmt: skip
    """The rule of a layer's edges; SiLU is part of it where splines and base see the same input."""
    check_choice("basis", basis, ("bspline", "rbf", "chebyshev"))
    check_choice("out_of_grid", out_of_grid, ("zero", "clamp", "linear"))
    if isinstance(base_activation, str):
        if base_activation != "silu":
            raise ValueError(
                "base_activation must be 'silu', None or a function such as torch.nn.functional.gelu, got "
                f"{base_activation!r}"
            )
    elif isinstance(base_activation, type) or not (
        base_activation is None or callable(base_activation)
    ):
        raise ValueError(
            "base_activation must be 'silu', None or a function of a tensor (of a module its instance), got "
            f"{base_activation!r}"
        )
    if basis != "bspline" and out_of_grid != "zero":
        raise ValueError(
            f"out_of_grid={out_of_grid!r} is for basis='bspline'; {basis!r} goes on outside its range"
        )
    return EdgeRule(
        basis,
        check_number("grid_size", grid_size, least=1, whole=True),
        check_number("spline_order", spline_order, least=1, most=5, whole=True),
        # The normalised input of "rbf" is not the one that its base sees.
        base_activation == "silu" and basis != "rbf",
        out_of_grid,
    )


def check_tensor(x: object) -> Tensor:
    """A tensor, and no array or data frame."""
    if not isinstance(x, Tensor):
        raise ValueError(f"x must be a floating-point tensor, got {type(x).__name__}")
    return x


def check_kernel(kernel: Kernel, higher_order: bool, basis: Basis) -> None:
    """Refuse a kernel that does not compute such a layer."""
    check_choice("kernel", kernel, ("auto", "torch", "c"))
    if kernel == "c" and higher_order:
        raise ValueError(
            "higher_order=True takes torch's operations always, got kernel='c' with it"
        )
    if kernel == "c" and basis != "bspline":
        raise ValueError(f"kernel='c' computes basis='bspline' alone, got {basis!r}")


def grid_ends(given: tuple[float, float] | None, basis: Basis) -> tuple[float, float]:
    """The two ends of the grid, by default the basis's own."""
    if given is None:
        return RANGES[basis]
    if basis == "chebyshev":
        raise ValueError(
            "grid_range has no meaning for basis='chebyshev', which takes tanh of its input"
        )
    try:
        lo, hi = given
    except (TypeError, ValueError):
        raise ValueError(f"grid_range must be two numbers, got {given!r}") from None
    lo = check_number("grid_range[0]", lo)
    return lo, check_number("grid_range[1]", hi, above=lo)
