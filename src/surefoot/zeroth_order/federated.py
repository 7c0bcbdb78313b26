"""Federated scalars: sites send K numbers a round, and rebuild the weights from everybody's.

Round t: a client makes X_t of the base weights and the scalars so far, takes c along the public direction on
its own examples, and returns the sum of it; the server adds up, divides, appends. What travels is independent
of the model's size (arXiv 2312.06353, 2405.15861), and with all sites the step is that of their pooled data.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number
from surefoot.errors import ArgumentError
from surefoot.zeroth_order.log import StepLog
from surefoot.zeroth_order.lozo import LOZO
from surefoot.zeroth_order.private import PoissonSampler, Privacy

Trust = Literal["server", "none"]
Scalars = Float[Tensor, "rounds directions"]
# Settings of LOZO whose effect is a function of the scalars: every site then makes the same step of them.
AGREED = frozenset(
    {"lr", "rank", "nu", "eps", "momentum", "reproject", "scale", "v_dist", "seed", "num_directions",
     "weight_decay", "one_sided", "leave_one_out", "freeze_embeddings"}
)  # fmt: skip
REFUSED = {
    "secagg": "each site's share of the noise then counts on a floor of sites that stay, sums are of "
    "integers, and Flower has SecAgg+ in its older interface alone",
}


@runtime_checkable
class ScalarProblem(Protocol):
    """What the sites of a federation train; the same code on each, with its own data."""

    def model(self) -> nn.Module:
        """The base model, made anew: the same weights everywhere, each read by its own module only."""
        ...

    def losses(self, model: nn.Module, rows: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
        """One loss an example; b may be 0."""
        ...

    def rows(self, visit: Any) -> Int[Tensor, " n"]:
        """The examples of a site. With privacy all of them: who is in the batch is up to secret coins."""
        ...

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """On the server, on data that are nobody's secret."""
        ...


@checked(leave=("trust",))
@dataclass(frozen=True)
class Agreement:
    """What server and sites must agree on, all of it public; the server sends it with every round.

    Parameters
    ----------
    directions
        Settings of `LOZO`: lr, rank, nu, eps, seed, num_directions and others on which a step depends.
    privacy
        The mechanism; None: none.
    trust
        Who adds the noise: "server", once, trusted with the exact sums; "none", each site all of it, so that
        the sum of n sites has n times the variance.

    Raises
    ------
    ValueError
        A setting that is none of these, or whose step would depend on more than the scalars.
    """

    directions: Mapping[str, Any] = field(default_factory=dict)
    privacy: Privacy | None = None
    trust: Trust = "server"

    def __post_init__(self) -> None:
        if self.trust in REFUSED:
            raise ValueError(f"trust = {self.trust!r} is not built: {REFUSED[self.trust]}")
        check_choice("trust", self.trust, get_args(Trust))
        wrong = sorted(set(self.directions) - AGREED)
        if wrong:
            raise ValueError(
                f"directions must be settings among {', '.join(sorted(AGREED))}, got {', '.join(wrong)}"
            )
        if self.trust == "none" and self.privacy is None:
            raise ValueError(
                "trust = 'none' needs privacy: without noise the server sees exact sums"
            )

    @property
    def count(self) -> int:
        """K, the numbers of a round."""
        return int(self.directions.get("num_directions", 1))

    def to_json(self) -> str:
        """As it travels; the secret stays."""
        private = None if self.privacy is None else self.privacy.to_dict()
        return json.dumps([dict(self.directions), private, self.trust])

    @classmethod
    def from_json(cls, text: str) -> Agreement:
        """What a server has sent."""
        directions, private, trust = json.loads(text)
        return cls(directions, None if private is None else Privacy(**private), trust)


class Replica:
    """The model of a site: made of the base and everybody's scalars, and brought up to date round by round.

    It holds nothing of the site's data, so several sites in one process share it.

    Parameters
    ----------
    problem
        What is trained.
    """

    def __init__(self, problem: ScalarProblem) -> None:
        self.problem = problem
        self._made: tuple[nn.Module, LOZO] | None = None
        self._agreed, self._scalars = "", torch.zeros(0, 0, dtype=torch.float64)

    def at(self, scalars: Scalars, agreed: Agreement) -> tuple[nn.Module, LOZO]:
        """The model after these scalars, and the optimizer that made the steps."""
        words, there = agreed.to_json(), len(self._scalars)
        known = words == self._agreed and torch.equal(self._scalars, scalars[:there])
        if self._made is None or not known:
            self._made = None  # before the next is built: two of them may not fit
            self._made, there = built(self.problem, agreed), 0
            self._agreed = words
        model, optimizer = self._made
        for row in scalars[there:]:
            optimizer.apply(row)
        self._scalars = scalars.clone()
        return model, optimizer

    def contribution(
        self, scalars: Scalars, agreed: Agreement, visit: Any
    ) -> tuple[Float[Tensor, " directions"], int]:
        """What a site sends, in double, and how many examples it stands for: 1 with privacy.

        Without privacy the sum of c over its examples: of n_k examples n_k times their mean. With privacy the
        sum of the clipped c of those that the secret coins chose, and with trust "none" its noise.

        Parameters
        ----------
        scalars, agreed
            Of the rounds so far; the settings.
        visit
            The site and the round, with the site's secret.

        Raises
        ------
        ValueError
            The problem's losses are not one loss an example of the rows asked for.
        """
        model, optimizer = self.at(scalars, agreed)
        rows = self.problem.rows(visit)

        def losses(batch: Tensor) -> Tensor:
            found = self.problem.losses(model, batch)
            # A mean would be weighed as so many examples, and clipped as if it were one.
            if not isinstance(found, Tensor) or found.shape != (len(batch),):
                got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
                raise ArgumentError(
                    "losses",
                    f"must return one loss an example, a tensor of shape ({len(batch)},), got {got}",
                )
            return found

        try:
            if agreed.privacy is None:
                optimizer.estimate(lambda: losses(rows).double().mean(), weight=float(len(rows)))
                return optimizer.contribution(), len(rows)
            rate = agreed.privacy.sample_rate
            drawn = PoissonSampler(len(rows), rate, secret=visit.secret).draw()
            optimizer.estimate(losses, rows[torch.tensor(drawn, dtype=torch.int64)])
            found = optimizer.contribution(noise=False)
            if agreed.trust == "none":
                own = dataclasses.replace(agreed.privacy, secret=visit.secret)
                found = found + torch.from_numpy(own.noise(agreed.count))
                visit.note_secret("noise")
            visit.note_secret("sampling")
            visit.record.note(sampling="poisson")
            return found, 1
        finally:
            # The step is the server's: nothing of this estimate stays.
            optimizer.engine.abandon()


def built(
    problem: ScalarProblem, agreed: Agreement, log: bool | None = None
) -> tuple[nn.Module, LOZO]:
    """The base model and the optimizer of an agreement."""
    model = problem.model().eval()
    optimizer = LOZO(model, **agreed.directions, self_check=False, log=log, privacy=agreed.privacy)
    return model, optimizer


def log_of(
    problem: ScalarProblem, scalars: Scalars, agreed: Agreement
) -> tuple[nn.Module, StepLog]:
    """The final model of a federation, and the log from which `replay` makes it of the base."""
    model, optimizer = built(problem, agreed, log=True)
    for row in scalars:
        optimizer.apply(row)
    optimizer.flush()
    assert optimizer.log is not None
    return model, optimizer.log


def combined(
    replies: Mapping[int, tuple[Float[Tensor, " directions"], float]],
    agreed: Agreement,
    share: float = 1.0,
) -> Float[Tensor, " directions"]:
    """c of a round, rounded to float32: the sites' sums, exactly added, over a constant.

    Without privacy over the number of their examples: with all sites, the mean over the pooled data. With
    privacy over q N, and with trust "server" the noise is added here, before anything is stored or sent.

    Parameters
    ----------
    replies
        {partition: (sum, examples)}; with privacy there may be none.
    agreed
        The settings.
    share
        The expected share of the sites in a round.
    """
    sums = [
        math.fsum(float(replies[p][0][k]) for p in sorted(replies)) for k in range(agreed.count)
    ]
    total = np.array(sums)
    if agreed.privacy is None:
        total = total / math.fsum(examples for _, examples in replies.values())
    else:
        if agreed.trust == "server":
            total = total + agreed.privacy.noise(agreed.count)
        total = total / (agreed.privacy.divisor * share)
    return torch.from_numpy(total.astype(np.float32)).double()


@dataclass(frozen=True)
class Measured:
    """What `measure_beside` found.

    Attributes
    ----------
    ulps
        Of each round the distance of c to that of the pooled data, in float32's units in the last place; none
        where noise or coins that nobody can toss again are in it.
    apart
        How many trained weights differ, bit for bit, between a site that took part in every round and the
        replay of the log.
    """

    ulps: list[float]
    apart: int


def measure_beside(
    problem: ScalarProblem,
    scalars: Scalars,
    agreed: Agreement,
    visits: Callable[[int], Iterable[Any]],
) -> Measured:
    """Hold a federation against its pooled data and against its log, in one process.

    Parameters
    ----------
    problem, scalars, agreed
        What was trained, what every round gave, the settings.
    visits
        visits(round, from 1) -> a `Visit` of every site.
    """
    from surefoot.zeroth_order.replaying import replay

    replica, privacy, ulps = Replica(problem), agreed.privacy, []
    seen = privacy is None or (privacy.noise_multiplier == 0 and privacy.sample_rate == 1)
    for t in range(len(scalars)):
        sites = list(visits(t + 1))
        for visit in sites:
            replica.contribution(scalars[:t], agreed, visit)
        if seen:
            pooled = _Pooled(problem, torch.cat([problem.rows(v) for v in sites]))
            replica.problem = pooled
            sums, count = replica.contribution(scalars[:t], agreed, sites[0])
            replica.problem = problem
            found = combined({0: (sums, count)}, agreed)
            unit = np.spacing(np.abs(found.numpy()).astype(np.float32)).astype(np.float64)
            ulps.append(float((np.abs((scalars[t] - found).numpy()) / unit).max()))
    model, optimizer = replica.at(scalars, agreed)
    optimizer.flush()
    _, log = log_of(problem, scalars, agreed)
    again = dict(replay(problem.model().eval(), log).named_parameters())
    apart = sum(_differing(p, again[name]) for name, p in model.named_parameters())
    return Measured(ulps, apart)


def _differing(one: Tensor, two: Tensor) -> int:
    raw = {2: torch.int16, 4: torch.int32, 8: torch.int64}[one.element_size()]
    return int((one.detach().view(raw) != two.detach().view(raw)).sum())


class _Pooled:
    """All examples at one site."""

    def __init__(self, problem: ScalarProblem, rows: Tensor) -> None:
        self.problem, self._rows = problem, rows

    def losses(self, model: nn.Module, rows: Tensor) -> Tensor:
        return self.problem.losses(model, rows)

    def rows(self, visit: Any) -> Tensor:
        return self._rows

    def model(self) -> nn.Module:
        return self.problem.model()

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return {}


def share_of(fraction: float, num_partitions: int, secret_draw: bool) -> float:
    """The expected share of the sites in a round: with coins the fraction, else what a draw rounds it to."""
    fraction = check_number("fraction", fraction, above=0, most=1)
    return fraction if secret_draw else max(1, round(fraction * num_partitions)) / num_partitions
