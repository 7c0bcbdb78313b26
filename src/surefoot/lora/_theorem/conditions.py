"""The conditions of the theorems, each as the record of a run says it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

from surefoot.guarantee import Assumption, assume_fact
from surefoot.lora._theorem.settings import SINGULAR, extreme
from surefoot.lora.bounds import RateLaw
from surefoot.lora.config import PROJECTIONS, Law
from surefoot.record import Fact, Record

SLACK = 1 + 1e-6  # a sketch in float32 is orthonormal to seven digits
HALVES = ("float16", "bfloat16")


@dataclass(frozen=True)
class Condition:
    """A fact that a theorem asks for, and the sentence where it is another."""

    fact: str
    requires: str
    holds: Callable[[Fact], bool]
    otherwise: str

    def of_run(self, record: Record, of: str) -> Assumption:
        """As the record of a run says it."""
        found = assume_fact(
            record, self.fact, self.fact.replace("_", " "), self.requires, self.holds, of=of
        )
        if found.holds is not False:
            return found
        wrong = next(v for v in record.fact(self.fact, of).all if not self.holds(v))
        where = ", ".join(str(v) for v in record.fact("dropout_layer", of).all if v)
        # Without the number a certificate prints the sentence, which has it.
        how = self.otherwise.format(v=wrong, where=where)
        return dataclasses.replace(found, measured=None, how=how)


PLAIN = "the theorem is about plain SGD"
OPTIMIZER = (
    Condition("optimizer", "torch.optim.SGD", lambda v: v == "SGD", f"the optimizer is {{v}}, {PLAIN}"),
    *(
        Condition(name, "none", lambda v: not v, f"SGD with {name}={{v}}, {PLAIN}")
        for name in ("momentum", "weight_decay", "nesterov", "maximize")
    ),
    Condition(
        "max_grad_norm", "gradients are not clipped", lambda v: not v,
        "gradients are clipped at max_grad_norm={v}; set it to 0",
    ),
)  # fmt: skip
FUNCTION = (
    Condition(
        "dropout", "none", lambda v: not v,
        "lora_dropout={v} in {where} changes the function that descends",
    ),
    Condition(
        "dtype", "base weights of 32 bits or more", lambda v: v not in HALVES,
        "16-bit base weights ({v}): the gradient is taken at rounded weights",
    ),
)  # fmt: skip
LAW = Condition(
    "sketch",
    "a law of symmetric exchangeable entries",
    lambda v: v in get_args(Law),
    "{v} is no known law, and E[H] need not be a multiple of the identity",
)
BOTH = "{v} trains both factors, and f(W + s B A) is smooth in neither (G8)"
NEVER = "asymm_lora never redraws its sketch: it ends at the minimum over W0 + {B A} (G9)"


def method_of(*allowed: str) -> Condition:
    """Which methods a theorem is about."""
    return Condition(
        "method",
        " or ".join(allowed),
        lambda v: v in allowed,
        f"{{v}} is not {' or '.join(allowed)}",
    )


def one_factor(record: Record, of: str, *, redrawn: bool) -> Assumption:
    """At most one factor of a layer trains, and for a rate the other is drawn anew in each block.

    Parameters
    ----------
    record, of
        The run.
    redrawn
        Whether AsymmLoRA, which never draws again, fails it.
    """
    one = {"rac_lora", "fpft", "asymm_lora", "fed_rac"}
    allowed = one - {"asymm_lora"} if redrawn else one
    found = assume_fact(
        record, "method", "method", "one factor trained, the other drawn anew in each block"
        if redrawn else "one factor trained", lambda v: v in allowed, of=of,
    )  # fmt: skip
    if found.holds is not False:
        return found
    wrong = next(str(v) for v in record.fact("method", of).all if v not in allowed)
    return dataclasses.replace(found, how=NEVER if wrong == "asymm_lora" else BOTH.format(v=wrong))


def believed(name: str, requires: str, value: float | None, how: str) -> Assumption:
    """A constant of the problem, as the caller knows it: only what is exact is believed.

    Parameters
    ----------
    name, requires
        The condition.
    value
        The constant.
    how
        Beginning with "exact", or the name of an estimate.
    """
    return Assumption(name, requires, value, True if how.startswith("exact") else None, how)


def sketches(record: Record, of: str) -> tuple[Assumption, ...]:
    """E[H] >= lam I with lam > 0, and a raw sketch of one's own is orthonormal.

    lam is exact for the known laws and a Monte-Carlo estimate for others.
    """
    lam = extreme(record, "lam", of, "smallest")
    how = record.fact("how_lam", of)
    text = "; ".join(str(v) for v in how.all) or "not recorded"
    holds: bool | None = None
    if lam is not None and lam < SINGULAR:
        holds, text = False, "E[H] is singular: the sketches leave some direction out for ever"
    elif lam is not None and not how.missing and all(str(v).startswith("exact") for v in how.all):
        holds = True
    return (
        Assumption("sketches", "E[H] >= lam I, drawn afresh", lam, holds, text),
        own(record, of),
    )


def own(record: Record, of: str) -> Assumption:
    """A sketch that is no known law counts as a projection only if it is one, or is made one."""
    law, mode = record.fact("sketch", of), record.fact("precondition", of)
    high = extreme(record, "sketch_high", of, "largest")
    known = bool(law.all) and not law.missing and all(v in get_args(Law) for v in law.all)
    made = bool(mode.all) and not mode.missing and all(mode.all)
    requires = "a known law, orthonormal, or precondition=True"
    if known or made or (high is not None and high <= SLACK):
        return Assumption("sketch law", requires, high, True, f"recorded: {law}, {mode}")
    if high is None or not law.all:
        return Assumption("sketch law", requires, high, None, f"recorded: {law}, {mode}")
    how = "a sketch of your own that is not orthonormal needs precondition=True"
    return Assumption("sketch law", requires, high, False, how)


def orthonormal(record: Record, of: str) -> Assumption:
    """Every sketch that was drawn has orthonormal rows or columns."""
    high = extreme(record, "sketch_high", of, "largest")
    mode = record.fact("precondition", of)
    # Preconditioned sketches count as projections in a step, not in the factor's curvature.
    law = record.fact("sketch", of)
    raw = bool(mode.all) and any(mode.all) and not all(v in PROJECTIONS for v in law.all)
    holds = False if raw else (None if high is None or mode.missing else high <= SLACK)
    return Assumption("sketch", "orthonormal", high, holds, f"recorded: {law}, {mode}")


def past_blocks(record: Record, of: str) -> Assumption:
    """A companion adapter of a quantised base holds all of the past."""
    quantised = record.fact("quantised", of)
    requires = "nothing of the past blocks was cut off"
    if quantised.missing or not quantised.all:
        return Assumption("past blocks", requires, None, None, f"recorded: {quantised}")
    if not any(quantised.all):
        return Assumption("past blocks", requires, 0.0, True, f"recorded: {quantised}")
    error = extreme(record, "companion_error", of, "largest")
    how = "recorded: the companion adapter's share that was cut off"
    if error:
        how = "the companion adapter was recompressed: part of the past was cut off"
    return Assumption("past blocks", requires, error, None if error is None else error == 0, how)


def gradients(record: Record, of: str, law: RateLaw) -> tuple[Assumption, ...]:
    """How the run drew its gradients, where it noted it, and how many steps of noise a block may have.

    Parameters
    ----------
    record, of
        The run.
    law
        The theorem.
    """
    # Exact gradients are unbiased ones of variance 0.
    wanted = {"gd": {"exact"}, "sgd": {"exact", "drawn"}, "rr": {"reshuffled"}, "fed": {"clients"}}
    words = {
        "gd": "of the whole function", "sgd": "unbiased, independent draws",
        "rr": "each part once a block, reshuffled", "fed": "of every client, at every local step",
    }[law]  # fmt: skip
    found = [
        assume_fact(record, "gradients", "gradients", words, lambda v: v in wanted[law], of=of)
    ]
    if law == "sgd":
        most = extreme(record, "steps", of, "largest")
        found.append(
            Assumption(
                "steps of a block", "1: the noise of further ones adds up", most,
                None if most is None else most <= 1, "recorded: steps of every block",
            )
        )  # fmt: skip
    return tuple(found)


def objections(record: Record, of: str) -> tuple[Assumption, ...]:
    """What somebody who knew better said against the run."""
    return tuple(
        Assumption("method", "as in the theorem", None, False, str(reason))
        for reason in record.fact("objection", of).all
    )


def common(record: Record, of: str, *, redrawn: bool) -> tuple[Assumption, ...]:
    """What every theorem of a chain asks of the run itself.

    Parameters
    ----------
    record, of
        The run.
    redrawn
        As in `one_factor`.
    """
    return (
        one_factor(record, of, redrawn=redrawn),
        *(c.of_run(record, of) for c in (*OPTIMIZER, *FUNCTION)),
        past_blocks(record, of),
        *objections(record, of),
    )


def federation(record: Record, of: str) -> tuple[Assumption, ...]:
    """What the theorem of Fed-RAC-LoRA asks of server and clients.

    Parameters
    ----------
    record, of
        The run.
    """
    return (
        method_of("fed_rac").of_run(record, of),
        assume_fact(record, "eta", "server step", "eta = 1", lambda v: v == 1, of=of),
        assume_fact(
            record, "participation", "participation", "every client in every round",
            lambda v: v == "all", of=of,
        ),
        assume_fact(
            record, "shared_sketch", "sketch of a round", "one for all clients", bool, of=of
        ),
    )  # fmt: skip
