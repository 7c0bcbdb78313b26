"""How much prototypes can lose against the records behind them: a distance, and a bound for every adapter."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from surefoot._numerics.arguments import checked
from surefoot._showing import showing
from surefoot.certificate import Certificate
from surefoot.prototypes._client.inputs import labelled
from surefoot.prototypes.adapter import ResidualAdapter
from surefoot.prototypes.certificates import of_coverage
from surefoot.prototypes.guarantee import COVERAGE_BOUND, RISK_GAP, RISK_RECORDS, TRIVIAL_GAP
from surefoot.prototypes.head import ZeroShotHead
from surefoot.prototypes.prototype_set import PrototypeSet, an_upload
from surefoot.record import Record

CHUNK = 2048


@showing
@checked(nan=True)
@dataclass(frozen=True)
class Coverage:
    """Each record of a client assigned to the nearest prototype of its class.

    It depends on the records: after a private release it stays with the client.

    Attributes
    ----------
    distance
        Mean distance of a record to its prototype, in the unit of the embeddings.
    shares
        (M,) fraction of the records assigned to each row; the weights under which `bound` holds.
    """

    distance: float
    shares: Float[Tensor, " M"]
    _prototypes: PrototypeSet = field(repr=False)
    _features: Float[Tensor, "N d"] = field(repr=False)
    _labels: Int[Tensor, " N"] = field(repr=False)

    def bound(self, adapter: ResidualAdapter, head: ZeroShotHead) -> float:
        """At least |risk on the records - risk on the prototypes by `shares`|, of any adapter [derived].

        Lambda distance, Lambda = sqrt(2) |H| (1 + |W2| |W1|) in spectral norms; a head that normalises
        multiplies it by 2 / min |u(p)| over the prototypes in use (Dunkl and Williams). Infinite where some
        u(p) = 0.
        """
        W1, W2, H = (
            float(torch.linalg.matrix_norm(w.detach().double(), ord=2))
            for w in (adapter.down.weight, adapter.up.weight, head.weight)
        )
        steepness = math.sqrt(2) * H * (1 + W2 * W1)
        if self.distance == 0:
            return 0.0
        if not head.normalize:
            return steepness * self.distance
        used = self.shares > 0
        with torch.no_grad():
            u = _double(adapter)(self._prototypes.features[used].double())
        least = float(torch.linalg.vector_norm(u.double(), dim=1).min())
        return math.inf if least == 0 else steepness * self.distance * 2 / least

    @staticmethod
    def trivial(head: ZeroShotHead) -> float:
        """What bounded logits give anyway: 2 scale + ln K; infinite where the head does not normalise."""
        return 2 * head.scale + math.log(head.classes) if head.normalize else math.inf

    def gap(self, adapter: ResidualAdapter, head: ZeroShotHead) -> float:
        """|risk on the records - risk on the prototypes, weighted by `shares`|, in float64."""
        records, prototypes = self._risks(adapter, head)
        return abs(records - prototypes)

    def _risks(self, adapter: ResidualAdapter, head: ZeroShotHead) -> tuple[float, float]:
        model = nn.Sequential(_double(adapter), head)
        rows = self._prototypes
        with torch.no_grad():
            loss, own = (
                nn.functional.cross_entropy(model(z.double()), y, reduction="none")
                for z, y in ((self._features, self._labels), (rows.features, rows.labels.long()))
            )
        return float(loss.mean()), float(self.shares @ own)

    def certificates(
        self,
        adapters: ResidualAdapter | Iterable[ResidualAdapter],
        head: ZeroShotHead,
        confidence: float = 0.99,
    ) -> list[Certificate]:
        """The bound beside the gap, of one or several adapters.

        Parameters
        ----------
        adapters
            Of any weights.
        head
            The classifier.
        confidence
            As in `certify`.
        """
        return of_coverage(self.record(adapters, head), confidence)

    def record(
        self, adapters: ResidualAdapter | Iterable[ResidualAdapter], head: ZeroShotHead
    ) -> Record:
        """Gap, bound and trivial bound of each adapter, one a step."""
        record = Record()
        listed = [adapters] if isinstance(adapters, ResidualAdapter) else adapters
        for step, adapter in enumerate(listed):
            risks = self._risks(adapter, head)
            values = {
                RISK_GAP: abs(risks[0] - risks[1]), COVERAGE_BOUND: self.bound(adapter, head),
                TRIVIAL_GAP: self.trivial(head), RISK_RECORDS: risks[0],
                "coverage distance": self.distance,
            }  # fmt: skip
            record.update(0, step, values)
        record.note(
            assignment="nearest of class and client", weights="assigned shares",
            loss="cross-entropy", dtype="float64", method=self._prototypes.method,
        )  # fmt: skip
        return record


@checked(leave=("protos",))
def coverage(feats: Any, y: Any, protos: PrototypeSet) -> Coverage:
    """Assign the records of a client to its own prototypes.

    Of "cluster_var" and the additive sampler it speaks of the centres, not of the features drawn around them.

    Parameters
    ----------
    feats, y
        (N, d) embeddings and (N,) classes from which the prototypes came.
    protos
        The prototypes.

    Raises
    ------
    ValueError
        Records that are not finite, of another dimension, or of a class without prototypes.
    """
    most = int(an_upload(protos).labels.max()) + 1
    z, labels = labelled(feats, y, protos.d, most, "the upload")
    away, nearest = nearest_of_class(z, labels, protos)
    if not bool(torch.isfinite(away).all()):
        lacking = sorted(set(labels.tolist()) - set(protos.counts))
        raise ValueError(f"protos has no prototype of classes {lacking}; extract from all records")
    shares = torch.bincount(nearest, minlength=len(protos)).double() / len(z)
    return Coverage(float(away.mean()), shares, protos, z, labels)


def nearest_of_class(
    z: Float[Tensor, "N d"], labels: Int[Tensor, " N"], protos: PrototypeSet
) -> tuple[Float[Tensor, " N"], Int[Tensor, " N"]]:
    """Distance to the nearest prototype of the own class, and which; infinite and -1 where there is none."""
    away = torch.full((len(z),), math.inf, dtype=torch.float64)
    nearest = torch.full((len(z),), -1, dtype=torch.int64)
    for label in sorted(set(labels.tolist())):
        rows = torch.nonzero(protos.labels == label).flatten()
        if not len(rows):
            continue
        centres = protos.features[rows].double()
        for part in torch.split(torch.nonzero(labels == label).flatten(), CHUNK):
            found = _distances(z[part].double(), centres).min(dim=1)
            away[part], nearest[part] = found.values, rows[found.indices]
    return away, nearest


def nearest_row(
    protos: PrototypeSet, z: Float[Tensor, "N d"], labels: Int[Tensor, " N"]
) -> Float[Tensor, " M"]:
    """Distance of each prototype to the nearest record of its class; infinite where there is none."""
    away = torch.full((len(protos),), math.inf, dtype=torch.float64)
    for label in sorted(set(protos.labels.tolist())):
        own = z[labels == label]
        if not len(own):
            continue
        rows = torch.nonzero(protos.labels == label).flatten()
        for part in torch.split(rows, CHUNK):
            away[part] = _distances(protos.features[part].double(), own.double()).min(dim=1).values
    return away


def _distances(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    # The expanded square has no digits left where a record is its own prototype.
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def _double(adapter: ResidualAdapter) -> ResidualAdapter:
    copied = ResidualAdapter(adapter.d, adapter.down.out_features, seed=0, dtype=torch.float64)
    copied.load_state_dict(adapter.state_dict())
    return copied
