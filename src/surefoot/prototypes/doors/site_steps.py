"""What a site does with each message: extract and upload, adapt, receive and score."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Mapping
from typing import Any

import torch

from surefoot._numerics.checks import check_number
from surefoot._run.files import replacing
from surefoot.errors import SurefootError, need
from surefoot.prototypes._client.site import Site
from surefoot.prototypes.accuracy import accuracy_matrix
from surefoot.prototypes.adaptation import adapt_locally
from surefoot.prototypes.adapter import ResidualAdapter
from surefoot.prototypes.covering import coverage
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
from surefoot.prototypes.extraction import extract_prototypes
from surefoot.prototypes.gaussian_release import GaussianRelease
from surefoot.prototypes.guarantee import NOISE, OF_COVERAGE
from surefoot.prototypes.head import ZeroShotHead
from surefoot.prototypes.ledger import Ledger
from surefoot.prototypes.membership import audit_membership
from surefoot.prototypes.prototype_set import PrototypeSet
from surefoot.prototypes.splits import Rows
from surefoot.prototypes.task import MakePrototypeTask, PrototypeTask

with need("flwr", extra="federated", part="surefoot.prototypes on Flower"):
    from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict

    from surefoot.federated.records import FACTS, facts_record, to_arrays

OF_SITE = ("data-path", "site-dir", "dry-run", "send-inspected")
"""Keys of a node that stand before those of the run."""
LEDGER, KEPT_HEAD, PERSONAL = "surefoot-ledger", "surefoot-head", "surefoot-personal"
SENT, ABOUT = "surefoot-sent", "surefoot-about"
OF_NO_RELEASE = 1e-5
"""Delta at which an infinite epsilon is stated."""
Config = Mapping[str, Any]


def node(context: Context) -> tuple[int, int]:
    """Partition, and how many there are."""
    try:
        return int(context.node_config["partition-id"]), int(context.node_config["num-partitions"])
    except KeyError as error:
        raise KeyError(
            f"the node's configuration lacks {error}; start it with "
            '--node-config "partition-id=0 num-partitions=2"'
        ) from None


def settings(context: Context, defaults: Config) -> dict[str, Any]:
    """The run's configuration, and before it what the site decides."""
    found = {**defaults, **context.run_config}
    found |= {k: context.node_config[k] for k in OF_SITE if k in context.node_config}
    if "data-path" in context.node_config:
        found["own-data"] = True
    # The site's limit cannot be raised by whoever starts the run.
    limits = [given.get("max-epsilon") for given in (found, context.node_config)]
    numbers = [
        check_number("max-epsilon", v, above=0, finite=False)
        for v in limits
        if v not in (None, "none")
    ]
    found["max-epsilon"] = min(numbers, default=None)
    return found


def upload(message: Message, context: Context, config: Config, make: MakePrototypeTask) -> Message:
    """Extract, write down, enter into the ledger, send."""
    asked = config_of(message)
    partition, count = node(context)
    task = make(config)
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
    names = classes_of(asked)
    feats, labels = task.records(partition, count, names)
    feats = feats.to(head.weight.dtype)
    site, dry = _site(config, partition), _flag(config, "dry-run")
    if _flag(config, "send-inspected"):
        protos = _inspected(site, dry, asked, release, task)
    else:
        protos = extract_prototypes(
            feats, labels, method=str(asked["method"]), ratio=float(str(asked["ratio"])),
            min_cluster=int(str(asked["min-cluster"])), seed=int(str(asked["seed"])), dp=release,
            encoder_id=task.encoder_id,
        )  # fmt: skip
        if site is not None:
            site.keep(protos)
    numbers: dict[str, Any] = {
        "num-examples": sum(protos.counts.values()), "partition-id": partition,
    }  # fmt: skip
    if dry:
        if site is None:
            raise SurefootError("dry-run writes the upload into site-dir: name that folder too")
        site.keep_records("records", (feats, labels))
        other = task.held_out(partition, count, names)
        if other is not None:
            site.keep_records("others", other)
        said = RecordDict({METRICS: MetricRecord(numbers)})
        said[DRY] = ConfigRecord({"file": str(site.upload)})
        return Message(said, reply_to=message)
    if release is None:
        numbers |= _leaks(protos, feats, labels, task.held_out(partition, count, names))
        sent = protos.to_record()
        context.state[SENT], context.state[ABOUT] = sent["arrays"], sent["about"]
    elif NOISE in protos.record:
        numbers["noise-multipliers"] = protos.record.curves(NOISE).values[0].tolist()
    _charge(context, site, release, limit)
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


def _site(config: Config, partition: int) -> Site | None:
    folder = str(config.get("site-dir", "") or "")
    return Site(folder, partition) if folder else None


def _flag(config: Config, key: str) -> bool:
    given = config.get(key, False)
    if not isinstance(given, bool):
        raise ValueError(f"{key} must be true or false, got {given!r}")
    return given


def _inspected(
    site: Site | None,
    dry: bool,
    asked: ConfigRecord,
    release: GaussianRelease | None,
    task: PrototypeTask,
) -> PrototypeSet:
    """The upload that was written before, to the last bit."""
    if site is None:
        raise SurefootError("send-inspected sends the upload in site-dir: name that folder too")
    if dry:
        raise SurefootError("dry-run sends nothing and send-inspected sends: give one of the two")
    protos = site.kept()
    wanted = (asked["method"], asked["ratio"], release, task.encoder_id)
    found = (protos.method, protos.ratio, protos.release, protos.encoder_id)
    if found != wanted:
        raise SurefootError(
            f"{site.upload} is {found}, the run asks for {wanted} (method, ratio, release, encoder); do the "
            "dry run again"
        )
    return protos


def _leaks(
    protos: PrototypeSet, feats: torch.Tensor, labels: torch.Tensor, other: Rows | None
) -> dict[str, float]:
    """What depends on the records beside the upload: sent without dp only."""
    found = {"coverage-distance": coverage(feats, labels, protos).distance}
    if other is not None:
        audit = audit_membership(protos, feats, labels, *other)
        found |= {"audit-auc": audit.auc, "raw-fraction": audit.raw_fraction}
    return found


def _charge(
    context: Context, site: Site | None, release: GaussianRelease | None, limit: float | None
) -> None:
    """Enter what leaves into the state of the node, and into the file of the site, before it leaves.

    Without a limit of its own a site releases once: the limit is the epsilon of the release. What leaves
    without noise is entered as infinite: nothing can be promised of those records afterwards.

    Raises
    ------
    RuntimeError
        It would exceed the limit.
    """
    kept = context.state.get(LEDGER)
    before = Ledger.from_record(kept).mu_squared if isinstance(kept, ConfigRecord) else 0.0
    if release is not None and site is None and kept is None:
        logging.getLogger("flwr").warning(
            "no site-dir: what is released is counted in the state of this node alone, and another run may "
            "begin at 0; name a folder that outlives it"
        )
    with contextlib.nullcontext() if site is None else site.alone():
        before = before if site is None else max(before, site.spent())
        if release is None:
            ledger = Ledger(math.inf, OF_NO_RELEASE, math.inf)
        else:
            ledger = Ledger(release.epsilon if limit is None else limit, release.delta, before)
            ledger.charge(release)
        if site is not None:
            site.write_spent(ledger.mu_squared, ledger.spent, ledger.delta)
    context.state[LEDGER] = ledger.to_record()


def adapt(message: Message, context: Context, config: Config, make: MakePrototypeTask) -> Message:
    """Train an own adapter from the global one; it stays here."""
    asked = config_of(message)
    partition, count = node(context)
    task, head = make(config), _head(message, context)
    feats, labels = task.records(partition, count, classes_of(asked))
    personal = adapt_locally(
        adapter_of(message.content), feats, labels, head, float(str(asked["kd-weight"])),
        int(str(asked["epochs"])), shots=int(str(asked["shots"])), seed=int(str(asked["seed"])),
    )  # fmt: skip
    context.state[PERSONAL] = to_arrays(parameters(personal))
    _keep(_site(config, partition), "personal", personal)
    numbers = MetricRecord({"num-examples": len(labels), "partition-id": partition})
    return Message(RecordDict({METRICS: numbers}), reply_to=message)


def receive(message: Message, context: Context, config: Config, make: MakePrototypeTask) -> Message:
    """Take the global adapter, and say how good it is here where that was asked."""
    asked = config_of(message)
    partition, count = node(context)
    adapter, head = adapter_of(message.content), _head(message, context)
    _keep(_site(config, partition), "global", adapter)
    numbers: dict[str, Any] = {"num-examples": 0, "partition-id": partition}
    if asked["score"]:
        task, names = make(config), classes_of(asked)
        own = task.held_out(partition, count, names)
        if own is not None:
            numbers |= _scores(adapter, head, own, context)
        sent, about = context.state.get(SENT), context.state.get(ABOUT)
        if isinstance(sent, ArrayRecord) and isinstance(about, ConfigRecord):
            protos = PrototypeSet.from_record(RecordDict({"arrays": sent, "about": about}))
            feats, labels = task.records(partition, count, names)
            numbers |= _gap(adapter, head, feats.to(head.weight.dtype), labels, protos)
    return Message(RecordDict({METRICS: MetricRecord(numbers)}), reply_to=message)


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
    with need("safetensors", extra="federated", part="an adapter in site-dir"):
        from safetensors.torch import save_file

    with replacing(site.adapter(kind)) as partial:
        save_file(parameters(adapter), partial)
