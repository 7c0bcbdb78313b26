"""What a client has spent of its privacy over all its releases; beyond its limit it releases no more."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot._showing import showing
from surefoot.prototypes.accounting import check_delta, epsilon_of
from surefoot.prototypes.gaussian_release import GaussianRelease

if TYPE_CHECKING:
    from surefoot.prototypes.doors.records import ConfigRecord


@showing
@checked
class Ledger:
    """Gaussian releases of the same records compose exactly: their squared shifts 1/nu^2 add up.

    Charge it before the release leaves; a charge that would exceed the limit is refused and changes nothing.

    Parameters
    ----------
    max_epsilon
        Positive; `math.inf`: count only.
    delta
        At which epsilon is stated, in (0, 1); the releases' own may be others.
    mu_squared
        What was spent before, as `mu_squared` of a ledger said.

    Attributes
    ----------
    mu_squared
        Sum of 1/nu^2.

    Raises
    ------
    ValueError
        A number outside its range.
    """

    def __init__(self, max_epsilon: float, delta: float, mu_squared: float = 0.0) -> None:
        self.max_epsilon = check_number("max_epsilon", max_epsilon, above=0, finite=False)
        self.delta = check_delta(delta)
        self.mu_squared = check_number("mu_squared", mu_squared, least=0, finite=False)

    @property
    def spent(self) -> float:
        """Epsilon at `delta` of everything charged so far."""
        return epsilon_of(self.mu_squared, self.delta)

    def charge(self, release: GaussianRelease) -> float:
        """Enter a release; returns the epsilon spent with it.

        Raises
        ------
        RuntimeError
            It would exceed `max_epsilon`; the ledger is as it was.
        """
        added = release.nu**-2 if release.nu > 0 else math.inf
        total = self.mu_squared + added
        epsilon = epsilon_of(total, self.delta)
        if epsilon > self.max_epsilon:
            raise RuntimeError(
                f"this release would bring epsilon to {epsilon:.6g} at delta {self.delta:g}, above "
                f"max_epsilon {self.max_epsilon:g} ({self.spent:.6g} spent before); it is refused: "
                "release with a smaller epsilon, or raise max_epsilon and tell those whose records these are"
            )
        self.mu_squared = total
        return epsilon

    def to_record(self) -> ConfigRecord:
        """For the state of a Flower client.

        Raises
        ------
        MissingExtraError
            Without Flower.
        """
        from surefoot.prototypes.doors.records import ledger_record

        return ledger_record(self.max_epsilon, self.delta, self.mu_squared)

    @classmethod
    def from_record(cls, record: ConfigRecord) -> Ledger:
        """The ledger of a record.

        Raises
        ------
        ValueError
            A number is missing or outside its range: what was spent is not known.
        """
        from surefoot.prototypes.doors.records import ledger_numbers

        return cls(*ledger_numbers(record))

    def __repr__(self) -> str:
        return f"Ledger(spent {self.spent:.6g} of {self.max_epsilon:g} at delta {self.delta:g})"
