"""The promised curves of accelerated descent, vectorised over the step n.

In the setting of arXiv 2410.08395 and 2302.05515; constants derived here. Each bounds f(x_n) - f*,
not f(y_n), and takes f0_gap = f(x_0) - f* and dist0_sq, the squared distance to the minimisers.
"""

from __future__ import annotations

from math import ceil, log, log1p, sqrt
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number, check_numbers
from surefoot.nesterov.parameters import AgnesParams, decreasing_offset

Steps = (
    int
    | float
    | Int[np.ndarray, "*n"]
    | Float[np.ndarray, "*n"]
    | Int[Tensor, "*n"]
    | Float[Tensor, "*n"]
)


def _numbers(n: Steps) -> Any:
    """n as float64 of its own kind."""
    if isinstance(n, Tensor):
        check_numbers("n", n, nonnegative=True)
        return n.to(torch.float64)
    if isinstance(n, np.ndarray):
        return check_numbers("n", n, nonnegative=True)
    return check_number("n", n, least=0)


def _check(f0_gap: float, dist0_sq: float, sigma_add: float) -> None:
    for name, value in (("f0_gap", f0_gap), ("dist0_sq", dist0_sq), ("sigma_add", sigma_add)):
        check_number(name, value, least=0)


def agnes_floor(params: AgnesParams, L: float, sigma_add: float) -> float:
    """What additive noise leaves: (L eta^2 + gamma^2) sigma_a^2 / (2 s)."""
    return (L * params.eta**2 + params.gamma**2) / 2 * sigma_add**2 / params.s


def nag_floor(mu: float, eta: float, sigma_add: float, L: float | None = None) -> float:
    """The floor of NAG, (1 + L eta)/2 sqrt(eta/mu) sigma_a^2; L = None stands for 1/eta."""
    return (1 + (1.0 if L is None else L * eta)) / 2 * sqrt(eta / mu) * sigma_add**2


@checked
def agnes_bound(
    n: Steps,
    params: AgnesParams,
    f0_gap: float,
    dist0_sq: float,
    mu: float,
    L: float,
    sigma_add: float = 0.0,
) -> Any:
    """E f(x_n) - f* <= (1-s)^n L_0 + floor (1 - (1-s)^n), L_0 = f0_gap + mu/2 dist0_sq.

    Parameters
    ----------
    n
        The step or steps, >= 0.
    params
        The constants of the method.
    f0_gap
        f(x_0) - f*.
    dist0_sq
        The squared distance of x_0 to the minimisers.
    mu, L
        Strong aiming and smoothness of f.
    sigma_add
        sigma_a, the additive noise.

    Returns
    -------
    float, array or tensor
        float64, of the shape of n.

    Raises
    ------
    ValueError
        A negative n, gap, distance or noise.
    """
    _check(f0_gap, dist0_sq, sigma_add)
    mu, L = check_number("mu", mu, above=0), check_number("L", L, above=0)
    decay = (1 - params.s) ** _numbers(n)
    floor = agnes_floor(params, L, sigma_add)
    return decay * (f0_gap + mu / 2 * dist0_sq) + floor * (1 - decay)


@checked
def nag_bound(
    n: Steps,
    f0_gap: float,
    dist0_sq: float,
    mu: float,
    eta: float,
    *,
    sigma_add: float = 0.0,
    L: float | None = None,
) -> Any:
    """The bound of NAG with step eta <= 1/L.

    Parameters
    ----------
    n
        The step or steps, >= 0.
    f0_gap
        f(x_0) - f*.
    dist0_sq
        The squared distance of x_0 to the minimisers.
    mu
        Strong aiming of f.
    eta
        The step of the run, with momentum (1-s)/(1+s), s = sqrt(mu eta).
    sigma_add
        sigma_a, the additive noise.
    L
        The smoothness of f; None stands for 1/eta.

    Returns
    -------
    float, array or tensor
        As `agnes_bound`.

    Raises
    ------
    ValueError
        As `agnes_bound`; or mu, eta or L out of range.
    """
    mu, eta = check_number("mu", mu, above=0), check_number("eta", eta, above=0)
    if mu * eta > 1:
        raise ValueError(f"mu and eta must be > 0 with mu * eta <= 1, got mu = {mu}, eta = {eta}")
    if L is not None and eta * check_number("L", L, above=0) > 1 + 1e-12:
        raise ValueError(f"eta must be at most 1/L = {1 / L:.6g}, got {eta}")
    if L is not None and mu > L * (1 + 1e-12):
        raise ValueError(f"mu must be at most L = {L:.6g}, got {mu}")
    parts = _numbers(n) % 1
    if parts != 0 if isinstance(parts, float) else bool((parts != 0).any()):
        raise ValueError(f"n must be whole numbers of steps, got {n!r}")
    s, root = sqrt(mu * eta), sqrt(eta)
    params = AgnesParams(eta, eta, (1 - s) / (1 + s), s, root, root)
    return agnes_bound(n, params, f0_gap, dist0_sq, mu, 1 / eta if L is None else L, sigma_add)


@checked
def steps_to(
    tol: float, s: float, f0_gap: float, dist0_sq: float | None = None, mu: float | None = None
) -> int:
    """The first n at which the noise-free promise is at most tol.

    Parameters
    ----------
    tol
        The f - f* that is asked for.
    s
        The promised rate, see `AgnesParams`.
    f0_gap
        f(x_0) - f*.
    dist0_sq, mu
        For L_0 = f0_gap + mu/2 dist0_sq; without one of them L_0 is 2 f0_gap, which is never smaller
        under strong aiming.

    Raises
    ------
    ValueError
        tol not positive, or s not in (0, 1].
    """
    check_number("tol", tol, above=0)
    check_number("s", s, above=0, most=1)
    check_number("f0_gap", f0_gap, least=0)
    if dist0_sq is not None:
        check_number("dist0_sq", dist0_sq, least=0)
    if mu is not None:
        check_number("mu", mu, above=0)
    L0 = 2 * f0_gap if dist0_sq is None or mu is None else f0_gap + mu / 2 * dist0_sq
    if tol >= L0:
        return 0
    return 1 if s == 1 else ceil(log(L0 / tol) / -log1p(-s))


@checked
def decreasing_bound(
    n: Steps, f0_gap: float, dist0_sq: float, mu: float, L: float, sigma_add: float = 0.0
) -> Any:
    """E f(x_n) - f* <= ((n0-1)(n0-2) L_0 + 4 n sigma_a^2/mu) / ((n+n0-1)(n+n0-2)).

    Parameters
    ----------
    n
        The step or steps, >= 0.
    f0_gap
        f(x_0) - f*.
    dist0_sq
        The squared distance of x_0 to the minimisers.
    mu, L
        Those that `DecreasingNAG` ran with; n0 = max(2 sqrt(L/mu), 3).
    sigma_add
        sigma_a, the additive noise.

    Returns
    -------
    float, array or tensor
        As `agnes_bound`.
    """
    _check(f0_gap, dist0_sq, sigma_add)
    n0 = decreasing_offset(mu, L)
    k = _numbers(n)
    weighted = (n0 - 1) * (n0 - 2) * (f0_gap + mu / 2 * dist0_sq)
    return (weighted + 4 * k * sigma_add**2 / mu) / ((k + n0 - 1) * (k + n0 - 2))
