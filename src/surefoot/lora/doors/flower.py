"""Fed-RAC-LoRA on Flower: shared sketches from a seed, one factor a round on the wire, exact averages.

Round t: the server sends (seed, block, the last mean factor as a merge order); a client merges it, draws
the same sketch, trains the other factor from zero and sends it back. Because the sketch is shared, the mean
of the products is the product of the means (arXiv 2410.08305, Algorithm 2).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number
from surefoot._numerics.secret import is_secret
from surefoot.certificate import Certificate
from surefoot.errors import SurefootError, need

with need("flwr", extra="federated", part="surefoot.lora on Flower"):
    from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid
    from flwr.serverapp.strategy import Result

    from surefoot.federated.kept_task import KeptTask
    from surefoot.federated.mean import weighted_mean
    from surefoot.federated.partition import seed_for
    from surefoot.federated.records import FACTS, facts_record, state_of, to_arrays, wire_bytes
    from surefoot.federated.server_rule import ServerRule
    from surefoot.federated.strategy import UNIFORM, DeterministicFedAvg
    from surefoot.federated.task import Visit

from surefoot.lora._block import recording
from surefoot.lora.client_privacy import (
    METHOD,
    OBJECTION,
    ClientPrivacy,
    noised_mean,
    privacy_facts,
)
from surefoot.lora.guarantee import Constants, certificates
from surefoot.lora.reference import FedResult, fed_reference
from surefoot.lora.sketch import shared_sketch

__all__ = [
    "ClientPrivacy", "FactorTask", "FedResult", "LowRankProblem", "RacStrategy", "fed_reference",
    "merge_factor", "rac_client_app", "rac_client_train", "shared_sketch",
]  # fmt: skip

State = dict[str, Tensor]
Weights = Mapping[str, Float[Tensor, "m n"]]
Side = Literal["A", "B"]
MEMORY = "surefoot-rac"
# The key of a configuration that asks a client for its factors and nothing else.
PRIVATE = "private"


class LowRankProblem(Protocol):
    """What clients train: matrices by layer name, and a loss of them."""

    def initial(self, seed: int) -> State:
        """The pretrained matrices, (m, n) each."""
        ...

    def loss(self, weights: State, visit: Visit, step: int) -> Tensor:
        """A client's loss at one local step, differentiable in `weights`."""
        ...

    def examples(self, visit: Visit) -> int:
        """How many examples a client has."""
        ...

    def evaluate(self, weights: State) -> dict[str, float]:
        """Metrics of the merged matrices, on the server."""
        ...


def sketch_of(
    seed: int, block: int, layer: str, weight: Tensor, rank: int, train: Side
) -> Float[Tensor, "rows columns"]:
    """The frozen factor of a layer in a block: (r, n) where B trains, (m, r) where A does."""
    m, n = weight.shape
    shape = (rank, n) if train == "B" else (m, rank)
    return shared_sketch(seed, block, layer, shape, dtype=weight.dtype)


def merge_factor(
    weights: State,
    factors: Weights,
    *,
    seed: int,
    block: int,
    rank: int,
    train: Side,
    eta: float = 1.0,
) -> State:
    """W + eta B A for every layer; server and clients call this very function, so they hold the same bits.

    Parameters
    ----------
    weights
        W, (m, n) a layer.
    factors
        The mean trained factors.
    seed, block
        They give back the sketch.
    rank, train
        As in `RacSettings`.
    eta
        The server's step.
    """
    merged = {}
    for layer, weight in weights.items():
        fixed = sketch_of(seed, block, layer, weight, rank, train)
        product = factors[layer] @ fixed if train == "B" else fixed @ factors[layer]
        merged[layer] = weight + eta * product
    return merged


def rac_client_train(
    weights: State,
    loss: Callable[[State, int], Tensor],
    *,
    rank: int,
    seed: int,
    block: int,
    local_steps: int,
    gamma: float,
    train: Side = "B",
) -> dict[str, Float[Tensor, "rows columns"]]:
    """The trained factor of every layer after `local_steps` gradient steps from zero.

    `loss(weights, step)` is the client's loss; the scaling is 1, so plain steps with `gamma` on the factor
    are steps with the projected gradient on W.

    Parameters
    ----------
    weights
        W, (m, n) a layer.
    loss
        Of the effective matrices at a local step, differentiable.
    rank, train
        As in `RacSettings`.
    seed, block
        Of the shared sketch.
    local_steps, gamma
        How many gradient steps, and how long.
    """
    fixed = {k: sketch_of(seed, block, k, w, rank, train) for k, w in weights.items()}
    factors = {
        k: torch.zeros((w.shape[0], rank) if train == "B" else (rank, w.shape[1]), dtype=w.dtype)
        for k, w in weights.items()
    }
    for step in range(local_steps):
        for factor in factors.values():
            factor.requires_grad_()
        effective = {
            k: w + (factors[k] @ fixed[k] if train == "B" else fixed[k] @ factors[k])
            for k, w in weights.items()
        }
        value = loss(effective, step)
        if not bool(torch.isfinite(value.detach())):
            raise ArithmeticError(
                f"the loss is {float(value.detach())} at local step {step} of block {block}"
            )
        gradients = torch.autograd.grad(value, list(factors.values()))
        factors = {
            k: f.detach() - gamma * g for (k, f), g in zip(factors.items(), gradients, strict=True)
        }
    return {k: f.detach() for k, f in factors.items()}


@dataclass(frozen=True)
class RacSettings:
    """What server and clients must agree on; the server sends it with every round.

    Parameters
    ----------
    rank
        Of the factors.
    gamma, local_steps
        The clients' step size, and steps a round.
    train
        The factor that clients train.
    eta
        The server's step; the theorem is about 1.
    """

    rank: int
    gamma: float
    local_steps: int = 1
    train: Side = "B"
    eta: float = 1.0


@checked
class RacStrategy(DeterministicFedAvg):
    """Broadcasts a seed and the last mean factor; its state is the merged matrices.

    A node that holds the last block's start gets the merge order alone: as many numbers down as up, m r a
    layer with train="B". A node that is new, or missed a round, gets the matrices (`full` counts them).

    `record` holds what ran: the settings, who took part, and the clients' word on their steps.

    Parameters
    ----------
    num_partitions
        How many clients there are.
    settings
        Rank, step, local steps, side and the server's step eta.
    privacy
        Clip each client's factors and add noise to their sum, before anything is stored or sent: the mean is
        over a constant, every client counts alike, and a round without a reply is noise alone. Only what is
        noised leaves: records and files say neither who took part nor what was sent. A `fraction` below 1
        needs `secret_draw`.
    kwargs
        Further settings of `surefoot.federated.DeterministicFedAvg`.
    """

    def __init__(
        self,
        num_partitions: int,
        settings: RacSettings,
        *,
        privacy: ClientPrivacy | None = None,
        **kwargs: Any,
    ) -> None:
        if privacy is not None and kwargs.setdefault("uniform", True) is not True:
            raise ValueError(
                "uniform must be True with privacy: weights would tell how many examples each client has"
            )
        super().__init__(num_partitions, **kwargs)
        self.privacy = privacy
        if privacy is not None:
            self.history.secret, self._needed = True, 0
        if kwargs.get("rule") not in (None, ServerRule()):
            raise ValueError("rule is not taken: the server's step is settings.eta")
        if privacy is not None and self.fraction < 1 and not self.secret_draw:
            raise ValueError(
                f"fraction = {self.fraction} needs secret_draw=True with privacy: a draw that follows from "
                "the seed amplifies nothing, as every client is told it"
            )
        if kwargs.get("extra"):
            raise ValueError("extra is not taken: clients of this strategy read no extra arrays")
        check_number("rank", settings.rank, least=1, whole=True)
        check_number("local_steps", settings.local_steps, least=1, whole=True)
        check_number("gamma", settings.gamma, above=0)
        check_number("eta", settings.eta, above=0)
        check_choice("train", settings.train, ("A", "B"))
        self.settings = settings
        self._released = self.full = 0
        self._run = secrets.token_hex(8)
        self._pending: State = {}
        self._pending_block = -1
        self._holds: dict[int, int] = {}

    def start(self, grid: Grid, initial_arrays: ArrayRecord, *args: Any, **kwargs: Any) -> Result:
        """As the floor's; with privacy once, since every round is a release that counts.

        Raises
        ------
        SurefootError
            A second start with privacy, or no reply of any round fitted.
        """
        if self.privacy is not None and self._released:
            raise SurefootError(
                f"this strategy has released {self._released} rounds already: make a new one, and account "
                "for both"
            )
        try:
            return super().start(grid, initial_arrays, *args, **kwargs)
        finally:
            # Also of a run that broke off: what was released was released.
            if self.privacy is not None and self._released:
                self.record.note(self.seed, steps=self._released)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """A merge order for those who are up to date, the matrices for the others.

        Raises
        ------
        SurefootError
            Inside another strategy: a wrapper takes replies for the arrays that were sent.
        """
        if not self._own_run:
            raise SurefootError(
                "RacStrategy cannot run inside another strategy: its replies are low-rank factors, and a "
                "wrapper would clip or noise them as if they were the matrices; call its own start(), "
                "with privacy=ClientPrivacy(...) for clipping and noise, or put FactorTask with method "
                "'ffa_lora' on DeterministicFedAvg inside the wrapper"
            )
        self.take(arrays)
        self._check_rank()
        if server_round == 1:
            self._note()
        base = list(super().configure_train(server_round, arrays, config, grid))
        report = self.report.round(server_round)
        report.bytes_down = 0
        block, s = server_round - 1, self.settings
        messages = []
        for message in base:
            node = message.metadata.dst_node_id
            current = self._pending_block >= 0 and self._holds.get(node) == self._pending_block
            payload = to_arrays(self._pending if current else self.state)
            self.full += not current
            own = ConfigRecord(dict(message.content[self.configrecord_key].items()))  # type: ignore[arg-type]
            own.update(
                {
                    "sketch-seed": self.seed, "block": block, "rank": s.rank, "gamma": s.gamma,
                    "local-steps": s.local_steps, "train": s.train, "eta": s.eta,
                    "merge-block": self._pending_block if current else -1,
                }
            )  # fmt: skip
            if self.privacy is not None:
                own[PRIVATE] = True
            report.bytes_down += wire_bytes(payload)
            content = RecordDict({self.arrayrecord_key: payload, self.configrecord_key: own})
            messages.append(Message(content, dst_node_id=node, message_type="train.block"))
        return messages

    def expected(self, server_round: int) -> State:
        """A reply holds one factor a layer."""
        s = self.settings
        return {
            k: torch.zeros(
                (w.shape[0], s.rank) if s.train == "B" else (s.rank, w.shape[1]), dtype=w.dtype
            )
            for k, w in self.state.items()
        }

    def checked(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[dict[int, tuple[State, float]], dict[int, dict[str, float]]]:
        """The replies that fit; what they say of their steps goes on record."""
        good, metrics = super().checked(server_round, replies)
        if self.privacy is not None:
            return good, metrics
        whole = sorted(good) == list(range(self.num_partitions))
        self.record.note(self.seed, participation="all" if whole else "some")
        return good, metrics

    def changed(self, how: str) -> None:
        """Note it, and send matrices: merging the factors would not give what the server has."""
        super().changed(how)
        self.record.note(self.seed, method=how)
        self._pending, self._pending_block = {}, -1
        self._holds.clear()

    def _note(self) -> None:
        s, first = self.settings, next(iter(self.state.values()))
        shapes = [(w.shape[0], w.shape[1]) for w in self.state.values()]
        of = "" if self.privacy is None else METHOD
        recording.note_federation(
            self.record, self.seed, shapes, method="fed_rac", rank=s.rank, train=s.train,
            gamma=s.gamma, local_steps=s.local_steps, eta=s.eta, clients=self.num_partitions,
            dtype=first.dtype, of=of,
        )  # fmt: skip
        if self.privacy is None:
            return
        self.record.note(self.seed, of, objection=OBJECTION)
        # At rate 1 there is no coin that anybody could know.
        secret = is_secret(self.secret) if self.secret_draw else True
        facts = privacy_facts(self.privacy, self.num_partitions, self.fraction, secret, self._run)
        self.record.note(self.seed, **facts)

    @property
    def divisor(self) -> float:
        """The expected number of clients in a round: what a private mean is over."""
        return float(self.fraction * self.num_partitions)

    def _mean_metrics(self) -> MetricRecord:
        return super()._mean_metrics() if self.privacy is None else MetricRecord()

    def certificates(
        self,
        confidence: float = 0.99,
        constants: Constants | None = None,
        f_star: float | None = None,
    ) -> list[Certificate]:
        """What is promised of the run, and what was measured; with constants of the problem G6 too.

        f is the mean of the clients' losses weighted by their examples. For G6 the record needs `loss` f(W)
        and `grad_norm2` ||grad f(W)||^2 of the matrices at the start of every round, from step 0 on. One
        federation says nothing on a mean over sketches: five of different seeds decide, see
        `surefoot.lora.guarantee.certificates`.

        Parameters
        ----------
        confidence
            Of the verdicts on means.
        constants
            L of every client's loss, zeta2 the largest spread of their gradients, sigma2 within a client.
        f_star
            A lower limit of f.
        """
        made = super().certificates(confidence)
        if constants is None:
            return made
        of = "" if self.privacy is None else METHOD
        found = certificates(
            self.record, constants, f_star, law="fed", of=of, confidence=confidence
        )
        return [*made, *found]

    def combine(self, server_round: int, good: dict[int, tuple[State, float]]) -> State:
        """Average the factors, merge, and remember the merge order for the next round."""
        s, block = self.settings, server_round - 1
        if self.privacy is None:
            self._pending = weighted_mean(good)
        else:
            # Here, and not around it: what is stored, saved and sent from now on is this.
            factors = {p: found for p, (found, _) in good.items()}
            like = self.expected(server_round)
            self._pending = noised_mean(factors, like, self.privacy, self.divisor)
            self._released += 1
        self._pending_block = block
        for node, partition in self._sent.items():
            # Who replied holds this block's start; who did not may hold anything.
            if partition in good:
                self._holds[node] = block
            else:
                self._holds.pop(node, None)
        return merge_factor(
            self.state, self._pending, seed=self.seed, block=block, rank=s.rank, train=s.train,
            eta=s.eta,
        )  # fmt: skip

    def _check_rank(self) -> None:
        s = self.settings
        for layer, w in self.state.items():
            most = w.shape[1] if s.train == "B" else w.shape[0]
            if s.rank > most:
                raise ValueError(f"rank must be between 1 and {most} for {layer}, got {s.rank}")


def rac_client_app(make_problem: Callable[[Mapping[str, Any]], LowRankProblem]) -> ClientApp:
    """The ClientApp of Fed-RAC-LoRA; it keeps the matrices between rounds and merges as ordered."""
    app, kept = ClientApp(), KeptTask(make_problem)

    @app.query()
    def query(message: Message, context: Context) -> Message:
        record = MetricRecord({"partition-id": int(context.node_config["partition-id"])})
        return Message(RecordDict({"metrics": record}), reply_to=message)

    @app.train("block")
    def train(message: Message, context: Context) -> Message:
        torch.set_num_threads(1)
        config: Any = message.content["config"]
        sent = state_of(message.content.array_records["arrays"])
        seed, block, rank, side = (config[k] for k in ("sketch-seed", "block", "rank", "train"))
        if config["merge-block"] < 0:
            weights = sent
        else:
            weights = merge_factor(
                state_of(context.state.array_records[MEMORY]), sent, seed=seed, block=config["merge-block"],
                rank=rank, train=side, eta=config["eta"],
            )  # fmt: skip
        context.state[MEMORY] = to_arrays(weights)
        partition = int(context.node_config["partition-id"])
        visit = Visit(
            partition, int(context.node_config["num-partitions"]), config["server-round"],
            seed_for(seed, config["server-round"], partition),
        )  # fmt: skip
        with kept.of(context.run_id, context.run_config) as problem:
            factors = rac_client_train(
                weights, lambda w, step: problem.loss(w, visit, step), rank=rank, seed=seed, block=block,
                local_steps=config["local-steps"], gamma=config["gamma"], train=side,
            )  # fmt: skip
            examples = 1 if config.get(UNIFORM) else problem.examples(visit)
        visit.record.note(
            gamma=config["gamma"], steps=config["local-steps"], **recording.PLAIN_STEPS
        )
        metrics = MetricRecord({"num-examples": examples, "partition-id": partition})
        content = RecordDict({"arrays": to_arrays(factors), "metrics": metrics})
        facts = facts_record(visit.record)
        if facts is not None and not config.get(PRIVATE):
            content[FACTS] = facts
        return Message(content, reply_to=message)

    return app


@dataclass
class FactorTask:
    """FedAvg-LoRA or FFA-LoRA as a task of the shared floor: averaged factors on fixed matrices.

    The state holds "layer.B", and for "fedavg_lora" "layer.A" too; FFA-LoRA's A comes from the seed.
    Averaging A and B one by one is not averaging their products: that is FedAvg-LoRA's aggregation error.

    Parameters
    ----------
    problem
        What clients train.
    method
        "fedavg_lora" or "ffa_lora".
    rank, gamma, local_steps
        As in `RacSettings`.
    seed
        Of the fixed factor and of the pretrained matrices.
    """

    problem: LowRankProblem
    method: Literal["fedavg_lora", "ffa_lora"]
    rank: int
    gamma: float
    local_steps: int = 1
    seed: int = 0

    def initial(self, seed: int) -> State:
        """B = 0 and A an orthonormal sketch."""
        state = {}
        for layer, w in self.problem.initial(seed).items():
            state[f"{layer}.B"] = torch.zeros(w.shape[0], self.rank, dtype=w.dtype)
            if self.method == "fedavg_lora":
                state[f"{layer}.A"] = sketch_of(self.seed, 0, layer, w, self.rank, "B")
        return state

    def weights(self, state: State) -> State:
        """W0 + B A."""
        found = {}
        for layer, w in self.problem.initial(self.seed).items():
            A = state.get(f"{layer}.A")
            A = sketch_of(self.seed, 0, layer, w, self.rank, "B") if A is None else A
            found[layer] = w + state[f"{layer}.B"] @ A
        return found

    def train(self, state: State, visit: Visit) -> tuple[State, int, dict[str, float]]:
        """Local gradient steps on the factors."""
        for step in range(self.local_steps):
            leaves = {k: v.detach().requires_grad_() for k, v in state.items()}
            value = self.problem.loss(self.weights(leaves), visit, step)
            gradients = torch.autograd.grad(value, list(leaves.values()))
            state = {
                k: v.detach() - self.gamma * g
                for (k, v), g in zip(leaves.items(), gradients, strict=True)
            }
        return state, self.problem.examples(visit), {}

    def evaluate(self, state: State) -> dict[str, float]:
        """Of the merged matrices."""
        return self.problem.evaluate(self.weights(state))
