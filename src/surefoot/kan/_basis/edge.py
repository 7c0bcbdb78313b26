"""What every edge of a layer is a sum of: the bases of one input, and SiLU beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

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
            step = ((hi - lo) / (self.bases - 1)).to(x.dtype)[:, None]
            centres = lo.to(x.dtype)[:, None] + step * torch.arange(self.bases, device=x.device)
            return torch.exp(-(((x[..., None] - centres) / step) ** 2))
        t = torch.tanh(x)
        found = [torch.ones_like(t), t]
        for _ in range(self.bases - 2):
            found.append(2 * t * found[-1] - found[-2])
        return torch.stack(found[: self.bases], -1)

    def features(
        self, x: Float[Tensor, "n in"], lo: Float[Tensor, " in"], hi: Float[Tensor, " in"]
    ) -> Float[Tensor, "n lines"]:
        """What the weight is multiplied with: all bases, then SiLU."""
        splines = self(x, lo, hi).flatten(-2)
        return torch.cat([splines, torch.nn.functional.silu(x)], -1) if self.silu else splines
