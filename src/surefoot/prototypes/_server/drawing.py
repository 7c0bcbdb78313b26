"""What the server trains on: the prototypes themselves, or features drawn around them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from surefoot._numerics.seeds import generator_for
from surefoot.prototypes.additive import additive_model, clip_of
from surefoot.prototypes.prototype_set import PrototypeSet

Sampler = Literal["additive"] | None
PER_RECORD = 2
"""Features drawn for each record of a client."""
Drawn = tuple[Float[Tensor, "N d"], Int[Tensor, " N"]]


def training_features(
    sets: Sequence[PrototypeSet], sampler: Sampler, residual: bool, seed: int
) -> Drawn:
    """Features and labels of all clients, in partition order."""
    if sampler == "additive":
        parts = _additive(sets, residual, seed)
    else:
        parts = [_of_one(s, i, seed) for i, s in enumerate(sets)]
    return torch.cat([z for z, _ in parts]), torch.cat([y for _, y in parts])


def _of_one(s: PrototypeSet, client: int, seed: int) -> Drawn:
    labels = s.labels.long()
    if s.method == "cluster_var":
        return _around_centres(s, labels, client, seed)
    return _around_means(s, labels, client, seed) if s.method == "gauss" else (s.features, labels)


def _normal(count: int, d: int, like: Tensor, generator: torch.Generator) -> Float[Tensor, "n d"]:
    return torch.randn(count, d, generator=generator, dtype=like.dtype)


def _around_centres(s: PrototypeSet, labels: Int[Tensor, " M"], client: int, seed: int) -> Drawn:
    features, classes = [], []
    for label, count in sorted(s.counts.items()):
        own = labels == label
        generator = generator_for("cluster_var", seed, client, label)
        drawn = PER_RECORD * count
        which = torch.multinomial(s.weights[own].double(), drawn, True, generator=generator)
        spread = s.variances[label].to(s.features.dtype).sqrt()
        centres = s.features[own][which]
        features.append(centres + spread * _normal(drawn, s.d, centres, generator))
        classes.append(torch.full((drawn,), label))
    return torch.cat(features), torch.cat(classes)


def _around_means(s: PrototypeSet, labels: Int[Tensor, " M"], client: int, seed: int) -> Drawn:
    """The covariance within classes is the second moment less that of the means, without their noise."""
    assert s.moment is not None
    frame = torch.eye(s.d) if s.basis is None else s.basis
    means = s.features.double() @ frame.double()
    counts = torch.tensor([s.counts[c] for c in labels.tolist()], dtype=torch.float64)
    share = counts / counts.sum()
    noise = 0.0
    if s.release is not None:
        sigma2 = [s.release.sigma(s.counts[c]) ** 2 for c in labels.tolist()]
        noise = float(share @ torch.tensor(sigma2, dtype=torch.float64))
    within = s.moment.double() - (means * share[:, None]).T @ means
    within += noise * torch.eye(len(within), dtype=torch.float64)
    values, vectors = torch.linalg.eigh((within + within.T) / 2)
    root = (frame.double() @ vectors * values.clamp(min=0).sqrt()).to(s.features.dtype)
    features, classes = [], []
    for row, label in zip(s.features, labels.tolist(), strict=True):
        generator = generator_for("gauss", seed, client, label)
        drawn = PER_RECORD * s.counts[label]
        features.append(row + _normal(drawn, root.shape[1], row, generator) @ root.T)
        classes.append(torch.full((drawn,), label))
    return torch.cat(features), torch.cat(classes)


def _additive(sets: Sequence[PrototypeSet], residual: bool, seed: int) -> list[Drawn]:
    centres, variance = additive_model(sets, residual)
    clip, parts = clip_of(sets), []
    for i, (s, own) in enumerate(zip(sets, centres, strict=True)):
        for row, label in zip(own, s.labels.tolist(), strict=True):
            generator = generator_for("additive", seed, i, label)
            drawn = PER_RECORD * s.counts[label]
            z = row + variance**0.5 * _normal(drawn, s.d, row, generator)
            sizes = torch.linalg.vector_norm(z.double(), dim=1, keepdim=True).to(z.dtype)
            parts.append((clip * z / sizes, torch.full((drawn,), label)))
    return parts
