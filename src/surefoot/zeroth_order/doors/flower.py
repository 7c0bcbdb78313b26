"""Federated scalars on Flower: K numbers a round and site, whatever the size of the model.

Round t: the server sends the scalars that a client lacks, all of them to one that is new; the client makes
X_t of them, takes c on its own examples, and returns the sum. Nothing but scalars is kept between rounds, so
that sites may sit rounds out, drop out and join late, and all make the same steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number
from surefoot.certificate import Certificate
from surefoot.errors import SurefootError, need

with need("flwr", extra="federated", part="surefoot.zeroth_order on Flower"):
    from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid
    from flwr.serverapp.strategy import Result

    from surefoot.federated.apps import strategy_settings
    from surefoot.federated.kept_task import KeptTask
    from surefoot.federated.records import FACTS, facts_record, state_of, to_arrays, wire_bytes
    from surefoot.federated.run_config import node_of
    from surefoot.federated.server_rule import ServerRule
    from surefoot.federated.strategy import DeterministicFedAvg

from surefoot.zeroth_order.federated import (
    Agreement,
    Replica,
    ScalarProblem,
    Trust,
    combined,
    log_of,
    share_of,
)
from surefoot.zeroth_order.federated_guarantee import HEADER, NUMBER, WIRE, certificates
from surefoot.zeroth_order.federated_run import (
    ScalarResult,
    SecretOf,
    federate_scalars,
    note_round,
    note_run,
    note_steps,
    visit_of,
)
from surefoot.zeroth_order.private import Privacy

__all__ = [
    "Agreement", "ScalarProblem", "ScalarResult", "ScalarStrategy", "ScalarTask", "federate_scalars",
    "scalar_client_app", "scalar_strategy",
]  # fmt: skip

State = dict[str, Tensor]
MakeProblem = Callable[[Mapping[str, Any]], ScalarProblem]
SCALARS, SUM, MEMORY, ANSWERS = "c", "s", "surefoot-scalars", "surefoot-answers"


def scalar_client_app(
    make_problem: MakeProblem,
    *,
    at_least: Privacy | None = None,
    most_rounds: int | None = None,
    secret_of: SecretOf | None = None,
) -> ClientApp:
    """The ClientApp of federated scalars.

    With privacy a reply holds the sum alone, and the constant 1 for its weight: no loss, no count of
    examples, no metric.

    Parameters
    ----------
    make_problem
        make_problem(run configuration) -> the problem, with this site's own data.
    at_least
        For a site that trusts nobody: it answers only where it adds the noise itself, with no smaller
        noise_multiplier and no larger sample_rate than these; its own population and clip do not matter.
    most_rounds
        How many rounds it answers, whoever asks; None: all. What it leaks follows from these three numbers.
    secret_of
        As in `federate_scalars`: for runs that are to be repeated, and so not private.
    """
    app = ClientApp()
    kept = KeptTask(lambda config: Replica(make_problem(config)))
    if most_rounds is not None:
        check_number("most_rounds", most_rounds, least=1, whole=True)

    @app.query()
    def query(message: Message, context: Context) -> Message:
        record = MetricRecord({"partition-id": node_of(context)[0]})
        return Message(RecordDict({"metrics": record}), reply_to=message)

    @app.train("scalars")
    def train(message: Message, context: Context) -> Message:
        torch.set_num_threads(1)
        config: Any = message.content["config"]
        agreed = Agreement.from_json(str(config["agreement"]))
        _refuse_less(agreed, at_least)
        scalars = _brought_up(context, int(config["from"]), message)
        partition, num_partitions = node_of(context)
        visit = visit_of(
            int(config["seed"]), int(config["server-round"]), partition, num_partitions, secret_of
        )
        with kept.of(context.run_id, context.run_config) as replica:
            found, examples = replica.contribution(scalars, agreed, visit)
        _count(context, most_rounds)
        metrics = MetricRecord({"num-examples": examples, "partition-id": partition})
        content = RecordDict({"arrays": to_arrays({SUM: found}), "metrics": metrics})
        facts = facts_record(visit.record)
        if facts is not None:
            content[FACTS] = facts
        return Message(content, reply_to=message)

    return app


def _refuse_less(agreed: Agreement, least: Privacy | None) -> None:
    if least is None:
        return
    sigma, q = least.noise_multiplier, least.sample_rate
    got, offered = agreed.privacy, "no privacy"
    if got is not None:
        offered = (
            f"trust = {agreed.trust!r}, noise_multiplier {got.noise_multiplier:g} and sample_rate "
            f"{got.sample_rate:g}"
        )
        if agreed.trust == "none" and got.noise_multiplier >= sigma and got.sample_rate <= q:
            return
    raise SurefootError(
        "this site answers rounds with trust = 'none', a noise_multiplier of at least "
        f"{sigma:g} and a sample_rate of at most {q:g}, got {offered}"
    )


def _count(context: Context, most: int | None) -> None:
    """Count an answer that is about to leave: asked twice for one round, a site releases twice."""
    record = context.state.get(ANSWERS)
    done = int(str(record["count"])) if isinstance(record, ConfigRecord) else 0
    if most is not None and done >= most:
        raise SurefootError(f"this site has answered {done} rounds, all that it will (most_rounds)")
    context.state[ANSWERS] = ConfigRecord({"count": done + 1})


def _brought_up(context: Context, start: int, message: Message) -> Tensor:
    """All scalars so far: those that this client holds up to `start`, and those that were sent."""
    sent = state_of(message.content.array_records["arrays"])[SCALARS]
    record = context.state.get(MEMORY)
    held = state_of(record)[SCALARS] if isinstance(record, ArrayRecord) else sent[:0]
    if len(held) < start:
        raise SurefootError(
            f"this client holds the scalars of {len(held)} rounds and was sent those from {start} on"
        )
    scalars = torch.cat([held[:start], sent])
    context.state[MEMORY] = to_arrays({SCALARS: scalars})
    return scalars


class ScalarTask:
    """A scalar problem as the server of `make_server_app` takes it: its state is the scalars so far.

    Parameters
    ----------
    problem, agreed
        What is trained, and the settings.
    """

    def __init__(self, problem: ScalarProblem, agreed: Agreement) -> None:
        self.problem, self.agreed = problem, agreed
        self._replica = Replica(problem)

    def initial(self, seed: int) -> State:
        """No rounds yet."""
        return {SCALARS: torch.zeros(0, self.agreed.count, dtype=torch.float64)}

    def train(self, state: State, visit: Any) -> tuple[State, int, dict[str, float]]:
        """Sites are `scalar_client_app`'s; in one process use `federate_scalars`."""
        raise NotImplementedError("use scalar_client_app, or federate_scalars in one process")

    def evaluate(self, state: State) -> dict[str, float]:
        """Of the model after these scalars."""
        return self.problem.evaluate(self._replica.at(state[SCALARS], self.agreed)[0])


@checked(leave=("problem", "trust"))
class ScalarStrategy(DeterministicFedAvg):
    """Sends scalars, sums what comes back, appends c; its state is {"c": (rounds, K)}.

    With privacy the noise is in c before it is stored or sent, a round without replies is noise alone, and
    the server keeps of a reply its sum and nothing else. What is saved is c: with the base weights the model.

    Parameters
    ----------
    num_partitions
        How many sites there are.
    problem
        What they train; of the server's copy the facts are read.
    directions
        Settings of `LOZO` on which every site agrees.
    privacy, trust
        As in `Agreement`.
    kwargs
        Further settings of `DeterministicFedAvg`.

    Raises
    ------
    ValueError
        A setting out of range, or of the floor that has no meaning here.
    """

    def __init__(
        self,
        num_partitions: int,
        *,
        problem: ScalarProblem,
        directions: Mapping[str, Any],
        privacy: Privacy | None = None,
        trust: Trust = "server",
        **kwargs: Any,
    ) -> None:
        self.agreed = Agreement(directions, privacy, trust)
        for name, nothing in (("rule", ServerRule()), ("extra", {}), ("task", None)):
            if kwargs.get(name) not in (None, nothing):
                raise ValueError(
                    f"{name} is not taken: the server adds scalars and appends their sum"
                )
        super().__init__(num_partitions, **kwargs)
        if privacy is not None:
            self._needed = 0
        self.problem = problem
        self.share = share_of(self.fraction, num_partitions, self.secret_draw)
        self._holds: dict[int, int] = {}
        self._lacking = self._released = 0

    @property
    def scalars(self) -> Tensor:
        """c of every round so far, (rounds, K)."""
        return self.state[SCALARS]

    def result(self) -> ScalarResult:
        """As `federate_scalars` returns it."""
        return ScalarResult(self.scalars, self.record)

    def start(self, grid: Grid, initial_arrays: ArrayRecord, *args: Any, **kwargs: Any) -> Result:
        """As the floor's; with privacy once, since every round is a release that counts.

        Raises
        ------
        SurefootError
            A second start with privacy, or no reply of any round fitted.
        """
        if self.agreed.privacy is not None and self._released:
            raise SurefootError(
                f"this strategy has released {self._released} rounds already: make a new one, and account "
                "for both"
            )
        coins = self.secret if self.secret_draw else None
        note_run(self.record, self.seed, self.problem, self.agreed, coins)
        try:
            return super().start(grid, initial_arrays, *args, **kwargs)
        finally:
            if self._released:
                note_steps(self.record, self.seed, self.agreed, self._released)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The scalars that each drawn client lacks.

        Raises
        ------
        SurefootError
            Inside another strategy: a wrapper takes replies for the arrays that were sent.
        """
        if not self._own_run:
            raise SurefootError(
                "ScalarStrategy cannot run inside another strategy: its replies are scalars, and a wrapper "
                "would take them for arrays that were sent; call its own start()"
            )
        base = list(super().configure_train(server_round, arrays, config, grid))
        report, rounds = self.report.round(server_round), len(self.scalars)
        report.bytes_down = self._lacking = self._promised_down = 0
        messages = []
        for message in base:
            node = message.metadata.dst_node_id
            known = min(self._holds.get(node, 0), rounds)
            payload = to_arrays({SCALARS: self.scalars[known:]})
            # The floor put a configuration there; Flower's type is any record.
            own = ConfigRecord(dict(message.content[self.configrecord_key].items()))  # type: ignore[arg-type]
            own.update({"from": known, "agreement": self.agreed.to_json()})
            report.bytes_down += wire_bytes(payload)
            self._promised_down += HEADER + NUMBER * self.agreed.count * (rounds - known)
            self._lacking += rounds - known
            content = RecordDict({self.arrayrecord_key: payload, self.configrecord_key: own})
            messages.append(Message(content, dst_node_id=node, message_type="train.scalars"))
        return messages

    def expected(self, server_round: int) -> State:
        """A reply holds K sums."""
        return {SUM: torch.zeros(self.agreed.count, dtype=torch.float64)}

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Sum, divide, append; the bytes of the round go on record."""
        found = super().aggregate_train(server_round, replies)
        report = self.history.round(server_round)
        if not self.history.secret:
            self.record.update(
                self.seed, server_round,
                {WIRE: report.bytes_up + report.bytes_down, "messages": len(self._sent),
                 "replies": self._replied, "rounds lacking": self._lacking},
            )  # fmt: skip
        return found

    def checked(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[dict[int, tuple[State, float]], dict[int, dict[str, float]]]:
        """The replies that fit; who answered holds all scalars that it was sent."""
        good, metrics = super().checked(server_round, replies)
        for node, partition in self._sent.items():
            if partition in good:
                self._holds[node] = len(self.scalars)
            else:
                self._holds.pop(node, None)
        note_round(self.record, self.seed, sorted(good) == list(range(self.num_partitions)))
        return good, metrics

    def combine(self, server_round: int, good: dict[int, tuple[State, float]]) -> State:
        """All scalars so far, and that of this round."""
        sums = {p: (found[SUM], examples) for p, (found, examples) in good.items()}
        row = combined(sums, self.agreed, self.share)
        self._released += 1
        return {SCALARS: torch.cat([self.scalars, row[None]])}

    def _mean_metrics(self) -> MetricRecord:
        return MetricRecord() if self.agreed.privacy is not None else super()._mean_metrics()

    def certificates(self, confidence: float = 0.99) -> list[Certificate]:
        """F, W and R, then those of every federation."""
        own = certificates(self.record, confidence=confidence)
        return [*own, *super().certificates(confidence)]

    def save(self, path: Any) -> None:
        """Write the log from which `surefoot zo replay` makes the model of the base weights."""
        log_of(self.problem, self.scalars, self.agreed)[1].save(path)


def scalar_strategy(config: Mapping[str, Any], task: Any) -> ScalarStrategy:
    """The strategy of a run's configuration."""
    assert isinstance(task, ScalarTask)
    agreed = task.agreed
    return ScalarStrategy(
        **strategy_settings(config), problem=task.problem, directions=agreed.directions,
        privacy=agreed.privacy, trust=agreed.trust,
        secret_draw=check_choice("secret-draw", config.get("secret-draw", False), (True, False)),
    )  # fmt: skip
