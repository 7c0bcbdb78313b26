"""What the federated methods share on Flower: records, partitions, apps, a deterministic strategy."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from surefoot.errors import MissingExtraError

if TYPE_CHECKING:
    from surefoot.federated.apps import make_client_app, make_server_app
    from surefoot.federated.mean import weighted_mean
    from surefoot.federated.partition import domain_partition, draw_partitions, lda_partition
    from surefoot.federated.records import from_arrays, to_arrays, wire_bytes
    from surefoot.federated.reference import federate
    from surefoot.federated.rules import ServerRule
    from surefoot.federated.strategy import DeterministicFedAvg, MissingNodesError
    from surefoot.federated.task import Task, Visit

_WHERE = {
    "DeterministicFedAvg": "strategy",
    "MissingNodesError": "strategy",
    "ServerRule": "rules",
    "Task": "task",
    "Visit": "task",
    "domain_partition": "partition",
    "draw_partitions": "partition",
    "federate": "reference",
    "from_arrays": "records",
    "lda_partition": "partition",
    "make_client_app": "apps",
    "make_server_app": "apps",
    "to_arrays": "records",
    "weighted_mean": "mean",
    "wire_bytes": "records",
}
__all__ = [
    "DeterministicFedAvg", "MissingNodesError", "ServerRule", "Task", "Visit", "domain_partition",
    "draw_partitions", "federate", "from_arrays", "lda_partition", "make_client_app",
    "make_server_app", "to_arrays", "weighted_mean", "wire_bytes",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'surefoot.federated' has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"surefoot.federated.{_WHERE[name]}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "flwr":
            raise MissingExtraError("federated training", "flwr", "federated") from error
        raise


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
