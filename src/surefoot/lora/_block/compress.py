"""Add up low-rank blocks and bring the sum to a smaller rank without ever forming m x n."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

Factors = tuple[Float[Tensor, "m _"], Float[Tensor, "_ n"]]


@dataclass(frozen=True)
class Compressed:
    """B A of a smaller rank; squared Frobenius norms of what was kept and of what was cut off."""

    B: Float[Tensor, "m R"]
    A: Float[Tensor, "R n"]
    kept2: float
    cut2: float


def stack(blocks: list[Factors]) -> Factors:
    """One pair of factors whose product is the sum of the products."""
    return torch.cat([b for b, _ in blocks], dim=1), torch.cat([a for _, a in blocks], dim=0)


def compress(
    B: Float[Tensor, "m R"], A: Float[Tensor, "R n"], rank: int | None = None
) -> Compressed:
    """The best approximation of B A of a rank, by QR of both factors and an SVD of the small core.

    In float64. `rank` None keeps all of it, in min(R, m, n) columns. The core is small only where R
    is: at most min(R, m) x min(R, n) numbers.
    """
    qb, rb = torch.linalg.qr(B.double())
    qa, ra = torch.linalg.qr(A.double().T)
    u, sigma, vt = torch.linalg.svd(rb @ ra.T, full_matrices=False)
    keep = len(sigma) if rank is None else min(rank, len(sigma))
    # The singular values are shared out, so that neither factor alone over- or underflows.
    half = sigma[:keep].sqrt()
    squares = sigma.square()
    return Compressed(
        qb @ (u[:, :keep] * half),
        (half[:, None] * vt[:keep]) @ qa.T,
        float(squares[:keep].sum()),
        float(squares[keep:].sum()),
    )
