"""What to do next where a ledger does not end in KEPT."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, log

import numpy as np
from jaxtyping import Float

from surefoot.nesterov._ledger.landscape import VACUOUS, Circumstances, LandscapeVerdict


def next_step(
    found: LandscapeVerdict, terms: Mapping[str, Float[np.ndarray, " N"]], about: Circumstances
) -> str | None:
    """What would let the ledger say more; None: nothing, or the verdict says it itself.

    Parameters
    ----------
    found
        The verdict on the landscape.
    terms
        The ledger, one entry a recorded step.
    about
        What it was taken in.
    """
    if found.landscape == "vacuous":
        # Where rounding ended the judging, more steps would be judged as little.
        return (
            None if found.stopped else f"train longer, for at least {steps_needed(about.s)} steps"
        )
    if found.landscape.startswith("unknown"):
        return _what_is_missing(found.landscape, about)
    if not found.landscape.startswith("not-benign"):
        return None
    judged = slice(0, found.judged)
    if found.term in ("smoothness", "curvature") and about.foreign:
        return (
            "the gradients were not those of the closure (minibatches?): take full gradients, before any "
            "other step size"
        )
    if found.term == "smoothness":
        needed = float(np.nanmax(terms["L_needed"][judged], initial=0.0))
        return f"use eta <= {1 / needed:.4g}" if needed > 0 else None
    if found.term == "aiming":
        met = terms["mu_aim"][judged]
        mu = float(np.nanmin(met, initial=np.inf))
        return f"try mu = {mu:.4g}, the least that was met" if 0 < mu < np.inf else None
    if found.term == "drift":
        return 'the anchor moved: pass anchor= one minimiser, or "final"'
    return "try a smaller eta, or pass anchor= the minimiser that the run goes to"


def _what_is_missing(unknown: str, about: Circumstances) -> str | None:
    if about.f_star is None:
        return "pass f_star=, the infimum of f"
    if "is not the infimum" in unknown:
        return f"pass an f_star= of at most {about.lowest:.6g}"
    if "the anchor is no minimiser" in unknown:
        return (
            "train longer, so that the run ends at a minimiser, or pass anchor= one, or f_star= the infimum "
            "that f has"
        )
    if "the replay did not end" in unknown:
        return "take full gradients, or pass anchor= a minimiser, which needs no replay"
    return None


def steps_needed(s: float) -> int:
    """The steps after which (1 - s)^N promises at least a factor ten."""
    return ceil(log(VACUOUS) / log(1 - s)) + 1 if 0 < s < 1 else 2
