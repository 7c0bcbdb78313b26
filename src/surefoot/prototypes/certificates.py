"""Which guarantees speak of what ran: the certificates of a training, of an upload and of a coverage."""

from __future__ import annotations

from collections.abc import Iterable

from surefoot.certificate import Certificate, certify, unmeasured
from surefoot.guarantee import Guarantee
from surefoot.prototypes.guarantee import (
    armijo_descent,
    communication,
    coverage_bound,
    distinguishing_advantage,
    pooled_identity,
    private_upload,
    stationary_point,
    wire_communication,
)
from surefoot.record import Record


def _certificates(
    record: Record, theorems: Iterable[tuple[Guarantee, str]], confidence: float
) -> list[Certificate]:
    return [
        certify(record, g, confidence) if g.quantity in record else unmeasured(record, g, todo)
        for g, todo in theorems
    ]


def of_training(record: Record, confidence: float = 0.99) -> list[Certificate]:
    """G1, G4 and G6 of a training on the server."""
    certified = 'train with solver="certified"'
    theorems = [
        (pooled_identity(), "compare_with_pooled trains on the pooled records too"),
        (armijo_descent(), certified),
        (stationary_point(), certified),
        (communication(), "the server's record has it"),
    ]
    return _certificates(record, theorems, confidence)


def of_upload(record: Record, confidence: float = 0.99) -> list[Certificate]:
    """G2 and G3 of an upload, or of an attack on one."""
    theorems = [
        (private_upload(), "extract with dp=GaussianRelease(...)"),
        (distinguishing_advantage(), "measure_advantage attacks the release"),
    ]
    return _certificates(record, theorems, confidence)


def of_federation(record: Record, confidence: float = 0.99) -> list[Certificate]:
    """G1 to G6 of a run on Flower, off the server's record."""
    certified = 'train with solver="certified" and a head in float64'
    without = "the clients say it of the adapter that came back, where nothing is private"
    theorems = [
        (pooled_identity(), "MPFTStrategy.compare_with_pooled trains on the pooled records too"),
        (private_upload(), "give an epsilon: dp=GaussianRelease(...)"),
        (distinguishing_advantage(), "measure_advantage attacks a release"),
        (armijo_descent(), certified),
        (stationary_point(), certified),
        (coverage_bound(), without),
        (wire_communication(), "the server counts what it receives"),
    ]
    return _certificates(record, theorems, confidence)


def of_coverage(record: Record, confidence: float = 0.99) -> list[Certificate]:
    """G5 of the prototypes of a client."""
    return _certificates(record, [(coverage_bound(), "Coverage.record measures it")], confidence)
