"""The spectrum of R = C B C for a pair, from coordinates in which small eigenvalues keep their digits.

R has the product of the condition numbers of A and B: its own eigendecomposition leaves of the small
eigenvalues of regular inputs, from some 1e8 on, only rounding. With B = L L^T, the columns of L by falling
size, F = C L has F^T F = U' r U'^T, a graded matrix of the same spectrum, and U^T C = r^1/2 U'^T L^-1.
Which eigenvalues are 0 is a fact of A, and never read off the product.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from surefoot.barycenter._spectral.ranks import inverse, ranked


@dataclass(frozen=True)
class Coordinates:
    """B = L L^T, for the matrices B that are regular; of the others L means nothing."""

    L: Float64[Tensor, "... d d"]
    inverse: Float64[Tensor, "... d d"]
    regular: Bool[Tensor, "..."]

    @classmethod
    def of(cls, B: Float64[Tensor, "... d d"]) -> Coordinates:
        """By one eigendecomposition."""
        w, V = torch.linalg.eigh(B)
        regular = (ranked(w.clamp(min=0)) > 0).all(dim=-1)
        # LAPACK keeps the small eigenvalues of a graded matrix only where the large ones come first.
        root = torch.where(regular[..., None], w, torch.ones_like(w)).sqrt().flip(-1)[..., None, :]
        V = V.flip(-1)
        return cls(V * root, (V / root).mT, regular)


def decompose(
    C: Float64[Tensor, "... d d"], B: Float64[Tensor, "... d d"], at: Coordinates,
    zeros: Int64[Tensor, "..."],
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """r, the rows U^T C and U of R = C B C = U diag(r) U^T; `zeros` of the eigenvalues of A are 0."""
    everywhere = bool(at.regular.all())
    if not everywhere and not bool(at.regular.any()):
        return _directly(C, B)
    F = C @ at.L
    r, turned = torch.linalg.eigh(F.mT @ F)
    null = torch.arange(r.shape[-1], device=r.device) < zeros[..., None]
    r = torch.where(null, torch.zeros_like(r), r).clamp(min=0)
    root = r.sqrt()
    rows = root[..., None] * (turned.mT @ at.inverse)
    U = (F @ turned) * inverse(root)[..., None, :]
    if everywhere:
        return r, rows, U
    there = at.regular[..., None, None]
    r0, rows0, U0 = _directly(C, B)
    return (
        torch.where(there[..., 0], r, r0), torch.where(there, rows, rows0), torch.where(there, U, U0),
    )  # fmt: skip


def _directly(C: Tensor, B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r, U = torch.linalg.eigh(C @ B @ C)
    # LAPACK leaves U in column-major order: its transpose is contiguous, and so are these rows.
    return ranked(r.clamp(min=0)), U.mT @ C, U
