"""From measured constants to step size, velocity step and momentum.

mu: strong aiming, L: smoothness, sigma_m = `sigma_mult` and sigma_a: E|g - grad f|^2 is at most
sigma_a^2 + sigma_m^2 |grad f|^2, eps: the Hessian is at least -eps on the segments from x_n to y_n.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from math import sqrt

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number


class NoiseWarning(UserWarning):
    """The gradient noise is larger than the chosen method tolerates."""


@checked
@dataclass(frozen=True)
class AgnesParams:
    """Constants of arXiv 2302.05515.

    Attributes
    ----------
    eta
        The gradient step (`correction`).
    alpha
        The velocity step (`lr`).
    rho
        The momentum.
    s
        The share of f - f* that a step is promised to gain.
    gamma
        The root of a step length: a gradient step has to lower f by gamma^2/2 |grad f|^2.
    beta
        The weight of the velocity in the Lyapunov function; alpha = gamma beta.
    """

    eta: float
    alpha: float
    rho: float
    s: float
    gamma: float
    beta: float

    def __post_init__(self) -> None:
        for name in ("eta", "alpha", "s", "gamma", "beta"):
            check_number(name, getattr(self, name), least=0)
        check_number("rho", self.rho, least=0, most=1)

    @classmethod
    def of(cls, eta: float, alpha: float, rho: float) -> AgnesParams:
        """The constants for which a run with these hyperparameters is promised its rate.

        s = (1-rho)/(1+rho), gamma^2 = alpha (1-s) + s eta, beta = alpha/gamma; the promise is then made
        for `mu` = (s/gamma)^2. Derived here: `agnes_parameters` solved for its constants.

        Parameters
        ----------
        eta, alpha, rho
            The gradient step, the velocity step and the momentum, rho in [0, 1).
        """
        s = (1 - rho) / (1 + rho)
        gamma = sqrt(alpha * (1 - s) + s * eta)
        return cls(eta, alpha, rho, s, gamma, alpha / gamma if gamma else 0.0)

    @property
    def mu(self) -> float:
        """The strong aiming that the rate s needs; infinite where no step is taken."""
        return (self.s / self.gamma) ** 2 if self.gamma else float("inf")

    def noise_excess(self, L: float, sigma_mult: float = 0.0) -> float:
        """gamma^2 (1+sigma_m^2) - (2 eta - L eta^2 (1+sigma_m^2)): the step is short enough iff <= 0.

        E|g|^2 <= (1+sigma_m^2) |grad f|^2 must be paid for by the decrease of f; without noise NAG's
        eta <= 1/L. Derived here.

        Parameters
        ----------
        L
            The smoothness of f.
        sigma_mult
            sigma_m.
        """
        noise = 1 + sigma_mult**2
        return self.gamma**2 * noise - (2 * self.eta - L * self.eta**2 * noise)

    @property
    def largest_stable_curvature(self) -> float:
        """lambda at which a quadratic mode starts to diverge: 2(1+rho)/(eta(1+rho) + alpha rho).

        For NAG eta lambda = (2+2 rho)/(1+2 rho), that is 4/3 as rho -> 1: how far L may be
        underestimated. Derived here, from the trace and the determinant of one step.
        """
        return 2 * (1 + self.rho) / (self.eta * (1 + self.rho) + self.alpha * self.rho)


def _check(mu: float, L: float, sigma_mult: float, eps: float) -> None:
    check_number("L", L, above=0)
    if check_number("mu", mu, above=0) > L:
        raise ValueError(f"mu must be in (0, L] = (0, {L}], got {mu}")
    check_number("sigma_mult", sigma_mult, least=0)
    check_number("eps", eps, least=0)


def _chosen(eta: float | None, largest: float, why: str) -> float:
    if eta is None:
        return largest
    # The last digits of 1/L are the caller's rounding, not a step that is too long.
    if check_number("eta", eta, above=0) > largest * (1 + 1e-12):
        raise ValueError(f"eta must be in (0, {largest:.6g}] ({why}), got {eta}")
    return float(eta)


@checked
def agnes_parameters(
    mu: float, L: float, sigma_mult: float = 0.0, eta: float | None = None, eps: float = 0.0
) -> AgnesParams:
    """AGNES constants for additive and multiplicative noise; without noise those of NAG.

    eta_max = 1/(L(1+sigma_m^2)), or (1+sigma_m^2) mu/eps^2 where eps > 0 makes that smaller;
    gamma = sqrt(eta/(1+sigma_m^2)), s = sqrt(mu) gamma, rho = (1-s)/(1+s),
    beta = gamma (1 - s(1+sigma_m^2))/(1-s), alpha = gamma beta.

    Parameters
    ----------
    mu, L
        Strong aiming and smoothness of f, 0 < mu <= L.
    sigma_mult
        sigma_m, the multiplicative noise.
    eta
        The gradient step, at most eta_max; None: eta_max.
    eps
        How negative the curvature may be on the segments from x_n to y_n.

    Raises
    ------
    ValueError
        A constant out of its range, or an eta above eta_max.

    Notes
    -----
    Source: arXiv 2302.05515 and the authors' notebook for eta = eta_max; for any smaller eta derived
    here. beta is the paper's (gamma - sqrt(mu) eta)/(1-s), written so that no digits are lost as
    s -> 1 and that it equals gamma exactly without noise.
    """
    _check(mu, L, sigma_mult, eps)
    noise = 1 + sigma_mult**2
    largest = 1 / (L * noise)
    why = "1 / (L (1 + sigma_mult^2))"
    if eps > 0 and noise * mu / eps**2 < largest:
        largest, why = noise * mu / eps**2, "(1 + sigma_mult^2) mu / eps^2"
    eta = _chosen(eta, largest, why)
    if noise == 1:
        return _nag(mu, eta)
    gamma = sqrt(eta / noise)
    s = sqrt(mu) * gamma
    # s (1 + sigma_m^2) is sqrt(mu/L) at eta_max: above 1 by rounding alone, where mu = L.
    beta = gamma * max(0.0, 1 - s * noise) / (1 - s)
    return AgnesParams(eta, gamma * beta, (1 - s) / (1 + s), s, gamma, beta)


def _nag(mu: float, eta: float) -> AgnesParams:
    s = min(1.0, sqrt(mu * eta))
    return AgnesParams(eta, eta, (1 - s) / (1 + s), s, sqrt(eta), sqrt(eta))


def nag_admissible_noise(L: float, eta: float) -> float:
    """The largest sigma_m^2 that NAG with step eta tolerates: (1 - L eta)/(1 + L eta). Derived here."""
    return max(0.0, (1 - L * eta) / (1 + L * eta))


@checked
def nag_parameters(
    mu: float, L: float, sigma_mult: float = 0.0, eta: float | None = None, eps: float = 0.0
) -> AgnesParams:
    """NAG constants: eta <= 1/L, alpha = eta, s = sqrt(mu eta), rho = (1-s)/(1+s).

    Under multiplicative noise the default is eta = (1 - sigma_m^2)/(L(1 + sigma_m^2)). A
    `NoiseWarning` with the AGNES constants says that sigma_m is at least 1 (eta = 1/L is then kept)
    or more than the given eta admits. Negative curvature asks for eta <= mu/eps^2 as well.

    Parameters
    ----------
    mu, L, sigma_mult, eta, eps
        As in `agnes_parameters`; eta at most 1/L.

    Notes
    -----
    Source: in the setting of arXiv 2410.08395; constants derived here.
    """
    _check(mu, L, sigma_mult, eps)
    sm2 = sigma_mult**2
    largest, why = 1 / L, "1 / L"
    if eps > 0 and mu / eps**2 < largest:
        largest, why = mu / eps**2, "mu / eps^2"
    if eta is None and sm2 < 1:
        eta = min(largest, (1 - sm2) / (L * (1 + sm2)))
    eta = _chosen(eta, largest, why)
    admissible = nag_admissible_noise(L, eta)
    if sm2 > admissible * (1 + 1e-9) + 1e-12:
        other = agnes_parameters(mu, L, sigma_mult, eps=eps)
        warnings.warn(
            f"sigma_mult = {sigma_mult:.4g} is more than NAG with eta = {eta:.4g} tolerates "
            f"({sqrt(admissible):.4g}): its loss may diverge; use AGNES with lr = {other.alpha:.6g}, "
            f"correction = {other.eta:.6g}, momentum = {other.rho:.6g}",
            NoiseWarning,
            stacklevel=3,
        )
    return _nag(mu, eta)


def convex_steps(L: float, sigma_mult: float = 0.0, *, agnes: bool = True) -> tuple[float, float]:
    """(eta, alpha) for a convex f without strong aiming; rho_n follows `convex_momentum`.

    AGNES: eta = 1/(L(1+2 sigma_m^2)), alpha = eta/(1+sigma_m^2); NAG: both 1/L.
    Source: arXiv 2302.05515, the authors' notebook; no constant of the O(1/n^2) rate is claimed.
    """
    _check(L, L, sigma_mult, 0.0)
    if not agnes:
        return 1 / L, 1 / L
    eta = 1 / (L * (1 + 2 * sigma_mult**2))
    return eta, eta / (1 + sigma_mult**2)


def convex_momentum(n: int, *, agnes: bool = True) -> float:
    """rho_n = n/(n+5) for AGNES, n/(n+3) for NAG. Source: as `convex_steps`."""
    return n / (n + (5 if agnes else 3))


def decreasing_offset(mu: float, L: float) -> float:
    """n0 = max(2 sqrt(L/mu), 3) of the decreasing step; not rounded. Derived here."""
    _check(mu, L, 0.0, 0.0)
    return max(2 * sqrt(L / mu), 3.0)
