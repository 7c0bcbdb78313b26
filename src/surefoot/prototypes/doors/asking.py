"""What the server sends to its sites: the words of a phase, and the head where a node may not have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from surefoot.errors import need
from surefoot.prototypes._upload.refusal import Asked
from surefoot.prototypes.doors import told
from surefoot.prototypes.doors.messages import (
    ARRAYS,
    CONFIG,
    HEAD,
    head_record,
    head_words,
    release_words,
)
from surefoot.prototypes.head import ZeroShotHead

with need("flwr", extra="federated", part="surefoot.prototypes on Flower"):
    from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

    from surefoot.federated.records import wire_bytes
    from surefoot.federated.rounds import Round


def words_of_upload(seed: int, asked: Asked, min_cluster: int) -> dict[str, Any]:
    """What an upload is asked to be."""
    words = {
        "seed": seed, "method": asked.method, "ratio": asked.ratio, "min-cluster": min_cluster,
        **release_words(asked.dp),
    }  # fmt: skip
    return words if asked.encoder_id is None else words | {"encoder": asked.encoder_id}


def words_of_adaptation(seed: int, shots: int, kd_weight: float, epochs: int) -> dict[str, Any]:
    """How a site trains an adapter of its own; `adapt_locally` says what each number is.

    Parameters
    ----------
    seed, shots, kd_weight, epochs
        As in `adapt_locally`.
    """
    return {"seed": seed, "shots": shots, "kd-weight": kd_weight, "epochs": epochs}


class Asking:
    """Messages of one run; what they cost is counted.

    Parameters
    ----------
    head
        Sent once to each node.
    classes
        Their names, sent with every message.
    weights
        Of the adapter, whose bytes in closed form are promised.
    """

    def __init__(
        self, head: ZeroShotHead, classes: Sequence[str], weights: Mapping[str, Tensor]
    ) -> None:
        self._head, self._classes, self._weights = head, list(classes), weights
        self._knows: set[int] = set()
        self._promised = 0

    def message(
        self, report: Round, node: int, kind: str, words: Mapping[str, Any],
        payload: ArrayRecord | None,
    ) -> Message:  # fmt: skip
        """One message; its bytes go into the round's report.

        Parameters
        ----------
        report
            Of the round.
        node, kind
            To whom, and which of its handlers.
        words
            What it says.
        payload
            The adapter; None: there is none yet.
        """
        own = head_words(self._head) | dict(words) | {"server-round": report.server_round}
        if self._classes:
            own["classes"] = self._classes
        content = RecordDict({CONFIG: ConfigRecord(own)})
        if payload is not None:
            content[ARRAYS] = ArrayRecord(dict(payload.items()))
            report.bytes_down += wire_bytes(payload)
            self._promised += told.bytes_of(self._weights)
        if node not in self._knows:
            content[HEAD] = head_record(self._head)
            report.bytes_down += wire_bytes(head_record(self._head))
            self._promised += told.bytes_of({"weight": self._head.weight})
            self._knows.add(node)
        return Message(content=content, message_type=kind, dst_node_id=node)

    def forget(self, nodes: set[int]) -> None:
        """Send the head again to nodes that may have lost it."""
        self._knows -= nodes

    def promised(self) -> int:
        """Bytes in closed form of what was sent since the last call."""
        found, self._promised = self._promised, 0
        return found
