"""The theorems of FedRepOpt as `Guarantee`s of a record."""

from __future__ import annotations

import numpy as np
import torch

from surefoot.guarantee import Assumption, Guarantee
from surefoot.record import Record
from surefoot.reparam.equivalence import equivalence_holds

GR = "GR = CSLA, arXiv 2205.15242, appendix A; federated: arXiv 2409.15898"
DERIVED = "derived here in the setting of arXiv 2409.15898"
DEFECT, GAP = "one-step defect", "free-running gap"
EXCESS = "excess over descent bound"


def trajectory(
    dtype: torch.dtype = torch.float64,
    rules: Assumption | None = None,
    *,
    quantity: str = DEFECT,
    name: str = "the plain network follows the branches (G1)",
) -> Guarantee:
    """W'_{t+1} = sum_j E_j(s_j W_{j,t+1}) after one step from W'_t = merge, to 50 machine epsilons.

    The record's column is what `one_step_defect` returns. `rules` is `equivalence_holds(...)`.
    """
    bound = 50 * float(torch.finfo(dtype).eps)
    rules = rules or equivalence_holds()
    return Guarantee(
        name=name,
        statement=f"|W' - sum_j E_j(s_j W_j)| / |.| <= 50 eps = {bound:.2g} after one step from equality",
        source=GR,
        quantity=quantity,
        sense="upper",
        holds_in="every run",
        bound=lambda record: bound,
        assumptions=lambda record: (rules,),
        latex=r"\|W'_{t+1} - \sum_j E_j(s_j W_{j,t+1})\|_\infty \le 50\,\varepsilon\,\|\cdot\|_\infty",
    )


def federated_trajectory(
    rules: Assumption,
    bound: float = 1e-11,
    *,
    quantity: str = GAP,
    smooth: bool = True,
    name: str = "the federation follows the branches (G2)",
) -> Guarantee:
    """The free-running gap over federated rounds in float64, with a smooth activation.

    In exact arithmetic it is 0 for every linear aggregation. In floating point a rounding error that
    flips a ReLU's mask grows, so that a number is promised for smooth activations alone.
    """
    return Guarantee(
        name=name,
        statement=f"|W' - merge| / |merge| <= {bound:g} after every round, in float64",
        source=DERIVED,
        quantity=quantity,
        sense="upper",
        holds_in="every run",
        bound=lambda record: bound,
        assumptions=lambda record: (
            rules,
            Assumption("smooth activation", "no mask to flip", None, smooth, "by the settings"),
        ),
    )


def clipped_norm(
    quantity: str = "clipping norm error", name: str = "exact clipping (G3)"
) -> Guarantee:
    """sqrt(sum <M, g^2> + sum |g|^2) is the multi-branch network's gradient norm: relative error."""
    return Guarantee(
        name=name,
        statement="|norm - |grad CSLA|| / |grad CSLA| <= 1e-12",
        source=DERIVED,
        quantity=quantity,
        sense="upper",
        holds_in="every run",
        bound=lambda record: 1e-12,
    )


def descent(
    lr: float,
    curvature: float,
    *,
    exact: bool,
    how: str,
    name: str = "descent (G4)",
) -> Guarantee:
    """f(W+) <= f(W) - lr (1 - lr lambda/2) <g, D g>: column of `DescentMonitor`, at most 0.

    `exact` says whether lambda bounds the curvature on the whole way (a quadratic), or is an estimate.
    """
    return Guarantee(
        name=name,
        statement="f(W+) - f(W) + lr (1 - lr lambda/2) <g, D g> <= 0, D = diag(M)",
        source=f"{DERIVED}; descent lemma",
        quantity=EXCESS,
        sense="upper",
        holds_in="every run",
        bound=lambda record: 0.0,
        atol=1e-12,
        assumptions=lambda record: (
            Assumption("curvature", "lambda_max(D^1/2 H D^1/2) <= lambda on the way", curvature,
                       True if exact else None, how),
        ),
    )  # fmt: skip


def decreasing(lr: float, safe: float, *, name: str = "safe step size (G4)") -> Guarantee:
    """The loss never rises where lr < `safe_lr`: column "rise", f(W+) - f(W), of a quadratic."""
    return Guarantee(
        name=name,
        statement="f(W+) <= f(W) for lr < 2 / lambda_max(D^1/2 H D^1/2)",
        source=DERIVED,
        quantity="rise",
        sense="upper",
        holds_in="every run",
        bound=lambda record: 0.0,
        atol=1e-13,
        assumptions=lambda record: (
            Assumption("step size", "lr < safe_lr", lr / safe, lr < safe, "lr / safe_lr"),
        ),
    )


def rate(
    lr: float, smooth: float, d_max: float, gap0: float, *, name: str = "rate (G4)"
) -> Guarantee:
    """min_{t<T} <g_t, D g_t> <= 2 (f0 - f*) / (lr T): column "least squared step" at T = 1, 2, ...

    `smooth` is L, `gap0` is f0 - f*, both exact.
    """

    def bound(record: Record) -> np.ndarray:
        steps = record.curves("least squared step").steps
        return np.asarray(2 * gap0 / (lr * steps))

    return Guarantee(
        name=name,
        statement="min_{t<T} <g_t, D g_t> <= 2 (f_0 - f*) / (lr T)",
        source=DERIVED,
        quantity="least squared step",
        sense="upper",
        holds_in="every run",
        bound=bound,
        assumptions=lambda record: (
            Assumption("short steps", "lr L max(M) <= 1", lr * smooth * d_max,
                       lr * smooth * d_max <= 1 + 1e-12, "L exact"),
        ),
    )  # fmt: skip


def costs_of_plain(plain: float, *, quantity: str, unit: str, name: str | None = None) -> Guarantee:
    """What a device stores or sends is exactly the plain network's (G5)."""
    return Guarantee(
        name=name or f"{unit} of the plain network (G5)",
        statement=f"{unit} of FedRepOpt = {plain:g}, those of the plain network",
        source=DERIVED,
        quantity=quantity,
        sense="equal",
        holds_in="every run",
        bound=lambda record: plain,
    )
