"""The ends of a spectrum from matrix-vector products alone, with a residual that says how well.

Not by `scipy.sparse.linalg.eigsh` (ARPACK), which the tests hold this against: it works on NumPy arrays, so
that every product of a model on an accelerator would be copied out and in; it restarts until a tolerance is
met where a probe has a budget of products, and then raises without a value where the budget ends first.
`torch.lobpcg` takes a matrix, not a product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot._numerics.sizes import wide, wide_dtype

Product = Callable[[Float[Tensor, " P"]], Float[Tensor, " P"]]


@checked(nan=True)
@dataclass(frozen=True)
class Interval:
    """A Ritz value and its residual |A q - theta q|.

    Some eigenvalue lies within the residual of `value`; as a Ritz value never lies outside the
    spectrum, [low, high] is what is known about its end.

    Attributes
    ----------
    value
        The Ritz value theta, or the modulus that a power iteration came to.
    residual
        How far from `value` an eigenvalue may be at most.
    low
        The least that this end of the spectrum can be, if the eigenvalue next to `value` is that end.
    high
        The most that it can be, on the same condition.
    steps
        The dimension of the Krylov space, or how many powers.
    """

    value: float
    residual: float
    low: float
    high: float
    steps: int


class Hessian:
    """The Hessian of a loss as a product with flat vectors, by double backward of one graph.

    Parameters
    ----------
    loss
        A scalar with its graph.
    parameters
        What it is differentiated by, in the order of the flat vectors. One that the loss does not depend
        on, or only linearly, has a row and a column of zeros.
    """

    def __init__(self, loss: Float[Tensor, ""], parameters: Sequence[Tensor]) -> None:
        self.parameters = list(parameters)
        found = torch.autograd.grad(loss, self.parameters, create_graph=True, allow_unused=True)
        self.curved = [i for i, g in enumerate(found) if g is not None and g.requires_grad]
        self._gradients = [g for i in self.curved if (g := found[i]) is not None]

    @property
    def size(self) -> int:
        """P, the number of coordinates."""
        return sum(p.numel() for p in self.parameters)

    def parts(self, flat: Float[Tensor, " P"]) -> list[Tensor]:
        """A flat vector cut into tensors of the parameters' shapes and dtypes."""
        pieces = torch.split(flat, [p.numel() for p in self.parameters])
        return [v.view_as(p).to(p.dtype) for v, p in zip(pieces, self.parameters, strict=True)]

    def __call__(self, v: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
        """Hessian times v."""
        if not self.curved:
            return torch.zeros_like(v)
        parts = self.parts(v)
        product = torch.autograd.grad(
            self._gradients,
            self.parameters,
            [parts[i] for i in self.curved],
            retain_graph=True,
            materialize_grads=True,
        )
        return torch.cat([h.reshape(-1) for h in product]).to(v.dtype)


def lanczos(
    product: Product,
    size: int,
    k: int,
    *,
    generator: torch.Generator,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> tuple[Interval, Interval]:
    """(smallest, largest) eigenvalue of a symmetric operator from a Krylov space of dimension <= k.

    Full reorthogonalisation; stops early when the Krylov space is exhausted. Two more products
    measure the residuals, so that rounding in the recurrence cannot make them look smaller. Memory: k
    vectors; where that is too much, `power_iteration`.

    Parameters
    ----------
    product
        The operator.
    size
        P, its dimension.
    k
        How many products at most.
    generator
        Of the start vector, on the CPU.
    dtype, device
        Of the vectors.

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
    # Uniform: a normal draw from a common seed may be the very vector that the problem was drawn from.
    start = torch.rand(size, generator=generator, dtype=dtype).to(device) - 0.5
    product, start = _widened(product, dtype), wide(start)
    krylov = _Krylov.of(product, start, k)
    (low, _), (high, _) = krylov.end(product, 0), krylov.end(product, -1)
    return low, high


def largest_eigenpair(
    product: Product, start: Float[Tensor, " P"], k: int
) -> tuple[Interval, Float[Tensor, " P"]]:
    """The largest eigenvalue as by `lanczos`, and its unit vector, from a start of one's own.

    Parameters
    ----------
    product
        The operator.
    start
        Any vector that is not orthogonal to the one looked for; its dtype and device are those of the
        computation.
    k
        How many products at most, besides the one that measures the residual.

    Raises
    ------
    ValueError, RuntimeError
        As `lanczos`.
    """
    product, start = _widened(product, start.dtype), wide(start)
    return _Krylov.of(product, start, k).end(product, -1)


def power_iteration(product: Product, start: Float[Tensor, " P"], k: int) -> Interval:
    """The largest modulus of an eigenvalue, |A q| after k - 1 power steps from `start`: from below.

    The residual is |A^2 q - sigma^2 q| / sigma for sigma = |A q|: the modulus of some eigenvalue lies
    within it of sigma, also where eigenvalues of both signs are equally large and q itself does not
    converge. Three vectors of memory, where `lanczos` needs k and converges in fewer products.

    Parameters
    ----------
    product
        A symmetric operator.
    start
        As in `largest_eigenpair`.
    k
        How many products, besides the one that measures the residual.

    Returns
    -------
    Interval
        value and low: sigma; high: sigma plus the residual.

    Raises
    ------
    ValueError
        k < 1.
    RuntimeError
        A product that is not finite.

    Notes
    -----
    Source: as `lanczos`, theorem 4.5.1 for A^2, whose Rayleigh quotient at q is sigma^2; divided by
    | |lambda| + sigma | >= sigma.
    """
    check_number("k", k, least=1, whole=True)
    product, start = _widened(product, start.dtype), wide(start)
    v, image, sigma = start, start, 0.0
    for j in range(k):
        size = _norm(image)
        if size == 0:
            return Interval(0.0, 0.0, 0.0, 0.0, j)
        v = image / size
        image = _finite(product(v), j + 1)
        sigma = _norm(image)
    if sigma == 0:
        return Interval(0.0, 0.0, 0.0, 0.0, k)
    again = _finite(product(image / sigma), k + 1)
    residual = _norm(again - sigma * v)
    return Interval(sigma, residual, sigma, sigma + residual, k)


def hutchinson_trace(
    product: Product,
    size: int,
    draws: int,
    *,
    generator: torch.Generator,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> tuple[float, float]:
    """(mean, standard error) of z^T A z over random signs z: an unbiased estimate of tr A.

    Parameters
    ----------
    product
        A symmetric operator.
    size
        P, its dimension.
    draws
        How many products; the standard error is NaN for one.
    generator
        Of the signs, on the CPU.
    dtype, device
        Of the vectors.

    Raises
    ------
    ValueError
        draws < 1.

    Notes
    -----
    Source: Hutchinson, A stochastic estimator of the trace of the influence matrix, 1990.
    """
    check_number("draws", draws, least=1, whole=True)
    found = []
    for _ in range(draws):
        signs = torch.randint(0, 2, (size,), generator=generator).to(device, dtype) * 2 - 1
        found.append(float(wide(signs) @ wide(product(signs))))
    values = torch.tensor(found, dtype=torch.float64)
    return float(values.mean()), float(values.std() / draws**0.5) if draws > 1 else float("nan")


@dataclass(frozen=True)
class _Krylov:
    """An orthonormal basis of a Krylov space and the operator in it, a tridiagonal matrix."""

    basis: Float[Tensor, "n P"]
    values: Float[Tensor, " n"]
    vectors: Float[Tensor, "n n"]

    @classmethod
    def of(cls, product: Product, start: Float[Tensor, " P"], k: int) -> _Krylov:
        check_number("k", k, least=1, whole=True)
        size, dtype = len(start), start.dtype
        basis = torch.zeros(min(k, size), size, dtype=dtype, device=start.device)
        basis[0] = start / start.norm()
        rounding = 64 * torch.finfo(dtype).eps
        diagonal: list[float] = []
        off: list[float] = []
        for j in range(len(basis)):
            w = _finite(product(basis[j]), j + 1)
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
        return cls(basis[:n], values, vectors)

    def end(self, product: Product, which: int) -> tuple[Interval, Float[Tensor, " P"]]:
        """The smallest (0) or the largest (-1) Ritz value, with its vector; one product."""
        theta = float(self.values[which])
        q = self.basis.T @ self.vectors[:, which].to(self.basis)
        q = q / q.norm()
        residual = float((product(q) - theta * q).norm())
        low, high = (theta - residual, theta) if which == 0 else (theta, theta + residual)
        return Interval(theta, residual, low, high, len(self.values)), q


def _widened(product: Product, dtype: torch.dtype) -> Product:
    """The operator on vectors of at least 32 bits, whatever it takes itself."""
    if wide_dtype(dtype) == dtype:
        return product
    return lambda v: wide(product(v.to(dtype)))


def _norm(v: Float[Tensor, " P"]) -> float:
    return float(torch.linalg.vector_norm(v, dtype=torch.float64))


def _finite(w: Float[Tensor, " P"], products: int) -> Float[Tensor, " P"]:
    if not bool(torch.isfinite(w).all()):
        # NaN fails every comparison and would come out as a confident interval.
        raise RuntimeError(
            f"product {products} of the operator is not finite: its spectrum is not defined here"
        )
    return w
