"""The shared idea: what a theorem promises, under which conditions, and the words for the outcome."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from jaxtyping import Float

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number

if TYPE_CHECKING:
    from surefoot.record import Fact, Record

Sense = Literal["upper", "lower", "equal"]
HoldsIn = Literal["every run", "expectation"]
Law = Literal["light-tailed"]
Curve = (
    float
    | Float[np.ndarray, " steps"]
    | Float[np.ndarray, "seeds steps"]
    | Float[np.ndarray, "seeds 1"]
)


class Verdict(enum.StrEnum):
    """How a promise and a run compare.

    KEPT: the measurements are within the bound wherever it was checked. BROKEN: they are evidence
    against it. UNDECIDED: neither, yet. VACUOUS: the bound says less than something trivial.
    NOT_PROMISED: a condition of the theorem fails on this run, so nothing was promised.
    """

    KEPT = "KEPT"
    BROKEN = "BROKEN"
    UNDECIDED = "UNDECIDED"
    VACUOUS = "VACUOUS"
    NOT_PROMISED = "NOT_PROMISED"


@checked(nan=True)
@dataclass(frozen=True)
class Assumption:
    """One condition of a theorem, as measured on this run.

    Parameters
    ----------
    name
        The condition, for instance "L-smooth along the path".
    requires
        What the theorem asks for, for instance "lr <= 1 / L".
    measured
        The number that was measured, or None where there is none.
    holds
        None where nobody can measure it here; the certificate then says so.
    how
        How it was measured, for instance "Lanczos, 20 Hessian-vector products, every 50 steps".
    """

    name: str
    requires: str
    measured: float | None
    holds: bool | None
    how: str

    def __post_init__(self) -> None:
        # NumPy's False is not False: a condition measured with arrays must not pass unseen.
        if self.measured is not None:
            object.__setattr__(self, "measured", float(self.measured))
        if self.holds is not None:
            object.__setattr__(self, "holds", bool(self.holds))


def assume_fact(
    record: Record,
    fact: str,
    name: str,
    requires: str,
    holds: Callable[[Fact], bool],
    *,
    of: str = "",
    measured: Callable[[Fact], float] | None = None,
) -> Assumption:
    """A condition on what ran, as its record says it.

    It holds if it holds for every value that every seed noted, and fails if it fails for one. Where a seed
    says nothing it is None: nothing favourable is assumed of what was not recorded.

    Parameters
    ----------
    record
        The run.
    fact, of
        The name under which `Record.note` has it.
    name, requires
        As in `Assumption`.
    holds
        The condition, of one value.
    measured
        What to print as its measure; by default the value itself if it is one number for all seeds.
    """
    known = record.fact(fact, of)
    verdicts = {v: bool(holds(v)) for v in known.all}
    if not all(verdicts.values()):
        state: bool | None = False
    else:
        state = True if known.all and not known.missing else None
    show = measured or (
        lambda v: float(v) if isinstance(v, (int, float)) and not isinstance(v, bool) else math.nan
    )
    numbers = [show(v) for v in known.all]
    number = numbers[0] if len(numbers) == 1 and not math.isnan(numbers[0]) else None
    return Assumption(name, requires, number, state, f"recorded: {known}")


def assume_plain_gradients(record: Record, of: str = "") -> tuple[Assumption, ...]:
    """Where a record says that sums were clipped per example and noised: that a theorem of others fails.

    Empty where it says nothing of the kind, or says that the noise was 0 and the clip norm infinite.

    Parameters
    ----------
    record, of
        The run.
    """
    names = ("clipping", "clip_norm", "noise_multiplier", "history")
    clipping, norm, noise, history = known = [record.fact(name, of) for name in names]
    clipped = "per example" in clipping.all and norm.all != (math.inf,)
    if not clipped and not any(noise.all) and not history.all:
        return ()
    how = "clipped per example and noised: " + "; ".join(str(k) for k in known if k.all)
    return (Assumption("plain gradients", "neither clipped nor noised", None, False, how),)


@checked
@dataclass(frozen=True)
class Guarantee:
    """A theorem as a function of a record.

    Parameters
    ----------
    name
        Short name, unique within a study.
    statement
        The theorem in one line of mathematics, plain text.
    source
        Where it stands, for instance "arXiv 2410.08395, Theorem 10".
    quantity
        The record column it speaks of.
    sense
        "upper": measured <= bound; "lower": measured >= bound; "equal": measured = bound.
    holds_in
        "every run" (each seed is compared directly) or "expectation" (the mean over seeds is
        tested, see `surefoot._verdict`). The quantity of an expectation must be one that is never negative,
        but for rounding: of others no mean can be tested.
    bound
        The promised curve over the steps that all seeds recorded (`Record.curves`): one row for all
        seeds or one a seed, or a number in its place. It must be positive where the claim is about
        an expectation, and then fixed beforehand or each seed's own: a bound that averages what the seeds
        happened to record is itself random, and no verdict on it holds.
    assumptions
        The conditions, as measured on this run.
    heuristic
        A claim without a proof: labelled so everywhere, can be refuted, never proven.
    trivial
        What holds without any theorem (the initial value, a probability of 1). A bound that is
        nowhere stronger than this is VACUOUS.
    value_range
        The range (0, c) that the theorem itself gives for the quantity of every run, for instance a gap
        that never rises above its start: two numbers, or c as a curve computed from the record, infinite
        where the record shows that there is none. KEPT is
        then a matter of bets that no law can mislead and that hold whenever one stops, and a run above
        c is BROKEN. "lower" and "equal" need it for BROKEN.
    law
        "light-tailed": the theorem's own law leaves no rare low values (no heavy right tail for "lower" and
        "equal"), so that Student's limits may call an excess BROKEN; the verdict says so. Give it only
        where that law is derived.
    tolerance
        Relative tolerance of the comparison: rounding for "upper" and "lower", the half-width of
        the equivalence region for "equal".
    atol
        Absolute tolerance of an "every run" comparison in the unit of the quantity, where the claim itself
        names one. Rounding needs none: a few eps of the recorded dtype are forgiven.
    size
        The size of the numbers from which the two sides were computed, where that is larger than both: a
        difference of two losses rounds like the losses.
    of
        Which of several that ran in the record; its fact "dtype" tells the precision.
    latex
        The statement in LaTeX, for the report.
    axis
        The quantity as an axis says it, with its unit if it has one, for instance "f(x_n) - f*" or "bytes
        sent"; None: the name of the column.
    """

    name: str
    statement: str
    source: str
    quantity: str
    sense: Sense
    holds_in: HoldsIn
    bound: Callable[[Record], Curve]
    assumptions: Callable[[Record], tuple[Assumption, ...]] = lambda record: ()
    heuristic: bool = False
    trivial: Callable[[Record], Curve] | float | None = None
    value_range: tuple[float, float] | Callable[[Record], Curve] | None = None
    law: Law | None = None
    tolerance: float = 1e-9
    atol: float = 0.0
    size: Callable[[Record], Curve] | float = 0.0
    of: str = ""
    latex: str | None = None
    axis: str | None = None

    def __post_init__(self) -> None:
        for name in ("bound", "assumptions"):
            if not callable(getattr(self, name)):
                raise TypeError(
                    f"{name} must be a function of the record, got {getattr(self, name)!r}; "
                    "for a number write lambda record: 1.0"
                )
        for name in ("tolerance", "atol"):
            if not isinstance(getattr(self, name), (int, float)):
                raise TypeError(f"{name} must be a number, got {getattr(self, name)!r}")
        if not callable(self.size):
            check_number("size", self.size, least=0)
        if not callable(self.value_range) and not isinstance(self.value_range, (tuple, type(None))):
            raise ValueError(
                "value_range must be (0, c) with 0 < c < inf, or a function of the record, "
                f"got {self.value_range!r}"
            )
        if self.sense not in get_args(Sense):
            raise ValueError(f"sense must be one of {get_args(Sense)}, got {self.sense!r}")
        if self.holds_in not in get_args(HoldsIn):
            raise ValueError(f"holds_in must be one of {get_args(HoldsIn)}, got {self.holds_in!r}")
        if not 0 <= self.tolerance < 1 or not 0 <= self.atol < math.inf:
            raise ValueError(
                "tolerance must be in [0, 1) and atol in [0, inf), "
                f"got {self.tolerance} and {self.atol}"
            )
        if self.law is not None and self.law not in get_args(Law):
            raise ValueError(f"law must be None or one of {get_args(Law)}, got {self.law!r}")
        if isinstance(self.value_range, tuple) and not (
            len(self.value_range) == 2
            and all(isinstance(v, (int, float)) for v in self.value_range)
            and self.value_range[0] == 0
            and 0 < self.value_range[1] < math.inf
        ):
            raise ValueError(f"value_range must be (0, c) with 0 < c < inf, got {self.value_range}")
        if self.holds_in == "every run" and (self.value_range or self.law) is not None:
            raise ValueError(
                "value_range and law are about a mean; a claim on every run compares each seed directly"
            )
        if self.holds_in == "expectation" and self.atol:
            raise ValueError("atol is for claims on every run; of a mean give size or tolerance")
