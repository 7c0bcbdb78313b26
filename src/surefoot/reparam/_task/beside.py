"""A federation of plain networks with the multi-branch one beside it: what G2 promises, measured."""

from __future__ import annotations

import copy
import dataclasses

from surefoot._numerics.arguments import checked
from surefoot.federated.reference import federate
from surefoot.federated.result import FederatedState
from surefoot.federated.server_rule import ServerRule
from surefoot.federated.task import State
from surefoot.record import Record
from surefoot.reparam._guarantee.columns import GAP
from surefoot.reparam.equivalence import equivalence_gap
from surefoot.reparam.task import RepOptTask


@checked
def federate_beside(
    task: RepOptTask,
    rounds: int,
    num_partitions: int,
    *,
    seed: int = 0,
    fraction: float = 1.0,
    rule: ServerRule | None = None,
    record: Record | None = None,
) -> FederatedState:
    """Federate FedRepOpt and Fed-CSLA from the same start, and record their gap after every round.

    Both run in this process, with the same seeds, partitions and draws; it takes twice the time.

    Parameters
    ----------
    task
        Of arm "fedrepopt".
    rounds, num_partitions, seed, fraction, rule, record
        As for `surefoot.federated.federate`.

    Returns
    -------
    FederatedState
        Of the plain networks; its record has the column "free-running gap".

    Raises
    ------
    ValueError
        A task of another arm: the others follow nothing.
    """
    if task.arm != "fedrepopt":
        raise ValueError(f"the task must be of arm 'fedrepopt', got {task.arm!r}")
    beside: list[State] = []
    federate(
        dataclasses.replace(task, arm="csla"), rounds, num_partitions, seed=seed, fraction=fraction,
        rule=copy.deepcopy(rule), after=lambda r, state, metrics: beside.append(state),
    )  # fmt: skip
    plain, csla = task.build("plain"), task.build("csla")
    record = Record() if record is None else record

    def after(server_round: int, state: State, metrics: object) -> None:
        for model, found in ((plain, state), (csla, beside[server_round - 1])):
            model.load_state_dict(found, strict=task.bn != "local")
        record.update(seed, server_round, {GAP: equivalence_gap(plain, csla)})

    return federate(
        task, rounds, num_partitions, seed=seed, fraction=fraction, rule=copy.deepcopy(rule),
        extra=task.extra(seed), after=after, record=record,
    )  # fmt: skip
