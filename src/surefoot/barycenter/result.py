"""What `suot_barycenter` returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64, Inexact
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot._showing import showing
from surefoot.barycenter._solver.request import Request
from surefoot.barycenter._solver.solution import Solution
from surefoot.barycenter.bounds import iterations_for
from surefoot.barycenter.guarantee import run_certificates
from surefoot.certificate import Certificate
from surefoot.record import Fact, Record


@showing
@checked(nan=True)
@dataclass(frozen=True)
class BarycenterResult:
    """A barycenter and what is known of it, in the caller's kind of array.

    Arrays that speak of inputs or of the barycenter are float32 where the covariances were, else
    float64; all was computed in float64, and `optimality_gap`, `grad_norm` and the history speak of
    the barycenter before it was rounded.

    For a batch of problems every field has the batch in front; for a single problem `n_iter`,
    `converged`, `optimality_gap` and `rate_bound` are plain numbers.
    """

    cov: Any
    """The covariance (..., d, d)."""
    mean: Any
    """None where no means were given."""
    weights_: Any
    """The effective weights: those given, times the optimal masses where the mass is free."""
    outlier_score: Any
    """Upsilon_i, what it costs to explain input i, its mean included; KL(B || A_i) at tau = 0."""
    n_iter: Any
    """The number of steps."""
    converged: Any
    """Whether `grad_norm` came down to `tol`."""
    optimality_gap: Any
    """G5: F(cov) is at most this above its minimum, proved. NaN for free mass, or where not asked for."""
    value: Any
    """1/2 sum lam_i Upsilon_i; free mass: 1/2 sum lam_i T (1 - exp(-Upsilon_i / T))."""
    grad_norm: Any
    """||G||_B / sqrt(tr B), what `tol` is compared with."""
    tau: Any
    """The price, as it was given or found."""
    mass_tau: Any
    """The temperature of the free mass; inf where the mass is fixed."""
    mass: str
    """"fixed" or "free"."""
    method: str
    """As asked for; what ran is a fact of `record()`."""
    scale: Any
    """cov is this times the barycenter: 1, or what `debias="trace"` asks for."""
    rank_deficient: bool
    """Some input, or the common range of all, lacks full rank; the rank rule was applied."""
    _solution: Solution = field(repr=False)
    _lam: Float64[Tensor, "b n"] = field(repr=False)
    _shape: tuple[int, ...] = field(repr=False)
    _tensors: bool = field(repr=False)
    _dtype: torch.dtype = field(repr=False)
    _facts: dict[str, Fact] = field(repr=False)
    """What is true of every problem of the batch."""

    @classmethod
    def of(
        cls, solution: Solution, request: Request, method: str, *, debias: str | None = None
    ) -> BarycenterResult:
        """In the caller's kind of array and shape of batch."""
        s, shape, tensors = solution, request.shape, request.tensors

        def array(x: Tensor) -> Any:
            # The caller's own: what is computed later must not follow what is done to it.
            return _array(x.clone(), shape, tensors, request.dtype)

        def number(x: Tensor, kind: type) -> Any:
            return _per_problem(x, shape, kind)

        scale, cov = None, s.cov
        if debias:
            scale = (s.weights * _trace(request.covs)).sum(dim=-1) / _trace(s.cov)
            cov = s.cov * scale[:, None, None]
        return cls(
            cov=array(cov),
            scale=number(torch.ones_like(s.value) if scale is None else scale, float),
            mean=None if s.mean is None else array(s.mean),
            weights_=array(s.weights), outlier_score=array(s.upsilon),
            n_iter=number(s.steps, int), converged=number(s.converged, bool),
            optimality_gap=number(s.gap, float),
            value=number(s.value, float), grad_norm=number(s.residual, float),
            tau=number(request.tau, float), mass_tau=number(s.temperature, float),
            mass="free" if request.free else "fixed", method=method,
            rank_deficient=s.rank_deficient, _solution=s, _lam=request.weights, _shape=shape,
            _tensors=tensors, _dtype=request.dtype,
            _facts={"dtype": str(request.dtype).removeprefix("torch."), "debias": debias or "none"},
        )  # fmt: skip

    @cached_property
    def rate_bound(self) -> Any:
        """G4: unit steps shrink F - F* at least by the factor 1 - rate_bound. NaN where none is proved."""
        return _per_problem(self._solution.rate(), self._shape, float)

    @cached_property
    def relaxed_covs(self) -> Any:
        """Sigma_x,i, the inputs as the barycenter sees them; computed when first asked for."""
        with torch.no_grad():
            return _array(self._solution.relax(), self._shape, self._tensors, self._dtype)

    @cached_property
    def _done(self) -> list[dict[str, Fact]]:
        return [self._facts | facts for facts in self._solution.facts()]

    @property
    def certificate(self) -> Any:
        """The name of `optimality_gap` in version 0.1.0, when a number could be called a certificate."""
        return self.optimality_gap

    @cached_property
    def history(self) -> pd.DataFrame:
        """F, grad, step, bound (what G1 promised), extreme eigenvalues and optimality_gap at every k.

        Raises ValueError where nothing was recorded (`record=False`, and tau = 0, which takes no step).
        """
        history = self._solution.history
        if history is None:
            raise ValueError("this run left no history; call with record=True and tau > 0")
        frame = history.frame()
        return frame.droplevel("problem") if self._shape == () else frame

    def record(self, problem: int | None = None) -> Record:
        """What was measured and what was done, as the core's record: a problem a seed.

        Without a history it holds the facts alone: method, tau, mass, initial, tol, steps, converged ...

        Parameters
        ----------
        problem
            One problem of the batch alone; None: all of them.
        """
        out = Record()
        for i in range(len(self._lam)) if problem is None else (problem,):
            self.write(out, i, i)
        return out

    def _which(self, problem: Any) -> int:
        return check_number("problem", problem, least=0, most=len(self._lam) - 1, whole=True)

    def write(self, record: Record, seed: int = 0, problem: int = 0) -> None:
        """Put the numbers and facts of one problem into a record of yours, such as a study's.

        Parameters
        ----------
        record
            Where to.
        seed
            The seed under which they stand there.
        problem
            Which problem of the batch.
        """
        problem = self._which(problem)
        if self._solution.history is not None:
            self._solution.history.write(record, seed, problem)
        record.note(seed, **self._done[problem])

    def influence_record(self, problem: int = 0) -> Record:
        """For G6, an input a step: weight, lam, upsilon, stretch (lambda_max of S_i), temperature."""
        s, problem = self._solution, self._which(problem)
        with torch.no_grad():
            stretch = s.stretch()[problem]
            # Of a singular barycenter it is 0, give or take rounding.
            floor = max(float(s.lowest()[problem]), 0.0)
        out = Record()
        lam = self._lam[problem]
        for i in range(len(lam)):
            out.append(
                0, i, weight=float(s.weights[problem, i]), lam=float(lam[i]),
                upsilon=float(s.upsilon[problem, i]), stretch=float(stretch[i]),
            )  # fmt: skip
        about = {
            "temperature": float(s.temperature[problem]),
            "tau": float(np.reshape(self.tau, -1)[problem]),
            "lambda_min": floor,
        }
        out.update(0, 0, about)
        out.note(0, **self._done[problem])
        return out

    def certificates(self, problem: int = 0) -> list[Certificate]:
        """The guarantees G1 to G6, judged on this run (on one problem of a batch)."""
        return run_certificates(self.record(problem), self.influence_record(problem))

    def summary(self, problem: int = 0) -> str:
        """In a few lines: did it converge, how far may it be from the optimum, what was promised."""

        problem = self._which(problem)

        def of(x: object) -> float:
            return float(np.reshape(np.asarray(x), -1)[problem])

        word = "converged" if of(self.converged) else "NOT converged"
        value, gap, rho, scale = (
            of(x) for x in (self.value, self.optimality_gap, self.rate_bound, self.scale)
        )
        lines = [
            f"{word} after {of(self.n_iter):.0f} steps of {self.method}: tau = {of(self.tau):.6g}, "
            f"{self.mass} mass, ||G||_B = {of(self.grad_norm):.3g} sqrt(tr B)"
        ]
        if np.isnan(gap):
            lines.append(f"F = {value:.10g}; how far above its minimum is not known")
        else:
            lines.append(
                f"F = {value:.10g}, proved to be at most {gap:.3g} above its minimum"
                + (f" ({gap / value:.2g} of F)" if value > 0 else "")
            )
        if rho > 0:
            lines.append(
                f"unit steps shrink F - F* by {1 - rho:.6g} a step or better: at most "
                f"{iterations_for(1e-6, rho)} of them for six digits (derived bound)"
            )
        if scale != 1:
            lines.append(
                f"cov is {scale:.6g} times the barycenter, to keep the mean trace (debias)"
            )
        if self.rank_deficient:
            lines.append(
                "some input, or the joint range, lacks full rank: the rank rule was applied"
            )
        if self._solution.history is not None:
            lines += [c.summary() for c in self.certificates(problem)]
        return "\n".join(lines)

    report = summary
    """The name of `summary` in version 0.1.0."""


def _trace(M: Inexact[Tensor, "... d d"]) -> Float64[Tensor, "..."]:
    return M.diagonal(dim1=-2, dim2=-1).real.sum(dim=-1)


def _per_problem(x: Tensor, shape: tuple[int, ...], kind: type) -> Any:
    return kind(x.item()) if shape == () else np.asarray(x.reshape(shape).cpu())


def _array(x: Tensor, shape: tuple[int, ...], tensors: bool, dtype: torch.dtype) -> Any:
    if shape == () and not tensors and x.dtype == dtype:
        return x.numpy()[0]
    out = x.reshape(*shape, *x.shape[1:])
    if out.dtype != dtype and not out.is_complex():
        out = out.to(dtype)
    if tensors:
        return out
    array = out.numpy()
    return array if array.ndim else array[()]
