"""Is a callable doing gradient descent on its prompts: how many steps, with which preconditioner?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot.in_context._estimators import least_squares, ridge_weights
from surefoot.in_context._forms.feature import descend, moments
from surefoot.in_context._probe.asking import Asked, Examples, implied_weights
from surefoot.in_context._probe.competitors import Untied, best_step, fit_ridge, fit_untied
from surefoot.in_context._probe.layers import LayerFit, fit_layers
from surefoot.in_context._probe.prompts import FEWEST, Halves, halves
from surefoot.in_context._probe.tied import fit_from
from surefoot.in_context._probe.verdict import Sums, choose_loops, judge, linear_below
from surefoot.in_context.conditions import prompt_assumptions
from surefoot.in_context.errors import ProbeError
from surefoot.in_context.population import optimal_step
from surefoot.in_context.predictors import as_predictor, name_of
from surefoot.in_context.probe_report import ProbeReport
from surefoot.in_context.wishart import MOST

NOTHING = 1e-24
"""Weights whose squares are below this share of those of least squares are none."""


@checked
def probe(
    fn: Callable[[Tensor, Tensor, Tensor], Tensor] | Any,
    *,
    d: int,
    n: int,
    max_loops: int = 8,
    prompts: Any = None,
    seed: int = 0,
    size: int | None = None,
    layerwise: bool = False,
    confidence: float = 0.99,
) -> ProbeReport:
    """Ask a callable for predictions and tell which algorithm on the prompt they come from.

    If it is linear in the query and in y, its answers to the d unit queries are weights. Gradient descent
    with one preconditioner for all of 1, ..., max_loops steps is fitted to them on half of the prompts and
    judged on the other half, beside least squares, ridge, steps of different sizes, and predicting 0.
    Method: derived for this library; arXiv 2212.07677 compares predictions and sensitivities instead.

    Parameters
    ----------
    fn
        `fn(X, y, xq) -> predictions`: X (B, d, n), y (B, n) and xq (B, d) in float64, and (B,) back. A torch
        module and a scikit-learn regressor may be given as they are, see `ModulePredictor` and
        `RegressorPredictor`; for a language model there is `LanguageModelPredictor`.
    d, n
        Features and examples of a prompt.
    max_loops
        Most steps to try.
    prompts
        By default `GaussianPrompts(d, n)`; otherwise what has `sample(B)`, or one's own (X, y, xq).
    seed
        Of the prompts, where they are drawn here, and of the resamples.
    size
        Prompts of each half, 256 by default, or all of those that are given. Each costs d questions to fit
        and d + 2 to judge, one more where it is not linear in the query.
    layerwise
        `fn` returns (B, layers), the prediction after every layer: each is also fitted as one step. A first
        column of zeros is the start and counts as no layer.
    confidence
        Of the intervals.

    Returns
    -------
    ProbeReport
        Prints as a table; `to_dict()`, `picture()`.

    Raises
    ------
    ProbeError
        `fn` fails, answers in a wrong shape or with NaN, not twice alike, by its company in a batch, or
        changes its inputs.
    ValueError
        An argument is out of range, or prompts do not fit.
    """
    d = check_number("d", d, least=1, whole=True)
    n = check_number("n", n, least=1, whole=True)
    max_loops = check_number("max_loops", max_loops, least=1, whole=True)
    seed = check_number("seed", seed, least=0, whole=True)
    confidence = check_number("confidence", confidence, above=0, below=1)
    asked = Asked(as_predictor(fn), layerwise)
    given = halves(prompts, d, n, size, seed)
    asked.try_out(given.held)
    fitted, held = _answers(asked, given.fit, False), _answers(asked, given.held, True)
    unanswered = len(given.fit.X) + len(given.held.X) - len(fitted.W) - len(held.W)
    if min(len(fitted.W), len(held.W)) < max(FEWEST, d):
        raise ProbeError(
            f"fn answered only {len(fitted.W)} and {len(held.W)} of {len(given.fit.X)} and "
            f"{len(given.held.X)} prompts in full, and at least {max(FEWEST, d)} of each half are needed: "
            f"{asked.abstained} of {asked.answers} answers were none"
        )
    inverse = torch.linalg.inv(given.sigma)
    found = _fit(fitted, inverse, max_loops)
    linear = linear_below(asked.rounded)
    sums = _sums(found, held, linear)
    judged = judge(sums, confidence, seed)
    line = None
    if judged.verdict == "not linear in the query":
        line = _with_a_constant(asked, given.held, held)
    errors = {k: judged.errors[name] for k, name in sums.loops.items()}
    gd = judged.verdict == "gd"
    A = found.tied[judged.loops] if gd else None
    scale, distance = (None, None) if A is None else _compared(A, inverse)
    layers: tuple[LayerFit, ...] = ()
    if layerwise:
        layers = fit_layers(
            (*moments(fitted.examples.X, fitted.examples.y), _without_start(fitted)),
            (*moments(held.examples.X, held.examples.y), _without_start(held)),
        )
    return ProbeReport(
        verdict=judged.verdict, loops=judged.loops if gd else None, A=A, errors=errors,
        competitors={k: judged.errors[k] for k in ("ols", "ridge", "untied", "zero")},
        lin_q=judged.errors["lin_q"], lin_y=judged.errors["lin_y"], intervals=judged.intervals,
        confidence=confidence, agreement=judged.agreement, scale=scale, distance=distance,
        optimal=_optimal(given, judged.loops) if gd else None,
        sigma=given.sigma, preconditioners=found.tied, alpha=found.alpha,
        steps=found.untied.steps, untied_loops=len(found.untied.coefficients), layers=layers,
        assumptions=_conditions(given, confidence), d=d, n=n, fitted=len(fitted.W),
        held=len(held.W), unanswered=unanswered, answers=asked.answers, abstained=asked.abstained,
        facts=dict(getattr(asked.fn, "facts", {})), name=name_of(fn), linear=linear,
        rounded=None if asked.rounded is None else str(asked.rounded).removeprefix("torch."),
        lin_affine=line,
        _seen=(*moments(held.examples.X, held.examples.y), held.last),
    )  # fmt: skip


@dataclass(frozen=True)
class Answers:
    """Prompts that were answered in full, and what was answered."""

    examples: Examples
    W: Float[Tensor, "B layers d"]
    predicted: Float[Tensor, " B"]
    doubled: Float[Tensor, " B"]

    @property
    def last(self) -> Float[Tensor, "B d"]:
        """The weights of the last layer."""
        return self.W[:, -1]


def _answers(asked: Asked, examples: Examples, linearity: bool) -> Answers:
    W = implied_weights(asked, examples)
    predicted = doubled = torch.zeros(len(W), dtype=torch.float64)
    if linearity:
        predicted = asked(examples)[:, -1]
        doubled = asked(examples._replace(y=2 * examples.y))[:, -1]
    full = W.isfinite().all(2).all(1) & predicted.isfinite() & doubled.isfinite()
    return Answers(examples.rows(full), W[full], predicted[full], doubled[full])


def _without_start(answers: Answers) -> Float[Tensor, "B layers d"]:
    return answers.W if answers.W[:, 0].any() else answers.W[:, 1:]


@dataclass(frozen=True)
class Found:
    """All candidates, fitted."""

    tied: Mapping[int, Float[Tensor, "d d"]]
    alpha: float
    untied: Untied


def _fit(fitted: Answers, inverse: Float[Tensor, "d d"], max_loops: int) -> Found:
    Sh, g = moments(fitted.examples.X, fitted.examples.y)
    W = fitted.last
    loops = range(1, max_loops + 1)
    untied = {k: fit_untied(fitted.examples, W, k, inverse) for k in loops}
    misfit = {
        k: float(
            (u.weights(fitted.examples) - W).square().sum() / W.square().sum().clamp_min(1e-300)
        )
        for k, u in untied.items()
    }
    return Found(
        {
            k: fit_from(Sh, g, W, k, inverse, best_step(fitted.examples, W, k, inverse))
            for k in loops
        },
        fit_ridge(fitted.examples, W),
        untied[choose_loops(misfit)],
    )


def _with_a_constant(asked: Asked, examples: Examples, held: Answers) -> float | None:
    """How far f(xq) - f(0) is from linear in the query, relative to f; None where it cannot be asked."""
    zero = asked(examples._replace(xq=torch.zeros_like(examples.xq)))[:, -1]
    if len(zero) != len(held.W) or not bool(zero.isfinite().all()):
        return None
    weights = held.last - zero[:, None]
    gap = (held.examples.xq * weights).sum(1) + zero - held.predicted
    return float(gap.norm() / held.predicted.norm())


def _sums(found: Found, held: Answers, linear: float) -> Sums:
    Sh, g = moments(held.examples.X, held.examples.y)
    W, names = held.last, {k: f"gd {k}" for k in found.tied}
    candidates = {names[k]: descend(Sh, g, [A] * k)[-1] for k, A in found.tied.items()} | {
        "ols": least_squares(held.examples.X, held.examples.y),
        "ridge": ridge_weights(held.examples.X, held.examples.y, found.alpha),
        "untied": found.untied.weights(held.examples), "zero": torch.zeros_like(W),
    }  # fmt: skip
    size = W.square().sum(1)
    ols = candidates["ols"].square().sum(1)
    if float(size.sum()) <= NOTHING * float(ols.sum()):
        # Of nothing, nothing is a share.
        W, size = torch.zeros_like(W), ols
    top = {name: (w - W).square().sum(1) for name, w in candidates.items()}
    bottom = dict.fromkeys(top, size)
    rebuilt, predicted = (held.examples.xq * held.last).sum(1), held.predicted
    top["lin_q"], bottom["lin_q"] = (rebuilt - predicted).square(), predicted.square()
    top["lin_y"] = (held.doubled - 2 * predicted).square()
    bottom["lin_y"] = (2 * predicted).square()
    return Sums(top, bottom, names, len(found.untied.coefficients), linear)


def _compared(A: Float[Tensor, "d d"], inverse: Float[Tensor, "d d"]) -> tuple[float, float]:
    scale = float((A * inverse).sum() / inverse.square().sum())
    norm = torch.linalg.matrix_norm
    return scale, float(norm(A - scale * inverse, 2) / norm(scale * inverse, 2))


def _optimal(given: Halves, loops: int) -> float | None:
    law = given.gaussian
    if law is None or law.noise or 2 * loops > MOST:
        return None
    return optimal_step(law.d, law.n, loops)


def _conditions(given: Halves, confidence: float) -> Any:
    X = torch.cat([given.fit.X, given.held.X])
    y = torch.cat([given.fit.y, given.held.y])
    return prompt_assumptions(X, y, given.w, confidence=confidence)
