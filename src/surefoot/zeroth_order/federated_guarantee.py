"""What federated scalars promise: the bytes of a round (W), the pooled step (F), the replay (R)."""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Float

from surefoot.certificate import Certificate, certify, unmeasured
from surefoot.guarantee import Assumption, Guarantee, assume_fact
from surefoot.record import Fact, Record

SOURCE = "derived here, for the protocol of surefoot.zeroth_order.federated"
WIRE, ULPS, APART = "bytes of scalars", "ulps from pooled", "weights apart from the replay"
# NumPy's header of an array of fewer than two dimensions or two small ones.
HEADER, NUMBER = 128, 8


def scalar_wire() -> Guarantee:
    """W: a message carries the scalars that its client lacks, a reply K numbers, and neither a byte more.

    Columns "messages", "replies" and "rounds lacking" (the scalars of so many rounds were sent) are counted
    by the strategy; the fact `directions` is K.
    """
    return Guarantee(
        name="scalars alone on the wire",
        statement="bytes of a round = 128 (messages + replies) + 8 K (replies + rounds that clients lacked)",
        source=SOURCE,
        quantity=WIRE,
        sense="equal",
        holds_in="every run",
        bound=_bytes,
        assumptions=lambda record: (
            assume_fact(
                record, "protocol", "protocol", "scalars alone travel", lambda v: v == "scalars"
            ),
        ),
    )


def _bytes(record: Record) -> Float[np.ndarray, "seeds rounds"]:
    known = record.fact("directions").all
    if len(known) != 1:
        return np.full(record.curves(WIRE).values.shape, np.inf)
    messages, replies, lacking = (
        record.curves(name).values for name in ("messages", "replies", "rounds lacking")
    )
    headers, numbers = messages + replies, replies + lacking
    found: Float[np.ndarray, "seeds rounds"] = HEADER * headers + NUMBER * float(known[0]) * numbers
    return found


def scalar_pooled() -> Guarantee:
    """F: with all sites, c of a round is that of their pooled data, but for the rounding of one float32.

    `measure_beside` measures it in one process.
    """
    asked: tuple[tuple[str, str, str, tuple[Fact, ...]], ...] = (
        ("participation", "participation", "every site in every round", ("all",)),
        ("noise", "noise", "added once, after the sum", ("none", "by the server")),
        ("local_steps", "local steps", "one a round", (1,)),
        ("losses_in", "losses", "in float64, whatever the batch", ("float64",)),
    )
    return Guarantee(
        name="the pooled step",
        statement="|c_t - c_t of the pooled data| <= 1 unit in the last place of float32",
        source=SOURCE,
        quantity=ULPS,
        sense="upper",
        holds_in="every run",
        bound=lambda record: np.ones_like(record.curves(ULPS).values),
        assumptions=lambda record: tuple(
            assume_fact(
                record, fact, name, requires,
                functools.partial(_among, wanted),
            )
            for fact, name, requires, wanted in asked
        ),
    )  # fmt: skip


def _among(wanted: tuple[Fact, ...], given: Fact) -> bool:
    return given in wanted


def scalar_replay() -> Guarantee:
    """R: base weights and the log of scalars give the weights of a site, bit for bit.

    `measure_beside` measures it in one process.
    """
    return Guarantee(
        name="the log is the model",
        statement="weights that differ from the replay of the log = 0",
        source=SOURCE,
        quantity=APART,
        sense="equal",
        holds_in="every run",
        bound=lambda record: np.zeros_like(record.curves(APART).values),
        assumptions=lambda record: (_same_torch(record),),
    )


def _same_torch(record: Record) -> Assumption:
    run, again = record.fact("run_on"), record.fact("replayed_on")
    silent = not (run.all and again.all) or bool(run.missing or again.missing)
    same = len({*run.all, *again.all}) == 1
    how = f"recorded: {run}, {again}"
    requires = "the same minor version of torch and kind of device"
    return Assumption("where", requires, None, None if silent else same, how)


TODO = {
    WIRE: "nothing travels in one process; run it on Flower",
    ULPS: "measure_beside measures it in one process, without noise and with every example",
    APART: "measure_beside measures it in one process",
}


def certificates(record: Record, *, confidence: float = 0.99) -> list[Certificate]:
    """F, W and R of a federation, in this order.

    Parameters
    ----------
    record
        What strategy or loop, and `measure_beside`, wrote.
    confidence
        As in `surefoot.certify`.
    """
    return [
        certify(record, guarantee, confidence)
        if guarantee.quantity in record
        else unmeasured(record, guarantee, TODO[guarantee.quantity])
        for guarantee in (scalar_pooled(), scalar_wire(), scalar_replay())
    ]
