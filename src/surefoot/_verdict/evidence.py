"""The statistics behind a verdict on an expectation.

Everything here works on ratios x[i, t] = measured / bound of independent seeds i at checked steps t.
The limits are Student's with Johnson's skewness correction; window means over the steps give the
test its power when steps are correlated, and are fair because E x <= 1 at every step bounds them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import stdtrit

from surefoot.guarantee import Sense, Verdict

MIN_SEEDS = 5
MAX_CHECKED_STEPS = 16
AGREE = 1e-9
BETS = (0.05, 0.2, 0.5, 0.9)
WINDOWS = (2, 4, 8)
SIDES: dict[Sense, tuple[int, ...]] = {"upper": (1,), "lower": (-1,), "equal": (1, -1)}


@dataclass(frozen=True)
class Evidence:
    """What the seeds say about the ratios at the checked steps.

    `low` and `high` are one-sided limits of the mean ratio at each step, each at the stated level;
    `worst` is the step whose mean ratio is worst. An UNDECIDED one says at which step (`open_step`) it
    hangs, which seed carries over half of the sum there (`carrier`; a row that is not finite, if
    that is what it hangs on), and about how many more seeds would decide.
    """

    verdict: Verdict
    reason: str
    mean: Float[np.ndarray, " steps"]
    low: Float[np.ndarray, " steps"]
    high: Float[np.ndarray, " steps"]
    worst: int
    more_seeds: int | None = None
    open_step: int | None = None
    carrier: int | None = None
    notes: tuple[str, ...] = ()


def limit(y: Float[np.ndarray, "n *steps"], level: float, side: int) -> Float[np.ndarray, "*steps"]:
    """One-sided confidence limit of the mean over axis 0, at error probability `level`.

    Student's limit, lengthened (never shortened) by Johnson's skewness correction:
    m + side sd (z + g/(6n) + g z^2/3) with z = t_{n-1}(1 - level)/sqrt(n) and g the skewness on
    the side in question, or 0. `side` is +1 for the upper and -1 for the lower limit.
    Source: Johnson (1978), Modified t tests and confidence intervals for asymmetrical populations.
    """
    n = y.shape[0]
    m = y.mean(axis=0)
    deviation = y - m
    # In units of the largest deviation no power of it overflows: diverged runs reach 1e200.
    scale = np.abs(deviation).max(axis=0)
    unit = deviation / np.where(scale > 0, scale, 1.0)
    square = unit * unit
    sd = np.sqrt(square.sum(axis=0) / (n - 1))
    third = (square * unit).mean(axis=0) / np.where(sd > 0, sd, 1.0) ** 3
    skew = np.maximum(0.0, side * third)
    z = stdtrit(n - 1, 1 - level) / np.sqrt(n)
    return np.asarray(m + side * scale * sd * (z + skew / (6 * n) + skew * z**2 / 3))


def checked_steps(
    steps: Float[np.ndarray, " steps"], most: int = MAX_CHECKED_STEPS
) -> Int[np.ndarray, " checked"]:
    """Indices of min(`most`, all) log-spaced steps, first and last included."""
    if most < 2:
        raise ValueError(f"at least 2 steps must be checked, got {most}")
    total = len(steps)
    if total <= most:
        return np.arange(total)
    offset = steps - steps[0] + 1.0
    wanted = np.geomspace(1.0, offset[-1], most)
    after = np.clip(np.searchsorted(offset, wanted), 1, total - 1)
    nearest = after - (wanted - offset[after - 1] <= offset[after] - wanted)
    # Early wanted steps lie closer than the record's own: each takes the next one that is free,
    # as with fewer than 16 steps the window means, and with them most of the power, would be lost.
    rank = np.arange(most)
    spread = np.maximum.accumulate(nearest - rank) + rank
    return np.minimum(spread, total - most + rank)


def e_value(
    x: Float[np.ndarray, "n steps"], sense: Sense, top: Float[np.ndarray, " steps"]
) -> float:
    """Betting e-value against E x <= 1 ("upper") or E x >= 1 ("lower") for 0 <= x <= top.

    Mean over steps of the mean over bets of prod_i (1 + bet (x_i - 1)). Under the null each product
    has expectation at most 1, so by Markov's inequality a value of 1/alpha has probability alpha.
    """
    if sense == "upper":
        gain, scale = x - 1.0, np.ones(x.shape[1])
    else:
        # 1 - x may be as low as 1 - top; the bet shrinks so that no factor turns negative.
        gain, scale = 1.0 - x, 1.0 / np.maximum(1.0, top - 1.0)
    log_products = [np.log1p(bet * scale * gain).sum(axis=0) for bet in BETS]
    return float(np.exp(np.stack(log_products)).mean())


def judge(
    x: Float[np.ndarray, "n steps"],
    *,
    sense: Sense = "upper",
    confidence: float = 0.99,
    tolerance: float = 1e-9,
    top: Float[np.ndarray, " steps"] | None = None,
) -> Evidence:
    """Decide whether the mean ratio is on the promised side of 1 at every checked step.

    `tolerance` is the half-width around 1 for sense "equal" and mere rounding otherwise; `top`
    switches BROKEN to the betting e-value for ratios known to lie in [0, top].

    Raises
    ------
    ValueError
        A ratio lies outside [0, top].
    """
    # Means of diverged runs may overflow; an infinite limit is then the right answer.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        return _judge(x, sense, confidence, tolerance, top)


def _judge(
    x: Float[np.ndarray, "n steps"],
    sense: Sense,
    confidence: float,
    tolerance: float,
    top: Float[np.ndarray, " steps"] | None,
) -> Evidence:
    n, steps = x.shape
    nan = np.full(steps, np.nan)
    mean = x.mean(axis=0) if n else nan
    worst = _worst(mean, sense)
    if n < MIN_SEEDS:
        return Evidence(
            Verdict.UNDECIDED,
            f"a statement about a mean needs at least {MIN_SEEDS} seeds, got {n}",
            mean, nan, nan, worst, more_seeds=MIN_SEEDS - n,
        )  # fmt: skip
    if not np.isfinite(x).all():
        seed, step = np.argwhere(~np.isfinite(x))[0]
        return Evidence(
            Verdict.UNDECIDED, "a value is not finite",
            mean, nan, nan, worst, open_step=int(step), carrier=int(seed),
        )  # fmt: skip
    if top is not None and ((x < 0) | (x > top * (1 + AGREE))).any():
        raise ValueError("a quantity with value_range (0, c) must lie between 0 and c")

    alpha = 1.0 - confidence
    sides = SIDES[sense]
    level = alpha / len(sides)
    low, high = limit(x, level, -1), limit(x, level, +1)
    agree = _agree(x)
    start = np.cumprod(agree).astype(bool)  # the steps before the first one with spread
    if start.all():
        return Evidence(
            Verdict.UNDECIDED, "seeds change nothing, or no rare event was seen",
            mean, low, high, worst,
        )  # fmt: skip
    start_violated = any((s * (mean[start] - 1) > tolerance).any() for s in sides)
    if start_violated or any(_violated(x, level, s, tolerance, top) for s in sides):
        return Evidence(
            Verdict.BROKEN,
            f"the mean of {n} seeds is on the wrong side of the bound at confidence {confidence:g} "
            "over all checked steps together",
            mean, low, high, worst,
        )  # fmt: skip

    inside = [s * ((high if s > 0 else low) - 1.0) <= tolerance for s in sides]
    within = np.logical_and.reduce(inside) | start
    silent = agree & ~start
    if within.all() and not silent.any():
        unseen = 1 - alpha ** (1 / n)
        return Evidence(
            Verdict.KEPT,
            f"the {100 * (1 - level):g} % limit of the mean is within the bound at every checked step",
            mean, low, high, worst,
            notes=(
                f"an event in fewer than {100 * unseen:.2g} % of the runs would go unseen by {n} seeds",
                f"under strong skew the error of this KEPT exceeds its nominal {100 * alpha:g} %",
            ),
        )  # fmt: skip
    if silent.any():
        return Evidence(
            Verdict.UNDECIDED, "all seeds agree where they had differed before: no rare event was seen",
            mean, low, high, worst, open_step=int(np.argmax(silent)),
        )  # fmt: skip
    step, more, beyond = _open(x, sides, level, (low, mean, high), within, tolerance)
    share = np.abs(x[:, step]) / np.abs(x[:, step]).sum()
    carrier = int(share.argmax()) if share.max() > 0.5 else None
    reason = f"the {'mean' if beyond else 'limit of the mean'} lies beyond the bound"
    if more is not None:
        reason += f"; about {more} more seeds would {'show if by chance' if beyond else 'decide'}"
    if carrier is not None:
        reason += "; one seed carries over half of the sum"
    return Evidence(
        Verdict.UNDECIDED, reason, mean, low, high, worst,
        more_seeds=more, open_step=step, carrier=carrier,
    )  # fmt: skip


def _agree(x: Float[np.ndarray, "n *steps"]) -> Bool[np.ndarray, "*steps"]:
    # Relative to the values: runs far below a loose bound differ by less than 1e-9 of the bound.
    spread = x.max(axis=0) - x.min(axis=0)
    return np.asarray(spread <= AGREE * np.abs(x).max(axis=0))


def _pooled(x: Float[np.ndarray, "n steps"]) -> list[tuple[Float[np.ndarray, "n k"], float]]:
    """The families of tests and the share of alpha that each single test in them gets."""
    steps = x.shape[1]
    if steps < MAX_CHECKED_STEPS:
        return [(x, 1.0 / steps)]
    windows = [part.mean(axis=1) for k in WINDOWS for part in np.array_split(x, k, axis=1)]
    return [
        (x.mean(axis=1, keepdims=True), 1 / 2),
        (np.stack(windows, axis=1), 1 / (4 * len(windows))),
        (x, 1 / (4 * steps)),
    ]


def _violated(
    x: Float[np.ndarray, "n steps"],
    level: float,
    side: int,
    tolerance: float,
    top: Float[np.ndarray, " steps"] | None,
) -> bool:
    """Whether some mean lies beyond 1 on `side` (+1: above) as far as the seeds can tell."""
    if top is not None:
        edge = 1 + side * tolerance
        return e_value(x / edge, "upper" if side > 0 else "lower", top / edge) >= 1 / level
    for y, share in _pooled(x):
        varied = ~_agree(y)
        lim = limit(y[:, varied], level * share, -side)
        if (side * (lim - 1.0) > tolerance).any():
            return True
    return False


def _worst(mean: Float[np.ndarray, " steps"], sense: Sense) -> int:
    badness = {"upper": mean, "lower": -mean, "equal": np.abs(mean - 1)}[sense]
    return int(np.argmax(np.where(np.isnan(badness), -np.inf, badness)))


def _open(
    x: Float[np.ndarray, "n steps"],
    sides: tuple[int, ...],
    level: float,
    limits: tuple[Float[np.ndarray, " steps"], ...],
    within: Bool[np.ndarray, " steps"],
    tolerance: float,
) -> tuple[int, int | None, bool]:
    """The step on which the decision hangs, how many more seeds it takes, whether its mean is beyond.

    A limit closes in on its mean as 1/sqrt(n). From the inside it has to reach the edge at every
    step (KEPT: the slowest step counts), from the outside at one (BROKEN: the fastest).
    """
    n = len(x)
    low, mean, high = limits
    share = _pooled(x)[-1][1]
    need, beyond = np.zeros(len(mean)), np.zeros(len(mean), dtype=bool)
    for s in sides:
        room = tolerance - s * (mean - 1)
        inner, outer = (high if s > 0 else low), limit(x, level * share, -s)
        need = np.maximum(need, ((np.where(room > 0, inner, outer) - mean) / room) ** 2)
        beyond |= room < 0
    if beyond.any():
        step = int(np.argmin(np.where(beyond, need, np.inf)))
    else:
        step = int(np.argmax(np.where(within, -np.inf, need)))
    total = n * need[step]
    return step, max(1, int(np.ceil(total)) - n) if np.isfinite(total) else None, bool(beyond[step])
