"""How linear a training is: what one step's perturbation does to the final model.

The last-iterate heuristic is exact if a vector added to the summed gradient of step t moves the final model
by -scale times that vector, for every t. The meter adds a unit vector at several steps, each time with the
same random numbers as the undisturbed run, and looks at the difference [derived here, in the setting of
arXiv 2410.06186].
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot._numerics.sizes import wide
from surefoot._showing import showing
from surefoot.guarantee import Assumption, Guarantee, Verdict
from surefoot.privacy.audit.p_value import whole
from surefoot.privacy.facts import copy_facts, record_of
from surefoot.privacy.result import HONESTY
from surefoot.record import Record

if TYPE_CHECKING:
    from surefoot.certificate import Certificate

Array = np.ndarray
Finding = Literal["OK", "strained", "violated"]
RunFn = Callable[[Mapping[int, Tensor], int], Any]
ALIGNED, LOW, HIGH, LONG = 0.9, 2 / 3, 1.5, 1.5
FAR = 5.0
RESPONSE, LENGTH, UNEVEN = "response along the perturbation", "length of the response", "unevenness"


@showing
@checked(nan=True)
@dataclass(frozen=True, repr=False)
class Linearity:
    """What the meter read.

    Attributes
    ----------
    steps
        The probed steps.
    weights
        Response along the injected vector, in units of scale: a_t, which `last_iterate(weights=...)` takes.
    norms
        Length of the response: a network may answer in other directions too.
    cosines
        weights / norms.
    finding
        OK: all cosines above 0.9, weights within [2/3, 3/2], norms at most 3/2. Violated: largest over
        smallest weight above 5 (or a weight not positive), or a norm above 5. Strained: in between.
    verdict
        KEPT where OK, BROKEN where violated, UNDECIDED where strained.
    record
        Weight, norm and unevenness of every probed step, and the finding as the fact `linearity`.
    """

    steps: Int[Array, " probes"]
    weights: Float[Array, " probes"]
    norms: Float[Array, " probes"]
    cosines: Float[Array, " probes"]
    finding: Finding
    record: Record = field(default_factory=Record, compare=False, repr=False)

    @property
    def verdict(self) -> Verdict:
        """Of the claim that the training is linear; strained is neither."""
        found = {"OK": Verdict.KEPT, "violated": Verdict.BROKEN}
        return found.get(self.finding, Verdict.UNDECIDED)

    def certificates(self) -> list[Certificate]:
        """That no step's response is far from the others or from what was injected.

        A strained reading keeps that bound and is UNDECIDED: it is not close to linear either.
        """
        from surefoot.certificate import certify

        found = certify(self.record, linearity_claim())
        if self.finding == "strained":
            words = "strained: between what counts as linear and what counts as violated"
            found = dataclasses.replace(found, verdict=self.verdict, reason=words)
        return [found]

    def __str__(self) -> str:
        rows = zip(self.steps, self.weights, self.norms, strict=True)
        each = "; ".join(f"step {t}: {w:.3g} (norm {n:.3g})" for t, w, n in rows)
        return f"assumption: {self.finding}; {each}\n  {HONESTY}"

    __repr__ = __str__


def unevenness(
    weights: Float[Array, " probes"], norms: Float[Array, " probes"]
) -> Float[Array, " probes"]:
    """How far each step is from linear: 1 is linear, above 5 violated, infinite for a weight below 0.

    The larger of its response's length and of the ratio between the largest weight and its own.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(weights > 0, weights.max() / weights, math.inf)
        far = np.maximum(ratio, norms)
    return np.asarray(np.where(np.isfinite(far), far, math.inf))


def linearity_claim(quantity: str = UNEVEN, *, of: str = "", name: str | None = None) -> Guarantee:
    """A training is not far from linear: no response is five times another, or five times too long.

    The threshold is a choice of this library, not a theorem: a heuristic claim.

    Parameters
    ----------
    quantity
        The record column with the unevenness of every probed step.
    of
        Whose facts, where the record holds several trainings.
    name
        Of the guarantee.
    """
    return Guarantee(
        name=name or "the training is not far from linear",
        statement=f"max(a) / a_t <= {FAR:g} and |response_t| <= {FAR:g} for every probed step t",
        latex=rf"\max_s a_s / a_t \le {FAR:g},\ \|\mathrm{{response}}_t\| \le {FAR:g}",
        source="derived here, in the setting of arXiv 2410.06186 (linear losses)",
        quantity=quantity,
        sense="upper",
        holds_in="every run",
        bound=lambda record: FAR,
        assumptions=lambda record: (
            Assumption(
                "probed steps", "the steps between the probed ones answer alike", None, None,
                f"recorded: {record.fact('probes', of)}; {record.fact('training_steps', of)}",
            ),
        ),
        heuristic=True,
    )  # fmt: skip


def judge(weights: Float[Array, " probes"], norms: Float[Array, " probes"]) -> Finding:
    """The finding for these responses."""
    if not (unevenness(weights, norms) <= FAR).all():
        return "violated"
    straight = bool((weights > ALIGNED * norms).all()) and norms.max() <= LONG
    return "OK" if straight and weights.min() >= LOW and weights.max() <= HIGH else "strained"


@checked
class LinearityMeter:
    """Measures a training function of yours.

    Parameters
    ----------
    run
        `run(injections, seed)` returns the final flat parameter vector after adding each given vector to the
        summed gradient of its step (before the division by the expected batch size). The same seed
        must give the same batches and noise.
    steps
        T.
    scale
        What turns a summed gradient into a move: learning rate over expected batch size, eta / (q n). With a
        schedule, that of the last step.
    probes
        How many steps to perturb, evenly spaced, first and last among them; each costs one run.
    seed
        Of all runs and of the injected directions; the reading's record is kept under it.
    size
        Length of the injected vectors: the clip norm.

    Raises
    ------
    ValueError
        If an argument is outside its range, or the runs are not repeatable or not finite.
    """

    def __init__(
        self,
        run: RunFn,
        steps: int,
        *,
        scale: float = 1.0,
        probes: int = 10,
        seed: int = 0,
        size: float = 1.0,
    ) -> None:
        self.run = run
        self.steps = whole("steps", steps, 1)
        self.scale, self.size = check_number("scale", scale), check_number("size", size)
        if self.scale <= 0 or self.size <= 0:
            raise ValueError(f"scale and size must be positive, got {scale} and {size}")
        self.probes, self.seed = whole("probes", probes, 1), whole("seed", seed, 0)

    def measure(self) -> Linearity:
        """1 + probes runs, and one more to see that a seed repeats."""
        plain = self._final({})
        if not torch.equal(plain, self._final({})):
            raise ValueError(
                "run must be repeatable: two runs with the same seed ended in different parameters"
            )
        generator = torch.Generator().manual_seed(self.seed)
        at = np.unique(np.round(np.linspace(0, self.steps - 1, self.probes)).astype(int))
        weights, norms = [], []
        for step in at:
            direction = torch.randn(len(plain), generator=generator, dtype=plain.dtype)
            direction /= direction.norm()
            moved = self._final({int(step): -self.size * direction}) - plain
            moved /= self.scale * self.size
            weights.append(float(moved @ direction))
            norms.append(float(moved.norm()))
        a, n = np.array(weights), np.array(norms)
        cosines = np.divide(a, n, out=np.zeros_like(a), where=n > 0)
        finding = judge(a, n)
        return Linearity(at, a, n, cosines, finding, self._recorded(at, a, n, finding))

    def _recorded(
        self,
        at: Int[Array, " probes"],
        weights: Float[Array, " probes"],
        norms: Float[Array, " probes"],
        finding: Finding,
    ) -> Record:
        record, steps = Record(), [int(step) for step in at]
        for name, values in (
            (RESPONSE, weights), (LENGTH, norms), (UNEVEN, unevenness(weights, norms)),
        ):  # fmt: skip
            record.extend(self.seed, name, values.tolist(), steps)
        record.note(
            self.seed, linearity=finding, probes=len(steps), training_steps=self.steps,
            scale=self.scale, injected_norm=self.size,
        )  # fmt: skip
        if (trained := record_of(self.run)) is not None:
            copy_facts(trained, record, self.seed)
        return record

    def __repr__(self) -> str:
        return f"LinearityMeter of {self.steps} steps, {self.probes} probes\n  {HONESTY}"

    def _final(self, injections: Mapping[int, Tensor]) -> Float[Tensor, " P"]:
        end = self.run(injections, self.seed)
        flat = wide(torch.as_tensor(end).detach().flatten())
        if not torch.isfinite(flat).all():
            raise ValueError("run must return finite parameters, got NaN or infinity")
        # The caller may hand out the tensor it goes on to change.
        return flat.clone()


@showing
@dataclass(frozen=True, repr=False)
class Drift:
    """How a probe's gradient changed along a run: both are 1 throughout for linear losses.

    `cosines` with the gradient at the start; `norms` after clipping, in units of the clip norm.
    """

    cosines: Float[Array, " logged"]
    norms: Float[Array, " logged"]

    def __repr__(self) -> str:
        each = "; ".join(
            f"cosine {c:.3g} (norm {n:.3g})" for c, n in zip(self.cosines, self.norms, strict=True)
        )
        return f"gradients: {each}\n  {HONESTY}"


def gradient_drift(gradients: Float[Tensor, "logged P"], clip: float = 1.0) -> Drift:
    """Of one example's gradients at several steps of a run, the first at its start.

    Raises
    ------
    ValueError
        If the first gradient is 0 or clip is not positive.
    """
    gradients = gradients.double()
    norms = gradients.norm(dim=1)
    if not float(norms[0]) > 0 or clip <= 0:
        raise ValueError(
            f"gradients must start with one that is not 0 and clip be positive, got clip {clip}"
        )
    cosines = gradients @ gradients[0] / (norms * norms[0]).clamp(min=1e-300)
    return Drift(cosines.numpy(), (norms / clip).clamp(max=1.0).numpy())
