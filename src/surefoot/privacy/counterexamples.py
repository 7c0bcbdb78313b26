"""Trainings that leak more than the last-iterate heuristic says, as audits to be run.

The paper names such cases (arXiv 2410.06186); these constructions are derived here. They exist because the
heuristic is not monotone in T: whatever makes few steps count beats it. A model is one number, the
canary's loss is linear, and only the last iterate is looked at.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Int

from surefoot._numerics.checks import check_number
from surefoot.privacy._checks import check_delta, check_noise, check_rate, check_steps, real
from surefoot.privacy.audit.error_rates import error_limits
from surefoot.privacy.audit.p_value import check_confidence, whole
from surefoot.privacy.audit.result import AuditResult, conclude
from surefoot.privacy.result import HONESTY
from surefoot.record import Fact, Record

Array = np.ndarray
CHUNK = 100_000


@dataclass(frozen=True, kw_only=True, repr=False)
class Counterexample(ABC):
    """One training, repeated `runs` times with the canary and as often without, accused above a threshold.

    Parameters
    ----------
    noise_multiplier, sample_rate, steps
        sigma > 0, q and T of the simulated training.
    delta
        Failure probability of the claims.
    threshold
        A training is accused of having had the canary if its score lies above; fixed beforehand.
    runs
        Trainings on each side.
    confidence
        Of the lower bound.
    seed
        Of the simulation; the result's record is kept under it.
    """

    noise_multiplier: float
    sample_rate: float
    steps: int
    delta: float
    threshold: float
    runs: int = 10**6
    confidence: float = 0.95
    seed: int = 0
    why: ClassVar[str] = ""

    def __post_init__(self) -> None:
        if check_noise(self.noise_multiplier) == 0:
            raise ValueError("noise_multiplier must be positive, got 0")
        check_rate(self.sample_rate)
        if check_steps(self.steps) == 0:
            raise ValueError("steps must be at least 1, got 0")
        check_delta(self.delta)
        real("threshold", self.threshold)
        whole("runs", self.runs, 10)
        check_confidence(self.confidence)

    def __repr__(self) -> str:
        each = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in fields(self))
        return f"{type(self).__name__}({each})\n  {HONESTY}"

    @functools.cached_property
    def record(self) -> Record:
        """What is simulated, as facts."""
        record = Record()
        record.note(
            noise_multiplier=float(self.noise_multiplier), sample_rate=float(self.sample_rate),
            steps=int(self.steps), sampling="poisson", clipping="per example", clip_norm=1.0,
            optimizer="SGD", lr=1.0, momentum=0.0, releases="last",
            training=type(self).__name__, **self._facts(),
        )  # fmt: skip
        return record

    @abstractmethod
    def _facts(self) -> dict[str, Fact]:
        """What else is true of this one."""

    @abstractmethod
    def scores(self, included: bool, runs: int, rng: np.random.Generator) -> Float[Array, " runs"]:
        """Of the last iterates of independent trainings, higher for "in".

        Parameters
        ----------
        included
            Whether the canary takes part.
        runs
            How many trainings.
        rng
            Draws canaries, batches and noise.
        """

    def run(self) -> AuditResult:
        """Train, count, and hold the bound against both claims."""
        accused = []
        for included in (True, False):
            # Two streams: the sides must not share their noise.
            rng = np.random.default_rng([self.seed, int(included)])
            count, left = 0, self.runs
            while left:
                n = min(CHUNK, left)
                count += int((self.scores(included, n, rng) > self.threshold).sum())
                left -= n
            accused.append(count)
        tp, fp = accused
        limits = error_limits(fp, self.runs, self.runs - tp, self.runs, self.delta, self.confidence)
        best = error_limits(0, self.runs, 0, self.runs, self.delta, self.confidence)
        return conclude(
            {"clopper": limits.epsilon},
            self.delta,
            self.confidence,
            (self.noise_multiplier, self.sample_rate, self.steps),
            seed=self.seed,
            ran=self,
            ceiling=best.epsilon,
            limits=limits,
            notes=(self.why,),
        )

    def _draw(self, included: bool, runs: int, rng: np.random.Generator) -> Float[Array, " runs"]:
        """One step's canary and noise: Bernoulli(q) + sigma N(0, 1), or the noise alone."""
        x = self.noise_multiplier * rng.standard_normal(runs)
        if included:
            x += rng.random(runs) < self.sample_rate
        return x


@dataclass(frozen=True, kw_only=True, repr=False)
class Forgetting(Counterexample):
    """m <- (1 - alpha) m + Bernoulli(q) + sigma N: a quadratic regulariser forgets early steps.

    Parameters
    ----------
    noise_multiplier, sample_rate, steps, delta, threshold, runs, confidence, seed
        As in `Counterexample`.
    alpha
        In [0, 1]: how much of the model every step forgets.
    """

    alpha: float = 1.0
    why: ClassVar[str] = "a quadratic regulariser forgets the early steps: late ones count alone"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("alpha", self.alpha, least=0, most=1)

    def _facts(self) -> dict[str, Fact]:
        # A regulariser that is not linear: whether the heuristic holds for it is what is tried here.
        if self.alpha == 0:
            return {"weight_decay": 0.0}
        return {"regulariser": f"quadratic, alpha {self.alpha:g}"}

    def scores(self, included: bool, runs: int, rng: np.random.Generator) -> Float[Array, " runs"]:
        """m_T."""
        m = np.zeros(runs)
        for _ in range(self.steps):
            m = (1 - self.alpha) * m + self._draw(included, runs, rng)
        return m


@dataclass(frozen=True, kw_only=True, repr=False)
class MaliciousData(Counterexample):
    """Other examples with loss -|m - target| push m away from target for ever: its side stores step 1.

    Their gradients have norm 1 (0 at the start, where they are told apart from the rest by nothing else)
    and are clipped to 1 like all others; they are Poisson-sampled.

    Parameters
    ----------
    noise_multiplier, sample_rate, steps, delta, threshold, runs, confidence, seed
        As in `Counterexample`.
    others
        How many other examples there are.
    target
        Where the model stores the first step: to its left or to its right.
    """

    others: int = 500
    target: float = 0.95
    why: ClassVar[str] = "other examples store the first step in the sign of m - target"

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("others", self.others, 1)
        real("target", self.target)

    def _facts(self) -> dict[str, Fact]:
        return {"weight_decay": 0.0, "others": self.others}

    def scores(self, included: bool, runs: int, rng: np.random.Generator) -> Float[Array, " runs"]:
        """m_T."""
        m = np.zeros(runs)
        for step in range(self.steps):
            gradient = np.zeros(runs) if step == 0 else -np.sign(m - self.target)
            clipped = gradient / np.maximum(np.abs(gradient), 1.0)
            pushed = rng.binomial(self.others, self.sample_rate, runs)
            m = m - pushed * clipped + self._draw(included, runs, rng)
        return m


@dataclass(frozen=True, kw_only=True, repr=False)
class Encoding(Counterexample):
    """m <- base * round(m) + Bernoulli(q) + sigma N: the digits of the last iterate are all the steps.

    In one dimension every vector field is a gradient, so a regulariser may do this. Quantised to
    sigma / bins and computed in exact integers: a float64 has room for about four such digits.

    Parameters
    ----------
    noise_multiplier, sample_rate, steps, delta, threshold, runs, confidence, seed
        As in `Counterexample`.
    base
        Of the digits: canary and twelve standard deviations of noise must fit into one.
    bins
        Steps of the quantisation per standard deviation of the noise.
    """

    base: int = 2048
    bins: int = 64
    why: ClassVar[str] = (
        "a regulariser writes every step into the digits of the model; "
        "this needs integers of any length, a float64 holds four steps"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("bins", self.bins, 1)
        # Canary and twelve standard deviations of noise must fit into a digit.
        least = math.ceil(2 * self.bins * (12 + 1 / self.noise_multiplier))
        whole("base", self.base, least)

    def _facts(self) -> dict[str, Fact]:
        return {"regulariser": f"m - {self.base} round(m)"}

    def scores(self, included: bool, runs: int, rng: np.random.Generator) -> Float[Array, " runs"]:
        """Log likelihood ratio of the steps read from the digits of m_T."""
        unit = self.noise_multiplier / self.bins
        m = self.last_iterate(
            [np.rint(self._draw(included, runs, rng) / unit) for _ in range(self.steps)]
        )
        total = np.zeros(runs)
        s2 = 2 * self.noise_multiplier**2
        for digit in self.digits(m):
            x = digit * unit
            seen = np.log(self.sample_rate) + (2 * x - 1) / s2
            total += np.logaddexp(np.log1p(-self.sample_rate), seen)
        return total

    def last_iterate(self, steps: list[Float[Array, " runs"]]) -> Any:
        """m_T in units of sigma / bins: Python integers of any length."""
        m = np.zeros(len(steps[0]), dtype=object)
        for each in steps:
            m = self.base * m + np.array([int(v) for v in each], dtype=object)
        return m

    def digits(self, m: Any) -> list[Int[Array, " runs"]]:
        """The balanced base-`base` digits, last step first."""
        half, found = self.base // 2, []
        for _ in range(self.steps):
            digit = (m + half) % self.base - half
            m = (m - digit) // self.base
            found.append(digit.astype(np.int64))
        return found


def forgetting(
    noise_multiplier: float,
    sample_rate: float,
    steps: int,
    delta: float,
    *,
    threshold: float,
    alpha: float = 1.0,
    runs: int = 10**6,
    confidence: float = 0.95,
    seed: int = 0,
) -> Forgetting:
    """C1, see `Forgetting`; alpha = 0 is a control that forgets nothing.

    Parameters
    ----------
    noise_multiplier, sample_rate, steps, delta, alpha, threshold, runs, confidence, seed
        As in `Forgetting`.
    """
    return Forgetting(
        noise_multiplier=noise_multiplier, sample_rate=sample_rate, steps=steps, delta=delta,
        threshold=threshold, alpha=alpha, runs=runs, confidence=confidence, seed=seed,
    )  # fmt: skip


def malicious_data(
    noise_multiplier: float,
    sample_rate: float,
    steps: int,
    delta: float,
    *,
    others: int = 500,
    target: float = 0.95,
    threshold: float | None = None,
    runs: int = 10**6,
    confidence: float = 0.95,
    seed: int = 0,
) -> MaliciousData:
    """C2, see `MaliciousData`; the threshold is the target unless given.

    Parameters
    ----------
    noise_multiplier, sample_rate, steps, delta, others, target, threshold, runs, confidence, seed
        As in `MaliciousData`.
    """
    return MaliciousData(
        noise_multiplier=noise_multiplier, sample_rate=sample_rate, steps=steps, delta=delta,
        threshold=target if threshold is None else threshold, others=others, target=target,
        runs=runs, confidence=confidence, seed=seed,
    )  # fmt: skip


def encoding(
    noise_multiplier: float,
    sample_rate: float,
    steps: int,
    delta: float,
    *,
    threshold: float,
    base: int = 2048,
    bins: int = 64,
    runs: int = 10**6,
    confidence: float = 0.95,
    seed: int = 0,
) -> Encoding:
    """C3, see `Encoding`.

    Parameters
    ----------
    noise_multiplier, sample_rate, steps, delta, base, bins, threshold, runs, confidence, seed
        As in `Encoding`.
    """
    return Encoding(
        noise_multiplier=noise_multiplier, sample_rate=sample_rate, steps=steps, delta=delta,
        threshold=threshold, base=base, bins=bins, runs=runs, confidence=confidence, seed=seed,
    )  # fmt: skip


_C1 = forgetting(0.3, 0.01, 16, 1e-3, threshold=0.95)
_C2 = malicious_data(0.3, 0.01, 16, 1e-3, others=2000)
_C3 = encoding(0.4, 0.02, 16, 1e-3, threshold=4.0, runs=10**5)


def _preset(made: Counterexample) -> Callable[..., Counterexample]:
    return lambda **changes: replace(made, **changes)


# Wide gaps between heuristic and truth; thresholds fixed beforehand.
PRESETS = {
    "forgetting": _preset(_C1),
    "malicious_data": _preset(_C2),
    "encoding": _preset(_C3),
}
