"""How linear a training is: what one step's perturbation does to the final model.

The last-iterate heuristic is exact if a vector added to the summed gradient of step t moves the final model
by -scale times that vector, for every t. The meter adds a unit vector at several steps, each time with the
same random numbers as the undisturbed run, and looks at the difference [derived here, in the setting of
arXiv 2410.06186].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from surefoot.privacy._checks import real
from surefoot.privacy.audit.p_value import whole

Array = np.ndarray
Verdict = Literal["OK", "strained", "violated"]
RunFn = Callable[[Mapping[int, Tensor], int], Any]
ALIGNED, LOW, HIGH, LONG = 0.9, 2 / 3, 1.5, 1.5
FAR = 5.0


@dataclass(frozen=True)
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
    verdict
        OK: all cosines above 0.9, weights within [2/3, 3/2], norms at most 3/2. Violated: largest over
        smallest weight above 5 (or a weight not positive), or a norm above 5. Strained: in between.
    """

    steps: Int[Array, " probes"]
    weights: Float[Array, " probes"]
    norms: Float[Array, " probes"]
    cosines: Float[Array, " probes"]
    verdict: Verdict

    def __str__(self) -> str:
        rows = zip(self.steps, self.weights, self.norms, strict=True)
        each = "; ".join(f"step {t}: {w:.3g} (norm {n:.3g})" for t, w, n in rows)
        return f"assumption: {self.verdict}; {each}"


def judge(weights: Float[Array, " probes"], norms: Float[Array, " probes"]) -> Verdict:
    """The verdict on these responses."""
    if not (np.isfinite(weights).all() and np.isfinite(norms).all()):
        return "violated"
    if weights.min() <= 0 or weights.max() / weights.min() > FAR or norms.max() > FAR:
        return "violated"
    straight = bool((weights > ALIGNED * norms).all()) and norms.max() <= LONG
    return "OK" if straight and weights.min() >= LOW and weights.max() <= HIGH else "strained"


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
        self.scale, self.size = real("scale", scale), real("size", size)
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
        return Linearity(at, a, n, cosines, judge(a, n))

    def _final(self, injections: Mapping[int, Tensor]) -> Float[Tensor, " P"]:
        end = self.run(injections, self.seed)
        flat: Tensor = torch.as_tensor(end).detach().flatten()
        if not torch.isfinite(flat).all():
            raise ValueError("run must return finite parameters, got NaN or infinity")
        # The caller may hand out the tensor it goes on to change.
        return flat.clone()


@dataclass(frozen=True)
class Drift:
    """How a probe's gradient changed along a run: both are 1 throughout for linear losses.

    `cosines` with the gradient at the start; `norms` after clipping, in units of the clip norm.
    """

    cosines: Float[Array, " logged"]
    norms: Float[Array, " logged"]


def gradient_drift(gradients: Float[Tensor, "logged P"], clip: float = 1.0) -> Drift:
    """Of one example's gradients at several steps of a run, the first at its start.

    Raises
    ------
    ValueError
        If the first gradient is 0 or clip is not positive.
    """
    norms = gradients.norm(dim=1)
    if not float(norms[0]) > 0 or clip <= 0:
        raise ValueError(
            f"gradients must start with one that is not 0 and clip be positive, got clip {clip}"
        )
    cosines = gradients @ gradients[0] / (norms * norms[0]).clamp(min=1e-300)
    return Drift(cosines.double().numpy(), (norms / clip).clamp(max=1.0).double().numpy())
