"""What theory needs of a loss |r|^2 / 2: the residual, its Jacobian, K = J J', a bound on curvature."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor, nn
from torch.func import functional_call

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_numbers
from surefoot.kan.two_layer import KAN2

Normalisation = Literal["sum", "mean"]
Residual = Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]


@runtime_checkable
class Problem(Protocol):
    """A residual of a model's parameters; `PIKAN` is one, and `Regression` makes one of a model and data.

    It may also have `spline_order` and `pde_order` (the degree of its splines, the order of its equation),
    `width`, `groups` (index ranges and points of rows that must differ) and `dead` (the shares of inputs
    and of hidden values off the grid).
    """

    def residual(self) -> Float[Tensor, " n"]:
        """r, with its graph."""
        ...

    def jacobian(self) -> Float64[Tensor, "n P"]:
        """dr / dtheta."""
        ...

    def gram(self) -> Float64[Tensor, "n n"]:
        """K = J J'."""
        ...

    def hessian_bound(self, R: float) -> float:
        """Lambda on the ball of radius R around the present parameters."""
        ...


@checked(leave=("model", "residual"))
class Regression:
    """r = s (f(X) - y), with s = 1 ("sum": L = sum r_i^2 / 2) or n^(-1/2) ("mean": divided by n).

    Parameters
    ----------
    model
        f, of any dtype; a row of outputs a row of X, flattened row by row.
    X, y
        Points (n, d), and targets of as many numbers as f(X) has; without y they are 0.
    normalisation
        Which of the two losses; K and all that is promised scale with it.
    residual
        Another residual, a function of f and X, in place of f(X).

    Raises
    ------
    ValueError
        An X or y that is not of finite numbers or has another shape.
    """

    pde_order = 0

    def __init__(
        self,
        model: nn.Module,
        X: Any,
        y: Any = None,
        normalisation: Normalisation = "sum",
        residual: Residual | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise ValueError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        check_choice("normalisation", normalisation, ("sum", "mean"))
        if residual is not None and not callable(residual):
            raise ValueError(
                f"residual must be a function of f and X, got {type(residual).__name__}; targets do not "
                "matter for the tangent matrix"
            )
        check_numbers("X", X, ndim=None if residual else 2)
        self.model: Any = model
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        if not self.parameters:
            raise ValueError("model must have parameters that require a gradient, got none")
        self._own = residual
        like = self.parameters[0]
        self.X = torch.as_tensor(X).to(like)
        with torch.no_grad():
            outputs = tuple(self._shaped(self.model, self.X).shape)
        self.n = math.prod(outputs)
        self.y = torch.zeros(self.n).to(like) if y is None else self._targets(y, outputs).to(like)
        # The bases of the inputs depend on no parameter.
        self._inner = None
        if isinstance(model, KAN2) and like.dtype == torch.float64 and residual is None:
            self._inner = model.network.inner(self.X, 0)
        self.scale = 1.0 if normalisation == "sum" else self.n**-0.5
        self.normalisation: Normalisation = normalisation

    def _targets(self, y: Any, outputs: tuple[int, ...]) -> Tensor:
        found = torch.from_numpy(check_numbers("y", y))
        if found.numel() != self.n:
            raise ValueError(
                f"y must have as many numbers as the residual has rows, {self.n}, got {found.numel()}"
            )
        # (t, n) in place of (n, t) has as many numbers, each of which belongs to another row.
        if found.ndim > 1 and [s for s in found.shape if s > 1] != [s for s in outputs if s > 1]:
            raise ValueError(
                f"y must have the shape of the model's outputs, {outputs}, or one dimension, got "
                f"{tuple(found.shape)}"
            )
        return found.reshape(-1)

    def _outputs(self, f: Callable[[Tensor], Tensor], X: Tensor) -> Tensor:
        return self._shaped(f, X).reshape(-1)

    def _shaped(self, f: Callable[[Tensor], Tensor], X: Tensor) -> Tensor:
        found = f(X) if self._own is None else self._own(f, X)
        if self._own is None and (found.ndim > 2 or len(found) != len(X)):
            raise ValueError(
                f"model must give a row a point, got shape {tuple(found.shape)} for {len(X)} points"
            )
        return found

    def residual(self, rows: Int[Tensor, " B"] | None = None) -> Float[Tensor, " n"]:
        """r, or some of its rows, with its graph."""
        if self._inner is not None:
            bases = self._inner[0] if rows is None else self._inner[0][rows]
            net = self.model.network
            f: Tensor = net.scale * net.functions(net.hidden([bases]), 0)[0].sum(1)
            return self.scale * (f - (self.y if rows is None else self.y[rows]))
        if rows is None:
            return self.scale * (self._outputs(self.model, self.X) - self.y)
        if self._own is not None or self.n != len(self.X):
            return self.residual()[rows]
        return self.scale * (self._outputs(self.model, self.X[rows]) - self.y[rows])

    def jacobian(self) -> Float64[Tensor, "n P"]:
        """The model's own where it has one, else by reverse mode in float64, whatever the model's dtype."""
        if self._two_layers:
            found: Tensor = self.model.jacobian(self.X)
            return self.scale * found.detach().double()
        free = {k: p.detach().double() for k, p in self.model.named_parameters()}
        names = [k for k, p in self.model.named_parameters() if p.requires_grad]
        state = free | {k: _double(b) for k, b in self.model.named_buffers()}
        trained = [state[k].requires_grad_() for k in names]

        def f(x: Tensor) -> Tensor:
            found: Tensor = functional_call(self.model, state, (x,))
            return found

        # A backward a row, and not torch.func: it takes every module, and does not load the compiler.
        with torch.enable_grad():
            outputs = self._outputs(f, self.X.double())
            rows = [_row(o, trained) for o in outputs]
        return self.scale * torch.stack(rows)

    def gram(self) -> Float64[Tensor, "n n"]:
        """The model's own closed form where it has one."""
        if self._two_layers:
            found: Tensor = self.model.gram(self.X)
            return self.scale**2 * found.detach().double()
        J = self.jacobian()
        return J @ J.T

    def gram_parts(self) -> tuple[Tensor, Tensor] | None:
        """K_a and K_c of a two-layer network, else None."""
        if not self._two_layers:
            return None
        a, c = self.model.gram(self.X, parts=True)
        return self.scale**2 * a.detach(), self.scale**2 * c.detach()

    @property
    def _known(self) -> bool:
        """Whether the model is a `KAN2`, with a bound on its second derivatives.

        It bounds those in some of the parameters as well: freezing one layer only takes columns from J.
        """
        return isinstance(self.model, KAN2) and self._own is None

    @property
    def _two_layers(self) -> bool:
        """Whether both layers of a `KAN2` are trained: its closed forms are then those of this residual."""
        return self._known and all(p.requires_grad for p in self.model.parameters())

    @property
    def spline_order(self) -> int | None:
        """The degree of the splines; None where the model is no two-layer KAN."""
        return int(self.model.grid.order) if self._known else None

    @property
    def width(self) -> int | None:
        """m of a two-layer KAN, else None."""
        return int(self.model.m) if self._known else None

    def hessian_bound(self, R: float) -> float:
        """That of a two-layer KAN; infinite where no bound is known."""
        if not self._known:
            return math.inf
        return self.scale * float(self.model.hessian_bound(self.X, R))

    def rounding_floor(self) -> float:
        """F = sum_i (s e_i)^2 / 2, what rounding of f alone makes of the loss; e_i moves f(x_i) and y_i.

        Of another model e_i is eps (|J| |theta|)_i.
        """
        eps = torch.finfo(self.X.dtype).eps
        if self._known:
            moved = self.model.rounding(self.X).detach().double()
        else:
            theta = flat(self.parameters)
            moved = eps * (self.jacobian().abs() @ theta.abs().to(self.X.device)) / self.scale
        return float(((self.scale * (moved + eps * self.y.abs())) ** 2).sum() / 2)

    def dead(self) -> tuple[float, float] | None:
        """The shares of inputs and of hidden values outside [lo, hi]; None of another model."""
        if not self._known:
            return None
        outside = self.model.outside(self.X)
        return float(outside.x), float(outside.z)

    def groups(self) -> Sequence[tuple[int, Float64[np.ndarray, "n d"]]]:
        """First row and points of each set of rows in which two equal points make K singular."""
        if self._own is not None or self.n != len(self.X):
            return ()
        return ((0, self.X.double().cpu().numpy()),)


def _row(output: Tensor, trained: Sequence[Tensor]) -> Float64[Tensor, " P"]:
    if not output.requires_grad:
        return torch.cat([torch.zeros_like(t).reshape(-1) for t in trained])
    found = torch.autograd.grad(output, trained, retain_graph=True, materialize_grads=True)
    return torch.cat([g.reshape(-1) for g in found])


def _double(t: Tensor) -> Tensor:
    return t.double() if t.is_floating_point() else t


def as_problem(
    model: Any,
    X: Any = None,
    y: Any = None,
    normalisation: Normalisation = "sum",
    residual: Residual | None = None,
) -> Problem:
    """The problem that arguments speak of: `model` itself where it is one, else a `Regression`.

    Parameters
    ----------
    model
        A problem (a `PIKAN`), or any torch module.
    X, y
        Points and targets of a regression; of a problem they must be left out.
    normalisation, residual
        As in `Regression`.

    Raises
    ------
    ValueError
        X is missing, or given where the problem has its own points.
    """
    if isinstance(model, Problem):
        if X is not None or y is not None or residual is not None:
            raise ValueError(
                f"X, y and residual must be left out: {type(model).__name__} has its own points; give what "
                "follows them by its name, as in fit_gd(problem, steps=500)"
            )
        if normalisation != "sum":
            raise ValueError(
                f"normalisation must be 'sum': {type(model).__name__} has its own weights"
            )
        return model
    if not isinstance(model, nn.Module):
        raise ValueError(
            "model must be a torch module, or have residual, jacobian, gram and hessian_bound, "
            f"got {type(model).__name__}"
        )
    if X is None:
        raise ValueError("X must be the points (n, d) of the regression, got None")
    return Regression(model, X, y, normalisation, residual)


def parameters_of(problem: Problem) -> list[nn.Parameter]:
    """The trained parameters of a problem, in the order of the columns of its Jacobian."""
    found: Any = getattr(problem, "parameters", ())
    return [p for p in (found() if callable(found) else found) if p.requires_grad]


def flat(parameters: Sequence[Tensor]) -> Float[Tensor, " P"]:
    """All parameters as one vector, a copy, in float64."""
    return torch.cat([p.detach().double().reshape(-1) for p in parameters])
