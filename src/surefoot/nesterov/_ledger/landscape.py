"""What a ledger says about the landscape: benign, and if not, which hypothesis failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from surefoot.nesterov._ledger.lyapunov import HYPOTHESES, VALUE_ROUNDING

FAILS = 1e-10
ROUNDING = 1e-24
NEAR_ANCHOR = 1e4
ANCHOR_MISS = 1e-6
RESOLUTION = 1e-3
VACUOUS = 0.1


@dataclass(frozen=True)
class Circumstances:
    """What the terms alone do not tell.

    `f_star` is the infimum that was claimed, None where it is not known; `lowest` the smallest value
    of f that the run met; `unknown` names what else is missing, if anything is; `diverged` says that
    the run ended above its start, `foreign` that it stepped by other gradients than those of f.
    """

    s: float
    f_star: float | None
    f0: float
    lowest: float
    unknown: str | None = None
    diverged: bool = False
    foreign: bool = False

    @property
    def tolerance(self) -> float:
        """How far a value of f may be from f* and still count as f*."""
        f_star = self.f_star or 0.0
        size = max(abs(f_star), abs(self.f0))
        return ANCHOR_MISS * max(self.f0 - f_star, 0.0) + VALUE_ROUNDING * size


@dataclass(frozen=True)
class LandscapeVerdict:
    """The landscape's verdict as one string, with the evidence it rests on."""

    landscape: str
    judged: int
    failures: dict[str, int]
    term: str | None
    window: tuple[int, int] | None
    first_benign_step: int | None
    stopped: str | None = None


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


def judged_steps(
    terms: Mapping[str, Float[np.ndarray, " N"]], about: Circumstances
) -> tuple[int, str | None]:
    """How many steps count, and why judging stopped for good where it did before the end.

    Far down, L_n is as small as the last digits of f or of the parameters, or as what f misses f* by
    at the anchor: its terms then say nothing about the landscape.
    """
    L = np.asarray(terms["L"])
    miss = np.abs(np.asarray(terms["f_p"]) - (about.f_star or 0.0))
    stops = (
        (ROUNDING * L[0] > L, "L_n < 1e-24 L_0"),
        (miss * NEAR_ANCHOR > L, "L_n < 1e4 |f(anchor) - f*|, what f misses f* by at the anchor"),
        (
            np.asarray(terms["rounding"]) > RESOLUTION * about.s * L,
            "rounding of f and of the parameters exceeds 1e-3 of the promised decrease s L_n",
        ),
    )
    first = [(int(np.argmax(stop)), why) for stop, why in stops if stop.any()]
    if not first:
        return len(L), None
    n, why = min(first)
    return n, f"judging stopped at step {n}: {why}"


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
    """Judge recorded terms (keys A, C, D, K, T, total, L, f_x, f_p, rounding) of recorded steps.

    Thresholds are fixed: a hypothesis fails at n if its value exceeds 1e-10 L_n by more than rounding.
    Precedence: unknown because of f*, not-benign of a run that diverged, unknown, vacuous, benign,
    benign-by-ledger, not-benign, benign-on.
    """
    s, L = about.s, np.asarray(terms["L"])
    share = contributions(terms, s)
    missing = _f_star_problem(about)
    if missing is None and about.diverged:
        early = _failed_without_anchor(share, terms, about)
        if early is not None:
            return early
    missing = missing or about.unknown or _anchor_problem(terms, about)
    if missing is not None:
        return LandscapeVerdict(f"unknown: {missing}", 0, _none(), None, None, None)

    judged, stopped = judged_steps(terms, about)
    if judged == 0:
        return LandscapeVerdict(
            f"unknown: no step to judge: {stopped}", 0, _none(), None, None, None
        )
    limit = FAILS * L[:judged] + np.asarray(terms["rounding"])[:judged]
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
    return LandscapeVerdict(landscape, judged, failures, term, window, first_benign, stopped)


def _f_star_problem(about: Circumstances) -> str | None:
    if about.f_star is None:
        return "f* is not known"
    if about.f_star - about.lowest > about.tolerance:
        return (
            f"f* = {about.f_star:.6g} is not the infimum of f: the run met {about.lowest:.6g}, "
            f"{about.f_star - about.lowest:.3g} below it; allowed is {about.tolerance:.3g}, 1e-6 of "
            "f(x_0) - f*"
        )
    return None


def _anchor_problem(
    terms: Mapping[str, Float[np.ndarray, " N"]], about: Circumstances
) -> str | None:
    L = np.asarray(terms["L"])
    if not len(L) or not L[0] > 0:
        return "nothing to certify, the start is a minimiser"
    if not np.isfinite(L).all():
        return "a value is not finite"
    assert about.f_star is not None
    miss = np.asarray(terms["f_p"]) - about.f_star
    worst = int(np.argmax(np.nan_to_num(np.abs(miss), nan=np.inf)))
    if not np.abs(miss[worst]) <= about.tolerance:
        return (
            f"the anchor is no minimiser, or f* = {about.f_star:.6g} is wrong: f(anchor) - f* = "
            f"{miss[worst]:.3g} at step {worst}; allowed is {about.tolerance:.3g}, 1e-6 of f(x_0) - f*"
        )
    return None


def _none() -> dict[str, int]:
    return dict.fromkeys([*HYPOTHESES, "total"], 0)


def _failed_without_anchor(
    share: Mapping[str, Float[np.ndarray, " N"]],
    terms: Mapping[str, Float[np.ndarray, " N"]],
    about: Circumstances,
) -> LandscapeVerdict | None:
    """Smoothness and curvature need no anchor: after a divergence they are judged against f alone."""
    limit = FAILS * np.asarray(terms["gap"]) + np.asarray(terms["rounding"])
    failed = {h: np.nan_to_num(share[h], nan=np.inf) > limit for h in ("smoothness", "curvature")}
    if not any(f.any() for f in failed.values()):
        return None
    positive = {h: float(np.nansum(np.maximum(share[h], 0))) for h in failed}
    term = max(positive, key=lambda h: positive[h])
    failures = _none() | {h: int(f.sum()) for h, f in failed.items()}
    return LandscapeVerdict(f"not-benign({term})", len(limit), failures, term, None, None)
