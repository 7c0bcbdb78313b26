"""Whether a small residual is a solution: the same numbers on points that were not trained on."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from surefoot._numerics.arguments import checked
from surefoot._showing import showing
from surefoot.kan._two_layer.points import check_values
from surefoot.kan._two_layer.rows import Coefficients
from surefoot.kan.residual import PDEResidual, sum_of_terms, terms

FACTOR = 10.0
"""A residual this many times larger on fresh points has been fitted at its points only."""
SMALL = 1e-3
"""Unless it is this small a share of the terms of the equation there too."""
OPEN = 0.2
"""Above this share of the terms, of the values on the boundary or of the solution it is not solved."""


@runtime_checkable
class Trained(Protocol):
    """What a check needs of a `PIKAN`."""

    model: nn.Module
    pde: PDEResidual
    interior: Float64[Tensor, "n d"]
    boundary: Float64[Tensor, "n d"]
    parameters: list[nn.Parameter]

    def boundary_values(self, name: str, x: Float64[Tensor, "n d"]) -> Float64[Tensor, " n"]:
        """g at points of the boundary."""
        ...


@showing
@checked(nan=True)
@dataclass(frozen=True)
class FreshCheck:
    """Root mean squares, without the weights of the loss.

    Attributes
    ----------
    trained
        Of D u - f at the points of the training.
    fresh
        The same at fresh ones.
    boundary
        Of u - g on the boundary.
    fresh_boundary
        The same at fresh points of it; None where none were given.
    terms
        Of |e u| + sum_p |b_p u_p| + sum_p |a_p u_pp| + |f| at the fresh points, what the residual is a
        difference of.
    values
        Of u and g there, by the larger one.
    error
        |u - exact| / |exact| at the fresh points, in the 2-norm; None where the solution was not given.
    points
        How many were trained on, inside.
    fresh_points
        How many fresh ones there were, inside.
    missing
        The order of the highest derivative that the equation asks for and of which the model has none: it is
        0 at every fresh point; 0 where there is no such.
    """

    trained: float
    fresh: float
    boundary: float
    fresh_boundary: float | None
    terms: float
    values: float
    error: float | None
    points: int
    fresh_points: int
    missing: int = 0

    @property
    def ratio(self) -> float:
        """Fresh over trained: a few where the points stand for the domain."""
        return _ratio(self.fresh, self.trained)

    @property
    def relative(self) -> float:
        """The fresh residual as a share of the terms, from 0 to 1."""
        return self.fresh / self.terms if self.terms > 0 else 0.0

    @property
    def interpolated(self) -> bool:
        """Whether the residual, inside or on the boundary, is ten times larger between its points."""
        inside = self.ratio > FACTOR and self.relative > SMALL
        if self.fresh_boundary is None:
            return inside
        border = _ratio(self.fresh_boundary, self.boundary) > FACTOR
        return inside or (border and self.fresh_boundary > SMALL * self.values)

    @property
    def unsolved(self) -> bool:
        """Whether a fifth is left: of the terms, of the values on the boundary, or of a known solution."""
        border = max(self.boundary, self.fresh_boundary or 0.0)
        known = self.error is not None and self.error > OPEN
        return self.relative > OPEN or border > OPEN * self.values or known

    @property
    def trusted(self) -> bool:
        """Whether neither is so. That is no proof: a wrong boundary value leaves the residual small."""
        return not (self.interpolated or self.unsolved)

    def __str__(self) -> str:
        lines = [
            f"residual: {self.trained:.3g} on the {self.points} points of the training, "
            f"{self.fresh:.3g} on {self.fresh_points} fresh ones "
            f"({self.ratio:.3g} times; {self.relative:.1%} of the terms of the equation)",
            f"boundary: {self.boundary:.3g} on the points of the training"
            + ("" if self.fresh_boundary is None else f", {self.fresh_boundary:.3g} on fresh ones"),
        ]
        if self.error is not None:
            lines.append(f"relative L2 error: {self.error:.3g}")
        lines.append(self.advice)
        return "\n".join(lines)

    @property
    def advice(self) -> str:
        """What the numbers say, in one sentence."""
        if self.interpolated:
            return (
                f"The loss is small at its {self.points} points only: between them the equation or the "
                "boundary value is not met. Add points."
            )
        if self.missing and self.relative > OPEN:
            return (
                f"The equation cannot be solved so: the model's derivatives of order {self.missing} are 0 at "
                "every point. ReLU and splines of degree 1 have none; take a smooth activation or a higher "
                "degree."
            )
        if self.unsolved:
            return (
                f"The equation is not solved: {self._left()}. "
                "Train longer, or widen the network or refine its grid."
            )
        return (
            "The residual is as small between the points of the training as the points let expect."
        )

    def _left(self) -> str:
        if self.relative > OPEN:
            return f"{self.relative:.0%} of its terms is left over"
        border = max(self.boundary, self.fresh_boundary or 0.0)
        if border > OPEN * self.values:
            return f"on the boundary {border:.3g} is left over, where values are of size {self.values:.3g}"
        return f"the relative L2 error is {self.error:.3g}"


def _ratio(fresh: float, trained: float) -> float:
    if trained > 0:
        return fresh / trained
    return math.inf if fresh > 0 else 1.0


def fresh_check(
    problem: Trained,
    fresh: Float64[Tensor, "n d"],
    boundary: Float64[Tensor, "n_b d"] | None,
    exact: Callable[[Float[Tensor, "n d"]], Tensor] | None,
) -> FreshCheck:
    """As `PIKAN.check` says; a UserWarning where the check is not passed."""
    nearest = torch.cdist(fresh, problem.interior).min(1).values
    if bool((nearest == 0).any()):
        at = int(nearest.argmin())
        raise ValueError(f"fresh must hold other points than interior, got one of them in row {at}")
    u = values(problem, fresh)
    operator, right = problem.pde.coefficients(fresh), problem.pde.source(fresh)
    found = [t.detach().double() for t in terms(problem.model, fresh, operator)]
    g = problem.boundary_values("boundary", problem.boundary)
    error = None
    if exact is not None:
        with torch.no_grad():
            known = check_values("exact", exact(fresh.clone()), len(fresh)).to(u).double()
        size = float(torch.linalg.vector_norm(known, dtype=torch.float64))
        if not size:
            raise ValueError("exact must not be 0 at every fresh point: no error relative to it")
        error = float(torch.linalg.vector_norm(u - known, dtype=torch.float64)) / size
    there = None
    if boundary is not None:
        there = _rms(values(problem, boundary) - problem.boundary_values("boundary", boundary))
    inside = problem.pde.residual(problem.model, problem.interior)
    result = FreshCheck(
        trained=_rms(inside), fresh=_rms(sum_of_terms(found) - right),
        boundary=_rms(values(problem, problem.boundary) - g), fresh_boundary=there,
        terms=_rms(torch.cat(found, 1).abs().sum(1) + right.abs()),
        values=max(_rms(u), _rms(g)), error=error,
        points=len(problem.interior), fresh_points=len(fresh), missing=_missing(found, operator),
    )  # fmt: skip
    if not result.trusted:
        warnings.warn(result.advice, UserWarning, stacklevel=3)
    return result


def _missing(found: list[Tensor], operator: Coefficients) -> int:
    """The highest order whose terms are all 0 although the equation has them."""
    factors = (operator.e, operator.b, operator.a)
    for order in range(len(found) - 1, 0, -1):
        if bool((factors[order] != 0).any()) and not bool((found[order] != 0).any()):
            return order
    return 0


def values(problem: Trained, x: Float64[Tensor, "n d"]) -> Float64[Tensor, " n"]:
    """u at the points."""
    with torch.no_grad():
        found: Tensor = problem.model(x.to(problem.parameters[0]))
    return found.reshape(len(x)).double()


def _rms(t: Tensor) -> float:
    return float(t.detach().double().pow(2).mean().sqrt())
