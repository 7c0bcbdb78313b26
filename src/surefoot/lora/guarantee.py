"""The theorems of a chain as `Guarantee`s: what is promised of a record of blocks.

Quantities of the record, over seeds and blocks t = 0, 1, ...: `loss` f(W^t); `gap` f(W^t) - f*;
`mean_grad_norm2` the mean of ||grad f||^2 over W^0 ... W^{T-1}, at T >= 1; `projected_grad_norm2` and
`grad_norm2_estimate` of the block that starts at t. Step sizes, eigenvalues of the sketches, the
optimizer and all other settings are read off the record, where the chain wrote them: a caller gives
what a run cannot know of its problem (`Constants`). In a record of several runs (the arms of a
comparison) `of` names one: its quantities are "of: loss" and so on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from surefoot.certificate import Certificate, certify, unmeasured
from surefoot.guarantee import Assumption, Guarantee, assume_plain_gradients
from surefoot.lora._theorem import conditions, step_sizes
from surefoot.lora._theorem.ranges import estimate_range, gap_range, gradient_range, loss_size
from surefoot.lora._theorem.rates import Constants, of_problem, rate
from surefoot.lora._theorem.settings import by_seed, column, settings_of
from surefoot.lora.bounds import RateLaw, asymm_floor, lora_smoothness
from surefoot.record import Record

__all__ = [
    "Constants", "add_losses", "add_run", "asymm_limit", "certificates", "derive", "descent",
    "factor_smoothness", "free_estimate", "linear_rate", "lora_curvature", "of_record", "stationarity",
]  # fmt: skip

PAPER = "arXiv 2410.08305"
DERIVED = f"{PAPER}, derived here"


def _conditions(
    c: Constants, law: RateLaw, of: str, *, pl: bool
) -> Callable[[Record], tuple[Assumption, ...]]:
    def found(record: Record) -> tuple[Assumption, ...]:
        return (
            *of_problem(c, law, pl=pl),
            step_sizes.by_law(record, of, law, c.L),
            *conditions.sketches(record, of),
            *conditions.gradients(record, of, law),
            *(conditions.federation(record, of) if law == "fed" else ()),
            *conditions.common(record, of, redrawn=True),
        )

    return found


def descent(c: Constants, of: str = "", name: str = "one-block descent (G1)") -> Guarantee:
    """G1: f(W^{t+1}) <= f(W^t) - gamma (1 - L gamma / 2) ||G H||^2 in every block of every run.

    For sketches that are not orthonormal the eigenvalues of S^T S take their toll: the smallest in front,
    the largest beside L gamma. AsymmLoRA, which never draws again, descends too.

    Parameters
    ----------
    c
        L.
    of
        Which of several runs in a record.
    name
        Of the certificate.
    """

    def bound(record: Record) -> Float[np.ndarray, "seeds steps"]:
        found = record.curves(column("loss", of))
        squares = record.curves(column("projected_grad_norm2", of))
        loss, moved = found.values, squares.values[:, np.isin(squares.steps, found.steps[:-1])]
        factor = np.array(
            [
                s.gamma * s.sketch_low * (1 - c.L * s.gamma * s.sketch_high / 2)
                for s in settings_of(record, of, [int(i) for i in found.seeds])
            ]
        )
        after = loss[:, :-1] - factor[:, None] * moved
        return np.concatenate([loss[:, :1], after], axis=1)

    def assumed(record: Record) -> tuple[Assumption, ...]:
        return (
            *of_problem(c, "gd", pl=False),
            step_sizes.of_draws(record, of, "gd", c.L),
            conditions.own(record, of),
            conditions.gradients(record, of, "gd")[0],
            *conditions.common(record, of, redrawn=False),
        )

    return Guarantee(
        _named(name, of), "f(W') <= f(W) - g (1 - L g/2) |G H|^2", DERIVED, column("loss", of),
        "upper", "every run", bound, assumed, of=of,
        latex=r"f(W^{t+1}) \le f(W^t) - \gamma (1 - L\gamma/2) \|G H\|_F^2",
    )  # fmt: skip


def _named(name: str, of: str) -> str:
    return f"{of}: {name}" if of else name


STATEMENTS: dict[RateLaw, tuple[str, str, str]] = {
    "gd": ("G2", "G3", f"{PAPER}, Theorems 5.3 and 5.5"),
    "sgd": ("G4", "G4", DERIVED),
    "rr": ("G5", "G5", DERIVED),
    "fed": ("G6", "G6", DERIVED),
}


def stationarity(
    c: Constants, law: RateLaw = "gd", of: str = "", name: str | None = None
) -> Guarantee:
    """G2 (G4, G5, G6 for "sgd", "rr", "fed"): the mean squared gradient along the chain falls as 1/T.

    Parameters
    ----------
    c
        L, and for the laws with noise sigma2 and zeta2.
    law
        How gradients were drawn: the theorem that is asked for.
    of
        Which of several runs in a record.
    name
        Of the certificate.
    """
    number, _, source = STATEMENTS[law]
    formula = {
        "gd": "2 D0 / (lam g T)",
        "sgd": "2 D0 / (lam g T) + g L sigma2 lam_max / lam",
    }.get(law, "8 D0 / (3 g N lam T) + 4/3 g^2 L^2 N sigma2 lam_max / lam")
    return Guarantee(
        _named(name or f"stationarity ({number})", of), f"E |grad f(W~)|^2 <= {formula}", source,
        column("mean_grad_norm2", of), "upper", "expectation", rate(c, law, "grad_norm2", of),
        _conditions(c, law, of, pl=False), value_range=gradient_range(c, law, of), of=of,
    )  # fmt: skip


def linear_rate(
    c: Constants, law: RateLaw = "gd", of: str = "", name: str | None = None
) -> Guarantee:
    """G3 (G4, G5, G6): under PL the gap falls geometrically, at gradient descent's rate times lam.

    Parameters
    ----------
    c
        L and mu, and for the laws with noise sigma2 and zeta2.
    law
        How gradients were drawn: the theorem that is asked for.
    of
        Which of several runs in a record.
    name
        Of the certificate.

    Raises
    ------
    ValueError
        There is no mu.
    """
    if c.mu is None:
        raise ValueError("the linear rate needs mu; without it there is only stationarity(...)")
    _, number, source = STATEMENTS[law]
    formula = {
        "gd": "(1 - g mu lam)^T D0",
        "sgd": "(1 - g mu lam)^T D0 + g L sigma2 lam_max / (2 mu lam)",
    }.get(law, "(1 - 3/4 g N mu lam)^T D0 + 2/3 g^2 L^2 N sigma2 lam_max / (mu lam)")
    return Guarantee(
        _named(name or f"linear rate ({number})", of), f"E f(W^T) - f* <= {formula}", source,
        column("gap", of), "upper", "expectation", rate(c, law, "gap", of),
        _conditions(c, law, of, pl=True), value_range=gap_range(c, law, of), size=loss_size(of), of=of,
    )  # fmt: skip


def free_estimate(
    tolerance: float = 0.03, of: str = "", name: str = "free gradient norm (G7)"
) -> Guarantee:
    """G7: (d/r) tr(gB (A A^T)^+ gB^T) / s^2 is ||G||_F^2 in the mean over the sketches.

    Quantities `grad_norm2_estimate` and, measured in full, `grad_norm2`. The law of the sketch must make
    E[H] a multiple of the identity, which all known laws do.

    Parameters
    ----------
    tolerance
        Half-width of the region in which the two count as equal.
    of
        Which of several runs in a record.
    name
        Of the certificate.
    """
    return Guarantee(
        _named(name, of), "E (d/r) |dL/dB|^2 / s^2 = |grad f|^2", DERIVED,
        column("grad_norm2_estimate", of), "equal", "expectation",
        lambda record: record[column("grad_norm2", of)],
        lambda record: (
            conditions.method_of("rac_lora").of_run(record, of),
            conditions.LAW.of_run(record, of),
            conditions.FUNCTION[0].of_run(record, of),
            # Of a drawn gradient the estimate is the norm of that gradient, which has the variance in it.
            conditions.gradients(record, of, "gd")[0],
        ),
        value_range=estimate_range(of), tolerance=tolerance, of=of,
    )  # fmt: skip


def factor_smoothness(L: float, of: str = "", name: str = "smooth factors (G8)") -> Guarantee:
    """G8: with one factor orthonormal and frozen, the loss is s^2 L-smooth in the other, always.

    Quantity `local_smoothness`, the Hessian's norm in the trained factors; s is that of the run, the
    largest one over its layers.

    Parameters
    ----------
    L
        Smoothness in the adapted weights jointly.
    of
        Which of several runs in a record.
    name
        Of the certificate.
    """

    def bound(record: Record) -> Float[np.ndarray, "seeds 1"]:
        s = _scalings(record, column("local_smoothness", of), of)
        return s**2 * L

    def assumed(record: Record) -> tuple[Assumption, ...]:
        return (
            conditions.method_of("rac_lora", "asymm_lora").of_run(record, of),
            conditions.orthonormal(record, of),
        )

    return Guarantee(
        _named(name, of), "|Hessian in the trained factor| <= s^2 L", DERIVED,
        column("local_smoothness", of), "upper", "every run", bound, assumed, tolerance=1e-6,
    )  # fmt: skip


def lora_curvature(L: float, of: str = "", name: str = "curvature of LoRA (G8)") -> Guarantee:
    """G8 for LoRA: the Hessian in (A, B) is at most s^2 L (|A|^2 + |B|^2) + s |G|, which grows.

    Quantities `local_smoothness` and the spectral norms `norm_A`, `norm_B`, `norm_G`, of one layer.

    Parameters
    ----------
    L
        Smoothness in the adapted weight.
    of
        Which of several runs in a record.
    name
        Of the certificate.
    """

    def bound(record: Record) -> Float[np.ndarray, "seeds steps"]:
        norms = [record[column(k, of)] for k in ("norm_A", "norm_B", "norm_G")]
        s = _scalings(record, column("local_smoothness", of), of)
        return np.asarray(np.vectorize(lora_smoothness)(s, L, *norms))

    return Guarantee(
        _named(name, of), "|Hessian in (A, B)| <= s^2 L (|A|^2 + |B|^2) + s |G|", DERIVED,
        column("local_smoothness", of), "upper", "every run", bound,
        lambda record: (conditions.method_of("lora", "cola", "relora").of_run(record, of),),
        tolerance=1e-6,
    )  # fmt: skip


def _scalings(record: Record, quantity: str, of: str) -> Float[np.ndarray, "seeds 1"]:
    found = by_seed(record, "scaling", of, "largest")
    seeds = [int(s) for s in record.curves(quantity).seeds]
    missing = [s for s in seeds if s not in found]
    if missing:
        raise ValueError(
            f"the record does not say the scaling s of seeds {missing}, and nothing is promised without "
            "it; a chain notes it as it is made"
        )
    return np.array([[found[s]] for s in seeds])


def asymm_limit(
    terms: Callable[[int], tuple[Float[np.ndarray, "m n"], Float[np.ndarray, "m n"]]],
    of: str = "",
    tolerance: float = 1e-8,
    name: str = "where AsymmLoRA ends (G9)",
) -> Guarantee:
    """G9: AsymmLoRA on sum M W^2 + b W ends at the minimum over the row space of its factor, of rank 1.

    Quantities `limit`, the loss at the end of the run, and `row`, the frozen factor A itself, entry j at
    step j.

    Parameters
    ----------
    terms
        M and b of a seed's problem.
    of
        Which of several runs in a record.
    tolerance
        Relative.
    name
        Of the certificate.
    """

    def bound(record: Record) -> Float[np.ndarray, "seeds 1"]:
        rows = record.curves(column("row", of))
        held = {int(s): row for s, row in zip(rows.seeds, rows.values, strict=True)}
        seeds = [int(s) for s in record.curves(column("limit", of)).seeds]
        return np.array([[asymm_floor(*terms(s), held[s])] for s in seeds])

    def assumed(record: Record) -> tuple[Assumption, ...]:
        rank_one = conditions.Condition("rank", "1", lambda v: v == 1, "the rank is {v}, not 1")
        return (
            conditions.method_of("asymm_lora").of_run(record, of),
            rank_one.of_run(record, of),
            *(c.of_run(record, of) for c in conditions.OPTIMIZER),
        )

    return Guarantee(
        _named(name, of), "f = - sum_i (sum_j b_ij a_j)^2 / (4 sum_j M_ij a_j^2)", DERIVED,
        column("limit", of), "equal", "every run", bound, assumed, tolerance=tolerance,
    )  # fmt: skip


def derive(record: Record, f_star: float | None, of: str = "") -> None:
    """Add `gap` and `mean_grad_norm2` to a record that holds `loss` and `grad_norm2` from block 0 on.

    Parameters
    ----------
    record
        Whose own columns are left as they are.
    f_star
        A lower limit of f; None adds no gap.
    of
        Which of several runs in a record.
    """
    loss, squares = column("loss", of), column("grad_norm2", of)
    gap, mean = column("gap", of), column("mean_grad_norm2", of)
    if f_star is not None and loss in record and gap not in record:
        with record.deriving():
            found = record.curves(loss)
            for seed, row in zip(found.seeds, found.values, strict=True):
                record.extend(int(seed), gap, row - f_star, found.steps)
    if squares in record and mean not in record:
        with record.deriving():
            found = record.curves(squares)
            count = len(found.steps)
            if np.array_equal(found.steps, np.arange(count)):
                means = np.cumsum(found.values, axis=1) / np.arange(1, count + 1)
                for seed, row in zip(found.seeds, means, strict=True):
                    record.extend(int(seed), mean, row, range(1, count + 1))


def add_run(
    into: Record, seed: int, run: Record, f_star: float | None = None, of: str = ""
) -> None:
    """Copy the record of one chain, numbers and facts, into one that holds several.

    Parameters
    ----------
    into
        For instance that of a study.
    seed
        Its seed there.
    run
        What the chain wrote of itself.
    f_star
        As in `derive`.
    of
        The name of the arm there.
    """
    own = Record.concat([run])
    derive(own, f_star)
    for name in own.quantities:
        curves = own.curves(name)
        if len(curves.seeds) != 1:
            raise ValueError(f"the record of one run has one seed, got {curves.seeds.tolist()}")
        into.extend(seed, column(name, of), curves.values[0], curves.steps)
    for name, known in own.facts.items():
        for value in known.all:
            into.note(seed, of, **{name: value})


def add_losses(record: Record, seed: int, losses: Sequence[float], blocks: int) -> None:
    """Add the losses at W^0, W^1, ..., W^T to the record of a chain.

    Parameters
    ----------
    record, seed
        The chain's.
    losses
        One a block, the first before training.
    blocks
        How many have ended.

    Raises
    ------
    ValueError
        There are more losses than blocks whose first gradient was seen, plus one.
    """
    seen = record["projected_grad_norm2"].shape[1] if "projected_grad_norm2" in record else 0
    if seen < len(losses) - 1:
        raise ValueError(
            f"{len(losses)} losses belong to {len(losses) - 1} blocks, the chain measured the "
            f"gradient of {seen} in {blocks} blocks; give one loss a block, the first before training"
        )
    record.extend(seed, "loss", losses)


TODO = {
    "loss": "call chain.observe(loss=...) where each block begins, or pass losses=",
    "gap": "call chain.observe(loss=...) where each block begins, or pass losses=, and give f_star",
    "mean_grad_norm2": "call chain.observe(grad_norm2=...) where each block begins, and give f_star",
}


def certificates(
    record: Record,
    constants: Constants,
    f_star: float | None = None,
    *,
    law: RateLaw | None = None,
    of: str = "",
    confidence: float = 0.99,
) -> list[Certificate]:
    """Every theorem that speaks of a run, beside what its record holds.

    Parameters
    ----------
    record
        Of one chain, or of several with `Record.concat([chain.record for chain in chains])`: claims on a
        mean over sketches need five seeds.
    constants
        Of the problem. Without mu no linear rate is promised.
    f_star
        A lower limit of f, its minimum for a rate; 0 will do for a cross-entropy.
    law
        "gd", or "sgd" by default where sigma2 is not 0; "rr" for blocks of one reshuffled epoch, "fed".
    of
        Which of several runs in a record.
    confidence
        Of the verdicts on means.
    """
    law = law or ("sgd" if constants.sigma2 else "gd")
    record = Record.concat([record])
    derive(record, f_star, of)
    made = [descent(constants, of)] if law == "gd" else []
    if constants.mu is not None:
        made.append(linear_rate(constants, law, of))
    made.append(stationarity(constants, law, of))
    if column("grad_norm2", of) in record and column("grad_norm2_estimate", of) in record:
        made.append(free_estimate(of=of))
    return [_certified(record, g, of, confidence) for g in made]


def _certified(record: Record, guarantee: Guarantee, of: str, confidence: float) -> Certificate:
    needed = {
        "loss": ("loss", "projected_grad_norm2"),
        "mean_grad_norm2": ("mean_grad_norm2", "gap"),
    }
    quantity = guarantee.quantity.removeprefix(f"{of}: ") if of else guarantee.quantity
    wanted = [column(name, of) for name in needed.get(quantity, (quantity,))]
    if not all(name in record for name in wanted):
        return unmeasured(record, guarantee, TODO.get(quantity, "it is not in the record"))
    if quantity == "loss":
        losses, squares = (record.curves(name) for name in wanted)
        if not squares.complete or not np.isin(losses.steps[:-1], squares.steps).all():
            return unmeasured(
                record, guarantee, "the gradient of some block was not seen as it was"
            )
    return certify(record, guarantee, confidence)


def of_record(record: Record, **asked: Any) -> list[Certificate]:
    """What a record alone says of the chains in it (`surefoot.certificates`); L is not in it."""
    unknown = Constants(1.0, sigma2=None, how_L="not told")
    todo = "give the constants of the problem to surefoot.lora.guarantee.certificates"
    found = []
    for of in record.arms("sketch", "shared_sketch"):
        federated = "fed_rac" in record.fact("method", of).all
        made = [] if federated else [descent(unknown, of)]
        made.append(stationarity(unknown, "fed" if federated else "sgd", of))
        found += [unmeasured(record, _without_constants(g, of), todo) for g in made]
    return found


def _without_constants(guarantee: Guarantee, of: str) -> Guarantee:
    """The same with nothing said of the constants, and nothing promised of clipped and noised gradients."""

    def assumed(record: Record) -> tuple[Assumption, ...]:
        blind = {"smooth": "f is L-smooth", "step size": "gamma <= 1/L", "noise": "variance <= sigma2",
                 "clients": "spread <= zeta2"}  # fmt: skip
        return (
            *assume_plain_gradients(record, of),
            *(
                Assumption(
                    a.name, blind[a.name], None, None, "a constant of the problem is not told"
                )
                if a.name in blind
                else a
                for a in guarantee.assumptions(record)
            ),
        )

    return dataclasses.replace(guarantee, assumptions=assumed)
