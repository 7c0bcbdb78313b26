"""What a ledger says about the landscape: benign, and if not, which hypothesis failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from surefoot.nesterov._ledger.lyapunov import HYPOTHESES

FAILS = 1e-10
ROUNDING = 1e-24
NEAR_ANCHOR = 1e4
ANCHOR_MISS = 1e-6
VACUOUS = 0.1


@dataclass(frozen=True)
class Circumstances:
    """What the terms alone do not tell.

    `anchor_gap` is f(anchor) - f* (0 for anchors that are minimisers by construction);
    `final_anchor` says that the anchor is the last iterate, so that judging must stop near it;
    `unknown` names what is missing, if anything is; `diverged` that the run ended above its start.
    """

    s: float
    alpha: float
    f0_gap: float
    anchor_gap: float = 0.0
    final_anchor: bool = False
    unknown: str | None = None
    diverged: bool = False


@dataclass(frozen=True)
class LandscapeVerdict:
    """The landscape's verdict as one string, with the evidence it rests on."""

    landscape: str
    judged: int
    failures: dict[str, int]
    term: str | None
    window: tuple[int, int] | None
    first_benign_step: int | None


def contributions(
    terms: Mapping[str, Float[np.ndarray, " N"]], s: float
) -> dict[str, Float[np.ndarray, " N"]]:
    """The share of each hypothesis in the total of a step."""
    return {
        "aiming": s * terms["A"],
        "curvature": (1 - s) * terms["C"] + terms["K"],
        "smoothness": terms["D"],
        "drift": terms["T"],
    }


def judged_steps(L: Float[np.ndarray, " N"], about: Circumstances) -> int:
    """How many steps count: judging stops for good where rounding, or the anchor's own gap, rules."""
    stop = ROUNDING * L[0] > L
    if about.final_anchor:
        stop |= NEAR_ANCHOR * about.anchor_gap > L
    return int(np.argmax(stop)) if stop.any() else len(L)


def longest_window(failed: Bool[np.ndarray, " N"]) -> tuple[int, int] | None:
    """First and last step of the longest run of steps without failure."""
    best: tuple[int, int] | None = None
    start = 0
    for n, bad in enumerate([*failed, True]):
        if bad:
            if n > start and (best is None or n - 1 - start > best[1] - best[0]):
                best = (start, n - 1)
            start = n + 1
    return best


def judge_landscape(
    terms: Mapping[str, Float[np.ndarray, " N"]], about: Circumstances
) -> LandscapeVerdict:
    """Judge recorded terms (keys A, C, D, K, T, total, L, f_x) of consecutive or sampled steps.

    Thresholds are fixed: a hypothesis fails at n if its value exceeds 1e-10 L_n.
    Precedence: unknown, vacuous, benign, benign-by-ledger, not-benign, benign-on.
    """
    s, L = about.s, np.asarray(terms["L"])
    share = contributions(terms, s)
    if about.diverged:
        early = _failed_without_anchor(share, terms, about)
        if early is not None:
            return early
    missing = about.unknown
    if missing is None and (not len(L) or not L[0] > 0):
        missing = "nothing to certify, the start is a minimiser"
    if missing is None and not np.isfinite(L).all():
        missing = "a value is not finite"
    if missing is None and about.anchor_gap > ANCHOR_MISS * about.f0_gap:
        missing = (
            f"the anchor is no minimiser: f(anchor) - f* = {about.anchor_gap:.3g} exceeds "
            f"1e-6 (f(x_0) - f*) = {ANCHOR_MISS * about.f0_gap:.3g}"
        )
    if missing is not None:
        return LandscapeVerdict(f"unknown: {missing}", 0, _none(), None, None, None)

    judged = judged_steps(L, about)
    if judged == 0:
        return LandscapeVerdict("unknown: no step to judge", 0, _none(), None, None, None)
    limit = FAILS * L[:judged]
    failed = {h: share[h][:judged] > limit for h in HYPOTHESES}
    # Aiming is judged on its own value, not on its share s A_n in the total.
    failed["aiming"] = np.asarray(terms["A"])[:judged] > limit
    total = np.asarray(terms["total"])[:judged] > limit
    failures = {h: int(f.sum()) for h, f in failed.items()} | {"total": int(total.sum())}
    window = longest_window(total)
    bad = np.flatnonzero(total)
    first_benign = 0 if not len(bad) else (int(bad[-1]) + 1 if bad[-1] + 1 < judged else None)
    term = None
    if total.any():
        positive = {h: float(np.maximum(share[h][:judged], 0).sum()) for h in HYPOTHESES}
        term = max(positive, key=lambda h: positive[h])
    if not total.any():
        if (1 - s) ** (judged - 1) > VACUOUS:
            landscape = "vacuous"
        elif any(f.any() for f in failed.values()):
            landscape = "benign-by-ledger"
        else:
            landscape = "benign"
    elif total[max(0, judged - int(np.ceil(10 / s))) :].any():
        landscape = f"not-benign({term})"
    elif window is not None and (window[1] - window[0]) * s >= 3:
        landscape = f"benign-on[{window[0]},{window[1]}]"
    else:
        landscape = f"not-benign({term})"
    if window is not None and (window[1] - window[0]) * s < 3:
        window = None
    return LandscapeVerdict(landscape, judged, failures, term, window, first_benign)


def _none() -> dict[str, int]:
    return dict.fromkeys([*HYPOTHESES, "total"], 0)


def _failed_without_anchor(
    share: Mapping[str, Float[np.ndarray, " N"]],
    terms: Mapping[str, Float[np.ndarray, " N"]],
    about: Circumstances,
) -> LandscapeVerdict | None:
    """Smoothness and curvature need no anchor: after a divergence they are judged against f alone."""
    limit = FAILS * np.asarray(terms["gap"])
    failed = {h: np.nan_to_num(share[h], nan=np.inf) > limit for h in ("smoothness", "curvature")}
    if not any(f.any() for f in failed.values()):
        return None
    positive = {h: float(np.nansum(np.maximum(share[h], 0))) for h in failed}
    term = max(positive, key=lambda h: positive[h])
    failures = _none() | {h: int(f.sum()) for h, f in failed.items()}
    return LandscapeVerdict(f"not-benign({term})", len(limit), failures, term, None, None)
