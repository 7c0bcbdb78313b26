"""What an upload leaks: an attack that tells who was in it, and rows that are somebody's record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import rankdata
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import called
from surefoot._showing import showing
from surefoot.prototypes._client.inputs import labelled
from surefoot.prototypes.covering import nearest_of_class
from surefoot.prototypes.prototype_set import PrototypeSet, an_upload

LEAKS = 0.8
"""AUC from which an upload is flagged."""
SAME = 1e-6
"""Distance, relative to a record's norm, below which a row is that record."""


@showing
@checked(nan=True)
@dataclass(frozen=True)
class MembershipAudit:
    """A nearest-prototype membership attack; after a private release its outcome stays with the client.

    Attributes
    ----------
    auc
        Probability that a member is nearer to a prototype of its class than a record that was not in; 1/2:
        no leak seen.
    raw_fraction
        Fraction of the rows that equal one record of a member.
    skipped
        Records left out, as their class has no prototype.
    """

    auc: float
    raw_fraction: float
    skipped: int

    @property
    def flagged(self) -> bool:
        """Whether the upload holds raw records, or the attack reaches an AUC of 0.8."""
        return self.raw_fraction > 0 or self.auc >= LEAKS


@checked(leave=("protos",))
def audit_membership(
    protos: PrototypeSet, members: Any, y: Any, others: Any, y_others: Any
) -> MembershipAudit:
    """Attack an upload: the score of a record is minus its distance to the nearest prototype of its class.

    A low AUC of this one attack proves nothing; a high one proves a leak.

    Parameters
    ----------
    protos
        The upload.
    members, y
        (N, d) embeddings and (N,) classes from which it came.
    others, y_others
        Records of the same kind that were not in it.

    Raises
    ------
    ValueError
        Records that are not finite or of another dimension, or no record left on a side.
    """
    an_upload(protos)
    sides, skipped = [], 0
    for name, feats, labels in (("members", members, y), ("others", others, y_others)):
        with called(feats=name, y="y" if name == "members" else "y_others"):
            z, classes = labelled(feats, labels, protos.d, 2**62)
        away = nearest_of_class(z, classes, protos)[0]
        there = torch.isfinite(away)
        if not bool(there.any()):
            raise ValueError(f"{name} must hold a record of a class with prototypes, got none")
        skipped += int((~there).sum())
        sides.append((away[there].numpy(), z[there], classes[there]))
    (inside, z, classes), (outside, _, _) = sides
    ranks = rankdata(-np.concatenate([inside, outside]))
    n, m = len(inside), len(outside)
    auc = (ranks[:n].sum() - n * (n + 1) / 2) / (n * m)
    return MembershipAudit(float(auc), _raw(protos, z, classes), skipped)


def _raw(protos: PrototypeSet, z: Float[Tensor, "N d"], classes: Tensor) -> float:
    raw = 0
    for row, label in zip(protos.features.double(), protos.labels.tolist(), strict=True):
        own = z[classes == label]
        if not len(own):
            continue
        away = torch.linalg.vector_norm(own.double() - row, dim=1)
        raw += bool((away <= SAME * torch.linalg.vector_norm(own.double(), dim=1)).any())
    return raw / len(protos)
