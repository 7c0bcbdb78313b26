"""G1 to G7: the theorems of arXiv 2410.08292 and what is derived here, as Guarantees on a record.

Written by `train_looped` (G1, G2, G3, G5), `gradient_flow` (G3, G4) and `loop_longer` (G6, G7). The paper's
text was not available: its statements are as a third party quotes them, which `source` says.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from surefoot.certificate import Certificate, certify, unmeasured
from surefoot.guarantee import Guarantee, Verdict
from surefoot.in_context._guarantee import conditions
from surefoot.in_context._guarantee.descent import (
    DOMINATED,
    ON_PATH,
    TIME,
    flow_time_bound,
    gradient_dominance,
    scalar_dominance,
)
from surefoot.in_context._guarantee.looping import (
    CONTRACTS,
    DIVERGES,
    MEAN,
    diverging_prompts,
    mean_over_loops,
    prompts_contract,
)
from surefoot.in_context._guarantee.optimum import (
    BIAS,
    MINIMISER,
    OPTIMUM,
    bias_cost,
    exact_optimum_reached,
    minimiser_near_inverse,
)
from surefoot.in_context._guarantee.reading import column_at
from surefoot.in_context.bounds import DOMINANCE, minimiser_bound
from surefoot.record import Record

__all__ = [
    "BIAS",
    "CONTRACTS",
    "DIVERGES",
    "DOMINATED",
    "MEAN",
    "MINIMISER",
    "ON_PATH",
    "OPTIMUM",
    "TIME",
    "bias_cost",
    "diverging_prompts",
    "exact_optimum_reached",
    "flow_certificates",
    "flow_time_bound",
    "gradient_dominance",
    "looping_certificates",
    "mean_over_loops",
    "minimiser_near_inverse",
    "prompts_contract",
    "scalar_dominance",
    "training_certificates",
]


def training_certificates(record: Record) -> list[Certificate]:
    """G1 to G5 on what `train_looped` recorded, with the exact optimum beside the promised distance."""
    found = [
        _judged(record, minimiser_near_inverse(), "train with tied layers"),
        _judged(record, bias_cost(), "train with train_u=True"),
        _judged(record, gradient_dominance(), "train with tied layers"),
        _judged(record, flow_time_bound(), "gradient_flow(d, n, loops) runs the flow itself"),
        _judged(record, exact_optimum_reached(), "the exact optimum is known up to 20 loops"),
    ]
    return [
        _beside(record, found[0]), found[1], _crossing(record, found[2]), found[3], _short(found[4])
    ]  # fmt: skip


def flow_certificates(record: Record) -> list[Certificate]:
    """G3 and G4 on what `gradient_flow` recorded."""
    claims = (gradient_dominance(), scalar_dominance(), flow_time_bound())
    first, *rest = [_judged(record, c, "run gradient_flow") for c in claims]
    return [_crossing(record, first), *rest]


def looping_certificates(record: Record) -> list[Certificate]:
    """G6 and G7 on what `loop_longer` recorded."""
    claims = (prompts_contract(), mean_over_loops(), diverging_prompts())
    return [_judged(record, c, "A must be positive definite to be measured") for c in claims]


def _judged(record: Record, claim: Guarantee, todo: str) -> Certificate:
    if claim.quantity in record:
        return certify(record, claim)
    return unmeasured(record, claim, todo)


def _beside(record: Record, found: Certificate) -> Certificate:
    """The promised distance is mostly vacuous: the exact one stands beside it."""
    exact = conditions.constant(record, "best_step", record.seeds)
    size = next(iter(conditions.sizes(record, record.seeds)), None)
    if size is None or np.isnan(exact).any():
        return found
    distance, promised = abs(float(exact[0, 0]) - 1), minimiser_bound(*size)
    said = (
        f"promised distance c = {promised.c:.4g}{' (vacuous)' if promised.vacuous else ''}; "
        f"exact |b* - 1| = {distance:.4g}"
    )
    return dataclasses.replace(
        found,
        notes=(*found.notes, said),
        details={"c": promised.c, "vacuous": promised.vacuous, "exact_distance": distance},
    )


def _short(found: Certificate) -> Certificate:
    """G5 broken is a training that is not done, or that got stuck: no theorem is at stake."""
    if found.verdict is not Verdict.BROKEN:
        return found
    said = (
        "the exact optimum stands: this training has not reached it. More steps, another lr, or "
        'objective="conditional"'
    )
    return dataclasses.replace(found, notes=(*found.notes, said))


def _crossing(record: Record, found: Certificate) -> Certificate:
    """At which loss the ratio first falls below 1/16."""
    if "dominance_ratio" not in record:
        return found
    curves = record.curves("dominance_ratio")
    seed = int(curves.seeds[0])
    loss = column_at(record, "loss", curves.steps, [seed])[0]
    under = np.flatnonzero(curves.values[0] < DOMINANCE)
    at = float(loss[under[0]]) if len(under) else None
    said = (
        "the ratio stays at 1/16 or above"
        if at is None
        else f"the ratio is below 1/16 from the loss {at:.6g} on (seed {seed})"
    )
    return dataclasses.replace(found, notes=(*found.notes, said), details={"crossing_loss": at})
