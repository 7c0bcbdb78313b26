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
from jaxtyping import Float64
from torch import Tensor

from surefoot.kan._basis.bspline import Grid

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

    e: Float64[Tensor, " n"]
    b: Float64[Tensor, "n d"]
    a: Float64[Tensor, "n d"]
    order: int

    @classmethod
    def value(cls, x: Float64[Tensor, "n d"]) -> Coefficients:
        """The operator of regression: u itself."""
        return cls(x.new_ones(len(x)), torch.zeros_like(x), torch.zeros_like(x), 0)


@dataclass(frozen=True)
class Network:
    """The numbers of a two-layer network: a (m, d, C), c (m, C), one grid for both layers."""

    a: Float64[Tensor, "m d C"]
    c: Float64[Tensor, "m C"]
    grid: Grid

    @property
    def scale(self) -> float:
        """m^{-1/2}."""
        return 1 / math.sqrt(len(self.a))

    def hidden(
        self, x: Float64[Tensor, "n d"], order: int
    ) -> tuple[list[Float64[Tensor, "n d C"]], Float64[Tensor, "n m"], Float64[Tensor, "n m d"]]:
        """The bases of the inputs and their derivatives up to `order`, z, and its slopes if order > 0."""
        bases = [self.grid(x, r) for r in range(order + 1)]
        z = torch.einsum("npc,qpc->nq", bases[0], self.a)
        slopes = torch.einsum("npc,qpc->nqp", bases[1], self.a) if order else z.new_zeros(0)
        return bases, z, slopes

    def outer(
        self, z: Float64[Tensor, "n m"], order: int
    ) -> tuple[list[Float64[Tensor, "n m C"]], list[Float64[Tensor, "n m"]]]:
        """The bases of the hidden values and phi_q with their derivatives up to `order`."""
        bases = [self.grid(z, r) for r in range(order + 1)]
        return bases, [torch.einsum("nqc,qc->nq", b, self.c) for b in bases]


def values(net: Network, x: Float64[Tensor, "n d"], of: Coefficients) -> Float64[Tensor, " n"]:
    """D u at the points; autograd goes through it to a and c."""
    return net.scale * _summands(net, x, of).sum(1)


def magnitudes(net: Network, x: Float64[Tensor, "n d"], of: Coefficients) -> Float64[Tensor, " n"]:
    """m^{-1/2} sum_q |summand of neuron q|: what D u is rounded from, where neurons cancel."""
    return net.scale * _summands(net, x, of).abs().sum(1)


def _summands(net: Network, x: Float64[Tensor, "n d"], of: Coefficients) -> Float64[Tensor, "n m"]:
    inner, z, slopes = net.hidden(x, of.order)
    _, phi = net.outer(z, of.order)
    total = of.e[:, None] * phi[0]
    if of.order:
        first, second = _chain(net, inner, slopes, of)
        total = total + first * phi[1]
        if of.order == 2:
            total = total + second * phi[2]
    return total


def _chain(
    net: Network,
    inner: list[Float64[Tensor, "n d C"]],
    slopes: Float64[Tensor, "n m d"],
    of: Coefficients,
) -> tuple[Float64[Tensor, "n m"], Float64[Tensor, "n m"]]:
    """P and Q."""
    first = torch.einsum("np,nqp->nq", of.b, slopes)
    if of.order < 2:
        return first, torch.zeros_like(first)
    first = first + torch.einsum("np,npc,qpc->nq", of.a, inner[2], net.a)
    return first, torch.einsum("np,nqp->nq", of.a, slopes**2)


def jacobian_blocks(
    net: Network, x: Float64[Tensor, "n d"], of: Coefficients
) -> Iterator[tuple[Float64[Tensor, "n q d C"], Float64[Tensor, "n q C"]]]:
    """The derivatives of the rows in a and in c, for a few neurons at a time."""
    m, d, bases = net.a.shape
    each = max(1, BLOCK // max(1, len(x) * d * bases))
    for start in range(0, m, each):
        part = slice(start, start + each)
        yield _jacobian(Network(net.a[part], net.c[part], net.grid), x, of, net.scale)


def _jacobian(
    net: Network, x: Float64[Tensor, "n d"], of: Coefficients, scale: float
) -> tuple[Float64[Tensor, "n q d C"], Float64[Tensor, "n q C"]]:
    inner, z, slopes = net.hidden(x, of.order)
    outer, phi = net.outer(z, of.order + 1)
    alpha = of.e[:, None] * phi[1]
    in_c = of.e[:, None, None] * outer[0]
    if of.order:
        first, second = _chain(net, inner, slopes, of)
        alpha = alpha + first * phi[2]
        in_c = in_c + first[..., None] * outer[1]
        beta = of.b[:, None, :] * phi[1][..., None]
        if of.order == 2:
            alpha = alpha + second * phi[3]
            in_c = in_c + second[..., None] * outer[2]
            beta = beta + 2 * of.a[:, None, :] * phi[2][..., None] * slopes
    in_a = alpha[:, :, None, None] * inner[0][:, None]
    if of.order:
        in_a += beta[..., None] * inner[1][:, None]
    if of.order == 2:
        in_a += (of.a[:, None, :] * phi[1][..., None])[..., None] * inner[2][:, None]
    return scale * in_a, scale * in_c


def jacobian(
    net: Network, x: Float64[Tensor, "n d"], of: Coefficients
) -> Float64[Tensor, "n parameters"]:
    """All of it, columns as the parameters lie flat: a, then c."""
    blocks = list(jacobian_blocks(net, x, of))
    return torch.cat(
        [*(a.flatten(1) for a, _ in blocks), *(c.flatten(1) for _, c in blocks)], dim=1
    )


def hessian_bounds(
    net: Network, x: Float64[Tensor, "n d"], of: Coefficients, radius: float
) -> Float64[Tensor, " n"]:
    """A bound on the norm of each row's Hessian in the parameters, over the ball of that radius.

    The Hessian has one block a neuron, [[H_aa, H_ac], [H_ca, 0]], and its norm is at most |H_aa| + |H_ac|.
    Infinite where a derivative of the bases that it needs does not exist: the degree is below order + 2.
    """
    k, order = net.grid.order, of.order
    inner = [net.grid(x, r) for r in range(min(order, 2) + 1)]
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

    def times(r: int, factor: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
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
