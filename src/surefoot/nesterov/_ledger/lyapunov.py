"""The exact Lyapunov ledger of accelerated descent: five terms that account for every step.

In the setting of arXiv 2410.08395; derived here. With x_n the iterate, y_n = x_n + alpha v_n the
point where the gradient g_n is taken, p_n any points with f(p_n) = f*, and d_n = y_n - p_n, let

    L_n = f(x_n) - f* + |beta v_n + sqrt(mu) d_n|^2 / 2.

Then, whatever f is, L_{n+1} - (1-s) L_n = (1-s) C_n + s A_n + D_n + K_n + T_n exactly, where

    A_n = f(y_n) - f* - <g_n, d_n> + mu/2 |d_n|^2        aiming: <= 0 under mu-strong aiming
    C_n = f(y_n) - f(x_n) - alpha <g_n, v_n>             curvature: <= 0 for convex f
    D_n = f(x_{n+1}) - f(y_n) + gamma^2/2 |g_n|^2        smoothness: <= 0 for eta <= 1/L
    K_n = -s (1-s)/2 beta^2 |v_n|^2                      always <= 0: pays for curvature
    T_n = -sqrt(mu) <beta v_{n+1} + sqrt(mu) d_{n+1}, p_{n+1} - p_n> - mu/2 |p_{n+1} - p_n|^2
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot._numerics.sizes import wide
from surefoot.nesterov._probe.path_measures import (
    aiming_constant,
    directional_nonconvexity,
    directional_smoothness,
)
from surefoot.nesterov.parameters import AgnesParams

EPS = torch.finfo(torch.float64).eps
ANCHOR_ROUNDING = 4 * EPS
VALUE_ROUNDING = 8 * EPS
HYPOTHESES = ("aiming", "curvature", "smoothness", "drift")


@dataclass(frozen=True)
class State:
    """What the ledger needs to know at step n: flat vectors and the values of f at x_n, y_n and p_n."""

    y: Float[Tensor, " P"]
    v: Float[Tensor, " P"]
    g: Float[Tensor, " P"]
    p: Float[Tensor, " P"]
    f_x: float
    f_y: float
    f_p: float


def dot(a: Float[Tensor, " P"], b: Float[Tensor, " P"]) -> float:
    """Inner product as a Python float, in at least float32."""
    return float(torch.dot(wide(a), wide(b)))


def lyapunov(
    gap: float,
    v: Float[Tensor, " P"],
    d: Float[Tensor, " P"],
    rule: AgnesParams,
    mu: float,
) -> float:
    """L_n for f(x_n) - f* = gap."""
    z = rule.beta * v + sqrt(mu) * d
    return gap + 0.5 * dot(z, z)


def rounding(
    values: tuple[float, ...], points: tuple[Float[Tensor, " P"], ...], slope: float
) -> float:
    """By how much rounding alone may move a term: values of f, and points where f has that slope.

    A value is known to its last digits, and so is a coordinate: moving a point by them moves f by
    the slope times the coordinate's rounding (errors of many coordinates add up like their root
    mean square, hence the largest one).
    """
    size = max(float(p.abs().max()) for p in points)
    return VALUE_ROUNDING * max(abs(f) for f in values) + EPS * size * slope


def terms_of(
    now: State,
    f_next: float,
    v_next: Float[Tensor, " P"],
    y_next: Float[Tensor, " P"],
    p_next: Float[Tensor, " P"],
    rule: AgnesParams,
    mu: float,
    f_star: float,
) -> dict[str, float]:
    """All terms of step n, given the state at n and where step n + 1 stands.

    Keys: f_x, f_y, f_p, L, A, C, D, K, T, total, the rounding of these, and the path measures
    mu_aim, L_needed, eps (NaN where the point coincides with its anchor, the gradient or the velocity
    vanishes).
    """
    d = now.y - now.p
    gg, gd, dd = dot(now.g, now.g), dot(now.g, d), dot(d, d)
    gv, vv = dot(now.g, now.v), dot(now.v, now.v)
    s = rule.s
    aiming = now.f_y - f_star - gd + mu / 2 * dd
    curvature = now.f_y - now.f_x - rule.alpha * gv
    smoothness = f_next - now.f_y + rule.gamma**2 / 2 * gg
    kinetic = -s * (1 - s) / 2 * rule.beta**2 * vv
    drift = 0.0
    if p_next is not now.p:
        delta = p_next - now.p
        if float(delta.abs().max()) <= ANCHOR_ROUNDING * float(now.p.abs().max()):
            # A closest point is known to rounding only; its last digits are no drift.
            delta = torch.zeros_like(delta)
        z = rule.beta * v_next + sqrt(mu) * (y_next - p_next)
        drift = -sqrt(mu) * dot(z, delta) - mu / 2 * dot(delta, delta)
    eps = float("nan")
    if rule.alpha > 0:
        eps = float(directional_nonconvexity(now.f_y, now.f_x, gv, vv, rule.alpha))
    return {
        "f_x": now.f_x,
        "f_y": now.f_y,
        "f_p": now.f_p,
        "L": lyapunov(now.f_x - f_star, now.v, d, rule, mu),
        "A": aiming,
        "C": curvature,
        "D": smoothness,
        "K": kinetic,
        "T": drift,
        "total": (1 - s) * curvature + s * aiming + smoothness + kinetic + drift,
        "rounding": rounding(
            (now.f_x, now.f_y, f_next, f_star), (now.y, now.p), sqrt(gg) + mu * sqrt(dd)
        ),
        "mu_aim": float(aiming_constant(now.f_y - f_star, gd, dd)),
        "L_needed": float(directional_smoothness(now.f_y, f_next, gg, rule.eta)),
        "eps": eps,
    }
