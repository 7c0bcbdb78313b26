"""The federation as one loop in one process: what every runtime must equal, bit for bit."""

from __future__ import annotations

from collections.abc import Callable

from surefoot.federated.mean import weighted_mean
from surefoot.federated.partition import draw_partitions, seed_for
from surefoot.federated.server_rule import ServerRule
from surefoot.federated.task import State, Task, Visit


def federate(
    task: Task,
    rounds: int,
    num_partitions: int,
    *,
    seed: int = 0,
    fraction: float = 1.0,
    rule: ServerRule | None = None,
    extra: State | None = None,
    after: Callable[[int, State, dict[int, dict[str, float]]], object] | None = None,
) -> State:
    """Run a task without Flower; `after(round, state, metrics of the clients)` sees every round.

    Same seeds, same draws, same reduction as the apps: studies use it, and the tests hold the Flower
    runtimes equal to it.
    """
    rule = rule or ServerRule()
    state = task.initial(seed)
    memories: dict[int, State] = {p: {} for p in range(num_partitions)}
    for server_round in range(1, rounds + 1):
        replies, metrics = {}, {}
        for p in draw_partitions(seed, server_round, range(num_partitions), fraction):
            visit = Visit(
                p, num_partitions, server_round, seed_for(seed, server_round, p), memories[p],
                {k: v.clone() for k, v in (extra or {}).items()},
            )  # fmt: skip
            new, examples, found = task.train({k: v.clone() for k, v in state.items()}, visit)
            if examples:
                replies[p] = (new, examples)
                metrics[p] = found
        if replies:
            state = rule.apply(state, weighted_mean(replies))
        if after is not None:
            after(server_round, state, metrics)
    return state
