"""Clients that lie, in federations of the loop in one process: each is named and kept out of the average."""

from __future__ import annotations

import random

import torch
from tests.federated.test_robust import LIES, Liar
from tests.soak.table import Trials

from surefoot.federated import federate


def liars(seed: int) -> Trials:
    """A lie, its round and the server's average, drawn; the others' average must come out to the bit."""
    rng = random.Random(f"{seed} liars")
    while True:
        what, robust = rng.choice(list(LIES)), rng.choice([None, "median", "trimmed:1"])
        partitions, rounds = rng.randint(4, 6), rng.randint(2, 4)
        says, reason = LIES[what]
        case = f"{what}, robust={robust}, {partitions} clients, {rounds} rounds"
        try:
            state = federate(Liar(says), rounds, partitions, robust=robust)
        except Exception as error:  # what it is, is what is asked
            yield "traceback", f"{case}: {type(error).__name__}: {error}"
            continue
        last = state.history.rounds[-1]
        kept_out = last.partitions == list(range(1, partitions))
        if (
            kept_out
            and reason in str(last.rejected.get(0))
            and torch.equal(state["w"], torch.ones(2))
        ):
            yield "named", case
        else:
            yield "silent", f"{case}: {last}"
