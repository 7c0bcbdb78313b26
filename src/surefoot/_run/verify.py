"""Whether a run says what its record says: every file hashed, every verdict reached anew."""

from __future__ import annotations

import glob
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pandas as pd

from surefoot import data
from surefoot._run.conclude import certificates_of, public
from surefoot._run.files import read_json
from surefoot._run.folder import RunFolder, file_name, plain_table
from surefoot._run.manifest import read_manifest
from surefoot._run.plan import config_of
from surefoot.certificate import Certificate
from surefoot.data.reads import read_so_far
from surefoot.errors import SurefootError
from surefoot.record import Record
from surefoot.study import Part, StudyConfig, load_study

# Another processor adds in another order.
ROUNDING = 1e-9
Again = Callable[[Record, Mapping[str, Any], float], list[Certificate]]


@dataclass(frozen=True)
class Compared:
    """A certificate of a run beside the one that its record gives now."""

    part: str
    """Of the study."""
    name: str
    """Of the guarantee."""
    stored: str | None
    """The verdict in certificate.json; None: it has no such certificate."""
    again: str | None
    """The verdict reached from the record now; None: there is none."""
    differs: tuple[str, ...]
    """The other fields that are not the same."""

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return self.stored == self.again and not self.differs


@dataclass
class Verified:
    """What `verify` found of a run."""

    changes: list[str] = field(default_factory=list)
    """Files that are not as the run left them."""
    certificates: list[Compared] = field(default_factory=list)
    """Every certificate, beside the one that the record gives."""
    unchecked: list[str] = field(default_factory=list)
    """What could not be checked, and why."""

    @property
    def holds(self) -> bool:
        """Whether every file and every certificate that was checked is as it was."""
        return not self.changes and all(c.same for c in self.certificates)

    def to_dict(self) -> dict[str, Any]:
        """As plain lists and words."""
        return {"holds": self.holds, **asdict(self)}


def verify(folder: RunFolder, singles: Mapping[str, Again] | None = None) -> Verified:
    """Hash every file of a run and of the data it read, and reach every verdict anew from its record.

    Whoever changes a file and its line in manifest.json is not found out by the hashes, but by a verdict that
    the record does not bear; whoever invents a record is found out by neither: repeat the run.

    Parameters
    ----------
    folder : RunFolder
        A run that ended.
    singles
        By the name of what is no study, as the run says itself (a watched loop, a fine-tuning):
        certificates of its record, its config, and at its confidence.

    Raises
    ------
    FileFormatError
        A file that is needed is missing or damaged.
    """
    found = Verified()
    changes = folder.changes
    if changes is None:
        found.unchecked.append(
            "no file: the run left no manifest.json (killed, or of an earlier version)"
        )
    else:
        found.changes += changes
        _check_data(folder, found)
    _check_seeds(folder, found)
    again = (singles or {}).get(folder.study)
    if again is not None and folder.config.get("single"):
        _check_single(again, folder, found)
        return found
    try:
        study = load_study(folder.study)
    except SurefootError as error:
        found.unchecked.append(f"no verdict: {error}")
        return found
    config = config_of(study, folder)
    stored = {(c.part, c.name): c for c in folder.certificates()}
    own = {p.name: p for p in study.parts}
    _check_parts(folder, found)
    for name in folder.parts:
        if name in own:
            mine = [c for c in stored.values() if c.part == name]
            _check_part(own[name], config, folder, mine, found)
        else:
            found.unchecked.append(f"part {name}: study {study.name} has no such part now")
    return found


def _check_parts(folder: RunFolder, found: Verified) -> None:
    seen = Counter((c.part, c.name) for c in folder.certificates())
    for (part, name), times in seen.items():
        if part not in folder.parts:
            found.changes.append(f"certificate {name!r} is of part {part!r}, which the run has not")
        if times > 1:
            # Only one of them would be held against the record.
            found.changes.append(f"certificate {name!r} of part {part!r} is there {times} times")


def _check_single(certificates: Again, folder: RunFolder, found: Verified) -> None:
    """Reach the verdicts of a run that is no study, from its record as those of a study."""
    _check_parts(folder, found)
    confidence = float(folder.config.get("confidence", 0.99))
    for part in folder.parts:
        record = folder.record(part)
        stored = [c for c in folder.certificates() if c.part == part]
        made = list[Certificate]()
        try:
            made = certificates(record, folder.config.get("config", {}), confidence)
        except Exception as error:
            # Whatever is raised on a record that is not the one that was made.
            why = f"{type(error).__name__}: {error}"
            found.unchecked.append(f"part {part} cannot be concluded from its record: {why}")
        _compare(part, stored, [replace(c, part=part) for c in made], record, found)
    found.unchecked += [
        f"tables/{file.name}: nothing but the run itself could write it again"
        for file in sorted((folder.path / "tables").glob("*.json"))
    ]


def _check_data(folder: RunFolder, found: Verified) -> None:
    manifest = read_manifest(folder.path) or {"read": {}}
    for name, digest in manifest["read"].items():
        if name.startswith("--"):
            found.unchecked.append(f"{name}: compare its SHA-256 with {digest}")
            continue
        try:
            data.verify(name)
            data.fetch(name)
        except SurefootError as error:
            found.unchecked.append(f"data {name}: {error}")
            continue
        if read_so_far().get(name) != digest:
            found.changes.append(f"data {name} is not what the run read")


def _check_seeds(folder: RunFolder, found: Verified) -> None:
    """Whether record.parquet is what the seeds wrote."""
    for part, about in folder.parts.items():
        whole = folder.record(part)
        for seed in about["seeds"]:
            if not folder.is_done(part, seed):
                found.unchecked.append(f"seed {seed} of part {part} did not end")
                continue
            damage = folder.damage(part, seed)
            files = any(folder.seed_folder(part, seed).glob("*.parquet"))
            own = Record.read(folder.seed_folder(part, seed)) if files and not damage else None
            if own is not None and not _same_rows(own, whole, seed):
                damage = f"record.parquet does not hold what seed {seed} of part {part} wrote"
            if damage is not None and damage not in found.changes:
                found.changes.append(damage)


def _same_rows(own: Record, whole: Record, seed: int) -> bool:
    def rows(record: Record) -> pd.DataFrame:
        table: pd.DataFrame = record.table().to_pandas()
        table = table[table["seed"] == seed].astype({"quantity": str})
        return table.sort_values(["quantity", "step"], kind="stable").reset_index(drop=True)

    return rows(own).equals(rows(whole))


def _check_part(
    part: Part, config: StudyConfig, folder: RunFolder, stored: list[Certificate], found: Verified
) -> None:
    if part.missing:
        found.unchecked.append(f"part {part.name}: it needs the extra {', '.join(part.missing)}")
        return
    about = folder.parts[part.name]
    missing = [s for s in about["seeds"] if not folder.is_done(part.name, s)]
    record = folder.record(part.name)
    if missing and not len(record) and not stored:
        return
    confidence = float(folder.config.get("confidence", 0.99))
    again, tables = dict[str, Certificate](), None
    try:
        made = certificates_of(part, config, record, confidence, missing, about.get("look"))
        again = {c.name: c for c in made}
        tables = {} if missing else public(record, lambda: part.tables(config, record))
    except Exception as error:
        # Whatever the study's own code raises on a record that is not the one that it made.
        why = f"{type(error).__name__}: {error}"
        found.unchecked.append(f"part {part.name} cannot be concluded from its record: {why}")
    _compare(part.name, stored, list(again.values()), record, found)
    if tables is not None and not missing:
        _check_tables(part, folder, tables, found)


def _compare(
    part: str, stored: list[Certificate], made: list[Certificate], record: Record, found: Verified
) -> None:
    before, again = {c.name: c for c in stored}, {c.name: c for c in made}
    for name in dict.fromkeys([*before, *again]):
        old, new = before.get(name), again.get(name)
        differs = () if old is None or new is None else _differed(old, new)
        if (
            old is not None
            and new is not None
            and "curve" in differs
            and same_curve(old, new, record)
        ):
            differs = tuple(d for d in differs if d != "curve")
        found.certificates.append(
            Compared(
                part,
                name,
                None if old is None else str(old.verdict),
                None if new is None else str(new.verdict),
                tuple(d for d in differs if d != "verdict"),
            )
        )


def _check_tables(
    part: Part, folder: RunFolder, tables: Mapping[str, pd.DataFrame], found: Verified
) -> None:
    again = {file_name(part.name, n): t for n, t in tables.items()}
    there = {f.name for f in (folder.path / "tables").glob(f"{glob.escape(part.name)}.*.json")}
    for name in sorted({*there, *again}):
        file = folder.path / "tables" / name
        if name in there and name in again:
            # Through JSON, as the stored one went.
            new = json.loads(json.dumps(plain_table(again[name]), default=str))
            if _alike(read_json(file), new):
                continue
        found.changes.append(f"tables/{name} is not what the record gives")


def same_curve(old: Certificate, new: Certificate, record: Record) -> bool:
    """Whether two curves are of one run: which of its steps are drawn may differ, the values there may not.

    Parameters
    ----------
    old, new
        As stored, and as reached anew.
    record
        What was measured, for the steps that only the stored one has.
    """
    bands = ("mean", "lowest", "highest", "promised")
    again = dict(
        zip(new.curve.steps, zip(*(getattr(new.curve, b) for b in bands), strict=True), strict=True)
    )
    measured = dict[int, tuple[float, ...]]()
    if old.quantity in record:
        curves = record.curves(old.quantity)
        values = curves.values
        rows = zip(values.mean(axis=0), values.min(axis=0), values.max(axis=0), strict=True)
        measured = {
            int(s): tuple(map(float, row)) for s, row in zip(curves.steps, rows, strict=True)
        }
    # A certificate of a study's own may draw what it computed from the record, not the record itself.
    bears = all(step in measured and _alike(row[:3], measured[step]) for step, row in again.items())
    for i, step in enumerate(old.curve.steps):
        stored = tuple(getattr(old.curve, band)[i] for band in bands)
        if step in again:
            if not _alike(stored, again[step]):
                return False
        elif (bears and (step not in measured or not _alike(stored[:3], measured[step]))) or (
            not bears and not min(again, default=0) <= step <= max(again, default=-1)
        ):
            return False
    return bool(old.curve.steps) == bool(new.curve.steps)


def _differed(old: Certificate, new: Certificate) -> tuple[str, ...]:
    found = _differences(old.to_dict(publish_private=True), new.to_dict(publish_private=True))
    # What an axis says is words: runs from before it was stored are whole without it.
    return tuple(name for name in found if name != "axis" or old.axis is not None)


def _differences(old: dict[str, Any], new: dict[str, Any]) -> tuple[str, ...]:
    return tuple(k for k in dict.fromkeys([*old, *new]) if not _alike(old.get(k), new.get(k)))


def _alike(a: Any, b: Any) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_alike(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(_alike, a, b))
    numbers = (isinstance(x, (int, float)) and not isinstance(x, bool) for x in (a, b))
    if all(numbers):
        return (a != a and b != b) or math.isclose(a, b, rel_tol=ROUNDING, abs_tol=1e-300)
    return bool(a == b)
