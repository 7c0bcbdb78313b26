"""What `suot_barycenter` returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64
from torch import Tensor

from surefoot.barycenter._solver.history import History
from surefoot.barycenter._solver.request import Request
from surefoot.barycenter._solver.solution import Solution
from surefoot.record import Record

if TYPE_CHECKING:
    from surefoot.certificate import Certificate


@dataclass(frozen=True)
class BarycenterResult:
    """A barycenter and what is known of it, in the caller's kind of array.

    Arrays that speak of inputs or of the barycenter are float32 where the covariances were, else
    float64; all was computed in float64, and `certificate`, `grad_norm` and the history speak of the
    barycenter before it was rounded.

    For a batch of problems every field has the batch in front; for a single problem `n_iter`,
    `converged`, `certificate` and `rate_bound` are plain numbers.
    """

    cov: Any
    mean: Any
    """None where no means were given."""
    weights_: Any
    """The effective weights: those given, times the optimal masses where the mass is free."""
    outlier_score: Any
    """Upsilon_i, what it costs to explain input i, its mean included; KL(B || A_i) at tau = 0."""
    n_iter: Any
    converged: Any
    certificate: Any
    """G5: F(cov) is at most this above its minimum. NaN for free mass, and without `certify`."""
    rate_bound: Any
    """G4: unit steps shrink F - F* at least by the factor 1 - rate_bound. NaN where none is proved."""
    value: Any
    """1/2 sum lam_i Upsilon_i; free mass: 1/2 sum lam_i T (1 - exp(-Upsilon_i / T))."""
    grad_norm: Any
    """||G||_B / sqrt(tr B), what `tol` is compared with."""
    tau: Any
    mass_tau: Any
    """The temperature of the free mass; inf where the mass is fixed."""
    mass: str
    method: str
    scale: Any
    """cov is this times the barycenter: 1, or what `debias="trace"` asks for."""
    rank_deficient: bool
    """Some input, or the common range of all, lacks full rank; the rank rule was applied."""
    _solution: Solution = field(repr=False)
    _lam: Float64[Tensor, "b n"] = field(repr=False)
    _shape: tuple[int, ...] = field(repr=False)
    _tensors: bool = field(repr=False)
    _dtype: torch.dtype = field(repr=False)

    @classmethod
    def of(
        cls, solution: Solution, request: Request, method: str, *, debias: bool = False
    ) -> BarycenterResult:
        """In the caller's kind of array and shape of batch."""
        s, shape, tensors = solution, request.shape, request.tensors

        def array(x: Tensor) -> Any:
            return _array(x, shape, tensors, request.dtype)

        def number(x: Tensor, kind: type) -> Any:
            return kind(x.reshape(())) if shape == () else np.asarray(x.reshape(shape).cpu())

        scale = torch.ones_like(s.value)
        if debias:
            scale = (s.weights * _trace(request.covs)).sum(dim=-1) / _trace(s.cov)
        return cls(
            cov=array(s.cov * scale[:, None, None]), scale=number(scale, float),
            mean=None if s.mean is None else array(s.mean),
            weights_=array(s.weights), outlier_score=array(s.upsilon),
            n_iter=number(s.steps, int), converged=number(s.converged, bool),
            certificate=number(s.gap, float), rate_bound=number(s.rate, float),
            value=number(s.value, float), grad_norm=number(s.residual, float),
            tau=number(request.tau, float), mass_tau=number(s.temperature, float),
            mass="free" if request.free else "fixed", method=method,
            rank_deficient=s.rank_deficient, _solution=s, _lam=request.weights, _shape=shape,
            _tensors=tensors, _dtype=request.dtype,
        )  # fmt: skip

    @cached_property
    def relaxed_covs(self) -> Any:
        """Sigma_x,i, the inputs as the barycenter sees them; computed when first asked for."""
        with torch.no_grad():
            return _array(self._solution.relax(), self._shape, self._tensors, self._dtype)

    @cached_property
    def history(self) -> pd.DataFrame:
        """F, grad, step, bound (what G1 promised), extreme eigenvalues and certificate at every k.

        Raises ValueError where nothing was recorded (`record=False`, and tau = 0, which takes no step).
        """
        frame = self._recorded.frame()
        return frame.droplevel("problem") if self._shape == () else frame

    def record(self, problem: int | None = None) -> Record:
        """The same as the core's record, a problem a seed, or of one problem of the batch alone."""
        return self._recorded.record(problem)

    def influence_record(self, problem: int = 0) -> Record:
        """For G6, an input a step: weight, lam, upsilon, stretch (lambda_max of S_i), temperature."""
        s = self._solution
        with torch.no_grad():
            stretch = s.stretch()[problem]
            floor = float(s.lowest[problem])
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
        return out

    def certificates(self, problem: int = 0) -> list[Certificate]:
        """The guarantees G1 to G6, judged on this run (on one problem of a batch)."""
        from surefoot.barycenter.guarantee import run_certificates

        return run_certificates(self, problem)

    def report(self, problem: int = 0) -> str:
        """In a few lines: did it converge, how far may it be from the optimum, what was promised."""
        from surefoot.barycenter._solver.summary import report

        return report(self, problem)

    @property
    def _recorded(self) -> History:
        if self._solution.history is None:
            raise ValueError("this run left no history; call with record=True and tau > 0")
        return self._solution.history


def _trace(M: Float64[Tensor, "... d d"]) -> Float64[Tensor, "..."]:
    return M.diagonal(dim1=-2, dim2=-1).sum(dim=-1)


def _array(x: Tensor, shape: tuple[int, ...], tensors: bool, dtype: torch.dtype) -> Any:
    out = x.reshape(*shape, *x.shape[1:]).to(dtype)
    if tensors:
        return out
    array = out.numpy()
    return array if array.ndim else array[()]
