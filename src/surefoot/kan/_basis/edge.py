"""What every edge of a layer is a sum of: the bases of one input, and SiLU beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surefoot.kan._basis.bspline import Policy, spline_bases

Basis = Literal["bspline", "rbf", "chebyshev"]


@dataclass(frozen=True)
class EdgeRule:
    """How a feature becomes C numbers; everything about an edge but its weights and its range.

    Attributes
    ----------
    basis
        B-splines; Gaussians exp(-((x - c) / s)^2) with C centres on the range and s their distance;
        Chebyshev polynomials T_0 .. T_{C-1} of tanh x, which know no range.
    size, order
        Cells G and degree k; C = G + k for every basis.
    silu
        Whether a row of SiLU follows the bases.
    policy
        What B-splines are outside the grid.
    """

    basis: Basis
    size: int
    order: int
    silu: bool
    policy: Policy = "zero"

    @property
    def bases(self) -> int:
        return self.size + self.order

    def lines(self, in_features: int) -> int:
        """Rows of the weight."""
        return in_features * (self.bases + self.silu)

    def __call__(
        self, x: Float[Tensor, "*n in"], lo: Float[Tensor, " in"], hi: Float[Tensor, " in"]
    ) -> Float[Tensor, "*n in bases"]:
        """The bases at x."""
        if self.basis == "bspline":
            return spline_bases(
                x, lo, (hi - lo) / self.size, self.size, self.order, policy=self.policy
            )
        if self.basis == "rbf":
            return torch.exp(-(self._distance(x, lo, hi)[0] ** 2))
        return _recursion(torch.tanh(x), 1.0, self.bases)

    def slopes(
        self, x: Float[Tensor, "*n in"], lo: Float[Tensor, " in"], hi: Float[Tensor, " in"]
    ) -> Float[Tensor, "*n in bases"]:
        """The derivatives in x of "rbf" and "chebyshev", in closed form: T_k' = k U_{k-1}."""
        if self.basis == "rbf":
            away, step = self._distance(x, lo, hi)
            return -2 * away / step * torch.exp(-(away**2))
        t = torch.tanh(x)
        second = nn.functional.pad(_recursion(t, 2.0, self.bases - 1), (1, 0))
        k = torch.arange(self.bases, device=x.device, dtype=x.dtype)
        return k * second * (1 - t**2)[..., None]

    def _distance(self, x: Tensor, lo: Tensor, hi: Tensor) -> tuple[Tensor, Tensor]:
        """(x - c) / s of every centre, and s."""
        step = ((hi - lo) / (self.bases - 1)).to(x.dtype)[:, None]
        centres = lo.to(x.dtype)[:, None] + step * torch.arange(self.bases, device=x.device)
        return (x[..., None] - centres) / step, step

    def features(
        self, x: Float[Tensor, "n in"], lo: Float[Tensor, " in"], hi: Float[Tensor, " in"]
    ) -> Float[Tensor, "n lines"]:
        """What the weight is multiplied with: all bases, then SiLU."""
        splines = self(x, lo, hi).flatten(-2)
        return torch.cat([splines, nn.functional.silu(x)], -1) if self.silu else splines


def _recursion(t: Tensor, second: float, many: int) -> Tensor:
    """1, second * t, then p_{k+1} = 2 t p_k - p_{k-1}: Chebyshev's T for 1 and U for 2."""
    found = [torch.ones_like(t), second * t]
    for _ in range(many - 2):
        found.append(2 * t * found[-1] - found[-2])
    return torch.stack(found[:many], -1)
