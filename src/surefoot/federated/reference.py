"""The federation as one loop in one process: what every runtime must equal, bit for bit."""

from __future__ import annotations

from collections.abc import Callable

import torch

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot._numerics.secret import is_secret, secret_generator
from surefoot.federated._arrays import check_values
from surefoot.federated.coins import draw_secretly
from surefoot.federated.mean import check_reply
from surefoot.federated.partition import draw_partitions, seed_for
from surefoot.federated.result import FederatedState
from surefoot.federated.robust import (
    MAX_EXAMPLES,
    Declared,
    check_robust,
    facts_of_mean,
    robust_mean,
)
from surefoot.federated.rounds import FederationHistory
from surefoot.federated.server_rule import ServerRule
from surefoot.federated.task import State, Task, Visit, merged, reply_of
from surefoot.record import Record


@checked
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
    record: Record | None = None,
    robust: str | None = None,
    max_examples: float = MAX_EXAMPLES,
    uniform: bool = False,
    secret_draw: bool = False,
    secret: torch.Generator | None = None,
) -> FederatedState:
    """Run a task without Flower: same seeds, same draws, same reduction as the apps.

    Studies use it, and the tests hold the Flower runtimes equal to it.

    Parameters
    ----------
    task
        What is trained.
    rounds, num_partitions
        How many of each.
    seed, fraction
        Of the draw of each round; the seed is that of the task's initial state and of every visit too.
    rule
        What the server does with the mean; FedAvg by default.
    extra
        Arrays of the server that are no part of the model.
    after
        after(round, state, metrics of the clients) sees every round.
    record
        Where the rounds and the facts of server and clients go; None: a new one.
    robust, max_examples, uniform, secret_draw, secret
        As in `DeterministicFedAvg`.

    Returns
    -------
    FederatedState
        The final global state, with its `record` and `certificates()`.

    Raises
    ------
    ValueError
        A number outside of its range; an initial state, or one that the rule gives, with NaN, infinity or a
        negative variance. A client's is named in the history, and the round goes on with the others.
    SurefootError
        No reply of any round fitted.
    """
    rounds = check_number("rounds", rounds, least=0, whole=True)
    num_partitions = check_number("num_partitions", num_partitions, least=1, whole=True)
    seed = check_number("seed", seed, whole=True)
    fraction = check_number("fraction", fraction, above=0, most=1)
    rule = rule or ServerRule()
    check_robust(robust)
    declared = Declared(max_examples)
    coins = secret_generator() if secret is None else secret
    history = FederationHistory(
        record=Record() if record is None else record, seed=seed, secret=secret_draw
    )
    state = task.initial(seed)
    check_reply(state, state)
    history.note(
        runtime="reference", num_partitions=num_partitions, fraction=float(fraction), min_nodes=1
    )
    memories: dict[int, State] = {p: {} for p in range(num_partitions)}
    for server_round in range(1, rounds + 1):
        replies, metrics = {}, {}
        if secret_draw:
            history.note(secret_sampling=is_secret(coins))
            drawn = draw_secretly(coins, range(num_partitions), fraction)
        else:
            drawn = draw_partitions(seed, server_round, range(num_partitions), fraction)
        expected = reply_of(task, state)
        for p in drawn:
            visit = Visit(
                p, num_partitions, server_round, seed_for(seed, server_round, p), memories[p],
                {k: v.clone() for k, v in (extra or {}).items()},
            )  # fmt: skip
            new, examples, found = task.train({k: v.clone() for k, v in state.items()}, visit)
            visit.note_memory()
            if not examples and not uniform:
                continue
            try:
                check_reply(new, expected)
                replies[p] = (new, 1.0 if uniform else declared.check(p, examples))
            except ValueError as error:
                # As the strategy does: it is named, and the round goes on with the others.
                history.round(server_round).rejected[p] = str(error)
                continue
            metrics[p] = found
            history.hear({k: known.all for k, known in visit.record.facts.items()})
        if replies:
            state = rule.apply(state, merged(task, state, robust_mean(replies, robust)))
            check_values(state)
            history.note(**facts_of_mean(rule, robust, uniform))
        history.round(server_round).partitions = sorted(replies)
        history.close(server_round)
        if after is not None:
            after(server_round, state, metrics)
    history.refuse_nothing()
    theorems = getattr(task, "theorems", None)
    return FederatedState(state, history, theorems() if theorems is not None else ())
