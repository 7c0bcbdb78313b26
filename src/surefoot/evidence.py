"""The statistics behind a verdict on an expectation.

Everything here works on ratios x[i, t] = measured / bound of independent seeds i at checked steps t.
The limits are Student's with Johnson's skewness correction; window means over the steps give the
test its power when steps are correlated, and are fair because E x <= 1 at every step bounds them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from surefoot.guarantee import Sense, Verdict

MIN_SEEDS = 5
MAX_CHECKED_STEPS = 16
AGREE = 1e-9
BETS = (0.05, 0.2, 0.5, 0.9)
WINDOWS = (2, 4, 8)


@dataclass(frozen=True)
class Evidence:
    """What the seeds say about the ratios at the checked steps.

    `low` and `high` are one-sided limits of the mean ratio at each step, each at the stated level.
    """

    verdict: Verdict
    reason: str
    mean: Float[np.ndarray, " steps"]
    low: Float[np.ndarray, " steps"]
    high: Float[np.ndarray, " steps"]
    worst: int
    more_seeds: int | None = None
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
    sd = np.sqrt((deviation**2).sum(axis=0) / (n - 1))
    safe = np.where(sd > 0, sd, 1.0)
    skew = np.maximum(0.0, side * (deviation**3).mean(axis=0) / safe**3)
    z = stats.t.ppf(1 - level, n - 1) / np.sqrt(n)
    return np.asarray(m + side * sd * (z + skew / (6 * n) + skew * z**2 / 3))


def checked_steps(steps: Float[np.ndarray, " steps"], most: int = MAX_CHECKED_STEPS) -> np.ndarray:
    """Indices of at most `most` log-spaced steps, first and last included."""
    if len(steps) <= most:
        return np.arange(len(steps))
    offset = steps - steps[0] + 1.0
    wanted = np.geomspace(1.0, offset[-1], most)
    nearest = np.abs(offset[None, :] - wanted[:, None]).argmin(axis=1)
    return np.unique(np.concatenate([[0], nearest, [len(steps) - 1]]))


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
    with np.errstate(over="ignore"):
        return float(np.exp(np.stack(log_products)).mean())


def _agree(x: Float[np.ndarray, "n *steps"]) -> Bool[np.ndarray, "*steps"]:
    spread = x.max(axis=0) - x.min(axis=0)
    return np.asarray(spread <= AGREE * np.maximum(1.0, np.abs(x).max(axis=0)))


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


def _violated(x: Float[np.ndarray, "n steps"], alpha: float, side: int, tolerance: float) -> bool:
    """Whether some mean lies beyond 1 on `side` (+1: above) as far as the seeds can tell."""
    for y, share in _pooled(x):
        varied = ~_agree(y)
        if varied.any():
            lim = limit(y[:, varied], alpha * share, -side)
            if (side * (lim - 1.0) > tolerance).any():
                return True
    return False


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
    """
    n, steps = x.shape
    alpha = 1.0 - confidence
    nan = np.full(steps, np.nan)
    if n < MIN_SEEDS:
        mean = x.mean(axis=0) if n else nan
        return Evidence(
            Verdict.UNDECIDED,
            f"{n} seeds; a statement about a mean needs at least {MIN_SEEDS}",
            mean, nan, nan, _worst(mean, sense), more_seeds=MIN_SEEDS - n,
        )  # fmt: skip
    if not np.isfinite(x).all():
        mean = x.mean(axis=0)
        seed, step = np.argwhere(~np.isfinite(x))[0]
        return Evidence(
            Verdict.UNDECIDED,
            f"a value is not finite (row {seed}, checked step {step})",
            mean, nan, nan, int(step), carrier=int(seed),
        )  # fmt: skip

    mean = x.mean(axis=0)
    sides = {"upper": (1,), "lower": (-1,), "equal": (1, -1)}[sense]
    level = alpha / len(sides)
    low, high = limit(x, level, -1), limit(x, level, +1)
    agree = _agree(x)
    start = np.cumprod(agree).astype(bool)  # the steps before the first one with spread
    worst = _worst(mean, sense)
    beyond_at_start = np.any([s * (mean[start] - 1) > tolerance for s in sides])
    if start.all():
        return Evidence(
            Verdict.UNDECIDED,
            "seeds change nothing, or no rare event was seen",
            mean, low, high, worst,
        )  # fmt: skip
    if top is not None and (x < 0).any():
        raise ValueError("a quantity with value_range (0, c) must not be negative")
    if top is None:
        broken = any(_violated(x, level, s, tolerance) for s in sides)
    else:
        senses: tuple[Sense, ...] = ("upper", "lower") if sense == "equal" else (sense,)
        broken = any(e_value(x, s, top) >= 1 / level for s in senses)
    if broken or beyond_at_start:
        return Evidence(
            Verdict.BROKEN,
            f"the mean of {n} seeds is on the wrong side of the bound at confidence {confidence:g} "
            "over all checked steps together",
            mean, low, high, worst,
        )  # fmt: skip

    within = np.ones(steps, dtype=bool)
    for s in sides:
        within &= s * ((high if s > 0 else low) - 1.0) <= tolerance
    within |= start
    silent = agree & ~start
    if within.all() and not silent.any():
        unseen = 1 - alpha ** (1 / n)
        return Evidence(
            Verdict.KEPT,
            f"the {confidence:.0%} limit of the mean is within the bound at every checked step",
            mean, low, high, worst,
            notes=(
                f"an event in fewer than {unseen:.0%} of the runs would go unseen by {n} seeds",
                "under strong skew the error of this KEPT exceeds its nominal level",
            ),
        )  # fmt: skip
    return _undecided(x, mean, low, high, sense, within, silent, tolerance)


def _worst(mean: Float[np.ndarray, " steps"], sense: Sense) -> int:
    if not len(mean) or np.isnan(mean).all():
        return 0
    badness = {"upper": mean, "lower": -mean, "equal": np.abs(mean - 1)}[sense]
    return int(np.nanargmax(badness))


def _undecided(
    x: Float[np.ndarray, "n steps"],
    mean: Float[np.ndarray, " steps"],
    low: Float[np.ndarray, " steps"],
    high: Float[np.ndarray, " steps"],
    sense: Sense,
    within: Bool[np.ndarray, " steps"],
    silent: Bool[np.ndarray, " steps"],
    tolerance: float,
) -> Evidence:
    n = x.shape[0]
    if within.all():
        return Evidence(
            Verdict.UNDECIDED,
            "all seeds agree at a step after they had differed: no rare event was seen there",
            mean, low, high, int(np.argmax(silent)),
        )  # fmt: skip
    # The step whose limit lies furthest outside is the one that more seeds must bring in.
    outside = np.maximum(
        high - 1 if sense != "lower" else -np.inf, 1 - low if sense != "upper" else -np.inf
    )
    worst = int(np.argmax(np.where(within, -np.inf, outside)))
    above = sense == "upper" or (sense == "equal" and high[worst] - 1 >= 1 - low[worst])
    lim, edge = (high[worst], 1 + tolerance) if above else (low[worst], 1 - tolerance)
    room = (edge - mean[worst]) if above else (mean[worst] - edge)
    more = None
    if room > 0:
        total = np.ceil(n * ((lim - mean[worst]) / room) ** 2)
        more = max(1, int(total) - n)
    share = np.abs(x[:, worst]) / np.abs(x[:, worst]).sum()
    carrier = int(share.argmax()) if share.max() > 0.5 else None
    reason = "the limit of the mean crosses the bound"
    if more is not None:
        reason += f"; about {more} more seeds would decide"
    else:
        reason += ", and so does the mean itself: more seeds would show whether by chance"
    if carrier is not None:
        reason += "; one seed carries over half of the sum"
    return Evidence(
        Verdict.UNDECIDED, reason, mean, low, high, worst, more_seeds=more, carrier=carrier
    )
