"""What a training records at its checkpoints and at its end, in float64 and in whitened coordinates."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from surefoot._numerics.checks import check_number
from surefoot.in_context._covariance import powers
from surefoot.in_context._sampling import conditional_loss, left, second_moments
from surefoot.in_context.dominance import estimated, whitened
from surefoot.in_context.population import exact_optimum
from surefoot.in_context.prompts import GaussianPrompts
from surefoot.record import Record

if TYPE_CHECKING:
    from surefoot.in_context.looped import LoopedTransformer

CHECKED = 2_000
"""Prompts on which a checkpoint is measured: the same ones every time."""


class Measures:
    """The theorems' quantities of one model on one law of prompts."""

    def __init__(
        self,
        model: LoopedTransformer,
        prompts: GaussianPrompts,
        samples: int,
        seed: int,
        record: Record,
    ) -> None:
        self._model, self._prompts, self._record = model, prompts, record
        self._samples = check_number("samples", samples, least=CHECKED, whole=True)
        self._seed = check_number("seed", seed, least=0, whole=True)
        rng = np.random.default_rng([self._seed, 17])
        self._moments = second_moments(prompts.d, prompts.n, self._samples, rng)
        self._best = exact_optimum(prompts.d, prompts.n, model.loops, model.tied)
        if self._best is not None:
            record.append(self._seed, 0, least_loss=self._best[1])
            if model.tied:
                record.append(self._seed, 0, best_step=self._best[0][0])

    def _layers(self) -> tuple[list[Float64[Tensor, "d d"]], Float64[Tensor, " d"]]:
        """S^{1/2} A S^{1/2} of each loop, and S^{1/2} u."""
        A, root = whitened(self._model.A.detach().double(), self._prompts.sigma)
        u = self._model.u.detach().double()
        layers = [A] * self._model.loops if self._model.tied else list(A)
        return layers, u if root is None else root @ u

    def checkpoint(self, step: int) -> None:
        """Loss, distances and, of tied layers, gradient dominance at u = 0."""
        layers, u = self._layers()
        some = self._moments[:CHECKED]
        p = self._prompts
        with torch.no_grad():
            found = {
                "loss": float(conditional_loss(layers, u, some, p.noise, p.n).mean()),
                "u_norm": float(self._model.u.detach().double().norm()),
            }
        if self._model.tied:
            B = layers[0]
            unit = torch.eye(p.d, dtype=B.dtype)
            size = float(B.norm())
            found["asymmetry"] = float((B - B.mT).norm()) / size if size else 0.0
            found["distance_to_inverse"] = _spectral(B - unit)
            if self._best is not None:
                found["distance"] = self._distance(self._best[0][0])
            _, root = whitened(B, p.sigma)
            ratio = estimated(B, some, self._model.loops, root)
            # The estimate has no bias and may fall below 0, which no squared norm does.
            found["dominance_ratio"] = max(ratio.value, 0.0)
            found["dominance_stderr"] = ratio.stderr
        self._record.append(self._seed, step, **found)

    def _distance(self, best: float) -> float:
        """|A - b* S^-1|_2 / |b* S^-1|_2."""
        A, sigma = self._model.A.detach().double(), self._prompts.sigma
        target = best * (
            torch.eye(len(A), dtype=A.dtype) if sigma is None else torch.linalg.inv(sigma)
        )
        return _spectral(A - target) / _spectral(target)

    def conclude(self, step: int) -> None:
        """The end against the exact optimum on the same prompts, and what u costs."""
        layers, u = self._layers()
        p = self._prompts
        with torch.no_grad():
            losses = conditional_loss(layers, u, self._moments, p.noise, p.n)
            if self._best is not None:
                unit = torch.eye(p.d, dtype=torch.float64)
                steps = self._best[0]
                best = [b * unit for b in (steps * self._model.loops if len(steps) == 1 else steps)]
                other = conditional_loss(best, 0 * u, self._moments, p.noise, p.n)
                self._record.append(
                    self._seed, step, loss_ratio=float(losses.mean()) / float(other.mean())
                )
            if self._model.tied:
                unit = torch.eye(p.d, dtype=torch.float64)
                self._record.append(
                    self._seed, step, minimiser_distance=_spectral(layers[0] - unit)
                )
            if self._model.train_u:
                z = self._bias_score(layers, u)
                self._record.append(self._seed, step, bias_z=z)

    def _bias_score(self, layers: list[Float64[Tensor, "d d"]], u: Float64[Tensor, " d"]) -> float:
        """How many standard errors L(A, u) - L(A, 0) of drawn prompts is off the quadratic form."""
        p = self._prompts
        model = copy.deepcopy(self._model).double()
        without = copy.deepcopy(model)
        without.u.zero_()
        fresh = GaussianPrompts(p.d, p.n, p.sigma, seed=self._seed + 1)
        _, inverse = (None, None) if p.sigma is None else powers(p.sigma, 0.5, -0.5)
        gaps = []
        for _ in range(math.ceil(self._samples / CHECKED)):
            drawn = fresh.sample(CHECKED)
            with_u, alone = (
                (m(drawn.X, drawn.y, drawn.xq) - drawn.target).square() for m in (model, without)
            )
            X = drawn.X if inverse is None else inverse @ drawn.X
            moved = u - left(layers, X @ X.mT / p.n) @ u
            gaps.append(with_u - alone - moved.square().sum(1))
        gap = torch.cat(gaps)
        spread = float(gap.std()) / math.sqrt(len(gap))
        return float(gap.mean()) / spread if spread else 0.0


def _spectral(matrix: Float64[Tensor, "d d"]) -> float:
    return float(torch.linalg.matrix_norm(matrix, 2))
