"""Which method: a step of each is measured in a process of its own, and the choice is explained."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from surefoot.finetune.config import METHODS, ON_BLOCKS, FinetuneConfig
from surefoot.finetune.errors import FinetuneError
from surefoot.finetune.memory import GIB, available
from surefoot.finetune.models import Source

# Gradients first, as they need fewer steps; among those the one that writes least.
ORDER = ("lora", "rac-lora", "cola", "full", "lozo", "lozo-m", "mezo")
EVALUATION = "evaluation"
# Of what is free: the rest is for what else goes on.
SHARE = 0.9


@dataclass(frozen=True)
class Candidate:
    """A method, with or without its base in blocks, and what a step of it takes.

    Attributes
    ----------
    method, quantised
        Which; the method "evaluation" is a forward alone.
    peak
        Bytes of the whole process.
    seconds
        Of a step, on the longest batch.
    failed
        Why it could not be measured; None: it could.
    """

    method: str
    quantised: bool
    peak: int = 0
    seconds: float = 0.0
    failed: str | None = None

    @property
    def name(self) -> str:
        """For people."""
        return self.method + (" on the file's blocks" if self.quantised else "")


@dataclass(frozen=True)
class Choice:
    """The candidate that was taken, and the sentence that says why."""

    taken: Candidate
    why: str
    measured: tuple[Candidate, ...]

    def lines(self) -> list[str]:
        """What was measured, a line a candidate."""
        return [
            f"{c.name}: " + (c.failed or f"{c.peak / GIB:.2f} GiB, {c.seconds:.2f} s a step")
            for c in self.measured
        ]


def candidates(config: FinetuneConfig, source: Source) -> list[Candidate]:
    """What there is to choose from, within what the configuration says."""
    methods: Sequence[str] = METHODS if config.method is None else (config.method,)
    found = []
    if config.quantised is not True:
        found += [Candidate(m, False) for m in ORDER if m in methods]
    if config.quantised is not False and source.gguf is not None:
        found += [Candidate(m, True) for m in ON_BLOCKS if m in methods]
    if config.quantised and source.gguf is None:
        raise FinetuneError(
            f"--quantised needs a GGUF file, and {source.name} holds ordinary weights"
        )
    return found


def choose(config: FinetuneConfig, source: Source, say: Callable[[str], None]) -> Choice:
    """Measure every candidate, and take the first of `ORDER` that fits.

    Raises
    ------
    FinetuneError
        None fits.
    """
    measured = []
    for candidate in candidates(config, source):
        found = measure(config, candidate)
        measured.append(found)
        say(Choice(found, "", (found,)).lines()[0])
    most, said = _limit(config)
    fits = [c for c in measured if c.failed is None and (most is None or c.peak <= most)]
    if not fits:
        raise FinetuneError(_nothing(measured, said))
    taken = fits[0]
    larger = measured[: measured.index(taken)]
    reason = f"{taken.name} is taken: it fits {said}"
    if larger:
        reason += f", and {', '.join(c.name for c in larger)} do{'es' * (len(larger) == 1)} not"
    elif len(measured) > 1:
        reason += ", and methods with gradients need fewer steps than those without"
    return Choice(taken, reason, tuple(measured))


def _limit(config: FinetuneConfig) -> tuple[float | None, str]:
    if config.max_memory is not None:
        return config.max_memory * GIB, f"the {config.max_memory:g} GiB given"
    free = available()
    if free is None:
        return None, "as far as is known"
    return free * SHARE, f"the {free * SHARE / GIB:.2f} GiB free here"


def _nothing(measured: Sequence[Candidate], said: str) -> str:
    able = [c for c in measured if c.failed is None]
    if not able:
        return f"no method can train this model: {measured[0].name}: {measured[0].failed}"
    least = min(able, key=lambda c: c.peak)
    return (
        f"nothing fits {said}: {least.name} takes {'least, ' if len(able) > 1 else ''}"
        f"{least.peak / GIB:.2f} GiB, libraries included; a smaller --batch or "
        "--max-length takes less"
    )


def measure(config: FinetuneConfig, candidate: Candidate) -> Candidate:
    """A step of a candidate, in a process of its own, which is where its peak is its own."""
    given = json.dumps(
        {"config": config.to_dict(), "method": candidate.method, "quantised": candidate.quantised}
    )
    done = subprocess.run(
        [sys.executable, "-m", "surefoot.finetune.measuring"],
        input=given, capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        said = done.stderr.strip().splitlines()
        why = said[-1] if said else f"its process ended with {done.returncode}"
        return Candidate(candidate.method, candidate.quantised, failed=why)
    found: dict[str, Any] = json.loads(lines[-1])
    return Candidate(candidate.method, candidate.quantised, **found)
