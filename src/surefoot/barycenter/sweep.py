"""Barycenters along a sweep of tau, each started from the one before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot._showing import showing
from surefoot.barycenter.barycenter import suot_barycenter
from surefoot.barycenter.result import BarycenterResult


@showing
@checked(nan=True)
@dataclass(frozen=True)
class TauPath:
    """Barycenters along a sweep of tau, in the order given."""

    taus: tuple[float, ...]
    results: tuple[BarycenterResult, ...]

    @property
    def covs(self) -> Any:
        """The barycenters (t, d, d)."""
        return _stack([r.cov for r in self.results])

    @property
    def scores(self) -> Any:
        """The outlier scores (t, n): Upsilon; at tau = 0 its limit over tau."""
        return _stack([r.outlier_score for r in self.results])


@checked
def tau_path(covs: Any, taus: Sequence[float], **options: Any) -> TauPath:
    """Barycenters of covs (n, d, d) for every tau, each started from the one before.

    Singular barycenters are no start: the next solve then begins anew. With free mass the first tau is
    solved from several starts, the rest follow its branch.

    Parameters
    ----------
    covs
        Covariances, as in `suot_barycenter`.
    taus
        The prices, in the order in which they are to be walked.
    options
        All other options of `suot_barycenter`; `init` is that of the first tau.

    Raises
    ------
    ValueError
        taus is empty, and as `suot_barycenter` does.
    """
    if isinstance(taus, str | bytes) or not np.iterable(taus) or not len(taus):
        raise ValueError(f"taus must hold at least one value, got {taus!r}")
    taus = [check_number("taus", tau, least=0, finite=False) for tau in taus]
    results: list[BarycenterResult] = []
    init = options.pop("init", None)
    for tau in taus:
        results.append(suot_barycenter(covs, tau=tau, init=init, **options))
        init = None if results[-1].rank_deficient else results[-1].cov
    return TauPath(tuple(float(t) for t in taus), tuple(results))


def _stack(parts: list[Any]) -> Any:
    tensors = isinstance(parts[0], torch.Tensor)
    return torch.stack(parts) if tensors else np.stack(parts)
