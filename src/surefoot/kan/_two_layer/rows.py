"""Rows of a residual: D u = e u + sum_p b_p u_p + sum_p a_p u_pp of a two-layer network, in closed form.

With phi_q(z) = sum_l c_ql b_l(z), z_q(x) = sum_p <a_qp, b(x_p)>, P_q = sum_p (b_p dz_qp + a_p ddz_qp) and
Q_q = sum_p a_p dz_qp^2 the chain rule gives D u = m^{-1/2} sum_q (e phi_q + P_q phi_q' + Q_q phi_q'').
Its Jacobian and a bound on its Hessian follow by one more derivative each; regression is e = 1, b = a = 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surefoot.kan._basis.bspline import Grid, cells, local_polynomials

Inner = list[Float[Tensor, "n d C"]]

# Numbers of a block of the Jacobian: 32 MiB in float64.
BLOCK = 2**22


@dataclass(frozen=True)
class Coefficients:
    """The operator at n points: D u = e u + sum_p b_p u_p + sum_p a_p u_pp.

    Attributes
    ----------
    e
        (n,), of u itself.
    b, a
        (n, d), of the first derivatives and of the second ones along each input.
    order
        The highest derivative that the operator may take, 0 to 2, whatever its numbers are.
    """

    e: Float[Tensor, " n"]
    b: Float[Tensor, "n d"]
    a: Float[Tensor, "n d"]
    order: int

    @classmethod
    def value(cls, x: Float[Tensor, "n d"]) -> Coefficients:
        """The operator of regression: u itself."""
        return cls(x.new_ones(len(x)), torch.zeros_like(x), torch.zeros_like(x), 0)


@dataclass(frozen=True)
class Network:
    """The numbers of a two-layer network: a (m, d, C), c (m, C), one grid for both layers."""

    a: Float[Tensor, "m d C"]
    c: Float[Tensor, "m C"]
    grid: Grid

    @property
    def scale(self) -> float:
        """m^{-1/2}."""
        return 1 / math.sqrt(len(self.a))

    def inner(self, x: Float[Tensor, "n d"], order: int) -> Inner:
        """The bases of the inputs and their derivatives up to `order`; they depend on no parameter."""
        return [self.grid(x, r) for r in range(order + 1)]

    def hidden(self, inner: Inner) -> Float[Tensor, "n m"]:
        """z."""
        return torch.einsum("npc,qpc->nq", inner[0], self.a)

    def slopes(self, inner: Inner) -> Float[Tensor, "n m d"]:
        """dz_q / dx_p."""
        return torch.einsum("npc,qpc->nqp", inner[1], self.a)

    def outer(self, z: Float[Tensor, "n m"], order: int) -> list[Float[Tensor, "n m C"]]:
        """The bases of the hidden values and their derivatives up to `order`."""
        return [self.grid(z, r) for r in range(order + 1)]

    def functions(self, z: Float[Tensor, "n m"], order: int) -> list[Float[Tensor, "n m"]]:
        """phi_q at z and its derivatives up to `order`, by the polynomials of the cells.

        A fifth of the time of the bases, with the same numbers; autograd goes through to c and z.
        """
        k, size, h = self.grid.order, self.grid.size, self.grid.h
        cell, u, alive = cells(z, self.grid.lo, h, size, k)
        table = torch.from_numpy(local_polynomials(k)).to(self.c)
        there = size + 2 * k  # cells on which some base lives
        padded = nn.functional.pad(self.c, (k, k))
        pieces = torch.stack([padded[:, r : r + there] for r in range(k + 1)], -1) @ table
        neuron = torch.arange(len(self.c), device=z.device) * there + k
        polynomial = pieces.flatten(0, 1)[cell + neuron].unbind(-1)
        # A constant polynomial would swallow a NaN.
        nothing = 0 * u
        found = []
        for r in range(order + 1):
            value = nothing
            for p in range(k, r - 1, -1):
                value = value * u + math.perm(p, r) * polynomial[p]
            found.append(torch.where(alive, value, nothing) / h**r)
        return found


def values(net: Network, inner: Inner, of: Coefficients) -> Float[Tensor, " n"]:
    """D u at the points; autograd goes through it to a and c."""
    return net.scale * _summands(net, inner, of).sum(1)


def magnitudes(net: Network, inner: Inner, of: Coefficients) -> Float[Tensor, " n"]:
    """The sizes of the numbers that D u is summed from, where neurons and bases cancel.

    Of u itself m^{-1/2} sum_q |phi_q|; of its derivatives every product with its absolute value, as second
    derivatives of splines are differences of numbers h^-2 times as large.
    """
    plain = Coefficients(of.e, torch.zeros_like(of.b), torch.zeros_like(of.a), 0)
    total = net.scale * _summands(net, inner, plain).abs().sum(1)
    if not of.order:
        return total
    a, c = net.a.abs(), net.c.abs()
    bare = Coefficients(torch.zeros_like(of.e), of.b.abs(), of.a.abs(), of.order)
    z = net.hidden(inner)
    first, second = _chain(Network(a, c, net.grid), [b.abs() for b in inner], bare)
    for r, factor in ((1, first), (2, second))[: of.order]:
        phi = torch.einsum("nqc,qc->nq", net.grid(z, r).abs(), c)
        total = total + net.scale * (factor * phi).sum(1)
    return total


def _summands(net: Network, inner: Inner, of: Coefficients) -> Float[Tensor, "n m"]:
    phi = net.functions(net.hidden(inner), of.order)
    total = of.e[:, None] * phi[0]
    if of.order:
        first, second = _chain(net, inner, of)
        total = total + first * phi[1]
        if of.order == 2:
            total = total + second * phi[2]
    return total


def _chain(
    net: Network, inner: Inner, of: Coefficients
) -> tuple[Float[Tensor, "n m"], Float[Tensor, "n m"]]:
    """P and Q."""
    slopes = net.slopes(inner)
    first = torch.einsum("np,nqp->nq", of.b, slopes)
    if of.order < 2:
        return first, torch.zeros_like(first)
    first = first + torch.einsum("np,npc,qpc->nq", of.a, inner[2], net.a)
    return first, torch.einsum("np,nqp->nq", of.a, slopes**2)


def neurons(net: Network, points: int) -> Iterator[Network]:
    """A few neurons at a time: as many as make a block of a Jacobian with that many rows."""
    m, d, bases = net.a.shape
    each = max(1, BLOCK // max(1, points * d * bases))
    for start in range(0, m, each):
        part = slice(start, start + each)
        yield Network(net.a[part], net.c[part], net.grid)


def jacobian_of(
    net: Network, inner: Inner, of: Coefficients, scale: float
) -> tuple[Float[Tensor, "n q d C"], Float[Tensor, "n q C"]]:
    """The derivatives of the rows in a and in c of some neurons; `scale` is m^{-1/2} of all of them."""
    z = net.hidden(inner)
    outer, phi = net.outer(z, of.order), net.functions(z, of.order + 1)
    alpha = of.e[:, None] * phi[1]
    in_c = of.e[:, None, None] * outer[0]
    if of.order:
        first, second = _chain(net, inner, of)
        alpha = alpha + first * phi[2]
        in_c = in_c + first[..., None] * outer[1]
        beta = of.b[:, None, :] * phi[1][..., None]
        if of.order == 2:
            alpha = alpha + second * phi[3]
            in_c = in_c + second[..., None] * outer[2]
            beta = beta + 2 * of.a[:, None, :] * phi[2][..., None] * net.slopes(inner)
    in_a = alpha[:, :, None, None] * inner[0][:, None]
    if of.order:
        in_a += beta[..., None] * inner[1][:, None]
    if of.order == 2:
        in_a += (of.a[:, None, :] * phi[1][..., None])[..., None] * inner[2][:, None]
    return scale * in_a, scale * in_c


def jacobian(net: Network, inner: Inner, of: Coefficients) -> Float[Tensor, "n parameters"]:
    """All of it, columns as the parameters lie flat: a, then c."""
    in_a, in_c = jacobian_of(net, inner, of, net.scale)
    return torch.cat([in_a.flatten(1), in_c.flatten(1)], dim=1)


def hessian_bounds(
    net: Network, inner: Inner, of: Coefficients, radius: float
) -> Float[Tensor, " n"]:
    """A bound on the norm of each row's Hessian in the parameters, over the ball of that radius.

    The Hessian has one block a neuron, [[H_aa, H_ac], [H_ca, 0]], and its norm is at most |H_aa| + |H_ac|.
    Infinite where a derivative of the bases that it needs does not exist: the degree is below order + 2.
    """
    k, order = net.grid.order, of.order
    norms = [b.norm(dim=2) for b in inner]
    p0 = inner[0].flatten(1).norm(dim=1)
    zero = torch.zeros_like(p0)
    pi, peak = zero, zero
    if order:
        mixed = of.b[..., None] * inner[1]
        if order == 2:
            mixed = mixed + of.a[..., None] * inner[2]
            peak = (of.a.abs() * norms[1] ** 2).amax(1)
        pi = mixed.flatten(1).norm(dim=1)
    a = net.a.flatten(1).norm(dim=1).max() + radius
    c = net.c.norm(dim=1).max() + radius
    e = of.e.abs()

    def sup(r: int) -> float:
        return net.grid.largest_norm(r) if r <= k else math.inf

    def times(r: int, factor: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        # A derivative that does not exist harms no row that has no use for it.
        return torch.where(factor == 0, zero, sup(r) * factor)

    in_aa = (
        times(2, e * p0**2 + 2 * p0 * pi + 2 * peak)
        + times(3, pi * a * p0**2 + 4 * p0 * peak * a)
        + times(4, peak * a**2 * p0**2)
    )
    in_ac = (
        times(1, e * p0 + pi) + times(2, pi * a * p0 + 2 * peak * a) + times(3, peak * a**2 * p0)
    )
    bounds: Tensor = net.scale * (c * in_aa + in_ac)
    return bounds
