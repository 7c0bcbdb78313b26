"""FedAvg with the same bits on every runtime, that names who failed and waits for nobody for ever."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from logging import INFO, WARNING
from typing import Any

from torch import Generator, Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number
from surefoot._numerics.secret import is_secret, secret_generator
from surefoot.certificate import Certificate
from surefoot.errors import SurefootError, need
from surefoot.federated._arrays import check_values
from surefoot.federated._flower_keywords import fed_avg_settings
from surefoot.federated._nodes import MissingNodesError as MissingNodesError
from surefoot.federated._nodes import Nodes, log
from surefoot.federated._payload import EXTRA as EXTRA
from surefoot.federated._payload import npy_bytes, packed
from surefoot.federated._replies import mean_metrics, only_records, read_reply
from surefoot.federated.coins import draw_secretly
from surefoot.federated.guarantee import Theorem
from surefoot.federated.partition import draw_partitions
from surefoot.federated.records import fingerprint, read_facts, state_of, to_arrays, wire_bytes
from surefoot.federated.robust import (
    MAX_EXAMPLES,
    Declared,
    check_robust,
    facts_of_mean,
    robust_mean,
)
from surefoot.federated.rounds import FederationHistory
from surefoot.federated.server_rule import ServerRule
from surefoot.federated.task import Task, merged, reply_of
from surefoot.record import Fact, Record

with need("flwr", extra="federated", part="surefoot.federated"):
    from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
    from flwr.serverapp import Grid
    from flwr.serverapp.strategy import FedAvg, Result

State = dict[str, Tensor]
# Characters of a reason that are kept: a hostile reply is quoted in it.
MOST_SAID = 1000
# The key of a configuration that says under which name a reply gives its weight.
WEIGHT, UNIFORM = "weighted-by", "uniform"
# Facts of the server that say: what the rule gave is not what the clients got.
CHANGED, AROUND = "unknown (its result was changed)", "unknown (run inside another strategy)"


@checked
class DeterministicFedAvg(FedAvg):
    """Deterministic averaging on Flower's Message API.

    Partitions are learnt by a query, drawn by (seed, round), and reduced in ascending order. Round 1
    waits for all partitions, later rounds for none: a node that is dead, silent or sends something that
    does not fit is named in the history and in the log, and the round goes on with the others.

    It goes inside Flower's wrappers (the DifferentialPrivacy strategies) as FedAvg does; what is around it
    is not known to it, and the record says so. `state` is what `configure_train` was last given, and after
    `start` the arrays of its result: what a wrapper or a subclass makes of a round, never the mean before.

    Parameters
    ----------
    num_partitions
        How many there are.
    seed, fraction
        Of the draw of each round.
    rule
        What the server does with the mean.
    min_nodes
        A round with fewer replies than this leaves the global state as it was, and the next one waits
        for as many nodes to be online.
    node_timeout
        Seconds to wait for nodes to come online; then MissingNodesError names the partitions.
    round_timeout
        Seconds to wait for the replies of a round.
    extra
        Arrays that are no part of the model, sent to each node the first time it is drawn.
    record
        Where rounds and facts go; None: a new one, which `record` is.
    robust
        None: the mean weighted by examples. "median" or "trimmed:K": coordinate-wise, for servers that
        distrust clients (see `robust_mean`); theorems on the mean are then NOT_PROMISED.
    max_examples
        The most examples that a reply may claim; nor may a partition ever claim more than it first did. Where
        replies are weighted by something else (weighted_by_key) neither is asked.
    uniform
        Every reply has weight 1, and clients do not say how many examples they have; one without any counts
        like the others.
    secret_draw
        Each partition takes part by a coin of its own, of the operating system's random numbers, with chance
        `fraction`; a round may have none. Who took part stands in no record and no file. By default the draw
        follows from the seed, which every client is told: sampling of clients then amplifies no privacy.
    secret
        The generator of these coins; one that is given is no secret, and the record says so.
    task
        Whose `reply` and `merged` say what a reply is like and what the mean of replies stands for.
    fed_avg
        FedAvg's own: fraction_train (this class's fraction), weighted_by_key, arrayrecord_key,
        configrecord_key, train_metrics_aggr_fn.

    Attributes
    ----------
    rounds_done
        Rounds of a run that this one goes on with: Flower's round 1 is the one after them.

    Raises
    ------
    ValueError
        A number outside of its range, or a keyword of FedAvg that has no meaning here.
    """

    def __init__(
        self,
        num_partitions: int,
        *,
        seed: int = 0,
        fraction: float = 1.0,
        rule: ServerRule | None = None,
        min_nodes: int = 1,
        node_timeout: float = 120.0,
        round_timeout: float = 3600.0,
        extra: State | None = None,
        record: Record | None = None,
        robust: str | None = None,
        max_examples: float = MAX_EXAMPLES,
        uniform: bool = False,
        secret_draw: bool = False,
        secret: Generator | None = None,
        task: Task | None = None,
        **fed_avg: Any,
    ) -> None:
        num_partitions = check_number("num_partitions", num_partitions, least=1, whole=True)
        if check_number("min_nodes", min_nodes, least=1, whole=True) > num_partitions:
            raise ValueError(
                f"min_nodes must be between 1 and num_partitions = {num_partitions}, got {min_nodes}"
            )
        own = fed_avg_settings(fed_avg, fraction)
        fraction = check_number("fraction", own.pop("fraction_train"), above=0, most=1)
        super().__init__(
            fraction_train=fraction, min_train_nodes=num_partitions,
            min_available_nodes=num_partitions, **own,
        )  # fmt: skip
        self.num_partitions, self.fraction = num_partitions, fraction
        self.seed = check_number("seed", seed, whole=True)
        self.rule = rule or ServerRule()
        trim = check_robust(robust)
        if trim is not None and num_partitions <= 2 * trim:
            raise ValueError(
                f"robust = {robust!r} needs more than {2 * trim} partitions, got {num_partitions}"
            )
        self._needed = max(int(min_nodes), 1 if trim is None else 2 * trim + 1)
        own_mean = type(self).combine is not DeterministicFedAvg.combine
        if robust is not None and own_mean:
            raise ValueError(f"robust = {robust!r} is not defined for {type(self).__name__}")
        self.robust = robust
        self.declared = Declared(max_examples)
        self.min_nodes = int(min_nodes)
        self.node_timeout = check_number("node_timeout", node_timeout, least=0)
        self.round_timeout = check_number("round_timeout", round_timeout, above=0)
        self.extra = extra or {}
        self.task, self.uniform = task, check_choice("uniform", uniform, (True, False))
        if uniform and self.weighted_by_key != "num-examples":
            raise ValueError(
                f"weighted_by_key = {self.weighted_by_key!r} is not used with uniform = True, which gives "
                "every reply weight 1; leave one out"
            )
        self.secret_draw = check_choice("secret_draw", secret_draw, (True, False))
        self.secret = secret_generator() if secret is None else secret
        self.history = FederationHistory(
            record=Record() if record is None else record, seed=self.seed, secret=self.secret_draw
        )
        self.state: State = {}
        self.rounds_done = 0
        self.nodes = Nodes(num_partitions, self.node_timeout)
        self._aggregate_metrics = own.get("train_metrics_aggr_fn")
        self._sent: dict[int, int] = {}
        self._promised_down = self._replied = 0
        self._knows_extra: set[int] = set()
        self._own_run = False
        self._given: bytes | None = None
        self._contents: dict[int, RecordDict] = {}

    @property
    def record(self) -> Record:
        """Participants, losses and bytes of each round, and what server and clients said of themselves."""
        return self.history.record

    @property
    def theorems(self) -> Sequence[Theorem]:
        """What the method promises, each with how to measure it."""
        return self.history.theorems

    @theorems.setter
    def theorems(self, theorems: Sequence[Theorem]) -> None:
        self.history.theorems = tuple(theorems)

    @property
    def report(self) -> FederationHistory:
        """The history under its old name."""
        return self.history

    def certificates(self, confidence: float = 0.99) -> list[Certificate]:
        """What is promised of the run, and what was measured."""
        return self.history.certificates(confidence)

    @property
    def partition_of(self) -> dict[int, int]:
        """{node: partition} of the nodes that said theirs."""
        return self.nodes.partition_of

    def start(self, grid: Grid, initial_arrays: ArrayRecord, *args: Any, **kwargs: Any) -> Result:
        """As Flower's, with this strategy's own timeout for replies.

        Raises
        ------
        SurefootError
            No reply of any round fitted; the reasons of the last round are named.
        """
        if len(args) < 2:  # the second one is the timeout
            kwargs.setdefault("timeout", self.round_timeout)
        self._own_run, self._given = True, None
        try:
            result = super().start(grid, initial_arrays, *args, **kwargs)
        finally:
            self._own_run = False
        self.take(result.arrays or initial_arrays)
        self.history.refuse_nothing()
        return result

    def take(self, arrays: ArrayRecord) -> None:
        """Make arrays the state, and note where they are not those that the last round gave."""
        if self._given is not None and fingerprint(arrays) != self._given:
            self.changed(CHANGED)
        self._given = None
        self.state = state_of(arrays)

    def changed(self, how: str) -> None:
        """Note that something around this strategy has a part in the result."""
        self.history.note(server=how)

    def summary(self) -> None:
        """Log the settings."""
        log(
            INFO, "\t%s partitions, fraction %s, seed %s, server rule %s", self.num_partitions,
            self.fraction, self.seed, self.rule.rule,
        )  # fmt: skip

    def discover(self, grid: Grid, timeout: float) -> dict[int, int]:
        """{partition: node} of the nodes that are online; new ones are asked which partition they hold."""
        return self.nodes.discover(grid, timeout)

    def wait_for(self, grid: Grid, count: int) -> dict[int, int]:
        """The nodes online, once there are `count` of them; MissingNodesError after `node_timeout`."""
        return self.nodes.wait_for(grid, count)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The messages of a round: round 1 waits for everyone, later ones for `min_nodes`.

        Raises
        ------
        MissingNodesError
            They did not come.
        TypeError, ValueError
            Arrays that a federation does not know, NaN, or a negative variance.
        """
        server_round += self.rounds_done
        self.take(arrays)
        check_values(self.state)
        self.history.note(
            runtime="flower", num_partitions=self.num_partitions, fraction=self.fraction,
            min_nodes=self.min_nodes,
        )  # fmt: skip
        if not self._own_run:
            self.changed(AROUND)
            self._refuse_around()
        if self.secret_draw:
            self.history.note(secret_sampling=is_secret(self.secret))
        report = self.history.round(server_round)
        self._promised_down = self._replied = 0
        online = self.wait_for(
            grid, self.num_partitions if server_round == 1 + self.rounds_done else self.min_nodes
        )
        drawn = self._drawn(server_round)
        there = [p for p in drawn if p in online]
        for partition in sorted(set(drawn) - set(there)):
            report.lost[partition] = "its node is not online"
            log(WARNING, "round %s: partition %s is not online", server_round, partition)
        if len(there) < self.min_nodes and not self.secret_draw:
            there += [p for p in sorted(online) if p not in there][: self.min_nodes - len(there)]
        messages, extra = [], packed(self.extra)
        self._sent = {}
        for partition in sorted(there):
            node = online[partition]
            self._sent[node] = partition
            payload = ArrayRecord(dict(arrays.items()))
            own = ConfigRecord(dict(config.items()))
            own["server-round"], own["seed"] = server_round, self.seed
            if self.weighted_by_key != "num-examples":
                own[WEIGHT] = self.weighted_by_key
            if self.uniform:
                own[UNIFORM] = True
            self._promised_down += npy_bytes(self.state)
            if node not in self._knows_extra:
                own.update(extra)
                report.bytes_down += sum(len(value) for value in extra.values())
                self._promised_down += npy_bytes(self.extra)
                self._knows_extra.add(node)
            record = RecordDict({self.arrayrecord_key: payload, self.configrecord_key: own})
            report.bytes_down += wire_bytes(payload)
            messages.append(Message(content=record, message_type="train", dst_node_id=node))
        return messages

    def _drawn(self, server_round: int) -> list[int]:
        everyone = range(self.num_partitions)
        if self.secret_draw:
            return draw_secretly(self.secret, everyone, self.fraction)
        return draw_partitions(self.seed, server_round, everyone, self.fraction)

    def _refuse_around(self) -> None:
        if reply_of(self.task, self.state) is not self.state:
            raise SurefootError(
                f"{type(self.task).__name__} replies with other arrays than it is sent, and a strategy "
                "around this one would take them for these; call this strategy's own start()"
            )

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Check each reply, reduce in ascending partition, apply the server's rule."""
        server_round += self.rounds_done
        report = self.history.round(server_round)
        good, _ = self.checked(server_round, replies)
        report.partitions = sorted(good)
        self.history.close(
            server_round, bytes_up=report.bytes_up, bytes_down=report.bytes_down,
            promised_bytes_up=self._replied * npy_bytes(self.expected(server_round)),
            promised_bytes_down=self._promised_down,
        )  # fmt: skip
        if len(good) < self._needed:
            log(WARNING, "round %s: %s usable replies; the model stays", server_round, len(good))
            return None, None
        new = self.combine(server_round, good)
        check_values(new)
        arrays = to_arrays(new)
        self._given = fingerprint(arrays)
        found = self._mean_metrics()
        # What came from one client is kept no longer than its round.
        self._contents = {}
        return arrays, found

    def combine(self, server_round: int, good: dict[int, tuple[State, float]]) -> State:
        """The next global state, from the replies that fit."""
        self.history.note(**facts_of_mean(self.rule, self.robust, self.uniform))
        mean = merged(self.task, self.state, robust_mean(good, self.robust))
        return self.rule.apply(self.state, mean)

    def expected(self, server_round: int) -> State:
        """What a reply must be like."""
        return reply_of(self.task, self.state)

    def checked(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[dict[int, tuple[State, float]], dict[int, dict[str, float]]]:
        """{partition: (state, examples)} of the replies that fit, and their metrics.

        The others are named in the round's report: errors and silence as lost, wrong content as rejected.
        """
        report = self.history.round(server_round)
        good: dict[int, tuple[State, float]] = {}
        metrics: dict[int, dict[str, float]] = {}
        said: dict[int, dict[str, list[Fact]]] = {}
        silent, self._contents = dict(self._sent), {}
        for reply in replies:
            node = reply.metadata.src_node_id
            partition = silent.pop(node, None)
            if partition is None:
                log(WARNING, "round %s: an unasked reply of node %s", server_round, node)
                continue
            if reply.has_error():
                report.lost[partition] = f"node {node}: {str(reply.error.reason)[:MOST_SAID]}"
                self._knows_extra.discard(node)
                log(WARNING, "round %s: lost %s", server_round, report.lost[partition])
                continue
            try:
                state, examples, found = self._content(server_round, reply, partition)
                if self.weighted_by_key == "num-examples" and not self.uniform:
                    examples = self.declared.check(partition, examples)
                facts = read_facts(reply.content)
            except (KeyError, ValueError, TypeError) as error:
                reason = str(error.args[0] if error.args else error)
                report.rejected[partition] = f"node {node}: {reason[:MOST_SAID]}"
                log(WARNING, "round %s: rejected %s", server_round, report.rejected[partition])
                continue
            good[partition], metrics[partition] = (state, examples), found
            self._contents[partition] = reply.content
            said[partition] = facts
        for node, partition in silent.items():
            report.lost[partition] = f"node {node}: no reply within the round's timeout"
            self._knows_extra.discard(node)
            log(WARNING, "round %s: lost %s", server_round, report.lost[partition])
        for partition in sorted(said):  # not in the order of arrival, which differs from run to run
            self.history.hear(said[partition])
        return good, metrics

    def _content(
        self, server_round: int, reply: Message, partition: int
    ) -> tuple[State, float, dict[str, float]]:
        arrays, numbers = only_records(reply.content)
        self.history.round(server_round).bytes_up += wire_bytes(arrays)
        self._replied += 1
        return read_reply(
            arrays, numbers, self.expected(server_round), partition, self.weighted_by_key,
            self.uniform,
        )  # fmt: skip

    def _mean_metrics(self) -> MetricRecord:
        contents = dict(sorted(self._contents.items()))
        if self._aggregate_metrics is not None:
            mean: MetricRecord = self._aggregate_metrics(
                list(contents.values()), self.weighted_by_key
            )
            return mean
        return mean_metrics(contents, self.weighted_by_key, self.uniform)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Nothing: the global state is evaluated on the server."""
        return []

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Nothing was asked."""
        return None
