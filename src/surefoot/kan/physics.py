"""Physics-informed training: the residual of an equation inside and of its values on the boundary.

r = [sqrt(w_r / n_r) (D u(x_i) - f_i); sqrt(w_b / n_b) (u(x_j) - g_j)], L = |r|^2 / 2, as arXiv 2410.08041
has it in form. For a two-layer KAN the Jacobian of r and a bound on its curvature are closed forms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot.errors import warn
from surefoot.kan._layer.outside import OFTEN, OutOfGridWarning
from surefoot.kan._two_layer import rows
from surefoot.kan._two_layer.points import check_points, check_values
from surefoot.kan._two_layer.rows import Coefficients, Inner
from surefoot.kan.fresh import FreshCheck, fresh_check
from surefoot.kan.local_rate import LocalRate, certificate
from surefoot.kan.residual import PDEResidual, operated, terms
from surefoot.kan.two_layer import KAN2
from surefoot.record import Fact, Record

Values = Callable[[Float[Tensor, "n d"]], Tensor] | Tensor | np.ndarray | float


@dataclass(frozen=True)
class _Rows:
    """Rows of one kind: scale (D u - right) at the points, with the bases of the points where known."""

    scale: float
    x: Float64[Tensor, "n d"]
    operator: Coefficients
    right: Float64[Tensor, " n"]
    inner: Inner

    @classmethod
    def of(
        cls, model: nn.Module, scale: float, x: Tensor, operator: Coefficients, right: Tensor
    ) -> _Rows:
        inner = model.network.inner(x, operator.order) if isinstance(model, KAN2) else []
        return cls(scale, x, operator, right, inner)

    def missing(self, model: nn.Module) -> Float[Tensor, " n"]:
        """D u - right, with its graph."""
        if isinstance(model, KAN2):
            return rows.values(model.network, self.inner, self.operator) - self.right
        found = operated(model, self.x, self.operator)
        return found - self.right.to(found)

    def sizes(self, model: nn.Module) -> Float64[Tensor, " n"]:
        """The sizes of the numbers that D u is summed from."""
        if isinstance(model, KAN2):
            return rows.magnitudes(model.network, self.inner, self.operator)
        return torch.cat(terms(model, self.x, self.operator), 1).detach().double().abs().sum(1)


@checked(leave=("model", "interior", "boundary", "g", "weights"))
class PIKAN:
    """The problem of training a model to solve an equation; `forecast`, `fit_gd` and `monitor` take it.

    Parameters
    ----------
    model : KAN2 or any torch module
        u. Of another module than a `KAN2` the derivatives and the Jacobian are autograd's, and no bound on
        its curvature is known: nothing is promised of it.
    pde : PDEResidual
        The equation.
    interior, boundary : Tensor, shapes (n_r, d) and (n_b, d)
        Where the equation and where the values are asked for. Initial values of an evolution are boundary.
    g : function (n, d) -> (n,), or tensor (n_b,), or number, optional
        The values on the boundary, by default 0.
    weights : tuple of two floats
        w_r and w_b, both above 0.

    Attributes
    ----------
    parameters : list of Parameter
        What is trained, in the order of the Jacobian's columns.
    pde_order, spline_order, width
        The order of the equation; degree and neurons of a `KAN2`, else None.

    Raises
    ------
    ValueError
        An argument is not allowed; the message names it.
    """

    def __init__(
        self,
        model: nn.Module,
        pde: PDEResidual,
        interior: Float[Tensor, "n_r d"],
        boundary: Float[Tensor, "n_b d"],
        g: Values | None = None,
        weights: tuple[float, float] = (1.0, 100.0),
    ) -> None:
        if not isinstance(model, nn.Module):
            raise ValueError(f"model must be a torch module, got {type(model).__name__}")
        if not isinstance(pde, PDEResidual):
            raise ValueError(
                f"pde must be a PDEResidual, for instance PDEResidual.poisson(f), got {pde!r}"
            )
        self.model, self.pde = model, pde
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        if not self.parameters:
            raise ValueError("model must have parameters that require a gradient, got none")
        inputs = model.d if isinstance(model, KAN2) else np.shape(interior)[-1]
        if isinstance(model, KAN2) and model.grid.order < pde.order:
            raise ValueError(
                f"model must have a spline_order of at least {pde.order}, the order of the equation, got "
                f"{model.grid.order}: its derivatives of that order are 0 everywhere"
            )
        self.interior = self._points("interior", interior, inputs)
        self.boundary = self._points("boundary", boundary, inputs)
        if isinstance(model, KAN2):
            _look_outside(model, torch.cat([self.interior, self.boundary]))
        self.weights = _weights(weights)
        self.g: Values = 0.0 if g is None else g
        w_r, w_b = self.weights
        values = self.boundary_values("boundary", self.boundary)
        inside, right = pde.coefficients(self.interior), pde.source(self.interior)
        self._sets = (
            _Rows.of(model, math.sqrt(w_r / len(self.interior)), self.interior, inside, right),
            _Rows.of(
                model, math.sqrt(w_b / len(self.boundary)), self.boundary,
                Coefficients.value(self.boundary), values,
            ),
        )  # fmt: skip

    def _points(self, name: str, x: Any, d: int) -> Float64[Tensor, "n d"]:
        found = check_points(name, x, d).detach().to(self.parameters[0].device, torch.float64)
        if not len(found):
            raise ValueError(f"{name} must have at least one point, got none")
        return found

    def boundary_values(self, name: str, x: Float64[Tensor, "n d"]) -> Float64[Tensor, " n"]:
        """g at points of the boundary.

        Raises
        ------
        ValueError
            g gave another shape or a number that is not finite, or is known at the training points only.
        """
        n = len(x)
        if callable(self.g):
            with torch.no_grad():
                return check_values("g", self.g(x.clone()), n).to(x.device)
        if isinstance(self.g, (Tensor, np.ndarray)) and self.g.ndim:
            if x is not self.boundary:
                raise ValueError(
                    f"g must be a function where {name} holds other points, got numbers"
                )
            return check_values("g", self.g, n).to(x.device)
        return x.new_full((n,), check_number("g", self.g))

    @property
    def _closed(self) -> bool:
        """Whether the Jacobian in the trained parameters is the closed form's."""
        return isinstance(self.model, KAN2) and len(self.parameters) == 2

    @property
    def pde_order(self) -> int:
        """The highest derivative in the residual."""
        return self.pde.order

    @property
    def spline_order(self) -> int | None:
        """The degree of a two-layer KAN's splines, else None."""
        return self.model.grid.order if isinstance(self.model, KAN2) else None

    @property
    def width(self) -> int | None:
        """m of a two-layer KAN, else None."""
        return self.model.m if isinstance(self.model, KAN2) else None

    def residual(self) -> Float[Tensor, " n"]:
        """r, rows inside first, with its graph."""
        return torch.cat([part.scale * part.missing(self.model) for part in self._sets])

    def loss(self) -> Float[Tensor, ""]:
        """L = |r|^2 / 2, with its graph."""
        r = self.residual()
        return r @ r / 2

    def jacobian(self) -> Float64[Tensor, "n parameters"]:
        """dr / dtheta, columns as the parameters lie flat; in closed form for a `KAN2`, else row by row."""
        if isinstance(self.model, KAN2) and self._closed:
            net = self.model.network
            with torch.no_grad():
                parts = [p.scale * rows.jacobian(net, p.inner, p.operator) for p in self._sets]
                return torch.cat(parts)
        r = self.residual()
        found = []
        for value in r:
            grads = torch.autograd.grad(
                value, self.parameters, retain_graph=True, materialize_grads=True
            )
            found.append(torch.cat([g.detach().double().reshape(-1) for g in grads]))
        return torch.stack(found)

    @torch.no_grad()
    def gram(self) -> Float64[Tensor, "n n"]:
        """K = J J', by blocks of neurons for a `KAN2`, so that J is never held whole."""
        if not (isinstance(self.model, KAN2) and self._closed):
            with torch.enable_grad():
                J = self.jacobian()
            return J @ J.T
        net = self.model.network
        n = len(self.interior) + len(self.boundary)
        K = self.interior.new_zeros(n, n)
        for some in rows.neurons(net, n):
            blocks = [
                tuple(p.scale * part.flatten(1) for part in found)
                for p in self._sets
                for found in [rows.jacobian_of(some, p.inner, p.operator, net.scale)]
            ]
            for part in zip(*blocks, strict=True):
                J = torch.cat(part)
                K += J @ J.T
        return K

    @torch.no_grad()
    def hessian_bound(self, R: float) -> float:
        """Lambda: dr/dtheta is Lambda-Lipschitz over the ball of radius R around the present parameters.

        Infinite where the degree of the splines is below the order of the equation + 2, as the Jacobian then
        jumps where a hidden value crosses a knot, and for other models than a `KAN2`: none is known.
        """
        radius = check_number("R", R, least=0, finite=False)
        if not isinstance(self.model, KAN2) or radius == math.inf:
            return math.inf
        net = self.model.network
        bounds = [
            p.scale * rows.hessian_bounds(net, p.inner, p.operator, radius) for p in self._sets
        ]
        return float(torch.cat(bounds).norm())

    @torch.no_grad()
    def rounding_floor(self) -> float:
        """What rounding alone makes of the loss: sum_i (s_i e_i)^2 / 2 with e_i eps times what row i sums."""
        eps = torch.finfo(self.parameters[0].dtype).eps
        total = 0.0
        for p in self._sets:
            size = p.sizes(self.model) + p.right.abs()
            total += float(((p.scale * eps * size) ** 2).sum() / 2)
        return total

    def dead(self) -> tuple[float, float] | None:
        """The shares of inputs and of hidden values outside the grid; None of another model."""
        if not isinstance(self.model, KAN2):
            return None
        outside = self.model.outside(torch.cat([self.interior, self.boundary]))
        return outside.x, outside.z

    def groups(self) -> Sequence[tuple[int, Float64[np.ndarray, "n d"]]]:
        """First row and points of each set of rows in which two equal points make K singular."""
        inside, border = self.interior.cpu().numpy(), self.boundary.cpu().numpy()
        return ((0, inside), (len(inside), border))

    def certificate(self) -> LocalRate:
        """What T1 says of a run from the present parameters; the verdict on a run is `fit_gd`'s."""
        return certificate(self)

    def note(self, record: Record, seed: int | None = None, of: str = "") -> None:
        """Note what is being solved: the equation, its order, the splines, weights and points.

        Parameters
        ----------
        record
            Where to.
        seed, of
            As in `Record.note`.
        """
        facts: dict[str, Fact] = {
            "pde": self.pde.name,
            "pde_order": self.pde_order,
            "weight_interior": self.weights[0],
            "weight_boundary": self.weights[1],
            "interior": len(self.interior),
            "boundary": len(self.boundary),
        }
        if isinstance(self.model, KAN2):
            facts |= {"spline_order": self.model.grid.order, "width": self.model.m}
        record.note(seed, of, **facts)

    def check(
        self,
        fresh: Float[Tensor, "n d"],
        exact: Callable[[Float[Tensor, "n d"]], Tensor] | None = None,
        *,
        boundary: Float[Tensor, "n_b d"] | None = None,
    ) -> FreshCheck:
        """Compare the residual on points that were not trained on with that on those that were.

        Few points can be interpolated without solving anything; that is warned of.

        Parameters
        ----------
        fresh
            Points inside, other ones than `interior`.
        exact
            The solution, where it is known: a function (n, d) -> (n,).
        boundary
            Fresh points of the boundary; g must then be a function or a number.

        Returns
        -------
        FreshCheck
            The numbers; `interpolated` says whether to mistrust the loss.

        Raises
        ------
        ValueError
            `fresh` holds points of the training, or an argument has a wrong shape.
        """
        d = self.interior.shape[1]
        inside = self._points("fresh", fresh, d)
        border = None if boundary is None else self._points("boundary", boundary, d)
        return fresh_check(self, inside, border, exact)


def _look_outside(model: KAN2, x: Float64[Tensor, "n d"]) -> None:
    share = model.outside(x).x
    if share > OFTEN:
        warn(
            f"{share:.1%} of the coordinates of the points lie outside the grid, {model.grid.lo:g} to "
            f"{model.grid.hi:g}, where splines fade to 0: give KAN2 a grid_range that holds the domain, or "
            "scale the domain into it",
            OutOfGridWarning,
        )


def _weights(weights: Any) -> tuple[float, float]:
    try:
        w_r, w_b = weights
    except (TypeError, ValueError):
        raise ValueError(f"weights must be two numbers (w_r, w_b), got {weights!r}") from None
    return check_number("weights[0]", w_r, above=0), check_number("weights[1]", w_b, above=0)
