"""Three trainings in which an audit exceeds the heuristic, and a control in which it does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from surefoot.guarantee import Guarantee, Verdict
from surefoot.privacy import counterexamples as c
from surefoot.privacy.facts import copy_facts
from surefoot.privacy.guarantee import heuristic_claim, proven_claim
from surefoot.privacy.heuristic import last_iterate
from surefoot.record import Record

DELTA = 1e-3
CONTROL = "control without forgetting"
RUNS = {"quick": 200_000, "standard": 10**6, "paper": 10**6}
DIGIT_RUNS = {"quick": 10_000, "standard": 10**5, "paper": 10**5}
SHORT, LONG = (0.3, 0.01, 16), (0.4, 0.02, 16)
CASES: dict[str, tuple[tuple[float, float, int], Callable[..., c.Counterexample]]] = {
    "C1 forgetting": (SHORT, c.PRESETS["forgetting"]),
    "C2 malicious data": (SHORT, c.PRESETS["malicious_data"]),
    "C3 encoding": (LONG, c.PRESETS["encoding"]),
    # The threshold is the best one for eps = 1 where all steps count.
    CONTROL: (
        SHORT,
        lambda **more: c.forgetting(*SHORT, DELTA, alpha=0.0, threshold=3.763, **more),
    ),
}
EXPECTS = {f"{name} <= heuristic": Verdict.BROKEN for name in CASES if name != CONTROL}


def run(config: Any, seed: int, record: Record) -> None:
    """Every counterexample once."""
    for name, (_, make) in CASES.items():
        runs = (DIGIT_RUNS if name.startswith("C3") else RUNS)[config.size]
        result = make(runs=runs, seed=seed).run()
        record.append(seed, 0, **{name: result.lower_bound})
        copy_facts(result.record, record, seed, name)


def guarantees(config: Any) -> list[Guarantee]:
    """The heuristic is refuted three times, what is proven never."""
    found = []
    for name in CASES:
        found += [heuristic_claim(name, of=name), proven_claim(name, of=name)]
    return found


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """Audited bound between heuristic and proven value; the envelope covers C1 and C2."""
    from surefoot.privacy.composition import standard

    rows = []
    for name, (claim, _) in CASES.items():
        mechanism = last_iterate(*claim)
        rows.append(
            {
                "training": name,
                "audit, lowest of seeds": record.constant(name).min(),
                "heuristic": mechanism.epsilon(DELTA).value,
                "envelope": mechanism.envelope(DELTA).value,
                "proven": standard(*claim).epsilon(DELTA).value,
            }
        )
    return {f"epsilon at delta {DELTA:g}": pd.DataFrame(rows)}
