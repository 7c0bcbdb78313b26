"""What a descent leaves behind: one row a point, as a data frame and as a core `Record`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64
from torch import Tensor

from surefoot.barycenter._solver.problem import Point
from surefoot.barycenter._spectral.closed_forms import spectrum
from surefoot.barycenter.bounds import gap_bound
from surefoot.record import Record

ENDS = ("alpha", "beta", "tau")
COLUMNS = (
    "F", "grad", "step", "reached", "lambda_min", "lambda_max", "optimality_gap", "rounding",
)  # fmt: skip


Row = tuple[int, list[int], list[list[float]]]


@dataclass
class History:
    """Rows (problem, k) of `COLUMNS`: F, ||G||_B, the eta that led here, F here at the temperature
    before the step, the extreme eigenvalues of B, G5 (NaN for free mass), the rounding of F."""

    alpha: Float64[Tensor, "b"]
    beta: Float64[Tensor, "b"]
    tau: Float64[Tensor, "b"]
    free: bool
    made: list[Row] = field(default_factory=list)
    pending: Callable[[], list[Row]] | None = None
    """Makes the rows when they are first asked for."""

    @property
    def rows(self) -> list[Row]:
        """k, the problems still running there, and the columns of each."""
        if self.pending is not None:
            self.made, self.pending = self.pending(), None
        return self.made

    def __getstate__(self) -> dict[str, Any]:
        """For pickle: with the rows made."""
        return {**self.__dict__, "made": self.rows, "pending": None}

    def watch(self, k: int, running: Tensor, point: Point, eta: Tensor, reached: Tensor) -> None:
        """Store one point of every running problem."""
        w = spectrum(point.B)
        gap = torch.full_like(point.F, torch.nan)
        if not self.free:
            alpha, beta = self.alpha[running], self.beta[running]
            gap = gap_bound(point.B, point.G, alpha, beta, self.tau[running])
            gap = torch.where(point.residual.isinf(), torch.inf, gap)
        columns = (
            point.F, point.grad2.sqrt(), eta, reached, w[:, 0], w[:, -1], gap, point.rounding,
        )  # fmt: skip
        self.made.append((k, running.tolist(), torch.stack(columns, dim=-1).tolist()))

    def merged(self, other: History, wins: set[int]) -> History:
        """The rows of the problems in `wins` from the other history, all others from this one."""
        rows = []
        for source, keep in ((self, False), (other, True)):
            for k, running, values in source.rows:
                at = [j for j, i in enumerate(running) if (i in wins) == keep]
                rows.append((k, [running[j] for j in at], [values[j] for j in at]))
        return replace(self, made=rows)

    @classmethod
    def joined(cls, parts: list[History]) -> History:
        """The histories of single problems as those of a batch."""
        ends: dict[str, Any] = {name: torch.cat([getattr(p, name) for p in parts]) for name in ENDS}
        rows = [
            (k, [i] * len(running), values)
            for i, part in enumerate(parts)
            for k, running, values in part.rows
        ]
        return replace(parts[0], **ends, made=rows)

    def frame(self) -> pd.DataFrame:
        """One row a point, indexed by (problem, k); `bound` is what G1 promised of `reached`."""
        index, values = [], []
        for k, running, rows in self.rows:
            index += [(i, k) for i in running]
            values += rows
        where = pd.MultiIndex.from_tuples(index, names=["problem", "k"])
        frame = pd.DataFrame(np.array(values), index=where, columns=list(COLUMNS)).sort_index()
        before = frame[["F", "grad"]].groupby(level="problem").shift()
        eta = frame["step"]
        frame["bound"] = before["F"] - (eta - eta**2 / 2) * before["grad"] ** 2
        frame["certificate"] = frame["optimality_gap"]  # its name in version 0.1.0
        return frame

    def write(self, record: Record, seed: int, problem: int) -> None:
        """Put the numbers of one problem into a core record under a seed; see `guarantee.py`."""
        least = math.inf
        for k, running, rows in self.rows:
            if problem not in running:
                continue
            named = dict(zip(COLUMNS, rows[running.index(problem)], strict=True))
            named["grad2"] = named["grad"] ** 2
            if k == 0:
                del named["step"], named["reached"]
            else:
                named["least_grad2"] = least
            record.update(seed, k, named)
            least = min(least, named["grad2"])
        record.update(seed, 0, {name: float(getattr(self, name)[problem]) for name in ENDS})
