"""Linear differential equations of order at most two, and what is left of them at given points.

D u = e u + sum_p b_p u_p + sum_p a_p u_pp = f, where e, b, a and f are numbers or functions of the point.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number, check_numbers
from surefoot.kan._two_layer import rows
from surefoot.kan._two_layer.points import check_coefficient, check_points, check_values
from surefoot.kan._two_layer.rows import Coefficients
from surefoot.kan.two_layer import KAN2

Function = Callable[[Float[Tensor, "n d"]], Tensor]
Scalar = float | Function
Vector = float | Sequence[float] | Function


@checked(leave=("e", "f"))
@dataclass(frozen=True)
class PDEResidual:
    """The equation D u = f with D u = e u + sum_p b_p u_p + sum_p a_p u_pp; made by the methods below.

    Attributes
    ----------
    name
        What it is called in records and messages.
    e
        A number or a function (n, d) -> (n,).
    b
        None where the equation has no first derivative; else a number (the same along every input), d
        numbers, or a function (n, d) -> (n, d).
    a
        The same for second derivatives.
    f
        The right side: a number or a function (n, d) -> (n,).
    """

    name: str
    e: Scalar = 0.0
    b: Vector | None = None
    a: Vector | None = None
    f: Scalar = 0.0

    def __post_init__(self) -> None:
        for name, value in (("e", self.e), ("f", self.f)):
            if not callable(value):
                check_coefficient(name, value)
        for name, directions in (("b", self.b), ("a", self.a)):
            if directions is not None and not callable(directions):
                check_numbers(name, directions)
                if np.ndim(directions) > 1:
                    raise ValueError(f"{name} must be one number or d numbers, got {directions!r}")
        if self.order == 0 and not callable(self.e) and self.e == 0:
            raise ValueError("e, b and a must not all be nothing: the equation would be 0 = f")

    @property
    def order(self) -> int:
        """The highest derivative it takes: 0, 1 or 2."""
        return 2 if self.a is not None else 1 if self.b is not None else 0

    @classmethod
    def poisson(cls, f: Scalar) -> PDEResidual:
        """-Lap u = f."""
        return cls("poisson", a=-1.0, f=f)

    @classmethod
    def helmholtz(cls, k: Scalar, f: Scalar) -> PDEResidual:
        """Lap u + k^2 u = f with the wave number k, a number or a function of the point."""
        if callable(k):
            number = k
            return cls("helmholtz", e=lambda x: number(x) ** 2, a=1.0, f=f)
        return cls("helmholtz", e=check_coefficient("k", k) ** 2, a=1.0, f=f)

    @classmethod
    def heat(cls, diffusivity: Scalar, f: Scalar = 0.0, *, time: int = -1) -> PDEResidual:
        """u_t - kappa Lap u = f, the Laplacian over every input but the time.

        Parameters
        ----------
        diffusivity
            kappa > 0: a number, or a function (n, d) -> (n,).
        f
            The source, a number or a function (n, d) -> (n,).
        time
            The input that is the time, by default the last. Initial values are given as boundary points.
        """
        if not callable(diffusivity):
            check_coefficient("diffusivity", diffusivity, above=0)
        return _transport("heat", None, diffusivity, f, check_number("time", time, whole=True))

    @classmethod
    def advection_diffusion(
        cls,
        velocity: Vector,
        diffusivity: Scalar,
        f: Scalar = 0.0,
        *,
        time: int | None = None,
    ) -> PDEResidual:
        """v . grad u - kappa Lap u = f, or u_t + v . grad u - kappa Lap u = f where there is a time.

        Parameters
        ----------
        velocity
            v: one number a space direction, or a function (n, d) -> (n, directions).
        diffusivity
            kappa >= 0, outside of the divergence where it is a function (n, d) -> (n,); 0 leaves an equation
            of first order.
        f
            The source.
        time
            The input that is the time; None: the flow is steady.
        """
        if not callable(velocity):
            check_numbers("velocity", velocity)
        if not callable(diffusivity):
            check_coefficient("diffusivity", diffusivity, least=0)
        if time is not None:
            time = check_number("time", time, whole=True)
        return _transport("advection-diffusion", velocity, diffusivity, f, time)

    @classmethod
    def custom(
        cls, e: Scalar = 0.0, b: Vector | None = None, a: Vector | None = None, f: Scalar = 0.0
    ) -> PDEResidual:
        """e u + sum_p b_p u_p + sum_p a_p u_pp = f.

        Parameters
        ----------
        e
            A number or a function (n, d) -> (n,).
        b, a
            None, a number (the same along every input), d numbers, or a function (n, d) -> (n, d).
        f
            A number or a function (n, d) -> (n,).
        """
        return cls("custom", e, b, a, f)

    @torch.no_grad()
    def coefficients(self, x: Float[Tensor, "n d"]) -> Coefficients:
        """The operator at the points, in float64.

        Raises
        ------
        ValueError
            A function gave another shape or a number that is not finite, or there are not d numbers.
        """
        n, d = x.shape
        e = _scalars("e", self.e, x)
        b, a = (
            x.new_zeros(n, d) if v is None else _vectors(name, v, x, d)
            for name, v in (("b", self.b), ("a", self.a))
        )
        return Coefficients(e, b, a, self.order)

    @torch.no_grad()
    def source(self, x: Float[Tensor, "n d"]) -> Float64[Tensor, " n"]:
        """f at the points.

        Raises
        ------
        ValueError
            The function gave another shape or a number that is not finite.
        """
        return _scalars("f", self.f, x)

    def residual(self, model: nn.Module, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """D u - f at the points for u = model, differentiable in the parameters.

        Of a `KAN2` in closed form and in float64; of any other module by autograd, in its own dtype: it must
        treat rows apart and have one output.
        """
        x = check_points("x", x, x.shape[-1] if isinstance(x, Tensor) and x.ndim else 0)
        exact = x.detach().double()
        return operated(model, exact, self.coefficients(exact)) - self.source(exact)


def operated(model: nn.Module, x: Float64[Tensor, "n d"], of: Coefficients) -> Float[Tensor, " n"]:
    """D u at the points for u = model."""
    if isinstance(model, KAN2):
        net = model.network
        x = check_points("x", x, model.d).to(model.a.device)
        return rows.values(net, net.inner(x, of.order), of)
    return sum_of_terms(terms(model, x, of))


def sum_of_terms(found: list[Tensor]) -> Float[Tensor, " n"]:
    """D u of its terms."""
    return torch.cat(found, 1).sum(1)


def terms(model: nn.Module, x: Float64[Tensor, "n d"], of: Coefficients) -> list[Tensor]:
    """e u (n, 1), b_p u_p and a_p u_pp (n, d), as far as the operator goes; of a `KAN2` in closed form."""
    if isinstance(model, KAN2):
        u, *higher = model.derivatives(x)
    else:
        u, *higher = _by_autograd(model, x.detach().to(next(model.parameters())), of.order)
    found = [of.e.to(u)[:, None] * u[:, None]]
    for factor, derivative in zip((of.b, of.a)[: of.order], higher, strict=False):
        found.append(factor.to(u) * derivative)
    return found


def _by_autograd(model: nn.Module, x: Float[Tensor, "n d"], order: int) -> list[Tensor]:
    """u, and its first and second derivatives along each input as far as `order` asks."""
    x = x.requires_grad_(order > 0)
    with torch.enable_grad():
        u = model(x)
        if u.numel() != len(x):
            raise ValueError(
                f"model must give one number a point, got {tuple(u.shape)} for {len(x)} points"
            )
        u = u.reshape(len(x))
        if not order:
            return [u]
        (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        if order == 1:
            return [u, slope]
        columns = []
        for p in range(x.shape[1]):
            # A slope that does not depend on x (a linear model) has no graph.
            bend = None
            if slope.requires_grad:
                (bend,) = torch.autograd.grad(
                    slope[:, p].sum(), x, create_graph=True, allow_unused=True
                )
            columns.append(torch.zeros_like(u) if bend is None else bend[:, p])
    return [u, slope, torch.stack(columns, 1)]


def _transport(
    name: str, velocity: Vector | None, diffusivity: Scalar, f: Scalar, time: int | None
) -> PDEResidual:
    """[u_t +] v . grad u - kappa Lap u, over the inputs that are not the time."""

    def space(x: Tensor) -> list[int]:
        d = x.shape[1]
        if time is None:
            return list(range(d))
        if not -d <= time < d:
            raise ValueError(f"time must be an input from {-d} to {d - 1}, got {time}")
        if d == 1:
            raise ValueError("time is the only input: the equation needs a space direction")
        return [p for p in range(d) if p != time % d]

    def b(x: Tensor) -> Tensor:
        found, where = torch.zeros_like(x), space(x)
        if time is not None:
            found[:, time] = 1.0
        if velocity is not None:
            found[:, where] = _vectors("velocity", velocity, x, len(where))
        return found

    def a(x: Tensor) -> Tensor:
        found = torch.zeros_like(x)
        kappa = _scalars("diffusivity", diffusivity, x)
        if bool((kappa < 0).any()):
            raise ValueError(f"diffusivity must be at least 0, got {float(kappa.min())}")
        found[:, space(x)] = -kappa[:, None]
        return found

    still = not callable(diffusivity) and diffusivity == 0
    return PDEResidual(name, b=b, a=None if still else a, f=f)


def _scalars(name: str, value: Scalar, x: Float64[Tensor, "n d"]) -> Float64[Tensor, " n"]:
    if not callable(value):
        return x.new_full((len(x),), check_number(name, value))
    return check_values(name, value(x.clone()), len(x)).to(x.device)


def _vectors(
    name: str, value: Vector, x: Float64[Tensor, "n d"], directions: int
) -> Float64[Tensor, "n directions"]:
    """One number a direction at each point."""
    if callable(value):
        found: Any = value(x.clone())
        if isinstance(found, Tensor) and found.shape == (len(x), directions):
            return check_points(name, found.detach(), directions).to(x)
        shape = tuple(found.shape) if isinstance(found, Tensor) else repr(found)
        raise ValueError(f"{name} must give shape ({len(x)}, {directions}), got {shape}")
    numbers = check_numbers(name, value)
    if numbers.ndim and len(numbers) != directions:
        raise ValueError(
            f"{name} must be one number or {directions} numbers, one a direction, got {value!r}"
        )
    return torch.from_numpy(np.broadcast_to(numbers, (len(x), directions)).copy()).to(x)
