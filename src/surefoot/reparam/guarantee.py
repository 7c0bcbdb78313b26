"""The theorems of FedRepOpt as `Guarantee`s of a record, and the certificates of what ran.

Every setting is read off the record, where the optimizer, the shadow, the monitor or the federation has
noted it; a theorem asks for constants of the problem alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from surefoot.certificate import Certificate, certify, unmeasured
from surefoot.errors import UnknownNameError
from surefoot.guarantee import Assumption, Guarantee, assume_fact, assume_plain_gradients
from surefoot.record import Record
from surefoot.reparam._guarantee.columns import (
    DEFECT,
    EXCESS,
    GAP,
    KINKS,
    LEAST,
    NOISE,
    RISE,
    STEP_SIZE,
    column,
)
from surefoot.reparam._guarantee.conditions import (
    both_losses,
    curvatures,
    epsilons,
    largest_multiplier,
    largest_step_size,
    plain_steps,
    precision,
    rule,
)

GR = "GR = CSLA, arXiv 2205.15242, appendix A; federated: arXiv 2409.15898"
DERIVED = "derived here in the setting of arXiv 2409.15898"
NORM_ERROR = "clipping norm error"
EPSILONS = 50
# Standard deviations: chance exceeds them once in millions of runs.
FAR = 6.0


def trajectory(
    *, of: str = "", name: str = "the plain network follows the branches (G1)"
) -> Guarantee:
    """W'_{t+1} = sum_j E_j(s_j W_{j,t+1}) after one step from W'_t = merge, to 50 machine epsilons.

    Column "one-step defect", as `Shadow` and `one_step_defect` write it. Their facts say what stepped: a
    client rule or a clipping that the theorem does not cover makes it NOT_PROMISED.

    Parameters
    ----------
    of
        The run's name where the record holds several.
    name
        Unique within a study.
    """
    quantity = column(DEFECT, of)
    return Guarantee(
        name=name,
        statement=f"|W' - sum_j E_j(s_j W_j)| / |.| <= {EPSILONS} eps after one step from equality",
        source=GR,
        quantity=quantity,
        sense="upper",
        holds_in="every run",
        bound=lambda record: EPSILONS * epsilons(record, quantity, of),
        assumptions=lambda record: (
            *assume_plain_gradients(record, of),
            rule(record, "client", of), rule(record, "clip", of), rule(record, "norm", of),
            assume_fact(record, "same_settings", "same rule", "both networks step by one rule",
                        lambda v: v is True, of=of),
            precision(record, of), _no_kink(record, of),
        ),
        latex=r"\|W'_{t+1} - \sum_j E_j(s_j W_{j,t+1})\|_\infty \le 50\,\varepsilon\,\|\cdot\|_\infty",
    )  # fmt: skip


def _no_kink(record: Record, of: str) -> Assumption:
    """On a kink the plain network and the branches take gradients of two sides, which is no rounding."""
    name, requires = "no sum on a kink", "no ReLU whose side rounding decides"
    smooth = _smooth(record, of)
    if smooth.holds:
        return Assumption(name, requires, 0.0, True, "the activations are smooth")
    quantity = column(KINKS, of)
    if quantity not in record:
        return Assumption(name, requires, None, None, "not recorded")
    met = record.curves(quantity)
    count = float(met.values.sum())
    how = f"outputs of every ReLU compared at {len(met.steps)} steps"
    # Of a module with a forward pass of its own nobody knows.
    unknown = smooth.holds is None and not count
    return Assumption(name, requires, count, None if unknown else not count, how)


def noised_law(
    *, of: str = "", name: str = "the noise of DP-SGD on the branches, merged (G1 in law)"
) -> Guarantee:
    """Private steps of the plain network are those of the multi-branch one in law: noise of variance M.

    Column "deviations of the merged noise": how far the mean of noise^2 / (M sigma^2 C^2) over all entries
    so far is from 1, in its standard deviations. RepSGD under plain Opacus multiplies its noise by M: private
    too, by another law, and NOT_PROMISED here.

    Parameters
    ----------
    of
        The run's name where the record holds several.
    name
        Unique within a study.
    """
    return Guarantee(
        name=name,
        statement=f"|mean of noise^2/(M sigma^2 C^2) - 1| <= {FAR:g} of its standard deviations",
        source=DERIVED,
        quantity=column(NOISE, of),
        sense="upper",
        holds_in="every run",
        bound=lambda record: FAR,
        assumptions=lambda record: (
            assume_fact(record, "noised", "noise of the branches",
                        "sqrt(M) before the clip and after the noise", lambda v: v == "branches", of=of),
            assume_fact(record, "clipping", "clipped per example", "by the multi-branch norm",
                        lambda v: v == "per example", of=of),
            rule(record, "clip", of), rule(record, "client", of),
        ),
        latex=r"\mathrm{Var}\,\xi' = M\sigma^2C^2",
    )  # fmt: skip


def federated_trajectory(
    bound: float = 1e-11,
    *,
    of: str = "",
    name: str = "the federation follows the branches (G2)",
) -> Guarantee:
    """The free-running gap over federated rounds in float64, with a smooth activation.

    In exact arithmetic it is 0 for every linear aggregation. In floating point a rounding error that
    flips a ReLU's mask grows, so that a number is promised for smooth activations alone. Server rule,
    client rule, clipping, norms, activation and precision are those that the federation recorded.

    Parameters
    ----------
    bound
        The number that is promised.
    of, name
        As for `trajectory`.
    """
    return Guarantee(
        name=name,
        statement=f"|W' - merge| / |merge| <= {bound:g} after every round, in float64",
        source=DERIVED,
        quantity=column(GAP, of),
        sense="upper",
        holds_in="every run",
        bound=lambda record: bound,
        assumptions=lambda record: (
            rule(record, "server", of), rule(record, "client", of), rule(record, "clip", of),
            rule(record, "norm", of),
            assume_fact(record, "multipliers", "multipliers", "clients multiply their gradients",
                        lambda v: isinstance(v, int) and v > 0, of=of),
            assume_fact(record, "dtype", "float64", "kernels in float64",
                        lambda v: v == "float64", of=of),
            _smooth(record, of),
        ),
    )  # fmt: skip


def _smooth(record: Record, of: str) -> Assumption:
    known = record.fact("activation", of)
    unknown = any(str(v).startswith("unknown") for v in known.all)
    holds = None if unknown or known.missing or not known.all else True
    if "relu" in known.all:
        holds = False
    return Assumption("smooth activation", "no mask to flip", None, holds, f"recorded: {known}")


def clipped_norm(*, of: str = "", name: str = "exact clipping (G3)") -> Guarantee:
    """sqrt(sum <M, g^2> + sum |g|^2) is the multi-branch network's gradient norm: relative error.

    Column "clipping norm error", at equal states of both networks.

    Parameters
    ----------
    of, name
        As for `trajectory`.
    """
    return Guarantee(
        name=name,
        statement="|norm - |grad CSLA|| / |grad CSLA| <= 1e-12",
        latex=r"|\mathrm{norm} - \|\nabla_{\mathrm{CSLA}}\||\,/\,\|\nabla_{\mathrm{CSLA}}\| \le 10^{-12}",
        source=DERIVED,
        quantity=column(NORM_ERROR, of),
        sense="upper",
        holds_in="every run",
        bound=lambda record: 1e-12,
        assumptions=lambda record: (
            assume_fact(record, "clip", "clipping", "by clip_csla_norm_", lambda v: v == "csla", of=of),
            rule(record, "norm", of),
            assume_fact(record, "dtype", "float64", "kernels in float64",
                        lambda v: v == "float64", of=of),
        ),
    )  # fmt: skip


def descent(*, of: str = "", name: str = "descent (G4)") -> Guarantee:
    """f(W+) <= f(W) - lr (1 - lr lambda/2) <g, D g>: column of `DescentMonitor`, at most 0 to rounding.

    lambda, and whether it bounds the curvature on the whole way, are what the monitor was given.

    Parameters
    ----------
    of, name
        As for `trajectory`.
    """
    return Guarantee(
        name=name,
        statement="f(W+) - f(W) + lr (1 - lr lambda/2) <g, D g> <= 0, D = diag(M)",
        source=f"{DERIVED}; descent lemma",
        quantity=column(EXCESS, of),
        sense="upper",
        holds_in="every run",
        bound=lambda record: 0.0,
        size=lambda record: both_losses(record, of),
        of=of,
        assumptions=lambda record: (plain_steps(record, of), _curvature(record, of)),
    )


def _curvature(record: Record, of: str) -> Assumption:
    curvature, exact, how = curvatures(record, of)
    return Assumption(
        "curvature", "lambda_max(D^1/2 H D^1/2) <= lambda on the way", curvature, exact, how
    )


def decreasing(*, of: str = "", name: str = "safe step size (G4)") -> Guarantee:
    """The loss never rises where lr < 2 / lambda: column "rise", f(W+) - f(W), of `DescentMonitor`.

    Parameters
    ----------
    of, name
        As for `trajectory`.
    """

    def assumptions(record: Record) -> tuple[Assumption, ...]:
        curvature, lr = curvatures(record, of)[0], largest_step_size(record, of)
        known = curvature is not None and lr is not None
        ratio = lr * curvature / 2 if curvature is not None and lr is not None else None
        size = Assumption(
            "step size", "lr < 2 / lambda", ratio, None if ratio is None else ratio < 1,
            "largest recorded lr times lambda / 2" if known else "lr or lambda not recorded",
        )  # fmt: skip
        return plain_steps(record, of), size, _curvature(record, of)

    return Guarantee(
        name=name,
        statement="f(W+) <= f(W) for lr < 2 / lambda_max(D^1/2 H D^1/2)",
        source=DERIVED,
        quantity=column(RISE, of),
        sense="upper",
        holds_in="every run",
        bound=lambda record: 0.0,
        size=lambda record: both_losses(record, of),
        of=of,
        assumptions=assumptions,
    )


def rate(
    smooth: float, gap0: float, *, how: str = "as given", of: str = "", name: str = "rate (G4)"
) -> Guarantee:
    """min_{t<T} <g_t, D g_t> <= 2 (f_0 - f*) / sum_{t<T} lr_t: column of `DescentMonitor`, T = 1, 2, ...

    From the descent lemma, summed: each step of lr_t <= 1 / (L max(M)) gains at least lr_t/2 <g, D g>.

    Parameters
    ----------
    smooth, gap0
        L and f_0 - f*, constants of the problem.
    how
        How they were found.
    of, name
        As for `trajectory`.
    """

    def bound(record: Record) -> np.ndarray:
        sizes = column(STEP_SIZE, of)
        if sizes not in record:
            raise UnknownNameError("quantity", sizes, record.quantities)
        curves = record.curves(sizes)
        spent = np.cumsum(curves.values, axis=1)
        # The row of step t is that of T = t + 1.
        at = np.searchsorted(curves.steps, record.curves(column(LEAST, of)).steps - 1)
        return np.asarray(2 * gap0 / spent[:, at])

    def assumptions(record: Record) -> tuple[Assumption, ...]:
        lr, most = largest_step_size(record, of), largest_multiplier(record, of)
        product = lr * smooth * most if lr is not None and most is not None else None
        short = Assumption(
            "short steps", "lr L max(M) <= 1", product,
            None if product is None else product <= 1 + 1e-12, f"recorded lr and max(M); L {how}",
        )  # fmt: skip
        one = assume_fact(
            record, "one_lr", "one step size", "the same lr for all parameters",
            lambda v: v is True, of=of,
        )  # fmt: skip
        return plain_steps(record, of), short, one

    return Guarantee(
        name=name,
        statement="min_{t<T} <g_t, D g_t> <= 2 (f_0 - f*) / sum_{t<T} lr_t",
        source=DERIVED,
        quantity=column(LEAST, of),
        sense="upper",
        holds_in="every run",
        bound=bound,
        assumptions=assumptions,
    )


def costs_of_plain(quantity: str, plain: str, *, unit: str, name: str | None = None) -> Guarantee:
    """What a device stores or sends is exactly the plain network's (G5).

    Parameters
    ----------
    quantity, plain
        Columns of the record, as `cost_report` writes them: of the device, and of the plain network that was
        measured beside it ("bytes: fedrepopt" and "bytes: inf").
    unit
        Of what, for the statement.
    name
        Unique within a study.
    """
    device, reference = (c.partition(": ")[2] for c in (quantity, plain))

    def is_plain(record: Record, mode: str, name: str) -> Assumption:
        return assume_fact(record, "blocks", name, "one convolution a block",
                           lambda v: v == "plain", of=mode)  # fmt: skip

    return Guarantee(
        name=name or f"{unit} of the plain network (G5)",
        statement=f"{unit} of FedRepOpt = those of the plain network",
        source=DERIVED,
        quantity=quantity,
        sense="equal",
        holds_in="every run",
        bound=lambda record: record.constant(plain)[:, None],
        assumptions=lambda record: (
            is_plain(record, device, "plain device"), is_plain(record, reference, "plain reference"),
        ),
    )  # fmt: skip


def certificates(record: Record, *, of: str = "", confidence: float = 0.99) -> list[Certificate]:
    """The certificates of one run: of every theorem whose quantity is there, and of G1 in any case.

    Parameters
    ----------
    record
        What an optimizer, a `Shadow` or a `DescentMonitor` wrote.
    of
        The run's name where the record holds several.
    confidence
        As in `certify`.
    """
    found = []
    for theorem in (trajectory, clipped_norm, descent, decreasing):
        guarantee = theorem(of=of)
        if guarantee.quantity in record:
            found.append(certify(record, guarantee, confidence))
    measured = {c.quantity for c in found}
    if not measured & {column(EXCESS, of), column(DEFECT, of)}:
        todo = "step a Shadow beside the run"
        found.insert(0, unmeasured(record, trajectory(of=of), todo))
    if record.fact("noised", of).all:
        law, todo = (
            noised_law(of=of),
            "step the optimizer that surefoot.reparam.make_private returns",
        )
        there = law.quantity in record
        found.append(certify(record, law, confidence) if there else unmeasured(record, law, todo))
    elif "csla" in record.fact("clip", of).all and column(NORM_ERROR, of) not in measured:
        todo = f"record |norm / |grad CSLA| - 1| as {column(NORM_ERROR, of)!r} beside a Shadow"
        found.append(unmeasured(record, clipped_norm(of=of), todo))
    return found


def of_record(record: Record, **asked: Any) -> list[Certificate]:
    """What a record alone says of the runs in it (`surefoot.certificates`)."""
    return [c for of in record.arms("multipliers") for c in certificates(record, of=of)]
