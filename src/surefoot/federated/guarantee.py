"""What a federation promises whatever it trains: the bytes of a round; and the certificates of a run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from surefoot.certificate import Certificate, certify, unmeasured
from surefoot.guarantee import Guarantee
from surefoot.listing import lettered
from surefoot.record import Record

BYTES_UP, BYTES_DOWN = "bytes up", "bytes down"
SOURCE = "by the protocol of surefoot.federated"
# A theorem, and how to measure its quantity where a run did not.
Theorem = tuple[Guarantee, str]


def uplink() -> Guarantee:
    """A reply that was counted carries the arrays that are expected of it, and not a byte more or less."""
    return Guarantee(
        name="uplink: one state a reply",
        statement="bytes up in a round = replies * bytes of the arrays that a reply must hold",
        source=SOURCE,
        quantity=BYTES_UP,
        sense="equal",
        holds_in="every run",
        bound=lambda record: record[f"promised {BYTES_UP}"],
    )


def downlink() -> Guarantee:
    """No message carries more than the global state, and extra arrays once a node."""
    return Guarantee(
        name="downlink: at most one state a message, extra arrays once",
        statement="bytes down in a round <= messages * bytes of the state + new nodes * bytes of the extra",
        source=SOURCE,
        quantity=BYTES_DOWN,
        sense="upper",
        holds_in="every run",
        bound=lambda record: record[f"promised {BYTES_DOWN}"],
    )


def certificates(
    record: Record,
    theorems: Iterable[Theorem] = (),
    *,
    confidence: float = 0.99,
    secret: bool = False,
) -> list[Certificate]:
    """The certificates of one federation.

    Parameters
    ----------
    record
        What the strategy, or the reference loop, wrote.
    theorems
        Those of the method that was federated, each with how to measure it.
    confidence
        As in `certify`.
    secret
        Whether who took part is kept out of the record.
    """
    nothing = "nothing travels in one process; run the task on Flower"
    if secret:
        nothing = "who took part is secret, and the bytes of a round would say how many did"
    all_theorems = [*theorems, (uplink(), nothing), (downlink(), nothing)]
    return [
        certify(record, guarantee, confidence)
        if guarantee.quantity in record
        else unmeasured(record, guarantee, todo)
        for guarantee, todo in all_theorems
    ]


def of_record(record: Record, **asked: Any) -> list[Certificate]:
    """The bytes of a federation, where its record counted them (`surefoot.certificates`)."""
    counted = BYTES_UP in record or BYTES_DOWN in record
    return [lettered(c, "W") for c in certificates(record)] if counted else []
