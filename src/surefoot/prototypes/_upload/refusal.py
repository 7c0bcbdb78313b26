"""What a server refuses of an upload before it trains on it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch

from surefoot.prototypes.extraction import rows_of
from surefoot.prototypes.gaussian_release import GaussianRelease
from surefoot.prototypes.prototype_set import PrototypeSet

LONGEST = 1e6
"""Norm of a row above which the arithmetic of the training is in danger."""


@dataclass(frozen=True)
class Asked:
    """What the clients were asked for.

    Attributes
    ----------
    method
        Of the extraction.
    ratio
        Of the extraction.
    dp
        The release; None: no noise.
    d
        Dimension of the embeddings.
    classes
        Of the head.
    dtype
        Of the head, and of all features.
    encoder_id
        Name or hash; None: nobody said.
    most_records
        That a client may claim.
    on_sphere
        Whether the sampler takes means of embeddings of norm 1 only.
    """

    method: str
    ratio: float
    dp: GaussianRelease | None
    d: int
    classes: int
    dtype: torch.dtype
    encoder_id: str | None
    most_records: int
    on_sphere: bool

    def check(self, protos: PrototypeSet) -> None:
        """Refuse an upload that is not what was asked for.

        Raises
        ------
        ValueError
            With what it is and what was asked for.
        """
        pairs = {
            "dimension": (protos.d, self.d),
            "encoder": (protos.encoder_id, self.encoder_id),
            "dtype": (protos.features.dtype, self.dtype),
            "method": (protos.method, self.method),
            "ratio": (protos.ratio, self.ratio),
            "release": (protos.release, self.dp),
        }
        for what, (given, asked) in pairs.items():
            if given != asked and not (what == "encoder" and asked is None):
                raise ValueError(f"its {what} is {given}, asked for was {asked}")
        if (label := int(protos.labels.max())) >= self.classes:
            raise ValueError(
                f"labels must be below {self.classes}, the classes of the head, got {label}"
            )
        if (records := sum(protos.counts.values())) > self.most_records:
            raise ValueError(
                f"its counts claim {records:,} records, allowed are {self.most_records:,}: features are "
                "drawn by the counts; raise most_records if a client has as many"
            )
        self._check_rows(protos)

    def _check_rows(self, protos: PrototypeSet) -> None:
        rows = Counter(protos.labels.tolist())
        for label, count in protos.counts.items():
            most = 1 if self.method in ("mean", "gauss") else rows_of(self.ratio, count)
            fixed = self.method not in ("cluster", "cluster_var")
            if rows[label] > most or (fixed and rows[label] != most):
                raise ValueError(
                    f"class {label} has {rows[label]} rows of {count} records, by method {self.method!r} "
                    f"they are {'' if fixed else 'at most '}{most}"
                )
        longest = float(torch.linalg.vector_norm(protos.features.double(), dim=1).max())
        widest = max((float(v.max()) for v in protos.variances.values()), default=0.0)
        if not (longest <= LONGEST and widest <= LONGEST**2):
            raise ValueError(
                f"its rows have norms up to {longest:.3g} and variances up to {widest:.3g}; allowed are "
                f"{LONGEST:g} and {LONGEST**2:g}: scale the embeddings"
            )
        exact = protos.release is None or protos.release.nu == 0
        clip = 1.0 if protos.release is None else protos.release.clip
        if self.on_sphere and exact and longest > clip * (1 + 1e-4):
            raise ValueError(
                f"the additive sampler takes embeddings of norm {clip:g}, but one of its means has norm "
                f"{longest:.4g}; normalise them at the clients, or release them with a clip"
            )
