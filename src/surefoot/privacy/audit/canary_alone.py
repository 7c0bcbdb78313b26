"""An audit of the mechanism alone: what it releases of one example, and of none.

Among others an example is hidden by their coins too, and a noise that was forgotten goes unseen. Whoever
audits the mechanism leaves the others out: they add nothing to a sum of clipped values that is not known
to the attacker of the proof.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_real
from surefoot.privacy.audit.p_value import whole
from surefoot.privacy.audit.request import FEWEST, FOR_MANY_RUNS, Statistic, check_request
from surefoot.privacy.audit.result import AuditResult, Claimed, claim_of
from surefoot.privacy.audit.scores import audit_scores

Array = np.ndarray
# Runs by which the attacker learns the size of the noise and whether the seed gives it away; never counted.
TRIALS = 10
ALIKE = 0.5


@checked(leave=("claimed", "threshold"))
def mechanism(
    step: Callable[[bool, int], Any],
    runs: int,
    *,
    delta: float,
    method: Statistic | Sequence[Statistic] = ("clopper", "gdp", "last_iterate"),
    threshold: float | None = None,
    confidence: float = 0.95,
    seed: int,
    claimed: Claimed,
) -> AuditResult:
    """Audit what a mechanism releases of one canary, alone: `runs` times with it and as often without.

    The attacker is the one of the proof: it knows the public seed, all releases, and what the canary adds
    where it is drawn, and compares likelihoods step by step. It also tries whether the public seed gives the
    noise away, by running the mechanism again from the same seed. Everyday examples do: with a clip below
    their usual value each of them adds all that is allowed. An audit in one run with many canaries sees
    nothing here, as all of them share one number a step.

    Parameters
    ----------
    step
        `step(include, seed)` runs the mechanism from the public seed, for all its steps, on a data set of the
        canary alone or on an empty one, with coins and noise of its own. It returns what was released, an
        array (T,) or (T, K), or a pair of that and what the canary would add in each step, of the same
        shape; without the latter the canary is taken to add the same in every step. Where it has a
        `record` of the core, the facts noted there are held against the claim.
    runs
        Runs on each side.
    delta, confidence
        As in `one_run`.
    method
        As in `many_runs`.
    threshold
        As in `many_runs`; scores are logarithms of a likelihood ratio.
    seed
        Draws the public seed of every run; the result's record is kept under it.
    claimed
        (noise multiplier, sample rate, steps), or `standard(...)`.

    Raises
    ------
    ValueError
        If an argument is outside its range, or what is released is not finite or not of one shape.
    """
    runs = whole("runs", runs, FEWEST)
    statistics = (method,) if isinstance(method, str) else tuple(method)
    for each in statistics:
        if each not in FOR_MANY_RUNS:
            raise ValueError(
                f"method must be of {sorted(FOR_MANY_RUNS)} for a mechanism, got {each!r}"
            )
    check_request(
        statistics, m=2 * runs, delta=delta, threshold=threshold, confidence=confidence,
        claimed=claimed,
    )  # fmt: skip
    claim = claim_of(claimed)
    if claim is None:
        raise ValueError("claimed must say how often an example is drawn, got None")
    root = np.random.SeedSequence(whole("seed", seed, 0))
    seeds = [int(s.generate_state(1, np.uint32)[0]) for s in root.spawn(2 * runs + TRIALS)]
    steps = claim[2]
    attacker = _Attacker(step, np.broadcast_to(np.asarray(claim[1], dtype=float), steps), steps)
    attacker.learn(seeds[2 * runs :])
    included = np.arange(2 * runs) % 2 == 0
    scores = [attacker.score(bool(i), s) for i, s in zip(included, seeds, strict=False)]
    return audit_scores(
        np.array(scores), included, method=statistics, delta=delta, threshold=threshold,
        confidence=confidence, seed=seed, claimed=claimed, ran=step,
        facts={"releases": "all", "audited": "mechanism, the canary alone"},
    )  # fmt: skip


class _Attacker:
    def __init__(self, step: Callable[[bool, int], Any], q: Float[Array, " T"], steps: int) -> None:
        self.step, self.q, self.steps = step, q, steps
        self.deviation, self.seed_tells = 1.0, False

    def learn(self, seeds: Sequence[int]) -> None:
        """The size of the noise, and whether two runs from one seed have the same."""
        ones, twos = (np.array([self._released(False, s)[0] for s in seeds]) for _ in range(2))
        between = ones - twos
        # Of independent noises the difference is larger than either; of equal ones it is 0.
        self.seed_tells = bool(between.std() < ALIKE * ones.std()) or not ones.any()
        self.deviation = float((between if self.seed_tells else ones).std())

    def score(self, include: bool, seed: int) -> float:
        """log of P(released | canary) / P(released | none), its noise taken away where the seed tells it."""
        released, canary = self._released(include, seed)
        if self.seed_tells:
            released = released - self._released(False, seed)[0]
        size = np.square(canary).sum(axis=1)
        # Noise that nobody saw is as good as none: the ratio is then decided by any trace of the canary.
        variance = max(self.deviation**2, 1e-12 * float(size.max(initial=1e-300)))
        exponent = ((released * canary).sum(axis=1) - size / 2) / variance
        with np.errstate(divide="ignore"):
            out, drawn = np.log1p(-self.q), np.log(self.q)
        return float(np.logaddexp(out, drawn + exponent).sum())

    def _released(
        self, include: bool, seed: int
    ) -> tuple[Float[Array, "T K"], Float[Array, "T K"]]:
        """What one run released, and what the canary adds where it is drawn."""
        found = self.step(include, seed)
        released, canary = found if isinstance(found, tuple) else (found, None)
        values = self._checked("released", released)
        return values, np.ones_like(values) if canary is None else self._checked("added", canary)

    def _checked(self, what: str, given: Any) -> Float[Array, "T K"]:
        check_real(f"what step {what}", given)
        values: Array = np.asarray(given, dtype=float)
        values = values[:, None] if values.ndim == 1 else values
        if values.ndim != 2 or len(values) != self.steps:
            raise ValueError(
                f"step must return numbers of {self.steps} steps, as claimed, got shape {np.shape(given)}"
            )
        if not np.isfinite(values).all():
            raise ValueError(
                f"step must return finite numbers, got NaN or infinity in what it {what}"
            )
        return values
