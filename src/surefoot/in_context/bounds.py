"""Right-hand sides of the theorems of arXiv 2410.08292, and of what is derived here from them.

The paper's text was not available: what is marked [notes] is as a third party quotes it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number

DOMINANCE = 1 / 16
"""The constant of gradient dominance in Theorem 3.4 [notes]."""


@checked(nan=True)
@dataclass(frozen=True)
class Bound:
    """(1 - c) S^-1 <= A_opt <= (1 + c) S^-1; `float` of it is c.

    Attributes
    ----------
    c
        The promised relative distance.
    vacuous
        c >= 1: then it does not even exclude A = 0.
    """

    c: float
    vacuous: bool

    def __float__(self) -> float:
        return self.c


@checked
def minimiser_bound(d: int, n: int, loops: int) -> Bound:
    """How near the global minimiser is to S^-1: c = 8 delta d^{1/2L}, delta = (8 L d / sqrt(n))^{1/2L}.

    Vacuous at every size that fits a desk: d = 10, n = 10^6, L = 2 gives 9.0. The exact distance is
    |optimal_step - 1|. Source: arXiv 2410.08292, Theorem 3.2 [notes].

    Parameters
    ----------
    d, n, loops
        Features, examples, loops.

    Raises
    ------
    ValueError
        An argument is out of range.
    """
    d, n, loops = _sizes(d, n, loops)
    delta = (8 * loops * d / math.sqrt(n)) ** (1 / (2 * loops))
    c = 8 * delta * d ** (1 / (2 * loops))
    return Bound(c, c >= 1)


@checked
def dominance_constant(d: int, loops: int) -> float:
    """4 L^2 d^{-(L-1)/L}: |grad|^2 / L^{(2L-1)/L} is never less for n to infinity and symmetric A.

    A power mean, attained at A = 0, where it is exact for every n. Source: derived in surefoot.

    Parameters
    ----------
    d, loops
        Features, loops.

    Raises
    ------
    ValueError
        An argument is out of range.
    """
    d, _, loops = _sizes(d, 1, loops)
    return float(4 * loops**2 * d ** (-(loops - 1) / loops))


@checked
def scalar_dominance_bound(loss: float, least: float, d: int, loops: int, step: float) -> float:
    """What |grad|^2 / L^{(2L-1)/L} is at least at A = b S^-1 with S = I and 0 <= b <= b*.

    As L is convex in b, |L'(b)| b* >= L - L_min, and |grad|^2 = L'(b)^2 / d: the ratio is at least
    (1 - L_min/L)^2 L^{1/L} / (d b*^2). Source: derived in surefoot.

    Parameters
    ----------
    loss, least
        L at b, and at b*.
    d, loops
        Features, loops.
    step
        b*.

    Raises
    ------
    ValueError
        An argument is out of range.
    """
    d, _, loops = _sizes(d, 1, loops)
    loss = check_number("loss", loss, above=0)
    least = check_number("least", least, least=0, most=loss)
    step = check_number("step", step, above=0)
    return float((1 - least / loss) ** 2 * loss ** (1 / loops) / (d * step**2))


@checked
def flow_time(
    xi: float,
    loops: int,
    loss0: float,
    c: float = DOMINANCE,
    form: Literal["integrated", "as_printed"] = "integrated",
) -> float:
    """How long gradient flow takes at most to the loss xi, where |grad|^2 >= c L^{(2L-1)/L} on its way.

    "integrated" follows from that inequality: (L/((L-1)c)) xi^{-(L-1)/L} (1 - (xi/L_0)^{(L-1)/L}), and
    ln(L_0/xi)/c for one loop. "as_printed" is (1/xi)^{(L-1)/(2L-1)} (16L/(L-1))^{(L-1)/L}, as Theorem 3.3 of
    arXiv 2410.08292 is quoted [notes, doubtful]: its exponents do not follow from the inequality.

    Parameters
    ----------
    xi
        The loss to reach.
    loops
        L.
    loss0
        The loss at the start; 0 is returned where xi is no less.
    c
        The constant of gradient dominance; "as_printed" has 1/16 built in.
    form
        Which formula.

    Raises
    ------
    ValueError
        An argument is out of range; "as_printed" for one loop, or another c than 1/16.
    """
    loops = check_number("loops", loops, least=1, whole=True)
    xi = check_number("xi", xi, above=0)
    loss0 = check_number("loss0", loss0, above=0)
    c = check_number("c", c, above=0)
    check_choice("form", form, ("integrated", "as_printed"))
    if form == "as_printed":
        if loops == 1:
            raise ValueError(
                "loops must be at least 2 for form='as_printed', which divides by L - 1, got 1"
            )
        if c != DOMINANCE:
            raise ValueError(
                f"c must be 1/16 for form='as_printed', which has it built in, got {c}"
            )
        return float(
            (1 / xi) ** ((loops - 1) / (2 * loops - 1))
            * (16 * loops / (loops - 1)) ** ((loops - 1) / loops)
        )
    if xi >= loss0:
        return 0.0
    if loops == 1:
        return math.log(loss0 / xi) / c
    power = (loops - 1) / loops
    return float((xi**-power - loss0**-power) / (power * c))


@checked
def diverging_bound(d: int, n: int, largest: float) -> float:
    """P(a prompt has an eigenvalue of A^{1/2} (XX'/n) A^{1/2} of 2 or more) <= exp(-n t^2 / 2).

    t = sqrt(2 / largest) - 1 - sqrt(d/n), largest = lambda_max(A^{1/2} S A^{1/2}), S that of the x_i.
    From P(s_max(X) >= sqrt(n) + sqrt(d) + n^{1/2} t) <= exp(-n t^2 / 2) for standard normal X (Davidson and
    Szarek 2001, Theorem II.13). 1 where t <= 0, that is where largest (1 + sqrt(d/n))^2 >= 2.

    Parameters
    ----------
    d, n
        Features and examples.
    largest
        lambda_max(A^{1/2} S A^{1/2}).

    Raises
    ------
    ValueError
        An argument is out of range.
    """
    d, n, _ = _sizes(d, n, 1)
    largest = check_number("largest", largest, above=0)
    t = math.sqrt(2 / largest) - 1 - math.sqrt(d / n)
    return math.exp(-n * t**2 / 2) if t > 0 else 1.0


@checked
def largest_shift(d: int, n: int, largest: float) -> float:
    """By which factor the covariance may grow until loops diverge: 2 / (largest (1 + sqrt(d/n))^2).

    The edge of the spectrum for large d and n; `diverging_bound` says how surely at given ones. Below 1: it
    already diverges on some prompts.

    Parameters
    ----------
    d, n, largest
        As in `diverging_bound`.

    Raises
    ------
    ValueError
        An argument is out of range.
    """
    d, n, _ = _sizes(d, n, 1)
    largest = check_number("largest", largest, above=0)
    return 2 / (largest * (1 + math.sqrt(d / n)) ** 2)


def _sizes(d: int, n: int, loops: int) -> tuple[int, int, int]:
    return (
        check_number("d", d, least=1, whole=True),
        check_number("n", n, least=1, whole=True),
        check_number("loops", loops, least=1, whole=True),
    )
