"""Sketches: the laws from which the frozen factor is drawn, the same in every process."""

from __future__ import annotations

import math
from typing import Any, get_args

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import t as student
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number
from surefoot._numerics.seeds import generator_for, seed_for
from surefoot.lora._block.dtypes import check_dtype
from surefoot.lora.config import Law, Side, Sketch

LAWS = get_args(Law)


def sketch_seed(seed: int, block: int, layer: str) -> int:
    """A 63-bit seed from (seed, block, layer name) that does not differ between processes.

    Parameters
    ----------
    seed
        Of the run.
    block
        From 0.
    layer
        The qualified name.
    """
    return seed_for(seed, block, layer)


@checked
def shared_sketch(
    seed: int,
    block: int,
    layer: str,
    shape: tuple[int, int],
    law: Sketch = "orthonormal",
    dtype: torch.dtype = torch.float32,
    std: float | None = 1.0,
) -> Float[Tensor, "rows columns"]:
    """The frozen factor of one layer in one block: (r, n) for A, (m, r) for B.

    Drawn in float64 on the CPU from a generator of its own, so that every process and device gets
    the same bits. The rank is the smaller side of `shape`, the sampled dimension d the larger one.

    Parameters
    ----------
    seed, block, layer
        They decide the draw: the seed of the run, the block from 0, the layer's qualified name.
    shape
        Of the factor.
    law
        Its distribution, or a callable (shape, generator) -> tensor.
    dtype
        Of the result.
    std
        Standard deviation of "gaussian" entries; None means 1/sqrt(d).

    Raises
    ------
    ValueError
        An unknown law, a number out of range, a name that is none; or a callable law returned something of
        another shape, or no finite numbers.
    """
    check_law("law", law)
    # 3.0 and True are no other seeds than 3 and 1.
    seed = check_number("seed", seed, whole=True)
    block = check_number("block", block, whole=True)
    if not isinstance(layer, str):
        raise ValueError(f"layer must be the name of a layer, got {layer!r}")
    if isinstance(shape, str | bytes) or not np.iterable(shape) or len(shape) != 2:
        raise ValueError(f"shape must be two whole numbers, got {shape!r}")
    rows, columns = (check_number("shape", side, least=1, whole=True) for side in shape)
    shape = (rows, columns)
    std = None if std is None else check_number("std", std, above=0)
    dtype = check_dtype("dtype", dtype)
    generator = generator_for(seed, block, layer)
    if callable(law):
        given = law(shape, generator)
        if not isinstance(given, Tensor) or tuple(given.shape) != tuple(shape):
            what = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
            raise ValueError(f"the sketch of {layer} must be a tensor of shape {shape}, got {what}")
        if not torch.isfinite(given).all():
            raise ValueError(f"the sketch of {layer} must be finite, got NaN or infinity")
        return given.detach().to(dtype)
    r, d = min(shape), max(shape)
    tall = _draw(law, d, r, std, generator)
    return (tall if rows >= columns else tall.T.contiguous()).to(dtype)


def check_law(name: str, law: Any) -> None:
    """Refuse what is neither a built-in law nor a callable; ValueError names the argument."""
    if not callable(law):
        check_choice(name, law, LAWS)


def _draw(
    law: str, d: int, r: int, std: float | None, generator: torch.Generator
) -> Float[Tensor, "d r"]:
    def normal() -> Tensor:
        return torch.randn(d, r, generator=generator, dtype=torch.float64)

    if law == "orthonormal":
        q, upper = torch.linalg.qr(normal())
        # With positive diagonal the factor itself is Haar, not only its column space.
        haar: Tensor = q * torch.sign(torch.diagonal(upper))
        return haar
    if law == "gaussian":
        return normal() * (1 / math.sqrt(d) if std is None else std)
    if law == "kaiming_uniform":
        # PEFT's initialisation of A: kaiming_uniform(a=sqrt(5)) has bound 1/sqrt(fan_in).
        uniform = torch.rand(d, r, generator=generator, dtype=torch.float64)
        return (2 * uniform - 1) / math.sqrt(d)
    if law == "coordinate":
        chosen = torch.randperm(d, generator=generator)[:r]
        tall = torch.zeros(d, r, dtype=torch.float64)
        tall[chosen, torch.arange(r)] = 1.0
        return tall
    if law == "rademacher":
        # Conditioned on full rank the law keeps its symmetries, so that E[H] = (r/d) I exactly.
        while True:
            signs = torch.randint(0, 2, (d, r), generator=generator).double() * 2 - 1
            if int(torch.linalg.matrix_rank(signs)) == r:
                return signs
    raise ValueError(f"unknown sketch {law!r}")


def draw_side(train: str, seed: int, block: int, left_probability: float) -> Side:
    """The factor that block `block` trains: one draw for all layers (arXiv 2508.03820).

    Parameters
    ----------
    train
        As in `RacConfig`.
    seed, block
        They decide a random side.
    left_probability
        Of training A.
    """
    if train == "alternate":
        return "B" if block % 2 == 0 else "A"
    if train in ("A", "B"):
        return "A" if train == "A" else "B"
    generator = generator_for(seed, block, "side")
    left = float(torch.rand((), generator=generator, dtype=torch.float64)) < left_probability
    return "A" if left else "B"


def projection(tall: Float[Tensor, "*draws d r"]) -> Float[Tensor, "*draws d d"]:
    """H = S (S^T S)^+ S^T, the orthogonal projection onto the columns of S."""
    found: Tensor = tall @ torch.linalg.pinv(tall)
    return found


class LambdaMin(float):
    """Smallest eigenvalue of E[H], a number that knows its confidence interval.

    `low` and `high` are its ends, equal where it is exact; `samples` the draws, 0 likewise; `how` says
    how it is known.
    """

    low: float
    high: float
    samples: int
    how: str

    def __new__(cls, value: float, low: float, high: float, samples: int, how: str) -> LambdaMin:
        """The number and what is known of it."""
        found = super().__new__(cls, value)
        found.low, found.high, found.samples, found.how = low, high, samples, how
        return found

    def __getnewargs__(self) -> tuple[float, float, float, int, str]:  # type: ignore[override]
        return float(self), self.low, self.high, self.samples, self.how

    @property
    def value(self) -> float:
        """The plain number."""
        return float(self)


@checked
def lambda_min(
    sketch: Sketch, dim: int, r: int, samples: int = 0, *, seed: int = 0, confidence: float = 0.95
) -> LambdaMin:
    """Smallest eigenvalue of E[H] for r-column sketches in dimension `dim`.

    r/dim exactly for the built-in laws with `samples` 0: entries that are symmetric and exchangeable
    make E[H] a multiple of the identity with trace r (derived here). Otherwise a Monte-Carlo mean;
    its smallest eigenvalue is biased down by about 2 sqrt(dim / (r samples)) relative,
    which makes the lower limit a careful one; the upper limit is taken on draws of its own.

    Parameters
    ----------
    sketch
        The law, or a callable.
    dim, r
        The sampled dimension and the rank.
    samples
        Draws; 0 takes the exact value of a known law.
    seed
        Of the draws.
    confidence
        Of the interval.

    Raises
    ------
    ValueError
        An unknown law, a number out of range, or a callable law without samples.
    """
    check_law("sketch", sketch)
    dim = check_number("dim", dim, least=1, whole=True)
    r = check_number("r", r, least=1, whole=True)
    if r > dim:
        raise ValueError(f"r must be between 1 and dim = {dim}, got {r}")
    samples = check_number("samples", samples, least=0, whole=True)
    seed = check_number("seed", seed, whole=True)
    confidence = check_number("confidence", confidence, above=0, below=1)
    if samples == 0:
        if callable(sketch):
            raise ValueError("a callable sketch needs samples, for instance samples=20000, got 0")
        return LambdaMin(r / dim, r / dim, r / dim, 0, "exact: symmetric exchangeable entries")
    groups = 20
    if samples < groups:
        raise ValueError(f"samples must be 0 or at least {groups}, got {samples}")
    mean = torch.zeros(dim, dim, dtype=torch.float64)
    parts: list[Tensor] = []
    for chunk in range(groups):
        size = samples // groups + (chunk < samples % groups)
        drawn = [
            shared_sketch(seed, chunk * samples + i, "lambda_min", (dim, r), sketch, torch.float64)
            for i in range(size)
        ]
        part = projection(torch.stack(drawn)).mean(0)
        parts.append(part)
        mean += part * (size / samples)
    values = torch.linalg.eigvalsh(mean)
    # For a direction found in one half of the draws, v^T H v over the other half is a plain mean
    # that lies above the smallest eigenvalue: an honest upper limit.
    weakest = torch.linalg.eigh(torch.stack(parts[::2]).mean(0)).eigenvectors[:, 0]
    quotients = torch.stack([weakest @ p @ weakest for p in parts[1::2]])
    half = float(student.ppf(0.5 + confidence / 2, groups // 2 - 1)) * float(quotients.std())
    half /= math.sqrt(groups // 2)
    value = float(values[0])
    bias = 2 * math.sqrt(dim / (r * samples)) * value
    how = f"Monte-Carlo, {samples} draws, biased down by about {bias:.2g}"
    high = min(1.0, float(quotients.mean()) + half)
    return LambdaMin(value, max(0.0, value - half), high, samples, how)
