"""What leaves a site, said before it leaves: sizes, promises, and how near it comes to the records."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import called
from surefoot._showing import showing
from surefoot.prototypes._client.inputs import labelled
from surefoot.prototypes.covering import nearest_row
from surefoot.prototypes.membership import SAME, MembershipAudit, audit_membership
from surefoot.prototypes.prototype_set import PrototypeSet, an_upload


@checked(nan=True)
@dataclass(frozen=True)
class Nearness:
    """How near the rows of an upload come to records of their class; no record is in it.

    Attributes
    ----------
    least
        {class: least distance of a row to a record}.
    median
        {class: median over rows of the distance to the nearest record}.
    raw_rows
        Rows that equal a record.
    without_records
        Classes of the upload that the records have not.
    audit
        Membership attack; None where there are no records that were not in the upload.
    """

    least: dict[int, float]
    median: dict[int, float]
    raw_rows: int
    without_records: list[int]
    audit: MembershipAudit | None


@showing
@checked(nan=True)
@dataclass(frozen=True)
class UploadReport:
    """What is in an upload.

    Attributes
    ----------
    rows
        Prototypes.
    d
        Numbers in each.
    nbytes
        Of all arrays that leave.
    method
        How they were made.
    ratio
        Of the method.
    encoder_id
        Name or hash.
    dtype
        Of the features.
    epsilon
        Of the release; None: no noise, nothing is promised.
    delta
        Of the release.
    nu
        Its noise in units of the sensitivity.
    clip
        Its clip.
    advantage
        The most that an attacker's true positive rate exceeds the false one, if the noise was drawn as said.
    classes
        {class: (rows, records)}.
    singletons
        Rows that stand for one record: without noise, and but for "random", each is that record itself.
    private_rows
        Whether noise was added, so that no row is a record.
    nearness
        To own records; None where none were given.
    """

    rows: int
    d: int
    nbytes: int
    method: str
    ratio: float
    encoder_id: str
    dtype: str
    epsilon: float | None
    delta: float | None
    nu: float | None
    clip: float | None
    advantage: float | None
    classes: dict[int, tuple[int, int]]
    singletons: int
    private_rows: bool
    nearness: Nearness | None

    @property
    def warnings(self) -> list[str]:
        """What should make one think before it is sent."""
        found = []
        if not self.private_rows:
            found.append("no noise: nothing is promised of any record")
            if self.method == "random":
                found.append(f"method random: all {self.rows} rows are records themselves")
            elif self.singletons:
                found.append(
                    f"{self.singletons} rows stand for one record each, and are that record itself"
                )
        near = self.nearness
        if near is not None and near.raw_rows:
            found.append(f"{near.raw_rows} rows equal one of the records that were given")
        if near is not None and near.audit is not None and near.audit.auc >= 0.8:
            found.append(
                f"who was in it can be told: the membership attack reaches an AUC of {near.audit.auc:.2f}"
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        """For JSON, in which infinity is a word."""
        near = self.nearness
        found: dict[str, Any] = {
            "rows": self.rows, "d": self.d, "bytes": self.nbytes, "method": self.method,
            "ratio": self.ratio, "encoder": self.encoder_id, "dtype": self.dtype,
            "epsilon": _plain(self.epsilon), "delta": self.delta, "nu": self.nu, "clip": self.clip,
            "advantage": self.advantage, "singleton_rows": self.singletons,
            "classes": {
                str(c): {"rows": m, "records": n} for c, (m, n) in sorted(self.classes.items())
            },
            "warnings": self.warnings,
        }  # fmt: skip
        if near is not None:
            found["nearest_records"] = {
                str(c): {"least": near.least[c], "median": near.median[c]} for c in near.least
            }
            found["raw_rows"] = near.raw_rows
            found["classes_without_records"] = near.without_records
            audit = near.audit
            found["membership"] = (
                None if audit is None else {"auc": audit.auc, "flagged": audit.flagged}
            )
        return found

    def __str__(self) -> str:
        lines = [
            f"{self.rows} rows of {self.d} numbers ({self.dtype}), {self.nbytes:,} bytes",
            f"method {self.method}, ratio {self.ratio:g}, encoder {self.encoder_id or 'not named'}",
            self._promise(),
            "class  rows  records" + ("  nearest record: least  median" if self.nearness else ""),
        ]
        for label, (m, n) in sorted(self.classes.items()):
            line = f"{label:5}  {m:4}  {n:7}"
            if self.nearness is not None and label in self.nearness.least:
                near = self.nearness
                line += f"  {near.least[label]:21.6f}  {near.median[label]:.6f}"
            lines.append(line)
        if self.nearness is not None and self.nearness.audit is not None:
            lines.append(
                f"membership attack: AUC {self.nearness.audit.auc:.3f} (0.5: no leak seen)"
            )
        lines += [f"WARNING: {w}" for w in self.warnings]
        return "\n".join(lines)

    def _promise(self) -> str:
        if self.epsilon is None:
            return "no noise: epsilon is infinite"
        return (
            f"epsilon {self.epsilon:g} at delta {self.delta:g} (nu {self.nu:.6g}, clip {self.clip:g}): an "
            f"attacker's advantage is at most {self.advantage:.4f}"
        )


@checked(leave=("protos",))
def inspect_upload(
    protos: PrototypeSet,
    feats: Any = None,
    y: Any = None,
    others: Any = None,
    y_others: Any = None,
) -> UploadReport:
    """Say what an upload holds, without any record.

    Parameters
    ----------
    protos
        The upload, as it was made or loaded.
    feats, y
        (N, d) own embeddings and (N,) classes from which it came; None: only the upload is looked at.
    others, y_others
        Records of the same kind that were not in it: with them a membership attack is made.

    Raises
    ------
    ValueError
        Records that are not finite or do not fit, or others without own ones.
    """
    an_upload(protos)
    if (feats is None) != (y is None) or (others is None) != (y_others is None):
        raise ValueError("records are embeddings and their classes: give both, or none")
    if feats is None and others is not None:
        raise ValueError("others are compared with the records of the upload: give feats and y too")
    rows = Counter(protos.labels.tolist())
    release = protos.release
    private = release is not None and release.nu > 0
    alone = int((protos.weights <= 1).sum()) if protos.method != "random" else 0
    near = None if feats is None else _nearness(protos, feats, y, others, y_others)
    return UploadReport(
        len(protos), protos.d, protos.nbytes, protos.method, protos.ratio, protos.encoder_id,
        str(protos.features.dtype).removeprefix("torch."),
        None if release is None else release.epsilon, None if release is None else release.delta,
        None if release is None else release.nu, None if release is None else release.clip,
        None if release is None else release.advantage,
        {c: (rows[c], n) for c, n in protos.counts.items()}, 0 if private else alone, private, near,
    )  # fmt: skip


def _nearness(protos: PrototypeSet, feats: Any, y: Any, others: Any, y_others: Any) -> Nearness:
    z, labels = labelled(feats, y, protos.d, 2**62)
    away = nearest_row(protos, z, labels)
    there = torch.isfinite(away)
    least, median = {}, {}
    for label in sorted(protos.counts):
        own = away[(protos.labels == label) & there]
        if len(own):
            least[label], median[label] = float(own.min()), float(own.median())
    scale = torch.linalg.vector_norm(protos.features.double(), dim=1)
    raw = int((away <= SAME * scale).sum())
    audit = None
    if others is not None:
        with called(members="feats"):
            audit = audit_membership(protos, feats, y, others, y_others)
    lacking = sorted(set(protos.counts) - set(least))
    return Nearness(least, median, raw, lacking, audit)


def _plain(value: float | None) -> float | str | None:
    return "inf" if value is not None and math.isinf(value) else value
