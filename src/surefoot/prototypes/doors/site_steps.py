"""What a site does with each message: extract and upload, adapt, receive and score."""

from __future__ import annotations

import logging
from typing import Any

import torch

from surefoot._sealed.tensors import write_tensors
from surefoot.errors import SurefootError, need
from surefoot.prototypes._client.site import Site, hash_of
from surefoot.prototypes.accuracy import accuracy_matrix
from surefoot.prototypes.adaptation import adapt_locally
from surefoot.prototypes.adapter import ResidualAdapter
from surefoot.prototypes.covering import coverage
from surefoot.prototypes.doors.leaving import charge, inspected, made_with, site_of
from surefoot.prototypes.doors.messages import (
    DRY,
    HEAD,
    METRICS,
    adapter_of,
    classes_of,
    config_of,
    parameters,
    rebuilt_head,
    release_of,
)
from surefoot.prototypes.doors.site_settings import Config, flag, made, own_records
from surefoot.prototypes.extraction import extract_prototypes
from surefoot.prototypes.guarantee import NOISE, OF_COVERAGE
from surefoot.prototypes.head import ZeroShotHead
from surefoot.prototypes.membership import audit_membership
from surefoot.prototypes.prototype_set import PrototypeSet
from surefoot.prototypes.splits import Rows
from surefoot.prototypes.task import MakePrototypeTask, PrototypeTask

with need("flwr", extra="federated", part="surefoot.prototypes on Flower"):
    from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict

    from surefoot.federated.records import FACTS, facts_record, to_arrays
    from surefoot.federated.run_config import node_of

KEPT_HEAD, PERSONAL = "surefoot-head", "surefoot-personal"
SENT, ABOUT = "surefoot-sent", "surefoot-about"


def upload(message: Message, context: Context, config: Config, make: MakePrototypeTask) -> Message:
    """Extract, enter into the ledger, write down, send."""
    asked = config_of(message)
    partition, count = node_of(context)
    task = made(make, config, partition)
    if task.encoder_id != asked.get("encoder", task.encoder_id):
        raise ValueError(
            f"this site's encoder is {task.encoder_id!r}, the server's is {asked['encoder']!r}: their "
            "embeddings have nothing in common; install the server's"
        )
    head, release, limit = _head(message, context), release_of(asked), config["max-epsilon"]
    if release is None and limit is not None:
        raise RuntimeError(
            f"this site releases nothing beyond max-epsilon {limit:g}, and the run asks for an upload "
            "without noise; start the run with an epsilon"
        )
    site, dry = site_of(config, partition, count), flag(config, "dry-run")
    if dry and site is None:
        raise SurefootError("dry-run writes the upload into site-dir: name that folder too")
    with own_records(partition):
        feats, labels = task.records(partition, count, classes_of(asked))
        feats = feats.to(head.weight.dtype)
        # Of a private upload nobody asks for what depends on them.
        aside = dry or release is None
        other = task.held_out(partition, count, classes_of(asked)) if aside else None
        records = hash_of((feats, labels))
    again = flag(config, "send-inspected")
    if again:
        protos = inspected(site, dry, asked, release, task.encoder_id, records)
    else:
        with own_records(partition):
            protos = extract_prototypes(
                feats, labels, method=str(asked["method"]), ratio=float(str(asked["ratio"])),
                min_cluster=int(str(asked["min-cluster"])), seed=int(str(asked["seed"])), dp=release,
                encoder_id=task.encoder_id,
            )  # fmt: skip
    numbers: dict[str, Any] = {
        "num-examples": sum(protos.counts.values()), "partition-id": partition,
    }  # fmt: skip
    if dry and site is not None:
        site.keep(protos, made_with(asked, records))
        site.keep_records("records", (feats, labels))
        if other is not None:
            site.keep_records("others", other)
        said = RecordDict({METRICS: MetricRecord(numbers)})
        said[DRY] = ConfigRecord({"file": str(site.upload)})
        return Message(said, reply_to=message)
    if release is None:
        with own_records(partition):
            numbers |= _leaks(protos, feats, labels, other)
        sent = protos.to_record()
        context.state[SENT], context.state[ABOUT] = sent["arrays"], sent["about"]
    elif NOISE in protos.record:
        numbers["noise-multipliers"] = protos.record.curves(NOISE).values[0].tolist()
    charge(context, site, release, config)
    # What is refused leaves nothing behind: the file is always what left last, or a dry run's.
    if site is not None and not again:
        site.keep(protos, made_with(asked, records))
    ledger = "state of the node" if site is None else "file of the site"
    protos.record.note(None, ledger=ledger)
    content = protos.to_record()
    content[METRICS] = MetricRecord(numbers)
    facts = facts_record(protos.record)
    if facts is not None:
        content[FACTS] = facts
    return Message(content, reply_to=message)


def _head(message: Message, context: Context) -> ZeroShotHead:
    """The head of this message, or of an earlier one."""
    if HEAD in message.content.array_records:
        context.state[KEPT_HEAD] = message.content.array_records[HEAD]
    rows = context.state.get(KEPT_HEAD)
    if not isinstance(rows, ArrayRecord):
        raise ValueError("the server sent no head, and this node knows none")
    return rebuilt_head(rows, config_of(message))


def _leaks(
    protos: PrototypeSet, feats: torch.Tensor, labels: torch.Tensor, other: Rows | None
) -> dict[str, float]:
    """What depends on the records beside the upload: sent without dp only."""
    found = {"coverage-distance": coverage(feats, labels, protos).distance}
    if other is not None:
        audit = audit_membership(protos, feats, labels, *other)
        found |= {"audit-auc": audit.auc, "raw-fraction": audit.raw_fraction}
    return found


def adapt(message: Message, context: Context, config: Config, make: MakePrototypeTask) -> Message:
    """Train an own adapter from the global one; it stays here."""
    asked = config_of(message)
    partition, count = node_of(context)
    task, head = made(make, config, partition), _head(message, context)
    shared = adapter_of(message.content)
    with own_records(partition):
        feats, labels = task.records(partition, count, classes_of(asked))
        personal = adapt_locally(
            shared, feats, labels, head, float(str(asked["kd-weight"])), int(str(asked["epochs"])),
            shots=int(str(asked["shots"])), seed=int(str(asked["seed"])),
        )  # fmt: skip
    context.state[PERSONAL] = to_arrays(parameters(personal))
    _keep(site_of(config, partition, count), "personal", personal)
    numbers = MetricRecord({"num-examples": len(labels), "partition-id": partition})
    return Message(RecordDict({METRICS: numbers}), reply_to=message)


def receive(message: Message, context: Context, config: Config, make: MakePrototypeTask) -> Message:
    """Take the global adapter, and say how good it is here where that was asked.

    A site with a limit says nothing: accuracies are no part of what its limit counts.
    """
    asked = config_of(message)
    partition, count = node_of(context)
    adapter, head = adapter_of(message.content), _head(message, context)
    _keep(site_of(config, partition, count), "global", adapter)
    numbers: dict[str, Any] = {"num-examples": 0, "partition-id": partition}
    if asked["score"] and config["max-epsilon"] is not None:
        logging.getLogger("flwr").warning(
            "the run asks for accuracies, which depend on the records; max-epsilon keeps them here"
        )
    elif asked["score"]:
        task, names = made(make, config, partition), classes_of(asked)
        with own_records(partition):
            numbers |= _measured(adapter, head, task, (partition, count, names), context)
    return Message(RecordDict({METRICS: MetricRecord(numbers)}), reply_to=message)


def _measured(
    adapter: ResidualAdapter,
    head: ZeroShotHead,
    task: PrototypeTask,
    which: tuple[int, int, tuple[str, ...]],
    context: Context,
) -> dict[str, Any]:
    """Accuracies on what was held out, and the numbers of G5 where the upload was not private."""
    own, found = task.held_out(*which), dict[str, Any]()
    if own is not None:
        found |= _scores(adapter, head, own, context)
    sent, about = context.state.get(SENT), context.state.get(ABOUT)
    if isinstance(sent, ArrayRecord) and isinstance(about, ConfigRecord):
        protos = PrototypeSet.from_record(RecordDict({"arrays": sent, "about": about}))
        feats, labels = task.records(*which)
        found |= _gap(adapter, head, feats.to(head.weight.dtype), labels, protos)
    return found


def _scores(
    adapter: ResidualAdapter, head: ZeroShotHead, own: Rows, context: Context
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "num-examples": len(own[1]),
        "accuracy": accuracy_matrix(adapter, [own], head).ind,
        "zero-shot-accuracy": accuracy_matrix(torch.nn.Identity(), [own], head).ind,
    }
    kept = context.state.get(PERSONAL)
    if isinstance(kept, ArrayRecord):
        personal = adapter_of(RecordDict({"arrays": kept}))
        found["personal-accuracy"] = accuracy_matrix(personal, [own], head).ind
    return found


def _gap(
    adapter: ResidualAdapter,
    head: ZeroShotHead,
    feats: torch.Tensor,
    labels: torch.Tensor,
    protos: PrototypeSet,
) -> dict[str, float]:
    """The numbers of G5, of the adapter that came back."""
    record = coverage(feats, labels, protos).record(adapter, head)
    return {name: float(record[name][0, 0]) for name in OF_COVERAGE}


def _keep(site: Site | None, kind: str, adapter: ResidualAdapter) -> None:
    if site is None:
        return
    write_tensors(site.adapter(kind), parameters(adapter), {})
