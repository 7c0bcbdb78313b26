"""The two-layer network of the theory: both layers are splines, both are trained, float64.

f(x) = m^{-1/2} sum_{q <= m} sum_l c_ql b_l(z_q(x)) with z_q(x) = sum_{p <= d} sum_j a_qpj b_j(x_p); the
setting of arXiv 2410.08041. Its tangent matrix K = J J' is known in closed form (derived here).
"""

from __future__ import annotations

import math
import secrets
from typing import Any, Literal, NamedTuple, overload

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot.kan._basis.bspline import Grid
from surefoot.kan._two_layer import rows
from surefoot.kan._two_layer.infinite import infinite_gram
from surefoot.kan._two_layer.points import check_points
from surefoot.kan._two_layer.rows import Coefficients, Network


class Outside(NamedTuple):
    """Fractions of numbers outside the grid, where fewer bases or none carry a gradient.

    Attributes
    ----------
    x, z
        Of the inputs and of the hidden values, outside [lo, hi].
    dead
        Of the hidden values, beyond the last knot: such a neuron has no gradient at that point.
    """

    x: float
    z: float
    dead: float


class Features(NamedTuple):
    """What the network computes at n points, in float64.

    Attributes
    ----------
    x
        (n, d, C), bases of the inputs.
    z
        (n, m), hidden values.
    bases
        (n, m, C), bases of the hidden values.
    phi, slope
        (n, m), the outer function of each neuron at z and its derivative.
    """

    x: Float64[Tensor, "n d C"]
    z: Float64[Tensor, "n m"]
    bases: Float64[Tensor, "n m C"]
    phi: Float64[Tensor, "n m"]
    slope: Float64[Tensor, "n m"]


@checked
class KAN2(nn.Module):
    """A two-layer Kolmogorov-Arnold network with one output and no base function.

    Parameters
    ----------
    d : int
        Inputs.
    m : int
        Neurons.
    grid_size, spline_order : int
        Cells G and degree k (1 to 5) of both layers.
    grid_range : tuple of two floats
        The ends of the grid; inputs and hidden values outside it lose their gradient.
    init_scale : float, optional
        Standard deviation of a at the start; by default 0.5 up to two inputs and 0.5 sqrt(2 / d) beyond,
        which keeps about 95 % of z inside [-1, 1]. c starts standard normal.
    symmetric : bool
        Whether the second half of the neurons copies a and negates c, so that f = 0 at the start. m even.
    seed : int, optional
        Of a generator of its own: the global one is neither read nor moved. By default one is drawn; the
        attribute `seed` tells it.
    device, dtype
        As of every module. The theory's numbers are computed in float64 whatever the dtype.

    Attributes
    ----------
    a, c : Parameter
        (m, d, C) and (m, C): the only two.
    grid : Grid
        Of both layers.

    Raises
    ------
    ValueError
        An argument is not allowed; the message names it.
    """

    def __init__(
        self,
        d: int,
        m: int,
        *,
        grid_size: int = 5,
        spline_order: int = 3,
        grid_range: tuple[float, float] = (-1.0, 1.0),
        init_scale: float | None = None,
        symmetric: bool = False,
        seed: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        self.d = check_number("d", d, least=1, whole=True)
        self.m = check_number("m", m, least=1, whole=True)
        self.grid = _grid(grid_range, grid_size, spline_order)
        if init_scale is None:
            init_scale = 0.5 if self.d <= 2 else 0.5 * math.sqrt(2 / self.d)
        self.init_scale = check_number("init_scale", init_scale, above=0)
        if not isinstance(symmetric, bool):
            raise ValueError(f"symmetric must be True or False, got {symmetric!r}")
        if symmetric and self.m % 2:
            raise ValueError(f"m must be even where symmetric=True, got {m}")
        self.symmetric = symmetric
        if dtype not in (torch.float64, torch.float32):
            raise ValueError(f"dtype must be torch.float64 or torch.float32, got {dtype}")
        self.seed = (
            secrets.randbits(63)
            if seed is None
            else check_number("seed", seed, least=0, most=2**63 - 1, whole=True)
        )
        bases = self.grid.bases
        self.a = nn.Parameter(torch.empty(self.m, self.d, bases, device=device, dtype=dtype))
        self.c = nn.Parameter(torch.empty(self.m, bases, device=device, dtype=dtype))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw both layers anew from the seed: the same numbers each time."""
        generator = torch.Generator().manual_seed(self.seed)
        drawn = self.m // 2 if self.symmetric else self.m
        bases = self.grid.bases
        kind = torch.float64
        a = torch.randn(drawn, self.d, bases, generator=generator, dtype=kind) * self.init_scale
        c = torch.randn(drawn, bases, generator=generator, dtype=kind)
        if self.symmetric:
            a, c = torch.cat([a, a]), torch.cat([c, -c])
        self.a.copy_(a)
        self.c.copy_(c)

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """f at the points, in the model's dtype.

        Raises
        ------
        ValueError
            x has another shape, whole numbers, or one that is not finite.
        """
        x = check_points("x", x, self.d).to(self.a)
        net = Network(self.a, self.c, self.grid)
        return rows.values(net, net.inner(x, 0), Coefficients.value(x))

    def get_extra_state(self) -> Float64[Tensor, "4"]:
        """G, k and the ends of the grid, without which the parameters are another function."""
        grid = self.grid
        return torch.tensor([grid.size, grid.order, grid.lo, grid.hi], dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        """Refuse the state of a network with another grid: its parameters are another function here.

        Raises
        ------
        ValueError
            It is of another grid; the message tells both.
        """
        own, given = self.get_extra_state().tolist(), torch.as_tensor(state).tolist()
        if given != own:
            (size, order, lo, hi), grid = given, self.grid
            raise ValueError(
                f"the state is of a KAN2 with grid_size {size:g}, spline_order {order:g}, grid_range "
                f"({lo:g}, {hi:g}); this one has {grid.size}, {grid.order}, ({grid.lo:g}, {grid.hi:g}): make "
                "it with the same arguments"
            )

    def extra_repr(self) -> str:
        """The settings, as they were given."""
        return (
            f"d={self.d}, m={self.m}, grid_size={self.grid.size}, spline_order={self.grid.order}, "
            f"grid_range=({self.grid.lo:g}, {self.grid.hi:g}), init_scale={self.init_scale:g}, "
            f"symmetric={self.symmetric}, seed={self.seed}"
        )

    @property
    def network(self) -> Network:
        """Its numbers in float64, through which autograd reaches the parameters."""
        return Network(self.a.double(), self.c.double(), self.grid)

    def _points(self, x: Any) -> Float64[Tensor, "n d"]:
        return check_points("X", x, self.d).to(self.a.device, torch.float64)

    @torch.no_grad()
    def features(self, X: Float[Tensor, "n d"]) -> Features:
        """Bases, hidden values and outer functions at the points, in float64."""
        x, net = self._points(X), self.network
        inner = net.inner(x, 0)
        z = net.hidden(inner)
        phi, slope = net.functions(z, 1)
        return Features(inner[0], z, self.grid(z), phi, slope)

    @torch.no_grad()
    def outside(self, X: Float[Tensor, "n d"]) -> Outside:
        """How much of x and of z lies outside the grid."""
        x, grid, net = self._points(X), self.grid, self.network
        z = net.hidden(net.inner(x, 0))
        margin = grid.order * grid.h

        def beyond(t: Tensor, by: float) -> float:
            out = (t < grid.lo - by) | (t > grid.hi + by)
            return float(out.double().mean()) if out.numel() else 0.0

        return Outside(beyond(x, 0.0), beyond(z, 0.0), beyond(z, margin))

    def derivatives(
        self, X: Float[Tensor, "n d"]
    ) -> tuple[Float64[Tensor, " n"], Float64[Tensor, "n d"], Float64[Tensor, "n d"]]:
        """u, its slopes u_p and its second derivatives u_pp along each input, without autograd in x.

        Autograd goes through them to the parameters. A derivative beyond the degree is 0, and at a knot the
        one of order k is the right limit.
        """
        x, net = self._points(X), self.network
        inner = net.inner(x, 2)
        slopes = net.slopes(inner)
        phi = net.functions(net.hidden(inner), 2)
        bends = torch.einsum("npc,qpc->nqp", inner[2], net.a)
        first = torch.einsum("nq,nqp->np", phi[1], slopes)
        second = torch.einsum("nq,nqp->np", phi[2], slopes**2)
        second = second + torch.einsum("nq,nqp->np", phi[1], bends)
        return net.scale * phi[0].sum(1), net.scale * first, net.scale * second

    @overload
    def gram(
        self, X: Float[Tensor, "n d"], parts: Literal[False] = False
    ) -> Float64[Tensor, "n n"]: ...
    @overload
    def gram(
        self, X: Float[Tensor, "n d"], parts: Literal[True]
    ) -> tuple[Float64[Tensor, "n n"], Float64[Tensor, "n n"]]: ...
    @torch.no_grad()
    def gram(
        self, X: Float[Tensor, "n d"], parts: bool = False
    ) -> Float64[Tensor, "n n"] | tuple[Float64[Tensor, "n n"], Float64[Tensor, "n n"]]:
        """The tangent matrix K = J J' in closed form, or (K_a, K_c) of the two layers with K = K_a + K_c.

        K_c = B B' / m with B (n, mC) the bases of z; K_a = (D D' / m) o Phi Phi', entry by entry, with
        D = phi'(z) (n, m). In float64, n^2 m C multiplications and no Jacobian.
        """
        x, net = self._points(X), self.network
        inner = net.inner(x, 0)
        phi = inner[0].flatten(1)
        in_a = phi.new_zeros(len(x), len(x))
        in_c = torch.zeros_like(in_a)
        for some in rows.neurons(net, len(x)):
            z = some.hidden(inner)
            bases, slope = self.grid(z).flatten(1), some.functions(z, 1)[1]
            in_c += bases @ bases.T
            in_a += slope @ slope.T
        in_a *= (phi @ phi.T) / self.m
        in_c /= self.m
        return (in_a, in_c) if parts else in_a + in_c

    @torch.no_grad()
    def jacobian(self, X: Float[Tensor, "n d"]) -> Float64[Tensor, "n parameters"]:
        """df/dtheta at the points, columns as the parameters lie flat: a, then c."""
        x, net = self._points(X), self.network
        return rows.jacobian(net, net.inner(x, 0), Coefficients.value(x))

    @torch.no_grad()
    def gram_infinite(self, X: Float[Tensor, "n d"]) -> Float64[Tensor, "n n"]:
        """The limit of `gram` at initialisation as m grows, by quadrature; n (n + 1) / 2 integrals."""
        return infinite_gram(self._points(X), self.grid, self.init_scale)

    @torch.no_grad()
    def hessian_bound(self, X: Float[Tensor, "n d"], R: float) -> float:
        """Lambda: J is Lambda-Lipschitz in the parameters over the ball of radius R around the present ones.

        Parameters
        ----------
        X : Tensor, shape (n, d)
            The points.
        R : float
            Radius in parameters, at least 0.

        Returns
        -------
        float
            sqrt(sum_i H_i^2) with H_i = m^{-1/2} (B2 (max |c_q| + R) |Phi_i|^2 + B1 |Phi_i|); infinite
            for spline_order 1, whose slope jumps.
        """
        x, radius = self._points(X), check_number("R", R, least=0, finite=False)
        if radius == math.inf:
            return math.inf
        net = self.network
        of = Coefficients.value(x)
        return float(rows.hessian_bounds(net, net.inner(x, 0), of, radius).norm())

    @torch.no_grad()
    def rounding(self, X: Float[Tensor, "n d"]) -> Float64[Tensor, " n"]:
        """How far rounding alone may move f at each point: eps m^{-1/2} sum_q |phi_q(z_q)|.

        The neurons of a symmetric network cancel, so that |f| says nothing of it. eps of the model's dtype.
        """
        x, net = self._points(X), self.network
        eps = torch.finfo(self.a.dtype).eps
        return eps * rows.magnitudes(net, net.inner(x, 0), Coefficients.value(x))


def _grid(grid_range: Any, size: int, order: int) -> Grid:
    try:
        lo, hi = grid_range
    except (TypeError, ValueError):
        raise ValueError(f"grid_range must be two numbers (lo, hi), got {grid_range!r}") from None
    return Grid(lo, hi, size, order)
