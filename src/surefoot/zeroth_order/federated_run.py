"""Federated scalars as one loop in one process: what Flower must equal, bit for bit; and what a run notes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot._numerics.secret import is_secret, secret_generator
from surefoot._showing import showing
from surefoot.certificate import Certificate
from surefoot.federated.coins import draw_secretly
from surefoot.federated.partition import draw_partitions, seed_for
from surefoot.federated.task import Visit
from surefoot.record import Fact, Record
from surefoot.zeroth_order._engine.private_facts import privacy_facts
from surefoot.zeroth_order._engine.recording import settings_in
from surefoot.zeroth_order.federated import (
    Agreement,
    Replica,
    ScalarProblem,
    Scalars,
    built,
    combined,
    measure_beside,
    share_of,
)
from surefoot.zeroth_order.federated_guarantee import APART, ULPS, certificates
from surefoot.zeroth_order.log import computed_by

SecretOf = Callable[[Visit], Generator]


@showing
@dataclass
class ScalarResult:
    """What a federation of scalars leaves behind.

    Attributes
    ----------
    scalars
        c of every round, (rounds, K): with the base weights, the whole result.
    record
        Its facts, and what `beside` measured.
    """

    scalars: Scalars
    record: Record = field(default_factory=Record)

    def certificates(self, confidence: float = 0.99) -> list[Certificate]:
        """F, W and R: what is promised, and what was measured."""
        return certificates(self.record, confidence=confidence)


@checked
def federate_scalars(
    problem: ScalarProblem,
    rounds: int,
    num_partitions: int,
    agreed: Agreement,
    *,
    seed: int = 0,
    fraction: float = 1.0,
    secret_draw: bool = False,
    secret: Generator | None = None,
    secret_of: SecretOf | None = None,
    absent: Callable[[int, int], bool] = lambda server_round, partition: False,
    record: Record | None = None,
) -> ScalarResult:
    """Run federated scalars without Flower: same draws, same sums, same bits.

    Parameters
    ----------
    problem
        What is trained.
    rounds, num_partitions
        How many of each.
    agreed
        LOZO's settings, the mechanism, who adds noise.
    seed, fraction, secret_draw, secret
        Of the draw of each round, as in `DeterministicFedAvg`. It amplifies no privacy of examples.
    secret_of
        secret_of(visit) -> the generator of a site's coins and noise, in place of the operating system's: for
        runs that are to be repeated, and so not private.
    absent
        absent(round, partition): who does not answer.
    record
        Where facts go; None: a new one.

    Raises
    ------
    ValueError
        A number outside of its range.
    """
    rounds = check_number("rounds", rounds, least=0, whole=True)
    num_partitions = check_number("num_partitions", num_partitions, least=1, whole=True)
    record = Record() if record is None else record
    coins = secret_generator() if secret is None else secret
    share = share_of(fraction, num_partitions, secret_draw)
    note_run(record, seed, problem, agreed, coins if secret_draw else None)
    replica, everyone = Replica(problem), range(num_partitions)
    scalars = torch.zeros(0, agreed.count, dtype=torch.float64)
    for server_round in range(1, rounds + 1):
        drawn = (
            draw_secretly(coins, everyone, fraction)
            if secret_draw
            else draw_partitions(seed, server_round, everyone, fraction)
        )
        replies: dict[int, tuple[Float[Tensor, " directions"], float]] = {}
        for p in drawn:
            visit = visit_of(seed, server_round, p, num_partitions, secret_of)
            sums, examples = replica.contribution(scalars, agreed, visit)
            if examples and not absent(server_round, p):
                replies[p] = (sums, float(examples))
                for name, known in visit.record.facts.items():
                    record.note(seed, **{name: known.all[0]})
        note_round(record, seed, sorted(replies) == list(everyone))
        if replies or agreed.privacy is not None:
            row = combined(replies, agreed, share)
            scalars = torch.cat([scalars, row[None]])
    note_steps(record, seed, agreed, len(scalars))
    return ScalarResult(scalars, record)


def visit_of(
    seed: int, server_round: int, partition: int, num_partitions: int, secret_of: SecretOf | None
) -> Visit:
    """A site in a round, with the secret that it is to have."""
    visit = Visit(partition, num_partitions, server_round, seed_for(seed, server_round, partition))
    if secret_of is not None:
        visit.secret = secret_of(visit)
    return visit


def note_run(
    record: Record,
    seed: int,
    problem: ScalarProblem,
    agreed: Agreement,
    coins: Generator | None,
) -> None:
    """What is known of a federation before its first round.

    The noted sample_rate is q, whatever the share of sites: one coin is a whole site's, so that its examples
    are not drawn independently. q holds all the same: divergences are jointly convex over who is drawn.

    Parameters
    ----------
    record, seed
        Where to.
    problem, agreed
        What is trained, and the settings.
    coins
        Of a secret draw of sites; None: the draw is public.
    """
    _, optimizer = built(problem, agreed)
    dtypes = {str(x.param.dtype).removeprefix("torch.") for x in optimizer.tensors}
    facts: dict[str, Fact] = {
        "protocol": "scalars", "directions": agreed.count, "local_steps": 1,
        "losses_in": ", ".join(sorted(dtypes)), "noise": noise_of(agreed),
        "run_on": " ".join(computed_by(optimizer.tensors).values()),
    }  # fmt: skip
    if agreed.trust == "server":
        # With noise by the sites there is more of it than the settings of one optimizer say.
        said = settings_in(optimizer.engine, type(optimizer).__name__).facts
        facts = {k: v.all[0] for k, v in said.items() if k != "unrecorded_steps"} | facts
    if agreed.privacy is not None:
        facts |= privacy_facts(optimizer.engine)
        facts |= {"trust": agreed.trust}
        if coins is not None:
            record.note(seed, secret_sampling=is_secret(coins))
        facts.pop("secret_noise", None)
        if agreed.trust == "server":
            given = agreed.privacy.secret
            facts["secret_noise"] = given is None or is_secret(given)
    record.note(seed, **facts)


def noise_of(agreed: Agreement) -> str:
    """Who adds any."""
    if agreed.privacy is None or not agreed.privacy.noise_multiplier:
        return "none"
    return "by the server" if agreed.trust == "server" else "by the sites"


def note_round(record: Record, seed: int, whole: bool) -> None:
    """Whether everybody's sum was in a round."""
    record.note(seed, participation="all" if whole else "some")


def note_steps(record: Record, seed: int, agreed: Agreement, steps: int) -> None:
    """How many sums were released."""
    if agreed.privacy is not None:
        record.note(seed, steps=steps)


def beside(
    result: ScalarResult,
    problem: ScalarProblem,
    agreed: Agreement,
    num_partitions: int,
    *,
    seed: int = 0,
    secret_of: SecretOf | None = None,
) -> None:
    """Measure a run against its pooled data (F) and its log (R), into its record.

    Parameters
    ----------
    result
        Of the loop, or a strategy's scalars and record.
    problem, agreed, num_partitions, seed, secret_of
        As it was run.
    """

    def visits(server_round: int) -> list[Visit]:
        return [
            visit_of(seed, server_round, p, num_partitions, secret_of)
            for p in range(num_partitions)
        ]

    found = measure_beside(problem, result.scalars, agreed, visits)
    for t, value in enumerate(found.ulps, 1):
        result.record.update(seed, t, {ULPS: value})
    result.record.update(seed, len(result.scalars), {APART: float(found.apart)})
    _, optimizer = built(problem, agreed)
    result.record.note(seed, replayed_on=" ".join(computed_by(optimizer.tensors).values()))
