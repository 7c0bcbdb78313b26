"""Like claims as one family: one statement, made of several settings of one study."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from surefoot.certificate import Certificate
from surefoot.guarantee import Verdict
from surefoot.report.templating import verdict_class


@dataclass(frozen=True)
class Family:
    """The certificates of one statement, in the order of the run."""

    key: str
    members: tuple[Certificate, ...]

    @property
    def name(self) -> str:
        """What the names of the members share; the first of them where they share nothing."""
        names = [c.name for c in self.members]
        if len(names) == 1:
            return names[0]
        return _shared(names) or f"{names[0]}, and the like"

    @property
    def worst(self) -> Certificate:
        """The member to look at first: a surprise, then one that is not kept, then the largest ratio."""
        return max(self.members, key=_urgency)

    @property
    def final(self) -> float:
        """The largest ratio at the end, of the members to which something is promised if there are any."""
        return _largest(c.final for c in self._promised)

    @property
    def tightness(self) -> float:
        """The largest ratio after the first step of these members."""
        return _largest(c.tightness for c in self._promised)

    @property
    def _promised(self) -> Sequence[Certificate]:
        nothing = (Verdict.NOT_PROMISED, Verdict.VACUOUS)
        return [c for c in self.members if c.verdict not in nothing] or self.members

    @property
    def outcomes(self) -> list[Sequence[Certificate]]:
        """The members in groups whose verdicts look alike, the most urgent group first."""
        like: dict[tuple[Verdict, str], list[Certificate]] = {}
        for c in self.members:
            like.setdefault((c.verdict, verdict_class(c)), []).append(c)
        return sorted(like.values(), key=lambda g: _urgency(g[0]), reverse=True)

    def label(self, member: Certificate) -> str:
        """What sets a member apart from the family."""
        own = member.name.removeprefix(self.name).removesuffix(self.name).strip(" ,:")
        return own or member.name


_ORDER = (Verdict.BROKEN, Verdict.UNDECIDED, Verdict.KEPT, Verdict.VACUOUS, Verdict.NOT_PROMISED)


def _urgency(c: Certificate) -> tuple[bool, int, float]:
    ratio = -math.inf if math.isnan(c.tightness) else c.tightness
    return c.surprise, -_ORDER.index(c.verdict), ratio


def _largest(values: Iterable[float]) -> float:
    return max((v for v in values if not math.isnan(v)), default=math.nan)


def _shared(names: Sequence[str]) -> str:
    """The words that all names begin with, else those that all end with, cut at commas and colons.

    What stands behind a colon says what is claimed, and goes before a beginning that only says of what.
    """
    start, end = _start(names), _end(names)
    behind = end and all(n == end or n.endswith(f": {end}") for n in names)
    return end if behind and not all(n.startswith(f"{start}: ") for n in names) else start or end


def _start(names: Sequence[str]) -> str:
    start = _common(names)
    if start in names:
        return start.strip(" ,:")
    for mark in (", ", ": ", " "):
        # A name that goes on behind a comma is cut there, and not in the middle of a phrase.
        if (at := start.rfind(mark)) > 0:
            return start[:at].strip(" ,:")
    return ""


def _end(names: Sequence[str]) -> str:
    end = _common([name[::-1] for name in names])[::-1]
    if end in names:
        return end
    cuts = [at + len(mark) for mark in (": ", ", ") if (at := end.find(mark)) >= 0]
    return end[min(cuts) :].strip() if cuts else ""


def _common(names: Sequence[str]) -> str:
    """What all of them begin with."""
    first, last = min(names), max(names)
    pairs = enumerate(zip(first, last, strict=False))
    return first[: next((i for i, (a, b) in pairs if a != b), len(first))]


def families(certificates: Iterable[Certificate]) -> list[Family]:
    """The certificates by what they claim, in the order in which each claim comes first."""
    found: dict[tuple[str, ...], list[Certificate]] = {}
    for c in certificates:
        claim = (c.latex or c.statement, c.source, c.sense, c.holds_in, str(c.heuristic))
        found.setdefault(claim, []).append(c)
    return [Family(f"claim-{i}", tuple(members)) for i, members in enumerate(found.values(), 1)]


def counted(certificates: Sequence[Certificate]) -> list[Sequence[Certificate]]:
    """The certificates in groups, as `Family.outcomes`."""
    return Family("all", tuple(certificates)).outcomes


def verdicts(certificates: Iterable[Certificate]) -> Counter[Verdict]:
    """How often each verdict came."""
    return Counter(c.verdict for c in certificates)
