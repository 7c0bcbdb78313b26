"""What the seeds of a run say of a claim about their mean.

Everything here works on ratios x[i, t] = measured / bound of independent seeds i at checked steps t.
BROKEN is a matter of bets, which need no law (`betting`), and so is KEPT where the range of the quantity is
known; without a range KEPT stands on Student's limits (`student`), which assume light tails.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from surefoot._verdict import betting, student
from surefoot.guarantee import Law, Sense, Verdict

MIN_SEEDS = 5
MAX_CHECKED_STEPS = student.MANY_STEPS
SIDES: dict[Sense, tuple[int, ...]] = {"upper": (1,), "lower": (-1,), "equal": (1, -1)}
# Beyond this skewness a sample from a heavy tail looks as if it lay below its mean.
SKEWED = 1.0
ASSUMED = {1: "no rare low values", -1: "no heavy right tail"}


@dataclass(frozen=True)
class Evidence:
    """What the seeds say about the ratios at the checked steps.

    `low` and `high` are Student's one-sided limits of the mean ratio at each step, each at the stated
    level; `worst` is the step whose mean ratio is worst. An UNDECIDED one says at which step (`open_step`)
    it hangs, which seed carries over half of the sum there (`carrier`; a row that is not finite, if
    that is what it hangs on), and how many more seeds to run before looking again: at most as many again.
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


@dataclass(frozen=True)
class _Ratios:
    """The ratios and how they are to be judged."""

    x: Float[np.ndarray, "n steps"]
    sense: Sense
    alpha: float
    tolerance: float
    top: Float[np.ndarray, "n steps"] | None
    law: Law | None
    look: int | None

    @property
    def sides(self) -> tuple[int, ...]:
        """+1: a mean above 1 is wrong, -1: one below."""
        return SIDES[self.sense]

    @property
    def level(self) -> float:
        """The error probability that each side gets."""
        return self.alpha / len(self.sides)

    @property
    def fixed_level(self) -> float:
        """That of a limit for a number of seeds fixed beforehand: the shares of all looks sum to 1."""
        return self.level / (self.look * (self.look + 1)) if self.look else self.level

    @property
    def one_range(self) -> bool:
        """Whether all seeds share their range, so that the scale of a bet does not change as seeds come."""
        return self.top is not None and bool(student.agree(self.top).all())

    def edge(self, side: int) -> float:
        """Where being wrong begins."""
        return 1 + side * self.tolerance

    def against(self, side: int) -> Float[np.ndarray, "bets n steps"] | None:
        """Log gains of bets against the mean being on the promised side; None: there is no fair bet."""
        if side > 0:
            # At a step with a negative value the gambler stays at home.
            fair = (self.x >= 0).all(axis=0)
            gains = betting.gains_above(np.maximum(self.x, 0), self.edge(side))
            return np.where(fair, gains, -np.inf) if fair.any() else None
        return None if self.top is None else betting.gains_below(self.x, self.edge(side), self.top)

    def for_(self, side: int) -> Float[np.ndarray, "bets n steps"] | None:
        """Log gains of bets on the mean being on the promised side of the edge."""
        if self.top is None:
            return None
        if side > 0:
            # One scale for all seeds: scaled by its own range, a seed with a narrow one would outbid others.
            widest = np.broadcast_to(self.top.max(axis=0), self.x.shape)
            return betting.gains_below(self.x, self.edge(side), widest)
        return betting.gains_above(np.maximum(self.x, 0), self.edge(side))


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


def judge(
    x: Float[np.ndarray, "n steps"],
    *,
    sense: Sense = "upper",
    confidence: float = 0.99,
    tolerance: float = 1e-9,
    top: Float[np.ndarray, "..."] | None = None,
    law: Law | None = None,
    look: int | None = None,
) -> Evidence:
    """Decide whether the mean ratio is on the promised side of 1 at every checked step.

    Parameters
    ----------
    x
        Measured over promised; the seeds in the order in which they were run.
    sense, confidence
        As in `Guarantee` and `certify`.
    tolerance
        The half-width around 1 for sense "equal" and mere rounding otherwise.
    top
        The ratios are known to lie in [0, top], a number a step or a seed and step.
    law
        "light-tailed": Student's limits may call a mean beyond the bound.
    look
        The how-manieth look this is at a number of seeds that grows until it is decided; None: the number
        was fixed beforehand.
    """
    limits = None if top is None else np.broadcast_to(np.asarray(top, dtype=np.float64), x.shape)
    # Means of diverged runs may overflow; an infinite limit is then the right answer.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        return _judge(_Ratios(x, sense, 1.0 - confidence, tolerance, limits, law, look))


def _judge(r: _Ratios) -> Evidence:
    x, (n, steps) = r.x, r.x.shape
    nan = np.full(steps, np.nan)
    mean = x.mean(axis=0) if n else nan
    worst = _worst(mean, r.sense)
    if (left := _outside(r)) is not None:
        verdict, reason, (seed, step) = left
        return Evidence(verdict, reason, mean, nan, nan, worst, open_step=step, carrier=seed)
    if n < MIN_SEEDS:
        return Evidence(
            Verdict.UNDECIDED,
            f"a statement about a mean needs at least {MIN_SEEDS} seeds, got {n}",
            mean, nan, nan, worst, more_seeds=MIN_SEEDS - n,
        )  # fmt: skip
    if not np.isfinite(x).all():
        seed, step = np.argwhere(~np.isfinite(x))[0]
        return Evidence(
            Verdict.UNDECIDED, "a value, or its ratio to the bound, is not finite",
            mean, nan, nan, worst, open_step=int(step), carrier=int(seed),
        )  # fmt: skip
    low, high = (student.limit(x, r.fixed_level, s) for s in (-1, +1))
    agree = student.agree(x)
    start = np.cumprod(agree).astype(bool)  # the steps before the first one with spread
    if start.all():
        return Evidence(
            Verdict.UNDECIDED, "seeds change nothing, or no rare event was seen",
            mean, low, high, worst,
        )  # fmt: skip
    took = min((k for s in r.sides if (k := _refuted(r, s)) is not None), default=None)
    if took is not None:
        return Evidence(
            Verdict.BROKEN,
            f"bets against the bound made {1 / r.level:.4g} of 1 within the first {took} of {n} seeds, over "
            f"all checked steps together: refuted at confidence {1 - r.alpha:g}, whenever one looks and "
            "whatever the law of a quantity that is never negative",
            mean, low, high, worst,
        )  # fmt: skip
    beyond = tuple(s for s in r.sides if _suspect(r, s, start))
    if beyond and r.law == "light-tailed" and not r.look:
        assumed = " and ".join(ASSUMED[s] for s in beyond)
        return Evidence(
            Verdict.BROKEN,
            f"Student's limit of the mean of {n} seeds is on the wrong side of the bound at confidence "
            f"{1 - r.alpha:g} over all checked steps together, assuming {assumed}, seeds fixed beforehand",
            mean, low, high, worst,
        )  # fmt: skip
    within = np.logical_and.reduce([_within(r, s, start, (low, high)) for s in r.sides])
    # What is known of the range covers the rare event that no seed has shown.
    silent = agree & ~start if r.top is None else np.zeros(steps, dtype=bool)
    if within.all() and not silent.any() and not beyond:
        return Evidence(Verdict.KEPT, *_kept(r), mean, low, high, worst, notes=_caveats(r))
    if silent.any() and not beyond:
        return Evidence(
            Verdict.UNDECIDED, "all seeds agree where they had differed before: no rare event was seen",
            mean, low, high, worst, more_seeds=n, open_step=int(np.argmax(silent)),
        )  # fmt: skip
    return _open(r, mean, low, high, worst, within, beyond)


def _outside(r: _Ratios) -> tuple[Verdict, str, tuple[int, int]] | None:
    """Where a run left the range that its theorem gives."""
    if r.top is None:
        return None
    below, above = r.x < 0, r.x > r.top * (1 + student.AGREE)
    if below.any():
        seed, step = np.argwhere(below)[0]
        return (
            Verdict.UNDECIDED,
            "a value is below 0, where its range begins",
            (int(seed), int(step)),
        )
    if above.any():
        seed, step = np.argwhere(above)[0]
        return (
            Verdict.BROKEN,
            f"a run is above its range: {r.x[seed, step]:.4g} times the bound, where the theorem allows "
            f"no run more than {r.top[seed, step]:.4g} times",
            (int(seed), int(step)),
        )
    return None


def _refuted(r: _Ratios, side: int) -> int | None:
    """After how many seeds bets against the mean's being on the promised side had made a fortune."""
    gains = r.against(side)
    if gains is None:
        return None
    rich = betting.spread(betting.fortunes(gains)) >= -math.log(r.level)
    return int(np.argmax(rich)) + 1 if rich.any() else None


def _suspect(r: _Ratios, side: int, start: Bool[np.ndarray, " steps"]) -> bool:
    """Whether Student's limits lie beyond the bound, or runs that start alike start beyond it."""
    common = r.x.mean(axis=0)[start]
    if (side * (common - 1) > r.tolerance).any():
        return True
    skewed = math.inf if side > 0 else SKEWED
    return student.exceeds(r.x, r.level, side, r.tolerance, skewed)


def _within(
    r: _Ratios, side: int, start: Bool[np.ndarray, " steps"], limits: Iterable[np.ndarray]
) -> Bool[np.ndarray, " steps"]:
    """The steps at which the mean is on the promised side as far as seeds can tell."""
    mean, (low, high) = r.x.mean(axis=0), limits
    direct = side * (mean - 1) <= r.tolerance
    gains = r.for_(side)
    if gains is None or r.top is None:
        sure = side * ((high if side > 0 else low) - 1.0) <= r.tolerance
        return np.asarray(np.where(start, direct, sure))
    fortune = betting.fortunes(gains)
    if r.one_range:
        sure = fortune.max(axis=0) >= -math.log(r.level)
    else:
        sure = fortune[-1] >= -math.log(r.fixed_level)
    if side > 0:
        sure |= (r.top <= r.edge(side)).all(axis=0)
    # A start that all runs share is no draw of anything; later agreement may be a rare event unseen.
    sure[0] |= start[0] and direct[0]
    return np.asarray(sure)


def _kept(r: _Ratios) -> tuple[str]:
    if r.top is not None:
        return (
            f"a mean beyond the bound is refuted at confidence {1 - r.level:g} at every checked step, "
            "for any law within the range",
        )
    return (
        f"the {100 * (1 - r.fixed_level):.10g} % limit of the mean is within the bound at every checked step",
    )


def _caveats(r: _Ratios) -> tuple[str, ...]:
    """What a reader of a KEPT has to know."""
    if r.one_range:
        return ("valid at whatever number of seeds one stops",)
    when = (
        f"look {r.look} at a growing number of seeds, each look at its share of the error"
        if r.look
        else "for a number of seeds fixed beforehand"
    )
    if r.top is not None:
        return (when,)
    unseen = 1 - r.alpha ** (1 / len(r.x))
    notes = [
        when,
        f"an event in fewer than {100 * unseen:.2g} % of the runs would go unseen by {len(r.x)} seeds",
    ]
    if 1 in r.sides:
        many = "11 % of studies that add seeds" if r.look else "9 % of studies of 8 seeds"
        notes.append(
            "no range of the quantity is known: under strong skew a KEPT of a bound met with equality errs "
            f"more often than {100 * r.alpha:g} % (lognormal 1 at confidence .99: {many})"
        )
    if -1 in r.sides:
        notes.append(
            "no range of the quantity is known: rare low runs, had they not been seen, would undo this KEPT"
        )
    return tuple(notes)


def _worst(mean: Float[np.ndarray, " steps"], sense: Sense) -> int:
    badness = {"upper": mean, "lower": -mean, "equal": np.abs(mean - 1)}[sense]
    return int(np.argmax(np.where(np.isnan(badness), -np.inf, badness)))


def _open(
    r: _Ratios,
    mean: Float[np.ndarray, " steps"],
    low: Float[np.ndarray, " steps"],
    high: Float[np.ndarray, " steps"],
    worst: int,
    within: Bool[np.ndarray, " steps"],
    suspected: tuple[int, ...],
) -> Evidence:
    """Why it is open, at which step, and how many seeds to run before looking again."""
    n = len(r.x)
    need, beyond = np.zeros(len(mean)), np.zeros(len(mean), dtype=bool)
    for s in r.sides:
        need_s, beyond_s = _needed(r, s, mean, low if s < 0 else high)
        need = np.where(beyond_s, need_s, np.maximum(need, need_s))
        beyond |= beyond_s
    if beyond.any():
        step = int(np.argmin(np.where(beyond, need, np.inf)))
    else:
        step = int(np.argmax(np.where(within, -np.inf, need)))
    total = float(need[step])
    share = np.abs(r.x[:, step]) / np.abs(r.x[:, step]).sum()
    carrier = int(share.argmax()) if share.max() > 0.5 else None
    words = []
    if suspected:
        words.append(
            "suspect: Student's limit lies beyond the bound, which light tails alone would prove"
        )
    else:
        where = "mean" if beyond[step] else "limit of the mean"
        words.append(f"the {where} lies beyond the bound")
    more = None
    if beyond[step] and any(r.against(s) is None for s in r.sides if s * (mean[step] - 1) > 0):
        words.append(
            "a value is below zero, and no test of a mean is fair without a range"
            if r.sense == "upper"
            else "no test is fair without a range of the quantity (value_range)"
        )
    elif math.isfinite(total):
        more = min(max(1, math.ceil(total) - n), n)
        when = "would show it if the mean stays" if beyond[step] else "would decide"
        words.append(
            f"about {max(n + 1, math.ceil(total))} seeds in all {when}; run {more} more and look again"
        )
    if carrier is not None:
        words.append("one seed carries over half of the sum")
    notes: tuple[str, ...] = ()
    if 1 in r.sides and (beyond.any() or suspected):
        notes = (
            f"without a law no test of {n} seeds can call nearly equal ratios BROKEN that do not exceed "
            f"{betting.least_ratio(n, r.level):.3g}",
        )
    return Evidence(
        Verdict.UNDECIDED, "; ".join(words), mean, low, high, worst,
        more_seeds=more, open_step=step, carrier=carrier, notes=notes,
    )  # fmt: skip


def _needed(
    r: _Ratios, side: int, mean: Float[np.ndarray, " steps"], inner: Float[np.ndarray, " steps"]
) -> tuple[Float[np.ndarray, " steps"], Bool[np.ndarray, " steps"]]:
    """Seeds in all that would decide at each step, and where the mean is beyond the bound.

    From the inside by the bets where there is a range, else as Student's limit closes in on its mean,
    with 1/sqrt(n); from the outside by the bets, whose stake is spread over all steps.
    """
    room = r.tolerance - side * (mean - 1)
    beyond = room < 0
    gains = r.for_(side)
    if gains is None:
        inside = len(r.x) * ((inner - mean) / room) ** 2
    else:
        inside = betting.seeds_needed(gains, r.level)
    against = r.against(side)
    if against is None:
        outside = np.full(len(mean), np.inf)
    else:
        outside = betting.seeds_needed(against, r.level / len(mean))
    return np.where(beyond, outside, inside), np.asarray(beyond)
