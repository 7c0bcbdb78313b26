"""The ends of a spectrum from matrix-vector products alone, with a residual that says how well."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Interval:
    """A Ritz value and its residual |A q - theta q|.

    Some eigenvalue lies within the residual of `value`; as a Ritz value never lies outside the
    spectrum, [low, high] is what is known about its end. `steps` is the dimension of the Krylov
    space.
    """

    value: float
    residual: float
    low: float
    high: float
    steps: int


def lanczos(
    product: Callable[[Float[Tensor, " P"]], Float[Tensor, " P"]],
    size: int,
    k: int,
    *,
    generator: torch.Generator,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> tuple[Interval, Interval]:
    """(smallest, largest) eigenvalue of a symmetric operator from a Krylov space of dimension <= k.

    Full reorthogonalisation; stops early when the Krylov space is exhausted. Two more products
    measure the residuals, so that rounding in the recurrence cannot make them look smaller.

    Raises
    ------
    ValueError
        k < 1.
    RuntimeError
        A product that is not finite.

    Notes
    -----
    Source: Parlett, The Symmetric Eigenvalue Problem, theorem 4.5.1 (residual bound) and chapter 13.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    basis = torch.zeros(min(k, size), size, dtype=dtype, device=device)
    # Uniform: a normal draw from a common seed may be the very vector that the problem was drawn from.
    q = torch.rand(size, generator=generator, dtype=dtype).to(device) - 0.5
    basis[0] = q / q.norm()
    rounding = 64 * torch.finfo(dtype).eps
    diagonal: list[float] = []
    off: list[float] = []
    for j in range(len(basis)):
        w = product(basis[j])
        if not bool(torch.isfinite(w).all()):
            # NaN fails every comparison below and would come out as a confident interval.
            raise RuntimeError(
                f"product {j + 1} of the operator is not finite: its spectrum is not defined here"
            )
        diagonal.append(float(basis[j] @ w))
        for _ in range(2):
            # Twice is enough: one pass of Gram-Schmidt leaves what cancellation made of it.
            w = w - basis[: j + 1].T @ (basis[: j + 1] @ w)
        beta = float(w.norm())
        scale = max(abs(d) for d in [*diagonal, *off])
        off.append(beta)
        if j + 1 == len(basis) or beta <= rounding * scale:
            break
        basis[j + 1] = w / beta
    n = len(diagonal)
    tridiagonal = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    for j in range(n - 1):
        tridiagonal[j, j + 1] = tridiagonal[j + 1, j] = off[j]
    values, vectors = torch.linalg.eigh(tridiagonal)
    low, high = float(values[0]), float(values[-1])

    def residual(theta: float, vector: Float[Tensor, " n"]) -> float:
        q = basis[:n].T @ vector.to(basis)
        return float((product(q) - theta * q).norm() / q.norm())

    low_residual, high_residual = residual(low, vectors[:, 0]), residual(high, vectors[:, -1])
    return (
        Interval(low, low_residual, low - low_residual, low, n),
        Interval(high, high_residual, high, high + high_residual, n),
    )
