"""Which node holds which partition, and how long a federation waits for one."""

from __future__ import annotations

import time
from logging import WARNING

from surefoot.errors import SurefootError, need

with need("flwr", extra="federated", part="surefoot.federated"):
    from flwr.app import Message, MetricRecord, RecordDict
    from flwr.serverapp import Grid

try:  # a private path, kept in one place
    from flwr.supercore import log as log
except ImportError:  # pragma: no cover
    from flwr.common.logger import log as log


class MissingNodesError(SurefootError, TimeoutError):
    """Partitions that did not come, or came back, before the deadline."""


class Nodes:
    """The nodes that said their partition, and what the others said instead."""

    def __init__(self, num_partitions: int, timeout: float) -> None:
        self.num_partitions, self.timeout = num_partitions, timeout
        self.partition_of: dict[int, int] = {}
        self.refused: dict[int, str] = {}
        self._waiting: dict[int, str] = {}

    def discover(self, grid: Grid, timeout: float) -> dict[int, int]:
        """{partition: node} of the nodes that are online; new ones are asked which partition they hold.

        A node whose answer is still awaited is not asked again: a simulation gives a node its next message
        while it works on the one before, and the state that the slower of the two started from is what stays.
        """
        online = set(grid.get_node_ids())
        self._waiting = {n: message for n, message in self._waiting.items() if n in online}
        for node in sorted(online - set(self.partition_of) - set(self._waiting)):
            message = Message(content=RecordDict(), message_type="query", dst_node_id=node)
            for sent in grid.push_messages([message]):
                self._waiting[node] = sent
        deadline, pause = time.monotonic() + timeout, 0.05
        while self._waiting:
            for reply in grid.pull_messages(list(self._waiting.values())):
                self._hear(reply)
            left = deadline - time.monotonic()
            if not self._waiting or left <= 0:
                break
            time.sleep(min(pause, left))
            pause = min(2 * pause, 3.0)
        found: dict[int, int] = {}
        for node in sorted(online & set(self.partition_of)):
            # A node that came back has a new id; one partition counts once.
            found[self.partition_of[node]] = node
        return found

    def _hear(self, reply: Message) -> None:
        """Note the partition of a node, or what it said instead."""
        node = reply.metadata.src_node_id
        self._waiting.pop(node, None)
        if reply.has_error():
            self.refused[node] = f"node {node} did not say its partition: {reply.error.reason}"
            log(WARNING, self.refused[node].replace("%", "%%"))
            return
        record = next(iter(reply.content.metric_records.values()), MetricRecord())
        partition = record.get("partition-id")
        if not isinstance(partition, int) or not 0 <= partition < self.num_partitions:
            self.refused[node] = (
                f"node {node} claims partition {partition} of {self.num_partitions}"
            )
            log(WARNING, "%s and is left out", self.refused[node])
            return
        self.partition_of[node] = partition
        self.refused.pop(node, None)

    def wait_for(self, grid: Grid, count: int) -> dict[int, int]:
        """The nodes online, once there are `count` of them.

        Raises
        ------
        MissingNodesError
            There were fewer after the timeout; the missing partitions are named, and what nodes answered
            that did not say theirs.
        """
        deadline = time.monotonic() + self.timeout
        while True:
            left = deadline - time.monotonic()
            online = self.discover(grid, max(1.0, min(left, 30.0)))
            if len(online) >= count:
                return online
            if left <= 0:
                missing = sorted(set(range(self.num_partitions)) - set(online))
                said = "; ".join(self.refused[node] for node in sorted(self.refused))
                raise MissingNodesError(
                    f"partitions {missing} are not online after {self.timeout:g} s "
                    f"({len(online)} of {self.num_partitions} are, {count} are needed); start their "
                    f"SuperNodes, or raise node-timeout{f' ({said})' if said else ''}"
                )
            time.sleep(min(0.5, max(left, 0.0)))
