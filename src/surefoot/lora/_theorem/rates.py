"""Constants of the problem, and the rates as curves over the steps of a record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from surefoot.guarantee import Assumption
from surefoot.lora._theorem.conditions import believed
from surefoot.lora._theorem.settings import Settings, column, extreme, settings_of
from surefoot.lora.bounds import RateLaw, largest_step, rac_bound
from surefoot.record import Record

Bound = Callable[[Record], Float[np.ndarray, "seeds steps"]]


@dataclass(frozen=True)
class Constants:
    """What a run cannot know of its problem, and how it came to be known.

    `how_L` and so on beginning with "exact" are believed; anything else counts as an estimate that nobody
    can certify.

    Parameters
    ----------
    L, mu
        Smoothness in the adapted weights jointly (of every part for "rr", of every client for "fed"),
        and the PL constant.
    sigma2
        Variance of the gradient, of use for the laws with noise; None: the largest `variance` on record.
    zeta2
        Spread of the clients' gradients, for the law "fed"; None: the largest `zeta2` on record.
    how_L, how_mu, how_sigma2
        How they are known; the last one counts for zeta2 too.
    """

    L: float
    mu: float | None = None
    sigma2: float | None = 0.0
    zeta2: float | None = None
    how_L: str = "exact"
    how_mu: str = "exact"
    how_sigma2: str = "exact"

    def noise(self, record: Record, of: str, law: RateLaw, steps: int) -> float:
        """Variance as the bounds count it: sigma^2, and N zeta^2 of N local steps with it.

        Parameters
        ----------
        record, of
            Where it was measured, if it was not told.
        law
            Exact gradients have none.
        steps
            N.
        """
        if law == "gd":
            return 0.0
        sigma2 = measured(self.sigma2, record, "variance", of)
        return sigma2 + (steps * measured(self.zeta2, record, "zeta2", of) if law == "fed" else 0.0)


def measured(told: float | None, record: Record, name: str, of: str) -> float:
    found = extreme(record, name, of, "largest") if told is None else told
    if found is None:
        raise ValueError(
            f"neither a constant nor the record says {column(name, of)}, and nothing is promised "
            "without it"
        )
    return found


def of_problem(c: Constants, law: RateLaw, *, pl: bool) -> tuple[Assumption, ...]:
    found = [believed("smooth", "f is L-smooth in the adapted weights", c.L, c.how_L)]
    # The largest of those that a run measured is no bound on the variance wherever it might have gone.
    seen = "the largest on record, where it was measured"
    if law != "gd":
        how = seen if c.sigma2 is None else c.how_sigma2
        found.append(believed("noise", "variance <= sigma2", c.sigma2, how))
    if law == "fed":
        how = seen if c.zeta2 is None else c.how_sigma2
        found.append(believed("clients", "spread <= zeta2", c.zeta2, how))
    if pl:
        found.append(believed("PL", "|grad f|^2 >= 2 mu (f - f*)", c.mu, c.how_mu))
    return tuple(found)


def rate(c: Constants, law: RateLaw, which: str, of: str) -> Bound:
    def bound(record: Record) -> Float[np.ndarray, "seeds steps"]:
        found = record.curves(column("gap" if which == "gap" else "mean_grad_norm2", of))
        seeds = [int(s) for s in found.seeds]
        gaps = record.curves(column("gap", of))
        if not set(seeds) <= {int(s) for s in gaps.seeds} or gaps.steps[:1].tolist() != [0]:
            raise ValueError(f"the record does not say {column('gap', of)} at block 0")
        first = {int(s): float(row[0]) for s, row in zip(gaps.seeds, gaps.values, strict=True)}
        rows = [
            _promised(c, law, which, s, found.steps, first[i], c.noise(record, of, law, s.steps))
            for i, s in zip(seeds, settings_of(record, of, seeds), strict=True)
        ]
        return np.stack(rows)

    return bound


def _promised(
    c: Constants,
    law: RateLaw,
    which: str,
    s: Settings,
    steps: np.ndarray,
    gap0: float,
    noise: float,
) -> Float[np.ndarray, " steps"]:
    # Outside its range the theorem says nothing; the assumption reports that, not the curve.
    gamma = min(s.gamma, largest_step(law, c.L, s.steps) / max(1.0, s.lam))
    epochs = law in ("rr", "fed")
    found = rac_bound(
        steps, law, L=c.L, gamma=gamma, lam=s.lam, gap0=gap0, mu=c.mu if which == "gap" else None,
        lam_max=s.noise_share(not epochs), sigma2=noise, local_steps=s.steps if epochs else 1,
    )  # fmt: skip
    return np.asarray(found.gap if which == "gap" else found.grad_norm2)
