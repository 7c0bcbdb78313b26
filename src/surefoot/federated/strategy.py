"""FedAvg with the same bits on every runtime, that names who failed and waits for nobody for ever."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from logging import INFO, WARNING
from typing import Any

from torch import Tensor, isfinite

from surefoot.certificate import Certificate
from surefoot.errors import SurefootError, need
from surefoot.federated._payload import npy_bytes
from surefoot.federated.guarantee import Theorem, certificates
from surefoot.federated.mean import weighted_mean
from surefoot.federated.partition import draw_partitions
from surefoot.federated.records import from_arrays, read_facts, to_arrays, wire_bytes
from surefoot.federated.rounds import FederationHistory
from surefoot.federated.server_rule import ServerRule
from surefoot.record import Fact, Record

with need("flwr", extra="federated", part="surefoot.federated"):
    from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
    from flwr.serverapp import Grid
    from flwr.serverapp.strategy import FedAvg, Result

try:  # a private path, kept in one place
    from flwr.supercore import log
except ImportError:  # pragma: no cover
    from flwr.common.logger import log

EXTRA = "__extra__."
State = dict[str, Tensor]


class MissingNodesError(SurefootError, TimeoutError):
    """Partitions that did not come, or came back, before the deadline."""


class DeterministicFedAvg(FedAvg):
    """Deterministic averaging on Flower's Message API.

    Partitions are learnt by a query, drawn by (seed, round), and reduced in ascending order. Round 1
    waits for all partitions, later rounds for none: a node that is dead, silent or sends something that
    does not fit is named in the history and in the log, and the round goes on with the others.

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
    ) -> None:
        if num_partitions < 1 or not 1 <= min_nodes <= num_partitions:
            raise ValueError(
                "num_partitions must be at least 1 and min_nodes between 1 and it, "
                f"got {num_partitions} and {min_nodes}"
            )
        super().__init__(
            fraction_train=fraction, min_train_nodes=num_partitions,
            min_available_nodes=num_partitions,
        )  # fmt: skip
        self.num_partitions, self.seed, self.fraction = num_partitions, seed, fraction
        self.rule = rule or ServerRule()
        self.min_nodes, self.node_timeout = min_nodes, node_timeout
        self.round_timeout = round_timeout
        self.extra = extra or {}
        self.history = FederationHistory(record=Record() if record is None else record, seed=seed)
        self.theorems: Sequence[Theorem] = ()
        self.state: State = {}
        self.partition_of: dict[int, int] = {}
        self._sent: dict[int, int] = {}
        self._promised_down = self._replied = 0
        self._knows_extra: set[int] = set()

    @property
    def record(self) -> Record:
        """Participants, losses and bytes of each round, and what server and clients said of themselves."""
        return self.history.record

    @property
    def report(self) -> FederationHistory:
        """The history under its old name."""
        return self.history

    def certificates(self, confidence: float = 0.99) -> list[Certificate]:
        """What is promised of the run, and what was measured."""
        return certificates(self.record, self.theorems, confidence=confidence)

    def start(self, grid: Grid, initial_arrays: ArrayRecord, *args: Any, **kwargs: Any) -> Result:
        """As Flower's, with this strategy's own timeout for replies."""
        kwargs.setdefault("timeout", self.round_timeout)
        self.state = _state_of(initial_arrays)
        self.history.note(
            runtime="flower", num_partitions=self.num_partitions, fraction=float(self.fraction),
            min_nodes=self.min_nodes,
        )  # fmt: skip
        return super().start(grid, initial_arrays, *args, **kwargs)

    def summary(self) -> None:
        """Log the settings."""
        log(
            INFO, "\t%s partitions, fraction %s, seed %s, server rule %s", self.num_partitions,
            self.fraction, self.seed, self.rule.rule,
        )  # fmt: skip

    def discover(self, grid: Grid, timeout: float) -> dict[int, int]:
        """{partition: node} of the nodes that are online; new ones are asked which partition they hold."""
        online = set(grid.get_node_ids())
        unknown = sorted(online - set(self.partition_of))
        if unknown:
            messages = self._construct_messages(RecordDict(), unknown, "query")
            for reply in grid.send_and_receive(messages, timeout=timeout):
                node = reply.metadata.src_node_id
                if reply.has_error():
                    log(WARNING, "node %s did not say its partition: %s", node, reply.error.reason)
                    continue
                record = next(iter(reply.content.metric_records.values()), MetricRecord())
                partition = record.get("partition-id")
                if not isinstance(partition, int) or not 0 <= partition < self.num_partitions:
                    log(
                        WARNING, "node %s claims partition %s of %s and is left out", node,
                        partition, self.num_partitions,
                    )  # fmt: skip
                    continue
                self.partition_of[node] = partition
        found: dict[int, int] = {}
        for node in sorted(online & set(self.partition_of)):
            # A node that came back has a new id; one partition counts once.
            found[self.partition_of[node]] = node
        return found

    def wait_for(self, grid: Grid, count: int) -> dict[int, int]:
        """The nodes online, once there are `count` of them.

        Raises
        ------
        MissingNodesError
            There were fewer after `node_timeout` seconds; the missing partitions are named.
        """
        deadline = time.monotonic() + self.node_timeout
        while True:
            left = deadline - time.monotonic()
            online = self.discover(grid, max(1.0, min(left, 30.0)))
            if len(online) >= count:
                return online
            if left <= 0:
                missing = sorted(set(range(self.num_partitions)) - set(online))
                raise MissingNodesError(
                    f"partitions {missing} are not online after {self.node_timeout:g} s "
                    f"({len(online)} of {self.num_partitions} are, {count} are needed); start their "
                    "SuperNodes, or raise node-timeout"
                )
            time.sleep(min(0.5, max(left, 0.0)))

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The messages of a round: round 1 waits for everyone, later ones for `min_nodes`."""
        report = self.history.round(server_round)
        self._promised_down = self._replied = 0
        online = self.wait_for(grid, self.num_partitions if server_round == 1 else self.min_nodes)
        drawn = draw_partitions(self.seed, server_round, range(self.num_partitions), self.fraction)
        there = [p for p in drawn if p in online]
        for partition in sorted(set(drawn) - set(there)):
            report.lost[partition] = "its node is not online"
            log(WARNING, "round %s: partition %s is not online", server_round, partition)
        if len(there) < self.min_nodes:
            there += [p for p in sorted(online) if p not in there][: self.min_nodes - len(there)]
        messages = []
        self._sent = {}
        for partition in sorted(there):
            node = online[partition]
            self._sent[node] = partition
            payload = ArrayRecord(dict(arrays.items()))
            self._promised_down += npy_bytes(self.state)
            if node not in self._knows_extra:
                for name, array in to_arrays(self.extra).items():
                    payload[EXTRA + name] = array
                self._promised_down += npy_bytes(self.extra)
                self._knows_extra.add(node)
            own = ConfigRecord(dict(config.items()))
            own["server-round"], own["seed"] = server_round, self.seed
            record = RecordDict({self.arrayrecord_key: payload, self.configrecord_key: own})
            report.bytes_down += wire_bytes(payload)
            messages.append(Message(content=record, message_type="train", dst_node_id=node))
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Check each reply, reduce in ascending partition, apply the server's rule."""
        report = self.history.round(server_round)
        good, metrics = self.checked(server_round, replies)
        report.partitions = sorted(good)
        self.history.close(
            server_round, bytes_up=report.bytes_up, bytes_down=report.bytes_down,
            promised_bytes_up=self._replied * npy_bytes(self.expected(server_round)),
            promised_bytes_down=self._promised_down,
        )  # fmt: skip
        if len(good) < self.min_nodes:
            log(WARNING, "round %s: %s usable replies; the model stays", server_round, len(good))
            return None, None
        self.state = self.combine(server_round, good)
        return to_arrays(self.state), self._mean_metrics(good, metrics)

    def combine(self, server_round: int, good: dict[int, tuple[State, float]]) -> State:
        """The next global state, from the replies that fit."""
        self.history.note(weighting="examples", **self.rule.facts)
        return self.rule.apply(self.state, weighted_mean(good))

    def expected(self, server_round: int) -> State:
        """What a reply must be like."""
        return self.state

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
        silent = dict(self._sent)
        for reply in replies:
            node = reply.metadata.src_node_id
            partition = silent.pop(node, None)
            if partition is None:
                log(WARNING, "round %s: an unasked reply of node %s", server_round, node)
                continue
            if reply.has_error():
                report.lost[partition] = f"node {node}: {reply.error.reason}"
                self._knows_extra.discard(node)
                log(WARNING, "round %s: lost %s", server_round, report.lost[partition])
                continue
            try:
                state, examples, found = self._content(server_round, reply, partition)
                facts = read_facts(reply.content)
            except (KeyError, ValueError, TypeError) as error:
                reason = error.args[0] if error.args else str(error)
                report.rejected[partition] = f"node {node}: {reason}"
                log(WARNING, "round %s: rejected %s", server_round, report.rejected[partition])
                continue
            good[partition], metrics[partition] = (state, examples), found
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
        arrays = list(reply.content.array_records.values())
        numbers = list(reply.content.metric_records.values())
        if len(arrays) != 1 or len(numbers) != 1:
            raise ValueError(
                f"a reply holds one ArrayRecord and one MetricRecord, got {len(arrays)} and {len(numbers)}"
            )
        self.history.round(server_round).bytes_up += wire_bytes(arrays[0])
        self._replied += 1
        claimed = numbers[0].get("partition-id")
        if claimed != partition:
            raise ValueError(f"it claims partition {claimed}, it is partition {partition}")
        examples = numbers[0].get(self.weighted_by_key)
        if (
            isinstance(examples, bool)
            or not isinstance(examples, int | float)
            or not (0 < examples < math.inf)
        ):
            raise ValueError(f"{self.weighted_by_key} must be a positive number, got {examples}")
        state = from_arrays(arrays[0], self.expected(server_round))
        for name, value in state.items():
            if value.is_floating_point() and not bool(isfinite(value).all()):
                raise ValueError(f"{name} holds NaN or infinity")
        found = {
            k: float(v)
            for k, v in numbers[0].items()
            if isinstance(v, int | float) and k not in ("partition-id", self.weighted_by_key)
        }
        return state, float(examples), found

    def _mean_metrics(
        self, good: dict[int, tuple[State, float]], metrics: dict[int, dict[str, float]]
    ) -> MetricRecord:
        total = sum(examples for _, examples in good.values())
        names = sorted({name for found in metrics.values() for name in found})
        mean = MetricRecord({"num-examples": total})
        for name in names:
            having = [p for p in sorted(good) if name in metrics[p]]
            weight = sum(good[p][1] for p in having)
            mean[name] = sum(good[p][1] * metrics[p][name] for p in having) / weight
        return mean

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


def _state_of(arrays: ArrayRecord) -> State:
    import numpy as np
    import torch

    return {name: torch.from_numpy(np.array(array.numpy())) for name, array in arrays.items()}
