"""The check of G1: the federation's adapter beside the one of the pooled records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from surefoot._numerics.arguments import checked
from surefoot.prototypes._client.inputs import labelled
from surefoot.prototypes.adapter import ResidualAdapter
from surefoot.prototypes.guarantee import DIFFERING
from surefoot.prototypes.head import ZeroShotHead
from surefoot.prototypes.prototype_set import PrototypeSet, uploads_of
from surefoot.prototypes.server_training import ServerReport, train_global_adapter


@checked
def compare_with_pooled(
    sets: Sequence[PrototypeSet],
    feats: Any,
    y: Any,
    head: ZeroShotHead,
    **options: Any,
) -> tuple[ResidualAdapter, ServerReport]:
    """Train on uploads as `train_global_adapter` does, and again on the pooled records; count what differs.

    Parameters
    ----------
    sets
        The uploads, in partition order.
    feats, y
        (N, d) embeddings and (N,) classes of all clients, in partition order.
    head
        The classifier.
    **options
        Of `train_global_adapter`, for both.

    Returns
    -------
    tuple
        The federation's adapter and its report, whose record and certificates hold the comparison.
    """
    sets = uploads_of(sets)
    adapter, report = train_global_adapter(sets, head, **options)
    differing = differing_from_pooled(adapter, sets[0], feats, y, head, **options)
    report.record.append(options.get("seed", 0), 0, **{DIFFERING: differing})
    return adapter, report


def differing_from_pooled(
    adapter: ResidualAdapter,
    like: PrototypeSet,
    feats: Any,
    y: Any,
    head: ZeroShotHead,
    **options: Any,
) -> int:
    """Weights of an adapter that differ from those of training on the pooled records.

    Parameters
    ----------
    adapter
        Trained on uploads.
    like
        One of them: its dtype and encoder are taken.
    feats, y, head, **options
        As in `compare_with_pooled`.
    """
    z, labels = labelled(feats, y, head.d, head.classes)
    pooled = PrototypeSet(
        z.to(like.features.dtype), labels, torch.ones(len(labels)), "random", 1.0,
        dict(Counter(labels.tolist())), like.encoder_id,
    )  # fmt: skip
    other, _ = train_global_adapter([pooled], head, **options)
    return sum(
        int((a != b).sum()) for a, b in zip(adapter.parameters(), other.parameters(), strict=True)
    )
