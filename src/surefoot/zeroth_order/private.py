"""What makes a forward-only run private: clipped and noised scalars, one a step, and Poisson batches.

DP-LOZO: LOZO (arXiv 2410.07698) with the private scalar of DPZero (arXiv 2310.09639) and DP-ZO (arXiv
2401.04343). Here is the mechanism only; what it leaks is accounted by `surefoot.privacy`, from the facts that
the run notes.
"""

from __future__ import annotations

import math
import os
import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot._numerics.secret import is_secret

# Draws that were handed out and not yet used, at most: a loader may read ahead.
AHEAD = 1 << 12
COIN = 1 << 53
# Within these, a release and its noise are numbers of float32.
LEAST, MOST = 1e-25, 1e25


@dataclass
class Draws:
    """What a sampler has drawn and a step has not used yet; None: no sampler was made.

    Attributes
    ----------
    sizes
        How many examples each batch has.
    secret
        Whether nobody knows the coins.
    """

    sizes: deque[int] | None = None
    secret: bool = True


@checked
@dataclass(frozen=True, eq=False)
class Privacy:
    """The private release of a step: s = sum over the batch of clip(c_i, C) + sigma C xi; c = s / (q N).

    It cannot be changed: what a run notes of it at its first step holds for all.

    Every example of the batch gives one number c_i a direction, the difference of its two losses over 2 eps,
    clipped to C in L2 over the directions. Adding or removing an example changes the sum by at most C,
    whatever the model: the sum is taken on a grid on which it is exact. What leaves a step is s alone.

    Losses are taken to be functions of their own example. In floating point a row's loss may differ in its
    last digits with the other rows of its batch, as in every such implementation; that is not accounted for.
    Nor is the finite precision of the Gaussian's draws.

    Parameters
    ----------
    noise_multiplier
        sigma: the noise has the standard deviation sigma C. 0 releases the sum as it is: nothing is private.
    clip
        C, in units of c. Choose it on public data: near the 80 % quantile of |c_i|, times the square root of
        the directions. math.inf clips nothing, and is allowed without noise only.
    sample_rate
        q: the probability with which each example is in a batch, by its own coin.
    population
        N: how many examples there are, or a public lower bound on it. The divisor q N is a constant; to
        divide by the batch at hand would release its size.
    secret
        What the noise is drawn from; None: the operating system's own generator, which has no seed. A
        generator that is given has been seeded by somebody, and the run's facts say so, unless it is one of
        `surefoot`'s own with the operating system's state.

    Raises
    ------
    ValueError
        A number outside of its range, or noise without a finite clip.
    """

    noise_multiplier: float
    clip: float
    sample_rate: float
    population: int
    secret: torch.Generator | None = None
    draws: Draws = field(default_factory=Draws, init=False, repr=False)

    def __post_init__(self) -> None:
        for name, given in (
            ("noise_multiplier", check_number("noise_multiplier", self.noise_multiplier, least=0)),
            ("clip", check_number("clip", self.clip, above=0, finite=False)),
            ("sample_rate", check_number("sample_rate", self.sample_rate, above=0, most=1)),
            ("population", check_number("population", self.population, least=1, whole=True)),
        ):
            # As plain numbers, which a log's header can hold.
            object.__setattr__(self, name, given)
        if math.isfinite(self.clip) and not LEAST <= self.clip <= MOST:
            raise ValueError(
                f"clip must be between {LEAST:g} and {MOST:g}, or infinite without noise, got {self.clip}: "
                "releases are float32"
            )
        if self.noise_multiplier and math.isinf(self.clip):
            raise ValueError(
                f"clip must be finite where there is noise, got inf with noise_multiplier "
                f"{self.noise_multiplier}: without a clip one example may move the sum by any amount"
            )

    @property
    def divisor(self) -> float:
        """B = q N, what every sum is divided by."""
        return self.sample_rate * self.population

    def noise(self, count: int) -> np.ndarray:
        """sigma C xi: that many numbers, from the secret generator."""
        if not self.noise_multiplier:
            return np.zeros(count)
        scale = self.noise_multiplier * self.clip
        if self.secret is None:
            system = random.SystemRandom()
            drawn = [system.gauss(0.0, 1.0) for _ in range(count)]
        else:
            drawn = torch.randn(count, generator=self.secret, dtype=torch.float64).tolist()
        return scale * np.array(drawn)

    def sampler(
        self,
        rows: int | None = None,
        *,
        steps: int | None = None,
        secret: torch.Generator | None = None,
    ) -> PoissonSampler:
        """A sampler of this rate, of which a step knows: the run then notes how its batches were drawn.

        Parameters
        ----------
        rows
            How many examples it draws from: the population, or a site's own part of it.
        steps
            How many batches it gives; None: about one pass, 1 / q.
        secret
            What the coins are tossed with; None: the operating system's own generator.

        Raises
        ------
        ValueError
            A number outside of its range.
        """
        made = PoissonSampler(
            self.population if rows is None else rows, self.sample_rate, steps=steps, secret=secret
        )
        made.handed = self.draws.sizes = deque(maxlen=AHEAD)
        self.draws.secret = secret is None or is_secret(secret)
        return made

    def to_dict(self) -> dict[str, float | int]:
        """What of it is public, and a run that goes on must share."""
        return {
            "noise_multiplier": self.noise_multiplier, "clip": self.clip,
            "sample_rate": self.sample_rate, "population": self.population,
        }  # fmt: skip


@checked
class PoissonSampler(torch.utils.data.Sampler[list[int]]):
    """Batches in which each example is by its own coin: a torch batch sampler that keeps empty batches.

    To be given as `batch_sampler` to a DataLoader, whose `collate_fn` must then know an empty batch (see
    `keeping_empty`), or to be looped over by itself.

    Parameters
    ----------
    population
        How many examples there are.
    sample_rate
        q, the probability of each.
    steps
        How many batches; None: 1 / q of them, about one pass.
    secret
        What the coins are tossed with; None: the operating system's own generator, so that nobody who knows
        the run's seed knows who was in a batch.

    Raises
    ------
    ValueError
        A number outside of its range.
    """

    def __init__(
        self,
        population: int,
        sample_rate: float,
        *,
        steps: int | None = None,
        secret: torch.Generator | None = None,
    ) -> None:
        self.population = check_number("population", population, least=0, whole=True)
        self.sample_rate = check_number("sample_rate", sample_rate, above=0, most=1)
        self.steps = max(1, round(1 / self.sample_rate))
        if steps is not None:
            self.steps = check_number("steps", steps, least=1, whole=True)
        self.secret = secret
        self.handed: deque[int] | None = None

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        for _ in range(self.steps):
            yield self.draw()

    def draw(self) -> list[int]:
        """The rows of one batch, in ascending order; it may be empty."""
        n = self.population
        if self.secret is None:
            coins = np.frombuffer(os.urandom(8 * n), dtype=np.uint64) >> np.uint64(11)
        else:
            tossed = torch.randint(COIN, (n,), generator=self.secret, dtype=torch.int64)
            coins = tossed.numpy().astype(np.uint64)
        # Rounded down: an example is never in with more than the probability that is accounted for.
        found: list[int] = np.flatnonzero(
            coins < np.uint64(math.floor(self.sample_rate * COIN))
        ).tolist()
        if self.handed is not None:
            self.handed.append(len(found))
        return found


def keeping_empty(collate: Callable[[list[Any]], Any]) -> Callable[[list[Any]], Any]:
    """A `collate_fn` of a DataLoader that hands an empty batch on as [], which `step(closure, [])` takes.

    Parameters
    ----------
    collate
        What makes a batch of some examples, such as `torch.utils.data.default_collate`.
    """
    return _KeepingEmpty(collate)


class _KeepingEmpty:
    # A class, so that a loader's workers can be sent it.
    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, examples: list[Any]) -> Any:
        return self.collate(examples) if examples else []
