"""The continuous model of accelerated descent: a ball with friction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from jaxtyping import Float
from scipy.integrate import solve_ivp
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot.errors import ArgumentError


@dataclass(frozen=True)
class Flow:
    """The flow at times t: f - f*, the energy E, and the promise exp(-sqrt(mu) t) E(0)."""

    t: Float[np.ndarray, " T"]
    gap: Float[np.ndarray, " T"]
    energy: Float[np.ndarray, " T"]
    promised: Float[np.ndarray, " T"]


@checked
def heavy_ball_flow(
    f: Callable[[Float[Tensor, " P"]], Float[Tensor, ""]],
    start: Float[Tensor, " P"],
    *,
    mu: float,
    time: float,
    closest: Callable[[Float[Tensor, " P"]], Float[Tensor, " P"]],
    f_star: float = 0.0,
    points: int = 201,
) -> Flow:
    """Integrate x'' + 2 sqrt(mu) x' + grad f(x) = 0 from rest (RK45, rtol 1e-8).

    E(t) = f - f* + |x' + sqrt(mu)(x - pi(x))|^2 / 2 decays at least like exp(-sqrt(mu) t) under
    mu-strong aiming. Source: in the setting of arXiv 2410.08395; constants derived here.

    Parameters
    ----------
    f
        The function of a flat float64 vector of P numbers.
    start
        x_0, flat.
    mu
        The constant of strong aiming.
    time
        Where to stop, in the unit of t.
    closest
        The closest minimiser to a flat point.
    f_star
        The infimum of f.
    points
        How many times to look at, evenly spaced.

    Raises
    ------
    ValueError
        mu or time is not positive.
    ArithmeticError
        A gradient is not finite, or the integrator gives up.
    """
    check_number("mu", mu, above=0)
    check_number("time", time, above=0)
    check_number("f_star", f_star)
    points = check_number("points", points, least=2, whole=True)
    if not start.numel():
        raise ArgumentError("start", "must hold at least one number, got none")
    P, root = len(start), sqrt(mu)

    def field(t: float, state: Float[np.ndarray, " P2"]) -> Float[np.ndarray, " P2"]:
        x = torch.tensor(state[:P], requires_grad=True)
        (gradient,) = torch.autograd.grad(f(x), x)
        if not bool(gradient.isfinite().all()):
            # The integrator would shorten its step for ever.
            raise ArithmeticError(f"the gradient is not finite at time {t:.6g}: {gradient}")
        return np.concatenate([state[P:], -2 * root * state[P:] - gradient.numpy()])

    t = np.linspace(0.0, time, points)
    state = np.concatenate([start.detach().double().numpy(), np.zeros(P)])
    found = solve_ivp(field, (0.0, time), state, t_eval=t, rtol=1e-8, atol=1e-12)
    if not found.success:
        raise ArithmeticError(f"the flow stopped before time {time}: {found.message}")
    gap, energy = np.empty(points), np.empty(points)
    for i, column in enumerate(found.y.T):
        x, v = torch.tensor(column[:P]), torch.tensor(column[P:])
        gap[i] = float(f(x)) - f_star
        z = v + root * (x - closest(x))
        energy[i] = gap[i] + 0.5 * float(z @ z)
    return Flow(t, gap, energy, np.exp(-root * t) * energy[0])
