"""Uploads as they arrive: read, compared with what was asked for, and enough of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from surefoot.errors import SurefootError, need
from surefoot.prototypes._upload.refusal import Asked
from surefoot.prototypes.doors import told
from surefoot.prototypes.doors.messages import ARRAYS
from surefoot.prototypes.prototype_set import PrototypeSet

with need("flwr", extra="federated", part="surefoot.prototypes on Flower"):
    from flwr.app import RecordDict

    from surefoot.federated.records import wire_bytes
    from surefoot.federated.rounds import Round


@dataclass(frozen=True)
class Upload:
    """One that is what was asked for, its bytes on the wire, and its noise."""

    protos: PrototypeSet
    size: int
    noise: list[float]


def read_upload(content: RecordDict, examples: int, asked: Asked, report: Round) -> Upload:
    """The upload of a reply; its bytes count whether it is good or not.

    Parameters
    ----------
    content
        Of the reply.
    examples
        As many records as its numbers claim.
    asked
        What was asked for.
    report
        Of the round.

    Raises
    ------
    ValueError
        It is none, not what was asked for, or contradicts itself.
    """
    found = content.array_records.get(ARRAYS)
    size = 0 if found is None else wire_bytes(found)
    report.bytes_up += size
    protos = PrototypeSet.from_record(content)
    asked.check(protos)
    if examples != sum(protos.counts.values()):
        raise ValueError(
            f"num-examples is {examples}, its counts sum to {sum(protos.counts.values())}"
        )
    return Upload(protos, size, told.noise_of(content, protos, asked.dp))


def enough(
    read: Mapping[int, Upload], dry: Mapping[int, str], least: int, count: int, report: Round
) -> dict[int, Upload]:
    """Those to train on, in ascending partition; why the others are not among them is in the round's report.

    Parameters
    ----------
    read
        {partition: upload} that is what was asked for.
    dry
        {partition: file} of sites that sent nothing.
    least, count
        Uploads that suffice, of how many.
    report
        Of the round.

    Raises
    ------
    SurefootError
        Fewer than `least`, two encoders equally often, or a dry run of all.
    """
    for partition, file in dry.items():
        report.rejected[partition] = f"dry run, nothing was sent: {file}"
    if dry and not read:
        files = ", ".join(f"partition {p}: {dry[p]}" for p in sorted(dry))
        raise SurefootError(f"dry run, nothing was sent and nothing trained: {files}")
    others = told.other_encoders({p: u.protos for p, u in read.items()})
    report.rejected.update(others)
    good = {p: read[p] for p in sorted(read) if p not in others}
    report.partitions = sorted(good)
    if len(good) < least:
        reasons = {**report.lost, **report.rejected}
        said = "; ".join(f"partition {p}: {reasons[p]}" for p in sorted(reasons))
        raise SurefootError(f"{len(good)} good uploads of {count}, min_clients is {least}; {said}")
    return good
