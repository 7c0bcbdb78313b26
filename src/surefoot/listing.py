"""One list of what every method promises of a run: `surefoot.certificates`.

A method joins by a function `of_record(record, **asked)` in its `guarantee.py`: the certificates for which
this record alone suffices, none where the method's facts are not in it. `asked` are the keywords of
`certificates` below. Nothing here names a method.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import pkgutil
from pathlib import Path
from typing import Any

import surefoot
from surefoot._numerics.arguments import checked
from surefoot.certificate import Certificate
from surefoot.record import Record

HOOK = "of_record"
CLAIMS = {
    "P": "privacy of all that left",
    "H": "the last iterate leaks less",
    "Z": "descent under clipping and noise",
    "F": "a federation equals pooled data",
    "W": "bytes on the wire",
    "R": "weights from the log",
}
"""The letters of a composed run's claims, in the order of the list: `Certificate.details["claim"]`."""


def lettered(certificate: Certificate, letter: str) -> Certificate:
    """The same as one of `CLAIMS`."""
    return dataclasses.replace(certificate, details={**certificate.details, "claim": letter})


@checked(leave=("audit",))
def certificates(
    record: Record,
    *,
    delta: float | None = None,
    audit: Any = None,
    publish_private: bool = False,
) -> list[Certificate]:
    """What every method whose facts are in a record promises of the run: what survived, and what did not.

    In the order of `CLAIMS`, then all others. A claim whose condition failed is there with its reason, one
    whose quantity nobody measured says how to; a record without facts gives an empty list.

    Parameters
    ----------
    record
        Of one run, whatever was put together in it.
    delta
        The failure probability of claims on privacy, where the record does not have it.
    audit
        The result of an audit of the run's mechanism, for instance of `surefoot.privacy.audit.mechanism`.
    publish_private
        Whether the list will be published with numbers of private columns (`to_json(publish_private=True)`):
        they are then among what left, and privacy is not promised.

    Raises
    ------
    ValueError
        If delta or the audit contradicts the record.
    """
    if publish_private:
        record = Record.concat([record])
        record.published()
    found: list[Certificate] = []
    for name in with_hook():
        module = importlib.import_module(f"surefoot.{name}.guarantee")
        found += getattr(module, HOOK)(record, delta=delta, audit=audit)
    order = {letter: place for place, letter in enumerate(CLAIMS)}
    return sorted(found, key=lambda c: order.get(c.details.get("claim", ""), len(order)))


def with_hook() -> list[str]:
    """The subpackages whose guarantees answer from a record alone; imports none of them."""
    root = Path(surefoot.__path__[0])
    names = sorted(m.name for m in pkgutil.iter_modules([str(root)]) if m.ispkg)
    return [name for name in names if _has_hook(root / name / "guarantee.py")]


def _has_hook(path: Path) -> bool:
    if not path.exists():
        return False
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return any(isinstance(node, ast.FunctionDef) and node.name == HOOK for node in body)
