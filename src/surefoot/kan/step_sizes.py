"""The step sizes that a spectrum and a local rate permit."""

from __future__ import annotations

from typing import Literal

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number
from surefoot.kan.local_rate import LocalRate
from surefoot.kan.spectrum import Tangent, check_tangent


@checked
def step_size(
    tangent: Tangent,
    mode: Literal["gd", "certified", "sgd"] = "gd",
    *,
    certificate: LocalRate | None = None,
    batch: int | None = None,
) -> float:
    """The step size that K permits, for L = |r|^2 / 2.

    Parameters
    ----------
    tangent
        At the start.
    mode
        "gd": 1 / lambda_max, where the spectral forecast holds. "certified": T1's, from the certificate.
        "sgd": T3's, for a batch drawn with replacement.
    certificate
        What `certificate(model, X, y)` gave; for the last two.
    batch
        Rows drawn a step; for "sgd".

    Raises
    ------
    ValueError
        The mode is none, or needs an argument that is missing: which.
    """
    check_choice("mode", mode, ("gd", "certified", "sgd"))
    check_tangent(tangent)
    if batch is not None:
        check_number("batch", batch, least=1, whole=True)
    if mode == "gd":
        if not tangent.lambda_max > 0:
            raise ValueError("tangent must have a positive eigenvalue, got K = 0: nothing trains")
        return 1 / tangent.lambda_max
    if certificate is None:
        raise ValueError(
            f"certificate must be what certificate(model, X, y) returns for mode {mode!r}, got None"
        )
    if mode == "certified":
        return certificate.step
    if batch is None:
        raise ValueError("batch must be the rows drawn a step for mode 'sgd', got None")
    return certificate.stochastic(check_number("batch", batch, least=1, whole=True)).step
