"""A Grid in one process: Flower's own ClientApp answers each message, some nodes misbehave on purpose.

Building a Message outside a run needs a task identity, which is private to Flower; it is set here and
nowhere else.
"""

import random

from flwr.app import Context, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity


class InProcessGrid(Grid):
    """Nodes with random-looking ids; replies come in an order that changes from call to call."""

    def __init__(self, client_app, partitions, run_config=None, shuffle=0, faults=None):
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
        self.app, self.random = client_app, random.Random(shuffle)
        # faults(server_round, partition, reply) -> another reply, the reason of an error, or None for silence
        self.faults = faults or (lambda server_round, partition, reply: reply)
        self.run_config = run_config or {}
        self.contexts, self.partition_of, self.offline = {}, {}, set()
        for p in range(partitions):
            node = self.random.getrandbits(63) | 1
            self.partition_of[node] = p
            self.contexts[node] = Context(
                1, node, {"partition-id": p, "num-partitions": partitions}, RecordDict(),
                dict(self.run_config),
            )  # fmt: skip

    def set_run(self, run):
        pass

    @property
    def run(self):
        return None

    def create_message(self, *args, **kwargs):
        raise NotImplementedError

    def push_messages(self, messages):
        raise NotImplementedError

    def pull_messages(self, message_ids):
        raise NotImplementedError

    def get_node_ids(self):
        return [n for n, p in self.partition_of.items() if p not in self.offline]

    def send_and_receive(self, messages, *, timeout=None):
        replies = []
        for message in messages:
            node = message.metadata.dst_node_id
            try:
                reply = self.app(message, self.contexts[node])
            except Exception as error:
                reply = Message(Error(1, str(error)), reply_to=message)
            reply.metadata.__dict__["_src_node_id"] = node
            if message.metadata.message_type == "train":
                server_round = message.content["config"]["server-round"]
                reply = self.faults(server_round, self.partition_of[node], reply)
                if isinstance(reply, str):
                    reply = Message(Error(3, reply), reply_to=message)
                    reply.metadata.__dict__["_src_node_id"] = node
            if reply is not None:
                replies.append(reply)
        self.random.shuffle(replies)
        return replies
