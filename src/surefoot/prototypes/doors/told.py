"""What replies say, checked, and how it goes into the record of a federation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
from torch import Tensor

from surefoot._numerics.checks import check_number
from surefoot.errors import SurefootError, need
from surefoot.prototypes.accuracy import AccuracyMatrix
from surefoot.prototypes.communication import comm_cost_of
from surefoot.prototypes.doors.messages import METRICS
from surefoot.prototypes.gaussian_release import GaussianRelease
from surefoot.prototypes.guarantee import BYTES_UP, HEADER, NOISE, OF_COVERAGE, WIRE_UP
from surefoot.prototypes.prototype_set import PrototypeSet
from surefoot.prototypes.server_training import ServerReport

with need("flwr", extra="federated", part="surefoot.prototypes on Flower"):
    from flwr.app import Message, MetricRecord, RecordDict

    from surefoot.federated.rounds import FederationHistory, Round
    from surefoot.federated.strategy import MOST_SAID

PARTITION, EXAMPLES, NOISES = "partition-id", "num-examples", "noise-multipliers"
BESIDE = "class sizes, and accuracies of the evaluate phase"
SHARES = frozenset(
    {"accuracy", "zero-shot-accuracy", "personal-accuracy", "audit-auc", "raw-fraction"}
)
"""Numbers of a reply that lie in [0, 1]; all others are at least 0."""


def numbers_of(content: RecordDict, partition: int) -> tuple[dict[str, float], int]:
    """The single numbers of a reply, and its examples.

    Raises
    ------
    ValueError
        It has none, comes from another partition, or holds what is not finite or cannot be.
    """
    record = content.metric_records.get(METRICS)
    if record is None:
        raise ValueError(f'a reply has a MetricRecord "{METRICS}", got {sorted(map(str, content))}')
    if record.get(PARTITION) != partition:
        raise ValueError(
            f"it claims partition {record.get(PARTITION)}, it is partition {partition}"
        )
    examples = record.get(EXAMPLES)
    if not isinstance(examples, int) or examples < 0:
        raise ValueError(f"{EXAMPLES} must be a whole number of at least 0, got {examples}")
    found: dict[str, float] = {}
    for name, value in record.items():
        if name in (PARTITION, EXAMPLES) or isinstance(value, list):
            continue
        # Coverage bounds are infinite where an adapted prototype is 0.
        most = 1.0 if name in SHARES else math.inf
        check_number(str(name), value, least=0, most=most, finite=name not in OF_COVERAGE)
        found[str(name)] = float(value)
    return found, examples


def noise_of(content: RecordDict, protos: PrototypeSet, dp: GaussianRelease | None) -> list[float]:
    """What a client says of its noise, in units of the sensitivity, class by class; [] without release.

    Raises
    ------
    ValueError
        It says nothing, or not of every class.
    """
    if dp is None:
        return []
    given = content.metric_records[METRICS].get(NOISES)
    wanted = len(protos.counts) + (protos.method == "gauss")
    wanted = 1 if protos.method == "random" else wanted
    if (
        not isinstance(given, list)
        or len(given) != wanted
        or not all(math.isfinite(v) and v >= 0 for v in given)
    ):
        raise ValueError(f"{NOISES} must be {wanted} numbers of at least 0, got {given}")
    return [float(v) for v in given]


def answers(
    replies: Iterable[Message], sent: Mapping[int, int], report: Round
) -> dict[int, dict[str, float]]:
    """{partition: numbers} of replies without arrays; who is silent, fails or lies is named in the round.

    Parameters
    ----------
    replies
        Of a phase.
    sent
        {node: partition} that was asked.
    report
        Of the round.
    """
    silent, found = dict(sent), {}
    for reply in replies:
        node = reply.metadata.src_node_id
        partition = silent.pop(node, None)
        if partition is None:
            continue
        if reply.has_error():
            report.lost[partition] = f"node {node}: {str(reply.error.reason)[:MOST_SAID]}"
            continue
        try:
            found[partition] = numbers_of(reply.content, partition)[0]
        except ValueError as error:
            report.rejected[partition] = f"node {node}: {str(error)[:MOST_SAID]}"
    for node, partition in silent.items():
        report.lost[partition] = f"node {node}: no reply within the round's timeout"
    return dict(sorted(found.items()))


def other_encoders(sets: Mapping[int, PrototypeSet]) -> dict[int, str]:
    """{partition: reason} of those whose encoder is not that of most.

    Raises
    ------
    SurefootError
        Two encoders are equally frequent: nobody knows which is meant.
    """
    counts = Counter(s.encoder_id for s in sets.values()).most_common()
    if len(counts) < 2:
        return {}
    if counts[0][1] == counts[1][1]:
        raise SurefootError(
            f"clients use the encoders {dict(counts)}, none of them most: give encoder_id, and install it "
            "at all clients"
        )
    most = counts[0][0]
    return {
        p: f"its encoder is {s.encoder_id!r}, that of most is {most!r}"
        for p, s in sets.items()
        if s.encoder_id != most
    }


def bytes_of(state: Mapping[str, Tensor]) -> int:
    """Bytes of arrays as they travel, in closed form."""
    return sum(HEADER + v.numel() * v.element_size() for v in state.values())


def write_training(
    history: FederationHistory, report: ServerReport, sets: Mapping[int, PrototypeSet], wire: int
) -> None:
    """Curves and facts of the training, and the bytes of the uploads that it is made of.

    Parameters
    ----------
    history
        Whose record is written to.
    report
        Of the training.
    sets
        The uploads.
    wire
        Bytes of their arrays as they arrived.
    """
    seed, own = history.seed, report.record
    for name in own.quantities:
        if BYTES_UP not in name:
            curve = own.curves(name)
            history.record.extend(seed, name, curve.values[0], curve.steps.tolist())
    for name, known in own.facts.items():
        for value in known.all:
            history.note(**{name: value})
    history.note(stop=report.stop)
    history.record.update(seed, 1, {"server seconds": report.seconds})
    for label in report.classes_without_prototypes:
        history.note(class_without_prototypes=label)
    cost = comm_cost_of(list(sets.values()))
    headers = HEADER * sum(len(s.arrays()) for s in sets.values())
    history.record.update(
        seed, 1, {WIRE_UP: wire, f"promised {WIRE_UP}": cost.up + cost.beside + headers}
    )


def write_noise(
    history: FederationHistory, noises: list[float], dp: GaussianRelease | None, evaluate: bool
) -> None:
    """What the clients said of their noise, and what leaves beside it.

    Parameters
    ----------
    history
        Whose record is written to.
    noises
        In units of the sensitivity, client by client and class by class.
    dp
        The release that was asked for.
    evaluate
        Whether accuracies come back too.
    """
    if dp is None:
        return
    history.record.extend(history.seed, NOISE, noises)
    if evaluate:
        history.note(beside=BESIDE)


def write_scores(
    history: FederationHistory, server_round: int, found: Mapping[int, Mapping[str, float]]
) -> AccuracyMatrix | None:
    """Accuracies by domain, and the numbers of G5.

    Parameters
    ----------
    history
        Whose record and metrics are written to.
    server_round
        Of the evaluate phase.
    found
        {partition: what its reply said}.

    Returns
    -------
    AccuracyMatrix or None
        One row, the global adapter's, over the partitions that said theirs in ascending order.
    """
    matrix, metrics = None, {}
    for name in ("accuracy", "zero-shot-accuracy", "personal-accuracy"):
        said = {p: numbers[name] for p, numbers in found.items() if name in numbers}
        if not said:
            continue
        row = AccuracyMatrix(np.array([list(said.values())]))
        metrics[name] = row.ind
        if name != "zero-shot-accuracy":
            metrics |= {f"{name}, partition {p}": v for p, v in said.items()}
        if name == "accuracy":
            matrix = row
            metrics["worst accuracy"] = row.worst
    if metrics:
        history.evaluated(server_round, metrics)
    whole = {p: n for p, n in found.items() if all(name in n for name in OF_COVERAGE)}
    for partition, numbers in whole.items():
        values = {name: numbers[name] for name in OF_COVERAGE}
        history.record.update(history.seed, partition, values)
    if whole:
        history.note(
            assignment="nearest of class and client",
            weights="assigned shares",
            loss="cross-entropy",
        )
    return matrix


def mean_record(told: Mapping[int, Mapping[str, float]]) -> MetricRecord:
    """Means over clients of what they said of their uploads."""
    names = sorted({name for numbers in told.values() for name in numbers})
    found = {}
    for name in names:
        values = [numbers[name] for numbers in told.values() if name in numbers]
        # Divided first: a sum of what strangers say may overflow.
        found[name] = math.fsum(value / len(values) for value in values)
    return MetricRecord({**found, "clients": len(told)})
