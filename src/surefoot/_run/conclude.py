"""From the seeds in a run folder to certificates, tables and figures."""

from __future__ import annotations

import dataclasses
import json
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from surefoot._run.folder import RunFolder
from surefoot.certificate import Certificate, certify
from surefoot.errors import UnknownNameError
from surefoot.guarantee import Verdict
from surefoot.record import Record
from surefoot.study import Part, Study, StudyConfig


@dataclass
class Conclusion:
    """What the seeds of a run say, and by part what kept it from being said."""

    certificates: list[Certificate] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)


def conclude(study: Study, config: StudyConfig, folder: RunFolder, confidence: float) -> Conclusion:
    """Derive everything a run folder says from the seeds in it.

    A part that cannot be concluded is a problem of its own and takes no other part with it.
    """
    records = folder.merge()
    found = Conclusion()
    for part in study.parts:
        if part.name not in records:
            continue
        about = folder.parts[part.name]
        missing = [s for s in about["seeds"] if not folder.is_done(part.name, s)]
        if missing and not len(records[part.name]):
            continue
        try:
            found.certificates += certificates_of(
                part, config, records[part.name], confidence, missing, about.get("look")
            )
            if not missing:
                _store(part, config, records[part.name], folder)
        except Exception as error:
            # Whatever a study's own code raises; an interrupt is no Exception and goes through.
            at = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(at.filename).name}, line {at.lineno}"
            found.problems[part.name] = f"{type(error).__name__}: {error} ({where})"
            folder.write_problem(part.name, traceback.format_exc())
    folder.write_certificates(found.certificates)
    return found


def certificates_of(
    part: Part,
    config: StudyConfig,
    record: Record,
    confidence: float,
    missing: list[int],
    look: int | None,
) -> list[Certificate]:
    """What the record of a part says, judged by the guarantees of the part.

    Parameters
    ----------
    part : Part
        Of a study.
    config : StudyConfig
        The configuration that it ran under.
    record : Record
        What it measured.
    confidence : float
        Of the verdicts on expectations.
    missing : list of int
        The seeds that did not end.
    look : int, optional
        How often the record has been looked at.
    """
    guarantees = list(part.guarantees(config))
    if missing:
        # A seed that was cut short may not have come to a quantity; one that ended has them all.
        guarantees = [g for g in guarantees if g.quantity in record]
    made = [certify(record, g, confidence, look=look) for g in guarantees]
    made += [_marked(c, record) for c in part.certificates(config, record)]
    names = [c.name for c in made]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"part {part.name} has {names.count(name)} certificates of the name {name!r}; each needs a "
                "name of its own"
            )
    for name in part.expects:
        if not missing and name not in names:
            raise UnknownNameError(f"certificate that part {part.name} announces", name, names)
    return [_labelled(c, part, missing) for c in made]


def _marked(certificate: Certificate, record: Record) -> Certificate:
    """One that a method made without `certify` is private where its quantity is."""
    if certificate.private or certificate.quantity not in record.private_quantities:
        return certificate
    return dataclasses.replace(certificate, private=(certificate.quantity,))


def _store(part: Part, config: StudyConfig, record: Record, folder: RunFolder) -> None:
    for name, table in public(record, lambda: part.tables(config, record)).items():
        folder.write_table(part.name, name, table)
    for name, figure in public(record, lambda: part.figures(config, record)).items():
        folder.write_figure(part.name, name, json.loads(figure.to_json()))


def public(record: Record, make: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """Tables or figures of a record, or none where a private column was read for them: pages show them."""
    with record.reading() as read:
        found = make()
    return {} if read & set(record.private_quantities) else found


def _labelled(certificate: Certificate, part: Part, missing: list[int]) -> Certificate:
    changes: dict[str, Any] = {"part": part.name, "expected": part.expects.get(certificate.name)}
    if missing:
        # The seeds that ended may differ from those that did not: their mean proves nothing.
        note = f"seeds {', '.join(map(str, missing))} did not end"
        changes["notes"] = (*certificate.notes, note)
        if certificate.verdict in (Verdict.KEPT, Verdict.UNDECIDED):
            changes |= {"verdict": Verdict.UNDECIDED, "reason": note}
    return dataclasses.replace(certificate, **changes)
