"""One release by the Gaussian mechanism: how much noise an upload needs, and what it promises."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from scipy.special import ndtr

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number
from surefoot.prototypes.accounting import check_delta, noise_multiplier

PRIVATE = ("mean", "random", "gauss")
"""Methods of extraction with a finite sensitivity."""


@checked
@dataclass(frozen=True)
class GaussianRelease:
    """(epsilon, delta) of one upload, for neighbours that differ in one record of one class.

    Records are clipped to norm `clip`; class sizes are public; each record is in one class of one client, so
    that the epsilon of the whole upload is the largest of its classes, not their sum [derived].

    Parameters
    ----------
    epsilon
        Positive; `math.inf`: clip, no noise.
    delta
        In (0, 1); choose it below 1 / (number of records).
    clip
        C, in the unit of the embeddings; 1 fits encoders that normalise.

    Raises
    ------
    ValueError
        A number outside its range.
    """

    epsilon: float
    delta: float
    clip: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "epsilon", check_number("epsilon", self.epsilon, above=0, finite=False)
        )
        object.__setattr__(self, "delta", check_delta(self.delta))
        object.__setattr__(self, "clip", check_number("clip", self.clip, above=0))
        if math.isfinite(self.epsilon):
            noise_multiplier(
                self.epsilon, self.delta
            )  # a target that needs no known noise fails here

    @functools.cached_property
    def nu(self) -> float:
        """Noise in units of the sensitivity; 0 for an infinite epsilon."""
        if self.epsilon == math.inf:
            return 0.0
        return noise_multiplier(self.epsilon, self.delta)

    @property
    def advantage(self) -> float:
        """The most that an attacker's true positive rate exceeds the false one: 2 Phi(1/(2 nu)) - 1."""
        return 1.0 if self.nu == 0 else float(2 * ndtr(1 / (2 * self.nu)) - 1)

    @property
    def advantage_of_any(self) -> float:
        """The same for any mechanism of this (epsilon, delta): (e^eps - 1 + 2 delta)/(e^eps + 1), looser."""
        return math.tanh(self.epsilon / 2) + 2 * self.delta / (1 + math.exp(min(self.epsilon, 700)))

    def sensitivity(self, n: int, method: str = "mean") -> float:
        """The most that one record moves a statistic, in L2.

        Parameters
        ----------
        n
            Records behind it: of the class for a mean, of the client for the second moment.
        method
            "mean": 2C/n; "random": 2C, one row is one record; "moment": 2 sqrt(2) C^2/n, the Frobenius
            sensitivity of (1/n) sum z z^T with what makes it free beside the means [derived; alone it is
            half].
        """
        n = check_number("n", n, least=1, whole=True)
        check_choice("method", method, ("mean", "random", "moment"))
        if method == "moment":
            return 2 * math.sqrt(2) * self.clip**2 / n
        return 2 * self.clip / (n if method == "mean" else 1)

    def sigma(self, n: int, method: str = "mean") -> float:
        """Standard deviation of the noise on each entry, as of `sensitivity`; nu times it."""
        return self.nu * self.sensitivity(n, method)


def check_method_of_release(method: str, dp: object) -> None:
    """Refuse noise for a method that no noise makes private, and a release that is none.

    Raises
    ------
    ValueError
        With what to use instead.
    """
    if dp is not None and not isinstance(dp, GaussianRelease):
        raise ValueError(f"dp must be a GaussianRelease or None, got {dp!r}")
    if dp is not None and method not in PRIVATE:
        raise ValueError(
            f"method {method!r} has no finite sensitivity, so no noise makes it private; "
            'use method="mean", "random" or "gauss" with dp'
        )
