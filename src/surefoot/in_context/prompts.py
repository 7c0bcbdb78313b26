"""Linear-regression prompts: n examples (x_i, y_i) and a query whose label is asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number
from surefoot.in_context._covariance import covariance, powers
from surefoot.in_context._sampling import second_moments
from surefoot.in_context.value import Value

DTYPES = (torch.float64, torch.float32)
LAW = "x ~ N(0, S), w ~ N(0, S^-1)"
"""The fact that a run on `GaussianPrompts` notes as its law."""


@checked
@dataclass(frozen=True)
class Prompt:
    """A batch of prompts.

    Attributes
    ----------
    X
        (batch, d, n): the examples x_i as columns.
    y
        (batch, n): their labels.
    xq
        (batch, d): the query.
    target
        (batch,): w*'x_q, the query's label without noise.
    w
        (batch, d): the weights w* of each prompt.
    """

    X: Float[Tensor, "batch d n"]
    y: Float[Tensor, "batch n"]
    xq: Float[Tensor, "batch d"]
    target: Float[Tensor, " batch"]
    w: Float[Tensor, "batch d"]


@checked
class GaussianPrompts:
    """Prompts of the law that the theorems speak of: x_i, x_q ~ N(0, S), w* ~ N(0, S^-1), y_i = w*'x_i.

    Weights drawn from N(0, I) whatever S is are another task, for which none of them holds.
    Source: arXiv 2410.08292, the law of arXiv 2306.00297.

    Parameters
    ----------
    d
        Features.
    n
        Examples a prompt; 0 is allowed.
    sigma
        S, (d, d) and positive definite; None: the identity.
    noise
        Standard deviation of what is added to the labels y_i, in their unit (the query's has none).
    seed
        Of the draws; None takes a fresh one, which `seed` then tells.
    dtype
        float64 or float32.

    Raises
    ------
    ValueError
        An argument is out of range.
    """

    def __init__(
        self,
        d: int,
        n: int,
        sigma: Float[Tensor, "d d"] | Float[np.ndarray, "d d"] | None = None,
        noise: float = 0.0,
        seed: int | None = None,
        *,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.d = check_number("d", d, least=1, whole=True)
        self.n = check_number("n", n, least=0, whole=True)
        self.noise = check_number("noise", noise, least=0)
        self.dtype = check_choice("dtype", dtype, DTYPES)
        self.sigma: Float64[Tensor, "d d"] | None = (
            None if sigma is None else covariance("sigma", sigma, self.d)
        )
        self._roots = None if self.sigma is None else powers(self.sigma, 0.5, -0.5)
        self._generator = torch.Generator()
        if seed is None:
            self.seed = self._generator.seed()
        else:
            self.seed = check_number("seed", seed, least=0, whole=True)
            self._generator.manual_seed(self.seed)
        self._rng = np.random.default_rng(self.seed)

    def sample(self, B: int) -> Prompt:
        """The next B prompts."""
        B = check_number("B", B, least=1, whole=True)
        X, xq, w = self._normal(B, self.d, self.n), self._normal(B, self.d), self._normal(B, self.d)
        if self._roots is not None:
            root, inverse = (r.to(self.dtype) for r in self._roots)
            X, xq, w = root @ X, xq @ root, w @ inverse
        y = (w[:, None, :] @ X)[:, 0]
        if self.noise:
            y = y + self.noise * self._normal(B, self.n)
        return Prompt(X, y, xq, (w * xq).sum(-1), w)

    def whitened_moments(self, B: int) -> Float64[Tensor, "B d d"]:
        """S^{-1/2} (XX'/n) S^{-1/2} of B more prompts, drawn as Wishart matrices: no X is ever made.

        Of a stream of their own, so that what `sample` draws does not change.
        """
        B = check_number("B", B, least=1, whole=True)
        if not self.n:
            raise ValueError("n must be at least 1 for the second moments of examples, got 0")
        return second_moments(self.d, self.n, B, self._rng)

    def bayes_risk(self, samples: int = 20_000) -> Value:
        """The least E (prediction - w*'x_q)^2 of any rule: max(d - n, 0), and with noise E tr (I + W/s^2)^-1.

        W = XX' for S = I, on which the risk does not depend, and s the standard deviation of the noise.

        Parameters
        ----------
        samples
            Draws of W, where there is noise.
        """
        if not self.noise or not self.n:
            return Value(float(max(self.d - self.n, 0)))
        samples = check_number("samples", samples, least=2, whole=True)
        rng = np.random.default_rng([self.seed, 1])
        values = torch.linalg.eigvalsh(second_moments(self.d, self.n, samples, rng)) * self.n
        risks = (1 / (1 + values.clamp_min(0) / self.noise**2)).sum(1)
        return Value(float(risks.mean()), float(risks.std()) / math.sqrt(samples))

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self._generator, dtype=self.dtype)

    def __repr__(self) -> str:
        sigma = "None" if self.sigma is None else "given"
        return (
            f"GaussianPrompts(d={self.d}, n={self.n}, sigma={sigma}, noise={self.noise}, "
            f"seed={self.seed})"
        )
